from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from metrics import (
    bootstrap_interval,
    class_average_precision,
    class_roc_auc,
    cmap,
    macro_f1,
    macro_roc_auc,
    mistake_distance,
    mistake_severity,
    scorecard,
    top1_accuracy,
)

Array = NDArray[np.float64]
sklearn: Any = import_module("sklearn.metrics")  # it has no types

TREE = np.array([[0, 1, 4], [1, 0, 4], [4, 4, 0]]) / 4  # two tits and a frog


def tied(seed: int, rows: int = 80, species: int = 7) -> tuple[Array, Array]:
    """Many labels per row, and scores on a grid of six values, so that most are tied."""
    generator = np.random.default_rng(seed)
    truth = (generator.random((rows, species)) < 0.2).astype(np.float64)
    return truth, np.round(truth + generator.normal(size=truth.shape)).clip(-2, 3) / 4


def single(seed: int, rows: int = 80, species: int = 7) -> tuple[Array, Array]:
    """One label per row; the last species never occurs."""
    generator = np.random.default_rng(seed)
    truth = np.eye(species)[generator.integers(species - 1, size=rows)]
    return truth, truth + generator.normal(size=truth.shape)


def column(*values: float) -> Array:
    return np.array(values, dtype=np.float64)[:, None]


def test_roc_auc_is_the_share_of_pairs_in_the_right_order_and_a_tie_is_half_a_pair() -> None:
    assert class_roc_auc(column(1, 1, 0, 0), column(0.9, 0.4, 0.4, 0.1)).tolist() == [3.5 / 4]
    assert class_roc_auc(column(1, 0, 0), column(0.5, 0.5, 0.5)).tolist() == [0.5]
    assert class_roc_auc(column(1, 0, 0), column(0.0, 0.2, 0.1)).tolist() == [0.0]


