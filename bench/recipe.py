"""The whole recipe, each step judged against the one before it: probe, imitate, fit the head, label, train again, INT8.

    make bench-recipe          (or: .venv/bin/python -m bench.recipe [fold] [full] [mask])

Reads    ../shared/animals: labels with at least 8 recordings; ../shared/whisper-base; BirdNET's embeddings, as
         bench.birdnet makes them
Writes   runs/recipe/fold-0/, where what is done already is not done again, and prints one table

The fold is held out of every step. Half of its recordings are laid into sites that are labelled by the classifier, the
other half, and sites made of it, judge (as in bench.self_training). The depth is what probe.py recommends from the
other folds. Stage 1 imitates BirdNET 2.4, or reconstructs what is hidden (`mask`); each stage 2 fits the head alone, or
fine-tunes (`full`). Intervals are over groups of recordings and over sites; differences are to the step before, paired;
what labels are worth is told from what another seed alone does. One seed of each: a step that wins by less than its
interval has not been shown to be worth anything.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from archive.recordings import Recording, write_recordings
from bench.baseline import ANIMALS, MIN_RECORDINGS, deal_noise, require
from bench.birdnet import embeddings
from bench.folds import gain
from bench.self_training import FOLDER, JUDGING, build, halves, label_sites
from bench.soundscapes import Judged, answers_of_file
from bench.teachers import IMITATE, all_sound, command, write_table
from bench.whisper import SHARED, WEIGHTS
from config import DataSettings
from data_loader import read_labeled, recording_contexts, truth_table
from evaluation.held_out import WindowScores, pool_windows
from evaluation.metrics import bootstrap_interval, cmap, weighted_cmap
from pseudo_label import exported
from serving.scorer import open_scorer, score
from training.checkpoint import ClassifierFacts, load_classifier

RUNS = Path("runs/recipe")
SIZE = ("--preset", "base", "--run.threads", "1")
MASK = (
    *("--train.batch_size", "16", "--train.encoder_rate", "1e-4", "--train.head_rate", "1e-3"),
    *("--train.warmup", "0.1", "--train.epochs", "3"),
)
PASSES = ("--train.epochs", "2")  # over all sound, of the imitation


class Step(NamedTuple):
    """A classifier on the way, as the ONNX file that would be served."""

    name: str
    model: Path
    facts: ClassifierFacts


def bench(fold: int, full: bool, mask: bool) -> None:
    """Do what is not done yet, then print the table."""
    require(ANIMALS, WEIGHTS)
    deal_noise()
    place = RUNS / f"fold-{fold}"
    place.mkdir(parents=True, exist_ok=True)
    with redirect_stdout(None):
        taxonomy, rows = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))
        parts = halves(fold, rows, taxonomy.labels)
        for kind, recordings in parts.items():
            build(fold, kind, recordings)
    print_table(parts[JUDGING], judge_at(fold), walk(place, fold, rows, () if full else ("--train.frozen",), mask))


def walk(place: Path, fold: int, rows: Sequence[Recording], way: tuple[str, ...], mask: bool) -> list[Step]:
    """Every step of the recipe, in its order."""
    # which layers
    write_recordings(place / "others.csv", [row for row in rows if row.fold != fold])
    shutil.copyfile(ANIMALS / "taxonomy.csv", place / "taxonomy.csv")
    words = ("--data.root", str(place / "others.csv"), "--data.min_recordings", "2", "--encoder.weights", str(WEIGHTS))
    probe = command("probe.py", place / "probe", "probe", *SIZE, *words)
    depth = str(json.loads((probe / "probe.json").read_text(encoding="utf-8"))["recommended_depth"])
    size = (*SIZE, "--encoder.depth", depth)
    stage_two = (*size, *SHARED, "--data.valid_fold", str(fold), "--data.workers", "0", *way)
    plain = command("main.py", place / f"plain{'' if way else '-full'}", "finetune", *stage_two, *encoder(WEIGHTS))
    # stage 1 on sound without labels
    stage_one = adapt(place, fold, (*size, "--data.workers", "0", *encoder(WEIGHTS)), mask)
    name = f"{'masked' if mask else 'imitated'}{'' if way else '-full'}"
    adapted = command("main.py", place / name, "finetune", *stage_two, *encoder(stage_one / "encoder.safetensors"))
    # the labels of the given sites, and again
    labelled = place / f"labelled-{name}"
    labelled.mkdir(exist_ok=True)
    with redirect_stdout(None):
        teacher = exported(adapted.resolve(), labelled)
    pseudo = labelled / "pseudo" / "recordings.csv"
    if not pseudo.is_file():
        label_sites(teacher, fold, labelled)
    again = (*stage_two, *encoder(stage_one / "encoder.safetensors"), "--run.seed", "1")
    control = command("main.py", place / f"control-{name}", "finetune", *again)
    student = command("main.py", place / f"student-{name}", "finetune", *again, "--data.pseudo", str(pseudo))
    # the file that is served
    served = ("--classifier", str(student / "classifier.safetensors"), "--gate.allow_worse", "--run.threads", "1")
    small = command("quantize.py", place / f"int8-{name}", "quantize", *served)
    gate = json.loads((small / "quantize.json").read_text(encoding="utf-8"))["gate"]
    steps = [
        float_step(f"depth {depth} of probe.py, {'head alone' if way else 'fine-tuned'}", plain),
        float_step(f"on an encoder that {'reconstructs what is hidden' if mask else 'imitates BirdNET 2.4'}", adapted),
        float_step("the same with another seed (control)", control),
        float_step(f"with {len(pseudo.read_text(encoding='utf-8').splitlines()) - 1} windows it labelled", student),
    ]
    return [*steps, Step(f"INT8 (gate: {gate})", small / "classifier.int8.onnx", steps[-1].facts)]


def encoder(weights: Path) -> tuple[str, str]:
    return "--encoder.weights", str(weights)


def adapt(place: Path, fold: int, words: Sequence[str], mask: bool) -> Path:
    """The run of stage 1 on all sound of the folds that train."""
    with redirect_stdout(None):
        recordings = all_sound(fold)
    write_recordings(place / "sound.csv", recordings)
    data = ("--data.root", str(place / "sound.csv"), "--data.valid_fold", str(fold))
    if mask:
        return command("ssl_mae.py", place / "masked-encoder", "mae", *words, *data, *MASK)
    owner, vectors = embeddings(recordings)
    write_table(place / "birdnet.npz", recordings, owner, vectors)
    teacher = ("--teacher", str(place / "birdnet.npz"))
    return command("ssl_mae.py", place / "imitated-encoder", "mae", *words, *data, *IMITATE, *PASSES, *teacher)


def float_step(name: str, run: Path) -> Step:
    """The float32 file of a classifier, beside it."""
    with redirect_stdout(None):
        model = exported(run.resolve(), run.parent)
    return Step(name, model, load_classifier(run / "classifier.safetensors")[1])


def judge_at(fold: int) -> Path:
    """The soundscapes that judge."""
    return FOLDER / str(fold) / JUDGING


def on_recordings(step: Step, rows: Sequence[Recording]) -> NDArray[np.float32]:
    """(recordings, species) what a file says of recordings, each species' highest windows pooled as main.py does."""
    every = list(recording_contexts(rows, step.facts.audio))
    scores = score(open_scorer(step.model), (context.samples for context in every))
    scores = scores.reshape(len(every), -1, scores.shape[1])
    owner = np.array([context.owner for context in every for _ in context.rows])
    own = np.concatenate([scores[number, list(context.rows)] for number, context in enumerate(every)])
    times = np.zeros(len(owner))
    return pool_windows(WindowScores(owner, times, times, own, own[:, :0]), len(rows))


