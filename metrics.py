"""What "good" means: ranking per species, the one best answer, and how far off the mistakes are.

    card = scorecard(truth, scores, distances)
    low, high = bootstrap_interval(macro_roc_auc, truth, scores, groups=recordists)

Everywhere: truth (rows, species) of 0 and 1, scores (rows, species), higher is surer; a row is a clip or a window.
Scores may be logits or probabilities. NaN is refused: a model that says nothing must not be ranked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Truth = NDArray[np.bool_ | np.number[Any]]
Scores = NDArray[np.floating[Any]]


def scorecard(truth: Truth, scores: Scores, distances: Scores) -> dict[str, float]:
    """Everything at once: macro_auc, cmap, top1, macro_f1, mistake_distance, mistake_severity, classes, rows.

    distances  (species, species) taxonomic distance, 0 on the diagonal
    returns    classes: how many species macro_auc is the mean of; rows: how many have a label, which is how many top1,
               macro_f1 and the mistakes are counted over
    """
    return {
        "macro_auc": macro_roc_auc(truth, scores),
        "cmap": cmap(truth, scores),
        "top1": top1_accuracy(truth, scores),
        "macro_f1": macro_f1(truth, scores),
        "mistake_distance": mistake_distance(truth, scores, distances),
        "mistake_severity": mistake_severity(truth, scores, distances),
        "classes": float(np.isfinite(class_roc_auc(truth, scores)).sum()),
        "rows": float(len(answers(truth, scores)[1])),
    }


def macro_roc_auc(truth: Truth, scores: Scores) -> float:
    """The competition's measure: area under the ROC curve, mean over the species that occur.

    A species that never occurs, or always, has no curve and is left out.
    source    https://www.kaggle.com/competitions/birdclef-2025/overview/evaluation
    """
    areas = class_roc_auc(truth, scores)
    defined = areas[np.isfinite(areas)]
    assert defined.size, "no species is both present and absent, so there is no ROC curve; score more recordings"
    return float(defined.mean())


def class_roc_auc(truth: Truth, scores: Scores) -> NDArray[np.float64]:
    """(species,) how often a row with the species scores above a row without; a tie counts half; NaN without both."""
    heard, scores = checked(truth, scores)
    areas = np.full(heard.shape[1], np.nan)
    for species in np.flatnonzero(heard.any(axis=0) & ~heard.all(axis=0)):
        hits, misses = counts_by_score(heard[:, species], scores[:, species])
        beaten = misses.sum() - misses.cumsum() + misses / 2
        areas[species] = (hits * beaten).sum() / (hits.sum() * misses.sum())
    return areas


def cmap(truth: Truth, scores: Scores, min_positives: int = 1) -> float:
    """Average precision, mean over the species with at least `min_positives` rows (5 makes it cmAP5)."""
    heard, scores = checked(truth, scores)
    counted = heard.sum(axis=0) >= max(min_positives, 1)
    assert counted.any(), f"no species has {min_positives} positive rows; score more recordings or ask for fewer"
    return float(class_average_precision(heard, scores)[counted].mean())


def class_average_precision(truth: Truth, scores: Scores) -> NDArray[np.float64]:
    """(species,) precision at each threshold weighted by the recall it adds, ties entering together; NaN without any.

    source    as in https://scikit-learn.org/stable/modules/generated/sklearn.metrics.average_precision_score.html
    """
    heard, scores = checked(truth, scores)
    precisions = np.full(heard.shape[1], np.nan)
    for species in np.flatnonzero(heard.any(axis=0)):
        hits, misses = counts_by_score(heard[:, species], scores[:, species])
        precisions[species] = (hits * hits.cumsum() / (hits + misses).cumsum()).sum() / hits.sum()
    return precisions


def top1_accuracy(truth: Truth, scores: Scores) -> float:
    """Share of the labelled rows whose best guess is among their labels."""
    heard, guess = answers(truth, scores)
    return float(heard[np.arange(len(guess)), guess].mean())


def macro_f1(truth: Truth, scores: Scores) -> float:
    """F1 of the best guesses, mean over the species in the truth; one never guessed scores 0. For one label per row."""
    heard, guess = answers(truth, scores)
    guessed = np.eye(heard.shape[1], dtype=np.bool_)[guess]
    each = 2 * (heard & guessed).sum(axis=0) / np.maximum(heard.sum(axis=0) + guessed.sum(axis=0), 1)
    return float(each[heard.any(axis=0)].mean())


def mistake_distance(truth: Truth, scores: Scores, distances: Scores) -> float:
    """How far the best guess is from the nearest label, mean over all labelled rows; a right guess counts 0.

    distances  (species, species) taxonomic distance, 0 on the diagonal; the result has its unit
    """
    return float(steps_off(truth, scores, distances)[0].mean())


def mistake_severity(truth: Truth, scores: Scores, distances: Scores) -> float:
    """How far off the mistakes are, mean over the wrong rows alone; 0 when there are none.

    Never read it alone: a model that adds near mistakes to far ones looks better by it.
    distances  (species, species) taxonomic distance, 0 on the diagonal; the result has its unit
    source     https://arxiv.org/abs/1912.09393
    """
    steps, wrong = steps_off(truth, scores, distances)
    return float(steps[wrong].mean()) if wrong.any() else 0.0


def bootstrap_interval(
    statistic: Callable[[NDArray[Any], NDArray[Any]], float],
    truth: Truth,
    scores: Scores,
    groups: NDArray[Any],
    repeats: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Where the statistic lies in 95 of 100 repetitions of the field season: percentile bootstrap over whole groups.

    statistic  (truth, scores) -> float, called with the rows of as many groups as there are, drawn with replacement
    scores     (rows, ...): to compare two models stack theirs to (rows, species, 2) and let the statistic return the
               difference; both then see the same draw
    groups     (rows,) the recording, recordist or site of each row: what is alike stays together
    returns    the 2.5th and 97.5th percentile. A draw in which no species is both present and absent is left out
    source     Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13
    """
    assert len(truth) == len(scores) == len(groups), f"{len(truth)} rows, {len(scores)} scores, {len(groups)} groups"
    names, member = np.unique(groups, return_inverse=True)
    assert len(names) > 1, f"all rows are of one group, {names.tolist()}; an interval needs at least two"
    rows, ends = np.argsort(member, kind="stable"), np.bincount(member).cumsum()
    starts = ends - np.bincount(member)
    generator = np.random.default_rng(seed)
    values: list[float] = []
    for _ in range(repeats):
        groups_drawn = generator.integers(len(names), size=len(names))
        drawn = np.concatenate([rows[starts[group] : ends[group]] for group in groups_drawn])
        heard = truth[drawn] > 0
        if (heard.any(axis=0) & ~heard.all(axis=0)).any():
            values.append(statistic(truth[drawn], scores[drawn]))
    assert values, "in no draw was a species both present and absent; give more groups or repeats"
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def steps_off(truth: Truth, scores: Scores, distances: Scores) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Per labelled row: distance of the best guess to the nearest label, and whether the guess is wrong."""
    heard, guess = answers(truth, scores)
    species = heard.shape[1]
    assert distances.shape == (species, species), f"distances {distances.shape}, {species} species; use the same labels"
    assert np.isfinite(distances).all() and not np.diagonal(distances).any(), "distances: finite, 0 on the diagonal"
    steps = np.where(heard, distances[guess], np.inf).min(axis=1)
    return steps.astype(np.float64), ~heard[np.arange(len(guess)), guess]


def answers(truth: Truth, scores: Scores) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Of the rows that have a label: their labels, and the best guess (the first among equals)."""
    heard, scores = checked(truth, scores)
    labelled = np.flatnonzero(heard.any(axis=1))
    assert labelled.size, "no row has a label, so no guess can be right; score labelled recordings"
    return heard[labelled], np.argmax(scores[labelled], axis=1)


