"""Csv tables of other people, read row by row: each with the line it stands on, refused with a remedy."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, decoded with surrogateescape; U+FFFD is a character
NOT_UTF8 = re.compile("[\0\udc80-\udcff]")


def read_table(path: Path, required: Iterable[str], unique: str = "") -> list[tuple[str, dict[str, str]]]:
    """(where it stands, cells by column) of every row of a csv file that is not empty, all cells text and trimmed.

    required  columns that must be there
    unique    a column in which no value may stand twice; none by default
    Errors: another encoding than UTF-8, a missing or doubled column and a row of another length are named with their
    line and the remedy.
    """
    assert path.is_file(), f"no {path.name} in {path.parent}; give a table in the layout of BirdCLEF's"
    text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    spoilt = NOT_UTF8.search(text)
    line = text.count("\n", 0, spoilt.start()) + 1 if spoilt else 0
    assert not spoilt, f"{path} line {line} is not in UTF-8; save the table as UTF-8"
    rows: list[tuple[str, dict[str, str]]] = []
    first: dict[str, str] = {}
    for where, cells in csv_rows(path, io.StringIO(text, newline=""), delimiter(text), required):
        row = {column: cell.strip() for column, cell in cells.items()}
        other = first.setdefault(row[unique], where) if unique else where
        assert other == where, f"{where}: {unique} {row[unique]} stands at {other} already; keep one row"
        rows.append((where, row))
    assert rows, f"{path} has a header and no rows; add one row each"
    return rows


def csv_rows(
    path: Path, lines: Iterable[str], mark: str, required: Iterable[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each row of a csv file stands, and its cells by column, untrimmed; rows of nothing but blanks are left out.

    lines   of the file, wherever they come from; `mark` parts their cells
    """
    table = csv_cells(path, lines, mark)
    header = [name.strip() for name in next(table, (1, list[str]()))[1]]
    absent = [name for name in required if name not in header]
    assert not absent, f"{path}: no columns {absent}, found {header[:20]}; name them so, separated by commas"
    assert not repeats(header), f"{path}: a column occurs twice in {header[:20]}; keep one"
    for number, cells in table:
        if any(cell.strip() for cell in cells):
            where = f"{path} line {number}"
            assert len(cells) == len(header), f"{where}: {len(cells)} cells, not {len(header)}; quote inner commas"
            yield where, dict(zip(header, cells, strict=True))


def csv_cells(path: Path, lines: Iterable[str], mark: str, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """The number of the last line of each row of a csv file, and its cells; the only reader of other people's.

    strict   an error where a quote is left open, which swallows the rows behind it
    """
    table, last = csv.reader(lines, delimiter=mark, strict=strict), 0
    try:
        for cells in table:
            last = table.line_num
            yield last, cells
    except csv.Error as error:
        raise AssertionError(f"{path} line {last + 1}: {error}; mend the row, perhaps a quote is left open") from None


def decoded_text(raw: bytes) -> tuple[str, str]:
    """The text of a table or a list, lines ended alike, and its encoding where that is not UTF-8: what Raven, Excel and
    editors on Windows write. Damage is known by the bytes: a U+FFFD that is written properly is a character.
    """
    encoding = "utf-8-sig"
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif raw[:2].count(0) == 1:  # a Latin letter without a mark in front
        encoding = "utf-16-be" if raw[0] == 0 else "utf-16-le"
    elif ESCAPED.search(raw.decode("utf-8", errors="surrogateescape")):
        encoding = "cp1252"
    content = raw.decode(encoding, errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return content, {"utf-8-sig": "", "cp1252": "Latin-1"}.get(encoding, "UTF-16")


def delimiter(text: str) -> str:
    """What parts the cells of a csv table, by its first line; Excel takes semicolons in many countries."""
    header = text.partition("\n")[0]
    return ";" if header.count(";") > header.count(",") else ","


def repeats(names: Sequence[str]) -> bool:
    return len(set(names)) < len(names)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pond.csv"
        path.write_text("label;count\nfrog; 3\n;\nowl;1;2\n")
        try:
            read_table(path, ("label",))
        except AssertionError as refusal:
            print(refusal)
            assert "line 4: 3 cells, not 2" in str(refusal)
        path.write_text("label;count\nfrog; 3\n;\nowl;1\n")
        assert [row["count"] for _, row in read_table(path, ("label",))] == ["3", "1"], "trimmed, without the blank row"