def test_average_precision_by_hand_where_tied_rows_enter_together() -> None:
    assert class_average_precision(column(1, 0, 1, 0), column(4, 3, 2, 1))[0] == pytest.approx((1 + 2 / 3) / 2)
    assert class_average_precision(column(1, 0), column(1, 1))[0] == 0.5, "not 1, whichever row comes first"
    assert class_average_precision(column(0, 1), column(1, 1))[0] == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_ranking_measures_equal_scikit_learn_with_ties(seed: int) -> None:
    truth, scores = tied(seed)
    assert len(np.unique(scores)) == 6
    assert macro_roc_auc(truth, scores) == pytest.approx(sklearn.roc_auc_score(truth, scores), abs=1e-12)
    assert cmap(truth, scores) == pytest.approx(sklearn.average_precision_score(truth, scores), abs=1e-12)
    each = [sklearn.roc_auc_score(truth[:, species], scores[:, species]) for species in range(7)]
    assert class_roc_auc(truth, scores.astype(np.float32)) == pytest.approx(each, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_single_answers_equal_scikit_learn(seed: int) -> None:
    truth, scores = single(seed)
    labels, guess = truth.argmax(axis=1), scores.argmax(axis=1)
    assert top1_accuracy(truth, scores) == pytest.approx(sklearn.accuracy_score(labels, guess))
    f1 = sklearn.f1_score(labels, guess, labels=np.unique(labels), average="macro", zero_division=0)
    assert macro_f1(truth, scores) == pytest.approx(f1, abs=1e-12)


def test_species_that_never_or_always_occur_have_no_curve_and_are_left_out() -> None:
    truth, scores = tied(0)
    plain = macro_roc_auc(truth, scores)
    padded = np.column_stack([truth, np.zeros(80), np.ones(80)])
    guesses = np.column_stack([scores, scores[:, :2]])
    assert np.flatnonzero(np.isnan(class_roc_auc(padded, guesses))).tolist() == [7, 8]
    assert macro_roc_auc(padded, guesses) == plain
    assert np.flatnonzero(np.isnan(class_average_precision(padded, guesses))).tolist() == [7], "the one never there"
    assert cmap(padded, guesses) == pytest.approx((7 * cmap(truth, scores) + 1) / 8), "always there: precision 1"


def test_ranking_measures_see_only_the_order_of_scores() -> None:
    truth, scores = tied(1)
    assert macro_roc_auc(truth, scores) == macro_roc_auc(truth, 1 / (1 + np.exp(-3 * scores)))
    assert macro_roc_auc(truth, scores) + macro_roc_auc(truth, -scores) == pytest.approx(1)
    assert macro_roc_auc(truth, np.where(truth > 0, np.inf, -np.inf)) == 1


def test_cmap_of_common_species_leaves_the_rare_ones_out() -> None:
    truth = np.zeros((10, 2))
    truth[:5, 0] = truth[9, 1] = 1
    scores = np.tile(np.arange(10.0, 0, -1)[:, None], 2)
    assert cmap(truth, scores) == pytest.approx((1 + 1 / 10) / 2)
    assert cmap(truth, scores, min_positives=5) == 1
    with pytest.raises(AssertionError, match="no species has 6 positive rows"):
        cmap(truth, scores, min_positives=6)


def test_a_guess_is_right_when_it_is_any_of_the_labels_and_rows_without_label_do_not_count() -> None:
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    scores = np.array([[0.1, 0.8, 0.3], [0.2, 0.1, 0.9], [0.9, 0.1, 0.2]])
    assert top1_accuracy(truth, scores) == 0.5
    assert macro_f1(np.eye(3)[[0, 0, 1]], np.eye(3)[[0, 2, 2]]) == pytest.approx((2 / 3 + 0) / 2)


def test_mistakes_are_measured_to_the_nearest_label() -> None:
    truth = np.eye(3)[[0, 0, 0, 1]]
    scores = np.eye(3)[[0, 1, 2, 1]]
    assert mistake_distance(truth, scores, TREE) == pytest.approx((0 + 0.25 + 1 + 0) / 4)
    assert mistake_severity(truth, scores, TREE) == pytest.approx((0.25 + 1) / 2)
    with_frog = truth + np.eye(3)[[2, 2, 2, 2]]
    assert mistake_distance(with_frog, np.eye(3)[[1, 1, 1, 0]], TREE) == pytest.approx((0.25 + 0.25 + 0.25 + 0.25) / 4)


def test_without_mistakes_nothing_is_off() -> None:
    truth = np.eye(3)
    assert mistake_distance(truth, truth, TREE) == mistake_severity(truth, truth, TREE) == 0.0
    twins = np.zeros((3, 3))
    assert mistake_severity(truth, np.roll(truth, 1, axis=1), twins) == 0.0, "wrong, but not far"


def test_severity_alone_praises_a_model_that_adds_near_mistakes() -> None:
    truth = np.eye(3)[[0, 0, 0, 0]]
    few, more = np.eye(3)[[0, 0, 0, 2]], np.eye(3)[[1, 1, 1, 2]]
    assert mistake_severity(truth, more, TREE) < mistake_severity(truth, few, TREE)
    assert mistake_distance(truth, more, TREE) > mistake_distance(truth, few, TREE)


def test_the_scorecard_holds_every_measure_with_what_it_counted() -> None:
    truth, scores = tied(2, species=3)
    card = scorecard(truth, scores, TREE)
    assert list(card) == [
        "macro_auc",
        "cmap",
        "top1",
        "macro_f1",
        "mistake_distance",
        "mistake_severity",
        "classes",
        "rows",
    ]
    assert card["macro_auc"] == macro_roc_auc(truth, scores) and card["cmap"] == cmap(truth, scores)
    assert card["classes"] == 3 and card["rows"] == truth.any(axis=1).sum() < 80
    assert card["mistake_distance"] == pytest.approx((1 - card["top1"]) * card["mistake_severity"])
    assert all(isinstance(value, float) for value in card.values())


@pytest.mark.parametrize(
    ("truth", "scores", "complaint"),
    [
        (np.eye(3), np.array([[1, 0, 0], [0, np.nan, 0], [0, 0, 1]]), r"1 scores are NaN, .* \[1, 1\]"),
        (np.eye(3), np.eye(3)[:2], r"truth \(3, 3\), scores \(2, 3\)"),
        (np.eye(3)[0], np.eye(3)[0], "must be"),
        (np.eye(3) * 0.5, np.eye(3), r"truth holds \[0.5\]"),
        (np.eye(3), np.eye(3).astype(int), "scores are int"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "empty"),
        (np.zeros((3, 3)), np.eye(3), "no species|no row"),
    ],
)
def test_what_cannot_be_measured_is_refused(truth: Array, scores: Array, complaint: str) -> None:
    for measure in (macro_roc_auc, cmap, top1_accuracy, macro_f1):
        with pytest.raises(AssertionError, match=complaint):
            measure(truth, scores)
    for distant in (mistake_distance, mistake_severity, scorecard):
        with pytest.raises(AssertionError, match=complaint):
            distant(truth, scores, TREE)


def test_distances_of_other_labels_are_refused() -> None:
    with pytest.raises(AssertionError, match=r"distances \(2, 2\), 3 species"):
        mistake_distance(np.eye(3), np.eye(3), TREE[:2, :2])
    with pytest.raises(AssertionError, match="0 on the diagonal"):
        mistake_distance(np.eye(3), np.eye(3), 1 - TREE)


def test_bootstrap_of_a_mean_is_as_wide_as_theory_says() -> None:
    truth, scores = single(0, rows=400)
    low, high = bootstrap_interval(top1_accuracy, truth, scores, np.arange(400), repeats=1000)
    share = top1_accuracy(truth, scores)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 400), rel=0.1)
    assert low < share < high
    assert (low, high) == bootstrap_interval(top1_accuracy, truth, scores, np.arange(400), repeats=1000)