def print_table(rows: Sequence[Recording], soundscapes: Path, steps: Sequence[Step]) -> None:
    """One line for each step, on recordings and on soundscapes."""
    truth = truth_table(rows, steps[0].facts.taxonomy.labels, steps[0].facts.audio)
    groups = np.array([row.group for row in rows])
    of_recordings = [(truth, on_recordings(step, rows), groups) for step in steps]
    of_soundscapes = [judged(answers_of_file(step.model, step.facts, soundscapes)) for step in steps]
    print(f"\n{len(rows)} recordings; {len(of_soundscapes[0][0])} windows of {len(set(of_soundscapes[0][2]))} sites")
    print("| | recordings, cmAP | - the step before | soundscapes, cmAP | - the step before |")
    print("|---|---|---|---|---|")
    for number, step in enumerate(steps):
        cells = list[str]()
        for found in (of_recordings, of_soundscapes):
            due, scores, units = found[number]
            low, high = bootstrap_interval(partial(weighted_cmap, due, scores), units)
            cells.append(f"{cmap(due, scores):.3f} [{low:.3f}, {high:.3f}]")
            before = found[max(number - 1, 0)][1]
            low, high = bootstrap_interval(partial(gain, weighted_cmap, due, scores, before), units)
            gained = f"{cmap(due, scores) - cmap(due, before):+.3f} [{low:+.3f}, {high:+.3f}]"
            cells.append(gained if number else "")
        print(f"| {step.name} | " + " | ".join(cells) + " |")


def judged(found: Judged) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.str_]]:
    """What was due, the scores, and the site of each window."""
    return found.truth, found.scores, found.sites


if __name__ == "__main__":
    bench(next((int(word) for word in sys.argv[1:] if word.isdecimal()), 0), "full" in sys.argv, "mask" in sys.argv)
