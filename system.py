"""What Linux tells and lets a process do, and its portable form: scoring asks the system here and nowhere else.

    with locked(folder / "lock") as is_ours: ...       # False where another process has it
    cores(), memory(), peak_memory()                # of this process, or of its container
    birth(process)                                  # "" where it is gone

Linux needs nothing but Python's own library. Elsewhere psutil knows of processes and memory what /proc says here,
filelock keeps a file where there is no flock; requirements-score.txt brings both there. Only Linux has been tried, with
and without these parts of it (tests/test_system.py): macOS and Windows have not.
source   https://docs.python.org/3/library/os.html, the remarks on availability
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may take, in bytes, or "max"
APART: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # with start_new_session: Ctrl-C is not for a process
PAUSE = 0.002  # seconds between two looks at a pipe of Windows


def scratch_folder() -> Path:
    """Where intermediates go: below /tmp, in a folder of the user's own where another user was there first."""
    user = getattr(os, "getuid", None)
    if user is None:  # what is temporary on Windows is the user's own already
        return Path(tempfile.gettempdir()) / "wildwhisper"
    folder = Path("/tmp/wildwhisper")
    if folder.exists() and folder.stat().st_uid != user():
        folder = Path(f"/tmp/wildwhisper-{user()}")
    assert not folder.exists() or folder.stat().st_uid == user(), f"{folder} belongs to somebody else; remove it"
    return folder


def cores() -> int:
    """CPU cores that this process may use; all of the computer's where a system does not tell."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def cpu_facts() -> dict[str, str]:
    """What /proc/cpuinfo says of the last core, by name; nothing where there is none."""
    info = PROC / "cpuinfo"
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def memory() -> int:
    """Bytes that the computer or the container has."""
    ask = getattr(os, "sysconf", None)
    there = ask("SC_PHYS_PAGES") * ask("SC_PAGE_SIZE") if ask else int(psutil().virtual_memory().total)
    limit = CGROUP.read_text(encoding="ascii").strip() if CGROUP.is_file() else ""
    return min(there, int(limit) if limit.isdecimal() else there)


def peak_memory(process: int | None = None) -> int:
    """Largest resident memory of this process so far, in bytes; getrusage would count that of the process that started
    it.

    process   another one, by its number; 0 where it has ended or the system does not say. macOS says what this one
              has now
    """
    if PROC.is_dir():
        status = PROC / str(process or "self") / "status"
        lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
        peaks = [line for line in lines if line.startswith("VmHWM:")]
        return int(peaks[0].split()[1]) * 1024 if peaks else 0  # none of one that has ended and was not yet missed
    try:
        facts = psutil().Process(process).memory_info()
    except psutil().Error:
        return 0
    return int(getattr(facts, "peak_wset", 0 if process else facts.rss))  # Windows alone knows the peak of another


def limit_memory(kind: str, most: int) -> None:
    """No more than so many bytes for this process, or what its owner may have where that is less: who asks for more
    gets an error. Only Linux has limits that hold.

    kind   RLIMIT_AS for all addresses, RLIMIT_DATA for what the process holds itself
    """
    if sys.platform != "linux" or not PROC.is_dir():
        return
    resource = import_module("resource")
    number = getattr(resource, kind)
    hard = resource.getrlimit(number)[1]
    resource.setrlimit(number, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def birth(process: int) -> str:
    """When a process of this machine was started, in words that no other has; nothing where there is none, or where one
    has ended and nobody has asked how, as in a container whose first process asks nobody."""
    if not PROC.is_dir():
        try:
            known = psutil().Process(process)
            return "" if known.status() == psutil().STATUS_ZOMBIE else f"{known.create_time():.3f}"
        except psutil().Error:
            return ""
    try:
        stat = (PROC / str(process) / "stat").read_text(encoding="utf-8", errors="replace")
        boot = (PROC / "sys" / "kernel" / "random" / "boot_id").read_text(encoding="ascii")
    except OSError:
        return ""
    state, *others = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else boot.strip() + others[18]


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started apart, at once; on Unix all that it has started itself too."""
    kill_group = getattr(os, "killpg", None)
    if kill_group:
        kill_group(process.pid, import_module("signal").SIGKILL)
    process.kill()
    process.wait()


@contextmanager
def locked(path: Path) -> Generator[bool]:
    """A file kept for this process alone while the block lasts, whatever ends it; False where another one has it."""
    try:
        fcntl = import_module("fcntl")
    except ImportError:
        filelock = import_module("filelock")
        lock = filelock.FileLock(path, blocking=False)
        with suppress(filelock.Timeout):
            lock.acquire()
        try:
            yield bool(lock.is_locked)
        finally:
            lock.release()
        return
    with path.open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = True
        except OSError:
            is_ours = False
        yield is_ours


def readable(pipe: int, seconds: float) -> bool:
    """Whether a pipe has something to read, or has ended, within so many seconds."""
    if hasattr(select, "poll"):
        return bool(select.select([pipe], [], [], seconds)[0])
    windows, handle = import_module("_winapi"), import_module("msvcrt").get_osfhandle(pipe)  # select knows no pipes
    ends = time.monotonic() + seconds
    with suppress(OSError):  # it has ended
        while not windows.PeekNamedPipe(handle, 0)[0]:
            if time.monotonic() > ends:
                return False
            time.sleep(PAUSE)
    return True


def sync(folder: Path) -> None:
    """What was renamed and unlinked in a folder is so on disk too; Windows sees to that itself and opens no folders."""
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_RDONLY)
        os.fsync(opened)
        os.close(opened)


def take_room(path: Path) -> None:
    """The bytes that a file has are its own on disk too, where a system can be asked for that: what is mapped from a
    file with holes ends the process by a signal where the disk is full.

    Errors: OSError, the disk is full.
    """
    take = getattr(os, "posix_fallocate", None)
    if take:
        with path.open("r+b") as file:
            take(file.fileno(), 0, path.stat().st_size)


def psutil() -> Any:
    """What /proc says, on any system; requirements-score.txt brings it where there is no /proc."""
    return import_module("psutil")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "lock"
        with locked(lock) as is_ours, locked(lock) as again:
            print(f"{cores()} cores, {memory() // 10**6} MB, {peak_memory() // 10**6} of them used")
            assert is_ours and not again
        with locked(lock) as is_ours:
            assert is_ours
    assert birth(os.getpid()) and not birth(2**22 + 1)
