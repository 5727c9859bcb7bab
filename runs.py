"""The run folder: numbering, what is remembered of a run, whole files or none, one printed line = one JSON line.

    with open_run("finetune", config.run.root, config) as run:
        record(run, epoch=1, loss=0.31)                  # printed, and a line of runs/finetune-001/metrics.jsonl
    # now runs/finetune points to runs/finetune-001; had it failed, it would be marked so and the link left alone

Also the border of every command: `launch` turns what ends a command into one line and an exit code (0 done, 1 nothing
could be done, 2 done but some inputs failed, 130 stopped). No torch.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import resource
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO, cast

from config import SCRATCH, Command, parse

NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)
STEERING = re.compile(  # a terminal: control characters, the other direction of writing, halves of characters
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
MAY_DIFFER = frozenset(  # between a run and its resumption: nothing of it touches the weights
    {"run.resume", "run.save_minutes", "run.root", "data.workers", "data.cache", "train.shard"}
)
FIRST = os.environ.get("RANK", "0") == "0"  # of several processes that torchrun has started the one that writes
NO_SPACE = ("No space left", "database or disk is full")
NO_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory", "bad_alloc")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
GONE = FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ESTALE}
MEGABYTE = 1e6
HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"  # several may write into one folder
HALF_WRITTEN = re.compile(rf"\..*\.{HOST}-(\d+)\.part")
THRIFT = {  # a flag that only some commands have: how those get by with less memory
    "train": "lower --train.batch_size and raise --train.accumulate by as much, add --train.checkpointing, or take a "
    "smaller --preset",
    "threads": "lower --threads (0 is all cores) and --batch_size",
    "max_windows": "lower --max_windows",
    "max_clips": "lower --max_clips and --per_species, or give --clips_dir",
}
HERE = Path(__file__).absolute().parent
GIVEN: dict[type, object] = {}  # by command: its settings, once they have been read
WORKER_FRAME = re.compile(r'^ +File "(.+)", line \d+, in ', re.MULTILINE)
PACKAGES = ("torch", "transformers", "onnxruntime", "numpy", "soundfile", "soxr")


@dataclass(frozen=True)
class Run:
    """A numbered folder that holds everything one command leaves behind."""

    folder: Path
    started: float
    facts: dict[str, object]  # what run.json will hold; a command may add to it


@contextmanager
def open_run(
    name: str,
    root: Path,
    settings: object,
    folder: Path | None = None,
    resume: Path | None = None,
    kept: str = "give the same command again",
) -> Generator[Run]:
    """A new folder root/name-NNN; `root/name` points to it once the block has finished.

    settings  a dataclass; stored in run.json with versions, times and the status: running, finished, failed,
              interrupted. Runs that died without a word (their process is gone) are marked interrupted here.
    folder    a place of the user's own choice instead, without number and link
    resume    the folder of a run that was cut off, to go on in; other settings than its own are refused
    kept      what is to be said of a run that is stopped: what is kept, and how to go on
    """
    numbered, link = folder is None, root / name
    resumed: list[str] = []
    if resume is not None:
        folder, resumed = resume.resolve(), past_starts(resume, name, settings)
    if folder is None:
        root.mkdir(parents=True, exist_ok=True)
        assert link.is_symlink() or not link.exists(), (
            f"{link} is in the way of a link to the newest run; move it aside"
        )
        mark_dead_runs(root, name)
        folder = new_folder(root, name)
    assert not folder.exists() or folder.is_dir(), f"{folder} is a file; give a folder"
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    started = time.time()
    facts: dict[str, object] = {
        "name": folder.name,
        "status": "running",
        "command": sys.argv,
        "settings": settings,
        "versions": {"python": platform.python_version()} | loaded_versions(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "born": birth(os.getpid()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
    }
    if resumed:
        facts["started_before"] = resumed
    run = Run(folder, started, facts)
    write_json(folder / "run.json", facts)
    print(f"run {folder}")
    status = "failed"
    try:
        yield run
        status = "finished"
    except KeyboardInterrupt as stop:
        status = "interrupted"
        script = Path(sys.argv[0]).name
        if any(folder.rglob("states/state-*.pt")):
            kept = f"its state is kept; go on with: {command_line(script, '--run.resume', shortest(folder))}"
        stop.args = stop.args or (f"{shortest(folder)} is marked as interrupted; {kept}",)
        raise
    except SystemExit:
        status = "interrupted"
        raise
    finally:
        ended = {"status": status, "seconds": round(time.time() - started, 1), "peak_memory_mb": peak_memory_mb()}
        write_json(folder / "run.json", facts | ended)
    if numbered:
        with publish(link) as temporary:
            temporary.symlink_to(folder.name)


def past_starts(folder: Path, name: str, settings: object) -> list[str]:
    """When a run that is to be resumed was started before; one of other settings is refused, with what differs."""
    path = folder / "run.json"
    assert path.is_file(), f"there is no run at {folder}; --run.resume takes its folder, as {name}-003 below runs/"
    told = read_json(path, "start a new run")
    lacking = {"name", "status", "host", "pid", "settings", "started"} - told.keys()
    assert not lacking and str(told["settings"]).startswith("{"), f"{path} holds no settings; start a new run"
    assert re.match(rf"{name}-\d", str(told["name"])), (
        f"{folder} is a run of another command; give one named {name}-..."
    )
    assert told["status"] != "running" or not is_alive(told), (
        f"{folder} is still running (process {told['pid']}); wait for it, or end it"
    )
    assert told["status"] != "finished", f"{folder} has finished; there is nothing to resume"
    before, now = flat(told["settings"]), flat(json.loads(json.dumps(settings, default=as_json)))
    differ = [key for key in {**before, **now} if key not in MAY_DIFFER and before.get(key) != now.get(key)]
    changes = "; ".join(f"--{key} was {before.get(key)}, is {now.get(key)}" for key in differ)
    assert not differ, f"{folder} was begun with other settings: {changes}; give the same, or start a new run"
    return [*told.get("started_before", []), told["started"]]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their flags: {"train": {"epochs": 3}} -> {"train.epochs": 3}."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= (
            flat(cast(dict[str, Any], value), f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return found


def subfolder(run: Run, name: str) -> Run:
    """A part of a run that has a log and curves of its own."""
    folder = run.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    print(f"part {folder}")
    return Run(folder, run.started, run.facts)


def record(run: Run, **values: float | int | str | None) -> None:
    """Print one line, and append the same values as one line of metrics.jsonl, with the seconds since the start."""
    print("  ".join(f"{name} {readable(value)}" for name, value in values.items()), flush=True)
    line = {"seconds": round(time.time() - run.started, 2), **values}
    if not FIRST:
        return
    with (run.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())  # a state that counts this line must not outlive it


def keep_records(folder: Path, count: int) -> None:
    """Forget what was recorded after the state that a run goes on from."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    if len(lines) > count:
        with publish(path) as temporary:
            temporary.write_text("".join(lines[:count]), encoding="utf-8")


