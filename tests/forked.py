"""A command as a process of its own, forked from this one: the libraries, whose import takes seconds, are there.

done = run(tmp_path, "main.py", "--preset", "demo")     # as subprocess.run([python, "main.py", ...], cwd=tmp_path)
child = start(tmp_path, "main.py", ...)                 # as subprocess.Popen: child.pid, child.ended()
done = run(tmp_path, "-c", "print(1)")                  # some code in place of a script

With early=True it is forked from a process that was itself forked from this one before the first test: there no test
has begun a thread, which a fork would lose, nor changed anything. What trains needs that: autograd has threads.
"""

import os
import runpy
import select
import shutil
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Self

import decoder_nursery
from leaving import leaving

from runtime import terminal

HERE = Path(__file__).parents[1]
LONGEST = 300.0  # seconds that a command may take


@dataclass(frozen=True)
class Child:
    """A command at work; what it prints lies in two files."""

    words: tuple[str, ...]
    pid: int
    said: Path
    early: decoder_nursery.Process | None = None  # where it is no child of this process

    def is_over(self) -> bool:
        """Whether it has ended; `ended` can still be asked for."""
        if self.early:
            return self.early.poll() is not None
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def ended(self, seconds: float = LONGEST) -> CompletedProcess[str]:
        """How it ended, and what it printed; it is killed where it takes longer."""
        if not self.is_over():
            fate = os.dup(self.early.fate.fileno()) if self.early else os.pidfd_open(self.pid)
            select.select([fate], [], [], seconds)
            os.close(fate)
        if not self.is_over():
            os.killpg(self.pid, signal.SIGKILL)
        code = self.early.wait() if self.early else os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        out, problems = (
            (self.said / name).read_text(encoding="utf-8", errors="backslashreplace") for name in ("out", "err")
        )
        shutil.rmtree(self.said)
        return CompletedProcess(self.words, code, out, problems)


class Nursery(decoder_nursery.Nursery):
    """A process like this one before the first test, from which others are forked; it ends when this one does."""

    def __enter__(self) -> Self:
        self.begin()
        return self

    def begin(self) -> None:
        self.begun = True
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            with leaving():
                self.socket.close()
                decoder_nursery.serve(self.theirs.detach())
        self.theirs.close()

    def __exit__(self, *_: object) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)  # whoever else still holds it, such as a child that was left alive
        self.socket.close()
        os.waitpid(self.pid, 0)


nurseries: list[Nursery] = []  # the one of these tests, from the first test on


def run(place: Path, script: str, *words: str | Path, anew: bool = True, early: bool = False) -> CompletedProcess[str]:
    """A command from its beginning to its end; see `start`."""
    return start(place, script, *words, anew=anew, early=early).ended()


def start(place: Path, script: str, *words: str | Path, anew: bool = True, early: bool = False) -> Child:
    """Begin with a script of ours, in a folder.

    anew   import all modules of ours once more, as a script does; else they are as the tests have changed them
    early  from a process in which no test has run
    """
    child = Child((script, *map(str, words)), 0, Path(tempfile.mkdtemp(prefix="forked-")))
    if early:
        told = repr((child.words, str(child.said), str(place), anew))
        process = nurseries[0].start(f"import forked; forked.become_early(*{told})")
        process.stdin.close()
        process.stdout.close()
        return replace(child, pid=process.pid, early=process)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if not pid:
        become(child, place, anew)
    return replace(child, pid=pid)


def become_early(words: tuple[str, ...], said: str, place: str, anew: bool) -> None:
    """In a child of the nursery, which leads its session already."""
    become(Child(words, 0, Path(said)), Path(place), anew)


def become(child: Child, place: Path, anew: bool) -> None:
    """In the child: be the script, and leave."""
    with leaving():
        if os.getsid(0) != os.getpid():
            os.setsid()
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # a pool of threads does not survive a fork
        os.chdir(place)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(child.said / name, os.O_CREAT | os.O_WRONLY, 0o600), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8", closefd=False) for number in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        terminal.GIVEN.clear()
        if anew:
            forget_our_modules()
        be(*child.words)


def be(script: str, *words: str) -> None:
    """What `python script words` does, or `python -c code words`."""
    if script == "-c":
        sys.argv = ["-c", *words[1:]]
        exec(compile(words[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [str(HERE / script), *words]
        runpy.run_path(sys.argv[0], run_name="__main__")


def forget_our_modules() -> None:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(HERE) and "site-packages" not in file:
            del sys.modules[name]
