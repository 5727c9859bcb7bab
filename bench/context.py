"""What longer context is worth, and what it costs: 5, 10 and 20 s heard at once, an answer for every 5 s in each.

    make bench-context          (or: .venv/bin/python -m bench.context [minutes])

Reads    ../shared/animals: labels with at least 8 recordings, fold 0 held out; and the demo's field season
Writes   runs/context/, where what is done already is not done again, and prints two tables: real recordings (3 seeds,
         same steps); the demo's soundscape (planted calls found by the INT8 file) beside milliseconds for a second of
         sound on one thread (tiny, random weights)
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from bench.arms import Arm, print_arms, run_arms
from bench.baseline import ANIMALS, MIN_RECORDINGS
from bench.cpu import SPECIES
from config import DEMO_DATA, SIZES, AudioSettings, HeadSettings
from demo import meets, overlap, read_answers, read_detections
from demo_data import FieldSeason, write_field_season
from model import BirdClefClassifier, Encoder
from serving.export import write_float, write_int8
from serving.speed import time_graph
from taxonomy import Taxonomy
from training.checkpoint import ClassifierFacts

RUNS, SEEDS = Path("runs/context"), (0, 1, 2)
LENGTHS = (5, 10, 20)
SHARED = (
    *("--preset", "demo", "--encoder.weights", "random"),
    *("--data.root", str(ANIMALS), "--data.min_recordings", str(MIN_RECORDINGS)),
    *("--train.epochs", "10", "--train.choose", "last", "--train.validate_every", "10"),
    *("--train.ema", "0.99"),
)
ARMS = tuple(Arm(f"{seconds} s at once", ("--audio.context_seconds", str(seconds))) for seconds in LENGTHS)
COLUMNS = ("macro_auc", "cmap", "top1", "macro_f1", "mistake_distance")


def soundscape(seconds: int, season: FieldSeason) -> tuple[int, int, int]:
    """Planted calls, those found, and false windows of a classifier that hears so many seconds at once, in INT8."""
    root = RUNS / f"demo-{seconds}"
    results = root / "predict"
    if not (results / "detections.csv").is_file():
        given = ("--preset", "demo", "--run.root", str(root))
        heard = (
            "--data.root",
            str(season.root),
            "--encoder.weights",
            "random",
            "--audio.context_seconds",
            str(seconds),
        )
        model = root / "quantize" / "classifier.int8.onnx"
        call("main.py", *given, *heard)
        call("quantize.py", "--run.root", str(root), "--classifier", str(root / "finetune" / "classifier.safetensors"))
        call("predictor.py", str(season.soundscape), "--model", str(model), "--out", str(results))
    planted = read_answers(season.answers)
    detected = read_detections(results / "detections.csv", season.soundscape)
    found = sum(any(meets(one, d) for d in detected if d.label == one.label) for one in planted)
    false = sum(not any(overlap(one, d) > 0 for one in planted if one.label == d.label) for d in detected)
    return len(planted), found, false


def call(*words: str) -> None:
    """One of the commands, its words kept from the screen unless it fails."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr.strip().splitlines()[-3:]}"


def cost(seconds: int) -> tuple[float, float]:
    """Milliseconds for a second of sound, float32 and INT8, of an encoder of size tiny on one thread."""
    audio, folder = replace(AudioSettings(), context_seconds=float(seconds)), RUNS / f"tiny-{seconds}"
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(f"Avis ficta{number}" for number in range(SPECIES))
    lineage = ("Animalia", "Chordata", "Aves", "Passeriformes", "Fictidae", "Avis")
    taxonomy = Taxonomy(names, names, names, tuple((*lineage, name) for name in names), (7,) * SPECIES)
    facts = ClassifierFacts("tiny", audio, HeadSettings(), taxonomy, {})
    model = BirdClefClassifier(Encoder(SIZES["tiny"], audio), audio, SPECIES, HeadSettings()).eval()
    whole, small = folder / "classifier.onnx", folder / "classifier.int8.onnx"
    write_float(model, facts, whole, verified=False)
    write_int8(whole, small, facts, verified=False)
    samples = seconds * audio.sample_rate
    return time_graph(whole.read_bytes(), samples) / seconds, time_graph(small.read_bytes(), samples) / seconds


if __name__ == "__main__":
    run_arms(RUNS, ARMS, SHARED, SEEDS, float(sys.argv[1]) if len(sys.argv) > 1 else 120.0)
    print_arms(RUNS, ARMS, SEEDS, COLUMNS)
    field_season = write_field_season(DEMO_DATA)
    print(f"\n{'':16}{'planted':>9}{'found':>9}{'false':>9}{'ms/s float32':>15}{'ms/s INT8':>12}")
    for length in LENGTHS:
        counts, (plain, quantised) = soundscape(length, field_season), cost(length)
        print(f"{length:>4} s at once  " + "".join(f"{n:9}" for n in counts) + f"{plain:15.2f}{quantised:12.2f}")
