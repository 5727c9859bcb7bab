"""Detections and verdicts -> how much a species called and where it was present, with intervals; what to listen to.

    strata = strata_of(label, results.detections, settled, effort, "day")
    rows, season = species_rows(strata, effort, seed=0, label=label)
    wanted = planned(strata_of(...), width=0.1)            # windows to listen to in each stratum

Strata are tenths of the scale of confidence, those in which report.py draws. Below them lies one more: the windows in
which the species was not detected. It is counted where somebody listened to some of them (count.py --plan --missed);
else only calls among the detections are counted, and the tables say so.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from config import Period
from evaluation.density import LEVEL, Counts, Numbers, Strata, draw_truths, interval, log_odds, site_surprise
from serving.effort import Cell, Effort, cell_of
from serving.results import Detected
from serving.review import Verdict, is_rank

TENTHS = 10
MISSED = -1  # the stratum of windows in which a species was not detected
LEAST = 10  # verdicts, before anything is said
NORMAL = 1.96  # standard deviations to each side of a 95 % interval
LEAST_EACH = 3  # windows to listen to in a stratum, however small
SURPRISING = 0.01  # so seldom it is said without a reason
SHY = 0.05  # a share that a plan takes for possible, whatever score and verdicts say
ALL_SITES = "(all sites)"
NAMES = ("species_code", "scientific_name", "common_name")
COUNT_COLUMNS = (
    *NAMES,
    *("site", "period", "hours", "windows", "detections", "listened", "density", "density_low", "density_high"),
    *("presence", "presence_low", "presence_high", "counted"),
)


@dataclass(frozen=True)
class Counted:
    """What the tables say of a species in a cell, at a site or in a season; blank numbers are None."""

    site: str
    period: str
    hours: float
    windows: int
    detections: int
    listened: int
    density: tuple[float, float, float] | None = None  # share of windows that hold it: median, low, high
    presence: tuple[float, float, float] | None = None  # share of periods in which it is there
    counted: str = ""  # of which windows, or why nothing is said


@dataclass(frozen=True)
class Species:
    """Everything that is counted of one species."""

    strata: Strata
    cells: tuple[Cell, ...]
    detections: Counts  # (cells,)
    missed: bool  # whether windows without a detection are counted too

    @property
    def listened(self) -> Counts:
        """(cells,)"""
        return np.asarray((self.strata.yes + self.strata.no).sum(axis=1))


def stratum(d: Detected) -> int:
    """The tenth of the scale that a detection lies in, or MISSED."""
    return min(int(d.confidence * TENTHS + 1e-9), TENTHS - 1) if d.confidence > 0 else MISSED


def strata_of(
    found: Sequence[Detected], verdicts: Mapping[Detected, Verdict], effort: Mapping[Cell, Effort], by: Period
) -> Species:
    """The windows of one species by cell and stratum; `found` are its detections and the windows listened to for it."""
    cells = list(dict.fromkeys([*effort, *(cell_of(d, by) for d in found)]))
    row_of = {cell: row for row, cell in enumerate(cells)}
    windows, yes, no = (np.zeros((len(cells), TENTHS + 1), np.int64) for _ in range(3))
    total, scores = np.zeros(TENTHS + 1), np.zeros(TENTHS + 1)
    for d in found:
        row, column = row_of[cell_of(d, by)], stratum(d) + 1
        windows[row, column] += 1
        total[column] += 1
        scores[column] += float(log_odds(np.array(d.confidence)))
        if d in verdicts:
            (yes if verdicts[d].answer == "yes" else no)[row, column] += 1
    detections = windows[:, 1:].sum(axis=1)
    missed = bool((yes + no)[:, 0].any())
    analysed = np.array([round(effort[cell].windows) if cell in effort else 0 for cell in cells], np.int64)
    windows[:, 0] = np.maximum(analysed - detections, (yes + no)[:, 0])
    used = [column for column in range(TENTHS + 1) if (total[column] if column else missed)]
    lowest = min((d.confidence for d in found if d.confidence > 0), default=0.1)
    scores[0], total[0] = float(log_odds(np.array(lowest / 3))), 1.0
    names = {name: number for number, name in enumerate(dict.fromkeys(site for site, _ in cells))}
    site = np.array([names[name] for name, _ in cells], np.int64)
    middles = scores[used] / total[used]
    strata = Strata(windows[:, used], yes[:, used], no[:, used], site, middles)
    return Species(strata, tuple(cells), detections, missed)


def species_rows(
    species: Species, effort: Mapping[Cell, Effort], seed: int, label: str
) -> tuple[list[Counted], list[Counted]]:
    """What the tables say of a species: a row per cell; a row per site, the last of all sites together."""
    listened, cells = species.listened, species.cells
    truths = None
    why = f"{int(listened.sum())} verdicts, {LEAST} are needed" if listened.any() else "no verdicts"
    everything = bool((species.strata.yes + species.strata.no == species.strata.windows).all())  # of a rare one
    if listened.sum() >= LEAST or (everything and listened.any()):
        generator = np.random.default_rng([seed, zlib.crc32(label.encode())])
        truths = draw_truths(species.strata, generator)
        why = "all windows" if species.missed else "detections"
    places = [(site, when, [row]) for row, (site, when) in enumerate(cells)]
    sites = dict.fromkeys(site for site, _ in cells)
    whole = [(name, "", [row for row, (site, _) in enumerate(cells) if site == name]) for name in sites]
    whole.append((ALL_SITES, "", list(range(len(cells)))))
    in_cells, in_sites = (
        [counted(site, when, rows, species, effort, truths, why) for site, when, rows in parts]
        for parts in (places, whole)
    )
    return in_cells, in_sites


def sites_lie_apart(species: Species, seed: int, label: str) -> bool:
    """Whether the verdicts say that sites differ in more than in how common a species is."""
    if species.listened.sum() < LEAST or not species.strata.site.any():
        return False
    generator = np.random.default_rng([seed, zlib.crc32(label.encode())])
    return site_surprise(species.strata, generator) < SURPRISING


def counted(
    site: str,
    when: str,
    rows: Sequence[int],
    species: Species,
    effort: Mapping[Cell, Effort],
    truths: Counts | None,
    why: str,
) -> Counted:
    """What is said of some cells together."""
    efforts = [effort[species.cells[row]] for row in rows if species.cells[row] in effort]
    detections = int(species.detections[rows].sum())
    windows = max(round(sum(each.windows for each in efforts)), detections)
    density: tuple[float, float, float] | None = None
    presence: tuple[float, float, float] | None = None
    if truths is not None and windows:
        density = three(truths[:, rows].sum(axis=1) / windows)
        presence = three((truths[:, rows] > 0).mean(axis=1))
    hours = sum(each.seconds for each in efforts) / 3600
    return Counted(site, when, hours, windows, detections, int(species.listened[rows].sum()), density, presence, why)


def three(draws: Numbers) -> tuple[float, float, float]:
    """Mean of draws, and the interval of their middle share."""
    low, high = interval(draws, LEVEL)
    return float(draws.mean()), float(low), float(high)


def planned(species: Species, width: float) -> Counts:
    """(strata,): windows to listen to beside those that were, so that the interval of the share of right detections is
    about as wide as wished.

    Neyman's allocation: strata count as they have windows and as they are undecided, by verdicts and, where there are
    few, by the score itself; Cochran 1977, Sampling techniques, chapter 5.
    """
    strata = species.strata
    total, yes = strata.windows.sum(axis=0), strata.yes.sum(axis=0)
    listened = yes + strata.no.sum(axis=0)
    guess = 1 / (1 + np.exp(-strata.middles))
    share = ((yes + 2 * guess) / (listened + 2)).clip(SHY, 1 - SHY)
    spread = np.sqrt(share * (1 - share))
    weight = total / max(1, total.sum())
    variance = (width / (2 * NORMAL)) ** 2
    needed = (weight * spread).sum() ** 2 / (variance + (weight * spread**2).sum() / max(1, total.sum()))
    part = weight * spread / max(1e-12, (weight * spread).sum())
    wanted = np.maximum(np.ceil(needed * part), LEAST_EACH).astype(np.int64)
    return np.asarray(np.minimum(np.maximum(wanted - listened, 0), total - listened))


def drawn_windows(
    found: Sequence[Detected], judged: Collection[Detected], wanted: Mapping[int, int], generator: np.random.Generator
) -> list[int]:
    """Indices of so many detections of each stratum, any of those that nobody listened to."""
    chosen: list[int] = []
    for which, count in wanted.items():
        free = [index for index, d in enumerate(found) if stratum(d) == which and d not in judged]
        chosen += generator.permutation(np.array(free, np.int64))[:count].tolist()
    return sorted(chosen, key=lambda index: -found[index].confidence)


def countable(label: str) -> bool:
    """Whether a label is a species, and no answer above."""
    return not is_rank(label)


if __name__ == "__main__":
    from serving.detections import DETECTION_COLUMNS

    generator = np.random.default_rng(0)
    found = list[Detected]()
    for number, confidence in enumerate(generator.uniform(0.1, 1.0, 300)):
        cells = {"Species code": "frog", "Site": "pond", "Detected at": f"2026-05-{1 + number % 5:02}T05:00:00"}
        row = tuple(cells.get(column, "") for column in DETECTION_COLUMNS)
        found.append(Detected(row, 5.0 * number, 5.0 * number + 5, float(confidence)))
    right = {d: bool(generator.random() < d.confidence) for d in found}  # a score that can be believed
    verdicts = {d: Verdict(d, "yes" if right[d] else "no", "", "") for d in found[::3]}
    effort = {("pond", f"2026-05-{day:02}"): Effort(3600.0, 720.0) for day in range(1, 6)}
    species = strata_of(found, verdicts, effort, "day")
    rows, season = species_rows(species, effort, 0, "frog")
    truth, density = sum(right.values()) / 3600, season[-1].density
    print(f"{truth:.4f} of the windows hold the frog; from 100 verdicts: {density}")
    print("for an interval of 0.05 listen to", planned(species, 0.05).tolist(), "more of each tenth")
    assert density is not None and density[1] < truth < density[2] and len(rows) == 5
