"""Verdicts on windows whose embeddings are stored -> a linear head, in seconds; how good it is; what to listen to next.

    head = fit_verdict_head(judged, background)                  # (width,) weights and a bias for each label
    judgements = judge_labels(judged, background, labels)       # by windows of recordings that a head was not fitted to
    chosen = choose_next(head.logits(everything), vectors, sites, listened, most=100)

Reads and writes   nothing. The features are standardised embeddings, so that the head has the form of ours: `Standard`,
                   then one linear layer

One logistic regression a label, Yes and No of equal weight however many there are of each; beside them some windows of
the archive that nobody listened to count as No, together a tenth: most of an archive is not the species.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from evaluation.calibration import Threshold
from evaluation.fitting import fit_threshold
from evaluation.metrics import bootstrap_interval, cmap, macro_roc_auc, weighted_cmap

STRENGTH = 40.0  # C of the regression, on features whose rows have a mean square of about 1 over their number
BACKGROUND = 0.1  # weight of windows that nobody listened to, all together, beside that of the judged ones
FOLDS = 5
LEAST = 10  # windows with a species below which its threshold is a strict one
ALIKE = 0.9  # cosine above which two windows are the same call to whoever listens
POOL = 40  # windows that are looked at for each one chosen
Numbers = NDArray[np.float32]
Flags = NDArray[np.bool_]


class Judged(NamedTuple):
    """Windows that somebody listened to."""

    features: Numbers  # (windows, width) standardised embeddings
    present: Flags  # (windows, labels)
    known: Flags  # (windows, labels) whether the verdicts say so, or the opposite
    groups: NDArray[np.int64]  # (windows,) what is alike stays together: recordings or sites


class LinearHead(NamedTuple):
    """Weights (width, labels) and bias (labels,) on standardised embeddings."""

    weights: Numbers
    bias: Numbers

    def logits(self, features: Numbers) -> Numbers:
        """(windows, labels)"""
        found: Numbers = features @ self.weights + self.bias
        return found


class LabelJudgement(NamedTuple):
    """How well a label is told from what else was listened to, by heads that were not fitted to it."""

    label: str
    yes: int
    no: int
    precision: float  # average precision, NaN where nothing can be said
    interval: tuple[float, float]
    auc: float
    threshold: Threshold


def fit_verdict_head(judged: Judged, background: Numbers) -> LinearHead:
    """A head on all judged windows.

    background   (windows, width) of the archive, drawn at random
    Errors: a label without a Yes or without a No, to whoever calls.
    """
    width, labels = judged.features.shape[1], judged.present.shape[1]
    weights, bias = np.zeros((width, labels), np.float32), np.zeros(labels, np.float32)
    for label in range(labels):
        rows = judged.known[:, label]
        weights[:, label], bias[label] = fit_label(judged.features[rows], judged.present[rows, label], background)
    return LinearHead(weights, bias)


def fit_label(features: Numbers, present: Flags, background: Numbers) -> tuple[Numbers, float]:
    """Weights (width,) and bias of one label."""
    count, yes = len(features), int(present.sum())
    assert 0 < yes < count, f"{yes} of {count} windows have the species; a head needs both"
    root = np.sqrt(features.shape[1])
    rows = np.concatenate([features, background]) / root
    truth = np.concatenate([present, np.zeros(len(background), np.bool_)])
    each = np.where(present, count / (2 * yes), count / (2 * (count - yes)))
    weight = np.concatenate([each, np.full(len(background), BACKGROUND * count / max(len(background), 1))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that few windows in many directions do not settle is known
        fitted = LogisticRegression(C=STRENGTH, max_iter=300, tol=1e-3).fit(rows, truth, weight)
    return (fitted.coef_[0] / root).astype(np.float32), float(fitted.intercept_[0])


def judge_labels(
    judged: Judged,
    background: Numbers,
    labels: Sequence[str],
    wanted: float = 0.9,
    around: NDArray[np.int64] | None = None,
) -> list[LabelJudgement]:
    """Each label by windows of groups that its heads were not fitted to, all groups in turn.

    wanted   the precision of the thresholds
    around   (windows,) the groups of the background: what is of a group that is judged is left out; None: of no group
    """
    found: list[LabelJudgement] = []
    for column, label in enumerate(labels):
        rows = judged.known[:, column]
        present, groups = judged.present[rows, column], judged.groups[rows]
        scores = out_of_fold(judged.features[rows], present, groups, background, around)
        usable = np.isfinite(scores)
        present, scores, groups = present[usable], scores[usable], groups[usable]
        yes, no = int(judged.present[rows, column].sum()), int((~judged.present[rows, column]).sum())
        threshold = fit_threshold(scores, present, label, wanted, LEAST)
        precision, auc, interval = float("nan"), float("nan"), (0.0, 1.0)
        if present.any() and not present.all() and len(np.unique(groups)) > 1:
            truth, answers = present[:, None], scores[:, None]
            precision, auc = cmap(truth, answers), macro_roc_auc(truth, answers)
            interval = bootstrap_interval(partial(weighted_cmap, truth, answers), groups)
        found.append(LabelJudgement(label, yes, no, precision, interval, auc, threshold))
    return found


def out_of_fold(
    features: Numbers,
    present: Flags,
    groups: NDArray[np.int64],
    background: Numbers,
    around: NDArray[np.int64] | None = None,
) -> Numbers:
    """(windows,) probabilities; NaN where all that is left to fit to is of one kind."""
    scores = np.full(len(features), np.nan, np.float32)
    folds = min(FOLDS, len(np.unique(groups)))
    if folds < 2:
        return scores
    for train, valid in GroupKFold(folds, shuffle=True, random_state=0).split(features, present, groups):
        if 0 < present[train].sum() < len(train):
            elsewhere = background if around is None else background[~np.isin(around, groups[valid])]
            weights, bias = fit_label(features[train], present[train], elsewhere)
            scores[valid] = probabilities(features[valid] @ weights + np.float32(bias))
    return scores


def probabilities(logits: Numbers) -> Numbers:
    """Of logits, without overflow."""
    found: Numbers = (1 / (1 + np.exp(-np.clip(logits, -30, 30)))).astype(np.float32)
    return found


def choose_next(
    logits: Numbers, vectors: Numbers | NDArray[np.float16], sites: NDArray[np.int64], listened: Flags, most: int
) -> list[tuple[int, int]]:
    """Windows that are worth listening to, and the label that each is asked about: those of which a head is least sure,
    labels and sites taking turns, none like another.

    logits     (windows, labels)
    vectors    (windows, width) of length 1
    sites      (windows,)
    listened   (windows,) what was listened to already
    """
    unsure, label = np.abs(logits).min(axis=1), np.abs(logits).argmin(axis=1)
    free = np.flatnonzero(~listened)
    turns: dict[tuple[int, int], int] = {}
    order: list[tuple[int, float, int]] = []
    for row in free[np.argsort(unsure[free], kind="stable")].tolist():
        whose = int(label[row]), int(sites[row])
        turn = turns.get(whose, 0)
        turns[whose] = turn + 1
        if turn < POOL * most:
            order.append((turn, float(unsure[row]), row))
    chosen: list[int] = []
    passed: list[int] = []
    near = np.zeros((0, vectors.shape[1]), np.float32)
    for _, _, row in sorted(order)[: POOL * most]:
        if len(chosen) == most:
            break
        vector = vectors[row].astype(np.float32)
        if len(near) and float((near @ vector).max()) > ALIKE:
            passed.append(row)
            continue
        chosen.append(row)
        near = np.concatenate([near, vector[None]])
    chosen += passed[: most - len(chosen)]
    return [(row, int(label[row])) for row in chosen]


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    calls = rng.normal(size=(3, 32)).astype(np.float32)  # two species and the wind
    kind = rng.integers(3, size=400)
    features = (calls[kind] + rng.normal(0, 0.8, (400, 32))).astype(np.float32)
    present = kind[:, None] == np.arange(2)
    judged = Judged(features[:40], present[:40], np.ones((40, 2), np.bool_), np.arange(40) // 4)
    for judgement in judge_labels(judged, features[300:], ["frog", "toad"]):
        print(f"{judgement.label}: average precision {judgement.precision:.2f}, {judgement.yes} of 40 windows")
    head = fit_verdict_head(judged, features[300:])
    right = (head.logits(features[40:]) > 0) == present[40:]
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    listened = np.arange(400) < 40
    chosen = choose_next(head.logits(features), units, np.arange(400) % 4, listened, most=8)
    print(f"{right.mean():.0%} of the rest are right; listen next to {[row for row, _ in chosen]}")
    assert right.mean() > 0.9 and len({row % 4 for row, _ in chosen}) == 4
