"""The run folder: numbering, what is remembered of a run, one printed line = one JSON line.

with open_run("finetune", config.run.root, config) as run:
    record(run, epoch=1, loss=0.31)                  # printed, and a line of runs/finetune-001/metrics.jsonl
# now runs/finetune points to runs/finetune-001; had it failed, it would be marked so and the link left alone
"""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, cast

from config import TrackerKind
from runtime.files import FIRST, as_json, publish, read_json, sweep, write_json
from runtime.terminal import command_line, shortest, show
from runtime.trackers import end_tracking, require, track
from system import birth, peak_memory

MAY_DIFFER = frozenset(  # between a run and its resumption: nothing of it touches the weights
    {"run.resume", "run.save_minutes", "run.root", "run.tracker", "data.workers", "data.cache", "train.shard"}
)
TRAINERS = {"mae": "ssl_mae.py", "finetune": "main.py"}  # the commands that resume a run
PACKAGES = ("torch", "transformers", "onnxruntime", "numpy", "soundfile", "soxr")


@dataclass(frozen=True)
class Run:
    """A numbered folder that holds everything one command leaves behind."""

    folder: Path
    started: float
    facts: dict[str, object]  # what run.json will hold; a command may add to it
    tracker: TrackerKind = "none"


@contextmanager
def open_run(
    name: str,
    root: Path,
    settings: object,
    folder: Path | None = None,
    resume: Path | None = None,
    kept: str = "give the same command again",
    tracker: TrackerKind = "none",
) -> Generator[Run]:
    """A new folder root/name-NNN; `root/name` points to it once the block has finished.

    settings  a dataclass; stored in run.json with versions, times and the status: running, finished, failed,
              interrupted. Runs that died without a word (their process is gone) are marked interrupted here.
    folder    a folder of the user's own choice instead, without number and link; refused where another command wrote
    resume    the folder of a run that was cut off, to go on in; other settings than its own are refused
    kept      what is to be said of a run that is stopped: what is kept, and how to go on
    tracker   where else what is recorded goes
    """
    require(tracker)
    numbered = folder is None
    if folder is not None:
        refuse_others(folder, name)
    resumed = past_starts(resume, name, settings) if resume is not None else []
    folder = resume.resolve() if resume is not None else folder or numbered_folder(root, name)
    assert not folder.exists() or folder.is_dir(), f"{folder} is a file; give a folder"
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    run = replace(begun_run(name, folder, settings, resumed), tracker=tracker)
    show(f"run {folder}")
    status = "failed"
    try:
        yield run
        status = "finished"
    except KeyboardInterrupt as stop:
        status = "interrupted"
        script = TRAINERS.get(name, Path(sys.argv[0]).name)  # pseudo_label.py trains too
        if any(folder.rglob("states/state-*.pt")):
            kept = f"its state is kept; go on with: {command_line(script, '--run.resume', shortest(folder))}"
        stop.args = stop.args or (f"{shortest(folder)} is marked as interrupted; {kept}",)
        raise
    except SystemExit:
        status = "interrupted"
        raise
    finally:
        end_tracking()
        ended = {"status": status, "seconds": round(time.time() - run.started, 1), "peak_memory_mb": peak_memory_mb()}
        write_json(folder / "run.json", run.facts | ended)
    if numbered:
        point_to(folder, name)


def point_to(folder: Path, name: str) -> None:
    """Let the link `name` beside a run's folder lead to that run."""
    with publish(folder.parent / name) as temporary:
        temporary.symlink_to(folder.name)


def numbered_folder(root: Path, name: str) -> Path:
    """A new folder for a run, once it is certain that a link can point to it."""
    root.mkdir(parents=True, exist_ok=True)
    link = root / name
    assert link.is_symlink() or not link.exists(), f"{link} is in the way of a link to the newest run; move it aside"
    mark_dead_runs(root, name)
    return new_folder(root, name)


def refuse_others(folder: Path, name: str, tables: Sequence[str] = ()) -> None:
    """A folder that holds the run of another command is not written into: both have tables of the same names.

    tables   names that stand for something else where there is no run at all, such as somebody's own recordings.csv
    """
    path = folder / "run.json"
    foreign = [] if path.is_file() else [table for table in tables if (folder / table).exists()]
    assert not foreign, (
        f"{folder / foreign[0]} would be written over, and no run.json says that it is ours; give another folder"
    )
    kind = read_json(path, "delete it, or give another folder").get("kind", name) if path.is_file() else name
    assert kind == name, f"{folder} holds what another command wrote (run.json: {kind!r}); give another folder"


