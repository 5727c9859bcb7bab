"""bench/listening.py: windows that overlap are judged where they have half of a judged one or more."""

from pathlib import Path

import numpy as np

from bench.listening import window_scores
from runtime.cells import open_text, score_columns, write_row, write_scores


def test_a_judged_window_gets_the_highest_of_those_that_have_half_of_it(tmp_path: Path) -> None:
    with open_text(tmp_path / "scores.csv") as file:
        write_row(file, score_columns(("owl", "frog")))
        for name, starts, owl in (
            ("/there/b.flac", (0.0, 2.5, 5.0), (0.1, 0.7, 0.2)),
            ("/there/a.flac", (55.0,), (0.9,)),
        ):
            scores = np.array([[value, 0.5] for value in owl], np.float32)
            write_scores(file, name, starts, [start + 5 for start in starts], scores)
    found = window_scores(tmp_path / "scores.csv", ["a.flac", "b.flac"], ("frog", "owl"))
    assert found.shape == (24, 2) and np.allclose(found[11], [0.5, 0.9]) and not found[:11].any()
    assert np.allclose(found[12:15, 1], [0.7, 0.7, 0]) and not found[14:].any()
