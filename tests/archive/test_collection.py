"""A folder is looked into once, and no sooner than somebody asks."""

from pathlib import Path

import pytest

from archive.collection import SourceFolder

RAVEN = "Begin Time (s)\tEnd Time (s)\tSpecies\n3.5\t4.25\tParus major\n"


def test_tables_of_deeper_folders_come_last_and_those_of_a_model_are_none(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("z.wav", "a/a.wav"):
        (tmp_path / name).touch()
    (tmp_path / "a" / "a.Table.1.selections.txt").write_text(RAVEN)
    (tmp_path / "z.Table.1.selections.txt").write_text(RAVEN)
    (tmp_path / "z.BirdNET.csv").write_text("start,end,species,confidence\n0,3,Parus major,0.9\n")
    source = SourceFolder(tmp_path)
    assert source.names == ["a/a.wav", "z.wav"]
    assert [path.relative_to(tmp_path).as_posix() for path in source.tables] == [
        *("z.Table.1.selections.txt", "a/a.Table.1.selections.txt"),
    ]
    assert source.predictions == {"z.BirdNET.csv"} and source.orphans == set()


def test_a_table_of_times_that_is_called_like_no_recording_is_remembered_as_such(tmp_path: Path) -> None:
    (tmp_path / "z.wav").touch()
    (tmp_path / "strange.txt").write_text("0.0\t1.0\tParus major\n")  # Audacity's labels name no recording
    source = SourceFolder(tmp_path)
    assert source.tables == [] and source.orphans == {"strange.txt"}


def test_a_folder_is_searched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "z.wav").touch()
    source = SourceFolder(tmp_path)
    assert source.names == ["z.wav"]
    monkeypatch.setattr("archive.collection.sounds_below", None)
    assert source.names == ["z.wav"] and source.index.find("z.wav") == ["z.wav"]
