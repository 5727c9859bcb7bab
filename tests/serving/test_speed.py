"""Speed in a fresh process, and the arithmetic of a budget."""

import pytest
from conftest import Stages

from config import PRESETS, Preset, encoder_size
from serving.speed import Speed, deepest_that_fits, fits, in_fresh_process, largest_that_fits, measure, multiplications


def test_a_file_is_measured_in_a_process_of_its_own_without_torch(stages: Stages) -> None:
    found = measure(stages.model, threads=1)
    assert 0 < found.milliseconds_per_window < 2000
    assert found.times_real_time == pytest.approx(5000 / found.milliseconds_per_window, rel=0.01)
    assert 30 < found.peak_memory_mb < 300  # with torch it is three times that
    assert found.start_seconds > found.milliseconds_per_window / 1000


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(AssertionError, match=r"could not be measured.*no such thing"):
        in_fresh_process("raise ValueError('no such thing')")


def test_a_budget_is_time_and_memory() -> None:
    speed = Speed(10.0, 500.0, 1500, 1.0)
    yes, words = fits(speed, minutes=90, audio_hours=11.7, memory_gb=2)
    assert yes and "1.4 of 90 minutes and 1.50 of 2 GB: fits" in words
    assert not fits(speed, minutes=1.3, audio_hours=11.7, memory_gb=2)[0]
    assert not fits(speed, minutes=90, audio_hours=11.7, memory_gb=1.4)[0]


def test_the_largest_size_that_fits_shrinks_with_the_budget() -> None:
    speed = Speed(12.0, 417.0, 400, 1.0)
    order = [None, *PRESETS]
    found = [order.index(largest_that_fits(speed, "base", minutes, 11.7, 2.0)[0]) for minutes in (90, 30, 10, 3, 0.01)]
    assert found == sorted(found, reverse=True) and found[0] > found[-1] == 0
    _, rates = largest_that_fits(speed, "base", 90, 11.7, 2.0)
    assert rates["base"] == pytest.approx(417.0) and sorted(rates.values(), reverse=True) == list(rates.values())
    assert largest_that_fits(speed, "base", 90, 11.7, 0.41)[0] == "base"


@pytest.mark.parametrize(("size", "megabytes", "memory_gb"), [("large-v3", 749, 0.8), ("small", 246, 0.26)])
def test_what_fits_is_not_larger_than_the_largest_that_fits(size: Preset, megabytes: int, memory_gb: float) -> None:
    speed = Speed(12.0, 417.0, megabytes, 1.0)
    assert fits(speed, 90, 11.7, memory_gb)[0]
    assert largest_that_fits(speed, size, 90, 11.7, memory_gb)[0] == size


def test_attention_over_a_long_context_weighs_more_in_small_encoders() -> None:
    speed = Speed(12.0, 417.0, 400, 1.0)
    rates = [largest_that_fits(speed, "large-v3", 90, 11.7, 2.0, seconds)[1]["tiny"] for seconds in (5.0, 30.0)]
    assert rates[1] < rates[0]


def test_half_an_encoder_measured_means_a_whole_one_takes_longer() -> None:
    speed = Speed(12.0, 417.0, 400, 1.0)
    half, whole = (largest_that_fits(speed, "base", 90, 11.7, 2.0, depth=depth)[1]["base"] for depth in (3, 6))
    assert whole == pytest.approx(417.0) and 0.5 < half / whole < 0.7  # the stem is not halved


def test_the_deepest_that_fits_is_counted_by_hand() -> None:
    whole = Speed(100.0, 50.0, 1000, 1.0)
    work = [multiplications(encoder_size("base", layers), 250) for layers in range(1, 7)]
    for layers, minutes in (
        (6, 14.05),
        (5, 14.0),
        (2, 14.04 * (work[1] + 1) / work[5]),
        (0, 14.04 * 0.99 * work[0] / work[5]),
    ):
        assert deepest_that_fits(whole, "base", minutes, 11.7, 2.0) == layers  # 702 minutes at 50 x: 14.04
    half = Speed(100.0, 50.0, 1000, 1.0)
    assert deepest_that_fits(half, "base", 14.05, 11.7, 2.0, depth=3) == 3, "what was cut off is not offered"
    layer = 12 * 512**2 / 1e6  # MB at a byte each
    for layers in (6, 4, 1):
        gigabytes = (1000 - 10 * layer * (6 - layers)) / 1000
        assert deepest_that_fits(whole, "base", 90, 11.7, gigabytes + 1e-6, bytes_each=10.0) == layers
    assert deepest_that_fits(whole, "base", 90, 11.7, 0.5, bytes_each=1.3) == 0