def loaded_versions() -> dict[str, str]:
    """Versions of the libraries in use; a machine that only scores has no torch."""
    return {package: version(package) for package in PACKAGES if package in sys.modules}


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def draw_curves(run: Run, panels: dict[str, list[str]]) -> Path:
    """curves.png: one panel per title, the named values of metrics.jsonl over the epochs."""
    from matplotlib.figure import Figure  # slow to import, and the scoring path never draws

    records = read_records(run.folder)
    figure = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
    for index, (title, names) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), index + 1)
        for name in names:
            points = [(line["epoch"], line[name]) for line in records if line.get(name) is not None]
            axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=name)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend()
    path = run.folder / "curves.png"
    with publish(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path


@contextmanager
def publish(path: Path, size: int = 0) -> Generator[Path]:
    """A temporary path beside `path`; renamed to it, synced to disk, when the block ends well: whole or not at all.

    Of several processes of a run the first alone publishes; what the others write is thrown away.

    size    bytes that will be written, where that is known: not begun where there is no room for them
    Errors: a full disk is told in one line, whatever name the library that wrote has for it.
    """
    if not FIRST:
        with tempfile.TemporaryDirectory() as place:
            yield Path(place) / path.name
        return
    temporary = path.with_name(f".{path.name}.{HOST}-{os.getpid()}.part")
    room = shutil.disk_usage(path.parent).free if size else 0
    assert size <= room, no_room(path, size, room)
    try:
        yield temporary
        if not temporary.is_symlink():
            with temporary.open("rb") as file:
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
    sync(path.parent)


def sweep(folder: Path) -> None:
    """Remove what processes of this machine that were killed left half written."""
    for place, _, names in os.walk(folder):
        for name in names:
            found = HALF_WRITTEN.fullmatch(name)
            if found and (int(found[1]) == os.getpid() or not birth(int(found[1]))):
                (Path(place) / name).unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """What was renamed and unlinked in a folder is so on disk too."""
    opened = os.open(folder, os.O_RDONLY)
    os.fsync(opened)
    os.close(opened)


def is_full(error: BaseException) -> bool:
    """Whether a full disk is behind an error: libraries written in C and Rust have words of their own for it."""
    last: BaseException | None = error
    while last is not None:
        if (isinstance(last, OSError) and last.errno in FULL) or any(words in str(last) for words in NO_SPACE):
            return True
        last = last.__cause__ or last.__context__
    return False


def no_room(path: Path, need: int, have: int) -> str:
    """One line for a full disk."""
    return (
        f"disk full: {path} needs {need / MEGABYTE:.1f} MB or more, {have / MEGABYTE:.1f} MB are free there; make "
        "room, then give the same command again (training goes on with --run.resume and the folder of the run)"
    )


def write_json(path: Path, content: object) -> None:
    """A JSON file that people can read too."""
    with publish(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, ensure_ascii=False, default=as_json) + "\n", encoding="utf-8"
        )


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """A JSON object of a file that anybody may have written."""
    try:
        content: object = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # bad JSON, or bytes that are no UTF-8
        raise AssertionError(f"{path} is damaged ({error}); {remedy}") from None
    assert isinstance(content, dict), f"{path} holds no JSON object but {str(content)[:40]!r}; {remedy}"
    return cast(dict[str, Any], content)


