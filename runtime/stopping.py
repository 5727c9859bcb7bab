"""Ctrl-C from the first moment on: one line and exit code 130, also while the libraries of a command are being loaded.

    import runtime.stopping  # the first thing that a command imports

Loading torch takes seconds, in which Python would answer Ctrl-C with a traceback through torch. `runs.launch` takes
over once there is something to say about what is kept.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

LINE = b"stopped; nothing was begun yet: give the same command again\n"


def leave_at_once(_signal: int, _frame: FrameType | None) -> None:
    """Say so, and go, past everything that is half imported."""
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, LINE)
    os._exit(130)


def is_command(program: str | None) -> bool:
    """Whether a program is one of the commands: a test or another program that imports one has signals of its own."""
    return program is not None and Path(program).resolve().parent == Path(__file__).resolve().parents[1]


def watch() -> None:
    """From here on Ctrl-C, and a scheduler's SIGTERM, end the process at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave_at_once)


if is_command(getattr(sys.modules["__main__"], "__file__", None)):
    watch()


if __name__ == "__main__":
    child = os.fork()
    if not child:
        watch()
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("exit code", code)
    assert code == 130
