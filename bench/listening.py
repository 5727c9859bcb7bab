"""What predictor.py's ways to listen are worth: the same soundscapes, window by window, each way against the plain one.

    make bench-listening          (or: .venv/bin/python -m bench.listening --models a.onnx b.onnx --fold 0)

Reads    /tmp/wildwhisper/soundscapes/<fold>, as bench.soundscapes builds it; ONNX files of classifiers that did not
         hear that fold: if none is given, those that bench.systems left of fine-tuned Whisper and of AudioCNN
Writes   /tmp/wildwhisper/listening/<fold>/<way>/, where what is scored already is not scored again; prints one table

Each way is predictor.py with flags of its own. Where windows overlap, a judged window of 5 s gets the highest answer of
those that have half of it or more. With two files or more, the last way is the mean of all of them, the others the
first alone. Intervals are over sites, differences are paired.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.folds import gain
from bench.soundscapes import FOLDER as SOUNDSCAPES
from bench.soundscapes import SECONDS, WINDOW, sites_of, truth_of
from config import SCRATCH
from evaluation.metrics import bootstrap_interval, cmap, macro_roc_auc, weighted_cmap
from serving.scorer import open_scorer

FOLDER = SCRATCH / "listening"
MODELS = SOUNDSCAPES / "models"
USUAL = ("systems-whisper-{fold}.onnx", "systems-cnn-{fold}.onnx")
Table = NDArray[np.float32]


class Way(NamedTuple):
    """Flags of predictor.py, and how many of the files it hears with; 0: all."""

    name: str
    flags: tuple[str, ...]
    models: int = 1


WAYS = (
    Way("as ever", ()),
    Way("windows every 2.5 s", ("--overlap", "2.5")),
    Way("mean with those half a step away", ("--tta",)),
    Way("smoothed over neighbours", ("--smooth",)),
    Way("times the recording's highest", ("--file_weight",)),
    Way("the last three together", ("--tta", "--smooth", "--file_weight")),
    Way("mean of all files", (), 0),
)


def bench(models: Sequence[Path], fold: int) -> None:
    """Score what is not scored yet, then print the table."""
    place = SOUNDSCAPES / str(fold)
    assert (place / "answers.csv").is_file(), f"no soundscapes at {place}: `make bench-soundscapes` builds them"
    for model in models:
        assert model.is_file(), f"{model} is not there: `make bench-systems` leaves some, or give --models"
    files = [path.name for path in sorted(place.glob("*.flac"))]
    labels = open_scorer(models[0]).taxonomy.labels
    truth, sites = truth_of(place / "answers.csv", files, labels), sites_of(files)
    found = dict[str, Table]()
    for way in WAYS:
        heard = models[: way.models or len(models)]
        if way.models or len(heard) > 1:
            found[way.name] = window_scores(scored(way, heard, fold, place), files, labels)
    plain = found[WAYS[0].name]
    print(f"\n{models[0].name}, fold {fold}: {len(truth)} windows of {len(set(sites))} sites")
    print("| | cmAP | macro AUC | against the first |\n|---|---|---|---|")
    for name, scores in found.items():
        figures = [statistic(truth, scores) for statistic in (cmap, macro_roc_auc)]
        low, high = bootstrap_interval(partial(gain, weighted_cmap, truth, scores, plain), sites)
        by = "" if scores is plain else f"{cmap(truth, scores) - cmap(truth, plain):+.3f} [{low:+.3f}, {high:+.3f}]"
        print(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in figures) + f" | {by} |")


def scored(way: Way, models: Sequence[Path], fold: int, place: Path) -> Path:
    """scores.csv of a way; predictor.py goes on where it was stopped."""
    out = FOLDER / str(fold) / "-".join([*(model.stem for model in models), way.name.replace(" ", "_")])
    words = [word for model in models for word in ("--model", str(model))]
    command = [sys.executable, "predictor.py", str(place), *words, *way.flags, "--out", str(out), "--scores"]
    done = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"predictor.py left with {done.returncode}: {done.stderr[-500:]}"
    return out / "scores.csv"


def window_scores(table: Path, files: Sequence[str], labels: Sequence[str]) -> Table:
    """(windows, species) the highest of those rows of scores.csv that have half of a judged window or more."""
    each = SECONDS // WINDOW
    found = np.zeros((len(files) * each, len(labels)), np.float32)
    place = {name: number * each for number, name in enumerate(files)}
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            own, start = place[Path(row["file"]).name], float(row["start"])
            scores = np.array([row[label] for label in labels], np.float32)
            for window in range(each):
                if abs(window * WINDOW - start) <= WINDOW / 2:
                    found[own + window] = np.maximum(found[own + window], scores)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", type=Path, default=[], help="ONNX files; the first hears in every way")
    parser.add_argument("--fold", type=int, default=0, help="of ../shared/animals, whose soundscapes are heard")
    given = parser.parse_args()
    bench(given.models or [MODELS / name.format(fold=given.fold) for name in USUAL], given.fold)
