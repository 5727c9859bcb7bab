"""Tables: headers to the letter, a row for every input, and names that survive commas, quotes and spreadsheets."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audio import Outcome
from detections import (
    DETECTION_COLUMNS,
    Detection,
    Scored,
    TableFacts,
    clock,
    detect,
    listing,
    open_tables,
    seconds,
    write_recording,
)
from taxonomy import Taxonomy

RANKS = ("Animalia", "Chordata", "Amphibia", "Anura", "Fictidae", "Rana")
TWO = Taxonomy(
    ("126247", "greani1"),
    ("Rana ficta", "Ara ficta"),
    ('spotted "foam-nest", frog', "great\nani"),
    ((*RANKS, "Rana ficta"), ("Animalia", "Chordata", "Aves", "Ficti", "Fictidae", "Ara", "Ara ficta")),
    (7, 7),
)
FACTS = TableFacts(TWO, "toy.onnx", 5.0, 0.0, 0.25)
GOOD = Outcome("ok", "", 7.3, 32_000, 1)


def scored(name: str, *rows: tuple[float, float], outcome: Outcome = GOOD) -> Scored:
    starts = [5.0 * i for i in range(len(rows))]
    ends = [min(5.0 * i + 5.0, 7.3) for i in range(len(rows))]
    return Scored(name, outcome, starts, ends, np.array(rows, np.float32).reshape(-1, 2))


def written(place: Path, *recordings: Scored, scores: bool = False) -> dict[str, list[dict[str, str]]]:
    with open_tables(place, FACTS, scores) as tables:
        for recording in recordings:
            write_recording(tables, recording)
    found: dict[str, list[dict[str, str]]] = {}
    for path in place.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            found[path.stem] = list(csv.DictReader(file))
    return found


def test_birdnets_six_columns_come_first() -> None:
    assert DETECTION_COLUMNS[:6] == ("Start (s)", "End (s)", "Scientific name", "Common name", "Confidence", "File")


def test_a_detection_is_a_row_and_a_lower_probability_is_none(tmp_path: Path) -> None:
    rows = written(tmp_path, scored("pond.ogg", (0.9, 0.1), (0.2499, 0.25)))["detections"]
    assert [(r["Start (s)"], r["End (s)"], r["Species code"], r["Confidence"]) for r in rows] == [
        ("0", "5", "126247", "0.9000"),
        ("5", "7.3", "greani1", "0.2500"),
    ]


def test_the_surest_species_of_a_window_comes_first() -> None:
    found = detect(scored("pond.ogg", (0.3, 0.8)), TWO, 0.25)
    assert [d.label for d in found] == ["greani1", "126247"]


def test_nothing_heard_and_not_analysed_are_two_things(tmp_path: Path) -> None:
    broken = scored("text.wav", outcome=Outcome("unreadable", "named .wav, is text", 0.0, 0, 0))
    tables = written(tmp_path, scored("quiet.ogg", (0.0, 0.0)), broken)
    assert tables["detections"] == []
    assert [(r["file"], r["windows"], r["detections"], r["status"], r["reason"]) for r in tables["files"]] == [
        ("quiet.ogg", "1", "0", "ok", ""),
        ("text.wav", "0", "0", "unreadable", "named .wav, is text"),
    ]


def test_names_survive_quotes_commas_and_line_breaks(tmp_path: Path) -> None:
    rows = written(tmp_path, scored('a, "b"\nc.ogg', (0.9, 0.9)))["detections"]
    assert [r["Common name"] for r in rows] == ['spotted "foam-nest", frog', "great\nani"]
    assert {r["File"] for r in rows} == {'a, "b"\nc.ogg'}


@pytest.mark.parametrize("name", ["=cmd.wav", "+1.wav", "-x.wav", "@a.wav"])
def test_no_path_is_taken_for_a_formula(tmp_path: Path, name: str) -> None:
    assert written(tmp_path, scored(name, (0.9, 0.0)))["detections"][0]["File"] == f"./{name}"


def test_pandas_reads_numeric_labels_back_as_text(tmp_path: Path) -> None:
    written(tmp_path, scored("pond.ogg", (0.9, 0.1)), scores=True)
    table = pd.read_csv(tmp_path / "detections.csv", dtype={"Species code": str})
    assert table["Species code"].tolist() == ["126247"] and table["Confidence"].tolist() == [0.9]
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert scores.columns.tolist() == ["file", "start", "end", "126247", "greani1"]
    assert scores["greani1"].tolist() == pytest.approx([0.1])


def test_rows_are_there_as_soon_as_a_recording_is_done(tmp_path: Path) -> None:
    with open_tables(tmp_path, FACTS, False) as tables:
        write_recording(tables, scored("pond.ogg", (0.9, 0.1)))
        growing = next(path for path in tmp_path.iterdir() if "detections" in path.name)
        assert "Rana ficta" in growing.read_text() and growing.name != "detections.csv"
    assert (tmp_path / "detections.csv").is_file() and len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_table_does_not_take_its_name(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_tables(tmp_path, FACTS, False):
        raise KeyboardInterrupt
    assert not (tmp_path / "detections.csv").exists()


def test_seconds_and_clocks_are_written_as_people_read_them() -> None:
    assert [seconds(x) for x in (5.0, 2.5, 0.0625, 606.7000000000694, 100.0)] == ["5", "2.5", "0.0625", "606.7", "100"]
    assert [clock(x) for x in (0.0, 75.0, 59.99, 3725.25)] == ["0:00.0", "1:15.0", "1:00.0", "1:02:05.2"]


def test_a_long_listing_says_what_it_leaves_out() -> None:
    one = Detection("a.ogg", 0.0, 5.0, "x", "Rana ficta", "frog", 0.9)
    lines = listing([one] * 12, limit=10)
    assert len(lines) == 11 and lines[-1] == "... and 2 more" and "frog (Rana ficta)" in lines[0]
