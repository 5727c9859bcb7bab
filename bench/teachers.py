"""How much of BirdNET's lead Whisper makes up by imitating its embeddings on sound without labels.

    make bench-teachers          (or: .venv/bin/python -m bench.teachers [fold] [epochs] [full])

Reads    ../shared/animals: all recordings, whatever their labels, half of noise, and of the soundscapes those that
         bench.soundscapes lays nothing into; ../shared/whisper-base
Writes   runs/teachers/fold-0/: recordings.csv, birdnet.npz, a run of stage 1 and runs of stage 2, which are not done
         again; prints one table

Whisper base, its lowest layers as main.py takes them, imitates BirdNET 2.4 on the folds that train, without a label and
without a mask. Then the same head is fitted on Whisper as it is and on Whisper as it has become, both frozen (`full`:
fine-tuned too), and judged on the fold held out from both stages, beside a logistic regression on BirdNET's own
embeddings, as in bench.birdnet; and on the soundscapes that bench.soundscapes builds of that fold.

BirdNET's model is licensed CC BY-NC-SA 4.0: all that comes of it here stays in runs/, and says so in its provenance.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archive.recordings import Recording, write_recordings
from bench.arms import held_out, is_finished
from bench.baseline import ANIMALS, HEARD, MIN_RECORDINGS, deal_noise, require
from bench.birdnet import Table, embeddings, figures, mean_of_windows, out_of_fold, regression
from bench.folds import FOLDS, MEASURES, Weighted, gain, gain_in_words
from bench.soundscapes import FOLDER as SOUNDSCAPES
from bench.soundscapes import SECONDS as SOUNDSCAPE
from bench.soundscapes import WINDOW, build, kept_answers, quiet_recordings, sites_of, truth_of
from bench.whisper import SHARED, WEIGHTS
from config import DEPTH, AudioSettings, DataSettings
from data_loader import read_labeled, read_noise, read_unlabeled, truth_table
from evaluation.metrics import bootstrap_interval, cmap, macro_roc_auc
from runtime.digests import sha256
from serving.embeddings import Embedded, write_vectors

RUNS, SECONDS = Path("runs/teachers"), 3.0  # of a window of BirdNET's
NAME, LICENSE = "BirdNET 2.4", "CC BY-NC-SA 4.0"
BASE = ("--preset", "base", "--encoder.depth", str(DEPTH["base"]), "--run.threads", "1", "--data.workers", "0")
IMITATE = (
    *("--target", "embeddings", "--imitation.name", NAME, "--imitation.license", LICENSE),
    *("--train.batch_size", "16", "--train.encoder_rate", "1e-4", "--train.head_rate", "1e-3", "--train.warmup", "0.1"),
    *("--pull", "0"),
)
AS_IS, IMITATED = "Whisper base as it is", "after imitating BirdNET"


def bench(fold: int, epochs: int, ways: Sequence[str]) -> None:
    """Embed, imitate, fit heads, print.

    ways   of stage 2: frozen, full
    """
    require(ANIMALS, WEIGHTS)
    deal_noise()
    place = RUNS / f"fold-{fold}"
    place.mkdir(parents=True, exist_ok=True)
    # what BirdNET makes of all sound
    with redirect_stdout(None):
        recordings = all_sound(fold)
        rows = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))[1]
        build(fold, [row for row in rows if row.fold == fold], quiet_recordings())
    write_recordings(place / "recordings.csv", recordings)
    owner, vectors = embeddings(recordings)
    write_table(place / "birdnet.npz", recordings, owner, vectors)
    # stage 1, and stage 2 with and without it
    data = ("--data.root", str(place / "recordings.csv"), "--data.valid_fold", str(fold))
    words = (*BASE, *data, "--encoder.weights", str(WEIGHTS), *IMITATE, "--train.epochs", str(epochs))
    stage_one = command(
        "ssl_mae.py", place / f"imitated-{epochs}", "mae", *words, "--teacher", str(place / "birdnet.npz")
    )
    scored: dict[str, Path] = {}
    for way in ways:
        for name, weights in ((AS_IS, WEIGHTS), (IMITATED, stage_one / "encoder.safetensors")):
            folder = place / f"{way}-{'as-is' if name == AS_IS else f'imitated-{epochs}'}"
            flags = (*BASE, *SHARED, "--data.valid_fold", str(fold), "--encoder.weights", str(weights))
            scored[f"{name}, {way}"] = command(
                "main.py", folder, "finetune", *flags, *(["--train.frozen"] if way == "frozen" else [])
            )
    compare(fold, recordings, mean_of_windows(owner, vectors), scored)


def all_sound(fold: int) -> list[Recording]:
    """All recordings and half of the noise with their folds, without a label, and soundscapes with annotations in a
    fold that trains: into all others bench.soundscapes lays calls, which no classifier may have been trained on."""
    data = DataSettings(ANIMALS, valid_fold=fold)
    rows = [*read_unlabeled(data), *read_noise(HEARD, data, FOLDS)]
    with (ANIMALS / "soundscapes" / "annotations.csv").open(encoding="utf-8", newline="") as file:
        annotated = {Path(row["filename"]).name for row in csv.DictReader(file)}
    elsewhere = replace(data, root=ANIMALS / "soundscapes", layout="unlabeled")
    for row in read_unlabeled(elsewhere):
        if row.path.name in annotated and row.path not in {known.path for known in rows}:
            rows.append(replace(row, fold=(fold + 1) % len(FOLDS), group=f"soundscape {row.group}"))
    return [replace(row, labels=(), listened=False, absent=()) for row in rows]


def write_table(path: Path, recordings: Sequence[Recording], owner: np.ndarray, vectors: Table) -> None:
    """BirdNET's windows follow each other from the beginning of each recording."""
    embedded: list[Embedded] = []
    for index, recording in enumerate(recordings):
        own = vectors[owner == index]
        starts = [SECONDS * number for number in range(len(own))]
        embedded.append(Embedded(recording.name, starts, [start + SECONDS for start in starts], own))
    write_vectors(path, embedded, NAME)


