"""A season as a table: species by site and day with effort, and how sure the numbers are once somebody has listened.

    python count.py results/ --plan --width 0.1              # what to listen to: results/counts/listen.html
    python count.py results/ --verdicts validation.csv       # writes results/counts/

Reads    the folder that predictor.py wrote; validation.csv as the listening page hands it out
Writes   counts.csv (species by site and period), season.csv (species by site, and all sites), hours.svg, weeks.svg,
         species.svg; with --export exchange/; with --plan plan.csv and listen.html

How the intervals come about, and what they do not include, stands in docs/counting.md.
"""

from __future__ import annotations

import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TextIO, cast

import numpy as np
from tqdm import tqdm

from config import CountCommand, ReportCommand
from report import write_page
from runtime.cells import no_formula, open_text, seconds, write_row
from runtime.terminal import command_line, launch, show
from serving.charts import Panel, lines, maps, write_svg
from serving.counting import (
    COUNT_COLUMNS,
    LEAST,
    MISSED,
    TENTHS,
    Counted,
    Species,
    countable,
    drawn_windows,
    planned,
    sites_lie_apart,
    species_rows,
    strata_of,
    stratum,
)
from serving.detections import UNFAMILIAR, clock_time
from serving.effort import Cell, cell_of, last_day, number_in_cell, read_effort, seconds_read, without_gaps
from serving.exchange import write_exchange
from serving.results import COLUMNS, INDEX, NEEDED, Detected, Results, detected, read_results, rows_of
from serving.review import RANDOM, Verdict, identity, read_verdicts, settle
from sounds.windows import window_times

PANELS = 12  # species in a picture, those detected most
LISTED = 30  # species on the terminal
HOURS = tuple(f"{hour:02}" for hour in range(24))
SURE = 0.975  # a species counts as present from here on
PLAN_COLUMNS = ("species_code", "scientific_name", "common_name", "stratum", "windows", "listened", "to_listen")

Spoken = Mapping[Detected, Verdict]


def count(config: CountCommand) -> int:
    """The command; returns the exit code."""
    results = read_results(config.results)
    assert not results.index, (
        f"{results.folder} holds the windows of an index that were chosen, not all in which a species was detected; "
        f"make a classifier ({command_line('refit.py', results.index, 'validation.csv')}), score the season with it by "
        "predictor.py, and count that"
    )
    folder = config.out or results.folder / "counts"
    results = replace(results, detections=results.detections + undetected(config.verdicts, results))
    every, random, unused = settled_verdicts(config.verdicts, results)
    by_species = grouped(results.detections)
    code = (write_plan if config.plan else write_counts)(config, folder, results, by_species, random)
    if config.export and not config.plan:  # what is wrong is given to nobody, however it was found
        code = write_exchange(folder / "exchange", config, results, every)
    return 2 if unused else code


def write_counts(
    config: CountCommand,
    folder: Path,
    results: Results,
    by_species: Mapping[str, Sequence[Detected]],
    settled: Spoken,
) -> int:
    """Tables and pictures."""
    effort = read_effort(results.files, config.by)
    season: dict[str, list[Counted]] = {}
    certain: dict[str, Mapping[Cell, float]] = {}
    apart: list[str] = []
    with open_text(folder / "counts.csv") as table, open_text(folder / "season.csv") as whole:
        for file in (table, whole):
            write_row(file, COUNT_COLUMNS)
        for label, found in tqdm(by_species.items(), "species", leave=False, disable=None):
            species = strata_of(found, settled, effort, config.by)
            cells, season[label] = species_rows(species, effort, config.seed, label)
            apart += [found[0].cell("Common name") or label] if sites_lie_apart(species, config.seed, label) else []
            certain[label] = {(row.site, row.period): row.presence[0] for row in cells if row.presence}
            write_counted(table, found[0], cells)
            write_counted(whole, found[0], season[label])
    draw_pictures(folder, results, by_species, certain)
    show("\n".join(season_table(season, by_species)))
    silent = [label for label, rows in season.items() if rows[-1].density is None]
    if silent:
        show(
            f"{len(silent)} of {len(season)} species have fewer than {LEAST} verdicts: how many of their detections "
            "are right, how much they called and where they were absent cannot be said; those columns are empty. Next: "
            f"{command_line('count.py', results.folder, '--plan')}"
        )
    if apart:
        show(
            f"verdicts say that sites differ in what is taken for {', '.join(apart)}: of a site with few verdicts of "
            "its own little is known; listen at each site (docs/counting.md)"
        )
    if settled and not any(rows[-1].counted == "all windows" for rows in season.values()):
        show("calls that the classifier missed are not counted: densities are of calls detected (--plan --missed 50)")
    if not results.files:
        show(f"no files.csv in {results.folder}: effort is not known, so detections have nothing to be compared with")
    show(f"wrote {folder / 'counts.csv'}, season.csv and three pictures")
    return 0


