"""Windows labelled by a classifier: what its scores become, and what of them may be trained on.

    limits = read_limits(None, labels, lowest=0.1, highest=0.95, sure=0.5)
    labels, scores = limits.labels_of(probabilities)                  # of one window
    rows = read_pseudo_labels(Path("pseudo/recordings.csv"), taxonomy.labels)
    rows = apart_from(rows, train, valid, labelled_with(table).get("site_regex", ""))

Reads    the recordings.csv of pseudo_label.py: a row per window, its labels and their scores, the surest first; beside
         it run.json, which names the classifiers; a table of limits per species

No torch.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from archive.duplicates import copies_of
from archive.recorders import read_name
from archive.recordings import Recording, is_number, read_recordings, write_recordings
from archive.survey import BIRDS, Band, examine, with_outcome
from runtime import processes
from runtime.addresses import Address
from runtime.csvs import read_table
from runtime.files import read_json
from runtime.terminal import show
from sounds.notes import assumed_expansion

TEACHERS = "teachers"  # in run.json: the classifiers that scored
BEYOND = 0.01  # seconds: rounding of a window's end
FOLDERS_OF_SITES = ("", "annotations", "unlabeled", "verdicts")  # sources whose folders are not named after species


@dataclass(frozen=True)
class Limits:
    """From a window's scores to its labels."""

    labels: tuple[str, ...]
    lowest: NDArray[np.float64]  # (species,) what is below it counts as 0
    highest: NDArray[np.float64]  # (species,) what is above it counts as this
    sure: float  # a window in which no species that has a label reaches it has no label at all

    def labels_of(self, probabilities: NDArray[np.float32]) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """Labels and scores of a window from its (species,) probabilities, the surest first."""
        given = probabilities.astype(np.float64)
        scores = np.minimum(given, self.highest).round(4)
        order = [int(column) for column in np.argsort(-given, kind="stable")]
        kept = [column for column in order if given[column] >= self.lowest[column] and scores[column] > 0]
        if not kept or given[kept[0]] < self.sure:
            return (), ()
        return tuple(self.labels[column] for column in kept), tuple(float(scores[column]) for column in kept)


def read_limits(path: Path | None, labels: Sequence[str], lowest: float, highest: float, sure: float) -> Limits:
    """The limits of all species, and of single ones from a table with the columns label, lowest and highest.

    Errors: a label that the classifiers do not know, a cell that is no share, a lowest above its highest.
    """
    low, high = np.full(len(labels), lowest), np.full(len(labels), highest)
    column = {label: number for number, label in enumerate(labels)}
    for where, row in read_table(path, ("label", "lowest", "highest"), "label") if path else ():
        assert row["label"] in column, f"{where}: {row['label']!r} is no species of the classifier; take the row away"
        for limits, name in ((low, "lowest"), (high, "highest")):
            share = is_number(row[name] or "0") and 0 <= float(row[name] or "0") <= 1
            assert share, f"{where}: {name} {row[name]!r}; give a score from 0 to 1, or leave it blank"
            limits[column[row["label"]]] = float(row[name]) if row[name] else limits[column[row["label"]]]
        own = column[row["label"]]
        low[own] = low[own] if high[own] else 0.0  # it is taken away, whatever its lowest
        assert low[own] <= high[own], f"{where}: lowest {low[own]:g} is above highest {high[own]:g}; exchange them"
    return Limits(tuple(labels), low, high, sure)


def read_pseudo_labels(path: Path, labels: Sequence[str], band: Band = BIRDS) -> list[Recording]:
    """The windows of a table that pseudo_label.py wrote, each with a label; fit to be trained on, whatever the fold.

    labels    the species that are trained
    band      that the network hears
    Errors: another table, one beside which it does not say who labelled it, another species, a file that is gone or
    damaged, a window beyond the end of its file.
    """
    assert path.is_file(), f"no table {path}; `python pseudo_label.py season/ --model M --out pseudo/` writes one"
    refuse_nameless(path)
    rows = [row for row in read_recordings(path) if row.labels]
    windows = [row for row in rows if row.scores and row.start is not None and row.end is not None]
    assert rows and len(windows) == len(rows), (
        f"{path}: {len(windows)} of {len(rows)} labelled rows are windows with scores; give --data.pseudo the table "
        "that pseudo_label.py wrote, and labels of people as --data.root"
    )
    strange = sorted({label for row in rows for label in row.labels} - set(labels))
    assert not strange, (
        f"{path} has {len(strange)} labels that are no species of this training, {strange[:5]}; label with a "
        "classifier of the same species (--data.root, --data.min_recordings)"
    )
    again = [row for row in rows if len(set(row.labels)) < len(row.labels)]
    assert not again, (
        f"{path}: {len(again)} windows name a label more than once, such as {again[0].name} from {again[0].start:g} s "
        f"({', '.join(again[0].labels)}); keep one score for each"
    )
    times = Counter((row.path, row.start, row.end) for row in rows)
    twice = [f"{file.name} from {start:g} to {end:g} s" for (file, start, end), count in times.items() if count > 1]
    assert not twice, (
        f"{path}: {len(twice)} windows stand there more than once, such as {twice[0]}; keep one row of each"
    )
    # the sound that the table speaks of is there, and still the same
    slowed = labelled_with(path).get("time_expansion", assumed_expansion())
    assert slowed == assumed_expansion(), (
        f"{path} was labelled with --time_expansion {slowed}, and is read with --data.time_expansion "
        f"{assumed_expansion()}; give the same"
    )
    files = sorted({row.path for row in rows})
    gone = [file for file in files if not file.is_file()]
    assert not gone, f"{path}: {len(gone)} of {len(files)} recordings are not there, such as {gone[0]}; label again"
    with processes.first_on_each_machine():
        examined = examine(files, band)
    for row in rows:
        found = examined[row.path]
        fits = row.start is not None and row.end is not None and 0 <= row.start < row.end <= found.seconds + BEYOND
        assert fits, (
            f"{path}: the window from {row.start:g} to {row.end:g} s of {row.name} does not lie within its "
            f"{found.seconds:g} s; the file is another one now: label again"
        )
    # and can be used
    rows = [replace(with_outcome(row, examined[row.path]), listened=False) for row in rows]
    bad = [row for row in rows if not row.sound]
    assert not bad, f"{path}: {len(bad)} windows cannot be used; {bad[0].name}: {bad[0].status}, {bad[0].reason}"
    mass = sum(sum(row.scores) for row in rows)
    sites = len({row.site for row in rows})
    show(f"{len(rows)} windows of {len(files)} recordings of {sites} sites with pseudo-labels (sum {mass:.0f})")
    return rows


