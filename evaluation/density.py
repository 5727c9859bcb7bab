"""How many windows hold a species, from verdicts on a sample in strata of the score: draws of the truth, not one guess.

    truths = draw_truths(counts, yes, no, site, middles, generator)   # (draws, cells), windows with the species
    low, high = interval(truths.sum(axis=1) / windows)

A cell is a place and a time (one site, one day); a stratum is a range of scores. Everything that is said of a season,
of a site or of a day is a sum over the same draws, so the parts always add up to the whole.

1. Share of windows with the species in each stratum, over the whole season: Beta posteriors around a logistic curve of
   the score, drawn near it as far as the verdicts say that strata lie near it. Within a stratum verdicts are a random
   sample, so this holds whatever sites and days are like (Navine et al. 2024, https://arxiv.org/abs/2402.15360).
2. Sites: how common it is at a site moves the share right in every stratum (prior shift: Saerens et al. 2002,
   https://doi.org/10.1162/089976602753284446). Sites differ in what is taken for the species too: how much, the
   verdicts of all of them say, and those of a site move its own shares (partial pooling).
3. Where and when: a cell's windows are a mixture of two densities of the score, that of windows with the species and
   that of windows without it at this site. Cells of a site are alike.
4. All sites together must give step 1 again, all cells of a site step 2 (benchmarking), and what nobody listened to is
   drawn window by window. A cell that is drawn as absent stays so.
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
TINY = 1e-300  # added to what a logarithm is taken of
LOWEST = 1e-9  # a share nearer to 0 or 1 is kept away from it
SCATTER = np.array([30.0, 120.0, 480.0, 1920.0])  # verdicts that the curve is worth to a stratum
APART = np.array([0.1, 0.5, 1.0, 2.0, 4.0])  # standard deviations of log odds among sites, in all strata alike
ASIDE = np.array([0.1, 0.5, 1.0, 2.0])  # the same among the strata of a site
NEVER = -200.0  # log odds
MOVES = np.linspace(-6.0, 6.0, 25)  # log odds
RUNGS = np.linspace(-22.0, 22.0, 177)  # log odds
CEILINGS = np.array([1.0, 0.7, 0.4, 0.2, 0.08, 0.02])  # of the curve; 1 is as likely as the others together
REACH = np.linspace(-4.0, 4.0, 13)  # standard deviations
SLOPES = np.linspace(0.1, 4.1, 21)  # of the curve; a score that can be believed has slope 1 and intercept 0
INTERCEPTS = np.linspace(-9.0, 6.0, 26)
LEVELS = 18  # of how common a species can be in a cell, besides absent
COMMONEST = 4.0  # log odds
ROUNDS = 15  # towards the likeliest prevalences
SWEEPS = 5  # draws of prevalences and of what is usual at a site, each given the other
BALANCING = 20  # steps at most
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


@dataclass(frozen=True)
class Sites:
    """What is known of one species by site, and log likelihoods of what was listened to there."""

    strata: Strata  # a cell is a site
    member: Numbers  # (sites, cells) 1 where a cell is of a site
    plain: Numbers  # (sites, strata, rungs) of the verdicts at each log odds
    smeared: Numbers  # (sites, strata, rungs, aside) the same, with what may lie aside of it


def sites_of(strata: Strata) -> Sites:
    """The cells of each site together."""
    member = np.eye(int(strata.site.max(initial=0)) + 1)[:, strata.site]
    windows, yes, no = (np.asarray(member @ each, np.int64) for each in (strata.windows, strata.yes, strata.no))
    for_it, against = (np.asarray(each[:, :, None], np.float64) for each in (yes, no))
    plain: Numbers = -for_it * np.logaddexp(0, -RUNGS) - against * np.logaddexp(0, RUNGS)
    plain -= plain.max(axis=2, keepdims=True)  # thousands of verdicts would leave nothing of it
    likelihood = np.exp(plain)
    smeared = np.full((*plain.shape, len(ASIDE)), TINY)
    for move, weights in zip(MOVES, chances_of_moves(ASIDE).T, strict=True):
        smeared += likelihood[:, :, rung(RUNGS + move), None] * weights
    return Sites(
        Strata(windows, yes, no, np.arange(len(member)), strata.middles), member, plain, np.log(smeared, out=smeared)
    )


def chances_of_moves(deviations: Numbers) -> Numbers:
    """(deviations, moves): how likely each of MOVES is at each standard deviation."""
    bell = np.exp(-0.5 * (MOVES / deviations[:, None]) ** 2)
    return np.asarray(bell / bell.sum(axis=1, keepdims=True))


def draw_truths(strata: Strata, generator: np.random.Generator, draws: int = DRAWS) -> Counts:
    """(draws, cells): how many windows hold the species, as the verdicts allow it."""
    left = strata.windows - strata.yes - strata.no
    shares = stratum_shares(strata, generator, draws)
    sites = sites_of(strata)
    numbers = max(len(left) * (LEVELS + left.shape[1]), sites.strata.windows.size * len(MOVES))  # of a draw
    size = max(1, AT_A_TIME // max(1, numbers))
    parts = [
        cell_truths(strata, sites, left, shares[first : first + size], generator) for first in range(0, draws, size)
    ]
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


def cell_truths(strata: Strata, sites: Sites, left: Counts, shares: Numbers, generator: np.random.Generator) -> Counts:
    """(draws, cells): windows with the species among those that nobody listened to."""
    total = strata.windows.sum(axis=0)
    with_it, without = parts_of_one(shares * total), parts_of_one((1 - shares) * total)
    own = site_shares(sites, shares, with_it, without, generator)
    without_here = parts_of_one((1 - own) * sites.strata.windows + SHARED * without[:, None])  # (draws, sites, strata)
    prevalence = cell_prevalences(strata, left, with_it, without_here, sites.member, generator)
    odds = (prevalence / (1 - prevalence))[:, :, None] * (with_it[:, None] / without_here)[:, strata.site]
    absent = prevalence == LOWEST  # no window there holds it, whatever the season's shares ask for
    right = benchmarked(np.where(absent[:, :, None], NEVER, log_of(odds)), left, own, strata.site)
    drawn: Counts = generator.binomial(left, right)
    return np.asarray(drawn.sum(axis=2), np.int64)


def site_shares(
    sites: Sites, shares: Numbers, with_it: Numbers, without: Numbers, generator: np.random.Generator
) -> Numbers:
    """(draws, sites, strata): the shares of each site, of which the windows at all sites together have `shares`.

    The log odds of a site are those that its prevalence alone would give, moved by what it does to all strata and by
    what it does to each. How far sites lie apart in the one (APART) and strata in the other (ASIDE), the verdicts say.
    """
    left = sites.strata.windows - sites.strata.yes - sites.strata.no
    if len(left) == 1:
        return shares[:, None]
    expected = expected_at_sites(left, shares, with_it, without)
    # how far apart sites lie, as all verdicts say
    apart, aside = chances_of_moves(APART), chances_of_moves(ASIDE)
    each_site, each_stratum = np.ogrid[: len(left), : left.shape[1]]
    middle = rung(expected.mean(axis=0)[:, :, None] + MOVES)
    fit = sites.smeared[each_site[:, :, None], each_stratum[:, :, None], middle].sum(axis=1)  # (sites, moves, aside)
    best = fit.max(axis=1, keepdims=True)
    evidence = (np.log(np.einsum("sma,tm->sta", np.exp(fit - best), apart) + TINY) + best).sum(axis=0)
    chosen = generator.choice(evidence.size, len(shares), p=shares_of(evidence.ravel()))
    of_sites, of_strata = chosen // len(ASIDE), chosen % len(ASIDE)
    # of each draw: what its sites do to all strata, then what they do to each
    places = rung(expected[:, :, None] + MOVES[:, None])  # (draws, sites, moves, strata)
    of_draw = of_strata[:, None, None, None]
    fit = sites.smeared[each_site[:, None], each_stratum[:, None], places, of_draw].sum(axis=3)
    chance = np.exp(fit - fit.max(axis=2, keepdims=True)) * apart[of_sites][:, None]
    moved = expected + MOVES[picked(chance, generator)][:, :, None]
    places = rung(moved[:, :, :, None] + MOVES)
    fit = sites.plain[each_site[:, :, None], each_stratum[:, :, None], places]
    chance = np.exp(fit - fit.max(axis=3, keepdims=True)) * aside[of_strata][:, None, None]
    moved += MOVES[picked(chance, generator)]
    return benchmarked(moved, left, shares[:, None], np.zeros(len(left), np.int64))


def expected_at_sites(left: Counts, shares: Numbers, with_it: Numbers, without: Numbers) -> Numbers:
    """(draws, sites, strata): log odds of a window at sites that differ in how common the species is, and in nothing
    else."""
    whole = (shares * left.sum(axis=0)).sum(axis=1) / max(1, left.sum())
    prevalence = np.repeat(whole.clip(LOWEST, 1 - LOWEST)[:, None, None], len(left), axis=1)
    for _ in range(ROUNDS):
        both = prevalence * with_it[:, None]
        held = left * both / (both + (1 - prevalence) * without[:, None])
        prevalence = (held.sum(axis=2) / np.maximum(1, left.sum(axis=1)))[:, :, None].clip(LOWEST, 1 - LOWEST)
    return log_of(prevalence / (1 - prevalence) * (with_it / without)[:, None])


def site_surprise(strata: Strata, generator: np.random.Generator, draws: int = DRAWS) -> float:
    """How likely verdicts at sites lie as far apart as these where sites differ in how common the species is alone.

    A posterior predictive probability (Gelman, Meng & Stern 1996): cautious, as the shares that it stands on are drawn.
    """
    here = sites_of(strata).strata
    shares, total = stratum_shares(strata, generator, draws), strata.windows.sum(axis=0)
    parts = parts_of_one(shares * total), parts_of_one((1 - shares) * total)
    expected = sigmoid(expected_at_sites(here.windows, shares, *parts))
    listened = here.yes + here.no
    spread = (listened * expected * (1 - expected)).sum(axis=2) + LOWEST

    def apart(found: Numbers | Counts) -> Numbers:
        return np.asarray(((found - listened * expected).sum(axis=2) ** 2 / spread).sum(axis=1))

    made_up = generator.binomial(listened, expected)
    return float((apart(made_up) >= apart(here.yes)).mean())


def cell_prevalences(
    strata: Strata, left: Counts, with_it: Numbers, without: Numbers, member: Numbers, generator: np.random.Generator
) -> Numbers:
    """(draws, cells): how common the species is in each cell, drawn given its scores, its verdicts and its site.

    What is usual at a site is drawn too, each given the other (Gibbs sampling), from where the likeliest lies.
    """
    usual_size = max(2.0, float(np.median(strata.windows.sum(axis=1))))  # of a cell: one window of it is the least
    rungs = np.arange(LEVELS, dtype=np.float64) / (LEVELS - 1)
    levels = np.concatenate([[LOWEST], sigmoid(-math.log(usual_size) * (1 - rungs) + COMMONEST * rungs)])
    mixed = np.log(with_it[:, None, :, None] * levels + without[:, :, :, None] * (1 - levels)).astype(np.float32)
    fit = np.empty((len(with_it), len(left), len(levels)), np.float32)
    for place, cells in enumerate(member > 0):
        fit[:, cells] = left[cells].astype(np.float32) @ mixed[:, place]
    yes, no = (each.sum(axis=1)[:, None] for each in (strata.yes, strata.no))
    fit += yes * np.log(levels) + no * np.log1p(-levels)  # what does not depend on the level is left out
    likelihood = np.exp(fit - fit.max(axis=2, keepdims=True))
    start = np.full(len(levels), 0.5 / LEVELS, np.float32)
    start[0] = 0.5
    usual = np.broadcast_to(start, (len(fit), len(member), len(levels)))
    of_site = np.asarray(member, np.float32)
    for _ in range(ROUNDS):
        chance = likelihood * usual[:, strata.site]
        chance /= chance.sum(axis=2, keepdims=True)
        usual = of_site @ chance + SHARED * (chance.mean(axis=1, keepdims=True) + start / len(left))
        usual /= usual.sum(axis=2, keepdims=True)
    for _ in range(SWEEPS):
        level = picked(likelihood * usual[:, strata.site], generator)
        chosen = np.asarray(level[:, :, None] == np.arange(len(levels)), np.float32)
        everywhere = dirichlet(chosen.sum(axis=1, keepdims=True) + start, generator)
        usual = np.asarray(dirichlet(of_site @ chosen + SHARED * everywhere, generator), np.float32)
    return np.asarray(levels[picked(likelihood * usual[:, strata.site], generator)])


def dirichlet(counts: Numbers, generator: np.random.Generator) -> Numbers:
    """Shares of the last axis, drawn given what was counted."""
    drawn = np.asarray(generator.standard_gamma(counts), np.float64) + LOWEST
    return np.asarray(drawn / drawn.sum(axis=-1, keepdims=True))


def benchmarked(odds: Numbers, left: Counts, shares: Numbers, group: Counts) -> Numbers:
    """(draws, rows, strata): shares right whose sum over the rows of each group is that group's in each stratum.

    odds     (draws, rows, strata), logs
    shares   (draws, groups, strata) of the windows in `left`
    """
    member = np.eye(shares.shape[1])[:, group]
    wanted = shares * (member @ left)
    factor = np.zeros_like(wanted)  # log
    for _ in range(BALANCING):
        right = sigmoid(odds + factor[:, group])
        missing = wanted - member @ (left * right)
        if (abs(missing) < 0.01 * wanted + 0.01).all():
            break
        factor += (missing / (member @ (left * right * (1 - right)) + LOWEST)).clip(-2, 2)
    return sigmoid(odds + factor[:, group])


def parts_of_one(weights: Numbers) -> Numbers:
    """Weights of strata as parts of one, none of them nothing."""
    kept = weights + LOWEST
    return np.asarray(kept / kept.sum(axis=-1, keepdims=True))


def picked(chances: Numbers, generator: np.random.Generator) -> Counts:
    """One of the last axis, as likely as its chance says."""
    cumulated = chances.cumsum(axis=-1)
    drawn = generator.random((*chances.shape[:-1], 1)) * cumulated[..., -1:]
    return np.asarray((cumulated < drawn).sum(axis=-1).clip(max=chances.shape[-1] - 1))


def rung(x: Numbers) -> Counts:
    """The nearest of RUNGS."""
    step = RUNGS[1] - RUNGS[0]
    return np.asarray(np.rint((x.clip(RUNGS[0], RUNGS[-1]) - RUNGS[0]) / step), np.int64)


def log_of(odds: Numbers) -> Numbers:
    return np.asarray(np.log(odds.clip(LOWEST**2, LOWEST**-2)))


def interval(values: Numbers, level: float = LEVEL) -> tuple[Numbers, Numbers]:
    """The middle share of draws, over their first axis: one more draw falls into it with just that chance."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0, method="weibull")
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
    ends = x * (x + 7)  # (x + 1)(x + 6) is this and 6, and so on
    product = ends * (ends + 6) * (ends + 10) * (ends + 12)  # up to where the series is good
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
