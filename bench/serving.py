"""Does the archive wait for the network, or the network for the archive? Windows per second: decoding, scoring, both.

    make bench-serving          (or: .venv/bin/python -m bench.serving [size] [threads] [minutes of sound])

Reads    runs/cpu/<size>/classifier.int8.onnx, which bench.cpu writes here if it is not there
Writes   /tmp/wildwhisper/bench-serving/: recordings of a minute each, 32 kHz Ogg Vorbis, and all that scoring
         installs; prints one table, medians over rounds in which the three take turns, and two lines: the size of what
         is installed, and the seconds from the start of predictor.py to its answer about a recording of one window

With a core to spare, or a network that is dearer than decoding, both together are as quick as scoring alone; the bound
where decoding needs the same cores is what the sum of both times allows.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from bench.cpu import RUNS, called
from config import SCRATCH
from serving.analysis import score_entries
from serving.contexts import SoundSettings, context_pieces
from serving.inputs import Entry, find_entries
from serving.scorer import Scorer, cpu_name, open_scorer, stream
from sounds.decoders import Decoder
from training.device import available_cores

HERE = Path(__file__).parents[1]
FOLDER, RATE, ROUNDS = SCRATCH / "bench-serving", 32_000, 3
STARTS, MOST_MEGABYTES = 7, 400


def bench(size: str, threads: int, minutes: int) -> None:
    """The table."""
    model = RUNS / size / "classifier.int8.onnx"
    if not model.is_file():
        model.parent.mkdir(parents=True, exist_ok=True)
        print(f"writing {model}: {called('--size', size, '--write')}")
    scorer, entries = open_scorer(model, threads), recordings(minutes)
    sound, decoder = SoundSettings(), Decoder()
    heard = [samples for _, samples in context_pieces(entries, scorer.audio, sound, decoder) if samples is not None]
    ways: dict[str, Callable[[], int]] = {
        "decoding alone": lambda: sum(
            one is not None for _, one in context_pieces(entries, scorer.audio, sound, decoder)
        ),
        "scoring alone": lambda: sum(answer is not None for _, answer in stream([scorer], enumerate(heard))),
        "both, as predictor.py": lambda: windows_of(scorer, entries, sound, decoder),
    }
    print(f"{size} INT8, {scorer.threads} threads, {len(heard)} windows, {cpu_name()}")
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            count = way()
            assert count == len(heard), f"{name}: {count} of {len(heard)} windows"
            rates[name].append(count / (time.perf_counter() - started))
    decoder.close()
    print(f"{'':24}{'windows/s':>11}{'x real time':>13}{'of scoring alone':>18}{'of the bound':>14}")
    for name, found in rates.items():
        shares = [mine / alone for mine, alone in zip(found, rates["scoring alone"], strict=True)]
        bounds = [
            1 / (1 / s + 1 / (d * threads))
            for s, d in zip(rates["scoring alone"], rates["decoding alone"], strict=True)
        ]
        bound = statistics.median(mine / most for mine, most in zip(found, bounds, strict=True))
        rate = statistics.median(found)
        text = f"{bound:14.2f}" if name.startswith("both") else ""
        print(f"{name:24}{rate:11.1f}{rate * scorer.audio.window_seconds:13.0f}{statistics.median(shares):18.2f}{text}")
    bench_start(model)


def bench_start(model: Path) -> None:
    """What scoring installs in an environment of its own, and how soon it answers from there."""
    place, path = FOLDER / "installed", FOLDER / "one-window.ogg"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(place)]
    subprocess.run([*command, "-r", str(HERE / "requirements-score.txt")], check=True)
    megabytes = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / 1e6
    print(f"installed for scoring: {megabytes:.0f} MB, of at most {MOST_MEGABYTES}")
    write(path, np.random.default_rng(0).normal(0, 0.05, 5 * RATE).astype(np.float32))
    python = str(Path(sys.base_prefix) / "bin" / "python3")  # without what is installed for training
    words = [python, "-s", str(HERE / "predictor.py"), str(path), "--model", str(model)]
    walls: list[float] = []
    works: list[float] = []
    for _ in range(STARTS + 1):
        before, begun = os.times(), time.perf_counter()
        subprocess.run(words, env=os.environ | {"PYTHONPATH": str(place)}, check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - begun)
        after = os.times()
        works.append(after.children_user + after.children_system - before.children_user - before.children_system)
    wall, work = statistics.median(walls[1:]), statistics.median(works[1:])  # the first one reads from the disk
    print(f"first answer: {wall:.2f} s after the start, {work:.2f} s of CPU time, medians of {STARTS}")


def windows_of(scorer: Scorer, entries: list[Entry], sound: SoundSettings, decoder: Decoder) -> int:
    answers = score_entries([scorer], entries, sound, decoder)
    return sum(len(part.starts) for _, _, scored in answers for part in scored)


def recordings(minutes: int) -> list[Entry]:
    """A minute of coloured noise and chirps in each file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for number in range(minutes):
        path = FOLDER / f"{number:03}.ogg"
        if not path.is_file():
            rng = np.random.default_rng(number)
            time_ = np.arange(60 * RATE) / RATE
            noise = np.cumsum(rng.normal(0, 0.01, len(time_))) * 0.02 + rng.normal(0, 0.02, len(time_))
            chirps = 0.1 * np.sin(2 * np.pi * (3000 + 800 * np.sin(3 * time_)) * time_) * (np.sin(5 * time_) > 0.6)
            write(path, np.clip(noise - noise.mean() + chirps, -1, 1).astype(np.float32))
    entries, _ = find_entries([FOLDER])
    return entries[:minutes]


def write(path: Path, samples: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    """In pieces: libsndfile's Vorbis encoder needs stack for every frame it is given at once."""
    with soundfile.SoundFile(path, "w", RATE, 1, "VORBIS", format="OGG") as file:
        for start in range(0, len(samples), RATE):
            file.write(samples[start : start + RATE])


if __name__ == "__main__":
    given = sys.argv[1:]
    bench(
        given[0] if given else "tiny",
        int(given[1]) if len(given) > 1 else available_cores(),
        int(given[2]) if len(given) > 2 else 10,
    )
