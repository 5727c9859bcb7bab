"""Speed, measured in a fresh process."""

import pytest
from conftest import Stages

from serving.speed import in_fresh_process, measure


def test_a_file_is_measured_in_a_process_of_its_own_without_torch(stages: Stages) -> None:
    found = measure(stages.model, threads=1)
    assert 0 < found.milliseconds_per_window < 2000
    assert found.times_real_time == pytest.approx(5000 / found.milliseconds_per_window, rel=0.01)
    assert 30 < found.peak_memory_mb < 300  # with torch it is three times that
    assert found.start_seconds > found.milliseconds_per_window / 1000


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(AssertionError, match=r"could not be measured.*no such thing"):
        in_fresh_process("raise ValueError('no such thing')")