def settled_verdicts(paths: Iterable[Path], results: Results) -> tuple[Spoken, Spoken, int]:
    """The verdicts that nobody contradicts; those of them on windows drawn at random within a tenth of the scale, from
    which alone may be counted; and how many others there are, of no detection here or on windows drawn otherwise."""
    read = [read_verdicts(path, results) for path in paths]
    strangers, given = sum(count for _, count in read), [verdict for verdicts, _ in read for verdict in verdicts]
    random = [verdict for verdict in given if verdict.drawn in ("", *RANDOM)]
    unknown, others = sum(not verdict.drawn for verdict in random), len(given) - len(random)
    settled, disputed = settle(random)
    if disputed:
        show(f"{len(disputed)} windows on which reviewers disagree are left out")
    if unknown:
        show(
            f"{unknown} verdicts do not say how their windows were drawn: they are taken for a random sample of each "
            "tenth of the scale, as report.py draws by itself; from --strategy top they would make counts too high"
        )
    if others:
        ways = ", ".join(sorted({verdict.drawn for verdict in given if verdict.drawn not in ("", *RANDOM)}))
        show(f"{others} verdicts are left out: their windows are no random sample (drawn: {ways}); --plan draws one")
    if strangers:
        show(f"{strangers} verdicts are of no detection here")
    return settle(given)[0], settled, strangers + others


def undetected(paths: Iterable[Path], results: Results) -> tuple[Detected, ...]:
    """The windows without a detection that were listened to, as --plan --missed asked for them: of no confidence."""
    known = {identity(d) for d in results.detections}
    files = {row["file"] for row in results.files}
    found: dict[object, Detected] = {}
    for path in paths:
        assert path.is_file(), f"no {path}; name the validation.csv that the page hands out (its button `Save`)"
        for where, row in rows_of(path, NEEDED):
            d = detected(where, row)
            if d.confidence == 0 and d.file in files and identity(d) not in known:
                found.setdefault(identity(d), d)
    return tuple(found.values())


def grouped(detections: Iterable[Detected]) -> dict[str, list[Detected]]:
    """Detections by species, those detected most first; answers above species are none."""
    found: defaultdict[str, list[Detected]] = defaultdict(list)
    for d in detections:
        if countable(d.label):
            found[d.label].append(d)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def write_counted(file: TextIO, d: Detected, rows: Iterable[Counted]) -> None:
    """Rows of counts.csv or season.csv."""
    names = [d.label, d.cell("Scientific name"), d.cell("Common name")]
    for row in rows:
        estimates = [f"{value:.6g}" for three in (row.density, row.presence) for value in three or ()]
        numbers = [seconds(row.hours), str(row.windows), str(row.detections), str(row.listened)]
        cells = [*names, row.site, row.period, *numbers, *(estimates or [""] * 6), row.counted]
        write_row(file, [no_formula(cell) for cell in cells])


def season_table(season: Mapping[str, Sequence[Counted]], by_species: Mapping[str, Sequence[Detected]]) -> list[str]:
    """What a season came to, on a screen."""
    lines = [f"{'species':30}{'detections':>11}{'listened':>9}  {'share of windows with calls':30}{'periods present'}"]
    for label, rows in list(season.items())[:LISTED]:
        row, first = rows[-1], by_species[label][0]
        name = (first.cell("Common name") or label)[:29]
        said = [
            f"{mean:.4f} ({low:.4f} to {high:.4f})" if three else "not known"
            for three in (row.density, row.presence)
            for mean, low, high in [three or (0, 0, 0)]
        ]
        lines.append(f"{name:30}{row.detections:11}{row.listened:9}  {said[0]:30}{said[1]}")
    return lines + ([f"... and {len(season) - LISTED} more"] if len(season) > LISTED else [])


def draw_pictures(
    folder: Path,
    results: Results,
    by_species: Mapping[str, Sequence[Detected]],
    certain: Mapping[str, Mapping[Cell, float]],
) -> None:
    """hours.svg, weeks.svg, species.svg."""
    some = dict(list(by_species.items())[:PANELS])
    hourly, weekly = (read_effort(results.files, by) for by in ("hour", "week"))
    by_hour: defaultdict[tuple[str, str], float] = defaultdict(float)
    for (_, when), effort in hourly.items():
        if when:
            by_hour[when[:10], when[11:]] += effort.seconds / 3600
    by_week = {(when, site): effort.seconds / 3600 for (site, when), effort in weekly.items() if when}
    sites = sorted({site for _, site in by_week})
    hours, weeks = list[Panel](), list[Panel]()
    for label, found in some.items():
        title = found[0].cell("Common name") or label
        moments = [cell_of(d, "hour")[1] for d in found if d.confidence]
        hours.append(rate_panel(title, by_hour, Counter((when[:10], when[11:]) for when in moments), HOURS))
        places = [cell_of(d, "week") for d in found if d.confidence]
        weeks.append(rate_panel(title, by_week, Counter((when, site) for site, when in places), sites))
    write_svg(folder / "hours.svg", maps("detections per hour analysed, hour by day", hours))
    write_svg(folder / "weeks.svg", maps("detections per hour analysed, site by week", weeks))
    write_svg(folder / "species.svg", lines("hours analysed", "species", accumulated(results, by_species, certain)))


