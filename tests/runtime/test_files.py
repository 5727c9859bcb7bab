"""Files are whole or not there, and a full disk is known by whatever name it has."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import zipfile
import zlib
from pathlib import Path

import pytest

from runtime import files, terminal
from runtime.files import publish, read_json, scratch, write_json


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


def test_folders_of_killed_processes_are_swept_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    killed = os.fork()
    if not killed:
        with scratch(tmp_path, "store") as place:
            (place / "vectors").write_text("much")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(killed, 0)
    ready, go = os.pipe(), os.pipe()
    living = os.fork()
    if not living:
        with scratch(tmp_path, "head"):
            os.write(ready[1], b".")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    (tmp_path / ".store-of-the-user").mkdir()
    assert len(list(tmp_path.iterdir())) == 3
    files.sweep(tmp_path)
    assert sorted(path.name[:6] for path in tmp_path.iterdir()) == [".head-", ".store"]
    os.write(go[1], b".")
    os.waitpid(living, 0)
    assert [path.name for path in tmp_path.iterdir()] == [".store-of-the-user"]


def test_a_full_disk_is_known_by_number_and_type_in_whatever_language_it_is_told() -> None:
    german = OSError(errno.ENOSPC, "Auf dem Ger\u00e4t ist kein Speicherplatz mehr verf\u00fcgbar")
    with sqlite3.connect(":memory:") as full:
        full.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError) as database:
            full.execute("CREATE TABLE t (a)")
    assert files.is_full(german) and files.is_full(database.value)
    try:
        raise RuntimeError("unexpected pos 704 vs 598") from german
    except RuntimeError as error:
        assert files.is_full(error), "torch.save, which hides what was behind it"
    assert not files.is_full(OSError(errno.EACCES, "No space left on device")), "negative control: words alone"
    assert not files.is_full(sqlite3.OperationalError("database or disk is full"))


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.EIO, "x"), errno.EIO),
        (ValueError("I/O error: No space left on device (os error 28)"), errno.ENOSPC),  # safetensors
        (RuntimeError("can't allocate memory: you tried 4 bytes. Error code 12 (Cannot allocate)"), errno.ENOMEM),
        (OSError("Caught OSError in DataLoader worker process 0.\nOSError: [Errno 28] x"), errno.ENOSPC),
        (OSError("28"), 0),
        (KeyError("Error code 12"), 0),
    ],
)
def test_an_error_has_the_number_that_the_system_gave_it(error: Exception, number: int) -> None:
    assert files.error_number(error) == number


def test_a_traceback_that_cannot_be_written_is_told_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(terminal, "SCRATCH", tmp_path / "file")
    try:
        raise ValueError("who would have thought")
    except ValueError:
        assert "who would have thought" in terminal.written_traceback()


def test_damage_is_refused_in_a_line_and_a_mistake_of_ours_is_not(tmp_path: Path) -> None:
    for error in (zlib.error("Error -3"), zipfile.BadZipFile("no zip"), ValueError("first\nsecond"), MemoryError()):
        said = pytest.raises(AssertionError, match=r"t\.npz is damaged or no table \(.+\); write it again")
        with said as refusal, files.refusing_damage(tmp_path / "t.npz", "table", "write it again"):
            raise error
        assert "\n" not in str(refusal.value)
    with pytest.raises(ZeroDivisionError), files.refusing_damage(tmp_path / "t.npz", "table", "write it again"):
        raise ZeroDivisionError


def test_what_is_no_unicode_is_written_as_an_escape(tmp_path: Path) -> None:
    for word in ("\ud800", "a\udcff.wav", "Grünspecht 🐦"):
        write_json(tmp_path / "run.json", {"run": word})
        assert read_json(tmp_path / "run.json", "mend it") == {"run": word}
    assert "Grünspecht 🐦" in (tmp_path / "run.json").read_text(encoding="utf-8"), "people can read it"
