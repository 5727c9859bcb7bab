from __future__ import annotations

import time
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.arms import difference
from evaluation.metrics import (
    answers_scorecard,
    bootstrap_interval,
    class_average_precision,
    class_roc_auc,
    cmap,
    false_alarms_per_hour,
    false_positive_severity,
    kl_divergence,
    least_cost_answers,
    macro_f1,
    macro_roc_auc,
    mistake_distance,
    mistake_severity,
    rank_roc_auc,
    scorecard,
    top1_accuracy,
    weighted_cmap,
    weighted_macro_roc_auc,
    weighted_top1_accuracy,
)

Array = NDArray[np.float64]
sklearn: Any = import_module("sklearn.metrics")  # its stub holds only what the project uses

TREE = np.array([[0, 1, 4], [1, 0, 4], [4, 4, 0]]) / 4  # two tits and a frog
GENERA = np.array([0, 0, 1, 1, 2, 2])  # six species


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


def right_genus(seed: int) -> tuple[Array, Array]:
    """One label per row out of six species: a model that knows the genus and nothing of the species in it."""
    generator = np.random.default_rng(seed)
    label = generator.integers(6, size=600)
    sure = GENERA[label][:, None] == GENERA
    return np.eye(6)[label], np.where(sure, 0.5, 0.05) + 0.1 * generator.random((600, 6))


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
    assert macro_roc_auc(truth, np.where(truth > 0, 1e30, -1e30)) == 1


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


def test_divergence_by_hand_and_a_row_without_label_does_not_count() -> None:
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])
    scores = np.array([[0.5, 0.25, 0.25], [0.3, 0.3, 0.0], [1.0, 0.0, 0.0]])
    assert kl_divergence(truth, scores) == pytest.approx(
        (np.log(2) + 0.0) / 2
    )  # of log(1 / .5), and of halves as halves
    assert kl_divergence(truth, scores * [[0.5], [1.0], [1.0]]) == pytest.approx(kl_divergence(truth, scores))
    sure = kl_divergence(truth[:1], np.array([[0.0, 1.0, 0.0]]))
    assert sure == pytest.approx(np.log(1e15)), "wrong and sure is finite"
    with pytest.raises(AssertionError, match="give probabilities, not logits"):
        kl_divergence(truth, scores - 1)


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
        (np.eye(3), np.array([[1, 0, 0], [0, np.nan, 0], [0, 0, 1]]), r"1 scores are NaN or infinite, .* \[1, 1\]"),
        (np.eye(3), np.where(np.eye(3) > 0, np.inf, 0), r"3 scores are NaN or infinite, .* \[0, 0\]"),
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
    low, high = bootstrap_interval(partial(weighted_top1_accuracy, truth, scores), np.arange(400))
    share = top1_accuracy(truth, scores)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 400), rel=0.1)
    assert low < share < high
    assert (low, high) == bootstrap_interval(partial(weighted_top1_accuracy, truth, scores), np.arange(400))


def test_rows_of_one_group_bring_no_new_evidence() -> None:
    truth, scores = single(1, rows=100)
    alone = bootstrap_interval(partial(weighted_top1_accuracy, truth, scores), np.arange(100))
    fourfold, names = np.repeat(np.arange(100), 4), np.repeat([f"recordist {row}" for row in range(100)], 4)
    copies = partial(weighted_top1_accuracy, truth[fourfold], scores[fourfold])
    together, apart = bootstrap_interval(copies, names), bootstrap_interval(copies, np.arange(400))
    assert together[1] - together[0] == pytest.approx(alone[1] - alone[0], rel=0.15)
    assert apart[1] - apart[0] == pytest.approx((alone[1] - alone[0]) / 2, rel=0.15), "control: copies as evidence"


def test_two_models_are_compared_with_the_same_weights() -> None:
    truth, scores = single(2)

    def gain(better: Array, weights: Array) -> Array:
        return weighted_macro_roc_auc(truth, better, weights) - weighted_macro_roc_auc(truth, scores, weights)

    groups = np.arange(80) // 2
    assert bootstrap_interval(partial(gain, scores), groups) == (0.0, 0.0)
    assert bootstrap_interval(partial(gain, scores + truth), groups)[0] > 0


