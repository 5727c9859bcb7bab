"""Recordings are found wherever they lie, once, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sounds.discovery import SUFFIXES, find_recordings


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def test_recordings_are_found_at_any_depth_in_any_case_and_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.WAV", "b/1.Flac", "a/deep/er/3.ogg", "z.mp3", "notes.txt", "b/README")
    paths, notes = find_recordings([tmp_path])
    assert paths == [tmp_path / name for name in ("a/deep/er/3.ogg", "b/1.Flac", "b/2.WAV", "z.mp3")]
    assert notes == ["found 4 audio files (1 .ogg, 1 .flac, 1 .wav, 1 .mp3); ignored 2 other"]
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


def test_hidden_and_system_names_are_skipped_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "._a.wav", ".trash/b.wav", "$RECYCLE.BIN/c.wav", "System Volume Information/d.wav")
    paths, notes = find_recordings([tmp_path])
    assert paths == [tmp_path / "a.wav"]
    assert notes == ["found 1 audio files (1 .wav); ignored 4 hidden"]


def test_a_recording_reached_twice_is_one_and_linked_folders_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "card/a.wav", "elsewhere/b.wav")
    (tmp_path / "card/same.wav").symlink_to(tmp_path / "card/a.wav")
    (tmp_path / "card/loop").symlink_to(tmp_path / "card")
    (tmp_path / "card/self.ogg").symlink_to("self.ogg")
    (tmp_path / "card/linked").symlink_to(tmp_path / "elsewhere")
    paths, notes = find_recordings([tmp_path / "card", tmp_path / "card/a.wav"])
    assert paths == [tmp_path / "card/a.wav", tmp_path / "card/self.ogg"]
    assert notes == ["found 2 audio files (1 .wav, 1 .ogg); ignored 2 links to folders, 2 named twice"]


def test_a_file_given_by_name_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    touch(tmp_path, "data", ".hidden.wav")
    paths, _ = find_recordings([tmp_path / "data", tmp_path / ".hidden.wav"])
    assert paths == [tmp_path / ".hidden.wav", tmp_path / "data"]


def test_nothing_found_names_what_is_there_and_a_missing_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "b.txt", "c.csv")
    paths, notes = find_recordings([tmp_path])
    assert paths == []
    assert "the suffixes there are: 2 .txt, 1 .csv" in notes[0]
    with pytest.raises(AssertionError, match="nothing at"):
        find_recordings([tmp_path / "none"])
