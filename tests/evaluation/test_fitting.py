"""What is fitted on held-out recordings: against scikit-learn, by hand, and by trying everything else."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.calibration import NEVER, TOO_FEW, UNVALIDATED, Threshold, apply_temperature
from evaluation.fitting import (
    COLDEST,
    HOTTEST,
    expected_calibration_error,
    fit_temperature,
    fit_thresholds,
    noise_floor,
    reliability_points,
    wilson_interval,
)

Array = NDArray[np.float64]
sklearn: Any = import_module("sklearn.metrics")  # its stub holds only what the project uses
sklearn_calibration: Any = import_module("sklearn.calibration")
LABELS = ("greti", "frog")


def honest(seed: int, rows: int = 2000, species: int = 4) -> tuple[Array, NDArray[np.bool_]]:
    """Logits of a model that means what it says, and what was there."""
    generator = np.random.default_rng(seed)
    logits = 3 * generator.normal(size=(rows, species)) - 1
    return logits, generator.random((rows, species)) < probabilities(logits)


def probabilities(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def cross_entropy(logits: Array, heard: NDArray[np.bool_], temperature: float) -> float:
    return float(-np.log(probabilities(np.where(heard, logits, -logits) / temperature)).mean())


def one(scores: list[float], heard: list[int], **settings: Any) -> Threshold:
    """The threshold of a single species."""
    return fit_thresholds(np.array(scores)[:, None], np.array(heard)[:, None], ["greti"], **settings)[0]


def bands(*counts: tuple[float, int, int]) -> tuple[list[float], list[int]]:
    """(score, recordings with, recordings without) -> scores and truth."""
    scores = [score for score, hits, misses in counts for _ in range(hits + misses)]
    return scores, [heard for _, hits, misses in counts for heard in [1] * hits + [0] * misses]


def counted(scores: NDArray[Any], heard: NDArray[np.bool_], threshold: float) -> tuple[int, int]:
    """Recordings with the species among those reported, and all that are reported."""
    reported = scores >= threshold
    return int((reported & heard).sum()), int(reported.sum())


def test_a_model_that_is_too_sure_gets_a_temperature_above_one_and_an_honest_one_keeps_its_own() -> None:
    logits, heard = honest(0)
    assert fit_temperature(logits, heard) == pytest.approx(1, abs=0.1)
    assert fit_temperature(3 * logits, heard) == pytest.approx(3 * fit_temperature(logits, heard), rel=1e-3)
    assert fit_temperature(logits / 3, heard) == pytest.approx(fit_temperature(logits, heard) / 3, rel=1e-3)


def test_no_other_temperature_costs_less() -> None:
    logits, heard = honest(1, rows=300)
    shouted = 2 * logits
    best = fit_temperature(shouted, heard)
    tried = np.geomspace(COLDEST, HOTTEST, 500)
    costs = [cross_entropy(shouted, heard, temperature) for temperature in tried]
    assert best == pytest.approx(tried[int(np.argmin(costs))], rel=0.013), "the grid's own step"
    assert cross_entropy(shouted, heard, best) <= min(costs) + 1e-9


def test_what_says_nothing_of_the_temperature_leaves_it_alone_or_goes_to_a_bound() -> None:
    logits, heard = honest(2, rows=50)
    assert fit_temperature(logits, np.zeros_like(heard)) == fit_temperature(logits, np.ones_like(heard)) == 1.0
    assert fit_temperature(logits, logits > 0) == pytest.approx(COLDEST, rel=1e-3), "parted without a mistake"
    assert fit_temperature(logits, logits < 0) == pytest.approx(HOTTEST, rel=1e-3), "wrong throughout"


def test_entries_that_are_not_judged_are_left_out_by_picking_the_others() -> None:
    logits, heard = honest(3)
    valid = np.random.default_rng(0).random(heard.shape) < 0.5
    spoilt = heard ^ ~valid
    assert fit_temperature(logits[valid], spoilt[valid]) == pytest.approx(1, abs=0.1)
    assert fit_temperature(logits, spoilt) > 2, "control: with them it is far off"


def test_logits_that_are_none_are_refused() -> None:
    with pytest.raises(AssertionError, match="NaN or infinity"):
        fit_temperature(np.array([[0.0, np.inf]]), np.array([[0, 1]]))
    with pytest.raises(AssertionError, match=r"logits \(2, 1\), truth \(1, 2\)"):
        fit_temperature(np.zeros((2, 1)), np.zeros((1, 2)))


def test_calibration_error_by_hand() -> None:
    scores, heard = np.array([0.1, 0.3, 0.9, 0.9]), np.array([0, 1, 1, 1])
    mean, share, count = reliability_points(scores, heard, bins=2)
    assert mean == pytest.approx([0.2, 0.9]) and share == pytest.approx([0.5, 1]) and count.tolist() == [2, 2]
    assert expected_calibration_error(scores, heard, bins=2) == pytest.approx((0.3 + 0.1) / 2)


def test_bins_that_hold_nothing_are_left_out_and_an_edge_belongs_to_the_bin_above() -> None:
    assert reliability_points(np.array([0.9, 1.0]), np.array([0, 1]), bins=4)[2].tolist() == [2], "1 is in the last bin"
    mean, share, count = reliability_points(np.array([0.0, 0.5, 1.0]), np.array([0, 1, 1]), bins=4)
    assert mean.tolist() == [0, 0.5, 1] and share.tolist() == [0, 1, 1] and count.tolist() == [1, 1, 1]


def test_reliability_equals_scikit_learn() -> None:
    logits, heard = honest(5)
    scores = probabilities(2 * logits)
    mean, share, count = reliability_points(scores, heard, bins=15)
    shares, means = sklearn_calibration.calibration_curve(heard.ravel(), scores.ravel(), n_bins=15)
    assert mean == pytest.approx(means, abs=1e-12) and share == pytest.approx(shares, abs=1e-12)
    assert count.sum() == scores.size


def test_the_fitted_temperature_makes_shouting_honest() -> None:
    logits, heard = honest(6, rows=5000)
    shouted = probabilities(4 * logits)
    calm = apply_temperature(shouted, fit_temperature(4 * logits, heard))
    assert expected_calibration_error(probabilities(logits), heard) < 0.015
    assert expected_calibration_error(calm, heard) < 0.015 < 0.06 < expected_calibration_error(shouted, heard)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_the_published_examples(hits: int, trials: int, low: float, high: float) -> None:
    """Newcombe 1998, table I, the score method without continuity correction."""
    assert wilson_interval(hits, trials, 0.95) == pytest.approx((low, high), abs=5e-5)


def test_wilson_by_hand() -> None:
    """9 of 10, z = 1.6449: middle (.9 + .1353) / 1.2706 = .8148, half 1.6449 sqrt(.009 + .00676) / 1.2706 = .1625."""
    assert wilson_interval(9, 10, 0.9) == pytest.approx((0.6523, 0.9774), abs=2e-4)
    assert wilson_interval(9, 10) == wilson_interval(9, 10, 0.95), "the level of every interval that is shown"
    assert wilson_interval(10, 10)[1] == 1.0 and wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(3, 10, 0.5)[0] > wilson_interval(3, 10, 0.99)[0], "surer is wider"
    mirrored = wilson_interval(7, 10)
    assert wilson_interval(3, 10) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))


def test_impossible_counts_are_refused() -> None:
    for hits, trials in ((3, 2), (-1, 2)):
        with pytest.raises(AssertionError, match="count again"):
            wilson_interval(hits, trials)
    with pytest.raises(AssertionError, match="confidence 1"):
        wilson_interval(1, 2, confidence=1)


def test_fifteen_recordings_without_a_mistake_are_enough_for_nine_in_ten_and_fourteen_are_not() -> None:
    for positives, note in ((14, NEVER), (15, "")):
        threshold = one(*bands((0.8, positives, 0), (0.2, 0, 20)))
        assert threshold.note == note and (threshold.precise is None) == bool(note)
    assert wilson_interval(15, 15, 0.8)[0] >= 0.9 > wilson_interval(14, 14, 0.8)[0]


def test_the_precise_threshold_is_the_lowest_and_one_step_lower_is_not_precise_enough() -> None:
    threshold = one(*bands((0.9, 30, 0), (0.7, 30, 2), (0.5, 20, 10), (0.1, 5, 200)))
    # above .7: 60 of 62, bound .927; above .5: 80 of 92, bound .818
    assert threshold.precise == 0.6 and threshold.note == ""
    assert wilson_interval(60, 62, 0.8)[0] >= 0.9, "by which it is decided"
    assert (threshold.precision_low, threshold.precision_high) == wilson_interval(60, 62, 0.95), "which is shown"
    assert wilson_interval(80, 92, 0.8)[0] < 0.9
    assert threshold.recall == pytest.approx(60 / 85) and threshold.applied == 0.6
    assert (threshold.positives, threshold.negatives, threshold.wanted) == (85, 212, 0.9)
    # F1: 30 of 85 .52, 60 of 85 .816, 80 of 85 .904, all .45
    assert threshold.best_f1 == 0.3 and threshold.f1 == pytest.approx(2 * 80 / (92 + 85))


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_reach_what_they_promise_when_they_are_applied(seed: int) -> None:
    logits, heard = honest(seed, rows=400)
    scores = probabilities(logits).astype(np.float32)
    scores[:, 3] = np.round(scores[:, 3], 2)  # many of one score
    for place, threshold in enumerate(fit_thresholds(scores, heard, list("abcd"), wanted=0.8)):
        column, truth = scores[:, place], heard[:, place]
        assert threshold.precise is not None
        found, reported = counted(column, truth, threshold.precise)
        assert wilson_interval(found, reported, 0.95)[0] == pytest.approx(threshold.precision_low)
        assert wilson_interval(found, reported, 0.8)[0] >= 0.8 and threshold.recall == pytest.approx(
            found / truth.sum()
        )
        lower = [level for level in np.unique(column) if level < threshold.precise]
        assert lower and all(wilson_interval(*counted(column, truth, level), 0.8)[0] < 0.8 for level in lower[-40:]), (
            "a lower one would do"
        )
        every = [counted(column, truth, level) for level in np.unique(column)]
        best = max(2 * found / (reported + truth.sum()) for found, reported in every)
        assert sklearn.f1_score(truth, column >= threshold.best_f1) == pytest.approx(best)
        assert threshold.f1 == pytest.approx(best)


def test_precision_may_fall_and_rise_again_and_the_lowest_threshold_counts() -> None:
    threshold = one(*bands((0.9, 20, 0), (0.7, 0, 5), (0.5, 200, 0), (0.1, 0, 90)))
    assert threshold.precise == 0.3, "precise at .9, not at .7, again at .5"


def test_too_few_recordings_and_too_many_mistakes_are_told_apart() -> None:
    few = one(*bands((0.9, 9, 0), (0.1, 0, 500)))
    assert few.note == TOO_FEW and few.precise is None and few.positives == 9
    assert few.best_f1 == 0.5 and few.f1 == 1.0, "perfect, and still too few to say"
    assert one(*bands((0.9, 9, 0), (0.1, 0, 500)), least=5, wanted=0.8).note == "", "control"
    assert one(*bands((0.9, 10, 0), (0.1, 0, 500)), wanted=0.8).note == "", "ten are enough to say"
    mixed = one(*bands((0.9, 50, 50), (0.1, 0, 50)))
    assert mixed.note == NEVER and mixed.precise is None and mixed.applied == mixed.best_f1 == 0.5
    assert mixed.precision_low == pytest.approx(wilson_interval(50, 100, 0.95)[0]), "bounds of the threshold applied"


def test_a_species_without_recordings_gets_a_threshold_that_none_of_the_others_reaches_and_a_mark() -> None:
    for highest, strict in ((0.2, 0.9), (0.9, 0.9001), (0.95004, 0.9501), (1.0, 1.0)):
        nobody = one([0.2, highest], [0, 0])
        assert (nobody.f1, nobody.precise, nobody.note, nobody.validated) == (0.0, None, UNVALIDATED, "never")
        assert nobody.applied == strict and nobody.target == "strict" and (nobody.positives, nobody.negatives) == (0, 2)


def test_a_species_of_too_few_recordings_gets_a_strict_threshold_and_a_mark() -> None:
    """At .7 the highest F1, 8 of 12 right; from .9 on 4 of 4."""
    few = one(*bands((0.96, 4, 0), (0.7, 4, 4), (0.1, 0, 200)))
    assert few.note == TOO_FEW and few.validated == "too few" and few.target == "strict"
    assert few.best_f1 == 0.4 and few.applied == 0.8 and few.recall == 0.5
    assert (few.precision_low, few.precision_high) == wilson_interval(4, 4, 0.95)
    many = one(*bands((0.96, 8, 0), (0.7, 8, 8), (0.1, 0, 200)))  # negative control: the same, twice as often
    assert many.note == NEVER and many.applied == many.best_f1 == 0.4 and many.validated == "yes"
    quiet = one(*bands((0.3, 4, 0), (0.1, 0, 200)))
    assert quiet.best_f1 == 0.2 and quiet.applied == 0.5, "so few say little of what is below a half"
    never = one(*bands((0.9, 0, 1), (0.7, 4, 0), (0.1, 0, 200)))
    assert never.applied == 0.9001, "the mistake is above all that is right"


def test_a_species_that_every_recording_has_is_reported_from_its_lowest_score_on() -> None:
    everywhere = one([0.5] * 40, [1] * 40)
    assert everywhere.precise == everywhere.best_f1 == 0.5 and everywhere.recall == 1.0, "the score itself"


def test_a_threshold_parts_two_neighbouring_scores_with_as_few_decimals_as_it_can() -> None:
    assert one([0.82, 0.11], [1, 0]).best_f1 == 0.5
    assert one([0.82, 0.79], [1, 0]).best_f1 == 0.8
    assert one([0.8, 0.7], [1, 0]).best_f1 == 0.8, "the middle .75, rounded to the even .8, which .8 reaches"
    assert one([0.1234567, 0.1234512], [1, 0]).best_f1 == 0.123454


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("upper", [1.0, 0.3, 1e-3, 1e-30])
def test_even_two_scores_without_a_number_between_them_are_parted(kind: Any, upper: float) -> None:
    pair = np.array([kind(upper), np.nextafter(kind(upper), kind(0))])
    threshold = fit_thresholds(pair[:, None], np.array([[1], [0]]), ["greti"])[0].best_f1
    assert (pair >= threshold).tolist() == [True, False], "numpy compares in the kind of the scores"


def test_what_is_not_judged_is_no_mistake() -> None:
    scores, heard = bands((0.8, 20, 10), (0.1, 0, 30))
    valid = np.ones(60, np.bool_)
    valid[20:30] = False
    assert one(scores, heard).note == NEVER
    judged = one(scores, heard, valid=valid[:, None])
    assert judged.note == "" and (judged.positives, judged.negatives) == (20, 30)


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(AssertionError, match="2 labels"):
        fit_thresholds(np.zeros((3, 1)), np.zeros((3, 1)), LABELS)
    for bad in (-0.1, 1.5, np.nan):
        with pytest.raises(AssertionError, match="not logits"):
            one([bad], [1])
    with pytest.raises(AssertionError, match="wanted precision 90"):
        one([0.5], [1], wanted=90)
    with pytest.raises(AssertionError, match="valid"):
        one([0.5], [1], valid=np.ones((2, 1), np.bool_))


def windows_of_noise(count: int, seed: int = 0) -> NDArray[np.float32]:
    """(windows, 3) probabilities of a model that is sometimes sure of nothing: logits with an exponential tail."""
    rng = np.random.default_rng(seed)
    highest = rng.exponential(1.0, count) - 2
    scores = np.full((count, 3), 0.01, np.float32)
    scores[np.arange(count), rng.integers(0, 3, count)] = 1 / (1 + np.exp(-highest))
    return scores


@pytest.mark.parametrize("wanted", [200.0, 40.0, 10.0, 1.0])
def test_a_floor_is_reached_as_often_in_other_noise_as_was_asked_for(wanted: float) -> None:
    """720 windows an hour; fitted on a quarter of an hour each time, judged on the whole distribution."""
    floors = np.array([noise_floor(windows_of_noise(180, seed), 0.25, wanted) for seed in range(200)])
    rates = 720 * np.exp(-(np.log(floors / (1 - floors)) + 2))
    assert 0.6 * wanted < float(np.median(rates)) < 1.6 * wanted


def test_a_floor_rises_with_the_calm_that_is_asked_for_and_stays_a_probability() -> None:
    noise = windows_of_noise(180)
    floors = [noise_floor(noise, 0.25, wanted) for wanted in (720.0, 100.0, 10.0, 1.0, 1e-9)]
    assert floors == sorted(floors) and floors[-1] == 0.9999 and floors[0] < 0.2


def test_too_little_noise_says_nothing_and_noise_that_is_all_alike_has_its_own_level() -> None:
    assert noise_floor(windows_of_noise(19), 0.03, 1.0) == 0.0 < noise_floor(windows_of_noise(20), 0.03, 1.0)
    assert noise_floor(np.full((40, 2), 0.3, np.float32), 0.05, 1.0) == pytest.approx(0.3)
    with pytest.raises(AssertionError, match="more than none"):
        noise_floor(windows_of_noise(20), 0.03, 0.0)


def test_no_threshold_lies_below_a_floor_and_its_figures_are_those_at_what_is_applied() -> None:
    scores, heard = np.array([0.2, 0.4, 0.6, 0.8] * 10), np.array([0, 1, 1, 1] * 10)
    free, floored = (fit_thresholds(scores[:, None], heard[:, None], ["greti"], floor=floor)[0] for floor in (0.0, 0.7))
    assert free.applied < 0.7 == floored.applied and floored.recall == pytest.approx(1 / 3) and free.recall == 1.0
    none = fit_thresholds(scores[:, None], 0 * heard[:, None], ["greti"], floor=0.95)[0]
    assert none.applied == 0.95
