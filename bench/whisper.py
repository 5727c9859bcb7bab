"""What real Whisper is worth: one table, out of fold, the same recordings and groups for every row.

    make bench-whisper          (or: .venv/bin/python -m bench.whisper [letters] [seeds])

Reads    ../shared/animals: labels with at least 8 recordings, folds 0 to 3; ../shared/whisper-base; runs/birdnet, which
         `make bench-birdnet` makes
Writes   runs/whisper/, where what is done already is not done again, and prints the table: 95 % intervals over groups
         of recordings, differences paired

`python -m bench.whisper cd 0 1` trains rows c and d alone, with two seeds, and prints what is there. As many folds at a
time as there are cores, with one thread each. Every classifier has half of ../shared/animals/noise as --data.no_call;
false alarms are counted on the other half. Nothing is chosen on the held-out recordings; the settings of row d were
looked at on fold 0 alone.
"""

from __future__ import annotations

import sys
import time
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.arms import held_out, is_finished, labelled_recordings, read_run, start_finetune
from bench.baseline import ANIMALS, HEARD, MIN_RECORDINGS, REST, baseline, deal_noise, require
from bench.folds import FOLDS, MEASURES, gain, gain_of_folds
from config import DataSettings
from data_loader import read_labeled
from evaluation.held_out import pool_windows
from evaluation.metrics import bootstrap_interval, cmap
from training.device import available_cores

RUNS, WEIGHTS = Path("runs/whisper"), Path("../shared/whisper-base")
BIRDNET = Path("runs/birdnet/scores.npz")
RECOMMENDED_DEPTH = "3"  # by probe.py on these recordings
LABELS = ("--data.root", str(ANIMALS), "--data.min_recordings", str(MIN_RECORDINGS), "--loss.ancestors", "flat")
NO_CALL = ("--data.no_call", str(HEARD))
SHARED = (*LABELS, *NO_CALL, "--data.noise", str(REST))
BASE = ("--preset", "base", "--encoder.weights", str(WEIGHTS))
SCRATCH_FLAGS = (
    *("--preset", "demo", "--encoder.weights", "random", "--train.epochs", "60", "--train.batch_size", "16"),
    *("--train.ema", "0.99", "--augment.mixup", "0.5", "--augment.mask", "0.5", "--train.validate_every", "100"),
)
Table = NDArray[np.float32]


class Row(NamedTuple):
    """One line of the table: a letter, what it is, and the flags of main.py, where it is a classifier of ours."""

    letter: str
    name: str
    flags: tuple[str, ...] | None


ROWS = (
    Row("a", "logistic regression, log-mel statistics", None),
    Row("b", "our classifier from random weights (demo size)", SCRATCH_FLAGS),
    Row("c", "frozen Whisper base, head alone (--train.frozen)", (*BASE, "--train.frozen")),
    Row("d", "fine-tuned with the defaults", BASE),
    Row("e", f"d at the depth of probe.py ({RECOMMENDED_DEPTH})", (*BASE, "--encoder.depth", RECOMMENDED_DEPTH)),
    Row("f", "d from 32 kHz", (*BASE, "--audio.sample_rate", "32000")),
    Row("g", "BirdNET 2.4, logistic regression", None),
)


def bench(letters: str, seeds: tuple[int, ...]) -> None:
    """Train what is not there yet, then compare."""
    require(ANIMALS, WEIGHTS)
    deal_noise()
    for row in ROWS:
        if row.letter in letters and row.flags is not None:
            for seed in seeds:
                train(row, seed)
    print_table(seeds)


def train(row: Row, seed: int) -> None:
    """All folds of one row, side by side."""
    flags, started = row.flags, time.time()
    assert flags is not None, f"{row.name} is no classifier of ours"
    waiting = [part for part in parts() if not is_finished(folder(row, seed, part) / "finetune")]
    running = [
        start_finetune(folder(row, seed, part), *flags, *SHARED, "--run.seed", str(seed), "--train.folds", *words(part))
        for part in waiting
    ]
    codes = [one.wait() for one in running]
    assert not any(codes), f"main.py left with {codes}; what it printed is in {RUNS}/*/printed.txt"
    if waiting:
        minutes = (time.time() - started) / 60
        (RUNS / f"{row.letter}-{seed}.minutes").write_text(f"{minutes:.1f}", encoding="utf-8")
        print(f"{row.letter}, seed {seed}: {minutes:.1f} minutes", flush=True)


