"""The whole way on a pretend field season: adapt, fine-tune, quantise, predict, and check against the known answers.

    make demo            (or: python demo.py)

Reads    nothing: demo_data.py makes the recordings
Writes   /tmp/wildwhisper/field-season/, runs/demo/
"""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from config import DEMO_DATA
from demo_data import write_field_season

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/demo")
LEAST_OVERLAP = 0.5  # seconds of a call that a window must hold to be expected to name it


@dataclass(frozen=True)
class Interval:
    """A species in a stretch of the soundscape."""

    label: str
    start: float
    end: float
    confidence: float = 1.0


def tour() -> None:
    """Run the four commands one after the other, then compare what was heard with what was planted."""
    started = time.time()
    say(1, "field season", "pretend species, their recordings, and a soundscape with known answers")
    season = write_field_season(DEMO_DATA)
    print(f"recordings in {season.root}")
    say(2, "adapt", "the encoder paints hidden parts of unlabelled sound")
    command("ssl_mae.py", "--data.root", season.root, "--run.root", RUNS)
    say(3, "fine-tune", "the encoder and a new head learn the species")
    encoder = RUNS / "mae" / "encoder.safetensors"
    command("main.py", "--data.root", season.root, "--encoder.weights", encoder, "--run.root", RUNS)
    say(4, "quantise", "one INT8 file for a plain CPU")
    command("quantize.py", "--classifier", RUNS / "finetune" / "classifier.safetensors", "--run.root", RUNS)
    say(5, "predict", "what is to be heard in three minutes of soundscape")
    model = RUNS / "quantize" / "classifier.int8.onnx"
    command("predictor.py", season.soundscape, "--model", model, "--out", RUNS / "predict")
    say(6, "answers", "what was planted, what was found")
    print_answers(season.root / "taxonomy.csv", season.answers, HERE / RUNS / "predict" / "detections.csv")
    print("\nwritten:")
    for path in (
        "mae/reconstruction.png",
        "mae/curves.png",
        "mae/encoder.safetensors",
        "finetune/curves.png",
        "finetune/classifier.safetensors",
        "quantize/quantize.json",
        "quantize/classifier.int8.onnx",
        "predict/detections.csv",
    ):
        print(f"  {RUNS / path}")
    print(f"{time.time() - started:.0f} s in all. Next: python predictor.py YOUR_RECORDING.wav --model {model}")


def say(number: int, title: str, what: str) -> None:
    """A heading."""
    print(f"\n[{number}/6] {title}: {what}", flush=True)


def command(script: str, *arguments: str | Path) -> None:
    """Run one of the commands with the demo preset; its failure is ours."""
    words = [script, "--preset", "demo", *map(str, arguments)]
    print("$ python", " ".join(words), flush=True)
    code = subprocess.run([sys.executable, *words], cwd=HERE, check=False).returncode
    if code:
        sys.exit(code)


def print_answers(taxonomy: Path, answers: Path, detections: Path) -> None:
    """A row for each species that was planted or heard, and the sum."""
    with taxonomy.open(encoding="utf-8", newline="") as file:
        names = {row["primary_label"]: row["common_name"] for row in csv.DictReader(file)}
    with answers.open(encoding="utf-8", newline="") as file:
        planted = [
            Interval(row["primary_label"], float(row["start"]), float(row["end"])) for row in csv.DictReader(file)
        ]
    with detections.open(encoding="utf-8", newline="") as file:
        heard = [
            Interval(row["Species code"], float(row["Start (s)"]), float(row["End (s)"]), float(row["Confidence"]))
            for row in csv.DictReader(file)
        ]
    print(f"{'species':24}{'calls':>6}{'found':>7}{'false':>7}{'best':>7}")
    totals = [0, 0, 0]
    for label, name in names.items():
        calls = [call for call in planted if call.label == label]
        mine = [detection for detection in heard if detection.label == label]
        if not calls and not mine:
            continue
        counts = [
            len(calls),
            sum(any(meets(call, d) for d in mine) for call in calls),
            sum(not any(overlap(call, d) > 0 for call in calls) for d in mine),
        ]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        best = max((d.confidence for d in mine), default=0.0)
        print(f"{name[:23]:24}{counts[0]:6}{counts[1]:7}{counts[2]:7}{best:7.2f}")
    share = 100 * totals[1] / max(totals[0], 1)
    print(f"{'all':24}{totals[0]:6}{totals[1]:7}{totals[2]:7}   found {share:.0f} % of the planted calls")


def meets(call: Interval, detection: Interval) -> bool:
    """Whether a detection's window holds enough of a call: half a second, or half of a shorter one."""
    return overlap(call, detection) >= min(LEAST_OVERLAP, (call.end - call.start) / 2)


def overlap(first: Interval, second: Interval) -> float:
    """Seconds two stretches have in common; negative when they have none."""
    return min(first.end, second.end) - max(first.start, second.start)


if __name__ == "__main__":
    tour()
