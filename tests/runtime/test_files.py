"""Files are whole or not there, and a full disk is known by whatever name it has."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from runtime import files, terminal
from runtime.files import birth, publish


def test_a_file_is_published_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), publish(path) as temporary:
        temporary.write_text("half of the n")
        raise OSError("disk full")
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]
    with publish(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]


def test_a_full_disk_is_known_by_the_words_of_a_database_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.is_full(sqlite3.OperationalError("database or disk is full"))
    assert not files.is_full(sqlite3.OperationalError("attempt to write a readonly database"))
    (tmp_path / "file").touch()
    monkeypatch.setattr(terminal, "SCRATCH", tmp_path / "file")
    try:
        raise ValueError("who would have thought")
    except ValueError:
        assert "who would have thought" in terminal.written_traceback()


def test_a_process_is_known_by_more_than_its_number() -> None:
    assert birth(os.getpid()) == birth(os.getpid()) != birth(1) and not birth(2**22 + 1)