def rate_panel(
    title: str, effort: Mapping[tuple[str, str], float], found: Counter[tuple[str, str]], rows: Sequence[str]
) -> Panel:
    """Detections per hour analysed."""
    columns = without_gaps({when for when, _ in effort})
    return Panel(title, columns, rows, {where: found[where] / hours for where, hours in effort.items() if hours > 0})


def accumulated(
    results: Results, by_species: Mapping[str, Sequence[Detected]], certain: Mapping[str, Mapping[Cell, float]]
) -> dict[str, list[tuple[float, float]]]:
    """Species by hours analysed, in the order of days: all that were detected, and those that were surely there."""
    hours: defaultdict[str, float] = defaultdict(float)
    for (_, when), effort in read_effort(results.files, "day").items():
        hours[when] += effort.seconds / 3600
    dated = {label: [cell_of(d, "day")[1] for d in found if d.confidence] for label, found in by_species.items()}
    first = {label: min(days) for label, days in dated.items() if days}
    surely: dict[str, str] = {}
    for label, cells in certain.items():
        days = [last_day(when) for (_, when), share in cells.items() if share >= SURE]
        surely |= {label: min(days)} if days else {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, begun in (("detected", first), (f"there with {SURE:.1%} or more", surely)):
        done, curve = 0.0, [(0.0, 0.0)]
        for when in sorted(hours):
            done += hours[when]
            curve.append((done, sum(day <= when for day in begun.values())))
        if begun:
            curves[name] = curve
    return curves


def write_plan(
    config: CountCommand,
    folder: Path,
    results: Results,
    by_species: Mapping[str, Sequence[Detected]],
    settled: Spoken,
) -> int:
    """How many windows of which strata to listen to, and the page for them; 2 where some have no sound."""
    # what is drawn of each species, and the table that says so
    effort = read_effort(results.files, config.by)
    index_of = {id(d): index for index, d in enumerate(results.detections)}
    drawn, extra, grid = list[int](), list[Detected](), Grid(results) if config.missed else None
    total: Counter[str] = Counter()
    with open_text(folder / "plan.csv") as table:
        write_row(table, PLAN_COLUMNS)
        for label, found in by_species.items():
            generator = np.random.default_rng([config.seed, zlib.crc32(label.encode())])
            species = strata_of([d for d in found if d.confidence], settled, effort, config.by)
            wanted = dict(zip(strata_named(found), planned(species, config.width).tolist(), strict=True))
            drawn += [index_of[id(found[index])] for index in drawn_windows(found, settled, wanted, generator)]
            extra += missed_windows(grid, found, config.missed, generator) if grid else []
            for which, cells in plan_cells(species, wanted).items():
                write_row(table, [no_formula(cell) for cell in [label, *names_of_detection(found[0]), which, *cells]])
            if config.missed:
                cells = [label, *names_of_detection(found[0]), "not detected", "", "", str(config.missed)]
                write_row(table, [no_formula(cell) for cell in cells])
            total[label] = sum(wanted.values())
    show("\n".join(plan_lines(total, by_species, config)))
    # the page to listen to it
    page = ReportCommand(
        config.results,
        out=folder / "listen.html",
        audio=config.audio,
        strategy="random",
        voices=plan_voices(config, results),
        per_species=max([1, *total.values()]),
        max_clips=max(1, len(drawn) + len(extra)),
        seed=config.seed,
        title="What to listen to for counts",
    )
    if not drawn and not extra:
        show("nothing more needs listening to for intervals of that width")
        return 0
    first = len(results.detections)
    everything = replace(results, detections=(*results.detections, *extra))
    code = write_page(page, everything, [*drawn, *range(first, first + len(extra))])
    then = command_line("count.py", results.folder, "--verdicts", "validation.csv")
    show(f"wrote {folder / 'plan.csv'}; listen to all of it, save, then: {then}")
    return code


def plan_voices(config: CountCommand, results: Results) -> Literal["off", "report", "mute"]:
    """What becomes of people's voices on the page of a plan: none is left out, or what is drawn is no random sample."""
    if config.voices != "as_scored":
        return config.voices
    return "mute" if results.muted else "report" if results.searched else "off"


def strata_named(found: Sequence[Detected]) -> list[int]:
    """The strata in which a species was detected, in order."""
    return sorted({stratum(d) for d in found} - {MISSED})


def names_of_detection(d: Detected) -> list[str]:
    return [d.cell("Scientific name"), d.cell("Common name")]


def plan_cells(species: Species, wanted: Mapping[int, int]) -> dict[str, list[str]]:
    """By the name of a stratum: its windows, those listened to, those to listen to."""
    total = species.strata.windows.sum(axis=0)
    listened = (species.strata.yes + species.strata.no).sum(axis=0)
    return {
        f"{which / TENTHS:g} to {(which + 1) / TENTHS:g}": [str(total[row]), str(listened[row]), str(count)]
        for row, (which, count) in enumerate(wanted.items())
    }


def plan_lines(
    total: Mapping[str, int], by_species: Mapping[str, Sequence[Detected]], config: CountCommand
) -> list[str]:
    """The plan on a screen."""
    lines = [f"{'species':30}{'detections':>11}{'to listen to':>13}"]
    for label, count in list(total.items())[:LISTED]:
        found = by_species[label]
        detections = sum(d.confidence > 0 for d in found)
        lines.append(f"{(found[0].cell('Common name') or label)[:29]:30}{detections:11}{count + config.missed:13}")
    lines += [f"... and {len(total) - LISTED} more"] if len(total) > LISTED else []
    return [*lines, f"for 95 % intervals {config.width:g} wide, of the share of detections that are right"]


class Grid:
    """All windows of the recordings that were analysed.

    Stretches without sound, and those that --voices skip left out, are among them: no table says where they are.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self.rows = [row for row in results.files if number_in_cell(row.get("windows", "")) > 0]
        assert self.rows, "--missed needs files.csv of predictor.py, which says what was analysed"
        first = results.detections[0]
        self.window = number_in_cell(first.cell("Window (s)")) or first.end - first.start
        self.overlap = number_in_cell(first.cell("Overlap (s)"))
        self.counts = [
            len(self.times(index)) * len(channels_scored(results, row)) for index, row in enumerate(self.rows)
        ]
        self.total = sum(self.counts)

    def times(self, index: int) -> list[tuple[float, float]]:
        """Start and end of the windows of a recording, in seconds."""
        return window_times(seconds_read(self.rows[index]), self.window, self.overlap)


def missed_windows(grid: Grid, found: Sequence[Detected], count: int, generator: np.random.Generator) -> list[Detected]:
    """So many windows in which a species was not detected, as detections of no confidence."""
    detected_in = {(d.file, d.cell("Channel"), round(d.start, 3)) for d in found}
    bounds, drawn, chosen = np.cumsum(grid.counts), set[int](), list[Detected]()
    while len(chosen) < count and len(drawn) < grid.total:
        number = int(generator.integers(grid.total))
        if number in drawn:
            continue
        drawn.add(number)
        index = int(np.searchsorted(bounds, number, "right"))
        row, times = grid.rows[index], grid.times(index)
        channel, window = divmod(int(bounds[index]) - 1 - number, len(times))
        name = channels_scored(grid.results, row)[channel]
        if (row["file"], name, round(times[window][0], 3)) not in detected_in:
            chosen.append(missed_window(found[0], row, name, *times[window]))
    return chosen


def channels_scored(results: Results, row: Mapping[str, str]) -> list[str]:
    """As the cells of detections have them."""
    settings: object = results.facts.get("settings")
    given = cast(dict[str, object], settings).get("channel") if isinstance(settings, dict) else None
    asked = given if isinstance(given, str) else "mean"
    return (
        [str(number + 1) for number in range(int(number_in_cell(row.get("channels", ""))))]
        if asked == "each"
        else [asked]
    )


def missed_window(like: Detected, row: Mapping[str, str], channel: str, start: float, end: float) -> Detected:
    """A window of a recording in which a species was not detected."""
    recorded_at = row.get("recorded_at", "")
    own = dict.fromkeys(("Runners up", "Validated", UNFAMILIAR), "")
    own |= {"Start (s)": seconds(start), "End (s)": seconds(end), "Confidence": "0", "File": row["file"]}
    own |= {"Site": row.get("site", ""), "Recorded at": recorded_at, "Detected at": clock_time(recorded_at, start)}
    own["Channel"] = channel
    cells = [own.get(name, like.cells[INDEX[name]]) for name in COLUMNS[: len(like.cells)]]
    return Detected(tuple(cells), start, end, 0.0)


if __name__ == "__main__":
    launch(count, CountCommand)
