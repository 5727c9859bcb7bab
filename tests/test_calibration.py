from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration import (
    COLDEST,
    HOTTEST,
    NEVER,
    TOO_FEW,
    Threshold,
    apply_temperature,
    carried_over,
    expected_calibration_error,
    fit_temperature,
    fit_thresholds,
    from_json,
    read_thresholds,
    reliability_points,
    to_json,
    wilson_bounds,
    wilson_interval,
    write_thresholds,
)

Array = NDArray[np.float64]
sklearn: Any = import_module("sklearn.metrics")  # it has no types
sklearn_calibration: Any = import_module("sklearn.calibration")
MODEL = "a" * 64
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


def table(path: Path, *rows: str, header: str = "label,threshold,model") -> Path:
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


@pytest.fixture
def fitted() -> list[Threshold]:
    """One species that is precise enough, one of which too little is known."""
    scores, heard = bands((0.8, 20, 0), (0.4, 5, 5), (0.1, 0, 30))
    rare = np.zeros(60, np.int64)
    rare[:2] = 1
    return fit_thresholds(np.column_stack([scores, scores]), np.column_stack([heard, rare]), LABELS)


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


def test_temperature_divides_the_logits_and_keeps_the_order() -> None:
    logits, _ = honest(4, rows=100)
    assert apply_temperature(probabilities(logits), 2.5) == pytest.approx(probabilities(logits / 2.5), rel=1e-9)
    assert apply_temperature(probabilities(logits), 1.0) == pytest.approx(probabilities(logits), rel=1e-12)
    small = np.array([1e-30, 1e-20, 1e-10, 0.5])
    assert (np.diff(apply_temperature(small, 5.0)) > 0).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [COLDEST, 1.0, HOTTEST])
def test_a_rounded_zero_or_one_stays_a_number(kind: type[np.floating[Any]], temperature: float) -> None:
    ends = apply_temperature(np.array([0, 0.5, 1], kind), temperature)
    assert np.isfinite(ends).all() and 0 <= ends[0] < ends[1] == 0.5 < ends[2] <= 1


def test_a_float32_one_is_no_surer_than_the_number_before_it() -> None:
    before = np.nextafter(np.float32(1), np.float32(0))
    pair = apply_temperature(np.array([before, 1], np.float32), 3.0)
    assert pair[0] == pair[1] == pytest.approx(1 / (1 + np.exp(-np.log(2**24) / 3)), rel=1e-6)


def test_temperature_refuses_what_is_no_probability() -> None:
    for bad in (-0.1, 1.1, np.nan):
        with pytest.raises(AssertionError, match="give probabilities, not logits"):
            apply_temperature(np.array([bad]), 1.0)
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(AssertionError, match="temperature"):
            apply_temperature(np.array([0.5]), bad)


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
    assert wilson_interval(9, 10) == pytest.approx((0.6523, 0.9774), abs=2e-4)
    assert wilson_interval(10, 10)[1] == 1.0 and wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(3, 10, 0.5)[0] > wilson_interval(3, 10, 0.99)[0], "surer is wider"
    mirrored = wilson_interval(7, 10)
    assert wilson_interval(3, 10) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))


