"""The table: what is written is what is read, whatever stands in it."""

import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from archive.recordings import COLUMNS, Recording, path_within, read_recordings, write_recordings

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map(str.strip)
LABEL = TEXT.map(lambda text: text.replace(";", "")).filter(lambda text: text.strip() != "")
SECONDS = st.integers(0, 10**8).map(lambda value: value / 10_000)
NAME = LABEL.filter(lambda name: "/" not in name and name.strip(".") != "")


@st.composite
def rows(draw: st.DrawFn) -> Recording:
    name, start = draw(NAME), draw(st.none() | SECONDS)
    return Recording(
        Path("/archive") / name,
        name,
        tuple(dict.fromkeys(label.strip() for label in draw(st.lists(LABEL, max_size=3)))),
        draw(TEXT),
        draw(st.integers(-1, 9)),
        draw(SECONDS),
        start,
        None if start is None else round(start + 1.5, 4),
        listened=draw(st.booleans()),
        keep=tuple(draw(st.lists(st.tuples(SECONDS, SECONDS), max_size=2))),
        alive=tuple(draw(st.lists(st.tuples(SECONDS, SECONDS), max_size=2))),
        author=draw(TEXT),
        latitude=draw(st.sampled_from(["", "-4.5", "51.25"])),
        reason=draw(TEXT),
        sample_rate=draw(st.integers(0, 384_000)),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@example([Recording(Path("/archive/\ufffd.wav"), "\ufffd.wav", author="\ufffd")])  # as unpackers of old archives write
@given(st.lists(rows(), min_size=1, max_size=5))
def test_a_table_survives_the_way_to_disk_and_back(tmp_path: Path, table: list[Recording]) -> None:
    write_recordings(tmp_path / "recordings.csv", table)
    assert read_recordings(tmp_path / "recordings.csv") == table


def test_pandas_reads_the_table_with_all_its_columns(tmp_path: Path) -> None:
    row = Recording(tmp_path / "a.ogg", "a.ogg", ("x", "y"), "g", 2, 61.5, latitude="-4.5")
    write_recordings(tmp_path / "recordings.csv", [row, row])
    frame = pd.read_csv(tmp_path / "recordings.csv")
    assert tuple(frame.columns) == COLUMNS and frame["seconds"].tolist() == [61.5, 61.5]
    assert frame["labels"][0] == "x;y" and frame["fold"][0] == 2 and frame["latitude"][0] == -4.5


@pytest.mark.parametrize("name", ["=cmd|'/c calc'!A1.wav", "+1.wav", "-owl.wav", "@sum.wav", "'quoted.wav", "'=x.wav"])
def test_no_cell_is_a_formula_and_no_name_is_changed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name.replace("/", "_")
    write_recordings(tmp_path / "recordings.csv", [Recording(path, path.name, author="=1+1")])
    with (tmp_path / "recordings.csv").open(encoding="utf-8", newline="") as file:
        cells = next(csv.DictReader(file))
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells.values())
    assert read_recordings(tmp_path / "recordings.csv")[0].name == path.name


@pytest.mark.parametrize(
    ("column", "cell", "complaint"),
    [
        ("path", "../../etc/passwd", r"line 2: '../../etc/passwd' leaves"),
        ("path", "/etc/passwd", "line 2: '/etc/passwd' leaves"),
        ("path", "", "line 2: '' leaves"),
        ("fold", "two", "line 2: fold 'two' is no whole number"),
        ("seconds", "1e999", "line 2: seconds '1e999' is no number"),
        ("start", "nan", "line 2: start 'nan' is no number"),
        ("start", "0_5", "line 2: start '0_5' is no number"),
        ("keep", "0.5", "line 2: keep '' is no number"),
    ],
)
def test_a_cell_that_cannot_be_is_named(column: str, cell: str, complaint: str, tmp_path: Path) -> None:
    table = tmp_path / "recordings.csv"
    row = {"root": str(tmp_path), "path": "a.ogg"} | {column: cell}
    table.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(AssertionError, match=complaint):
        read_recordings(table)


def test_bytes_that_are_no_utf_8_are_named_by_their_line_and_a_replacement_character_is_none(tmp_path: Path) -> None:
    table = tmp_path / "recordings.csv"
    table.write_bytes(f"root,path,author\n{tmp_path},a\ufffd.ogg,Ada\n".encode())
    assert read_recordings(table)[0].name == "a\ufffd.ogg"
    table.write_bytes(f"root,path,author\n{tmp_path},a\ufffd.ogg,".encode() + b"Andr\xe9\n")
    with pytest.raises(AssertionError, match=r"line 2 is not in UTF-8"):
        read_recordings(table)


def test_a_table_of_two_columns_is_enough(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(f"root,path\n{tmp_path},sub/a.ogg\n")
    row = read_recordings(tmp_path / "mine.csv")[0]
    assert row == Recording(tmp_path / "sub/a.ogg", "sub/a.ogg") and row.sound and not row.labeled


def test_a_link_does_not_lead_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "out").symlink_to(tmp_path)
    (tmp_path / "root" / "loop").symlink_to("loop")
    assert path_within(tmp_path / "root", "in.wav") == tmp_path / "root" / "in.wav"
    assert path_within(tmp_path / "root", "out/a.wav") is None
    assert path_within(tmp_path / "root", "a\0b") is None
    path_within(tmp_path / "root", "loop")  # whatever it says, it says something


def test_whole_numbers_may_be_written_as_pandas_does_beside_a_gap(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(
        f"root,path,fold,sample_rate,channels\n{tmp_path},a.wav,0.0,32000.0,1.\n{tmp_path},b.wav,,,\n"
    )
    first, second = read_recordings(tmp_path / "r.csv")
    assert (first.fold, first.sample_rate, first.channels, second.fold) == (0, 32_000, 1, -1)
    for wrong in ("0.5", "1e3", "0.0.0", "\u0661"):
        (tmp_path / "r.csv").write_text(f"root,path,fold\n{tmp_path},a.wav,{wrong}\n")
        with pytest.raises(AssertionError, match="is no whole number"):
            read_recordings(tmp_path / "r.csv")


def test_a_table_that_excel_parted_by_semicolons_is_the_same_table(tmp_path: Path) -> None:
    row = Recording(
        tmp_path / "a, b.ogg", "a, b.ogg", ("x", "y"), "g", 2, 61.5, keep=((0.5, 7.0), (8.0, 9.0)), reason="q;r"
    )
    write_recordings(tmp_path / "r.csv", [row])
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    with (tmp_path / "r.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";").writerows(lines)
    assert read_recordings(tmp_path / "r.csv") == [row]