def print_table(seeds: tuple[int, ...]) -> None:
    """Every row that is there: figures with intervals, and differences to d."""
    truth, places, labels, groups = labelled_recordings()
    with redirect_stdout(None):
        rows = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))[1]
    within = [np.array([row.fold == fold for row in rows]) for fold in FOLDS]
    found = {row.letter: scores_of(row, seeds, places, labels, within) for row in ROWS}
    print(f"\n{len(truth)} recordings of {len(labels)} species, out of fold over folds {FOLDS}")
    print(
        "| | " + " | ".join(name for name, *_ in MEASURES) + " | cmAP, mean of folds | false alarms an hour | minutes |"
    )
    print("|---|" + "---|" * (len(MEASURES) + 3))
    for row in ROWS:
        for number, scores in enumerate(found[row.letter]):
            name = f"({row.letter}) {row.name}" + (f", seed {seeds[number]}" if len(found[row.letter]) > 1 else "")
            cells = list[str]()
            for _, statistic, weighted in MEASURES:
                low, high = bootstrap_interval(partial(weighted, truth, scores), groups)
                cells.append(f"{statistic(truth, scores):.3f} [{low:.3f}, {high:.3f}]")
            cells.append(f"{np.mean([cmap(truth[mine], scores[mine]) for mine in within]):.3f}")
            print(f"| {name} | " + " | ".join([*cells, alarms(row, seeds[number]), minutes(row, seeds[number])]) + " |")
    if not found["d"]:
        return
    print(f"\ndifferences to (d), paired{' (mean of the scores of all seeds)' if len(seeds) > 1 else ''}")
    ours = np.mean(found["d"], axis=0)
    for row in ROWS:
        if row.letter != "d" and found[row.letter]:
            theirs = np.mean(found[row.letter], axis=0)
            cells = list[str]()
            for name, statistic, weighted in MEASURES:
                low, high = bootstrap_interval(partial(gain, weighted, truth, ours, theirs), groups)
                cells.append(
                    f"{name} {statistic(truth, ours) - statistic(truth, theirs):+.3f} [{low:+.3f}, {high:+.3f}]"
                )
            low, high = bootstrap_interval(partial(gain_of_folds, truth, ours, theirs, within), groups)
            each = [cmap(truth[mine], ours[mine]) - cmap(truth[mine], theirs[mine]) for mine in within]
            print(
                f"d - {row.letter}: " + ", ".join(cells) + f", by folds {np.mean(each):+.3f} [{low:+.3f}, {high:+.3f}]"
            )


def scores_of(
    row: Row, seeds: tuple[int, ...], places: list[str], labels: tuple[str, ...], within: list[NDArray[np.bool_]]
) -> list[Table]:
    """(recordings, species) out of fold, of each seed that is done; of what has no seed, one."""
    if row.letter == "a":
        with redirect_stdout(None):
            plain = np.zeros((len(places), len(labels)), np.float32)
            for fold, mine in zip(FOLDS, within, strict=True):
                plain[mine] = pool_windows(baseline(ANIMALS, fold)[1], int(mine.sum()))
        return [plain]
    if row.letter == "g":
        if not BIRDNET.is_file():
            print("no scores of BirdNET; `make bench-birdnet` makes them")
            return []
        stored = np.load(BIRDNET, allow_pickle=False)
        assert stored["labels"].tolist() == list(labels), f"{BIRDNET} has other labels; make bench-birdnet again"
        order = {str(path): number for number, path in enumerate(stored["paths"].tolist())}
        return [stored["scores"][[order[path] for path in places]]]
    tables: list[Table] = []
    for seed in seeds:
        runs = [folder(row, seed, part) / "finetune" for part in parts()]
        if all(is_finished(run) for run in runs):
            tables.append(np.nanmax([held_out(run / "held_out_scores.csv", places, labels) for run in runs], axis=0))
    return tables


def alarms(row: Row, seed: int) -> str:
    """False alarms per hour on the half of the noise that was not trained on: at .5, at the fitted thresholds."""
    if row.flags is None:
        return ""
    told = [read_run(folder(row, seed, part))["scores"] for part in parts()]
    cells = [np.mean([one[f"false_alarms_per_hour_at_{name}"] for one in told]) for name in ("0.5", "thresholds")]
    return f"{cells[0]:.1f} at .5, {cells[1]:.1f} at thresholds"


def minutes(row: Row, seed: int) -> str:
    """How long all folds took."""
    path = RUNS / f"{row.letter}-{seed}.minutes"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def parts() -> list[tuple[int, ...]]:
    """The folds of each process."""
    side_by_side = min(len(FOLDS), available_cores())
    return [FOLDS[first::side_by_side] for first in range(side_by_side)]


def words(part: tuple[int, ...]) -> list[str]:
    return [str(fold) for fold in part]


def folder(row: Row, seed: int, part: tuple[int, ...]) -> Path:
    """Where the classifiers of some folds are kept."""
    return RUNS / f"{row.letter}-{seed}-{'-'.join(words(part))}"


if __name__ == "__main__":
    bench(
        sys.argv[1] if len(sys.argv) > 1 else "bcdef",
        tuple(int(word) for word in sys.argv[2:]) or (0,),
    )