def test_benches_tell_differences_over_groups_not_rows() -> None:
    truth, scores = single(2)
    table, worse = truth.astype(np.float32), scores.astype(np.float32)
    better, unknown = worse + table, np.full_like(worse, np.nan)
    alone = difference(table, [better], [worse], np.arange(80).astype(str))
    copies, names = (
        [np.concatenate([one, one, unknown]) for one in (better, worse)],
        np.tile(np.arange(80).astype(str), 3),
    )
    low, middle, high = difference(np.tile(table, (3, 1)), copies[:1], copies[1:], names)
    assert (low, middle, high) == pytest.approx(alone, abs=1e-6), "copies, and rows that one of them has no scores for"
    assert low < middle < high and low > 0
    apart = difference(np.tile(table, (3, 1)), copies[:1], copies[1:], np.arange(240).astype(str))
    assert apart[2] - apart[0] < 0.85 * (high - low), "control: copies as evidence"
    assert difference(table, [worse, worse], [worse], names[:80]) == (0.0, 0.0, 0.0)


def test_a_rare_species_drops_out_of_no_draw_and_one_group_has_no_interval() -> None:
    truth = np.eye(2)[[0] * 9 + [1]]
    truth[:5, 0] = 0
    assert bootstrap_interval(partial(weighted_macro_roc_auc, truth, truth), np.arange(10)) == pytest.approx((1, 1))
    with pytest.raises(AssertionError, match="at least two"):
        bootstrap_interval(partial(weighted_macro_roc_auc, truth, truth), np.zeros(10))


def test_draws_in_blocks_are_the_draws_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, scores = single(3)
    whole = bootstrap_interval(partial(weighted_cmap, truth, scores), np.arange(80), repeats=50)
    monkeypatch.setattr("evaluation.metrics.AT_ONCE", 80 * 7)
    assert bootstrap_interval(partial(weighted_cmap, truth, scores), np.arange(80), repeats=50) == whole


@pytest.mark.parametrize("seed", range(4))
def test_weighted_measures_equal_scikit_learn_with_ties_and_rows_without_a_label(seed: int) -> None:
    truth, scores = tied(seed)
    assert (truth.sum(axis=1) == 0).any() and len(np.unique(scores)) == 6
    weights = np.random.default_rng(seed).exponential(size=(80, 5))
    areas, precisions = weighted_macro_roc_auc(truth, scores, weights), weighted_cmap(truth, scores, weights)
    shares = weighted_top1_accuracy(truth, scores, weights)
    right = truth[np.arange(80), scores.argmax(axis=1)]
    for draw, own in enumerate(weights.T):
        assert areas[draw] == pytest.approx(sklearn.roc_auc_score(truth, scores, sample_weight=own), abs=1e-12)
        precision = sklearn.average_precision_score(truth, scores, sample_weight=own)
        assert precisions[draw] == pytest.approx(precision, abs=1e-12)
        labelled = truth.any(axis=1)
        assert shares[draw] == pytest.approx(np.average(right[labelled], weights=own[labelled]), abs=1e-12)
    even = np.ones((80, 1))
    single_precision = scores.astype(np.float32)
    assert weighted_macro_roc_auc(truth, single_precision, even)[0] == pytest.approx(macro_roc_auc(truth, scores))
    assert weighted_cmap(truth, single_precision, even)[0] == pytest.approx(cmap(truth, scores))


