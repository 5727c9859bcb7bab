from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.calibration import (
    TOO_FEW,
    Threshold,
    Thresholds,
    apply_temperature,
    read_thresholds,
    thresholds_from_json,
    thresholds_to_json,
    write_thresholds,
)
from evaluation.fitting import COLDEST, HOTTEST, fit_thresholds, wilson_interval
from taxonomy import Taxonomy

Array = NDArray[np.float64]
MODEL = "a" * 64
LABELS = ("greti", "frog")
HERE = Path("a model.onnx")


def probabilities(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def bands(*counts: tuple[float, int, int]) -> tuple[list[float], list[int]]:
    """(score, recordings with, recordings without) -> scores and truth."""
    scores = [score for score, hits, misses in counts for _ in range(hits + misses)]
    return scores, [heard for _, hits, misses in counts for heard in [1] * hits + [0] * misses]


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


def test_temperature_divides_the_logits_and_keeps_the_order() -> None:
    logits = 3 * np.random.default_rng(4).normal(size=(100, 4)) - 1
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


def test_the_table_holds_the_threshold_that_is_applied_and_reads_back(tmp_path: Path, fitted: list[Threshold]) -> None:
    file = io.StringIO()
    write_thresholds(file, fitted, ["Parus major", 'Rana, "temporaria"'], "held-out recordings", MODEL)
    header, *rows = csv.reader(io.StringIO(file.getvalue()))
    assert ",".join(header) == (
        "label,scientific_name,threshold,target,precision_low_95,precision_high_95,n_positive,n_negative,source,model,note"
    )
    first, second = (dict(zip(header, cells, strict=True)) for cells in rows)
    assert (first["threshold"], first["target"], first["note"]) == ("0.6", "precision 0.9", "")
    assert (first["n_positive"], first["n_negative"], first["source"]) == ("25", "35", "held-out recordings")
    assert float(first["precision_low_95"]) == pytest.approx(wilson_interval(20, 20, 0.95)[0], abs=1e-4)
    assert (second["target"], second["note"]) == ("strict", TOO_FEW)
    path = tmp_path / "thresholds.csv"
    path.write_text(file.getvalue(), encoding="utf-8")
    assert read_thresholds(path, MODEL, LABELS) == {threshold.label: threshold.applied for threshold in fitted}


def test_what_is_undecided_stays_blank_and_is_left_out(tmp_path: Path, fitted: list[Threshold]) -> None:
    with (tmp_path / "thresholds.csv").open("w", encoding="utf-8", newline="") as file:
        write_thresholds(file, fitted, ["", ""], "verdicts", MODEL, [fitted[1].label])
    labels = [threshold.label for threshold in fitted]
    assert read_thresholds(tmp_path / "thresholds.csv", MODEL, labels) == {labels[0]: fitted[0].applied}


def test_thresholds_survive_the_table_to_the_last_digit(tmp_path: Path, fitted: list[Threshold]) -> None:
    hard = [replace(fitted[0], precise=float(np.nextafter(0.3, 1))), replace(fitted[1], best_f1=1e-30, least=0.0)]
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
    every = Thresholds(tuple(fitted), {"species": 0.5, "class": 0})
    text = json.dumps(thresholds_to_json(every), allow_nan=False)
    assert thresholds_from_json(json.loads(text), [one.label for one in fitted], HERE) == every
    assert fitted[0].precise is not None and fitted[1].precise is None, "both kinds were there"
    assert thresholds_from_json({}, LABELS, HERE) == Thresholds()


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
    stored = stored_species(fitted)
    stored[1][name] = value
    with pytest.raises(AssertionError, match=complaint):
        read_back(stored)


def test_what_is_no_list_of_thresholds_is_refused(fitted: list[Threshold]) -> None:
    for stored, complaint in (
        ({"greti": 0.5}, "a model.onnx: stored thresholds are .* not a list"),
        ([0.5], "a stored threshold is 0.5"),
        (stored_species(fitted[:1]) * 2, "name a label twice"),
        (stored_species(fitted[1:]), "of other labels"),
    ):
        with pytest.raises(AssertionError, match=complaint):
            thresholds_from_json({"thresholds": stored}, [one.label for one in fitted], HERE)
    older = {key: value for key, value in stored_species(fitted)[0].items() if key != "least"}
    assert read_back([older]) == (replace(fitted[0], least=0.0),), "of an earlier version"
    for name in older:
        with pytest.raises(AssertionError, match=f"stored {name} is None"):
            read_back([{key: value for key, value in older.items() if key != name}])


@pytest.mark.parametrize("ranks", [{"evil": 0.5}, {"genus": 2}, {"genus": "1"}, {"genus": True}, [0.5], {"genus": -1}])
def test_thresholds_of_ranks_that_are_none_are_refused_with_the_name_of_the_file(ranks: object) -> None:
    with pytest.raises(
        AssertionError, match=r"a model\.onnx: .* are no thresholds of ranks; make the model file again"
    ):
        thresholds_from_json({"rank_thresholds": ranks}, LABELS, HERE)


def stored_species(fitted: Sequence[Threshold]) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], thresholds_to_json(Thresholds(tuple(fitted)))["thresholds"])