def apart_from(
    windows: Sequence[Recording],
    train: Sequence[Recording],
    valid: Sequence[Recording],
    site_regex: str = "",
    band: Band = BIRDS,
) -> list[Recording]:
    """The windows of recordings that nobody labelled, and that are no copies of what is held out, at sites of which
    nothing is held out.

    site_regex   with which the windows were labelled
    """
    known = {row.path.resolve() for row in (*train, *valid)}
    sites = sites_of(valid, site_regex)
    if valid and not sites:
        show(
            f"none of {len(valid)} held-out recordings says where it was made, so windows with pseudo-labels may be of "
            "its site; a column site in the table of --data.root says it, or --site_regex of pseudo_label.py"
        )
    kept = [row for row in windows if row.site not in sites and row.path.resolve() not in known]
    with processes.first_on_each_machine():
        copies = copies_of([row.path for row in valid], [row.path for row in kept], band)
    kept = [row for row in kept if row.path not in copies]
    if len(kept) < len(windows):
        theirs = sorted(sites & {row.site for row in windows})
        named = f" ({', '.join(theirs[:5])})" if theirs else ""
        show(
            f"{len(windows) - len(kept)} of {len(windows)} windows with pseudo-labels are left out: their recordings "
            f"are labelled by people or copies of held-out ones ({len(copies)}), or their site is held out{named}"
        )
    if not kept:
        show("no window with pseudo-labels is left: training goes on without any")
    return kept


def sites_of(rows: Sequence[Recording], site_regex: str = "") -> set[str]:
    """Where recordings were made that are held out or judge, as far as that is known."""
    pattern = re.compile(site_regex) if site_regex else None
    folders = [row.source in FOLDERS_OF_SITES for row in rows]
    return {site_of(row.path, row.site, pattern, own) for row, own in zip(rows, folders, strict=True)} - {""}


def site_of(path: Path, known: str, pattern: re.Pattern[str] | None, folders: bool = True) -> str:
    """Where a recording was made, the same for one that is labelled and one that is held out: by the first group of a
    pattern, else as is known of it, else by what the recorder wrote into the file's name, else by its folder's name.

    folders   whether folders may be named after sites; they are not where they are named after species
    """
    match = pattern.search(str(path)) if pattern else None
    folder = (path.parent if isinstance(path, Address) else Path(os.path.realpath(path)).parent).name
    if match and match[1]:
        return match[1]
    if known not in ("", folder):
        return known
    return read_name(path.name).site or known or (folder if folders else "")


def labelled_with(path: Path) -> Mapping[str, Any]:
    """The settings with which pseudo_label.py wrote a table, by their flags; none where nothing is written of them."""
    settings: object = run_beside(path).get("settings")
    return cast(dict[str, Any], settings) if isinstance(settings, dict) else {}


def refuse_nameless(path: Path) -> None:
    """A table beside which it does not say who labelled it: their licences hold for what learns from it, and what they
    were trained on may not be held out."""
    beside, status = path.with_name("run.json"), run_beside(path).get("status", "not said")
    assert beside.is_file(), (
        f"no {beside} says who labelled {path.name}, on what terms, and trained on what; copy the whole folder that "
        "pseudo_label.py wrote"
    )
    assert status == "finished", (
        f"{beside}: the last labelling was not finished ({status}), so {path.name} may be of others than it names; "
        "repeat the pseudo_label.py command"
    )
    assert labelling_models(path), f"{beside} does not name the classifiers that labelled {path.name}; label again"


def run_beside(path: Path) -> Mapping[str, Any]:
    """What run.json beside a table says."""
    beside = path.with_name("run.json")
    return read_json(beside, "label again") if beside.is_file() else {}


def labelling_models(path: Path) -> list[Mapping[str, Any]]:
    """The classifiers that labelled a table, as run.json beside it has them, an ensemble by its members; none where
    nothing is written of them."""
    teachers: object = run_beside(path).get(TEACHERS)
    each = cast(list[object], teachers) if isinstance(teachers, list) else []
    return [cast(dict[str, Any], teacher) for teacher in each if isinstance(teacher, dict)]


if __name__ == "__main__":
    limits = read_limits(None, ("frog", "owl", "newt"), lowest=0.1, highest=0.95, sure=0.5)
    for scores in ((0.99, 0.3, 0.05), (0.4, 0.3, 0.2)):
        print(scores, "->", limits.labels_of(np.array(scores, np.float32)))
    assert limits.labels_of(np.array([0.99, 0.3, 0.05], np.float32)) == (("frog", "owl"), (0.95, 0.3))
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "recordings.csv"
        window = Recording(Path(folder) / "a.wav", "a.wav", ("frog",), seconds=9.0, start=0.0, end=5.0, scores=(0.9,))
        write_recordings(table, [window])
        assert read_recordings(table) == [window]