def test_wilson_holds_the_true_share_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    share, trials = generator.random(50_000), generator.integers(20, 200, size=50_000)
    low, high = wilson_bounds(generator.binomial(trials, share), trials, 0.9)
    assert ((low <= share) & (share <= high)).mean() == pytest.approx(0.9, abs=0.01)
    assert (low <= share).mean() == pytest.approx(0.95, abs=0.01), "on one side alone"


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
    assert threshold.precision_low == wilson_interval(60, 62, 0.8)[0] >= 0.9
    assert threshold.precision_high == pytest.approx(wilson_interval(60, 62, 0.8)[1])
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
        assert wilson_interval(found, reported, 0.8)[0] == pytest.approx(threshold.precision_low)
        assert threshold.precision_low >= 0.8 and threshold.recall == pytest.approx(found / truth.sum())
        lower = [level for level in np.unique(column) if level < threshold.precise]
        assert lower and all(wilson_interval(*counted(column, truth, level), 0.8)[0] < 0.8 for level in lower), (
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
    assert mixed.precision_low == pytest.approx(wilson_interval(50, 100, 0.8)[0]), "bounds of the threshold applied"


def test_a_species_without_recordings_gets_a_half_and_is_said_to_be_unknown() -> None:
    nobody = one([0.2, 0.9], [0, 0])
    assert (nobody.best_f1, nobody.f1, nobody.precise, nobody.note) == (0.5, 0.0, None, TOO_FEW)
    assert (nobody.positives, nobody.negatives) == (0, 2)
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


def test_the_table_holds_the_threshold_that_is_applied_and_reads_back(tmp_path: Path, fitted: list[Threshold]) -> None:
    file = io.StringIO()
    write_thresholds(file, fitted, ["Parus major", 'Rana, "temporaria"'], "held-out recordings", MODEL)
    header, *rows = csv.reader(io.StringIO(file.getvalue()))
    assert ",".join(header) == (
        "label,scientific_name,threshold,target,precision_low,precision_high,n_positive,n_negative,source,model,note"
    )
    first, second = (dict(zip(header, cells, strict=True)) for cells in rows)
    assert (first["threshold"], first["target"], first["note"]) == ("0.6", "precision 0.9", "")
    assert (first["n_positive"], first["n_negative"], first["source"]) == ("25", "35", "held-out recordings")
    assert float(first["precision_low"]) == pytest.approx(wilson_interval(20, 20, 0.8)[0], abs=1e-4)
    assert (second["target"], second["note"]) == ("best F1", TOO_FEW)
    path = tmp_path / "thresholds.csv"
    path.write_text(file.getvalue(), encoding="utf-8")
    assert read_thresholds(path, MODEL, LABELS) == {threshold.label: threshold.applied for threshold in fitted}


def test_what_is_undecided_stays_blank_and_is_left_out(tmp_path: Path, fitted: list[Threshold]) -> None:
    with (tmp_path / "thresholds.csv").open("w", encoding="utf-8", newline="") as file:
        write_thresholds(file, fitted, ["", ""], "verdicts", MODEL, [fitted[1].label])
    labels = [threshold.label for threshold in fitted]
    assert read_thresholds(tmp_path / "thresholds.csv", MODEL, labels) == {labels[0]: fitted[0].applied}


def test_thresholds_survive_the_table_to_the_last_digit(tmp_path: Path, fitted: list[Threshold]) -> None:
    hard = [replace(fitted[0], precise=float(np.nextafter(0.3, 1))), replace(fitted[1], best_f1=1e-30)]
    with (tmp_path / "thresholds.csv").open("w", encoding="utf-8", newline="") as file:
        write_thresholds(file, hard, ["", ""], "", MODEL)
    read = read_thresholds(tmp_path / "thresholds.csv", MODEL, LABELS)
    assert read == {"greti": float(np.nextafter(0.3, 1)), "frog": 1e-30}


def test_an_edited_table_may_leave_out_rows_columns_thresholds_and_the_model(tmp_path: Path) -> None:
    path = table(tmp_path / "thresholds.csv", "greti,,", f"frog,.25,{MODEL}")
    assert read_thresholds(path, MODEL, LABELS) == {"frog": 0.25}
    path = table(tmp_path / "thresholds.csv", "frog,1,")
    assert read_thresholds(path, MODEL, LABELS) == {"frog": 1.0}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (
            f"frog,0.5,{'b' * 64}",
            r"line 3: fitted for the model bbbbbbbbbbbb, this one is aaaaaaaaaaaa.*use that model",
        ),
        ("toad,0.5,", r"line 3: 'toad' is no label of the model; remove the row"),
        ('frog,"0,5",', r"line 3: threshold '0,5' of frog; write a number from 0 to 1 with a point"),
        ("frog,50,", r"line 3: threshold '50' of frog"),
        ("frog,-0.1,", r"line 3: threshold '-0.1' of frog"),
        ("frog,nan,", r"line 3: threshold 'nan' of frog"),
        ("frog,1e999,", r"line 3: threshold '1e999' of frog"),
        ("greti,0.5,", r"line 3: label greti stands at .*line 2 already; keep one row"),
        ("frog,0.5", r"line 3: 2 cells, not 3"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_line_and_the_remedy(
    tmp_path: Path, row: str, complaint: str
) -> None:
    path = table(tmp_path / "thresholds.csv", "greti,0.5,", row)
    with pytest.raises(AssertionError, match=complaint):
        read_thresholds(path, MODEL, LABELS)


def test_a_table_without_the_columns_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "thresholds.csv", "greti,0.5", header="label,confidence")
    with pytest.raises(AssertionError, match=r"no columns \['threshold', 'model'\]"):
        read_thresholds(path, MODEL, LABELS)


def test_names_are_given_one_per_threshold(fitted: list[Threshold]) -> None:
    with pytest.raises(AssertionError, match="2 thresholds, 1 names"):
        write_thresholds(io.StringIO(), fitted, ["Parus major"], "", MODEL)


def test_thresholds_travel_as_json_and_come_back_equal(fitted: list[Threshold]) -> None:
    text = json.dumps(to_json(fitted), allow_nan=False)
    assert from_json(json.loads(text)) == fitted
    assert fitted[0].precise is not None and fitted[1].precise is None, "both kinds were there"
    assert from_json([]) == []


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("label", 7, "stored label is 7, not text"),
        ("label", "", "without a label"),
        ("best_f1", "0.5", "stored best_f1 is '0.5', not a number"),
        ("best_f1", True, "stored best_f1 is True, not a number"),
        ("precise", "high", "stored precise is 'high'"),
        ("precise", 1.5, "not between 0 and 1"),
        ("recall", float("nan"), "not between 0 and 1"),
        ("positives", 2.5, "stored positives is 2.5, not whole"),
        ("negatives", -1, "fewer than none"),
        ("note", None, "stored note is None, not text"),
    ],
)
def test_a_damaged_threshold_is_refused(fitted: list[Threshold], name: str, value: object, complaint: str) -> None:
    stored = to_json(fitted)
    stored[1][name] = value
    with pytest.raises(AssertionError, match=complaint):
        from_json(stored)