def begun_run(name: str, folder: Path, settings: object, resumed: list[str]) -> Run:
    """A run that begins now, with a run.json that says so; resumed: when it was started before."""
    started = time.time()
    facts: dict[str, object] = {
        "name": folder.name,
        "kind": name,
        "status": "running",
        "command": sys.argv,
        "settings": settings,
        "versions": {"python": platform.python_version()} | loaded_versions(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "born": birth(os.getpid()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
    } | ({"started_before": resumed} if resumed else {})
    write_json(folder / "run.json", facts)
    return Run(folder, started, facts)


def add_facts(run: Run, **facts: object) -> None:
    """What run.json is to say of a run from now on, however it ends."""
    run.facts.update(facts)
    if FIRST:
        write_json(run.folder / "run.json", run.facts)


def past_starts(folder: Path, name: str, settings: object) -> list[str]:
    """When a run that is to be resumed was started before; one of other settings is refused, with what differs.

    A setting that this program did not have yet when the run was begun may be there now, at its default.
    """
    path = folder / "run.json"
    assert path.is_file(), f"there is no run at {folder}; --run.resume takes its folder, as {name}-003 below runs/"
    stored = read_json(path, "start a new run")
    lacking = {"name", "status", "host", "pid", "settings", "started"} - stored.keys()
    assert not lacking and str(stored["settings"]).startswith("{"), f"{path} holds no settings; start a new run"
    assert re.match(rf"{name}-\d", str(stored["name"])), (
        f"{folder} is a run of another command; give one named {name}-..."
    )
    assert stored["status"] != "running" or not is_alive(stored), (
        f"{folder} is still running (process {stored['pid']}); wait for it, or end it"
    )
    assert stored["status"] != "finished", f"{folder} has finished; there is nothing to resume"
    before, now = flat(stored["settings"]), flat(json.loads(json.dumps(settings, default=as_json)))
    came_since = {key for key in now.keys() - before.keys() if now[key] == default_of(settings, key)}
    fixed = {**before, **now}.keys() - MAY_DIFFER - came_since
    differ = [key for key in {**before, **now} if key in fixed and before.get(key) != now.get(key)]
    changes = "; ".join(f"--{key} was {before.get(key)}, is {now.get(key)}" for key in differ)
    assert not differ, f"{folder} was begun with other settings: {changes}; give the same, or start a new run"
    return [*stored.get("started_before", []), stored["started"]]


def default_of(settings: object, flag: str) -> object:
    """What a flag is when it is not given, as JSON has it; None where there is no saying."""
    *sections, name = flag.split(".")
    for section in sections:
        settings = getattr(settings, section, None)
    known = {field.name: field for field in fields(settings)} if is_dataclass(settings) else {}
    if name not in known:
        return None
    field = known[name]
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return None if default is MISSING else json.loads(json.dumps(default, default=as_json))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their flags: {"train": {"epochs": 3}} -> {"train.epochs": 3}."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inner = cast(dict[str, Any], value) if isinstance(value, dict) else {}
        found |= flat(inner, f"{prefix}{name}.") if inner else {prefix + name: value}
    return found


def subfolder(run: Run, name: str) -> Run:
    """A part of a run that has a log and curves of its own."""
    folder = run.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    show(f"part {folder}")
    return replace(run, folder=folder)


def record(run: Run, **values: float | int | str | None) -> None:
    """Print one line, and append the same values as one line of metrics.jsonl, with the seconds since the start."""
    show("  ".join(f"{name} {number_in_words(value)}" for name, value in values.items()))
    line = {"seconds": round(time.time() - run.started, 2), **values}
    if not FIRST:
        return
    with (run.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())  # a state that counts this line must not outlive it
    epoch = values.get("epoch")
    track(run.tracker, run.folder, epoch if isinstance(epoch, int) else 0, values)


def keep_records(folder: Path, count: int) -> None:
    """Forget what was recorded after the state that a run goes on from."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    if len(lines) > count:
        with publish(path) as temporary:
            temporary.write_text("".join(lines[:count]), encoding="utf-8")


def loaded_versions() -> dict[str, str]:
    """Versions of the libraries in use; a machine that only scores has no torch."""
    from importlib.metadata import version  # slow to import, and one recording needs no run

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


def peak_memory_mb(process: int | None = None) -> int:
    """Largest resident memory of this process so far, or of another one by its number, MB of 10^6 bytes."""
    return peak_memory(process) // 10**6


def is_alive(facts: Mapping[str, Any]) -> bool:
    """Whether the process that wrote a run.json is still there, and no other that has got its number since."""
    born = birth(int(facts["pid"])) if str(facts.get("pid", "")).isdecimal() else ""
    same = facts["born"] == born if "born" in facts else facts.get("pid") != os.getpid()
    return facts.get("host") == socket.gethostname() and bool(born) and same


def is_dead(facts: Mapping[str, Any]) -> bool:
    """Whether a run of this machine says that it is running, and by which process, and that is gone."""
    here = facts.get("status") == "running" and facts.get("host") == socket.gethostname()
    return here and isinstance(facts.get("pid"), int) and not is_alive(facts)


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
    """Runs of this host that say `running` though their process is gone were killed: say so, and take away what they
    left half written."""
    for path in sorted(root.glob(f"{name}-*/run.json")):
        if is_dead(read_json(path, "delete it")):
            facts = read_json(path, "delete it")  # once more: it may have finished before it was gone
            if is_dead(facts):
                write_json(path, facts | {"status": "interrupted"})
                show(f"{path.parent} never finished: marked interrupted")
            sweep(path.parent)
    for folder in root.glob(f"{name}-*"):
        if not folder.is_symlink() and not (folder / "run.json").exists():  # killed before it could say what it is
            sweep(folder)
    sweep(root, deep=False)  # half a link


def number_in_words(value: float | int | str | None) -> str:
    """Numbers as people want them in a line."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        with open_run("demo", Path(folder), {"species": 3}) as demo:
            for epoch in range(1, 6):
                record(demo, epoch=epoch, loss=1 / epoch, macro_auc=1 - 0.5 / epoch)
            print("drew", draw_curves(demo, {"loss": ["loss"], "quality": ["macro_auc"]}))
        assert (Path(folder) / "demo").resolve() == demo.folder.resolve()
        assert json.loads((demo.folder / "run.json").read_text())["status"] == "finished"
        assert [line["epoch"] for line in read_records(demo.folder)] == [1, 2, 3, 4, 5]