def command(script: str, place: Path, kind: str, *words: str) -> Path:
    """A stage's run in a folder of its own, as the link that a finished run leaves there: done once, gone on with where
    it was stopped. What was done with other flags is refused."""
    run, flags, started = place / kind, place / "flags.txt", time.monotonic()
    place.mkdir(parents=True, exist_ok=True)
    if not flags.is_file():
        flags.write_text("\n".join(words), encoding="utf-8")
    assert flags.read_text(encoding="utf-8").splitlines() == [*words], f"{place} was made with other flags; remove it"
    if not is_finished(run):
        begun = [folder for folder in sorted(place.glob(f"{kind}-*")) if (folder / "states").is_dir()]
        again = ("--run.resume", str(begun[-1])) if begun else (*words, "--run.root", str(place))
        with (place / "printed.txt").open("a", encoding="utf-8") as file:
            code = subprocess.run([sys.executable, script, *again], stdout=file, stderr=subprocess.STDOUT, check=False)
        assert code.returncode == 0 and is_finished(run), f"{script} left with {code.returncode}: see {file.name}"
        print(f"{place.parent.name}/{place.name}: {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    return run


def compare(fold: int, recordings: Sequence[Recording], means: Table, scored: dict[str, Path]) -> None:
    """One line for each classifier, and how much of BirdNET's lead is made up."""
    with redirect_stdout(None):
        taxonomy, rows = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))
    paths, row_of = [str(row.path.resolve()) for row in rows], {row.path: n for n, row in enumerate(recordings)}
    truth, own = truth_table(rows, taxonomy.labels, AudioSettings()), np.array([row.fold == fold for row in rows])
    features = means[[row_of[row.path] for row in rows]]
    leader = f"{NAME}, logistic regression"
    birdnet = out_of_fold(np.arange(len(rows)), features, taxonomy, rows, (fold,))[own]
    tables = {name: held_out(run / "held_out_scores.csv", paths, taxonomy.labels)[own] for name, run in scored.items()}
    files = [path.name for path in sorted((SOUNDSCAPES / str(fold)).glob("*.flac"))]
    due, sites = truth_of(SOUNDSCAPES / str(fold) / "answers.csv", files, taxonomy.labels), sites_of(files)
    heard = {name: kept_answers(run, fold) for name, run in scored.items()}
    species = np.array([taxonomy.labels.index(row.labels[0]) for row in rows])
    heard[leader] = regression(features[~own], species[~own], in_the_field(fold), len(taxonomy.labels))
    print(f"\n{own.sum()} recordings of fold {fold}, {len(taxonomy.labels)} species; {len(due)} windows of soundscapes")
    print(f"{'':40}{'macro AUC':>12}{'cmAP':>12}{'top-1':>12}{'soundscapes: macro AUC, cmAP':>30}")
    for name, scores in (*tables.items(), (leader, birdnet)):
        field = f"{macro_roc_auc(due, heard[name]):18.3f}{cmap(due, heard[name]):12.3f}"
        print(f"{name:40}" + "".join(f"{value:12.3f}" for value in figures(truth[own], scores)) + field)
    groups = np.array([row.group for row in rows])[own]
    for name in tables:
        if name.startswith(IMITATED):
            before = name.replace(IMITATED, AS_IS)
            print(f"{name} - as it is:")
            for measure, _, weighted in MEASURES:
                every = [(f"{measure}", truth[own], (tables[name], tables[before], birdnet), groups)]
                if measure != "top-1":  # windows have several species, or none
                    every.append((f"{measure} in soundscapes", due, (heard[name], heard[before], heard[leader]), sites))
                for what, right, scores, units in every:
                    gained = gain_in_words(weighted, right, scores[0], scores[1], units)
                    print(f"  {what} {gained}; {share_in_words(weighted, right, scores, units)}")


