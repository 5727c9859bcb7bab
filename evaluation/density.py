"""How many windows hold a species, from verdicts on a sample in strata of the score: draws of the truth, not one guess.

    truths = draw_truths(counts, yes, no, site, middles, generator)   # (draws, cells), windows with the species
    low, high = interval(truths.sum(axis=1) / windows)

A cell is a place and a time (one site, one day); a stratum is a range of scores. Everything that is said of a season,
of a site or of a day is a sum over the same draws, so the parts always add up to the whole.

1. Share of windows with the species in each stratum, over the whole season: Beta posteriors around a logistic curve of
   the score, drawn near it as far as the verdicts say that strata lie near it. Within a stratum verdicts are a random
   sample, so this holds whatever sites and days are like (Navine et al. 2024, https://arxiv.org/abs/2402.15360).
2. Where and when: a cell's windows are a mixture of the two densities of the score that step 1 gives, that of windows
   with the species and that of windows without it; how common it is there moves the share right in every stratum
   (prior shift: Saerens et al. 2002, https://doi.org/10.1162/089976602753284446). Cells of a site are alike.
3. Sites differ in more than that, in what is taken for the species. How much, the verdicts say: each site has shares of
   its own around those of step 2, and its own verdicts move them.
4. All sites together must give step 1 again (benchmarking), and what nobody listened to is drawn window by window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]

DRAWS = 500
LEVEL = 0.95
LOWEST = 1e-9  # a share nearer to 0 or 1 is kept away from it
SCATTER = np.array([30.0, 120.0, 480.0, 1920.0])  # verdicts that the curve is worth to a stratum
SITE_SCATTER = np.array([5.0, 20.0, 100.0, 500.0])  # the same of a site around what all sites are
CEILINGS = np.array([1.0, 0.7, 0.4, 0.2, 0.08, 0.02])  # of the curve; 1 is as likely as the others together
REACH = np.linspace(-4.0, 4.0, 13)  # standard deviations
SLOPES = np.linspace(0.1, 4.1, 21)  # of the curve; a score that can be believed has slope 1 and intercept 0
INTERCEPTS = np.linspace(-9.0, 6.0, 26)
LEVELS = 18  # of how common a species can be in a cell, besides absent
COMMONEST = 4.0  # log odds
ROUNDS = 15  # of prevalences and of what is usual at a site, each given the other
SHARED = 2.0  # cells that the other sites are worth in what is usual at one
AT_A_TIME = 4_000_000  # numbers


@dataclass(frozen=True)
class Strata:
    """What is known of one species: windows by cell and stratum, and how those listened to came out."""

    windows: Counts  # (cells, strata), all of them
    yes: Counts  # (cells, strata), of those listened to
    no: Counts
    site: Counts  # (cells,), from 0
    middles: Numbers  # (strata,) log odds of the score

    def __post_init__(self) -> None:
        assert self.windows.shape == self.yes.shape == self.no.shape == (len(self.site), len(self.middles))
        assert (self.yes + self.no <= self.windows).all(), "more verdicts than windows in a stratum of a cell"


def draw_truths(strata: Strata, generator: np.random.Generator, draws: int = DRAWS) -> Counts:
    """(draws, cells): how many windows hold the species, as the verdicts allow it."""
    left = strata.windows - strata.yes - strata.no
    shares = stratum_shares(strata, generator, draws)
    size = max(1, AT_A_TIME // max(1, len(left) * (LEVELS + left.shape[1])))
    parts = [cell_truths(strata, left, shares[first : first + size], generator) for first in range(0, draws, size)]
    return np.asarray(np.concatenate(parts) + strata.yes.sum(axis=1), np.int64)


def stratum_shares(strata: Strata, generator: np.random.Generator, draws: int) -> Numbers:
    """(draws, strata): the share of windows that hold the species, among those that nobody listened to.

    The curve is c / (1 + exp(-(a + b x))) of the score's log odds x. For each ceiling c a coarse grid of a and b finds
    where it lies and a fine one around it is drawn from, with how far strata may lie from the curve. Ceilings are there
    since what is taken for the species can score as high as it.
    """
    yes, no = strata.yes.sum(axis=0), strata.no.sum(axis=0)
    drawn: list[Numbers] = []
    fits: list[Numbers] = []
    for ceiling in CEILINGS:
        slopes, intercepts = near(strata.middles, yes, no, ceiling)
        slope, intercept, scatter = (g.ravel() for g in np.meshgrid(slopes, intercepts, SCATTER, indexing="ij"))
        curve = ceiling * sigmoid(intercept[:, None] + slope[:, None] * strata.middles)
        steps = slopes[1] - slopes[0], intercepts[1] - intercepts[0]
        fit = beta_binomial(yes, no, curve, scatter[:, None]).sum(axis=1) + curve_prior(slope, intercept)
        weight = len(CEILINGS) - 1.0 if ceiling == CEILINGS[0] else 1.0
        fits.append(fit + math.log(weight * steps[0] * steps[1]))
        rows = np.stack([np.full_like(slope, value) for value in (ceiling, *steps)], axis=1)
        drawn.append(np.column_stack([slope, intercept, scatter, rows]))
    chosen = generator.choice(sum(map(len, fits)), draws, p=shares_of(np.concatenate(fits)))
    columns: Numbers = np.concatenate(drawn)[chosen].T[:, :, None]
    b, a, scatters, ceilings, *widths = columns
    moved: Numbers = generator.uniform(-0.5, 0.5, (2, draws, 1))
    curves = sigmoid(a + moved[1] * widths[1] + (b + moved[0] * widths[0]) * strata.middles)
    return beta_draws(ceilings * curves, scatters, yes, no, generator)


def near(middles: Numbers, yes: Counts, no: Counts, ceiling: float) -> tuple[Numbers, Numbers]:
    """Slopes and intercepts around those that verdicts allow a curve with a ceiling, strata lying on it."""
    slope, intercept = (part.ravel() for part in np.meshgrid(SLOPES, INTERCEPTS, indexing="ij"))
    right = (ceiling * sigmoid(intercept[:, None] + slope[:, None] * middles)).clip(LOWEST, 1 - LOWEST)
    chance = shares_of(np.log(right) @ yes + np.log(1 - right) @ no + curve_prior(slope, intercept))
    found: list[Numbers] = []
    for values, step in ((slope, SLOPES[1] - SLOPES[0]), (intercept, INTERCEPTS[1] - INTERCEPTS[0])):
        middle = float(chance @ values)
        spread = max(float(np.sqrt(chance @ (values - middle) ** 2)), step / 3)
        found.append(middle + spread * REACH)
    return found[0], found[1]


def curve_prior(slope: Numbers, intercept: Numbers) -> Numbers:
    """Log of what is thought of the curve before anybody listened: not much. Scores tend to be too high, as species are
    more common in collections than in the field."""
    return -0.5 * ((slope - 1.5) / 1.2) ** 2 - 0.5 * ((intercept + 1.0) / 3.0) ** 2


def cell_truths(strata: Strata, left: Counts, shares: Numbers, generator: np.random.Generator) -> Counts:
    """(draws, cells): windows with the species among those that nobody listened to."""
    sites = np.eye(int(strata.site.max()) + 1)[:, strata.site]  # (sites, cells)
    total = strata.windows.sum(axis=0)
    with_it, without = shares * total + LOWEST, (1 - shares) * total + LOWEST
    with_it /= with_it.sum(axis=1, keepdims=True)
    without /= without.sum(axis=1, keepdims=True)
    prevalence = cell_prevalences(strata, left, with_it, without, sites, generator)
    odds = (prevalence / (1 - prevalence))[:, :, None] * (with_it / without)[:, None, :]  # (draws, cells, strata)
    odds *= site_factors(strata, left, odds / (1 + odds), sites, generator)[:, strata.site]
    right = benchmarked(odds, left, shares)
    drawn: Counts = generator.binomial(left, right)
    return np.asarray(drawn.sum(axis=2), np.int64)


def cell_prevalences(
    strata: Strata, left: Counts, with_it: Numbers, without: Numbers, sites: Numbers, generator: np.random.Generator
) -> Numbers:
    """(draws, cells): how common the species is in each cell, drawn given its scores, its verdicts and its site."""
    usual_size = max(2.0, float(np.median(strata.windows.sum(axis=1))))  # of a cell: one window of it is the least
    rungs = np.arange(LEVELS, dtype=np.float64) / (LEVELS - 1)
    levels = np.concatenate([[LOWEST], sigmoid(-math.log(usual_size) * (1 - rungs) + COMMONEST * rungs)])
    fit = np.zeros((len(with_it), len(left), len(levels)), np.float32)
    for number, (p, q) in enumerate(zip(with_it, without, strict=True)):
        positive, negative = np.outer(p, levels), np.outer(q, 1 - levels)  # (strata, levels)
        fit[number] = left @ np.log(positive + negative)
        fit[number] += strata.yes @ np.log(positive) + strata.no @ np.log(negative)
    likelihood = np.exp(fit - fit.max(axis=2, keepdims=True))
    usual = np.full((len(fit), len(sites), len(levels)), 0.5 / LEVELS, np.float32)
    usual[:, :, 0] = 0.5
    start, member = usual[:, :1], np.asarray(sites, np.float32)
    members = member.sum(axis=1)[:, None]
    for _ in range(ROUNDS):
        chance = likelihood * usual[:, strata.site]
        chance /= chance.sum(axis=2, keepdims=True)
        everywhere = 0.99 * chance.mean(axis=1, keepdims=True) + 0.01 * start
        usual = (member @ chance + SHARED * everywhere) / (members + SHARED)
    cumulated = (likelihood * usual[:, strata.site]).cumsum(axis=2)
    picked = generator.random((*cumulated.shape[:2], 1)) * cumulated[:, :, -1:]
    return np.asarray(levels[(cumulated < picked).sum(axis=2).clip(max=LEVELS)])


def site_factors(
    strata: Strata, left: Counts, right: Numbers, sites: Numbers, generator: np.random.Generator
) -> Numbers:
    """(draws, sites, strata): by how much a site's odds differ from what its prevalence alone would make them."""
    weights = left + 1e-6
    expected = (sites @ (right * weights)) / (sites @ weights)
    expected = expected.clip(LOWEST, 1 - LOWEST)
    yes, no = (np.asarray(sites @ each, np.int64) for each in (strata.yes, strata.no))
    middle = expected.mean(axis=0)
    fit = np.array([beta_binomial(yes, no, middle, np.array(scatter)).sum() for scatter in SITE_SCATTER])
    scatter = SITE_SCATTER[generator.choice(len(SITE_SCATTER), len(right), p=shares_of(fit))][:, None, None]
    own = beta_draws(expected, scatter, yes, no, generator).clip(LOWEST, 1 - LOWEST)
    return np.asarray(own / (1 - own) / (expected / (1 - expected)))