def test_what_is_no_list_of_thresholds_is_refused(fitted: list[Threshold]) -> None:
    for stored, complaint in (
        ({"greti": 0.5}, "not a list"),
        ([0.5], "a stored threshold is 0.5"),
        (to_json(fitted[:1]) * 2, "name a label twice"),
    ):
        with pytest.raises(AssertionError, match=complaint):
            from_json(stored)
    for name in to_json(fitted)[0]:
        with pytest.raises(AssertionError, match=f"stored {name} is None"):
            from_json([{key: value for key, value in to_json(fitted)[0].items() if key != name}])


def test_thresholds_are_carried_over_to_the_scores_of_another_file() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(size=(200, 3))
    after = np.clip(before + np.array([0.0, 0.03, -0.03]) + rng.normal(0, 0.01, (200, 3)), 0, 1)
    limits = [
        Threshold(label, 0.5, 0.8, precise, 0.9, 0.5, 20, 180, "")
        for label, precise in zip("abc", (0.7, 0.7, None), strict=True)
    ]
    moved = carried_over(limits, before, after)
    for column, (old, new) in enumerate(zip(limits, moved, strict=True)):
        for one, other in ((old.best_f1, new.best_f1), (old.applied, new.applied)):
            assert (after[:, column] >= other).sum() == (before[:, column] >= one).sum()
    assert moved[1].best_f1 > 0.51 and moved[2].best_f1 < 0.49 and moved[2].precise is None
    assert carried_over(limits, before, before) == limits
    loud = np.full((4, 3), 0.9)
    assert [one.best_f1 for one in carried_over(limits, 0 * loud, loud)] == [np.nextafter(0.9, 1)] * 3


def test_a_threshold_that_is_carried_over_parts_the_scores_as_the_predictor_compares_them() -> None:
    before = np.array([[0.9], [0.6], [0.3]], np.float32)
    after = np.array([[0.9], [0.75], [0.3]], np.float32)
    (moved,) = carried_over([Threshold("a", 0.7, 0.8, None, 0.9, 0.5, 1, 2, "")], before, after)
    reached = after >= np.array([moved.applied]).astype(np.float32)  # as predictor.py holds its thresholds
    assert reached.tolist() == [[True], [False], [False]] and 0.75 < moved.applied < 0.7501
