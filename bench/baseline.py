"""The honest baseline: logistic regression on four statistics of each log-mel bin, on the split of the classifier.

    .venv/bin/python -m bench.baseline        (bench.animals prints it beside the classifier)

Each 5-second window is described by the mean, the deviation, the maximum and the 10 % quantile of each of its 80 mel
bins over time; nothing is learnt about sound but 320 weights per species. What cannot beat this has learnt little.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from archive.recordings import Recording
from config import SCRATCH, AudioSettings, DataSettings
from data_loader import read_labeled, recording_contexts, split, truth_table
from evaluation.held_out import WindowScores, pool_windows
from evaluation.metrics import scorecard
from model import LogMel
from taxonomy import pairwise_distances

ANIMALS = Path("../shared/animals")
FOLD = 0
MIN_RECORDINGS = 8
AUDIO = AudioSettings()
HEARD, REST = SCRATCH / "noise-heard", SCRATCH / "noise-rest"  # halves of ../shared/animals/noise


def deal_noise() -> None:
    """Copies of all recordings of noise, in turn to be trained on (HEARD) and to be judged by (REST)."""
    for number, path in enumerate(sorted(path for path in (ANIMALS / "noise").rglob("*") if path.is_file())):
        folder = REST if number % 2 else HEARD
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / path.name).is_file():  # a copy with a new time would be taken for another recording
            shutil.copyfile(path, folder / path.name)


def require(*folders: Path) -> None:
    """Refuse in a line to begin without what a bench reads."""
    for folder in folders:
        assert folder.is_dir(), f"nothing at {folder}; run from the project's folder, with shared/ beside it"


def baseline(root: Path, fold: int = FOLD) -> tuple[dict[str, float], WindowScores]:
    """Scores of the held-out recordings: the scorecard per recording, and the probabilities per window."""
    data = DataSettings(root, min_recordings=MIN_RECORDINGS, valid_fold=fold)
    taxonomy, recordings = read_labeled(data)
    train, valid = split(recordings, data)
    column = {label: index for index, label in enumerate(taxonomy.labels)}
    features, windows = statistics(train)
    labels = np.array([column[train[index].labels[0]] for index in windows.owner])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    model.fit(features, labels)
    features, windows = statistics(valid)
    scores = np.zeros((len(features), len(column)), np.float32)
    scores[:, model.classes_] = model.predict_proba(features)
    told = WindowScores(windows.owner, windows.starts, windows.ends, scores, scores[:, :0])
    pooled = pool_windows(told, len(valid))
    return scorecard(truth_table(valid, taxonomy.labels, AUDIO), pooled, pairwise_distances(taxonomy)), told


def statistics(recordings: Sequence[Recording]) -> tuple[NDArray[np.float32], WindowScores]:
    """(windows, 4 * mels) for every window of some recordings, and where each window comes from."""
    front_end = LogMel(AUDIO, 80)
    rows, owner, starts, ends = list[NDArray[np.float32]](), list[int](), list[float](), list[float]()
    for context in recording_contexts(recordings, AUDIO):
        mel = front_end(torch.from_numpy(context.samples)[None])[0].numpy()
        quantile = np.quantile(mel, 0.1, axis=1)
        rows.append(np.concatenate([mel.mean(axis=1), mel.std(axis=1), mel.max(axis=1), quantile]).astype(np.float32))
        owner.append(context.owner)
        starts.append(context.windows[0][0])
        ends.append(context.windows[0][1])
    nothing = np.zeros((len(rows), 0), np.float32)
    return np.stack(rows), WindowScores(np.array(owner), np.array(starts), np.array(ends), nothing, nothing)


if __name__ == "__main__":
    assert ANIMALS.is_dir(), f"no recordings at {ANIMALS}; run from the project's folder, with shared/ beside it"
    card, _ = baseline(ANIMALS)
    print("  ".join(f"{name} {value:.3f}" for name, value in card.items()))
