"""Stage 4: the trainer's scores again, a row for every input, and bad input that stops nothing."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Stages

from config import PredictCommand
from demo_data import FieldSeason
from detections import Detection
from predictor import Heard, predict, score_recording, species_table, tally
from recordings import Recording, write_recordings
from scorer import open_scorer


def command(stages: Stages, *inputs: Path, **settings: Any) -> PredictCommand:
    return replace(PredictCommand(inputs, model=stages.model, runs=stages.runs), **settings)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_predictor_gives_the_trainers_scores(stages: Stages, tmp_path: Path) -> None:
    trained = rows(stages.classifier.parent / "held_out_scores.csv")
    files = list(dict.fromkeys(row["file"] for row in trained))[:12]
    config = command(stages, *map(Path, files), model=stages.float_model, out=tmp_path, scores=True)
    assert predict(config) == 0
    served = {(row["file"], row["start"]): row for row in rows(tmp_path / "scores.csv")}
    labels = open_scorer(stages.model).taxonomy.labels
    compared = 0
    for row in trained:
        if row["file"] in files:
            again = served[row["file"], row["start"]]
            ours, theirs = ([float(r[label]) for label in labels] for r in (again, row))
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
            compared += 1
    assert compared == len(served) >= 12


def test_one_recording_is_printed_and_nothing_written(
    stages: Stages, season: FieldSeason, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(stages.runs.iterdir())
    assert predict(command(stages, season.soundscape, min_conf=0.05)) == 0
    said = capsys.readouterr().out
    assert "0:00.0 - 0:05.0" in said or "0:05.0 - 0:10.0" in said
    assert "1 recordings (1 ok)" in said and sorted(stages.runs.iterdir()) == before


def test_the_rows_of_a_table_that_can_be_heard_are_scored(
    stages: Stages, season: FieldSeason, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = sorted((season.root / "unlabeled").rglob("*.flac"))[:3]
    table = [Recording(path, path.name) for path in [*paths, tmp_path / "gone.flac"]]
    table[2] = replace(table[2], status="silent")
    write_recordings(tmp_path / "recordings.csv", table)
    assert predict(command(stages, tmp_path / "recordings.csv", out=tmp_path / "out")) == 0
    assert {row["file"] for row in rows(tmp_path / "out" / "files.csv")} == {str(path) for path in paths[:2]}
    assert "1 recordings of the table are no longer there" in capsys.readouterr().out


def test_an_archive_becomes_tables_in_a_numbered_folder(stages: Stages, season: FieldSeason) -> None:
    assert predict(command(stages, season.root / "unlabeled")) == 0
    folder = stages.runs / "predict"
    assert len(rows(folder / "files.csv")) == 8
    facts = json.loads((folder / "run.json").read_text())
    assert facts["status"] == "finished" and facts["recordings"] == {"ok": 8} and len(facts["model_sha256"]) == 64


def test_damaged_recordings_are_rows_with_a_reason_and_exit_code_2(
    stages: Stages, season: FieldSeason, tmp_path: Path
) -> None:
    assert predict(command(stages, season.root / "damaged", season.soundscape, out=tmp_path)) == 2
    files = {Path(row["file"]).name: row for row in rows(tmp_path / "files.csv")}
    assert files["text_not_sound.wav"]["status"] == "unreadable" and files["text_not_sound.wav"]["reason"]
    assert (
        files["cut_in_half.flac"]["status"] == "salvaged" and float(files["cut_in_half.flac"]["seconds_analysed"]) > 1
    )
    assert files["silent.flac"]["status"] == "ok" and files[season.soundscape.name]["status"] == "ok"


def test_nothing_but_unreadable_input_is_a_failed_run_and_no_default(
    stages: Stages, season: FieldSeason, tmp_path: Path
) -> None:
    text = season.root / "damaged" / "text_not_sound.wav"
    with pytest.raises(AssertionError, match="none of the 1 recordings"):
        predict(command(stages, text, out=tmp_path / "out"))
    assert rows(tmp_path / "out" / "files.csv")[0]["status"] == "unreadable"  # the reason is kept all the same
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"no sound " * 20)
    with pytest.raises(AssertionError, match="none of the 2 recordings"):
        predict(command(stages, tmp_path / "a.wav", tmp_path / "b.wav", runs=tmp_path / "runs"))
    assert json.loads((tmp_path / "runs" / "predict-001" / "run.json").read_text())["status"] == "failed"
    assert not (tmp_path / "runs" / "predict").exists()


def test_overlapping_windows_start_a_hop_apart(stages: Stages, season: FieldSeason) -> None:
    scorer = open_scorer(stages.model)
    plain = score_recording(scorer, season.soundscape, 0.0)
    dense = score_recording(scorer, season.soundscape, 2.5)
    assert [s for s in dense.starts if s % 5 == 0] == list(plain.starts) and dense.starts[1] == 2.5
    np.testing.assert_array_equal(dense.probabilities[::2][: len(plain.starts)], plain.probabilities)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 5.0}, "--overlap 5"),
        ({"min_conf": 1.5}, "--min_conf"),
        ({"model": Path("none.onnx")}, "quantize.py"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_flag(
    stages: Stages, season: FieldSeason, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        predict(command(stages, season.soundscape, **settings))


def test_missing_input_is_named(stages: Stages) -> None:
    with pytest.raises(AssertionError, match=r"not found: nowhere\.ogg"):
        predict(command(stages, Path("nowhere.ogg")))
    with pytest.raises(AssertionError, match="no recordings given"):
        predict(command(stages))


def test_the_species_table_is_empty_when_nothing_was_heard() -> None:
    assert species_table({}) == []


def test_the_species_table_counts_windows_and_names_the_first() -> None:
    one = Detection("a/x.ogg", 5.0, 10.0, "41", "Rana ficta", "frog", 0.5)
    heard: dict[str, Heard] = {}
    tally(heard, [one, replace(one, start=10.0, confidence=0.9)])
    tally(heard, [replace(one, file="b/y.ogg", label="7", common_name="owl")])
    assert [line.split() for line in species_table(heard)[1:]] == [
        ["frog", "2", "0.90", "x.ogg", "0:05.0"],
        ["owl", "1", "0.50", "y.ogg", "0:05.0"],
    ]
