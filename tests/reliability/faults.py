"""A fault at the first, the second, ... the last file operation of a save: killed, disk full, disk broken.

    faults = every_fault(save, tmp_path)          # save.prepare(folder), save.write(folder), save.read(folder)
    faults.lost, faults.cases, faults.operations

Counted are open, write (in two halves, so that torn files occur), fsync, rename, unlink, link and mkdir below a folder,
as Python code makes them. What a library writes by itself is not seen: there `in_order` holds the list of operations to
it that what takes a name was synced before, and its folder after.
"""

import builtins
import errno
import io
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest.mock import patch

import pytest

Kind = Literal["kill", "full", "broken"]
KINDS: tuple[Kind, ...] = ("kill", "full", "broken")
TAKING = ("open", "write", "fsync", "mkdir", "symlink", "link")  # what a full disk refuses from then on


class Operation(NamedTuple):
    name: str
    path: str  # below the folder
    to: str = ""  # of a rename


@dataclass(frozen=True)
class Save:
    """Something that writes files, and what reads them."""

    prepare: Callable[[Path], object]  # an older good version
    write: Callable[[Path], object]  # the newer one
    read: Callable[[Path], object]  # "old", "new", or both of several files; raises or tells anything else where lost


@dataclass
class Faults:
    """What became of a save under every fault."""

    operations: list[Operation] = field(default_factory=list[Operation])
    cases: int = 0
    lost: list[str] = field(default_factory=list[str])
    left_over: int = 0  # temporary files after a fault that was no kill


def every_fault(save: Save, root: Path, kinds: Sequence[Kind] = KINDS) -> Faults:
    """Each kind of fault at each operation, in a fresh folder with the older version each time."""
    old = root / "old"
    old.mkdir(parents=True)
    save.prepare(old)
    assert set(flat(save.read(old))) == {"old"}, "the older version cannot be read"
    found = Faults(dry_run(save, root))
    for number in range(1, len(found.operations) + 1):
        for kind in kinds:
            folder = root / f"{kind}-{number}"
            shutil.copytree(old, folder, symlinks=True)
            (killed if kind == "kill" else failed)(save, folder, number, kind)
            found.cases += 1
            if kind != "kill":
                found.left_over += sum(path.name.endswith(".part") for path in folder.rglob("*"))
            try:
                told = set(flat(save.read(folder)))
            except Exception as error:  # what a reader says of a file that is lost is its own affair
                told = {f"{type(error).__name__}: {error}"}
            if not told <= {"old", "new"}:
                where = found.operations[number - 1]
                found.lost.append(f"{kind} at operation {number}, {where.name} {where.path}: {sorted(map(str, told))}")
            shutil.rmtree(folder)
    return found


def dry_run(save: Save, root: Path) -> list[Operation]:
    """The operations of a save that nothing disturbs."""
    folder = root / "dry"
    shutil.copytree(root / "old", folder, symlinks=True)
    with operations(folder) as seen:
        save.write(folder)
    assert set(flat(save.read(folder))) == {"new"}, "the newer version cannot be read"
    shutil.rmtree(folder)
    return seen


def killed(save: Save, folder: Path, number: int, kind: Kind) -> None:
    """The save in a process of its own, which SIGKILL ends at an operation."""
    child = os.fork()
    if not child:
        signal.alarm(60)
        try:
            with operations(folder, number, kind):
                save.write(folder)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"operation {number} never came"


def failed(save: Save, folder: Path, number: int, kind: Kind) -> None:
    """The save, whose n-th operation fails."""
    with operations(folder, number, kind):
        try:
            save.write(folder)
        except (OSError, AssertionError, RuntimeError):
            return


