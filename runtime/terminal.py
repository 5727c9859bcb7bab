"""The person at the terminal: whatever ends a command is one line and an exit code, and next steps can be copied.

    launch(predict, PredictCommand)              # 0 done, 1 nothing could be done, 2 done but some inputs failed

`launch` is the border of every command: a user's mistake is one line, what is ours to mend leaves a traceback in a
file, Ctrl-C is 130. `show` is how a command prints: no name in it can steer the terminal. No torch.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import NoReturn, cast

from config import SCRATCH, Command, parse
from runtime.application import COMMANDS, HERE, is_packed
from runtime.files import FIRST, FULL, error_number, is_full

STEERING = re.compile(  # a terminal: control characters, the other direction of writing, halves of characters
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
NO_MEMORY = ("out of memory", "bad_alloc")  # a RuntimeError of torch on a device, and of ONNX Runtime: words alone
GONE = FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ESTALE}
THRIFT = {  # a flag that only some commands have: how those get by with less memory
    "train": "lower --train.batch_size and raise --train.accumulate by as much, add --train.checkpointing, or take a "
    "smaller --preset",
    "threads": "lower --threads (0 is all cores) and --batch_size",
    "max_windows": "lower --max_windows",
    "max_clips": "lower --max_clips and --per_species, or give --clips_dir",
}
GIVEN: dict[type, object] = {}  # by command: its settings, once they have been read
WORKER_FRAME = re.compile(r'^ +File "(.+)", line \d+, in ', re.MULTILINE)


def answer_early(command: type[Command]) -> None:
    """Answer --help and a mistyped flag, before a command imports what takes seconds to import."""
    with border(command):
        given_settings(command)


def launch(function: Callable[[Command], int], command: type[Command]) -> NoReturn:
    """Run a command from the command line and leave with its exit code; a user's mistake is one line, no traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    with border(command):
        code = function(given_settings(command))
    raise SystemExit(code)


def given_settings(command: type[Command]) -> Command:
    """The settings from the command line, read once in a process."""
    if command not in GIVEN:
        if not FIRST and "train" not in {field.name for field in fields(command)}:
            leave(
                "error: RANK is set, as torchrun does for the processes of a training; this command runs as one: unset "
                "RANK, or start it without torchrun (predictor.py: several machines share an archive with --shard)",
                1,
            )
        if sys.flags.optimize:
            leave("error: python -O switches off the checks that protect your data; run without -O", 1)
        try:
            GIVEN[command] = parse(command)
        except (SystemExit, BrokenPipeError) as leaving:  # --help, whose reader may have left, or a mistyped flag
            show(end="")
            raise SystemExit(getattr(leaving, "code", 0)) from None
    return cast(Command, GIVEN[command])


@contextmanager
def border(command: type[Command]) -> Generator[None]:
    """What goes wrong inside is one line for the person in front; what is ours to mend has a traceback in a file."""
    try:
        yield
    except KeyboardInterrupt as stop:
        leave(f"stopped; {stop.args[0] if stop.args else 'nothing is half written: give the same command again'}", 130)
    except Exception as error:
        message = str(error).strip()
        if isinstance(error, AssertionError) and (said := message_of_worker(message)):
            leave(f"error: {said}", 1)
        if isinstance(error, AssertionError) and message and is_ours(error):
            leave(f"error: {message}", 1)
        if is_short_of_memory(error):
            leave(f"error: out of memory; {remedy_for_memory(command)}", 1)
        if is_full(error):
            leave("error: disk full; make room, then give the same command again (training: with --run.resume)", 1)
        if isinstance(error, OSError) and error.errno in GONE:
            leave(
                f"error: {error.filename or 'a file'}: {error.strerror}; see that it is there and can be read and "
                "written, then give the same command again (training: with --run.resume)",
                1,
            )
        if isinstance(error, FileExistsError | IsADirectoryError):
            leave(f"error: {error.filename2 or error.filename}: {error.strerror}; give another name", 1)
        leave(
            f"error: {type(error).__name__}: {message.splitlines()[0] if message else 'no message'} "
            f"(unexpected; please report it with {written_traceback()})",
            1,
        )


