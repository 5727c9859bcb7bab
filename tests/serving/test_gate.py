"""The gate: what an INT8 file may lose, and when that cannot be known."""

from pathlib import Path

import numpy as np
import pytest

from config import GateSettings
from serving.comparison import ComparedWindows
from serving.gate import compare_answers, decide, enough_windows, gate_line, gate_reasons, judge, write_changes


def eye(windows: int) -> ComparedWindows:
    """So many recordings of a window, each with one of four species."""
    rows, truth = np.arange(windows), np.eye(4, dtype=np.float32)[np.arange(windows) % 4]
    return ComparedWindows(np.zeros((windows, 1), np.float32), rows, rows, truth, rows.astype(np.str_))


def test_the_gate_counts_auc_as_well_as_agreement() -> None:
    truth = np.eye(4, dtype=np.float32)[np.arange(40) % 4]
    rows = np.arange(40)
    held_out = ComparedWindows(np.zeros((40, 1), np.float32), rows, rows, truth, rows.astype(np.str_))
    floats = (0.2 + 0.6 * truth).astype(np.float32)
    worse = floats.copy()
    worse[0, 1] = 0.79  # still not the best of its row, but above some that are there
    worse[1, 1] = 0.5
    gate = compare_answers(worse, floats, held_out, tuple("abcd"))
    assert gate["top1_agreement"] == 1.0 and gate["worst_species"] == gate["most_changed_species"] == "b"
    assert float(gate["macro_auc_drop"]) == pytest.approx((1 / 300) / 4)  # one pair of 300 in one of four species
    assert not gate_reasons(gate, GateSettings()) and gate_reasons(gate, GateSettings(max_auc_drop=0.0005))
    assert gate_reasons(gate | {"top1_agreement": 0.97}, GateSettings()) == [
        "another best species in 3.0 % of the windows"
    ]
    assert gate["windows"] == 40 and float(gate["top1_agreement_low"]) == pytest.approx(
        0.912, abs=1e-3
    )  # 40 / (40 + 1.96**2)
    assert (
        0
        < float(gate["macro_auc_drop_low"])
        < float(gate["macro_auc_drop"])
        < float(gate["macro_auc_drop_high"])
        < 0.01
    )
    same = compare_answers(
        floats, floats, held_out, tuple("abcd")
    )  # both files are weighted alike: no change is no change
    assert same["macro_auc_drop_low"] == same["macro_auc_drop_high"] == same["cmap_drop_high"] == 0
    assert "same best species in 100.0 % [95 %: 91.2, 100.0] of 40 windows" in gate_line(gate)


def test_too_few_windows_decide_nothing_but_what_is_certain() -> None:
    assert enough_windows(0.98) == 149 and 0.98**149 < 0.05 < 0.98**148 and enough_windows(0.5) == 5
    assert enough_windows(1.01) == enough_windows(1.0) == enough_windows(0.0) == 1
    good: dict[str, float | str] = {"top1_agreement": 29 / 30, "top1_agreement_high": 0.994, "macro_auc_drop": 0.1}
    verdict, why = decide(good, GateSettings(), 30)
    assert verdict == "undecided" and "149 held-out windows are needed to tell 98 % from less" in why
    assert decide(good | {"top1_agreement_high": 0.97}, GateSettings(), 30)[0] == "refused"
    assert decide(good | {"top1_agreement_high": 0.97}, GateSettings(), 0)[0] == "undecided"  # on noise
    assert decide(good, GateSettings(), 149)[0] == "refused"
    assert decide(good | {"top1_agreement": 0.99, "macro_auc_drop": 0.001}, GateSettings(), 149) == (
        "passed",
        "",
    )


def test_a_file_that_is_mostly_float32_is_refused_however_well_it_answers() -> None:
    held_out = eye(40)
    floats = (0.2 + 0.6 * held_out.truth).astype(np.float32)
    half = judge(floats, floats, held_out, tuple("abcd"), GateSettings(min_agreement=0.5), spared=3, products=6)
    less = judge(floats, floats, held_out, tuple("abcd"), GateSettings(min_agreement=0.5), spared=2, products=6)
    assert (half.verdict, half.mostly_float, less.verdict, less.mostly_float) == ("refused", True, "passed", False)
    assert half.reasons == ["3 of its 6 products would be float32, so it is none"] and not less.reasons


def test_the_table_of_species_says_what_changed_and_what_it_is_worth(tmp_path: Path) -> None:
    held_out = eye(8)
    floats = (0.2 + 0.6 * held_out.truth).astype(np.float32)
    worse = floats.copy()
    worse[1, 0] = 0.9  # of the 2 x 6 pairs of recordings with and without the first species, two are now wrong
    write_changes(tmp_path / "species.csv", worse, floats, held_out, ("=a", "b", "c", "d"))
    lines = (tmp_path / "species.csv").read_text().splitlines()
    assert lines[0] == "label,largest_change,mean_change,auc_float32,auc_int8"
    label, *cells = lines[1].split(",")
    assert label != "=a" and label.endswith("=a")
    assert [float(cell) for cell in cells] == pytest.approx([0.7, 0.0875, 1.0, 10 / 12], abs=1e-6)
    assert lines[2] == "b,0.000000,0.000000,1.000000,1.000000"