def test_weighting_rows_leaves_average_precision_where_it_is_and_drawing_them_lifts_it() -> None:
    """Twelve seasons of 164 recordings of 30 species, common and rare: off by how much, on average, are the draws?"""
    weighted, drawn, weighted_gain, drawn_gain = list[float](), list[float](), list[float](), list[float]()
    chances = np.arange(1, 31) ** -0.6
    for seed in range(12):
        generator = np.random.default_rng(seed)
        truth = np.eye(30)[generator.choice(30, 164, p=chances / chances.sum())]
        noise = generator.normal(size=truth.shape)
        better, worse = 2.2 * truth + noise, 1.9 * truth + generator.normal(size=truth.shape)
        weights = generator.exponential(size=(164, 100))
        rows = [generator.integers(164, size=164) for _ in range(30)]
        mine, other = cmap(truth, better), cmap(truth, worse)
        of_weights = weighted_cmap(truth, better, weights), weighted_cmap(truth, worse, weights)
        even = np.ones((164, 1))
        of_rows = [[weighted_cmap(truth[own], scores[own], even) for own in rows] for scores in (better, worse)]
        weighted.append(of_weights[0].mean() - mine)
        drawn.append(float(np.mean(of_rows[0])) - mine)
        weighted_gain.append((of_weights[0] - of_weights[1]).mean() - (mine - other))
        drawn_gain.append(float(np.mean(of_rows[0]) - np.mean(of_rows[1])) - (mine - other))
    assert abs(np.mean(weighted)) < 0.02 < 0.025 < np.mean(drawn), "the old bootstrap is the control"
    assert np.mean(drawn_gain) < np.mean(weighted_gain) < 0.002, "differences are pulled towards nothing, less so"


def test_a_thousand_draws_of_a_whole_archive_take_seconds() -> None:
    generator = np.random.default_rng(0)
    truth = np.eye(30)[generator.integers(30, size=653)]
    scores, started = truth + generator.normal(size=truth.shape), time.monotonic()
    bootstrap_interval(partial(weighted_cmap, truth, scores), np.arange(653) // 2)
    assert time.monotonic() - started < 20, "about a second alone; scikit-learn takes a minute"


def test_a_scorecard_of_one_species_without_a_recording_without_it_has_no_roc_curve() -> None:
    truth, scores = np.ones((5, 1)), np.linspace(0.1, 0.9, 5)[:, None]
    card = scorecard(truth, scores, np.zeros((1, 1)))
    assert "macro_auc" not in card and card["classes"] == 0 and card["cmap"] == card["top1"] == 1.0
    truth[0] = 0
    assert scorecard(truth, scores, np.zeros((1, 1)))["macro_auc"] == 1.0, "control: one without"


def test_a_model_that_knows_the_genus_alone_is_perfect_at_genus_and_guesses_the_species() -> None:
    truth, scores = right_genus(0)
    areas = rank_roc_auc(truth, scores, {"genus": GENERA, "species": np.arange(6)})
    assert list(areas) == ["genus", "species"]
    assert areas["genus"] == 1.0
    assert areas["species"] == pytest.approx(macro_roc_auc(truth, scores), abs=1e-12)
    assert areas["species"] == pytest.approx((4 * 1 + 1 * 0.5) / 5, abs=0.02), "right against four others, .5 with one"
    within = truth[:, :2].any(axis=1)
    inside = rank_roc_auc(truth[within][:, :2], scores[within][:, :2], {"species": np.arange(2)})
    assert inside["species"] == pytest.approx(0.5, abs=0.07)


def test_a_shuffled_taxonomy_loses_what_the_genus_gave() -> None:
    truth, scores = right_genus(1)
    shuffled = GENERA[[0, 2, 4, 1, 3, 5]]
    assert (shuffled[::2] != shuffled[1::2]).all(), "no genus was kept"
    assert rank_roc_auc(truth, scores, {"genus": shuffled})["genus"] < 0.85


def test_a_taxon_scores_as_probably_as_any_of_its_species_is_there() -> None:
    truth = np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    scores = np.array([[0.5, 0.5, 0.0], [0.7, 0.0, 0.0], [0.7, 0.1, 0.0]])  # either of the first two: .75, .7, .73
    assert rank_roc_auc(truth, scores, {"genus": np.array([0, 0, 1])})["genus"] == pytest.approx((1 + 0.5) / 2)
    certain = np.array([[1.0, 0.5, 0], [1, 0, 0], [0, 0, 0]])
    heard = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]])
    both = rank_roc_auc(heard, certain, {"genus": np.array([0, 0, 1])})["genus"]
    assert both == pytest.approx((1 + 0.5) / 2), "1 and 1 with another are told apart"


