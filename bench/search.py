"""What finds best: every layer and pooling of a frozen Whisper, BirdNET 2.4's embeddings, statistics of the log-mel.

    make bench-search           (or: .venv/bin/python -m bench.search; make bench-birdnet first, for BirdNET's row)

Reads    ../shared/animals: labels with at least 8 recordings; ../shared/whisper-base; runs/birdnet/
Writes   runs/search/features.npz, which is not computed again

Each recording in turn is the example, and all recordings of other groups are searched: precision at 10 and recall at
100 (of at most 100), the mean over the recordings of a label, then over the labels; intervals of the labels drawn
again. A recording is described by the mean over its windows, 5 s of Whisper's or 3 s of BirdNET's, which was trained on
most of these species.

Then ten rounds of listening: per label, one recording as the example, the ten most alike are listened to, and with a
head on those answers the next ten: those that refit.py would ask for, those most alike, or any. Average precision on
recordings of a fold that nobody listens to, by the number of recordings listened to.
"""

from __future__ import annotations

import runtime.openmp  # noqa: F401  # pyright: ignore[reportUnusedImport] - it counts when torch is loaded

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from archive.recordings import Recording
from bench.baseline import ANIMALS, AUDIO, MIN_RECORDINGS, require, statistics
from bench.birdnet import embeddings, mean_of_windows
from config import DataSettings, EncoderSettings
from data_loader import read_labeled
from evaluation.metrics import cmap
from probe import pooled_features
from runtime.files import publish
from training.checkpoint import load_encoder
from training.verdict_head import Judged, LinearHead, choose_next, fit_verdict_head

Table = NDArray[np.float32]
Flags = NDArray[np.bool_]
RUNS, WEIGHTS = Path("runs/search"), Path("../shared/whisper-base")
WIDTH, MOST_WINDOWS = 512, 12  # of Whisper base; of a recording
COUNT, SEEDS, BACKGROUND = 10, 3, 200  # rounds, examples of each label, recordings that stand for the archive
NEAR, FAR = 10, 100  # recordings: precision among the former, recall among the latter


class Found(NamedTuple):
    """How much of each label was found, the mean over its recordings as the example."""

    precision: NDArray[np.float64]  # (labels,) at 10
    recall: NDArray[np.float64]  # (labels,) at 100

    @property
    def words(self) -> str:
        draws = np.random.default_rng(0).integers(len(self.recall), size=(1000, len(self.recall)))
        parts = [(each.mean(), *np.quantile(each[draws].mean(axis=1), (0.025, 0.975))) for each in self]
        return "".join(f"{mean:10.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in parts)


def bench() -> None:
    """All ways to describe a recording, and what each finds."""
    require(ANIMALS, WEIGHTS)
    with redirect_stdout(None):
        _, recordings = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))
    print(f"{len(recordings)} recordings of {len({recording.labels[0] for recording in recordings})} labels")
    print(f"{'':46}{'':14}{'precision at ' + str(NEAR):>26}{'recall at ' + str(FAR):>26}")
    for name, vectors in described(recordings).items():
        for scaled, values in scalings(vectors).items():
            print(f"{name:46}{scaled:14}{found(values @ values.T, recordings).words}", flush=True)
    learn(whisper_features(recordings)[0][:, :3, :WIDTH].mean(axis=1), recordings)


def described(recordings: Sequence[Recording]) -> dict[str, Table]:
    """(recordings, values) by the name of the way."""
    layers, mel = whisper_features(recordings)
    ways = {"log-mel statistics": mel}
    poolings = {"mean": slice(0, WIDTH), "maximum": slice(2 * WIDTH, None), "mean, deviation, maximum": slice(None)}
    for name, part in poolings.items():
        ways |= {f"layer {layer + 1}: {name}": layers[:, layer, part] for layer in range(layers.shape[1])}
    for depth in (2, 3, 4, 6):  # what our files give beside their probabilities is such a mean
        ways[f"layers 1 to {depth}: mean of means"] = layers[:, :depth, :WIDTH].mean(axis=1)
        ways[f"layers 1 to {depth}: mean, deviation, maximum"] = layers[:, :depth].mean(axis=1)
    listed = Path("runs/birdnet/recordings.txt")
    if listed.is_file():
        ways["BirdNET 2.4"] = birdnet(recordings, listed)
    return ways


