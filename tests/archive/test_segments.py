"""Windows of labelled segments: each has its label in it, and the label counts where enough is shared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.recordings import Recording
from archive.segments import draw_segment, shares


def event(start: float, end: float, *labels: str, seconds: float = 60.0) -> Recording:
    return Recording(Path("/a.wav"), "a.wav", labels or ("owl",), seconds=seconds, start=start, end=end)


@given(st.floats(0, 59), st.floats(0.05, 30), st.integers(0, 1000), st.floats(1, 60))
def test_a_labelled_segment_lies_in_its_window_or_the_window_in_it(
    start: float, length: float, seed: int, seconds: float
) -> None:
    start = min(start, seconds - 0.05)
    row = event(max(start, 0.0), min(max(start, 0.0) + length, seconds), seconds=seconds)
    assert row.start is not None and row.end is not None
    first, last = draw_segment(row, 5.0, None, np.random.default_rng(seed))
    assert -1e-9 <= first < last <= seconds + 1e-5 and last - first <= 5 + 1e-5
    inside = first <= row.start + 1e-6 and row.end <= last + 1e-6
    assert inside or (row.start <= first + 1e-6 and last <= row.end + 1e-5)
    assert shares(first, last, row.start, row.end)


@pytest.mark.parametrize(
    ("window", "annotation", "counts"),
    [((0, 5), (4.5, 9), True), ((0, 5), (4.6, 9), False), ((0, 5), (4.9, 5.1), True), ((0, 5), (4.95, 5.15), False)],
)
def test_half_a_second_or_half_of_a_shorter_annotation_counts(
    window: tuple[float, float], annotation: tuple[float, float], counts: bool
) -> None:
    assert shares(*window, *annotation) == counts


def of_length(seconds: float, *labels: str, name: str = "a") -> Recording:
    return Recording(Path(f"/{name}.wav"), f"{name}.wav", labels, seconds=seconds, listened=not labels)