def test_what_is_known_at_family_alone_is_no_mistake_of_the_genera_below_it() -> None:
    # two bush-crickets of two genera, their family as a label of its own, a bird
    truth = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    scores = np.array([[0.5, 0.1, 0.1, 0.2], [0.1, 0.5, 0.1, 0.2], [0.9, 0.9, 0.9, 0.3], [0.1, 0.1, 0.1, 0.9]])
    groups = {"family": np.array([0, 0, 0, 1]), "genus": np.array([0, 1, -1, 2])}
    assert rank_roc_auc(truth, scores, groups) == {"family": 1.0, "genus": 1.0}
    flat = {"genus": np.array([0, 1, 3, 2])}
    assert rank_roc_auc(truth, scores, flat)["genus"] < 1.0, "control: taken as a genus of its own"
    scores[2, 3] = 0.95
    assert rank_roc_auc(truth, scores, groups)["genus"] == pytest.approx((1 + 1 + 2 / 3) / 3), "a bird it is not"
    within_animals = {"kingdom": np.zeros(4, np.int64), **groups}
    assert rank_roc_auc(truth, scores, within_animals)["genus"] < 1.0, "the nearest rank that is known counts"
    alone = {"genus": groups["genus"]}
    assert rank_roc_auc(truth, scores, alone) == {"genus": 1.0}, "nothing says where it belongs: it may be any"


def test_a_rank_of_one_taxon_has_no_curve() -> None:
    truth, scores = right_genus(2)
    areas = rank_roc_auc(truth, scores, {"class": np.zeros(6, np.int64), "genus": GENERA, "none": np.full(6, -1)})
    assert np.isnan([areas["class"], areas["none"]]).all() and areas["genus"] == 1.0


def test_ranks_ask_for_probabilities_and_for_one_group_per_species() -> None:
    truth, scores = right_genus(3)
    with pytest.raises(AssertionError, match="probabilities, not logits"):
        rank_roc_auc(truth, scores - 1, {"genus": GENERA})
    with pytest.raises(AssertionError, match=r"genus: \(3,\) groups, 6 species"):
        rank_roc_auc(truth, scores, {"genus": GENERA[:3]})


def test_false_alarms_are_measured_where_half_of_the_labels_are_found() -> None:
    truth = np.eye(3)[[0, 0, 1, 2]]
    scores = np.array([[0.9, 0.8, 0.1], [0.7, 0.1, 0.75], [0.2, 0.1, 0.6], [0.3, 0.2, 0.1]])
    # found: .9 .7 .1 .1, so .7 finds half of them; at .7 stand .8 (a tit for a tit) and .75 (a frog for a tit)
    assert false_positive_severity(truth, scores, TREE) == pytest.approx(((0.25 + 1) / 2, 2 / 4))
    assert false_positive_severity(truth, scores, TREE, recall=0.25) == (0.0, 0.0), "at .9 there are none"
    assert false_positive_severity(truth, scores, TREE, recall=0.3)[1] == 2 / 4, "one of four is not enough for .3"
    # at .1 everything is an alarm: in each row the two others
    everything = (2 * (0.25 + 1) + (0.25 + 1) + 2 * 1) / 8
    assert false_positive_severity(truth, scores, TREE, recall=0.8) == pytest.approx((everything, 8 / 4))


def test_false_alarms_see_only_the_order_of_scores_and_no_entry_that_is_not_judged() -> None:
    truth, scores = single(4, species=3)
    plain = false_positive_severity(truth, scores, TREE, recall=0.8)
    assert plain[1] > 0
    assert false_positive_severity(truth, np.exp(3 * scores), TREE, recall=0.8) == plain
    assert false_positive_severity(truth, scores, TREE, recall=0.8, valid=truth > 0) == (0.0, 0.0)
    frogs = np.tile([True, True, False], (80, 1)) | (truth > 0)
    assert false_positive_severity(truth, scores, TREE, recall=0.8, valid=frogs)[1] < plain[1]


def test_a_secondary_label_is_not_judged_and_yet_makes_its_relatives_near() -> None:
    truth, scores = np.array([[1, 0, 1], [0, 0, 0]]), np.array([[0.1, 0.8, 0.9], [0.1, 0.1, 0.9]])
    valid = np.array([[False, True, True], [True, True, True]])
    # found: the frog at .9; as high is only the frog in the silent row, which is counted and not measured
    assert false_positive_severity(truth, scores, TREE, valid=valid) == (0.0, 1 / 2)
    assert false_positive_severity(truth, scores, TREE, recall=1, valid=valid) == (0.0, 1 / 2), "nor is it missed at .1"
    scores[0, 1] = 0.95
    assert false_positive_severity(truth, scores, TREE, valid=valid) == (0.25, 2 / 2), "the tit is near the other tit"