def counts_by_score(heard: NDArray[np.bool_], scores: Scores) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each different score, best first: how many rows with it have the species, and how many have not."""
    _, level = np.unique(-scores, return_inverse=True)
    every = np.bincount(level)
    hits = np.bincount(level[heard], minlength=len(every))
    return hits, every - hits


def checked(truth: Truth, scores: Scores) -> tuple[NDArray[np.bool_], Scores]:
    """Truth as bool, and scores, once both are what every measure expects."""
    assert truth.ndim == 2 and truth.shape == scores.shape, (
        f"truth {truth.shape}, scores {scores.shape}; both must be (rows, species), in the same order"
    )
    assert truth.size, f"truth {truth.shape} is empty; score at least one row"
    assert np.issubdtype(scores.dtype, np.floating), f"scores are {scores.dtype}; give floating-point numbers"
    bad = np.isnan(scores)
    assert not bad.any(), (
        f"{bad.sum()} scores are NaN, the first at row and species {np.argwhere(bad)[0].tolist()}; mend the model first"
    )
    odd = (truth != 0) & (truth != 1)
    assert not odd.any(), f"truth holds {np.unique(truth[odd])[:5].tolist()}; make it 0 or 1, as by truth >= 0.5"
    return truth.astype(np.bool_), scores


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    species = generator.integers(4, size=120)  # two tits, a frog, a cricket
    truth = np.eye(4)[species]
    distances = np.array([[0, 2, 5, 6], [2, 0, 5, 6], [5, 5, 0, 6], [6, 6, 6, 0]]) / 6
    careful = truth * 1.5 + (1 - distances[species]) + generator.normal(size=truth.shape)
    careless = truth * 1.5 + generator.permuted(1 - distances[species], axis=1) + generator.normal(size=truth.shape)
    for name, scores in (("careful", careful), ("careless", careless)):
        print(name, {key: round(value, 3) for key, value in scorecard(truth, scores, distances).items()})
    recordists = np.arange(120) // 4
    low, high = bootstrap_interval(
        lambda drawn, pair: macro_roc_auc(drawn, pair[..., 0]) - macro_roc_auc(drawn, pair[..., 1]),
        truth,
        np.stack([careful, careless], axis=2),
        recordists,
        repeats=300,
    )
    print(f"gain in macro ROC-AUC: {low:.3f} to {high:.3f}")
    assert mistake_severity(truth, careful, distances) < mistake_severity(truth, careless, distances)
    assert low > 0 and abs(macro_roc_auc(truth, truth) - 1) < 1e-12