def benchmarked(odds: Numbers, left: Counts, shares: Numbers) -> Numbers:
    """(draws, cells, strata): shares right whose sum over all cells is the season's in each stratum."""
    wanted = shares * left.sum(axis=0)
    factor = np.zeros_like(shares)  # log
    logs = np.log(odds.clip(LOWEST**2, LOWEST**-2))
    for _ in range(12):
        right = sigmoid(logs + factor[:, None, :])
        found, slope = (left * right).sum(axis=1), (left * right * (1 - right)).sum(axis=1)
        factor += ((wanted - found) / (slope + 1e-9)).clip(-2, 2)
    return sigmoid(logs + factor[:, None, :])


def interval(values: Numbers, level: float = LEVEL) -> tuple[Numbers, Numbers]:
    """The middle share of draws, over their first axis."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return low, high


def beta_draws(expected: Numbers, scatter: Numbers, yes: Counts, no: Counts, generator: np.random.Generator) -> Numbers:
    """Shares around what is expected of them, moved by verdicts."""
    drawn = generator.beta(scatter * expected + yes + LOWEST, scatter * (1 - expected) + no + LOWEST)
    return np.asarray(drawn)


def beta_binomial(yes: Counts, no: Counts, expected: Numbers, scatter: Numbers) -> Numbers:
    """Log likelihood of verdicts whose shares scatter around what is expected, but for what does not depend on it."""
    a, b = scatter * expected, scatter * (1 - expected)
    return rising(a, yes) + rising(b, no) - rising(scatter, yes + no)


def rising(start: Numbers, steps: Counts) -> Numbers:
    """log(start (start + 1) ... (start + steps - 1)), by Stirling's series for the gamma function."""
    return log_gamma(start + steps) - log_gamma(start)