def test_rows_of_one_group_bring_no_new_evidence() -> None:
    truth, scores = single(1, rows=100)
    alone = bootstrap_interval(top1_accuracy, truth, scores, np.arange(100), repeats=500)
    fourfold, names = np.repeat(np.arange(100), 4), np.repeat([f"recordist {row}" for row in range(100)], 4)
    together = bootstrap_interval(top1_accuracy, truth[fourfold], scores[fourfold], names, repeats=500)
    apart = bootstrap_interval(top1_accuracy, truth[fourfold], scores[fourfold], np.arange(400), repeats=500)
    assert together[1] - together[0] == pytest.approx(alone[1] - alone[0], rel=0.15)
    assert apart[1] - apart[0] == pytest.approx((alone[1] - alone[0]) / 2, rel=0.15), "control: copies as evidence"


def test_two_models_are_compared_on_the_same_draws() -> None:
    truth, scores = single(2)

    def gain(drawn: Array, pair: Array) -> float:
        return macro_roc_auc(drawn, pair[..., 0]) - macro_roc_auc(drawn, pair[..., 1])

    groups = np.arange(80) // 2
    same = bootstrap_interval(gain, truth, np.stack([scores, scores], axis=2), groups, repeats=200)
    assert same == (0.0, 0.0)
    better = bootstrap_interval(gain, truth, np.stack([scores + truth, scores], axis=2), groups, repeats=200)
    assert better[0] > 0


def test_a_species_that_a_draw_has_lost_drops_out_of_it() -> None:
    truth = np.eye(2)[[0] * 9 + [1]]
    truth[:5, 0] = 0
    scores = truth.copy()
    assert bootstrap_interval(macro_roc_auc, truth, scores, np.arange(10), repeats=200) == (1.0, 1.0)
    with pytest.raises(AssertionError, match="at least two"):
        bootstrap_interval(macro_roc_auc, truth, scores, np.zeros(10))
