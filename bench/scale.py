"""How do 300,000 recordings feel before a single one is heard? Seconds and memory of every step over an index.

    make bench-scale          (or: .venv/bin/python -m bench.scale [sizes])

Writes   /tmp/wildwhisper/bench-scale/ while it runs; prints two tables, seconds of CPU time and peak megabytes, and for
         each step the slope of time over size in logarithms: 1 is linear, 2 quadratic

The recordings are empty files with an invented survey, so that nothing is decoded: a table is read, what is known of
every file looked up, duplicates sought, groups joined, folds drawn, an epoch ordered, a run resumed in its middle. In
the last column all recordings are of one length, as a recorder makes them, which is the worst case for duplicates.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from archive import survey
from archive.duplicates import same_sounds, without_duplicates
from archive.layouts import read_collection
from archive.recordings import Recording, write_recordings
from archive.splits import with_folds, with_groups
from archive.survey import Examination, examine, file_stamp, note_down, open_ledger, with_outcome
from config import SCRATCH, AudioSettings, DataSettings
from data_loader import batches_of, fingerprint, labeled_loader, recordings_of, set_epoch, split
from runtime.runs import peak_memory_mb
from taxonomy import Taxonomy, table_rows

FOLDER = SCRATCH / "bench-scale"
SIZES = (10_000, 30_000, 100_000, 300_000)
SPECIES, AUTHORS, SITES, DAYS = 206, 2_000, 300, 365
BATCH, SEED = 32, 0
STEEP = 1.15  # slope from which on a step is called worse than linear
SHORT = 0.1  # seconds: a step that takes less at the largest size is not judged
Result = TypeVar("Result")
Figures = dict[str, tuple[float, int]]  # step -> seconds of CPU time, peak MB


def bench(sizes: Sequence[int]) -> None:
    """Both tables."""
    figures = {size: in_fresh_process(size) for size in sizes}
    steps = list(next(iter(figures.values())))
    print(f"{'recordings':>12}" + "".join(f"{step:>12}" for step in steps))
    for size in sizes:
        print(f"{size:12,}" + "".join(f"{figures[size][step][0]:10.2f} s" for step in steps))
    for size in sizes:
        print(f"{size:12,}" + "".join(f"{figures[size][step][1]:9,} MB" for step in steps))
    slopes = {step: exponent(sizes, [figures[size][step][0] for size in sizes]) for step in steps}
    judged = [step for step in steps if figures[sizes[-1]][step][0] >= SHORT]
    print(f"{'slope':>12}" + "".join(f"{slopes[step]:12.2f}" if step in judged else f"{'-':>12}" for step in steps))
    worse = [step for step in judged if slopes[step] > STEEP]
    print(f"worse than linear: {', '.join(worse)}" if worse else "all linear")


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Slope of time over size, both in logarithms."""
    times = np.log(np.maximum(seconds, 1e-6))
    return float(np.polyfit(np.log(sizes), times, 1)[0])


