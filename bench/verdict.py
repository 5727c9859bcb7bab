"""Does stage 1 help? The same head, data and steps from a random start and from masked autoencoding of several kinds.

    make bench-verdict          (or: .venv/bin/python -m bench.verdict [minutes] [folder with Whisper's weights])

Reads    ../shared/animals: labels with at least 8 recordings; fold 0 is held out of both stages
Writes   runs/verdict/, where what is done already is not done again, and prints one table and one sentence

Each arm: stage 1 (where it has one), then a frozen probe (logistic regression on mean, deviation and maximum over the
tokens of every layer, each layer-normalised), then head and encoder fine-tuned together. The same seeds for every arm;
the same held-out recordings, resampled together for an arm and the random start (for Whisper: with and without stage
1), the seeds averaged inside. Fine-tuning keeps the running mean of the weights at the last epoch: nothing is chosen on
the held-out recordings. Runs go on until the minutes are over, the questions that matter most first; the table shows
what is done.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional

from archive.recordings import Recording
from bench.arms import difference, is_finished
from bench.baseline import ANIMALS, FOLD, MIN_RECORDINGS
from config import (
    PRESETS,
    SIZES,
    AudioSettings,
    DataSettings,
    EncoderSettings,
    FinetuneCommand,
    Preset,
    PretrainCommand,
    parse,
)
from data_loader import read_labeled, recording_contexts, split, truth_table
from evaluation.held_out import WindowScores, pool_windows
from evaluation.metrics import cmap
from main import finetune
from model import Encoder, LogMel
from runtime.runs import read_records
from ssl_mae import pretrain
from training.checkpoint import load_encoder

RUNS = Path("runs/verdict")
AUDIO = AudioSettings()
DATA = DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS, valid_fold=FOLD)
SEEDS = (0, 1, 2)
SHARED = ("--data.root", str(ANIMALS), "--data.valid_fold", str(FOLD))
PRETRAIN = (
    "--train.epochs",
    "10",
    "--train.batch_size",
    "8",
    "--train.encoder_rate",
    "2e-3",
    "--train.head_rate",
    "2e-3",
)
FINETUNE = (
    *("--train.epochs", "12", "--data.min_recordings", str(MIN_RECORDINGS)),
    *("--train.ema", "0.99", "--train.choose", "last", "--train.validate_every", "12"),
)
WAYS = ("frozen", "full")
PROBE_C = 0.01  # of the logistic regression, for every arm
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Arm:
    """One way to come by an encoder."""

    name: str
    stage_one: tuple[str, ...] | None  # flags of ssl_mae.py; None: no stage 1
    against: str  # the arm it is compared with
    weights: str = "random"  # what it starts from
    preset: Preset = "demo"


SPAN = ("--mask.strategy", "span")
ARMS = (
    Arm("random start", None, ""),
    Arm("MAE span .65", SPAN, "random start"),
    Arm("MAE time-shuffled (control)", (*SPAN, "--mask.shuffle"), "random start"),
    Arm("MAE energy .65", ("--mask.strategy", "energy"), "random start"),
    Arm("MAE random .65", ("--mask.strategy", "random"), "random start"),
    Arm("MAE block .65", ("--mask.strategy", "block"), "random start"),
    Arm("MAE span .50", (*SPAN, "--mask.ratio", "0.5"), "random start"),
    Arm("MAE span .75", (*SPAN, "--mask.ratio", "0.75"), "random start"),
    Arm("MAE span .65, teacher's targets", (*SPAN, "--target", "teacher"), "random start"),
    Arm("MAE span .65, four times as long", (*SPAN, "--train.epochs", "40"), "random start"),
    Arm(
        "MAE span .65, teacher's targets, four times as long",
        (*SPAN, "--target", "teacher", "--train.epochs", "40"),
        "random start",
    ),
)


def bench(minutes: float, whisper: str) -> None:
    """Run what is not yet done, then print the table."""
    assert ANIMALS.is_dir(), f"no recordings at {ANIMALS}; run from the project's folder, with shared/ beside it"
    deadline = time.monotonic() + 60 * minutes
    arms = list(ARMS)
    if whisper:
        size = preset_of(Path(whisper))
        arms += [Arm(f"random start, {size}", None, "", preset=size)]
        arms += [Arm("Whisper", None, f"random start, {size}", whisper, size)]
        arms += [Arm("Whisper + MAE", (), "Whisper", whisper, size)]
    work = [(arm, way, seed) for group in (arms[:4], arms[4:]) for way in WAYS for seed in SEEDS for arm in group]
    for arm, way, seed in work:
        if time.monotonic() < deadline:
            run_arm(arm, way, seed)
    print_table(arms)


def run_arm(arm: Arm, way: str, seed: int) -> None:
    """Stage 1 where it is not yet done, then one way of judging it; what the commands print goes to a file."""
    place = folder_of(arm, seed)
    place.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    own = (*SHARED, "--preset", arm.preset, "--run.seed", str(seed))
    with (place / "printed.txt").open("a", encoding="utf-8") as file, redirect_stdout(file):
        weights = arm.weights
        if arm.stage_one is not None:
            weights = str(place / "mae" / "encoder.safetensors")
            if not is_finished(place / "mae"):
                start = ("--encoder.weights", arm.weights, "--run.root", str(place))
                pretrain(parse(PretrainCommand, [*own, *PRETRAIN, *start, *arm.stage_one]))
        if way == "full" and not is_finished(place / "finetune"):
            start = ("--encoder.weights", weights, "--run.root", str(place))
            finetune(parse(FinetuneCommand, [*own, *FINETUNE, *start]))
        if way == "frozen" and not (place / "probe.npy").is_file():
            torch.manual_seed(seed)
            np.save(place / "probe.npy", probe(load_encoder(EncoderSettings(arm.preset, weights), AUDIO)))
    if (seconds := time.monotonic() - started) > 1:
        print(f"{arm.name}, {way}, seed {seed}: {seconds:.0f} s", flush=True)


def probe(encoder: Encoder) -> Scores:
    """(held-out recordings, species): what logistic regression makes of a frozen encoder."""
    taxonomy, recordings = read_labeled(DATA)
    train, valid = split(recordings, DATA)
    (owners, features), (others, exam) = (layer_statistics(encoder.eval(), rows) for rows in (train, valid))
    column = {label: index for index, label in enumerate(taxonomy.labels)}
    labels = np.array([column[train[owner].labels[0]] for owner in owners])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=PROBE_C, max_iter=1000)).fit(features, labels)
    scores = model.predict_proba(exam).astype(np.float32)
    assert scores.shape[1] == len(taxonomy.labels), "a species has no training recording"
    times = np.zeros(len(others))
    return pool_windows(WindowScores(others, times, times, scores, scores[:, :0]), len(valid))


@torch.inference_mode()
def layer_statistics(encoder: Encoder, recordings: Sequence[Recording]) -> tuple[NDArray[np.int64], Scores]:
    """The recording of each window, and (windows, 3 * width * layers) statistics of its tokens."""
    log_mel, seen = LogMel(AUDIO, encoder.size.mels), list[Tensor]()

    def remember(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
        seen.append(output)

    hooks = [layer.register_forward_hook(remember) for layer in encoder.whisper.layers]
    owners, rows = list[int](), list[NDArray[np.float32]]()
    for context in recording_contexts(recordings, AUDIO):
        seen.clear()
        encoder(log_mel(torch.from_numpy(context.samples)[None]))
        normal = [functional.layer_norm(states[0], states.shape[2:]) for states in seen]
        owners.append(context.owner)
        rows.append(torch.cat([torch.cat([s.mean(0), s.std(0), s.amax(0)]) for s in normal]).numpy())
    for hook in hooks:
        hook.remove()
    return np.array(owners), np.stack(rows)


def print_table(arms: list[Arm]) -> None:
    """cmAP of every arm, its distance to what it is compared with, and what may be said of it."""
    with redirect_stdout(None):
        taxonomy, recordings = read_labeled(DATA)
        _, valid = split(recordings, DATA)
    truth = truth_table(valid, taxonomy.labels, AUDIO)
    groups = np.array([recording.group for recording in valid])
    places = [str(recording.path.resolve()) for recording in valid]
    print(f"\n{'arm':54}{'way':8}{'seeds':>6}{'skill':>8}{'cmAP':>7}{'difference':>12}   95 % interval")
    for way in WAYS:
        found = {arm.name: scores_of(arm, way, places, taxonomy.labels) for arm in arms}
        for arm in arms:
            mine, other = found[arm.name], found.get(arm.against, {})
            if not mine:
                continue
            mean = np.mean([cmap(truth, scores) for scores in mine.values()])
            skills = [read_records(folder_of(arm, s) / "mae")[-1]["skill"] for s in mine if arm.stage_one is not None]
            skill = f"{np.mean(skills):8.3f}" if skills else " " * 8
            text = f"{arm.name:54}{way:8}{len(mine):6}{skill}{mean:7.3f}"
            both = sorted(set(mine) & set(other))
            if both:
                low, middle, high = difference(truth, [mine[s] for s in both], [other[s] for s in both], groups)
                verdict = "better" if low > 0 else "worse" if high < 0 else "no evidence either way"
                text += f"{middle:+12.3f}   [{low:+.3f}, {high:+.3f}]  {verdict} than {arm.against}"
            print(text)
    print(
        "An interval that holds 0 says that these recordings cannot tell; it does not say that there is no difference."
    )


def scores_of(arm: Arm, way: str, places: list[str], labels: tuple[str, ...]) -> dict[int, Scores]:
    """Seed -> (recordings, species): the mean over each recording's windows, of the runs that are done."""
    found: dict[int, Scores] = {}
    row_of = {place: row for row, place in enumerate(places)}
    for seed in SEEDS:
        run = folder_of(arm, seed) / "finetune"
        if way == "frozen" and (kept := folder_of(arm, seed) / "probe.npy").is_file():
            found[seed] = np.load(kept)
        if way == "full" and is_finished(run):
            total, count = np.zeros((len(places), len(labels))), np.zeros(len(places))
            with (run / "held_out_scores.csv").open(encoding="utf-8", newline="") as file:
                for line in csv.DictReader(file):
                    total[row_of[line["file"]]] += [float(line[label]) for label in labels]
                    count[row_of[line["file"]]] += 1
            found[seed] = (total / count[:, None]).astype(np.float32)
    return found


def preset_of(folder: Path) -> Preset:
    """The size of a Whisper checkpoint in the hub's format."""
    facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for preset in PRESETS:
        if (SIZES[preset].width, SIZES[preset].layers) == (facts["d_model"], facts["encoder_layers"]):
            return preset
    raise AssertionError(f"{folder} is no Whisper encoder of a known size")


def folder_of(arm: Arm, seed: int) -> Path:
    plain = "".join(letter if letter.isalnum() else "-" for letter in arm.name)
    return RUNS / f"{plain}-{seed}"


if __name__ == "__main__":
    bench(
        float(sys.argv[1]) if len(sys.argv) > 1 else 240.0,
        sys.argv[2] if len(sys.argv) > 2 else "",
    )