def whisper_features(recordings: Sequence[Recording]) -> tuple[Table, Table]:
    """Every layer's mean, deviation and maximum (recordings, layers, 3 * width), and log-mel statistics (recordings,
    4 * mels): means over the windows."""
    path, names = RUNS / "features.npz", [recording.name for recording in recordings]
    if path.is_file():
        with np.load(path) as kept:
            if kept["names"].tolist() == names:
                return kept["layers"].astype(np.float32), kept["mel"]
    started = time.process_time()
    encoder = load_encoder(EncoderSettings("base", str(WEIGHTS)), AUDIO).eval()
    begun = RUNS / "features.safetensors"  # goes on where it was stopped
    layers, counts = pooled_features(encoder, recordings, AUDIO, MOST_WINDOWS, torch.device("cpu"), begun)
    assert counts.all(), "a recording that cannot be read"
    rows, windows = statistics(recordings)
    mel = np.stack([rows[windows.owner == index].mean(axis=0) for index in range(len(recordings))])
    RUNS.mkdir(parents=True, exist_ok=True)
    with publish(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, names=np.array(names), layers=layers, mel=mel)
    print(f"{counts.sum()} windows through Whisper base in {time.process_time() - started:.0f} s of CPU", flush=True)
    return layers.astype(np.float32), mel


def birdnet(recordings: Sequence[Recording], listed: Path) -> Table:
    """(recordings, 1024) from what bench.birdnet or bench.teachers left; computed where these are not among them."""
    index = {name: number for number, name in enumerate(listed.read_text(encoding="utf-8").splitlines())}
    wanted = [index.get(str(recording.path.resolve()), -1) for recording in recordings]
    kept = sorted(listed.parent.glob("embeddings-*.npz"))
    if len(kept) == 1 and min(wanted) >= 0:
        with np.load(kept[0]) as arrays:
            return mean_of_windows(arrays["owner"], arrays["embeddings"])[wanted]
    return mean_of_windows(*embeddings(recordings))


def scalings(vectors: Table) -> Mapping[str, Table]:
    """Unit vectors as they are, less their mean, and in units of each value's deviation over all windows."""
    centred = vectors - vectors.mean(axis=0)
    standard = centred / np.maximum(centred.std(axis=0), 1e-4)
    ways = {"as they are": vectors, "less the mean": centred, "standardised": standard}
    return {name: values / np.linalg.norm(values, axis=1, keepdims=True) for name, values in ways.items()}


def found(near: Table, recordings: Sequence[Recording]) -> Found:
    """Precision and recall of each label.

    near   (recordings, recordings) how alike two are
    """
    labels = np.array([recording.labels[0] for recording in recordings])
    groups = np.array([recording.group for recording in recordings])
    precision: dict[str, list[float]] = {}
    recall: dict[str, list[float]] = {}
    for example, label in enumerate(labels):
        others = np.flatnonzero(groups != groups[example])
        wanted = labels[others] == label
        if wanted.any():
            hits = wanted[np.argsort(-near[example, others], kind="stable")]
            precision.setdefault(label, []).append(float(hits[:NEAR].mean()))
            recall.setdefault(label, []).append(float(hits[:FAR].sum() / min(FAR, hits.sum())))
    means = [np.array([np.mean(values) for values in each.values()], np.float64) for each in (precision, recall)]
    return Found(means[0], means[1])


class Round(NamedTuple):
    """How the windows of a round are chosen."""

    name: str
    choose: Callable[[LinearHead, Table, Flags, np.random.Generator], list[int]]  # head, pool, listened, generator


def asked(head: LinearHead, pool: Table, listened: Flags, _generator: np.random.Generator) -> list[int]:
    """What refit.py asks for; every recording is its own site here."""
    units = pool / np.linalg.norm(pool, axis=1, keepdims=True)
    chosen = choose_next(head.logits(pool), units, np.zeros(len(pool), np.int64), listened, NEAR)
    return [row for row, _ in chosen]


