"""Cells and rows that every reader takes for what they are."""

from __future__ import annotations

import csv
import io

from runtime.cells import write_row


def test_rows_survive_quotes_commas_and_every_line_break() -> None:
    cells = ['a, "b"', "c\nd", "e\rf", "g"]
    file = io.StringIO(newline="")
    write_row(file, cells)
    write_row(file, ["next"])
    assert list(csv.reader(io.StringIO(file.getvalue(), newline=""))) == [cells, ["next"]]