def test_false_alarms_of_nothing_are_refused() -> None:
    with pytest.raises(AssertionError, match="nothing can be found"):
        false_positive_severity(np.zeros((2, 3)), np.eye(3)[:2], TREE)
    with pytest.raises(AssertionError, match="recall 0"):
        false_positive_severity(np.eye(3), np.eye(3), TREE, recall=0)
    with pytest.raises(AssertionError, match="valid"):
        false_positive_severity(np.eye(3), np.eye(3), TREE, valid=np.ones((2, 3), np.bool_))


def test_the_least_costly_answer_is_found_by_trying_all() -> None:
    generator = np.random.default_rng(0)
    points = generator.random((8, 2))
    distances = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    scores = generator.random((50, 8)) ** 3
    shares = scores / scores.sum(axis=1, keepdims=True)
    tried = [min(range(8), key=lambda k: sum(row[c] * distances[c, k] for c in range(8))) for row in shares]
    assert least_cost_answers(scores, distances).tolist() == tried
    assert (scores.argmax(axis=1) != tried).any(), "control: the best guess is often another"
    assert least_cost_answers(scores, 1 - np.eye(8)).tolist() == scores.argmax(axis=1).tolist(), "all mistakes alike"


def test_two_tits_outvote_a_frog() -> None:
    scores = np.array([[0.3, 0.25, 0.35]])  # a tit: 55 in 90
    assert scores.argmax() == 2 and least_cost_answers(scores, TREE).tolist() == [0]
    with pytest.raises(AssertionError, match="not logits"):
        least_cost_answers(scores * 4, TREE)


def test_answers_found_in_another_way_are_scored_like_best_guesses() -> None:
    truth, scores = single(3)
    distances = np.abs(np.subtract.outer(np.arange(7.0), np.arange(7.0)))
    card, whole = answers_scorecard(truth, scores.argmax(axis=1), distances), scorecard(truth, scores, distances)
    assert list(card) == ["top1", "mistake_distance", "mistake_severity"]
    assert all(value == whole[name] for name, value in card.items())
    by_hand = answers_scorecard(np.eye(3)[[0, 0, 2]], np.array([0, 1, 1]), TREE)
    assert by_hand == pytest.approx({"top1": 1 / 3, "mistake_distance": 1.25 / 3, "mistake_severity": 1.25 / 2})


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        (np.array([0, 1]), "one species number per row"),
        (np.array([0.0, 1, 2]), "one species number per row"),
        (np.array([0, 3, 2]), r"answers hold \[3\]"),
        (np.array([0, -1, 2]), r"answers hold \[-1\]"),
    ],
)
def test_answers_that_are_no_species_are_refused(answers: Any, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        answers_scorecard(np.eye(3), answers, TREE)


def test_a_window_alarms_once_however_many_species_it_takes_for_there() -> None:
    scores = np.array([[0.5, 0.9], [0.4, 0.2], [0.1, 0.9], [0.1, 0.1]])
    assert false_alarms_per_hour(scores, 0.5, hours=0.5) == 2 / 0.5
    assert false_alarms_per_hour(scores, np.array([0.4, np.inf]), hours=1) == 2.0, "the second is never reported"
    assert false_alarms_per_hour(scores, 0.95, hours=1) == 0.0


@pytest.mark.parametrize(
    ("threshold", "hours", "complaint"),
    [
        (0.5, 0.0, "0.0 hours"),
        (float("nan"), 1.0, "threshold is NaN"),
        (np.array([0.5, 0.5, 0.5]), 1.0, r"\(3,\) thresholds, 2 species"),
    ],
)
def test_alarms_that_cannot_be_counted_are_refused(threshold: Any, hours: float, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        false_alarms_per_hour(np.full((4, 2), 0.5), threshold, hours)