def in_the_field(fold: int) -> Table:
    """(windows, 1024): BirdNET's embedding of each window of a fold's soundscapes, the mean of its own windows of 3 s
    by how much of them lies within."""
    files = sorted((SOUNDSCAPES / str(fold)).glob("*.flac"))
    made = sha256(SOUNDSCAPES / str(fold) / "answers.csv")[:12]  # others of the same names have other answers
    owner, vectors = embeddings([Recording(path, f"{made} {path.name}", seconds=float(SOUNDSCAPE)) for path in files])
    starts, own = np.arange(0, SOUNDSCAPE, WINDOW)[:, None], np.arange(0, SOUNDSCAPE, SECONDS)[None]
    overlap = np.minimum(starts + WINDOW, own + SECONDS) - np.maximum(starts, own)
    shares = np.maximum(overlap, 0) / WINDOW
    return np.concatenate([shares @ vectors[owner == number] for number in range(len(files))]).astype(np.float32)


def share_in_words(weighted: Weighted, truth: Table, tables: Sequence[Table], groups: NDArray[np.str_]) -> str:
    """How much of a lead is made up.

    tables   scores after stage 1, before it, and of who leads
    """
    after, before, leader = tables

    def lead(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return gain(weighted, truth, leader, before, weights)

    def share(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return gain(weighted, truth, after, before, weights) / lead(weights)

    once = np.ones((len(truth), 1))
    if bootstrap_interval(lead, groups)[0] <= 0:
        return f"BirdNET's lead of {lead(once)[0]:+.3f} is not sure"
    low, high = bootstrap_interval(share, groups)
    return f"of BirdNET's lead of {lead(once)[0]:+.3f} {share(once)[0]:.0%} [{low:.0%}, {high:.0%}] is made up"


if __name__ == "__main__":
    bench(
        int(sys.argv[1]) if len(sys.argv) > 1 else 0,
        int(sys.argv[2]) if len(sys.argv) > 2 else 2,
        ("frozen", "full") if "full" in sys.argv[3:] else ("frozen",),
    )
