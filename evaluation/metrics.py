"""What "good" means: ranking per species, the one best answer, and how far off the mistakes are.

    card = scorecard(truth, scores, distances)
    low, high = bootstrap_interval(partial(weighted_cmap, truth, scores), groups=recordists)
    areas = rank_roc_auc(truth, probabilities, rank_groups(taxonomy))         # right genus, right family, ...

Everywhere: truth (rows, species) of 0 and 1, scores (rows, species), higher is surer; a row is a clip or a window.
Scores may be logits or probabilities. NaN is refused: a model that says nothing must not be ranked; so is infinity.

Which rows: AUC and average precision rank all rows, those without any species among them; top-1, F1 and the distance of
mistakes are of the rows that have a label. An interval is of the same rows as its figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

Truth = NDArray[np.bool_ | np.number[Any]]
Scores = NDArray[np.floating[Any]]
Weights = NDArray[np.float64]  # (rows, draws)
AT_ONCE = 4_000_000  # weights held in memory
LEAST_PROBABILITY = 1e-15  # that a divergence is counted with: below it one sure mistake would outweigh all else


def scorecard(truth: Truth, scores: Scores, distances: Scores) -> dict[str, float]:
    """Everything at once: macro_auc, cmap, top1, macro_f1, mistake_distance, mistake_severity, classes, rows.

    distances  (species, species) taxonomic distance, 0 on the diagonal
    returns    classes: how many species macro_auc is the mean of; rows: how many have a label, which is how many top1,
               macro_f1 and the mistakes are counted over. Without macro_auc where no species is both present and
               absent, as with one species and no recording without it
    """
    areas = class_roc_auc(truth, scores)
    defined = areas[np.isfinite(areas)]
    return ({"macro_auc": float(defined.mean())} if defined.size else {}) | {
        "cmap": cmap(truth, scores),
        "top1": top1_accuracy(truth, scores),
        "macro_f1": macro_f1(truth, scores),
        "mistake_distance": mistake_distance(truth, scores, distances),
        "mistake_severity": mistake_severity(truth, scores, distances),
        "classes": float(defined.size),
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
    from sklearn.metrics import roc_auc_score  # slow to import

    present, scores = checked(truth, scores)
    areas = np.full(present.shape[1], np.nan)
    defined = present.any(axis=0) & ~present.all(axis=0)
    if defined.any():
        areas[defined] = roc_auc_score(present[:, defined], scores[:, defined], average=None)
    return areas


def rank_roc_auc(truth: Truth, scores: Scores, groups: Mapping[str, NDArray[np.int64]]) -> dict[str, float]:
    """Macro ROC-AUC at each rank: a taxon is present where any of its species is, by 1 - prod(1 - p) over them.

    scores    probabilities
    groups    rank -> (species,) number of the taxon, -1 where it is not known, coarse ranks first: ranks.rank_groups
    returns   rank -> mean over its taxa that are present and absent, NaN without any. A label that is not known at a
              rank has no taxon there, and the taxa it may belong to are neither right nor wrong in its rows
    """
    present, scores = checked(truth, scores)
    check_probabilities(scores)
    absence = np.log1p(-np.minimum(scores.astype(np.float64), np.nextafter(1, 0)))  # in logs nothing rounds to 0 or 1
    areas: dict[str, float] = {}
    for rank, group in groups.items():
        assert group.shape == present.shape[1:], (
            f"{rank}: {group.shape} groups, {present.shape[1]} species; use the same"
        )
        unsure = undecided(present, groups, rank)
        each: list[float] = []
        for taxon in np.unique(group[group >= 0]):
            members = group == taxon
            occurs = present[:, members].sum(axis=1) > 0
            known = occurs | (unsure[:, members].sum(axis=1) == 0)
            if known.any():
                each += class_roc_auc(occurs[known, None], -absence[:, members].sum(axis=1)[known, None]).tolist()
        defined = [area for area in each if np.isfinite(area)]
        areas[rank] = float(np.mean(defined)) if defined else float("nan")
    return areas


def cmap(truth: Truth, scores: Scores, min_positives: int = 1) -> float:
    """Average precision, mean over the species with at least `min_positives` rows (5 makes it cmAP5)."""
    present, scores = checked(truth, scores)
    counted = present.sum(axis=0) >= max(min_positives, 1)
    assert counted.any(), f"no species has {min_positives} positive rows; score more recordings or ask for fewer"
    return float(class_average_precision(present, scores)[counted].mean())


def class_average_precision(truth: Truth, scores: Scores) -> NDArray[np.float64]:
    """(species,) precision at each threshold weighted by the recall it adds, ties entering together; NaN without any.

    source    https://scikit-learn.org/stable/modules/generated/sklearn.metrics.average_precision_score.html
    """
    from sklearn.metrics import average_precision_score  # slow to import

    present, scores = checked(truth, scores)
    precisions = np.full(present.shape[1], np.nan)
    found = present.any(axis=0)
    if found.any():
        precisions[found] = average_precision_score(present[:, found], scores[:, found], average=None)
    return precisions


def top1_accuracy(truth: Truth, scores: Scores) -> float:
    """Share of the labelled rows whose best guess is among their labels."""
    present, guess = answers(truth, scores)
    return float(present[np.arange(len(guess)), guess].mean())


def macro_f1(truth: Truth, scores: Scores) -> float:
    """F1 of the best guesses, mean over the species in the truth; one never guessed scores 0. For one label per row."""
    present, guess = answers(truth, scores)
    guessed = np.eye(present.shape[1], dtype=np.bool_)[guess]
    each = 2 * (present & guessed).sum(axis=0) / np.maximum(present.sum(axis=0) + guessed.sum(axis=0), 1)
    return float(each[present.any(axis=0)].mean())


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


def kl_divergence(truth: Truth, scores: Scores) -> float:
    """How far the answers are from the truth as distributions over the species, sum_c t_c log(t_c / p_c), mean over the
    rows that have a label; 0 is perfect. Each row's labels share 1 evenly, its probabilities are divided by their sum.

    scores     probabilities
    source     https://www.kaggle.com/competitions/hms-harmful-brain-activity-classification, where it judges
    """
    present, scores = checked(truth, scores)
    check_probabilities(scores)
    labelled = present.any(axis=1)
    assert labelled.any(), "no row has a label; score more recordings"
    wanted = present[labelled] / present[labelled].sum(axis=1, keepdims=True)
    given = np.clip(scores[labelled].astype(np.float64), LEAST_PROBABILITY, None)
    given /= given.sum(axis=1, keepdims=True)
    terms = wanted * np.log(np.where(wanted > 0, wanted, 1.0) / given)
    return float(terms.sum(axis=1).mean())


def least_cost_answers(scores: Scores, distances: Scores) -> NDArray[np.intp]:
    """(rows,) the guess that costs least if the scores are right: argmin_k sum_c p_c D[c, k].

    Dividing the scores of a row by their sum, as the source does, moves no minimum.
    scores     probabilities, calibrated
    distances  (species, species) taxonomic distance, 0 on the diagonal
    source     Karthik et al., ICLR 2021, https://openreview.net/forum?id=193sEnKY1ij
    """
    check_scores(scores)
    check_probabilities(scores)
    check_distances(distances, scores.shape[1])
    cheapest: NDArray[np.intp] = np.argmin(scores.astype(np.float64) @ distances.astype(np.float64), axis=1)
    return cheapest


def answers_scorecard(truth: Truth, answers: NDArray[np.integer[Any]], distances: Scores) -> dict[str, float]:
    """top1, mistake_distance and mistake_severity of answers that were found in another way than by the best score.

    answers  (rows,) one species number per row; rows without a label do not count
    """
    assert truth.ndim == 2 and answers.shape == truth.shape[:1] and np.issubdtype(answers.dtype, np.integer), (
        f"answers {answers.shape} of {answers.dtype}, truth {truth.shape}; give one species number per row"
    )
    strange = answers[(answers < 0) | (answers >= truth.shape[1])]
    assert not strange.size, f"answers hold {strange[:5].tolist()}; species are numbered 0 to {truth.shape[1] - 1}"
    sure = np.eye(truth.shape[1], dtype=np.float32)[answers]
    return {
        "top1": top1_accuracy(truth, sure),
        "mistake_distance": mistake_distance(truth, sure, distances),
        "mistake_severity": mistake_severity(truth, sure, distances),
    }


def false_positive_severity(
    truth: Truth, scores: Scores, distances: Scores, recall: float = 0.5, valid: NDArray[np.bool_] | None = None
) -> tuple[float, float]:
    """How far off the false alarms are, and how many per row, where the model finds as much as another.

    The threshold, one for all species, is the highest at which `recall` of the labels are found. At a fixed threshold
    one would compare how sure two models are, not how wrong.
    distances  (species, species) taxonomic distance, 0 on the diagonal
    valid      (rows, species) False for what is not judged, such as secondary labels; these still count as present
    returns    mean distance of the false alarms to the nearest label of their row, 0 without any; false alarms per
               row. In rows without a label nothing is near or far: theirs are counted, not measured
    """
    present, scores = checked(truth, scores)
    check_distances(distances, present.shape[1])
    assert 0 < recall <= 1, f"recall {recall}; choose above 0 and at most 1, such as 0.5"
    judged = np.ones_like(present) if valid is None else valid
    assert judged.shape == present.shape, f"valid {judged.shape}, truth {present.shape}; give one for each"
    found = np.sort(scores[present & judged])[::-1]
    assert found.size, "no row has a label, so nothing can be found; score labelled recordings"
    threshold = found[max(ceil(recall * found.size - 1e-9), 1) - 1]  # .7 times 10 may be a little above 7
    steps = steps_to_labels(present, distances)[judged & ~present & (scores >= threshold)]
    measured = steps[np.isfinite(steps)]
    return float(measured.mean()) if measured.size else 0.0, steps.size / len(present)


def false_alarms_per_hour(scores: Scores, threshold: float | Scores, hours: float) -> float:
    """How often recordings without any of the species raise an alarm: windows with a score at its threshold, per hour.

    scores     (windows, species) of noise, rain, engines, speech
    threshold  one for all, (species,), or (windows, species); inf for a species that is never reported
    hours      how long these windows are together
    """
    check_scores(scores)
    limits = np.asarray(threshold)
    assert limits.shape in ((), scores.shape[1:], scores.shape), (
        f"{limits.shape} thresholds, {scores.shape[1]} species; give one each"
    )
    assert not np.isnan(limits).any(), "a threshold is NaN; write inf for a species that is never reported"
    assert hours > 0, f"{hours} hours of sound; say how long the windows are together"
    return float((scores >= limits).any(axis=1).sum() / hours)


def bootstrap_interval(
    statistic: Callable[[Weights], NDArray[np.float64]], groups: NDArray[Any], repeats: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Where a statistic lies in 95 of 100 repetitions of the field season: Bayesian bootstrap over whole groups.

    Groups are not drawn anew but weighted anew, by independent exponential weights. Drawn with replacement, as Efron's
    bootstrap does it, a rare species loses rows and its best ones count twice: average precision rises, differences
    shrink. Simulated, 164 rows of 30 species, cmAP .58: by .033 on average, weighted by .012 (the test holds both);
    logistic regression on log-mel statistics, four folds of 149 to 174 recordings, cmAP .70: by .006 to .019, weighted
    by -.002 to .006.

    statistic  weights (rows, draws) -> (draws,), such as partial(weighted_cmap, truth, scores). To compare two models
               let it return the difference: both are then judged with the same weights
    groups     (rows,) the recording, recordist or site of each row: what is alike stays together
    returns    the 2.5th and 97.5th percentile over the draws
    source     Rubin 1981, The Bayesian Bootstrap, https://doi.org/10.1214/aos/1176345338
    """
    names, member = np.unique(groups, return_inverse=True)
    assert len(names) > 1, f"all rows are of one group, {names.tolist()}; an interval needs at least two"
    generator, block = np.random.default_rng(seed), max(1, AT_ONCE // len(groups))
    values: list[NDArray[np.float64]] = []
    for first in range(0, repeats, block):
        weights = generator.exponential(size=(min(block, repeats - first), len(names))).T[member]
        values.append(statistic(weights))
    low, high = np.percentile(np.concatenate(values), [2.5, 97.5])
    return float(low), float(high)


def weighted_macro_roc_auc(truth: Truth, scores: Scores, weights: Weights) -> NDArray[np.float64]:
    """(draws,) `macro_roc_auc` with rows that count as much as their weights (rows, draws) say.

    All draws at once: scikit-learn with sample_weight, to which the tests hold it, takes a thousand times as long."""
    present, scores = checked(truth, scores)
    species = np.flatnonzero(present.any(axis=0) & ~present.all(axis=0))
    assert species.size, "no species is both present and absent, so there is no ROC curve; score more recordings"
    total = weights.sum(axis=0)
    areas = np.zeros(weights.shape[1])
    for one in species:
        hits, before, until = weights_by_score(present[:, one], scores[:, one], weights)
        found = hits.cumsum(axis=0)
        positives = found[-1]
        # above a level, the misses are what is reported and not found; of a tie half are beaten
        misses = ((before - found + hits) + (until - found)) / 2
        areas += (hits * (total - positives - misses)).sum(axis=0) / (positives * (total - positives))
    return areas / species.size


def weighted_cmap(truth: Truth, scores: Scores, weights: Weights) -> NDArray[np.float64]:
    """(draws,) `cmap` with rows that count as much as their weights (rows, draws) say."""
    present, scores = checked(truth, scores)
    species = np.flatnonzero(present.any(axis=0))
    assert species.size, "no species has 1 positive rows; score more recordings"
    precisions = np.zeros(weights.shape[1])
    for one in species:
        hits, _, until = weights_by_score(present[:, one], scores[:, one], weights)
        found = hits.cumsum(axis=0)
        precisions += (hits * found / until).sum(axis=0) / found[-1]
    return precisions / species.size


def weighted_top1_accuracy(truth: Truth, scores: Scores, weights: Weights) -> NDArray[np.float64]:
    """(draws,) `top1_accuracy` with rows that count as much as their weights (rows, draws) say."""
    present, guess = answers(truth, scores)
    right = present[np.arange(len(guess)), guess]
    own = weights[truth.any(axis=1)]
    shares: NDArray[np.float64] = own[right].sum(axis=0) / own.sum(axis=0)
    return shares


def weights_by_score(
    present: NDArray[np.bool_], scores: Scores, weights: Weights
) -> tuple[Weights, NDArray[np.float64], NDArray[np.float64]]:
    """For each different score that a row with the species has, best first: the weight of those rows, of all rows with
    a higher score, and of all with at least this one; each (scores, draws)."""
    order = np.argsort(-scores, kind="stable")
    ordered, falling = weights[order], scores[order]
    rows = np.flatnonzero(present[order])
    levels, first = np.unique(-falling[rows], return_index=True)
    starts = np.searchsorted(-falling, levels, side="left")
    ends = np.searchsorted(-falling, levels, side="right")
    running = np.concatenate([np.zeros((1, weights.shape[1])), ordered.cumsum(axis=0)])
    return np.add.reduceat(ordered[rows], first, axis=0), running[starts], running[ends]


def steps_off(truth: Truth, scores: Scores, distances: Scores) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Per labelled row: distance of the best guess to the nearest label, and whether the guess is wrong."""
    present, guess = answers(truth, scores)
    check_distances(distances, present.shape[1])
    steps = np.where(present, distances[guess], np.inf).min(axis=1)
    return steps.astype(np.float64), ~present[np.arange(len(guess)), guess]


def answers(truth: Truth, scores: Scores) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Of the rows that have a label: their labels, and the best guess (the first among equals)."""
    present, scores = checked(truth, scores)
    labelled = np.flatnonzero(present.any(axis=1))
    assert labelled.size, "no row has a label, so no guess can be right; score labelled recordings"
    return present[labelled], np.argmax(scores[labelled], axis=1)


def steps_to_labels(present: NDArray[np.bool_], distances: Scores) -> NDArray[np.float64]:
    """(rows, species) distance of each species to the nearest label of the row; inf in a row without one."""
    steps = np.full(present.shape, np.inf)
    for label in np.flatnonzero(present.any(axis=0)):
        rows = present[:, label]
        steps[rows] = np.minimum(steps[rows], distances[label])
    return steps


def undecided(present: NDArray[np.bool_], groups: Mapping[str, NDArray[np.int64]], rank: str) -> NDArray[np.bool_]:
    """(rows, species) True where a label of the row is not known at `rank` and may be of the species' taxon there:
    where both are of one taxon at the nearest coarser rank that knows the label, or no rank knows it."""
    coarser = list(groups)[: list(groups).index(rank)]
    unsure = np.zeros_like(present)
    for label in np.flatnonzero(groups[rank] < 0):
        same = [groups[other] == groups[other][label] for other in coarser if groups[other][label] >= 0]
        unsure |= present[:, label, None] & (same[-1] if same else np.True_)
    return unsure


def checked(truth: Truth, scores: Scores) -> tuple[NDArray[np.bool_], Scores]:
    """Truth as bool, and scores, once both are what every measure expects."""
    assert truth.ndim == 2 and truth.shape == scores.shape, (
        f"truth {truth.shape}, scores {scores.shape}; both must be (rows, species), in the same order"
    )
    check_scores(scores)
    odd = (truth != 0) & (truth != 1)
    assert not odd.any(), f"truth holds {np.unique(truth[odd])[:5].tolist()}; make it 0 or 1, as by truth >= 0.5"
    return truth.astype(np.bool_), scores


def check_scores(scores: Scores) -> None:
    assert scores.ndim == 2 and scores.size, f"scores {scores.shape} are empty or no table; score at least one row"
    assert np.issubdtype(scores.dtype, np.floating), f"scores are {scores.dtype}; give floating-point numbers"
    bad = ~np.isfinite(scores)
    assert not bad.any(), (
        f"{bad.sum()} scores are NaN or infinite, the first at row and species {np.argwhere(bad)[0].tolist()}; "
        "mend the model first"
    )


def check_probabilities(scores: Scores) -> None:
    assert scores.min() >= 0 and scores.max() <= 1, (
        f"scores lie between {scores.min():.3g} and {scores.max():.3g}; give probabilities, not logits"
    )


def check_distances(distances: Scores, species: int) -> None:
    assert distances.shape == (species, species), f"distances {distances.shape}, {species} species; use the same labels"
    assert np.isfinite(distances).all() and not np.diagonal(distances).any(), "distances: finite, 0 on the diagonal"


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    species = generator.integers(4, size=120)  # two tits, a frog, a cricket
    truth = np.eye(4)[species]
    distances = np.array([[0, 2, 5, 6], [2, 0, 5, 6], [5, 5, 0, 6], [6, 6, 6, 0]]) / 6
    careful = truth * 1.5 + (1 - distances[species]) + generator.normal(size=truth.shape)
    careless = truth * 1.5 + generator.permuted(1 - distances[species], axis=1) + generator.normal(size=truth.shape)
    for name, scores in (("careful", careful), ("careless", careless)):
        print(name, {key: round(value, 3) for key, value in scorecard(truth, scores, distances).items()})

    def gain(weights: Weights) -> NDArray[np.float64]:
        return weighted_macro_roc_auc(truth, careful, weights) - weighted_macro_roc_auc(truth, careless, weights)

    low, high = bootstrap_interval(gain, groups=np.arange(120) // 4)
    print(f"gain in macro ROC-AUC: {low:.3f} to {high:.3f}")
    assert low > 0 and mistake_severity(truth, careful, distances) < mistake_severity(truth, careless, distances)
