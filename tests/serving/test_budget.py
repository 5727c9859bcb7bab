"""The arithmetic of a budget: what fits, what would, and what is said of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from config import PRESETS, SIZES, AudioSettings, BudgetSettings, HeadSettings, Preset, encoder_size
from serving.budget import (
    deepest_that_fits,
    fit_budget,
    fits,
    largest_that_fits,
    multiplications,
    probed_depths,
    quickest_way,
    smaller_one,
)
from serving.speed import Speed
from taxonomy import Taxonomy
from training.checkpoint import ClassifierFacts


def test_a_budget_is_time_and_memory() -> None:
    speed = Speed(10.0, 500.0, 1500, 1.0)
    yes, words = fits(speed, BudgetSettings())
    assert yes and "1.4 of 90 minutes and 1.50 of 2 GB: fits" in words
    assert not fits(speed, BudgetSettings(minutes=1.3))[0]
    assert not fits(speed, BudgetSettings(memory_gb=1.4))[0]


def test_the_largest_size_that_fits_shrinks_with_the_budget() -> None:
    speed = Speed(12.0, 417.0, 400, 1.0)
    order = [None, *PRESETS]
    budgets = [BudgetSettings(minutes) for minutes in (90, 30, 10, 3, 0.01)]
    found = [order.index(largest_that_fits(speed, SIZES["base"], budget)[0]) for budget in budgets]
    assert found == sorted(found, reverse=True) and found[0] > found[-1] == 0
    _, rates = largest_that_fits(speed, SIZES["base"], BudgetSettings())
    assert rates["base"] == pytest.approx(417.0) and sorted(rates.values(), reverse=True) == list(rates.values())
    assert largest_that_fits(speed, SIZES["base"], BudgetSettings(memory_gb=0.41))[0] == "base"


@pytest.mark.parametrize(("size", "megabytes", "memory_gb"), [("large-v3", 749, 0.8), ("small", 246, 0.26)])
def test_what_fits_is_not_larger_than_the_largest_that_fits(size: Preset, megabytes: int, memory_gb: float) -> None:
    speed = Speed(12.0, 417.0, megabytes, 1.0)
    assert fits(speed, BudgetSettings(memory_gb=memory_gb))[0]
    assert largest_that_fits(speed, SIZES[size], BudgetSettings(memory_gb=memory_gb))[0] == size


def test_attention_over_a_long_context_weighs_more_in_small_encoders() -> None:
    speed = Speed(12.0, 417.0, 400, 1.0)
    large, budget = SIZES["large-v3"], BudgetSettings()
    contexts = AudioSettings(), AudioSettings(context_seconds=30.0)
    rates = [largest_that_fits(speed, large, budget, audio)[1]["tiny"] for audio in contexts]
    assert rates[1] < rates[0]


def test_half_an_encoder_measured_means_a_whole_one_takes_longer() -> None:
    speed = Speed(12.0, 417.0, 400, 1.0)
    depths = encoder_size("base", 3), encoder_size("base", 6)
    half, whole = (largest_that_fits(speed, measured, BudgetSettings())[1]["base"] for measured in depths)
    assert whole == pytest.approx(417.0) and 0.5 < half / whole < 0.7  # the stem is not halved


def test_the_largest_size_that_fits_pools_as_what_was_measured_does() -> None:
    speed = Speed(12.0, 417.0, 400, 1.0)
    _, rates = largest_that_fits(speed, encoder_size("base", pool=2), BudgetSettings())
    assert rates["base"] == pytest.approx(417.0)


def test_pooled_tokens_halve_the_layers_and_not_the_stem() -> None:
    stem = multiplications(replace(SIZES["base"], layers=0), 250)
    layers = multiplications(SIZES["base"], 125) - multiplications(replace(SIZES["base"], layers=0), 125)
    assert multiplications(encoder_size("base", pool=2), 250) == pytest.approx(stem + layers)


def test_the_deepest_that_fits_is_counted_by_hand() -> None:
    whole = Speed(100.0, 50.0, 1000, 1.0)
    work = [multiplications(encoder_size("base", layers), 250) for layers in range(1, 7)]
    for layers, minutes in (
        (6, 14.05),
        (5, 14.0),
        (2, 14.04 * (work[1] + 1) / work[5]),
        (0, 14.04 * 0.99 * work[0] / work[5]),
    ):
        assert deepest_that_fits(whole, SIZES["base"], BudgetSettings(minutes)) == layers  # 702 minutes at 50 x: 14.04
    half = Speed(100.0, 50.0, 1000, 1.0)
    assert deepest_that_fits(half, encoder_size("base", 3), BudgetSettings(14.05)) == 3, (
        "what was cut off is not offered"
    )
    layer = 12 * 512**2 / 1e6  # MB at a byte each
    for layers in (6, 4, 1):
        gigabytes = (1000 - 10 * layer * (6 - layers)) / 1000
        budget = BudgetSettings(memory_gb=gigabytes + 1e-6)
        assert deepest_that_fits(whole, SIZES["base"], budget, bytes_each=10.0) == layers
    assert deepest_that_fits(whole, SIZES["base"], BudgetSettings(memory_gb=0.5), bytes_each=1.3) == 0


def facts_of(size: Preset, depth: int = 0) -> ClassifierFacts:
    names = ("a", "b")
    taxonomy = Taxonomy(names, names, names, tuple(("k", "p", "c", "o", "f", "g", name) for name in names), (7, 7))
    return ClassifierFacts(size, AudioSettings(), HeadSettings(), taxonomy, {"encoder": "whisper"}, depth=depth)


def test_a_model_that_does_not_fit_is_told_which_depth_would_and_at_what_cmap(tmp_path: Path) -> None:
    facts, slow = facts_of("large-v3"), Speed(1250.0, 4.0, 800, 1.0)  # 11.7 h take 175.5 minutes: 51 % fit
    card: dict[str, object] = {"size": "large-v3", "weights": "whisper"}
    card |= {"layers_1_to": [{"depth": depth, "cmap": cmap, "top1": 0.5} for depth, cmap in
                             ((8, 0.5), (14, 0.6125), (16, 0.6125), (20, 0.64), (32, 0.62))]}  # fmt: skip
    path = tmp_path / "probe.json"
    path.write_text(json.dumps(card))
    depths = probed_depths(path, facts)
    budget, pairs = BudgetSettings(), "; all of it would with its tokens in pairs (--encoder.pool 2)"
    assert deepest_that_fits(slow, SIZES["large-v3"], budget) == 16
    assert smaller_one(slow, "ONNX INT8", 2, facts, budget, depths) == (
        "large-v3 does not fit 90 minutes and 2 GB on 2 cores; depth 14 would, at cmAP 0.613 (probe.py; 0.620 at depth "
        f"32){pairs}"
    )  # not 16, which is no better, and not 20, which is better and does not fit
    assert smaller_one(slow, "ONNX INT8", 1, facts, budget, {}) == (
        "large-v3 does not fit 90 minutes and 2 GB on 1 core; depth 16 would; `python probe.py` says at what cmAP"
        f"{pairs}"
    )
    assert pairs not in smaller_one(Speed(1500.0, 3.33, 800, 1.0), "ONNX INT8", 2, facts, budget, depths), "too slow"
    assert pairs not in smaller_one(slow, "ONNX INT8", 2, replace(facts, pool=2), budget, depths), "they are in pairs"
    odd = replace(facts, audio=AudioSettings(window_seconds=2.5, context_seconds=5.0))  # a window has 125 tokens
    assert pairs not in smaller_one(slow, "ONNX INT8", 2, odd, budget, depths)
    half = smaller_one(slow, "ONNX INT8", 2, facts_of("large-v3", 16), budget, depths)
    assert half.startswith("large-v3, the lowest 16 of 32 layers does not fit 90") and "; depth 8 would" in half
    hungry = smaller_one(Speed(10.0, 500.0, 6400, 1.0), "OpenVINO", 2, facts, budget, depths)
    assert "; depth 8 would, at cmAP 0.500" in hungry  # 4.4 GB too many are 23 layers of .197 GB
    assert smaller_one(slow, "ONNX INT8", 2, facts, replace(budget, minutes=1.0), depths).endswith(
        "no depth of it would"
    )
    assert probed_depths(path, replace(facts, pool=2)) == {}, "what was probed are tokens as they are"
    assert probed_depths(path, facts_of("small")) == probed_depths(tmp_path / "none.json", facts) == {}
    path.write_text(json.dumps(card | {"weights": "another"}))
    assert probed_depths(path, facts) == {}


def test_the_budget_is_answered_for_the_engine_that_is_quicker() -> None:
    def speed(milliseconds: float) -> Speed:
        return Speed(milliseconds, 5000 / milliseconds, 100, 1.0)

    alone = {("ONNX float32", 2): speed(30.0), ("ONNX INT8", 2): speed(20.0)}
    assert (quickest_way(alone, 2, False), quickest_way(alone, 2, True)) == ("ONNX INT8", "ONNX float32")
    for milliseconds, expected in ((17.9, "OpenVINO"), (18.1, "ONNX INT8"), (30.0, "ONNX INT8")):
        assert quickest_way(alone | {("OpenVINO", 2): speed(milliseconds)}, 2, False) == expected


def test_advice_is_given_where_the_budget_does_not_suffice_and_only_there(capsys: pytest.CaptureFixture[str]) -> None:
    speeds = {("ONNX float32", 1): Speed(30.0, 167.0, 400, 1.0), ("ONNX INT8", 1): Speed(10.0, 500.0, 100, 1.0)}
    facts = facts_of("base")
    fit = fit_budget(speeds, facts, BudgetSettings(), False, {})
    assert (fit.served_as, fit.fits, fit.words[-4:]) == ("ONNX INT8", True, "fits") and fit.rates["base"] == 500.0
    short = fit_budget(speeds, facts, BudgetSettings(minutes=1.3), True, {})
    assert (short.served_as, short.fits) == ("ONNX float32", False)
    assert "; base does not fit 1.3 minutes and 2 GB on 1 core; depth 1 would" in short.words
    assert "as ONNX float32, as INT8 is refused: 11.7 h" in capsys.readouterr().out


def test_an_ensemble_that_does_not_fit_is_told_how_many_members_may(capsys: pytest.CaptureFixture[str]) -> None:
    speeds = {("ONNX INT8", 2): Speed(40.0, 100.0, 400, 1.0)}  # 11.7 h: 7.02 minutes, 1.4 for each of five
    fit = fit_budget(speeds, facts_of("base"), BudgetSettings(minutes=4.5), refused=False, depths={}, members=5)
    advice = "5 members do not fit 4.5 minutes and 2 GB; 3 may, and members with the same frozen encoder cost"
    assert not fit.fits and advice in fit.words and advice in capsys.readouterr().out and fit.largest is None
    assert "none does" in fit_budget(speeds, facts_of("base"), BudgetSettings(minutes=1.0), False, {}, 5).words
    assert fit_budget(speeds, facts_of("base"), BudgetSettings(), False, {}, 5).fits
    large = BudgetSettings(minutes=90, memory_gb=0.3)  # time is plenty
    words = fit_budget(speeds, facts_of("base"), large, False, {}, 5).words
    assert words.endswith("5 members do not fit 90 minutes and 0.3 GB; fewer or smaller ones take less memory")
