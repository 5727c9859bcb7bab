"""Several classifiers as one: how their answers are blended, with weights fitted on recordings held out of all.

    blend = fit_blend("logits", members, owner, truth, groups, judged, fitted=True)[0]
    probabilities = blended(blend, members)

members are (members, windows, species) probabilities of the same windows. serving/ensemble.py writes the same
arithmetic into one file. Which weights are kept is decided by groups of recordings that they were not fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit, softmax
from sklearn.linear_model import LogisticRegression

from config import BlendOf
from evaluation.calibration import MOST_SURE, clipped_logits
from evaluation.held_out import WindowScores, deal_out, pool_windows
from evaluation.metrics import cmap

LEVELS = 32  # quantiles that a rank is told from
NARROWEST = 1e-3  # between two of them, in logits
PARTS = 5  # that weights are judged in
ROUNDING = 2.0**-22  # of a probability that an engine gives: 1.6e-7 were measured, near 0 and 1 as elsewhere
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Blend:
    """How the answers of several classifiers become one: sigmoid(scale * z + bias), z their weighted mean as logits.

    of        what the mean is of: logits; probabilities; ranks among the windows of held-out recordings
    weights   of the members, sum 1
    levels    for ranks: (members, LEVELS, species) logits that rise, each as likely as the next
    """

    of: BlendOf
    weights: tuple[float, ...]
    scale: float = 1.0
    bias: float = 0.0
    levels: Scores = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))


@dataclass(frozen=True)
class Worth:
    """cmAP on recordings that were held out of all members."""

    members: tuple[float, ...]
    equal: float  # with the same weight for each
    fitted: float  # with weights that were fitted on recordings of other groups


def blended(blend: Blend, members: NDArray[np.floating]) -> Scores:
    """(windows, species) probabilities of (members, windows, species) ones."""
    assert members.ndim == 3 and len(members) == len(blend.weights), f"{members.shape} scores, {blend.weights} weights"
    z = blend.scale * mean_logits(blend, clipped_logits(members)) + blend.bias
    probabilities: Scores = expit(z).astype(np.float32)
    return probabilities


def beyond_rounding(answers: Scores, blend: Blend, members: Scores) -> float:
    """How far the answers of a file that blends logits are from its members blended, beyond what the rounding of the
    members' probabilities leaves open: near 0 and 1 a probability does not tell its logit.

    answers   (windows, species)
    """
    exact = members.astype(np.float64)
    low, high = (blended(blend, exact + step) for step in (-ROUNDING, ROUNDING))  # a blend never falls
    return max(0.0, float(np.maximum(low - answers, answers - high).max()))


def mean_logits(blend: Blend, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(windows, species) of (members, windows, species): the weighted mean of what is blended, as a logit."""
    weights = np.array(blend.weights)
    if blend.of == "logits":
        return np.asarray(np.tensordot(weights, logits, 1), np.float64)
    parts = expit(logits) if blend.of == "probabilities" else ranks(logits, blend.levels)
    return clipped_logits(np.clip(np.tensordot(weights, parts, 1), 0, 1))


def ranks(logits: NDArray[np.float64], levels: Scores) -> NDArray[np.float64]:
    """Which share of the windows that levels were taken from is lower, 0 to 1, linear between two levels.

    logits, levels   (members, windows, species), (members, LEVELS, species)
    """
    low, high = levels[:, :-1, None].astype(np.float64), levels[:, 1:, None].astype(np.float64)
    found: NDArray[np.float64] = np.clip((logits[:, None] - low) / (high - low), 0, 1).mean(axis=1)
    return found


def levels_of(logits: NDArray[np.float64]) -> Scores:
    """(members, LEVELS, species) quantiles of (members, windows, species), each a little above the one before."""
    quantiles = np.quantile(logits, np.linspace(0, 1, LEVELS), axis=1).transpose(1, 0, 2)
    steps = np.maximum(np.diff(quantiles, axis=1), NARROWEST)
    rising = np.concatenate([quantiles[:, :1], quantiles[:, :1] + np.cumsum(steps, axis=1)], axis=1)
    return rising.astype(np.float32)


def equal_blend(of: BlendOf, count: int) -> Blend:
    """The same weight for each of so many members."""
    return Blend(of, (1 / count,) * count)


def among_folds(blend: Blend, group: Sequence[int]) -> Blend:
    """The blend of all members of a blend of groups: what a group counts its members share.

    group   (members,) the number of each member's group
    """
    counts = np.bincount(group)
    weights = tuple(float(blend.weights[number] / counts[number]) for number in group)
    levels = blend.levels[list(group)] if len(blend.levels) else blend.levels
    return replace(blend, weights=weights, levels=levels)


