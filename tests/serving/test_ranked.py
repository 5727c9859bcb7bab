"""Windows of an index in the tables of the predictor: in the order given, and every recording in files.csv."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.digests import sha256
from serving.detections import Analysed, TableFacts
from serving.ranked import Like, indexed_recordings, write_ranked_tables
from serving.results import read_results
from serving.tables import write_tables
from serving.vectors import PLACE, Store

POND = Analysed("=pond/dawn.wav", "pond", "2026-05-14T05:30:00", 16_000, 2, 15.5, 15.0, 3, "salvaged", "cut", 7, 9)
RIDGE = replace(POND, file="ridge/noon.wav", site="ridge", recorded_at="", status="ok", reason="", latitude="1.5")
FACTS = {"model_name": "toy.onnx", "window_seconds": 5.0, "overlap": 0.0, "top_hz": 8_000.0, "lowest_hz": 0.0}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    write_tables(tmp_path, [POND, RIDGE], TableFacts("toy.onnx", 5.0, 0.0, 8_000.0), ())
    return tmp_path


@pytest.fixture
def store() -> Store:
    """Two windows of the pond and one of the ridge, in the second channel."""
    places = np.array([(0, 0, 0, 5, 1), (0, 0, 5, 10, 1), (1, 2, 2.5, 7.5, 1)], PLACE)
    nothing = np.zeros((3, 0), np.float32)
    halves = nothing.astype(np.float16)
    return Store(halves, nothing, places, nothing, nothing, nothing, {**FACTS, "recordings": 2})


def test_rows_stand_in_the_order_of_rank_and_report_py_reads_them(index: Path, store: Store) -> None:
    likes = [Like("frog", "Rana ficta", "frog")] * 3
    scores = np.array([1.01, 0.5, -0.2], np.float32)
    written = write_ranked_tables(index / "out", index, store, np.array([1, 2, 0]), scores, likes, {"csv", "raven"})
    assert written[0] == index / "out" / "detections.csv"
    results = read_results(index / "out")
    found = [(d.file, d.start, d.confidence, d.cell("Channel"), d.cell("Detected at")) for d in results.detections]
    assert found == [
        ("./=pond/dawn.wav", 5, 1.0, "mean", "2026-05-14T05:30:05"),
        ("ridge/noon.wav", 2.5, 0.5, "2", ""),
        ("./=pond/dawn.wav", 0, 0.0, "mean", "2026-05-14T05:30:00"),
    ]
    assert {d.label for d in results.detections} == {"frog"} and results.detections[0].cell("Site") == "pond"
    assert [(row["file"], row["detections"]) for row in results.files] == [
        ("./=pond/dawn.wav", "2"),
        ("ridge/noon.wav", "1"),
    ]
    raven = (index / "out" / "exports" / "raven.selections.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[7:9] for line in raven[1:]] == [["frog", "frog"]]  # of the ridge: the pond was salvaged


def test_recordings_come_back_as_they_were_written(index: Path, store: Store) -> None:
    pond, ridge = indexed_recordings(index, store)
    assert pond == replace(POND, file="./=pond/dawn.wav") and ridge == RIDGE


def test_a_files_csv_in_which_recordings_have_changed_places_is_refused(index: Path, store: Store) -> None:
    """As many rows, so that their number alone does not tell: every window would be said to be of another recording."""
    store = replace(store, facts={**store.facts, "files_sha256": sha256(index / "files.csv")})
    assert [one.site for one in indexed_recordings(index, store)] == ["pond", "ridge"]
    write_tables(index, [RIDGE, POND], TableFacts("toy.onnx", 5.0, 0.0, 8_000.0), ())
    with pytest.raises(AssertionError, match=r"not the table that the index was made with; .*search\.py index"):
        indexed_recordings(index, store)


def test_a_files_csv_of_other_recordings_is_refused(index: Path, store: Store) -> None:
    with (index / "files.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    with (index / "files.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines[:2])
    with pytest.raises(AssertionError, match="has 1 recordings, the index 2"):
        indexed_recordings(index, store)
    (index / "files.csv").unlink()
    with pytest.raises(AssertionError, match=r"files\.csv is missing"):
        indexed_recordings(index, store)
