"""What the files cost, side by side."""

from pathlib import Path

import pytest

from serving.costs import Measured, megabytes, print_speeds
from serving.speed import Speed

SPEEDS = {("torch float32", 1): Speed(60.0, 83.3, 700, 6.0), ("ONNX INT8", 2): Speed(12.0, 416.7, 150, 0.4)}


def test_a_file_is_as_large_as_itself_and_the_weights_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, weights = tmp_path / "classifier.onnx", tmp_path / "classifier.onnx.data"
    path.write_bytes(bytes(1_230_000))
    weights.write_bytes(bytes(2_000_000))
    assert megabytes(path) == 1.23

    def named(_path: Path) -> Path:
        return weights

    monkeypatch.setattr("serving.costs.beside", named)
    assert megabytes(path) == 3.23


def test_the_table_has_a_line_for_each_way_and_no_size_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_speeds(SPEEDS, {"ONNX INT8": 1.234})
    first, second = (line.split() for line in capsys.readouterr().out.splitlines()[1:])
    assert first == ["torch", "float32", "1", "60.00", "83", "700", "6.00"]
    assert second == ["ONNX", "INT8", "2", "1.23", "12.00", "417", "150", "0.40"]


def test_the_most_threads_that_were_measured_count() -> None:
    assert Measured(SPEEDS, {}, 0.0, {}).threads == 2
