"""How many windows a second can training be fed? Whole files decoded, windows found by seeking, the cache.

    make bench-loading          (or: .venv/bin/python -m bench.loading [seconds for each measurement])

Reads    ../shared/animals
Writes   /tmp/wildwhisper/bench-loading/ (a cache of its own), and prints tables: windows per second with 0, 1, 2 and as
         many workers as there are cores, medians over rounds in which the three take turns; the memory of all processes

(a) is the naive way: soundfile.read of the whole file, soxr, a random crop; the same loader, batches and workers.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from archive.recordings import Recording
from archive.survey import examine
from bench.baseline import ANIMALS
from config import SCRATCH, AudioSettings, DataSettings
from data_loader import EpochBatches, RandomWindows, set_epoch, window_loader
from sounds.windows import fill_window

FOLDER = SCRATCH / "bench-loading"
AUDIO = AudioSettings()
BATCH, ROUNDS, LONG_SECONDS = 32, 3, 59.9
WAYS = ("whole file", "seeking", "cache")


class WholeFiles(RandomWindows):
    """The naive way."""

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        epoch, draw, index = key
        sound, rate = soundfile.read(self.recordings[index].path, dtype="float32", always_2d=True)
        samples = soxr.resample(sound.mean(axis=1), rate, self.audio.sample_rate, "HQ")
        length = round(self.audio.window_seconds * self.audio.sample_rate)
        room = max(0, len(samples) - length)
        start = int(np.random.default_rng((self.seed, epoch, draw)).integers(room + 1))
        return fill_window(samples[start : start + length], length), np.zeros((2, len(self.column)), np.float32)


def bench(seconds: float) -> None:
    """Both tables, the memory, and whether forked and spawned workers end."""
    assert ANIMALS.is_dir(), f"no recordings at {ANIMALS}; run from the project's folder, with shared/ beside it"
    clips, scapes = (known(sorted(ANIMALS.glob(f"{folder}/**/*.ogg"))) for folder in ("audio", "soundscapes"))
    long = [row for row in [*clips, *scapes] if row.seconds >= LONG_SECONDS]
    cores = os.cpu_count() or 1
    for title, rows in ((f"{len(clips)} labelled clips", clips), (f"{len(long)} recordings of 60 s and longer", long)):
        mean = sum(row.seconds for row in rows) / len(rows)
        print(f"\n{title}, {mean:.1f} s on average; windows per second, median of {ROUNDS} rounds")
        print(f"{'workers':>8}{'(a) whole':>12}{'(b) seeking':>13}{'(c) cache':>12}{'b / a':>8}{'c / a':>8}")
        for workers in sorted({0, 1, 2, cores}):
            a, b, c = measure(rows, workers, seconds)
            print(f"{workers:8}{a:12.0f}{b:13.0f}{c:12.0f}{b / a:8.1f}{c / a:8.1f}", flush=True)
    print("\nmemory of all processes over one epoch of the clips, (c) with 2 workers, MB at each fifth:")
    print("  " + "  ".join(f"{megabytes:.0f}" for megabytes in memory_over_an_epoch(clips)))
    for method in ("fork", "spawn", "forkserver"):
        started = time.time()
        loader = window_loader(dataset("cache", clips[:256]), epoch_of(256), 2, method)
        count = sum(len(batch.waveforms) for batch in loader)
        print(f"2 workers by {method}: {count} windows, {time.time() - started:.1f} s with their start")


def measure(rows: Sequence[Recording], workers: int, seconds: float) -> list[float]:
    """Windows per second of the three ways, taking turns."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    repeats = math.ceil(20_000 * seconds / len(rows))
    loaders = {way: window_loader(dataset(way, rows), epoch_of(len(rows), repeats), workers) for way in WAYS}
    for number in range(ROUNDS):
        for way, loader in loaders.items():
            set_epoch(loader, number)
            batches = iter(loader)
            for _ in range(2 * max(1, workers)):
                next(batches)  # workers have started, disks are warm, queues are full
            started, count = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                count += len(next(batches).waveforms)
            rates[way].append(count / (time.perf_counter() - started))
            del batches
    return [statistics.median(rates[way]) for way in WAYS]


def dataset(way: str, rows: Sequence[Recording]) -> RandomWindows:
    settings = DataSettings(ANIMALS, cache=FOLDER, cache_gb=10.0 if way == "cache" else 0.0)
    kind = WholeFiles if way == "whole file" else RandomWindows
    with redirect_stdout(StringIO()):
        return kind(rows, ("a", "b"), settings, AUDIO, seed=0)


def epoch_of(count: int, repeats: int = 1) -> EpochBatches:
    return EpochBatches(np.full(count, float(repeats)), BATCH, seed=0)


def known(paths: Sequence[Path]) -> list[Recording]:
    """Recordings with their lengths."""
    examined = examine(paths)
    return [Recording(path, path.name, seconds=examined[path].seconds) for path in paths]


def memory_over_an_epoch(rows: Sequence[Recording]) -> list[float]:
    loader = window_loader(dataset("cache", rows), epoch_of(len(rows), 10), 2)
    steps, marks = len(loader), list[float]()
    for step, _ in enumerate(loader, 1):
        if step % (steps // 5) == 0:
            marks.append(memory_of_all())
    return marks[:5]


def memory_of_all() -> float:
    """MB (10^6 bytes) that this process and its workers hold: of what is shared their proportional share."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            group = (folder / "stat").read_text().rpartition(")")[2].split()[2]
            if int(group) == os.getpgrp():
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except OSError:
            continue
    return total * 1024 / 1e6


if __name__ == "__main__":
    bench(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
