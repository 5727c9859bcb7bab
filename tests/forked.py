"""A command as a process of its own, forked from this one: the libraries, whose import takes seconds, are there.

done = run(tmp_path, "main.py", "--preset", "demo")     # as subprocess.run([python, "main.py", ...], cwd=tmp_path)
child = start(tmp_path, "main.py", ...)                 # as subprocess.Popen: child.pid, child.ended()
"""

import os
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import NoReturn

from runtime import terminal

HERE = Path(__file__).parents[1]
LONGEST = 300.0  # seconds that a command may take


@dataclass(frozen=True)
class Child:
    """A command at work; what it prints lies in two files."""

    words: tuple[str, ...]
    pid: int
    said: Path

    def is_over(self) -> bool:
        """Whether it has ended; `ended` can still be asked for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def ended(self) -> CompletedProcess[str]:
        """How it ended, and what it printed."""
        until = time.monotonic() + LONGEST
        while not self.is_over() and time.monotonic() < until:
            time.sleep(0.005)
        if not self.is_over():
            os.killpg(self.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        out, problems = (
            (self.said / name).read_text(encoding="utf-8", errors="backslashreplace") for name in ("out", "err")
        )
        shutil.rmtree(self.said)
        return CompletedProcess(self.words, code, out, problems)


def run(place: Path, script: str, *words: str | Path, anew: bool = True) -> CompletedProcess[str]:
    """A command from its beginning to its end; see `start`."""
    return start(place, script, *words, anew=anew).ended()


def start(place: Path, script: str, *words: str | Path, anew: bool = True) -> Child:
    """Begin with a script of ours, in a folder.

    anew   import all modules of ours once more, as a script does; else they are as the tests have changed them
    """
    child = Child((script, *map(str, words)), 0, Path(tempfile.mkdtemp(prefix="forked-")))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if not pid:
        become(child, place, anew)
    return replace(child, pid=pid)


def become(child: Child, place: Path, anew: bool) -> NoReturn:
    """In the child: be the script, and leave without taking the libraries apart."""
    code = 70
    try:
        os.setsid()
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # a pool of threads does not survive a fork
        os.chdir(place)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(child.said / name, os.O_CREAT | os.O_WRONLY, 0o600), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8", closefd=False) for number in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        script = HERE / child.words[0]
        sys.argv = [str(script), *child.words[1:]]
        terminal.GIVEN.clear()
        if anew:
            forget_our_modules()
        runpy.run_path(str(script), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def forget_our_modules() -> None:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(HERE) and "site-packages" not in file:
            del sys.modules[name]
