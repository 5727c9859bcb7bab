"""Whole files or none: written beside their place, synced, renamed; what a full disk or a killed process leaves.

with publish(folder / "species.csv") as temporary:   # an error in here leaves the file of before as it was
    temporary.write_text("label\n")
"""

from __future__ import annotations

import errno
import io
import json
import lzma
import os
import re
import shutil
import socket
import sqlite3
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from system import birth, sync

FIRST = os.environ.get("RANK", "0") == "0"  # of several processes that torchrun has started the one that writes
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NUMBERED = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)|Error code (\d+) \(")  # see `error_number`
MEGABYTE = 1e6
HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"  # several may write into one folder
HALF_WRITTEN = re.compile(rf"\..*\.{HOST}-(\d+)\.part")  # files, and folders of `scratch`
NO_ARRAYS = (  # what numpy, pyarrow, zip files and their compression raise where bytes are missing or others
    *(OSError, ValueError, TypeError, LookupError, OverflowError, EOFError, SyntaxError, RuntimeError, MemoryError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


@contextmanager
def publish(path: Path, size: int = 0) -> Generator[Path]:
    """A temporary path beside `path`; renamed to it, synced to disk, when the block ends well: whole or not at all.

    Of several processes of a run the first alone publishes; what the others write is thrown away.

    size    bytes that will be written, where that is known: not begun where there is no room for them
    Errors: a full disk is reported in one line, whatever name the library that wrote has for it.
    """
    if not FIRST:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / path.name
        return
    temporary = path.with_name(f".{path.name}.{HOST}-{os.getpid()}.part")
    room = shutil.disk_usage(path.parent).free if size else 0
    assert size <= room, no_room(path, size, room)
    try:
        yield temporary
        if not temporary.is_symlink():
            with temporary.open("r+b") as file:  # Windows syncs what it may write
                os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        if not is_full(error):
            raise
        written = temporary.stat().st_size if temporary.is_file() else 0
        room = shutil.disk_usage(path.parent).free
        raise AssertionError(no_room(path, max(size, written + 1), room)) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)  # the name too


@contextmanager
def scratch(folder: Path, name: str) -> Generator[Path]:
    """A new folder inside `folder` for what is made on the way; gone when the block ends, or with the next `sweep`."""
    with tempfile.TemporaryDirectory(
        prefix=f".{name}-", suffix=f".{HOST}-{os.getpid()}.part", dir=folder
    ) as temporary_folder:
        yield Path(temporary_folder)


def place_of(path: Path) -> Path:
    """Where a file lies, with the links above it followed: what is called runs/mae is another folder once stage 1 has
    been run again. A file that is a link itself keeps its name."""
    return path.absolute().parent.resolve() / path.name


def sweep(folder: Path, deep: bool = True) -> None:
    """Remove what processes of this machine that were killed left half written, in the folders below too."""
    for below, folders, names in os.walk(folder) if deep else islice(os.walk(folder), 1):
        for name in [*names, *folders]:
            found = HALF_WRITTEN.fullmatch(name)
            if found and (int(found[1]) == os.getpid() or not birth(int(found[1]))):
                path = Path(below) / name
                if name in folders:
                    folders.remove(name)
                if path.is_symlink() or not path.is_dir():
                    with suppress(OSError):  # somebody else's, which is no reason to stop here
                        path.unlink(missing_ok=True)
                else:
                    shutil.rmtree(path, ignore_errors=True)


class Positioned(io.RawIOBase):
    """A raw file that keeps its own position; who inherits it knows its size in bytes and reads into a buffer."""

    size: int
    position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = max(0, origin + offset)
        return self.position

    def tell(self) -> int:
        return self.position


def is_full(error: BaseException) -> bool:
    """Whether a full disk is behind an error, or behind the one that it was raised from."""
    last: BaseException | None = error
    while last is not None:
        if error_number(last) in FULL or getattr(last, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        last = last.__cause__ or last.__context__
    return False


def error_number(error: BaseException) -> int:
    """The errno of an error, 0 where it has none.

    Three libraries have it in their words alone: safetensors "(os error 28)", torch's allocator on the CPU
    "Error code 12 (", and torch's DataLoader "[Errno 28]", which hands on what its workers raise as text.
    """
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = NUMBERED.search(str(error))
    return int(found[found.lastindex or 0]) if found else 0


def no_room(path: Path, need: int, have: int) -> str:
    """One line for a full disk."""
    return (
        f"disk full: {path} needs {need / MEGABYTE:.1f} MB or more, {have / MEGABYTE:.1f} MB are free there; make "
        "room, then give the same command again (training goes on with --run.resume and the folder of the run)"
    )


def write_json(path: Path, content: object) -> None:
    """A JSON file that people can read too; what UTF-8 cannot hold is written as JSON's own escape."""
    with publish(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False, default=as_json) + "\n"
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """A JSON object of a file that anybody may have written."""
    return json_object(path.read_bytes(), str(path), remedy)


def json_object(text: str | bytes, where: str, remedy: str) -> dict[str, Any]:
    """A JSON object out of a text that stands somewhere, which the message names."""
    try:
        content: object = json.loads(text)
    except (ValueError, RecursionError) as error:  # bad JSON, or bytes that are no UTF-8
        raise AssertionError(f"{where} is damaged, no JSON ({error}); {remedy}") from None
    assert isinstance(content, dict), f"{where} holds no JSON object but {str(content)[:40]!r}; {remedy}"
    return cast(dict[str, Any], content)


@contextmanager
def refusing_damage(path: Path, wanted: str, remedy: str, *errors: type[Exception]) -> Generator[None]:
    """What reads arrays of a file that anybody may have written refuses one that is damaged, or another, in a line.

    wanted    what the file should hold: ".npz of plain arrays"
    errors    more of them, that the library that reads has of its own
    """
    damage: tuple[type[Exception], ...] = (*NO_ARRAYS, *errors)
    try:
        yield
    except damage as error:
        why = (str(error).split("\n")[0] or type(error).__name__)[:200]
        raise AssertionError(f"{path} is damaged or no {wanted} ({why}); {remedy}") from None


def as_json(value: object) -> object:
    """Settings as JSON can hold them: sections as objects, paths as text."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "card.json"
        write_json(path, {"species": 3})
        try:
            with publish(path) as half:
                half.write_text("{")
                raise InterruptedError
        except InterruptedError:
            print("stopped half way:", path.read_text().split())
        assert read_json(path, "delete it") == {"species": 3} and [file.name for file in path.parent.iterdir()] == [
            "card.json"
        ]
