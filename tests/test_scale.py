"""Ten times the recordings take ten times the time, not a hundred times."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import survey
from bench.scale import SHORT, exponent, measure

SMALL, LARGE = 1_000, 10_000
STEEPEST = 1.5  # of two sizes, one measurement each; quadratic is 2


def test_no_step_over_the_index_is_quadratic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    monkeypatch.setattr(survey, "LEDGER", tmp_path / "examined.sqlite")  # measure has one of its own
    slopes: dict[str, float] = {}
    for number in range(2):  # beside other work a step of a few milliseconds may be off: a quadratic one is each time
        small, large = (measure(size, tmp_path / f"{size}-{number}") for size in (SMALL, LARGE))
        found = {
            step: exponent((SMALL, LARGE), (small[step][0], seconds))
            for step, (seconds, _) in large.items()
            if seconds >= SHORT
        }
        slopes = {step: min(slope, slopes.get(step, slope)) for step, slope in found.items()}
        if all(slope < STEEPEST for slope in slopes.values()):
            break
    assert len(slopes) >= 3 and all(slope < STEEPEST for slope in slopes.values()), slopes
    steepest = max(slopes, key=slopes.__getitem__)
    record_property(
        "scale", f"{len(slopes)} steps from {SMALL:,} to {LARGE:,} rows, steepest {steepest}: {slopes[steepest]:.2f}"
    )


def test_a_quadratic_step_would_be_seen() -> None:
    seconds: list[float] = []
    for size in (SMALL // 4, LARGE // 4):
        begun = time.process_time()
        assert sum(one == other for one in range(size) for other in range(one)) == 0
        seconds.append(time.process_time() - begun)
    assert exponent((SMALL, LARGE), seconds) > 1.7
    assert exponent((1, 10, 100), (2.0, 20.0, 200.0)) == pytest.approx(1.0)
