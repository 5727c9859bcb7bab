"""Ten times the recordings take ten times the time, not a hundred times."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from archive import duplicates, survey
from bench.scale import SHORT, exponent, measure

SMALL, LARGE = 1_000, 10_000
SIZES = (SMALL, LARGE)
STEEPEST = 1.5  # of two sizes; quadratic is 2


def quicker(rounds: Iterable[Mapping[str, tuple[float, int]]]) -> dict[str, float]:
    """Seconds of each step, the least of some rounds: what other work adds is no property of the step."""
    first, *others = rounds
    return {step: min(seconds, *(other[step][0] for other in others)) for step, (seconds, _) in first.items()}


def test_no_step_over_the_index_is_quadratic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """Recordings of one length are compared each with each up to a crowd, and from there on in linear time: that is
    judged with a small crowd, and comparing each with each costs no more where it ends."""
    monkeypatch.setattr(survey, "LEDGER", tmp_path / "examined.sqlite")  # measure has one of its own
    rounds = [[measure(size, tmp_path / f"{size}") for size in SIZES]]
    monkeypatch.setattr(duplicates, "CROWD", SMALL // 2)
    rounds.append([measure(size, tmp_path / f"{size}-crowd") for size in SIZES])
    small, large = (quicker(of_size) for of_size in zip(*rounds, strict=True))
    each_with_each, in_a_crowd = (of_size[1]["one length"][0] for of_size in rounds)
    assert each_with_each < 2 * in_a_crowd, (each_with_each, in_a_crowd)
    small["one length"], large["one length"] = (figures["one length"][0] for figures in rounds[1])
    slopes = {step: exponent(SIZES, (small[step], seconds)) for step, seconds in large.items() if seconds >= SHORT}
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