def surest(head: LinearHead, pool: Table, listened: Flags, _generator: np.random.Generator) -> list[int]:
    """What the head is surest to be the species."""
    order = np.argsort(-head.logits(pool)[:, 0], kind="stable")
    return [row for row in order.tolist() if not listened[row]][:NEAR]


def anything(_head: LinearHead, _pool: Table, listened: Flags, generator: np.random.Generator) -> list[int]:
    free = np.flatnonzero(~listened)
    chosen: list[int] = generator.choice(free, min(NEAR, len(free)), replace=False).tolist()
    return chosen


ROUNDS = (Round("as refit.py asks", asked), Round("the surest", surest), Round("at random", anything))


def learn(vectors: Table, recordings: Sequence[Recording]) -> None:
    """Average precision after each round, the mean over labels and seeds; the same first ten for all."""
    centred = vectors - vectors.mean(axis=0)
    features: Table = (centred / np.maximum(centred.std(axis=0), 1e-4)).astype(np.float32)
    labels = np.array([recording.labels[0] for recording in recordings])
    held_out = np.array([recording.fold == 0 for recording in recordings])
    tasks = [
        label for label in np.unique(labels) if (labels[held_out] == label).any() and (labels[~held_out] == label).any()
    ]
    pool, truth, test = features[~held_out], labels[~held_out], features[held_out]
    everything = np.ones((len(pool), 1), np.bool_)
    sizes = f"{len(pool)} recordings to listen to, {len(test)} held out"
    print(f"\nlistening: {len(tasks)} labels, {sizes}; {SEEDS} examples each")
    print(f"{'recordings listened to':24}" + "".join(f"{NEAR * number:8}" for number in range(1, COUNT + 1)))
    whole = [
        ap(
            fit_verdict_head(Judged(pool, truth[:, None] == label, everything, np.arange(len(pool))), test[:0]),
            test,
            labels[held_out] == label,
        )
        for label in tasks
    ]
    for way in ROUNDS:
        curves = [
            curve(way, pool, truth == label, test, labels[held_out] == label, seed)
            for label in tasks
            for seed in range(SEEDS)
        ]
        mean = np.mean(curves, axis=0)
        by_label = np.array(curves).reshape(len(tasks), SEEDS, COUNT)[:, :, -1].mean(axis=1)
        draws = by_label[np.random.default_rng(0).integers(len(tasks), size=(1000, len(tasks)))].mean(axis=1)
        low, high = np.quantile(draws, (0.025, 0.975))
        print(
            f"{way.name:24}" + "".join(f"{value:8.3f}" for value in mean) + f"   last: [{low:.3f}, {high:.3f}]",
            flush=True,
        )
    print(f"all {len(pool)} listened to: {np.mean(whole):.3f}")


def curve(way: Round, pool: Table, right: Flags, test: Table, wanted: Flags, seed: int) -> list[float]:
    """Average precision on held-out recordings after each round of one label."""
    generator = np.random.default_rng(seed)
    units = pool / np.linalg.norm(pool, axis=1, keepdims=True)
    example = int(generator.choice(np.flatnonzero(right)))
    near = np.argsort(-(units @ units[example]), kind="stable")
    listened = np.zeros(len(pool), np.bool_)
    listened[near[:NEAR]] = True  # the example among them
    found: list[float] = []
    for _ in range(COUNT):
        rows = np.flatnonzero(listened)
        background = pool[~listened][generator.permutation(int((~listened).sum()))[:BACKGROUND]]
        present = right[rows]
        if present.all():  # nothing else was found yet: what nobody listened to stands for No
            far = near[-NEAR:]
            rows, present = np.append(rows, far), np.append(present, np.zeros(len(far), np.bool_))
        judged = Judged(pool[rows], present[:, None], np.ones((len(rows), 1), np.bool_), rows)
        head = fit_verdict_head(judged, background)
        found.append(ap(head, test, wanted))
        listened[way.choose(head, pool, listened, generator)] = True
    return found


def ap(head: LinearHead, test: Table, wanted: Flags) -> float:
    return cmap(wanted[:, None], head.logits(test))


if __name__ == "__main__":
    bench()
