"""What an archive holds, on one screen and in one picture.

    print("\n".join(summarise(recordings, taxonomy, folds=5)))
    draw_summary(recordings, taxonomy, Path("summary.png"))

Writes   summary.png: recordings per species by class, durations, hours of the day where they are known
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import wrap

import numpy as np

from archive.recordings import Recording
from runtime.files import publish
from taxonomy import CLASS, Taxonomy

SHOWN = 5  # of anything: the screen is small
WIDTH, INDENT = 100, 15  # characters
UNKNOWN = "class unknown"
RARE = 5  # recordings: a species with fewer is hard to learn and harder to validate


def summarise(recordings: Sequence[Recording], taxonomy: Taxonomy | None, folds: int) -> list[str]:
    """Some thirty lines at most, whatever the archive."""
    sound = [row for row in recordings if row.sound]
    files = {row.path: row for row in recordings}
    usable = list({row.path: row for row in sound}.values())
    labelled = [row for row in sound if row.labels]
    without_species = [row for row in sound if row.listened and not row.labels]
    free = [row for row in usable if not row.labeled]
    # the sound itself
    kinds = Counter(row.path.suffix.lower() or "none" for row in files.values())
    rates = Counter(f"{row.sample_rate / 1000:g} kHz" for row in usable)
    lines = [
        line("files", f"{len(files):,}: {counts_of(kinds)}"),
        line("sound", f"{hours(usable):,.2f} h in {len(usable):,} recordings; {counts_of(rates)}"),
    ]
    if usable:
        lengths = np.array([row.seconds for row in usable])
        low, middle, high = np.percentile(lengths, [5, 50, 95])
        lines.append(line("length", f"median {middle:.1f} s, 90 % between {low:.1f} and {high:.1f} s"))
        several = sum(row.channels > 1 for row in usable)
        lines += [line("channels", f"{several:,} recordings have more than one; their mean is used")] if several else []
    # what is in it
    if labelled and taxonomy:
        lines += species_lines(labelled, taxonomy, folds)
    if without_species:
        lines.append(line("no species", f"{len(without_species):,} recordings in which none of them was found"))
    if free:
        lines.append(
            line("unlabelled", f"{len(free):,} recordings, {hours(free):,.2f} h: stage 1 learns from them too")
        )
    # who recorded it, where, on what terms
    authors = Counter(row.author for row in usable if row.author)
    if authors:
        unsigned = sum(not row.author for row in usable)
        lines.append(
            line(
                "recordists", f"{len(authors):,}: {counts_of(authors)}" + (f"; {unsigned:,} unsigned" * (unsigned > 0))
            )
        )
    sites = Counter(row.site for row in usable if row.site)
    lines += [line("sites", f"{len(sites):,}: {counts_of(sites)}")] if sites else []
    licenses = Counter(row.license for row in usable if row.license)
    lines += [line("licences", counts_of(licenses))] if licenses else []
    lines.append(line("groups", f"{len({row.group for row in sound}):,} that no split divides"))
    # what is left out, and why
    aside = [row for row in recordings if not row.sound]
    for status, count in Counter(row.status for row in aside).most_common():
        reasons = Counter(row.reason for row in aside if row.status == status)
        example = next(row for row in aside if row.status == status)
        why = counts_of(reasons) if len(reasons) < SHOWN else f"{example.name}: {example.reason}"
        lines.append(line("set aside", f"{count:,} {status}: {why}"))
    wrapped = partial(wrap, width=WIDTH, subsequent_indent=" " * INDENT, max_lines=2, placeholder=" ...")
    return [piece for text in lines for piece in wrapped(text)]


def draw_summary(recordings: Sequence[Recording], taxonomy: Taxonomy | None, path: Path) -> Path:
    """The picture: what there is much of and what there is little of."""
    from matplotlib.figure import Figure  # slow to import, and only drawn once

    sound = [row for row in recordings if row.sound]
    labelled = [row for row in sound if row.labels]
    clock = [hour for row in sound if (hour := hour_begun(row)) is not None]
    panels = [bool(labelled and taxonomy), bool(sound), bool(clock)]
    figure = Figure(figsize=(5.2 * max(1, sum(panels)), 3.8), layout="constrained")
    spots = iter([figure.add_subplot(1, max(1, sum(panels)), number + 1) for number in range(max(1, sum(panels)))])
    if labelled and taxonomy:
        axes, counts = next(spots), Counter(row.labels[0] for row in labelled)
        groups = class_of_label(taxonomy)
        left = 0
        for number, (group, size) in enumerate(Counter(groups[label] for label in counts).most_common()):
            heights = sorted((count for label, count in counts.items() if groups[label] == group), reverse=True)
            name = f"{group} ({size})"
            axes.bar(range(left, left + size), heights, width=1.0, color=f"C{number}", label=name)
            left += size
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("species by class, the commonest first")
        axes.set_ylabel("recordings")
        axes.legend(title="class", fontsize="small")
        axes.set_title(f"{len(labelled):,} recordings of {len(counts):,} species")
    if sound:
        axes = next(spots)
        lengths = np.array([row.seconds for row in {row.path: row for row in sound}.values()])
        edges = np.geomspace(max(float(lengths.min()), 0.05), max(float(lengths.max()), 0.1) * 1.01, 40)
        axes.hist(lengths, edges.tolist(), color="tab:green")
        axes.axvline(5.0, color="black", linewidth=1, linestyle=":")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("seconds (dotted: a window of 5 s)")
        axes.set_ylabel("recordings")
        axes.set_title(f"durations, {lengths.sum() / 3600:,.1f} h in all")
    if clock:
        axes = next(spots)
        axes.hist(clock, [hour - 0.5 for hour in range(25)], color="tab:blue")
        axes.set_xticks(range(0, 24, 3))
        axes.set_xlabel("hour of the day, as the recorder's clock says")
        axes.set_ylabel("recordings")
        axes.set_title(f"times of {len(clock):,} recordings")
    with publish(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path


def species_lines(labelled: Sequence[Recording], taxonomy: Taxonomy, folds: int) -> list[str]:
    """Species, classes, what is rare, what cannot be validated, what comes from one collection alone."""
    counts = Counter(row.labels[0] for row in labelled)
    names = dict(zip(taxonomy.labels, taxonomy.common_names, strict=True))
    groups = class_of_label(taxonomy)
    classes = Counter(groups[label] for label in counts)
    clips = Counter(groups[row.labels[0]] for row in labelled)
    parts = [f"{group} {count} ({clips[group]:,})" for group, count in classes.most_common(SHOWN)]
    others = sum(len(row.labels) > 1 for row in labelled)
    lines = [
        line("species", f"{len(counts):,} in {len(labelled):,} labelled rows: {', '.join(parts)}"),
        line("commonest", counts_by_name(counts.most_common(SHOWN), names)),
        line("rarest", counts_by_name(sorted(counts.items(), key=lambda item: (item[1], item[0]))[:SHOWN], names)),
    ]
    # what cannot be learnt or judged
    rare = sum(count < RARE for count in counts.values())
    lines += [line("", f"{rare:,} species have fewer than {RARE} recordings")] if rare else []
    lines += [line("background", f"{others:,} rows name further species")] if others else []
    held = {row.labels[0] for row in labelled if row.fold < folds}
    never = sorted(set(counts) - held)
    if never:
        lines.append(
            line("never held out", f"{len(never):,} species that one group alone has: {', '.join(never[:SHOWN])}")
        )
    sizes = Counter(row.fold for row in labelled)
    spread = ", ".join(f"{fold}: {sizes[fold]:,}" for fold in sorted(sizes))
    lines.append(line("folds", f"{spread}" + (f" ({folds}: never held out)" if folds in sizes else "")))
    # what may be learnt in place of the species
    collections = {row.labels[0]: set[str]() for row in labelled}
    for row in labelled:
        collections[row.labels[0]].add(row.source)
    if len({row.source for row in labelled}) > 1:
        alone = Counter(next(iter(found)) for found in collections.values() if len(found) == 1)
        if alone:
            text = f"{sum(alone.values()):,} species come from one collection alone ({counts_of(alone)}): "
            lines.append(line("beware", text + "its sound may be learnt for theirs"))
    return lines


def class_of_label(taxonomy: Taxonomy) -> dict[str, str]:
    """Label -> its class; all that nobody knows are one, however many there are."""
    classes = (lineage[CLASS] for lineage in taxonomy.lineages)
    return {label: UNKNOWN if one.startswith("?") else one for label, one in zip(taxonomy.labels, classes, strict=True)}


def hours(recordings: Iterable[Recording]) -> float:
    """What is used of all recordings together, each file once."""
    whole = ((row.path, replace(row, start=None, end=None)) for row in recordings)
    seconds = {path: sum(end - start for start, end in row.usable) or row.seconds for path, row in whole}
    return sum(seconds.values()) / 3600


def hour_begun(row: Recording) -> int | None:
    """The hour of the day at which a recording began, if it says so."""
    time = row.recorded_at.partition("T")[2]
    return int(time[:2]) if time[:2].isdecimal() else None


def counts_by_name(counts: Iterable[tuple[str, int]], names: dict[str, str]) -> str:
    return ", ".join(f"{names.get(label, label)} {count:,}" for label, count in counts)


def counts_of(counts: Counter[str]) -> str:
    """The most frequent, and how many more there are."""
    shown = ", ".join(f"{count:,} {name}" for name, count in counts.most_common(SHOWN))
    return shown + (f" and {len(counts) - SHOWN:,} more" if len(counts) > SHOWN else "")


def line(what: str, text: str) -> str:
    return f"{what:{INDENT}}{text}"


if __name__ == "__main__":
    ranks = ("Animalia", "Chordata", "Aves", "Strigiformes", "Strigidae", "Strix", "Strix aluco")
    frogs = ("Animalia", "Chordata", "Amphibia", "Anura", "Ranidae", "Rana", "Rana temporaria")
    taxonomy = Taxonomy(("owl", "frog"), (ranks[6], frogs[6]), ("Tawny Owl", "Common Frog"), (ranks, frogs), (7, 7))
    rows: list[Recording] = []
    for number in range(60):
        row = Recording(Path(f"{number}.ogg"), f"{number}.ogg", ("owl",) if number % 3 else ("frog",), seconds=20.0)
        rows.append(replace(row, fold=number % 2, recorded_at=f"2026-05-01T{number % 6:02d}:00:00", sample_rate=32_000))
    lines = summarise(rows, taxonomy, folds=2)
    print("\n".join(lines))
    with tempfile.TemporaryDirectory() as folder:
        picture = draw_summary(rows, taxonomy, Path(folder) / "summary.png").stat().st_size
    assert any("Tawny Owl 40" in text for text in lines) and len(lines) < 30 and picture > 10_000
