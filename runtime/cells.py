"""Cells and rows of the tables we write: nothing a spreadsheet takes for a formula, rows every reader parts alike."""

from __future__ import annotations

import csv
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from runtime.files import publish

LINE_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")  # the tab among them

if TYPE_CHECKING:  # `experiments` starts without it
    import numpy as np
    from numpy.typing import NDArray

NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)


def score_columns(labels: Sequence[str], by_channel: bool = False, unfamiliar: bool = False) -> list[str]:
    """Header of a table of scores."""
    more = [*(["channel"] if by_channel else []), *(["unfamiliar"] if unfamiliar else [])]
    return ["file", "start", "end", *more, *labels]


def write_scores(
    file: TextIO,
    name: str,
    starts: Sequence[float],
    ends: Sequence[float],
    probabilities: NDArray[np.float32],
    channel: int | None = None,
    unfamiliar: NDArray[np.float32] | None = None,
) -> None:
    """One row per window: file, start, end, and the probability of each species with six digits that count.

    channel      which one these windows are of, where each is scored by itself
    unfamiliar   (windows,) how unlike training each is, where the model tells it
    """
    own = [] if channel is None else [str(channel)]
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        cells = [f"{probability:.6g}" for probability in probabilities[row]]
        if unfamiliar is not None:
            cells.insert(0, f"{unfamiliar[row]:.3f}")
        write_row(file, [plain_path(name), seconds(start), seconds(end), *own, *cells])


def write_row(file: TextIO, cells: Sequence[str]) -> None:
    """A row of a csv file, quoted where it must be; Python 3.11 would leave a lone carriage return unquoted."""
    returns = any("\r" in cell for cell in cells)
    table = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL)
    table.writerow(cells)


def seconds(value: float) -> str:
    """Seconds to at most four decimals: 5, 2.5, 0.0625."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def plain_path(path: str) -> str:
    """A path that no spreadsheet takes for a formula."""
    return f"./{path}" if path.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else path


def no_formula(cell: str) -> str:
    """A csv cell that no spreadsheet takes for a formula: before one stands an apostrophe; numbers stay numbers."""
    risky = cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) and not NUMBER.fullmatch(cell)
    return f"'{cell}" if risky else cell


def bare(cell: str) -> str:
    """A cell of a table without quotes: nothing in it ends a cell or a line, or could be taken for a quote."""
    return LINE_BREAKS.sub(" ", cell).replace('"', "'").encode("utf-8", "backslashreplace").decode()


@contextmanager
def open_text(path: Path, encoding: str = "utf-8") -> Generator[TextIO]:
    """A file to write that takes its name, and its place in folders made for it, when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with publish(path) as temporary, temporary.open("w", encoding=encoding, errors="backslashreplace", newline="") as f:
        yield f


def write_sheet(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """A csv file, whole or not at all: the names of the columns, then a row each."""
    with open_text(path) as file:
        for cells in rows:
            write_row(file, cells)


def write_line(file: TextIO, cells: Sequence[str]) -> None:
    """A row parted by tabs."""
    file.write("\t".join(bare(no_formula(cell)) for cell in cells) + "\n")


if __name__ == "__main__":
    table = StringIO()
    write_row(table, [no_formula(cell) for cell in ("=1+1", "-18.5", "a, b")])
    print(table.getvalue(), end="")
    assert table.getvalue() == '\'=1+1,-18.5,"a, b"\n' and plain_path("-a.wav") == "./-a.wav"