def log_gamma(x: Numbers) -> Numbers:
    """Of positive numbers, to ten digits."""
    product = np.ones_like(x)
    for step in range(8):  # up to where the series is good
        product = product * (x + step)
    x = x + 8
    series = 1 / (12 * x) - 1 / (360 * x**3) + 1 / (1260 * x**5)
    return np.asarray((x - 0.5) * np.log(x) - x + 0.5 * np.log(2 * np.pi) + series - np.log(product))


def shares_of(logs: Numbers) -> Numbers:
    """Probabilities in proportion to exp(logs)."""
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def log_odds(share: Numbers) -> Numbers:
    """log(p / (1 - p)) of shares with four decimals, whose 0 and 1 are rounded."""
    p = share.clip(5e-5, 1 - 5e-5)
    return np.asarray(np.log(p) - np.log1p(-p))


def sigmoid(x: Numbers) -> Numbers:
    return np.asarray(1 / (1 + np.exp(-x.clip(-40, 40))))


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    middles = log_odds(np.arange(0.15, 1.0, 0.1))
    windows = np.tile(np.array([60, 40, 30, 20, 15, 12, 10, 10, 20]), (8, 1))
    hidden = generator.binomial(windows, sigmoid(middles))  # a score that can be believed
    yes = generator.hypergeometric(hidden, windows - hidden, 2)  # two of each stratum and cell are listened to
    truths = draw_truths(Strata(windows, yes, 2 - yes, np.arange(8) % 2, middles), generator, draws=200)
    low, high = interval(truths.sum(axis=1) / windows.sum())
    truth = hidden.sum() / windows.sum()
    print(f"{truth:.3f} of the windows hold it; from 144 verdicts: {low:.3f} to {high:.3f}")
    assert low < truth < high and high - low < 0.2