def peak_memory_mb(process: int | None = None) -> int:
    """Largest resident memory of this process so far, MB of 10^6 bytes; getrusage would count that of the process that
    started it.

    process   another one, by its number; 0 where it has ended or the system does not tell
    """
    status = Path("/proc") / str(process or "self") / "status"
    if status.is_file():
        peaks = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(peaks[0].split()[1]) * 1024 // 10**6 if peaks else 0  # of one that has ended and was not yet missed
    return 0 if process else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6


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
    """The settings from the command line, read once in a process, whose output is made plain before."""
    if command not in GIVEN:
        if not FIRST and "train" not in {field.name for field in fields(command)}:
            leave(
                "error: RANK is set, as torchrun does for the processes of a training; this command runs as one: unset "
                "RANK, or start it without torchrun (predictor.py: several machines share an archive with --shard)",
                1,
            )
        if sys.flags.optimize:
            leave("error: python -O switches off the checks that protect your data; run without -O", 1)
        plain_output()
        GIVEN[command] = parse(command)
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
        if isinstance(error, MemoryError) or any(words in message for words in NO_MEMORY):
            leave(f"error: out of memory; {remedy_for_memory(command)}", 1)
        if is_full(error):
            leave("error: disk full; make room, then give the same command again (training: with --run.resume)", 1)
        if isinstance(error, OSError) and error.errno in GONE:
            leave(
                f"error: {error.filename or 'a file'}: {error.strerror}; see that it is there and can be read and "
                "written, then give the same command again (training: with --run.resume)",
                1,
            )
        leave(
            f"error: {type(error).__name__}: {message.splitlines()[0] if message else 'no message'} "
            f"(unexpected; please report it with {written_traceback()})",
            1,
        )


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised by this project's own code, not by a library that it called."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and is_our_file(frames[-1].filename)


def is_our_file(name: str) -> bool:
    """Whether a file of a traceback is of this project; an environment of libraries may lie in its folder."""
    path = Path(name).absolute()
    return HERE in path.parents and "site-packages" not in path.parts


def message_of_worker(message: str) -> str:
    """What an assertion of ours said in a process that loads data: torch hands it on as a traceback in words."""
    files = WORKER_FRAME.findall(message)
    found = message.startswith("Caught AssertionError in DataLoader worker") and files and is_our_file(files[-1])
    return message.rpartition("\nAssertionError: ")[2].strip() if found else ""


def command_line(script: str, *words: str | Path) -> str:
    """A command that can be copied into the terminal that this one was given in: its Python, its folder, quoted."""
    python, usual = Path(sys.executable).absolute(), shutil.which("python")
    is_usual = usual is not None and Path(usual).absolute() == python
    here = f"./{python.name}" if python.parent == Path.cwd() else str(shortest(python))
    program = "python" if is_usual else here
    return shlex.join(map(str, [program, shortest(Path(__file__).absolute().parent / script), *words]))


def shortest(path: Path) -> Path:
    """A path from where the command was given, where that lies above it."""
    return path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path


def remedy_for_memory(command: type[Command]) -> str:
    """What to do where memory was short, with flags that the command has."""
    flags = {field.name for field in fields(command)}
    return next((thrift for flag, thrift in THRIFT.items() if flag in flags), "end other programs, or take more memory")