def read_back(stored: list[dict[str, Any]]) -> tuple[Threshold, ...]:
    labels = [str(item.get("label")) for item in stored]
    return thresholds_from_json({"thresholds": stored}, labels, HERE).species


def three(*columns: float | None) -> Thresholds:
    limits = (Threshold(x, 0.5, 0.8, p, 0.9, 0.5, 20, 180, "") for x, p in zip("abc", columns, strict=True))
    return Thresholds(tuple(limits))


def taxonomy_of(species: int) -> Taxonomy:
    names = tuple("abcdef"[:species])
    lineages = tuple(("k", "p", "c", "o", "f", "g", f"g {name}") for name in names)
    return Taxonomy(names, names, names, lineages, (7,) * species)


def test_thresholds_move_to_the_scores_of_another_file() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(size=(200, 3))
    after = np.clip(before + np.array([0.0, 0.03, -0.03]) + rng.normal(0, 0.01, (200, 3)), 0, 1)
    limits, species = three(0.7, 0.7, None), taxonomy_of(3)
    moved = limits.moved_to(before, after, species)
    for column, (old, new) in enumerate(zip(limits.species, moved.species, strict=True)):
        for one, other in ((old.best_f1, new.best_f1), (old.applied, new.applied)):
            assert (after[:, column] >= other).sum() == (before[:, column] >= one).sum()
    assert moved.species[1].best_f1 > 0.51 and moved.species[2].best_f1 < 0.49 and moved.species[2].precise is None
    assert limits.moved_to(before, before, species) == limits and limits.differing(limits) == 0
    assert limits.differing(moved) == (limits.applied != moved.applied).sum() >= 2
    loud = np.full((4, 3), 0.9)
    assert [one.best_f1 for one in limits.moved_to(0 * loud, loud, species).species] == [np.nextafter(0.9, 1)] * 3
    with pytest.raises(AssertionError, match=r"scores \(4, 3\) and \(4, 2\) of 3 species"):
        limits.moved_to(loud, loud[:, :2], species)


def test_a_threshold_that_is_carried_over_parts_the_scores_as_the_predictor_compares_them() -> None:
    before = np.array([[0.9], [0.6], [0.3]], np.float32)
    after = np.array([[0.9], [0.75], [0.3]], np.float32)
    fitted = Thresholds((Threshold("a", 0.7, 0.8, None, 0.9, 0.5, 1, 2, ""),))
    (moved,) = fitted.moved_to(before, after, taxonomy_of(1)).species
    reached = after >= np.array([moved.applied]).astype(np.float32)  # as predictor.py holds its thresholds
    assert reached.tolist() == [[True], [False], [False]] and 0.75 < moved.applied < 0.7501