def fit_blend(
    of: BlendOf,
    members: Scores,
    owner: NDArray[np.int64],
    truth: Scores,
    groups: NDArray[np.str_],
    judged: NDArray[np.bool_],
    fitted: bool,
) -> tuple[Blend, Worth]:
    """A blend for recordings that were held out of all members, and what it is worth there.

    members   (members, windows, species) probabilities
    owner     (windows,) index of the recording
    truth     (recordings, species); groups (recordings,), judged (recordings, species) what can be right or wrong
    fitted    whether weights are fitted; they are kept if their cross-entropy is lower than that of equal ones in
              recordings of groups that they were not fitted on
    """
    logits = clipped_logits(members)
    equal = equal_blend(of, len(members))
    if of == "ranks":
        equal = Blend(of, equal.weights, levels=levels_of(logits))
    parts = min(PARTS, len(np.unique(groups)))
    part = deal_out(groups, truth, parts) if parts > 1 else np.zeros(len(groups), np.int64)
    crossed = mean_logits(equal, logits)
    costs = np.zeros(2)
    if parts > 1 and fitted:
        for number in range(parts):
            own, other = part == number, part != number
            weighted = with_weights(equal, logits, owner, truth, judged & other[:, None])
            z = mean_logits(weighted, logits)
            rows = judged & own[:, None]
            costs += [cross_entropy(blend, logits, owner, truth, rows) for blend in (equal, weighted)]
            crossed[own[owner]] = z[own[owner]]
    better = parts > 1 and fitted and costs[1] < costs[0]
    blend = with_weights(equal, logits, owner, truth, judged) if better else equal
    worth = Worth(
        tuple(cmap(truth, pooled(scores, owner, len(truth))) for scores in members),
        cmap(truth, pooled(expit(mean_logits(equal, logits)), owner, len(truth))),
        cmap(truth, pooled(expit(crossed), owner, len(truth))),
    )
    return (as_probabilities(blend, logits, owner, truth, judged) if of == "ranks" else blend), worth


def with_weights(
    start: Blend, logits: NDArray[np.float64], owner: NDArray[np.int64], truth: Scores, judged: NDArray[np.bool_]
) -> Blend:
    """The weights, and the scale and bias beside them, at which the cross-entropy of each recording's highest window is
    least."""

    def blend_of(point: NDArray[np.float64]) -> Blend:
        weights = softmax(point[2:])
        return Blend(start.of, tuple(map(float, weights)), float(np.exp(point[0])), float(point[1]), start.levels)

    def cost(point: NDArray[np.float64]) -> float:
        return cross_entropy(blend_of(point), logits, owner, truth, judged)

    found = minimize(cost, np.zeros(2 + len(logits)), method="Nelder-Mead", options={"maxfev": 400, "xatol": 1e-3})
    weights = blend_of(found.x).weights
    return Blend(start.of, weights, levels=start.levels)


def cross_entropy(
    blend: Blend, logits: NDArray[np.float64], owner: NDArray[np.int64], truth: Scores, judged: NDArray[np.bool_]
) -> float:
    """Of each recording's highest window, summed over what is judged."""
    z = highest(blend.scale * mean_logits(blend, logits) + blend.bias, owner, len(truth))[judged]
    there = truth[judged] > 0
    return float(-np.where(there, log_expit(z), log_expit(-z)).sum())


def as_probabilities(
    blend: Blend, logits: NDArray[np.float64], owner: NDArray[np.int64], truth: Scores, judged: NDArray[np.bool_]
) -> Blend:
    """The same with scale and bias, which make probabilities of ranks (Platt's): a rank of .5 is no even chance."""
    z = highest(mean_logits(blend, logits), owner, len(truth))[judged]
    there = truth[judged] > 0
    if there.all() or not there.any():
        return blend
    fitted = LogisticRegression(C=1e6).fit(z[:, None], there)
    bias, moved = (float(value) for value in fitted.decision_function(np.array([[0.0], [1.0]])))
    scale = moved - bias
    assert scale > 0, (
        f"a higher rank would be a lower probability (slope {scale:.2g}): these members know nothing of these "
        "recordings; give --blend.of logits, or leave the worst member out"
    )
    return Blend(blend.of, blend.weights, scale, bias, blend.levels)


def highest(z: NDArray[np.float64], owner: NDArray[np.int64], recordings: int) -> NDArray[np.float64]:
    """(recordings, species) the highest of each recording's windows."""
    found = np.full((recordings, z.shape[1]), -MOST_SURE)
    np.maximum.at(found, owner, z)
    return found


def pooled(scores: NDArray[np.floating], owner: NDArray[np.int64], recordings: int) -> Scores:
    """(recordings, species) the mean over each recording's windows."""
    times = np.zeros(len(owner))
    windows = WindowScores(owner, times, times, scores.astype(np.float32), scores[:, :0].astype(np.float32))
    return pool_windows(windows, recordings)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 4)) < 0.3).astype(np.float32)
    clear, noisy = (4 * truth - 2 + rng.normal(0, spread, truth.shape) for spread in (1.0, 6.0))
    members = expit(np.stack([clear, noisy])).astype(np.float32)
    names = np.arange(200).astype(np.str_)
    for of in ("logits", "probabilities", "ranks"):
        blend, worth = fit_blend(of, members, np.arange(200), truth, names, truth >= 0, fitted=True)
        print(f"{of}: weights {[round(weight, 2) for weight in blend.weights]}, cmAP {worth.equal:.3f} with equal ones")
        assert blend.weights[0] > 0.6 and worth.fitted > worth.equal, "the member that knows more counts for more"
