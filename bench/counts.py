"""Do the 95 % intervals of count.py hold the truth? Made-up seasons whose truth is known, a thousand of each kind.

    make bench-counts          (or: .venv/bin/python -m bench.counts SEASONS SEED KIND ...)

Reads    nothing
Writes   nothing; prints a line per kind of season as it is done

A season is windows with or without the species, by site and day: on some days it is there, and then it calls more or
less. A classifier scores each window, another one in each season: more or less able, more or less sure of itself.
Windows are listened to in strata of the score, as report.py draws them. What is counted: the share of intervals that
hold the true number of windows with calls among those counted, of the season, of each site and of each day, and the
true number of days on which the species is there, of the season and of each site.

The last kind breaks the assumption that sites differ in how common the species is and in little else: at each of them
another share of the noise is taken for the species.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from evaluation.density import Strata, draw_truths, interval, log_odds, sigmoid

SEASONS = 1000
DRAWS = 100  # the quantiles of density.interval are right for any number
STRATA = np.arange(0.15, 1.0, 0.1)  # middles of the tenths from 0.1 on
MISSED = 0.1 / 3  # the middle of what lies below
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """How seasons are made up."""

    name: str
    sites: int = 4
    days: int = 10
    windows: int = 300  # per site and day
    common: float = 0.05  # share of windows that hold the species, about
    spread: float = 1.0  # of its logarithm among sites
    there: float = 0.5  # share of days
    verdicts: int = 100
    taken: float = 0.0  # share of windows with something that is taken for the species, on average over sites
    missed: bool = False  # whether windows without a detection are counted, and listened to


KINDS = (
    Kind("usual"),
    Kind("few verdicts", verdicts=25),
    Kind("many verdicts", verdicts=400),
    Kind("rare species", common=0.003, there=0.2),
    Kind("sites differ", spread=2.0),
    Kind("one site", sites=1, days=30),
    Kind("missed calls counted", missed=True, verdicts=200),
    Kind("another noise at each site", taken=0.02),
)


@dataclass(frozen=True)
class Season:
    """What is known, and the truth."""

    strata: Strata
    truth: NDArray[np.int64]  # (cells,) windows with calls


def made_up(kind: Kind, generator: np.random.Generator) -> Season:
    """One season."""
    share = kind.common * np.exp(generator.normal(0, kind.spread, kind.sites))
    there = generator.random((kind.sites, kind.days)) < kind.there
    level = np.minimum(0.9, generator.gamma(1.0, np.repeat(share[:, None], kind.days, 1) / kind.there)) * there
    holds = generator.random((kind.sites, kind.days, kind.windows)) < level[:, :, None]
    apart, scale, shift = generator.uniform(2.5, 4.0), generator.uniform(1.0, 2.0), generator.uniform(-0.5, 1.0)
    alike = holds.copy()
    if kind.taken:
        mistaken = generator.exponential(kind.taken, kind.sites)
        alike |= generator.random(holds.shape) < mistaken[:, None, None]
    logits = generator.normal(-apart, 1.0, holds.shape)
    logits[alike] = generator.normal(0.0, 1.2, int(alike.sum()))
    logits = scale * logits + shift
    tenth = np.minimum((sigmoid(logits) * 10).astype(np.int64), 9).reshape(-1, kind.windows)
    return listened(kind, tenth, holds.reshape(tenth.shape), generator)


def listened(kind: Kind, tenth: NDArray[np.int64], holds: NDArray[np.bool_], generator: np.random.Generator) -> Season:
    """Windows are listened to, as many of each stratum as there are, any of them."""
    used = range(0 if kind.missed else 1, 10)
    windows, right = (
        np.stack([(here & (tenth == each)).sum(axis=1) for each in used], 1) for here in (np.ones_like(holds), holds)
    )
    yes, no = np.zeros_like(windows), np.zeros_like(windows)
    share = even_shares(windows.sum(axis=0), kind.verdicts)
    for column, (each, count) in enumerate(zip(used, share.tolist(), strict=True)):
        rows, places = np.nonzero(tenth == each)
        for index in generator.permutation(len(rows))[:count]:
            (yes if holds[rows[index], places[index]] else no)[rows[index], column] += 1
    middles = log_odds(np.concatenate([[MISSED], STRATA])[-len(used) :])
    site = np.repeat(np.arange(kind.sites), kind.days)
    return Season(Strata(windows, yes, no, site, middles), np.asarray(right.sum(axis=1), np.int64))


def even_shares(left: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many of each stratum when they take turns, the surest first."""
    taken = np.zeros_like(left)
    while count > 0 and (taken < left).any():
        for column in np.flatnonzero(taken < left)[::-1][:count]:
            taken[column] += 1
            count -= 1
    return taken


def covered(season: Season, generator: np.random.Generator) -> list[NDArray[np.bool_]]:
    """Whether the intervals hold the truth: windows of the season, by site, by day; days of the season, by site."""
    truths = draw_truths(season.strata, generator, DRAWS)
    site = np.eye(int(season.strata.site.max()) + 1, dtype=np.int64)[:, season.strata.site]
    there, truly = (truths > 0).astype(np.int64), (season.truth > 0).astype(np.int64)
    pairs = [
        (truths.sum(axis=1, keepdims=True), season.truth.sum(keepdims=True)),
        (truths @ site.T, site @ season.truth),
        (truths, season.truth),
        (there.sum(axis=1, keepdims=True), truly.sum(keepdims=True)),
        (there @ site.T, site @ truly),
    ]
    found: list[NDArray[np.bool_]] = []
    for draws, truth in pairs:
        low, high = interval(draws.astype(np.float64))
        found.append((np.floor(low) <= truth) & (truth <= np.ceil(high)))
    return found


def coverage(kind: Kind, seasons: int, seed: int = 0) -> Numbers:
    """(5,): the share of intervals that hold the truth."""
    hits, total = np.zeros(5), np.zeros(5)
    for number in range(seasons):
        generator = np.random.default_rng([seed, number])
        season = made_up(kind, generator)
        if season.strata.windows.any():
            found = covered(season, generator)
            hits += [each.sum() for each in found]
            total += [each.size for each in found]
    return hits / np.maximum(total, 1)


def main() -> None:
    """One line per kind."""
    seasons, seed = (int(word) for word in (sys.argv[1:3] + [str(SEASONS), "0"][len(sys.argv[1:3]) :]))
    wanted = sys.argv[3:]
    print(f"{'':28}{'windows with calls':^27}{'days present':^18}")
    print(f"{'':28}" + "".join(f"{name:>9}" for name in ("season", "site", "day", "season", "site")))
    for kind in KINDS:
        if not wanted or kind.name in wanted:
            begun = perf_counter()
            shares = "".join(f"{share:9.3f}" for share in coverage(kind, seasons, seed))
            print(f"{kind.name:28}{shares}   {(perf_counter() - begun) / seasons:.2f} s a season", flush=True)


if __name__ == "__main__":
    main()
