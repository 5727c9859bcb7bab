"""Several ways to fine-tune, side by side: the same recordings and seeds for each, differences with paired intervals.

    arms = (Arm("plain", ()), Arm("no mixup", ("--augment.mixup", "0")))
    run_arms(Path("runs/mixup"), arms, shared_flags, seeds=(0, 1, 2), minutes=60)
    print_arms(Path("runs/mixup"), arms, seeds=(0, 1, 2), columns=("macro_auc", "cmap", "top1"))

What is done already is not done again; runs go on seed by seed until the minutes are over. Used by bench.ingredients
and bench.context; other benches borrow from it.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.baseline import ANIMALS, MIN_RECORDINGS
from config import AudioSettings, DataSettings
from data_loader import read_labeled, truth_table
from evaluation.held_out import WindowScores, pool_windows
from evaluation.metrics import bootstrap_interval, cmap, weighted_cmap
from training.device import available_cores

Scores = NDArray[np.float32]
Groups = NDArray[np.str_]


@dataclass(frozen=True)
class Arm:
    """One way to fine-tune, as flags of main.py; the first of several is what the others are compared with."""

    name: str
    flags: tuple[str, ...]


def run_arms(
    root: Path, arms: tuple[Arm, ...], shared: tuple[str, ...], seeds: tuple[int, ...], minutes: float
) -> None:
    """Fine-tune in every way, with one seed after the other, until the minutes are over; as many at a time as there are
    cores, with one thread each."""
    assert ANIMALS.is_dir(), f"no recordings at {ANIMALS}; run from the project's folder, with shared/ beside it"
    deadline = time.monotonic() + 60 * minutes

    def run(arm: Arm, seed: int) -> None:
        place = folder_of(root, arm.name, seed)
        if is_finished(place / "finetune") or time.monotonic() > deadline:
            return
        started = time.monotonic()
        start_finetune(place, *shared, *arm.flags, "--run.seed", str(seed)).wait()
        assert is_finished(place / "finetune"), f"{arm.name}, seed {seed}: see {place}/printed.txt"
        print(f"{arm.name}, seed {seed}: {time.monotonic() - started:.0f} s", flush=True)

    with ThreadPoolExecutor(available_cores()) as pool:
        for done in [pool.submit(run, arm, seed) for seed in seeds for arm in arms]:
            done.result()


def start_finetune(place: Path, *words: str) -> subprocess.Popen[bytes]:
    """main.py at work in a process with one thread; its runs, and what it prints (printed.txt), go to `place`."""
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "main.py", *words, "--run.root", str(place), "--run.threads", "1"]
    with (place / "printed.txt").open("w", encoding="utf-8") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


def print_arms(root: Path, arms: tuple[Arm, ...], seeds: tuple[int, ...], columns: tuple[str, ...]) -> None:
    """Means over the seeds that are done, and the difference in cmAP to the first arm with its interval."""
    truth, places, labels, groups = labelled_recordings()
    first = scores_of(root, arms[0].name, seeds, places, labels)
    print(f"\n{'':34}{'seeds':>6}" + "".join(f"{column[:14]:>16}" for column in columns) + "   cmAP minus the first's")
    for arm in arms:
        done = [seed for seed in seeds if is_finished(folder_of(root, arm.name, seed) / "finetune")]
        if not done:
            continue
        told = [read_run(folder_of(root, arm.name, seed))["scores"] for seed in done]
        means = "".join(f"{np.mean([one[column] for one in told]):16.3f}" for column in columns)
        text = f"{arm.name:34}{len(done):6}{means}"
        mine = scores_of(root, arm.name, seeds, places, labels)
        both = sorted(set(mine) & set(first))
        if both and arm is not arms[0]:
            low, middle, high = difference(truth, [mine[seed] for seed in both], [first[seed] for seed in both], groups)
            text += f"   {middle:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(text)
    print(
        "An interval that holds 0 says that these recordings cannot tell; it does not say that there is no difference."
    )


def labelled_recordings() -> tuple[Scores, list[str], tuple[str, ...], Groups]:
    """Truth, paths, labels and groups of all recordings, in the order of the table."""
    with redirect_stdout(None):
        taxonomy, recordings = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))
    places = [str(recording.path.resolve()) for recording in recordings]
    groups = np.array([recording.group for recording in recordings])
    return truth_table(recordings, taxonomy.labels, AudioSettings()), places, taxonomy.labels, groups


def scores_of(
    root: Path, name: str, seeds: tuple[int, ...], places: list[str], labels: tuple[str, ...]
) -> dict[int, Scores]:
    """Seed -> (recordings, species): the mean over each recording's windows, of runs that are done; NaN where not
    held out."""
    found: dict[int, Scores] = {}
    for seed in seeds:
        run = folder_of(root, name, seed) / "finetune"
        if is_finished(run):
            found[seed] = held_out(run / "held_out_scores.csv", places, labels)
    return found


def held_out(path: Path, places: list[str], labels: tuple[str, ...]) -> Scores:
    """(recordings, species) of a held_out_scores.csv; NaN for recordings that are not in it."""
    row_of = {place: row for row, place in enumerate(places)}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file"] in row_of]
    owner = np.array([row_of[row["file"]] for row in rows])
    scores = np.array([[float(row[label]) for label in labels] for row in rows], np.float32)
    times = np.zeros(len(owner))
    pooled = pool_windows(WindowScores(owner, times, times, scores, scores[:, :0]), len(places))
    pooled[np.setdiff1d(np.arange(len(places)), owner)] = np.nan
    return pooled


def difference(truth: Scores, mine: list[Scores], others: list[Scores], groups: Groups) -> tuple[float, float, float]:
    """Low end, middle and high end of cmAP(mine) - cmAP(others), groups of recordings weighted anew for both alike, the
    seeds averaged inside; over the recordings that all have scores for."""
    judged = np.flatnonzero(~np.isnan(np.stack([scores[:, 0] for scores in (*mine, *others)])).any(axis=0))
    truth, mine, others = truth[judged], [scores[judged] for scores in mine], [scores[judged] for scores in others]

    def gain(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        ours, theirs = (np.mean([weighted_cmap(truth, scores, weights) for scores in arm], 0) for arm in (mine, others))
        told: NDArray[np.float64] = ours - theirs
        return told

    low, high = bootstrap_interval(gain, groups[judged])
    middle = np.mean([cmap(truth, scores) for scores in mine]) - np.mean([cmap(truth, scores) for scores in others])
    return low, float(middle), high


def read_run(place: Path) -> dict[str, Any]:
    """run.json of the newest finished run in a folder."""
    facts: dict[str, Any] = json.loads((place / "finetune" / "run.json").read_text(encoding="utf-8"))
    return facts


def folder_of(root: Path, name: str, seed: int) -> Path:
    """Where one arm with one seed is kept."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in name)
    return root / f"{plain}-{seed}"


def is_finished(run: Path) -> bool:
    path = run / "run.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8"))["status"] == "finished"
