"""Decoding processes for the tests, forked from one that has imported what they need: half a second less for each.

    with Nursery() as nursery:
        process = nursery.start(decoders.DECODE)       # in place of decoders.start_process

It is a process of its own all the same. A keeper stands between the nursery and it, waits for it, and hands on how
it ended.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from leaving import leaving

HERE = Path(__file__).parents[1]
SERVE = "import decoder_nursery; decoder_nursery.prepare(); decoder_nursery.serve({})"
LIKE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # as decoders.start_process has it


class Process:
    """As much of a `subprocess.Popen` as a `Decoder` uses."""

    def __init__(self, stdin: int, stdout: int, fate: int) -> None:
        self.stdin, self.stdout = os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb")
        self.fate = os.fdopen(fate, "rb", 0)  # its number, and once it has ended how
        self.pid = int.from_bytes(self.fate.read(8), "little")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self.fate], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(int.from_bytes(self.fate.read(8), "little"))
            self.fate.close()
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """The process that has imported everything, begun when it is asked first; it ends when this one does."""

    def __init__(self) -> None:
        self.socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process: subprocess.Popen[bytes] | None = None
        self.begun = False

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.theirs.close()
        if self.process:
            self.process.wait()

    def begin(self) -> None:
        self.begun = True
        path = os.pathsep.join(map(str, (HERE, HERE / "tests")))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE.format(self.theirs.fileno())],
            env=os.environ | LIKE | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            pass_fds=[self.theirs.fileno()],
            start_new_session=True,
        )
        self.theirs.close()

    def start(self, code: str) -> Process:
        """A new process that runs some code: in the folder, the environment and the limit on memory of this one."""
        if not self.begun:
            self.begin()
        (stdin, into), (out, stdout), (fate, told) = os.pipe(), os.pipe(), os.pipe()
        memory = resource.getrlimit(resource.RLIMIT_AS)
        question = json.dumps([code, str(Path.cwd()), dict(os.environ), memory]).encode()
        socket.send_fds(self.socket, [question], [stdin, stdout, told])
        for end in (stdin, stdout, told):
            os.close(end)
        return Process(into, out, fate)


def prepare() -> None:
    """Import what a process that decodes needs."""
    for module in ("av", "archive.survey"):
        import_module(module)
    gc.freeze()


def serve(number: int) -> None:
    """The nursery, until nobody can ask any more."""
    with socket.socket(fileno=number) as asked:
        while True:
            question, ends, _, _ = socket.recv_fds(asked, 2**20, 3)
            if not question:
                reap()
                return
            if not os.fork():
                asked.close()
                keep(question, *ends)
            for end in ends:
                os.close(end)
            reap()


def reap() -> None:
    """Keepers that have done their work."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def keep(question: bytes, stdin: int, stdout: int, told: int) -> NoReturn:
    """The keeper of a process."""
    child = os.fork()
    if not child:
        os.close(told)
        become(json.loads(question), stdin, stdout)
    os.close(stdin)
    os.close(stdout)
    os.write(told, child.to_bytes(8, "little"))
    _, status = os.waitpid(child, 0)
    os.write(told, status.to_bytes(8, "little"))
    os._exit(0)


def become(asked: tuple[str, str, dict[str, str], list[int]], stdin: int, stdout: int) -> None:
    """What `python -P -c code` would be."""
    code, place, environment, memory = asked
    with leaving():
        os.setsid()
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.closerange(3, 64)
        os.environ.clear()
        os.environ.update(environment | LIKE)
        os.chdir(place)
        resource.setrlimit(resource.RLIMIT_AS, (memory[0], memory[1]))
        exec(code, {"__name__": "__main__"})
