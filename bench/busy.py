"""What a busy machine costs: windows per second of training, stage 1 and scoring alone, beside a busy process, beside a
second training.

    make bench-busy          (or: .venv/bin/python -m bench.busy [--preset demo] [--rounds 3] [--spinning])

Reads    nothing: a small pretend field season; runs/cpu/<preset>/classifier.int8.onnx, which bench.cpu writes if it
         is not there
Writes   /tmp/wildwhisper/bench-busy/, then prints one table: medians over rounds in which works and situations take
         turns, and how many times as long a window takes as alone in the same round

The load is made here: a Python loop without end on one core, or main.py with the same settings. What else runs on the
machine is measured along, so the load average stands beside every figure. On two cores no more than twice is wanted.
"""

from __future__ import annotations

from runtime.openmp import WAITING

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import tyro

from bench.cpu import RUNS, called
from config import SCRATCH, Preset
from demo_data import write_field_season
from serving.speed import measure
from training.device import available_cores

Situation = Literal["alone", "beside a busy process", "beside a second training"]
SITUATIONS: tuple[Situation, ...] = get_args(Situation)
FOLDER = SCRATCH / "bench-busy"
HERE = Path(__file__).resolve().parents[1]
PATIENCE = 600.0  # seconds in which a training that is only a load has to make its first epoch
WANTED = 2.0  # times as long as alone, at most


@dataclass(frozen=True)
class Arguments:
    """What a busy machine costs."""

    preset: Preset = "demo"
    """Of the encoder, with random weights."""
    rounds: int = 3
    """How often everything is measured; the median counts."""
    epochs: int = 4
    """Of each training that is measured; the first does not count."""
    batch_size: int = 8
    """Windows per step of the trainings."""
    spinning: bool = False
    """Measure training also as OpenMP waits by itself: a control, which takes its time."""


def bench(given: Arguments) -> None:
    """The table."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    season = write_field_season(FOLDER / "season", recordings_per_species=8, unlabeled_recordings=8)
    model = RUNS / given.preset / "classifier.int8.onnx"
    if not model.is_file():
        model.parent.mkdir(parents=True, exist_ok=True)
        print(f"writing {model}: {called('--size', given.preset, '--write')}")
    works = ["main.py", "ssl_mae.py", "scoring", *(["main.py, spinning"] if given.spinning else [])]
    rates: dict[str, dict[Situation, list[float]]] = {work: {place: [] for place in SITUATIONS} for work in works}
    print(f"{given.preset}, batch {given.batch_size}, {available_cores()} cores, load average {os.getloadavg()[0]:.1f}")
    for number in range(given.rounds):
        for work in works:
            for place in SITUATIONS:
                with load(place, work, season.root, given):
                    rate = scoring_rate(model) if work == "scoring" else training_rate(work, season.root, given)
                rates[work][place].append(rate)
                print(f"   round {number + 1}: {work} {place}: {rate:.1f} (load {os.getloadavg()[0]:.1f})", flush=True)
    print(f"{'windows per second':22}" + "".join(f"{place:>34}" for place in SITUATIONS))
    slow: list[str] = []
    for work, found in rates.items():
        cells: list[str] = []
        for place in SITUATIONS:
            times = statistics.median(alone / one for alone, one in zip(found["alone"], found[place], strict=True))
            cells.append(f"{statistics.median(found[place]):20.1f} ({times:5.2f} times)")
            if place == "beside a busy process" and times > WANTED and not work.endswith("spinning"):
                slow.append(f"{work} ({times:.2f})")
        print(f"{work:22}" + "".join(f"{cell:>34}" for cell in cells))
    print(f"more than {WANTED:g} times as long beside a busy process: {', '.join(slow) or 'none'}")


@contextmanager
def load(place: Situation, work: str, root: Path, given: Arguments) -> Generator[None]:
    """What runs beside the work while this lasts."""
    if place == "alone":
        yield
        return
    folder = FOLDER / "beside"
    shutil.rmtree(folder, ignore_errors=True)
    words = [sys.executable, "-c", "while True: pass"]
    if place == "beside a second training":
        words = command(work if work.startswith("main.py") else "main.py", root, folder, 10_000, given)
    with (FOLDER / "beside.txt").open("w", encoding="utf-8") as said:
        process = subprocess.Popen(words, cwd=HERE, env=environment(work), stdout=said, stderr=said)
    try:
        started = time.monotonic()
        while place == "beside a second training" and not any(folder.glob("*/metrics.jsonl")):
            assert process.poll() is None and time.monotonic() - started < PATIENCE, f"see {FOLDER / 'beside.txt'}"
            time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def training_rate(work: str, root: Path, given: Arguments) -> float:
    """Windows per second of a short training, the median of its epochs but the first."""
    folder = FOLDER / "measured"
    shutil.rmtree(folder, ignore_errors=True)
    words = command(work, root, folder, given.epochs, given)
    done = subprocess.run(words, cwd=HERE, env=environment(work), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = next(folder.glob("*-001/metrics.jsonl")).read_text(encoding="utf-8").splitlines()
    found = [float(line["windows_per_second"]) for line in map(json.loads, lines) if "windows_per_second" in line]
    return statistics.median(found[1:] or found)


def command(work: str, root: Path, folder: Path, epochs: int, given: Arguments) -> list[str]:
    """A training as a user would start it."""
    flags = {
        "preset": given.preset,
        "data.root": root,
        "data.cache": FOLDER / "cache",
        "data.workers": 0,
        "encoder.weights": "random",
        "train.epochs": epochs,
        "train.updates": 0,  # or the few recordings would be given more epochs
        "train.batch_size": given.batch_size,
        "run.root": folder,
        "run.device": "cpu",
    }
    return [sys.executable, work.partition(",")[0], *(f"--{name}={value}" for name, value in flags.items())]


def environment(work: str) -> dict[str, str]:
    """That of this process, in which OpenMP is told how to wait or, for a control, left as it is by itself."""
    plain = {name: value for name, value in os.environ.items() if name not in WAITING}
    return plain | ({"GOMP_SPINCOUNT": "300000"} if work.endswith("spinning") else {})


def scoring_rate(model: Path) -> float:
    """Windows per second of a served file, a context for each core at a time."""
    return 1000 / measure(model, available_cores()).milliseconds_per_window


if __name__ == "__main__":
    bench(tyro.cli(Arguments))