def is_short_of_memory(error: BaseException) -> bool:
    """Whether there was too little memory, of this machine or of a device."""
    numbered = isinstance(error, MemoryError) or error_number(error) == errno.ENOMEM
    return numbered or any(words in str(error) for words in NO_MEMORY)


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised by this project's own code, not by a library that it called."""
    last = error.__traceback__
    while last and last.tb_next:
        last = last.tb_next
    if last is None:
        return False
    code = last.tb_frame.f_code.co_filename  # of a zip application only the module knows where it is
    return is_our_file(str(last.tb_frame.f_globals.get("__file__", code)))


def is_our_file(name: str) -> bool:
    """Whether a file of a traceback is of this project; an environment of libraries may lie in its folder."""
    path = Path(name).resolve()  # a script may be started by a link, or from / as //folder/script.py
    return HERE.resolve() in path.parents and "site-packages" not in path.parts


def message_of_worker(message: str) -> str:
    """What an assertion of ours said in a process that loads data: torch hands it on as a traceback in words."""
    files = WORKER_FRAME.findall(message)
    found = message.startswith("Caught AssertionError in DataLoader worker") and files and is_our_file(files[-1])
    return message.rpartition("\nAssertionError: ")[2].strip() if found else ""


def command_line(script: str, *words: str | Path) -> str:
    """A command that can be copied into the terminal that this one was given in: its Python, its folder or application,
    quoted; what an application does not hold is named alone."""
    python, usual = Path(sys.executable).absolute(), shutil.which("python")
    is_usual = usual is not None and Path(usual).absolute() == python
    here = f"./{python.name}" if python.parent == Path.cwd() else str(shortest(python))
    program = "python" if is_usual else here
    named: list[str | Path] = [shortest(HERE / script)]
    if is_packed():
        inside, first = script.removesuffix(".py") in COMMANDS, f"{COMMANDS[0]}.py"
        named = [*([shortest(HERE)] if inside else []), *([script] if script != first else [])]
    return shlex.join(map(str, [program, *named, *words]))


def shortest(path: Path) -> Path:
    """A path from where the command was given, where that lies above it."""
    return path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path


def remedy_for_memory(command: type[Command]) -> str:
    """What to do where memory was short, with flags that the command has."""
    flags = {field.name for field in fields(command)}
    return next((thrift for flag, thrift in THRIFT.items() if flag in flags), "end other programs, or take more memory")


def written_traceback() -> str:
    """Where the traceback of what is being handled was put; itself where it cannot be put anywhere."""
    text = traceback.format_exc()
    try:
        SCRATCH.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=SCRATCH, prefix="traceback-", suffix=".txt", delete=False) as file:
            file.write(text)
        return file.name
    except OSError:
        return " / ".join(text.splitlines()[-4:])


def leave(line: str, code: int) -> NoReturn:
    """Say why, and go."""
    line = line if FIRST else f"process {os.environ['RANK']}: {line}"
    show(" ".join(escaped(line).splitlines()), error=True)
    raise SystemExit(code)


def show(*words: object, end: str = "\n", error: bool = False) -> None:
    """Print for the person in front: every command prints with this alone.

    No name in it moves the cursor, colours the terminal or turns round what is written. A reader who leaves (`| head`)
    ends nothing: the work goes on, and its tables are written. Of several processes the first alone prints. Where there
    is no stream (a service, `redirect_stdout(None)`) nothing is printed, as `print` does it.
    error   on stderr, whichever process it is
    """
    stream = sys.stderr if error else sys.stdout
    if stream is None or (not FIRST and not error):
        return
    text = escaped(" ".join(map(str, words)))
    encoding = stream.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), end=end, file=stream, flush=True)
    except BrokenPipeError:  # what is still in the stream, and all that follows, leads nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def escaped(text: str) -> str:
    """Text for a terminal: what would steer it as \\x1b, a byte of a name that is no UTF-8 as \\udcff."""
    return STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def interrupt(_signal: int = 0, _frame: FrameType | None = None) -> NoReturn:
    """SIGTERM, as a scheduler sends it, is treated like Ctrl-C; another one changes nothing any more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    show("a name that would clear the screen: \x1b[2J")
    print(command_line("predictor.py", "a recording.wav"))
    assert escaped("\x1b[2J") == "\\x1b[2J" and command_line("predictor.py", "a b.wav").endswith(
        "predictor.py 'a b.wav'"
    )