def in_fresh_process(size: int) -> Figures:
    """The figures of one size, in a process that has seen no other."""
    done = subprocess.run([sys.executable, "-m", "bench.scale", "one", str(size)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told: Mapping[str, Sequence[float]] = json.loads(done.stdout.splitlines()[-1])
    return {step: (float(seconds), int(memory)) for step, (seconds, memory) in told.items()}


def measure(size: int, folder: Path) -> Figures:
    """Every step over so many recordings, one after the other; `folder` is filled and emptied."""
    figures: Figures = {}

    def timed(step: str, work: Callable[[], Result]) -> Result:
        Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is this step's
        begun = time.process_time()
        result = work()
        figures[step] = (time.process_time() - begun, peak_memory_mb())
        return result

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    survey.LEDGER = folder / "examined.sqlite"
    taxonomy, table = write_archive(folder, size)
    data = DataSettings(table, workers=0, cache_gb=0.0)
    rows = timed("table", lambda: read_collection(data)).recordings
    examined = timed("look up", lambda: examine(sorted({row.path for row in rows})))
    heard = [with_outcome(row, examined[row.path]) for row in rows]
    kept, pairs = timed("duplicates", lambda: without_duplicates(heard, examined))
    grouped = timed("groups", lambda: with_groups(kept, pairs, data.folds))
    folded = timed("folds", lambda: with_folds(grouped, data))
    usable = [row for row in folded if row.sound]
    train, _ = timed("split", lambda: split(usable, data))
    loader = timed("loader", lambda: labeled_loader(train, taxonomy, data, AudioSettings(), BATCH, SEED))

    batches = batches_of(loader)

    def epoch() -> int:
        set_epoch(loader, 3)
        return sum(len(batch) for batch in batches)

    def resume() -> str:
        middle = len(loader) // 2
        set_epoch(loader, 3, middle)
        following = next(iter(batches))
        assert len(following) == BATCH and recordings_of(loader, middle)
        return fingerprint(train)

    timed("epoch", epoch)
    timed("resume", resume)
    paths = list(examined)
    alike = {path: replace(examination, seconds=60.0) for path, examination in examined.items()}
    timed("one length", lambda: same_sounds(paths, alike))
    shutil.rmtree(folder)
    return figures


def write_archive(folder: Path, size: int) -> tuple[Taxonomy, Path]:
    """Empty recordings with a table, a taxonomy, and a survey that nobody made: every hundredth file is a copy."""
    rng = np.random.default_rng(SEED)
    labels = tuple(f"label{number:03}" for number in range(SPECIES))
    kin = ("Animalia", "Chordata", "Aves", "Passeriformes")
    lineages = tuple((*kin, f"Family{n // 9}", f"Genus{n // 3}", f"Genus{n // 3} species{n}") for n in range(SPECIES))
    taxonomy = Taxonomy(labels, tuple(lineage[6] for lineage in lineages), labels, lineages, (7,) * SPECIES)
    lengths = np.round(rng.lognormal(3.3, 0.9, size).clip(1, 3600), 6)
    prints = rng.integers(-127, 128, (size, survey.PRINT_BANDS * survey.PRINT_TIMES), np.int8)
    drawn = rng.zipf(1.3, 4 * size)
    species: list[int] = (drawn[drawn <= SPECIES][:size] - 1).tolist()
    people, places, days = (rng.integers(0, most, size) for most in (AUTHORS, SITES, DAYS))
    moments = (np.datetime64("2025-01-01") + days).astype(str)
    rows: list[Recording] = []
    found: dict[Path, Examination] = {}
    for number in range(size):
        name = f"{number // 1000:03}/XC{number:06}.ogg"
        path = folder / "sound" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        copy = number - 1 if number % 100 == 99 else number
        signed = number % 4 > 0
        rows.append(
            Recording(
                path,
                name,
                (labels[species[number]],),
                source="XC",
                recording_id=f"XC{number}",
                author=f"author {people[number]}" if signed else "",
                site="" if signed else f"site {places[number]}",
                recorded_at=str(moments[number]),
            )
        )
        found[path] = Examination(
            "ok", "", float(lengths[copy]), 32_000, 1, f"{copy:024x}", prints[copy].tobytes().hex(), "00" * 16
        )
    write_recordings(folder / "recordings.csv", rows)
    with (folder / "taxonomy.csv").open("w", encoding="utf-8", newline="") as file:
        known = table_rows(taxonomy)
        table = csv.DictWriter(file, list(known[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(known)
    with closing(open_ledger()) as ledger:
        note_down(ledger, found, {path: file_stamp(path) for path in found})
    return taxonomy, folder / "recordings.csv"


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["one"]:
        print(json.dumps(measure(int(given[1]), FOLDER / given[1])))
    else:
        bench([int(size) for size in given] or SIZES)
