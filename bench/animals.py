"""The four commands on real recordings, from no pretrained weights, and the honest baseline beside them.

    make bench-animals        (or: .venv/bin/python -m bench.animals)

Reads    ../shared/animals: labels with at least 8 recordings, fold 0 held out, groups as given
Writes   runs/animals/, and prints one table: (a) the float classifier, (b) the INT8 file through predictor.py, (c) the
         baseline of bench.baseline; each per recording (the mean over its windows), with 95 % intervals over groups
"""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archive.recordings import Recording
from bench.baseline import ANIMALS, FOLD, MIN_RECORDINGS, baseline
from config import AudioSettings, DataSettings
from data_loader import read_labeled, split, truth_table
from evaluation.held_out import WindowScores, pool_windows
from evaluation.metrics import bootstrap_interval, cmap, scorecard, weighted_cmap, weighted_top1_accuracy
from runtime.runs import read_records
from taxonomy import pairwise_distances

RUNS = Path("runs/animals")
SOUNDSCAPE = ANIMALS / "soundscapes" / "birdnet_XC563936.ogg"
SHARED = ("--preset", "demo", "--run.root", str(RUNS))
DATA = ("--data.root", str(ANIMALS), "--data.valid_fold", str(FOLD))
PRETRAIN = ("--train.epochs", "6", "--train.batch_size", "16")
FINETUNE = ("--train.epochs", "40", "--train.batch_size", "16", "--augment.mixup", "0.5", "--augment.mask", "0.5")


def bench() -> None:
    """Run everything, then print the table."""
    assert ANIMALS.is_dir(), f"no recordings at {ANIMALS}; run from the project's folder, with shared/ beside it"
    started = time.time()
    command("ssl_mae.py", *SHARED, *DATA, *PRETRAIN)
    encoder = RUNS / "mae" / "encoder.safetensors"
    least = ("--data.min_recordings", str(MIN_RECORDINGS))
    command("main.py", *SHARED, *DATA, *least, "--encoder.weights", str(encoder), *FINETUNE)
    command("quantize.py", "--run.root", str(RUNS), "--classifier", str(RUNS / "finetune" / "classifier.safetensors"))
    model = ("--model", str(RUNS / "quantize" / "classifier.int8.onnx"))
    command("predictor.py", str(SOUNDSCAPE), *model, "--out", str(RUNS / "soundscape"), "--restart")
    taxonomy, recordings = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))
    _, valid = split(recordings, DataSettings(ANIMALS, valid_fold=FOLD))
    paths = [str(recording.path.resolve()) for recording in valid]
    command("predictor.py", *paths, *model, "--out", str(RUNS / "held-out"), "--scores", "--restart")
    floats = read_scores(RUNS / "finetune" / "held_out_scores.csv", valid, taxonomy.labels)
    int8 = read_scores(RUNS / "held-out" / "scores.csv", valid, taxonomy.labels)
    _, plain = baseline(ANIMALS)
    groups = np.array([recording.group for recording in valid])
    truth, distances = truth_table(valid, taxonomy.labels, AudioSettings()), pairwise_distances(taxonomy)
    print(f"\n{len(valid)} held-out recordings, {len(floats.owner)} windows, {len(taxonomy.labels)} species")
    print(f"{'':38}{'macro AUC':>10}{'cmAP':>8}{'':16}{'top-1':>8}{'':16}{'distance':>10}{'of mistakes':>13}")
    rows = (
        ("(a) float classifier, best epoch", floats),
        ("(b) its INT8 file, through predictor.py", int8),
        ("(c) logistic regression", plain),
    )
    for name, windows in rows:
        pooled = pool_windows(windows, len(valid))
        card = scorecard(truth, pooled, distances)
        print(
            f"{name:38}{card['macro_auc']:10.3f}{card['cmap']:8.3f}{interval(weighted_cmap, truth, pooled, groups)}"
            f"{card['top1']:8.3f}{interval(weighted_top1_accuracy, truth, pooled, groups)}"
            f"{card['mistake_distance']:10.3f}{card['mistake_severity']:13.3f}"
        )
    last = read_records(RUNS / "finetune")[-1]
    print(
        f"{'    float classifier, last epoch':38}{last['macro_auc']:10.3f}{last['cmap']:8.3f}{'':16}{last['top1']:8.3f}"
        f"{'':16}{last['mistake_distance']:10.3f}{last['mistake_severity']:13.3f}"
    )
    print(
        "Chosen on these very recordings: the best epoch, the settings of (a) and the C of (c); not the last epoch.\n"
        "distance: taxonomic, mean over all recordings, 0 where right; of mistakes: over the wrong ones alone."
    )
    ours, theirs = pool_windows(floats, len(valid)), pool_windows(plain, len(valid))
    low, high = bootstrap_interval(
        lambda weights: weighted_cmap(truth, ours, weights) - weighted_cmap(truth, theirs, weights), groups
    )
    print(f"cmAP of (a) minus (c): {cmap(truth, ours) - cmap(truth, theirs):+.3f} [{low:+.3f}, {high:+.3f}], paired")
    assert np.array_equal(floats.owner, int8.owner) and np.array_equal(floats.starts, int8.starts)
    agreement = float((floats.scores.argmax(axis=1) == int8.scores.argmax(axis=1)).mean())
    largest = float(np.abs(floats.scores - int8.scores).max())
    print(f"(a) and (b) name the same species in {100 * agreement:.1f} % of the windows; largest change {largest:.4f}")
    print(f"{(time.time() - started) / 60:.1f} minutes in all")
    assert agreement >= 0.98, "the INT8 file disagrees with the classifier in more than 2 % of the windows"


def command(script: str, *words: str) -> None:
    """Run one of the commands; its failure is ours."""
    shown = " ".join(words)
    print(f"\n$ python {script} {shown if len(shown) < 300 else shown[:300] + ' ...'}", flush=True)
    started = time.time()
    code = subprocess.run([sys.executable, script, *words], check=False).returncode
    print(f"({time.time() - started:.0f} s)", flush=True)
    assert code == 0, f"{script} left with {code}"


def read_scores(path: Path, valid: list[Recording], labels: tuple[str, ...]) -> WindowScores:
    """A table of scores, its windows in the order of the recordings."""
    place = {str(recording.path.resolve()): index for index, recording in enumerate(valid)}
    with path.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (place[row["file"]], float(row["start"])))
    return WindowScores(
        np.array([place[row["file"]] for row in rows]),
        np.array([float(row["start"]) for row in rows]),
        np.array([float(row["end"]) for row in rows]),
        np.array([[float(row[label]) for label in labels] for row in rows], np.float32),
        np.zeros((len(rows), 0), np.float32),
    )


def interval(
    statistic: Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]], NDArray[np.float64]],
    truth: NDArray[np.float32],
    scores: NDArray[np.float32],
    groups: NDArray[np.str_],
) -> str:
    """A 95 % interval over groups of recordings, as text."""
    low, high = bootstrap_interval(partial(statistic, truth, scores), groups)
    return f"  [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    bench()