def written_traceback() -> str:
    """Where the traceback of what is being handled was put; itself where it cannot be put anywhere."""
    told = traceback.format_exc()
    try:
        SCRATCH.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=SCRATCH, prefix="traceback-", suffix=".txt", delete=False) as file:
            file.write(told)
        return file.name
    except OSError:
        return " / ".join(told.splitlines()[-4:])


def leave(line: str, code: int) -> NoReturn:
    """Say why, and go."""
    line = line if FIRST else f"process {os.environ['RANK']}: {line}"
    print(" ".join(shown(line).splitlines()), file=sys.stderr, flush=True)
    raise SystemExit(code)


def plain_output() -> None:
    """From here on no name that is printed can move the cursor, colour the terminal or turn round what is written, and
    a reader who leaves (`| head`) ends nothing: the work goes on, and its tables are written."""
    write = sys.stdout.write

    def plainly(text: str) -> int | None:
        return unless_left(sys.stdout, write, shown(text))

    vars(sys.stdout)["write"] = plainly
    vars(sys.stderr)["write"] = partial(unless_left, sys.stderr, sys.stderr.write)
    for stream in (sys.stdout, sys.stderr):
        vars(stream)["flush"] = partial(unless_left, stream, stream.flush)


def unless_left(stream: TextIO, act: Callable[..., int | None], *words: str) -> int | None:
    """Write to a stream, or flush it; where nobody reads it any more, it leads nowhere from here on."""
    try:
        return act(*words)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return act(*words)


def shown(text: str) -> str:
    """Text for a terminal: what would steer it as \\x1b, a byte of a name that is no UTF-8 as \\udcff."""
    return STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def interrupt(_signal: int = 0, _frame: FrameType | None = None) -> NoReturn:
    """SIGTERM, as a scheduler sends it, is treated like Ctrl-C; another one changes nothing any more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def is_alive(facts: Mapping[str, Any]) -> bool:
    """Whether the process that wrote a run.json is still there, and no other that has got its number since."""
    born = birth(int(facts["pid"])) if str(facts.get("pid", "")).isdecimal() else ""
    same = facts["born"] == born if "born" in facts else facts.get("pid") != os.getpid()
    return facts.get("host") == socket.gethostname() and bool(born) and same


def birth(process: int) -> str:
    """When a process of this machine was started, in words that no other has; nothing where there is none."""
    try:
        told = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + told.rpartition(")")[2].split()[19]
    except OSError:
        return ""


def new_folder(root: Path, name: str) -> Path:
    """The next free number, taken at once, so that two runs that start together get two folders."""
    number = max((number_of(folder, name) for folder in root.glob(f"{name}-*")), default=0)
    while True:
        number += 1
        folder = root / f"{name}-{number:03d}"
        try:
            folder.mkdir()
        except FileExistsError:  # another run was quicker
            continue
        return folder


def number_of(folder: Path, name: str) -> int:
    """12 for finetune-012, 0 for anything else."""
    digits = folder.name.removeprefix(f"{name}-")
    return int(digits) if digits.isdecimal() else 0


def mark_dead_runs(root: Path, name: str) -> None:
    """Runs of this host that say `running` though their process is gone were killed: say so."""
    for path in sorted(root.glob(f"{name}-*/run.json")):
        facts = read_json(path, "delete it")
        same_host = facts.get("host") == socket.gethostname()
        if facts.get("status") == "running" and same_host and not is_alive(facts):
            write_json(path, facts | {"status": "interrupted"})
            print(f"{path.parent} never finished: marked interrupted")


def no_formula(cell: str) -> str:
    """A csv cell that no spreadsheet takes for a formula: before one stands an apostrophe; numbers stay numbers."""
    risky = cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) and not NUMBER.fullmatch(cell)
    return f"'{cell}" if risky else cell


def as_json(value: object) -> object:
    """Settings as JSON can hold them: sections as objects, paths as text."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def readable(value: float | int | str | None) -> str:
    """Numbers as people want them in a line."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        with open_run("demo", Path(place), {"species": 3}) as demo:
            for epoch in range(1, 6):
                record(demo, epoch=epoch, loss=1 / epoch, macro_auc=1 - 0.5 / epoch)
            print("drew", draw_curves(demo, {"loss": ["loss"], "quality": ["macro_auc"]}))
        assert (Path(place) / "demo").resolve() == demo.folder.resolve()
        assert json.loads((demo.folder / "run.json").read_text())["status"] == "finished"
        assert [line["epoch"] for line in read_records(demo.folder)] == [1, 2, 3, 4, 5]
