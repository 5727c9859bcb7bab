"""Other people's csv tables: every row with its line, and what cannot be meant refused with it."""

from pathlib import Path

import pytest

from runtime.csvs import csv_cells, decoded_text, read_table


def test_rows_come_trimmed_with_the_line_they_end_on_and_blank_ones_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('label;note\nfrog ;"two\nlines"\n;\nowl;\n', encoding="utf-8-sig")
    assert read_table(path, ("label",)) == [
        (f"{path} line 3", {"label": "frog", "note": "two\nlines"}),
        (f"{path} line 5", {"label": "owl", "note": ""}),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"label\nfrog\n\xe9\n", r"a\.csv line 3 is not in UTF-8"),
        (b"name\nfrog\n", r"no columns \['label'\], found \['name'\]"),
        (b"label,label\nfrog,owl\n", "a column occurs twice"),
        (b"label\nfrog\nfrog\n", r"line 3: label frog stands at .* line 2 already"),
        (b"label\n", "a header and no rows"),
        (b'label\n"frog' + b"\nowl" * 50_000, r"line 2: .*; mend the row, perhaps a quote is left open"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_with_its_line(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(AssertionError, match=said) as refusal:
        read_table(path, ("label",), unique="label")
    assert "\n" not in str(refusal.value)


def test_a_quote_left_open_swallows_the_rows_behind_it_only_where_nobody_minds(tmp_path: Path) -> None:
    lines = ['a,"b\n', "c,d\n"]
    assert list(csv_cells(tmp_path, lines, ",", strict=False)) == [(2, ["a", "b\nc,d\n"])]
    with pytest.raises(AssertionError, match="unexpected end of data"):
        list(csv_cells(tmp_path, lines, ","))


@pytest.mark.parametrize(
    ("raw", "text", "encoding"),
    [
        ("Grünfink\r\n".encode(), "Grünfink\n", ""),
        ("Grünfink\n".encode("utf-8-sig"), "Grünfink\n", ""),
        ("Grünfink\n".encode("cp1252"), "Grünfink\n", "Latin-1"),
        ("Grünfink\n".encode("utf-16"), "Grünfink\n", "UTF-16"),
        ("Grünfink\n".encode("utf-16-le"), "Grünfink\n", "UTF-16"),
        ("\ufffd\n".encode(), "\ufffd\n", ""),
    ],
)
def test_text_of_any_editor_is_read_in_its_encoding(raw: bytes, text: str, encoding: str) -> None:
    assert decoded_text(raw) == (text, encoding)
