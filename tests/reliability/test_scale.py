"""Ten times the recordings take ten times the time, not a hundred times."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from archive import duplicates, survey
from bench.scale import SHORT, exponent, measure

SMALL, LARGE = 1_000, 10_000
SIZES = (SMALL, LARGE)
STEEPEST = 1.5  # of two sizes; quadratic is 2
MOST_ROUNDS = 3


Figures = Mapping[str, tuple[float, int]]  # of each step seconds and bytes


def quicker(rounds: Iterable[Figures]) -> dict[str, float]:
    """Seconds of each step, the least of some rounds: what other work adds is no property of the step."""
    first, *others = rounds
    return {step: min(seconds, *(other[step][0] for other in others)) for step, (seconds, _) in first.items()}


def judged(plain: list[list[Figures]], crowded: list[list[Figures]]) -> tuple[dict[str, float], float]:
    """The slope of each step that is long enough to tell, and how much longer than in a crowd it takes to compare each
    with each; of rounds with either crowd, each of both sizes."""
    small, large = (quicker(of_size) for of_size in zip(*plain, *crowded, strict=True))
    alone = [
        [min(of_size[which]["one length"][0] for of_size in kept) for which in (0, 1)] for kept in (plain, crowded)
    ]
    small["one length"], large["one length"] = alone[1]
    slopes = {step: exponent(SIZES, (small[step], seconds)) for step, seconds in large.items() if seconds >= SHORT}
    return slopes, alone[0][1] / alone[1][1]


def test_no_step_over_the_index_is_quadratic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """Recordings of one length are compared each with each up to a crowd, and from there on in linear time: that is
    judged with a small crowd, and comparing each with each costs no more where it ends."""
    monkeypatch.setattr(survey, "LEDGER", tmp_path / "examined.sqlite")  # measure has one of its own
    usual, plain, crowded = duplicates.CROWD, list[list[Figures]](), list[list[Figures]]()
    slopes, ratio = dict[str, float](), math.inf
    # other work adds to some rounds, a step that is too slow to all of them
    while len(plain) < MOST_ROUNDS and not (ratio < 2 and max(slopes.values(), default=math.inf) < STEEPEST):
        for crowd, kept in ((usual, plain), (SMALL // 2, crowded)):
            monkeypatch.setattr(duplicates, "CROWD", crowd)
            kept.append([measure(size, tmp_path / f"{size}-{crowd}-{len(kept)}") for size in SIZES])
        slopes, ratio = judged(plain, crowded)
    assert ratio < 2
    assert len(slopes) >= 3 and all(slope < STEEPEST for slope in slopes.values()), slopes
    steepest = max(slopes, key=slopes.__getitem__)
    record_property(
        "scale", f"{len(slopes)} steps from {SMALL:,} to {LARGE:,} rows, steepest {steepest}: {slopes[steepest]:.2f}"
    )


def test_a_quadratic_step_would_be_seen() -> None:
    seconds: list[float] = []
    for size in (SMALL // 4, LARGE // 4):
        tries: list[float] = []
        for _ in range(5):
            begun = time.process_time()
            assert sum(one == other for one in range(size) for other in range(one)) == 0
            tries.append(time.process_time() - begun)
        seconds.append(min(tries))
    assert exponent((SMALL, LARGE), seconds) > 1.7
    assert exponent((1, 10, 100), (2.0, 20.0, 200.0)) == pytest.approx(1.0)