@contextmanager
def operations(folder: Path, at: int = 0, kind: Kind = "broken") -> Generator[list[Operation]]:
    """The operations below a folder while this lasts, and a fault at one of them.

    full     this one and all later ones that take room fail with ENOSPC
    broken   this one fails with EIO
    """
    seen = list[Operation]()
    root = str(folder.resolve())

    def count(name: str, path: str, to: str = "") -> None:
        if not path.startswith(root):
            return
        seen.append(Operation(name, path[len(root) + 1 :], to[len(root) + 1 :]))
        if len(seen) == at and kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if len(seen) == at and kind == "broken":
            raise OSError(errno.EIO, "Input/output error", path)
        if at and len(seen) >= at and kind == "full" and name in TAKING:
            raise OSError(errno.ENOSPC, "No space left on device", path)

    class Torn(io.FileIO):
        """A file whose every write is two."""

        def write(self, content: Any, /) -> int:
            block = memoryview(content).cast("B")
            half = len(block) // 2
            for part in (block[:half], block[half:]):
                if len(part):
                    count("write", str(self.name))
                    assert super().write(part) == len(part)
            return len(block)

    real_open, real = io.open, {name: getattr(os, name) for name in ("replace", "rename", "fsync", "unlink", "remove")}
    made = {name: getattr(os, name) for name in ("symlink", "link", "mkdir")}

    def opened(file: Any, mode: str = "r", buffering: int = -1, *words: Any, **named: Any) -> Any:
        path = "" if isinstance(file, int) else os.path.realpath(str(file))
        if not path.startswith(root) or not set(mode) & set("wax+"):
            return real_open(file, mode, buffering, *words, **named)
        count("open", path)
        raw = Torn(path, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *words, **named)

    def fsync(opened_file: int) -> None:
        count("fsync", str(Path(f"/proc/self/fd/{opened_file}").readlink()))
        real["fsync"](opened_file)

    def moving(name: str) -> Callable[..., None]:
        def move(source: Any, target: Any, **named: Any) -> None:
            count(name, os.path.abspath(source), os.path.abspath(target))  # noqa: PTH100 - of a link itself
            real[name](source, target, **named)

        return move

    def dropping(name: str) -> Callable[..., None]:
        def drop(path: Any, **named: Any) -> None:
            if os.path.lexists(path):
                count("unlink", os.path.abspath(path))  # noqa: PTH100 - of a link itself
            real[name](path, **named)

        return drop

    def making(name: str) -> Callable[..., None]:
        def make(*words: Any, **named: Any) -> None:
            place = words[0] if name == "mkdir" else words[1]
            if not os.path.lexists(place):
                count(name, os.path.abspath(place))  # noqa: PTH100 - of a link itself
            made[name](*words, **named)

        return make

    with (
        patch.object(io, "open", opened),
        patch.object(builtins, "open", opened),
        patch.multiple(os, fsync=fsync, replace=moving("replace"), rename=moving("rename")),
        patch.multiple(os, unlink=dropping("unlink"), remove=dropping("remove")),
        patch.multiple(os, symlink=making("symlink"), link=making("link"), mkdir=making("mkdir")),
    ):
        yield seen


def in_order(seen: Iterable[Operation], links: bool = False) -> None:
    """What takes a name was synced before that; its folder is synced after, and before anything else is let go of.

    links   the names that are taken are those of links
    """
    synced, waiting = set[str](), set[str]()  # files; folders with new names
    for operation in seen:
        folder = str(Path(operation.path).parent)
        if operation.name == "write":
            synced.discard(operation.path)
        if operation.name == "fsync":
            synced.add(operation.path)
            waiting.discard(operation.path or ".")
        if operation.name in ("replace", "rename"):
            if operation.to.endswith(".part"):
                continue
            assert links or operation.path in synced, f"{operation} without a sync before it"
            synced.add(operation.to)
            waiting.add(folder)
        if operation.name == "unlink" and not operation.path.endswith(".part"):
            assert folder not in waiting, f"{operation} before the folder was synced"
    assert not waiting, f"never synced after a rename: {waiting}"


def flat(told: object) -> list[object]:
    return list(told) if isinstance(told, list | set | tuple) else [told]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


@contextmanager
def file_system(place: Path, megabytes: int) -> Generator[Path]:
    """A small disk of its own at `place`; where that is not allowed, the test is skipped."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
