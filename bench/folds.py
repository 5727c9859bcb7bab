"""All recordings judged by classifiers that never heard them, against the honest baseline judged in the same way.

    make bench-folds          (or: .venv/bin/python -m bench.folds)

Reads    ../shared/animals: labels with at least 8 recordings, folds 0 to 3
Writes   runs/folds/, and prints one table: both, and their paired difference, with 95 % intervals over groups of
         recordings

No pretrained weights, no choice of epoch, no setting tuned on any fold but fold 0. As many folds at a time as there are
cores, with one thread each: two networks so small learn faster side by side than one after the other on both cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.arms import held_out, start_finetune
from bench.baseline import ANIMALS, MIN_RECORDINGS, baseline
from config import AudioSettings, DataSettings
from data_loader import read_labeled, truth_table
from evaluation.held_out import pool_windows
from evaluation.metrics import (
    bootstrap_interval,
    cmap,
    macro_roc_auc,
    top1_accuracy,
    weighted_cmap,
    weighted_macro_roc_auc,
    weighted_top1_accuracy,
)
from training.device import available_cores

Table = NDArray[np.float32]
Weights = NDArray[np.float64]
Weighted = Callable[[Table, Table, Weights], Weights]
MEASURES: tuple[tuple[str, Callable[[Table, Table], float], Weighted], ...] = (
    ("macro AUC", macro_roc_auc, weighted_macro_roc_auc),
    ("cmAP", cmap, weighted_cmap),
    ("top-1", top1_accuracy, weighted_top1_accuracy),
)
RUNS, FOLDS = Path("runs/folds"), (0, 1, 2, 3)
FLAGS = (
    *("--preset", "demo", "--encoder.weights", "random", "--data.min_recordings", str(MIN_RECORDINGS)),
    *("--train.epochs", "100", "--train.batch_size", "16", "--train.ema", "0.99", "--train.choose", "last"),
    *("--train.validate_every", "25", "--augment.mixup", "0.5", "--augment.mask", "0.5"),
    *("--data.noise", str(ANIMALS / "noise"), "--loss.ancestors", "flat"),
)


def bench() -> None:
    """Fine-tune on every fold, then compare."""
    assert ANIMALS.is_dir(), f"no recordings at {ANIMALS}; run from the project's folder, with shared/ beside it"
    started = time.time()
    side_by_side = min(len(FOLDS), available_cores())
    parts = [FOLDS[first::side_by_side] for first in range(side_by_side)]
    given = ("--data.root", str(ANIMALS), *FLAGS, "--train.folds")
    running = [start_finetune(place(part), *given, *map(str, part)) for part in parts]
    codes = [one.wait() for one in running]
    assert not any(codes), f"main.py left with {codes}; what it printed is in {RUNS}/*/printed.txt"
    minutes = (time.time() - started) / 60
    with redirect_stdout(None):
        taxonomy, recordings = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))
        plain = np.zeros((len(recordings), len(taxonomy.labels)), np.float32)
        for fold in FOLDS:
            mine = [row for row, recording in enumerate(recordings) if recording.fold == fold]
            plain[mine] = pool_windows(baseline(ANIMALS, fold)[1], len(mine))
    truth = truth_table(recordings, taxonomy.labels, AudioSettings())
    groups = np.array([recording.group for recording in recordings])
    places = [str(recording.path.resolve()) for recording in recordings]
    tables = [held_out(place(part) / "finetune" / "held_out_scores.csv", places, taxonomy.labels) for part in parts]
    ours = np.nanmax(tables, axis=0)  # each recording is in one of them
    print(f"\n{len(recordings)} recordings of {len(taxonomy.labels)} species, out of fold; {minutes:.1f} minutes")
    print(f"{'':22}{'classifier':>28}{'logistic regression':>28}{'difference':>28}")
    for name, statistic, weighted in MEASURES:
        cells = ""
        for scores in (ours, plain):
            low, high = bootstrap_interval(partial(weighted, truth, scores), groups)
            cells += f"{statistic(truth, scores):>12.3f} [{low:.3f}, {high:.3f}]"
        low, high = bootstrap_interval(partial(gain, weighted, truth, ours, plain), groups)
        print(f"{name:22}{cells}{statistic(truth, ours) - statistic(truth, plain):>+12.3f} [{low:+.3f}, {high:+.3f}]")
    within = [np.array([recording.fold == fold for recording in recordings]) for fold in FOLDS]
    low, high = bootstrap_interval(partial(gain_of_folds, truth, ours, plain, within), groups)
    each = [[cmap(truth[mine], scores[mine]) for mine in within] for scores in (ours, plain)]
    means = "".join(f"{np.mean(one):>12.3f}{'':16}" for one in each)
    print(f"{'cmAP, mean of folds':22}{means}{np.mean(each[0]) - np.mean(each[1]):>+12.3f} [{low:+.3f}, {high:+.3f}]")


def place(folds: tuple[int, ...]) -> Path:
    """Where the classifiers of some folds are kept."""
    return RUNS / "-".join(map(str, folds))


def gain(weighted: Weighted, truth: Table, ours: Table, theirs: Table, weights: Weights) -> Weights:
    """(draws,) by how much the first of two models is better, with the same weights for both."""
    return weighted(truth, ours, weights) - weighted(truth, theirs, weights)


def gain_in_words(weighted: Weighted, truth: Table, ours: Table, theirs: Table, units: NDArray[np.str_]) -> str:
    """By how much one is better than another, paired over groups or sites."""
    low, high = bootstrap_interval(partial(gain, weighted, truth, ours, theirs), units)
    middle = float(gain(weighted, truth, ours, theirs, np.ones((len(truth), 1)))[0])
    return f"{middle:+.3f} [{low:+.3f}, {high:+.3f}]"


def gain_of_folds(
    truth: Table, ours: Table, theirs: Table, parts: Sequence[NDArray[np.bool_]], weights: Weights
) -> Weights:
    """(draws,) the same in cmAP, within each fold and averaged: scores of different classifiers need not share a scale.

    parts    of each fold (recordings,) whether a recording is in it
    """
    each = [gain(weighted_cmap, truth[mine], ours[mine], theirs[mine], weights[mine]) for mine in parts]
    return np.asarray(np.mean(each, axis=0))


if __name__ == "__main__":
    bench()
