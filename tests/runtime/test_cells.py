"""Cells and rows that every reader takes for what they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.cells import write_row, write_sheet


def test_rows_survive_quotes_commas_and_every_line_break() -> None:
    cells = ['a, "b"', "c\nd", "e\rf", "g"]
    file = io.StringIO(newline="")
    write_row(file, cells)
    write_row(file, ["next"])
    assert list(csv.reader(io.StringIO(file.getvalue(), newline=""))) == [cells, ["next"]]


def test_a_sheet_is_whole_or_as_it_was_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sheet.csv"
    write_sheet(path, [["name", "count"], ["a, b", "1"]])
    assert path.read_bytes() == b'name,count\n"a, b",1\n'

    def broken() -> Iterator[list[str]]:
        yield ["name", "count"]
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_sheet(path, broken())
    assert path.read_bytes() == b'name,count\n"a, b",1\n' and len(list(path.parent.iterdir())) == 1
