"""The whole way on a pretend field season: look, adapt, fine-tune, quantise, predict, listen, compare.

    make demo            (or: python demo.py)

Reads    nothing: demo_data.py makes the recordings
Writes   /tmp/wildwhisper/field-season/, runs/demo/
"""

from __future__ import annotations

import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

import csv
import io
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config import DEMO_DATA
from demo_data import write_field_season
from runtime.files import publish
from runtime.terminal import command_line, interrupt, show
from sounds.audio import open_recording

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/demo")
SPECTROGRAM_RATE, SPECTROGRAM_FFT = 16_000, 1024  # Hz, samples
LEAST_OVERLAP = 0.5  # seconds of a call that a window must hold to be expected to name it


@dataclass(frozen=True)
class Interval:
    """A species in a segment of the soundscape."""

    label: str
    start: float
    end: float
    confidence: float = 1.0


def tour() -> None:
    """Run the commands one after the other, then compare what was detected with what was planted."""
    started = time.time()
    say(1, "field season", "pretend species, their recordings, and a soundscape with known answers")
    season = write_field_season(DEMO_DATA)
    show(f"recordings in {season.root}")
    say(2, "look", "every recording is opened once")
    command("data_loader.py", "--data.root", season.root, "--run.root", RUNS)
    table = RUNS / "data" / "recordings.csv"
    say(3, "adapt", "the encoder fills in hidden parts of unlabelled sound")
    command("ssl_mae.py", "--data.root", table, "--run.root", RUNS)
    say(4, "fine-tune", "the encoder and a new head learn the species")
    encoder = RUNS / "mae" / "encoder.safetensors"
    command("main.py", "--data.root", table, "--encoder.weights", encoder, "--run.root", RUNS)
    say(5, "quantise", "one INT8 file for a plain CPU")
    command("quantize.py", "--classifier", RUNS / "finetune" / "classifier.safetensors", "--run.root", RUNS)
    say(6, "predict", "species in three minutes of soundscape, and in a week of short recordings")
    model, results = RUNS / "quantize" / "classifier.int8.onnx", RUNS / "predict"
    inputs = (season.soundscape, season.root / "unlabeled")
    command("predictor.py", *inputs, "--model", model, "--out", results, "--restart")
    say(7, "report", "one page to listen to what was found")
    command("report.py", results, "--title", "A pretend field season")
    say(8, "answers", "what was planted in the soundscape, what was found")
    names, planted = read_names(season.root / "taxonomy.csv"), read_answers(season.answers)
    detected = read_detections(HERE / results / "detections.csv", season.soundscape)
    print_answers(names, planted, detected)
    draw_answers(season.soundscape, names, planted, detected, HERE / RUNS / "predict" / "answers.png")
    show("\nwritten:")
    for path in (
        "data/summary.png",
        "data/recordings.csv",
        "mae/reconstruction.png",
        "mae/curves.png",
        "mae/encoder.safetensors",
        "finetune/curves.png",
        "finetune/classifier.safetensors",
        "quantize/quantize.json",
        "quantize/classifier.int8.onnx",
        "predict/detections.csv",
        "predict/answers.png",
        "predict/report.html",
    ):
        show(f"  {RUNS / path}")
    show(f"{time.time() - started:.0f} s in all. Next, or with a recording of your own:")
    show(f"  {command_line('predictor.py', season.soundscape, '--model', HERE / model)}")


def say(number: int, title: str, what: str) -> None:
    """A heading."""
    show(f"\n[{number}/8] {title}: {what}")


def command(script: str, *arguments: str | Path) -> None:
    """Run one of the commands, those that train with the demo preset; its failure is ours."""
    preset = ["--preset", "demo"] if script in ("ssl_mae.py", "main.py") else []
    words = [script, *preset, *map(str, arguments)]
    show("$ python", " ".join(words))
    with subprocess.Popen([sys.executable, *words], cwd=HERE) as child:
        try:
            code = child.wait()
        except KeyboardInterrupt:  # it says itself what it saves; a terminal alone has sent it this too
            child.send_signal(signal.SIGINT)
            code = child.wait()
    if code:
        sys.exit(code)


def read_answers(path: Path) -> list[Interval]:
    """What was planted."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [Interval(row["primary_label"], float(row["start"]), float(row["end"])) for row in rows]


def read_detections(path: Path, recording: Path) -> list[Interval]:
    """What was detected in a recording."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["File"] == str(recording)]
    return [
        Interval(row["Species code"], float(row["Start (s)"]), float(row["End (s)"]), float(row["Confidence"]))
        for row in rows
    ]


def read_names(path: Path) -> dict[str, str]:
    """Label -> common name."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["primary_label"]: row["common_name"] for row in csv.DictReader(file)}


def print_answers(names: Mapping[str, str], planted: Sequence[Interval], detected: Sequence[Interval]) -> None:
    """A row for each species that was planted or detected, and the sum."""
    show(f"{'species':24}{'calls':>6}{'found':>7}{'false':>7}{'best':>7}")
    totals = [0, 0, 0]
    for label, name in names.items():
        calls = [call for call in planted if call.label == label]
        found = [detection for detection in detected if detection.label == label]
        if not calls and not found:
            continue
        counts = [
            len(calls),
            sum(any(meets(call, d) for d in found) for call in calls),
            sum(not any(overlap(call, d) > 0 for call in calls) for d in found),
        ]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        best = max((d.confidence for d in found), default=0.0)
        show(f"{name[:23]:24}{counts[0]:6}{counts[1]:7}{counts[2]:7}{best:7.2f}")
    share = 100 * totals[1] / max(totals[0], 1)
    show(f"{'all':24}{totals[0]:6}{totals[1]:7}{totals[2]:7}   found {share:.0f} % of the planted calls")


def draw_answers(
    soundscape: Path, names: Mapping[str, str], planted: Sequence[Interval], detected: Sequence[Interval], path: Path
) -> None:
    """The soundscape as a picture; under it, for each species, where it was planted (frames) and detected (the darker,
    the surer)."""
    from matplotlib.figure import Figure  # slow to import, and only drawn once
    from PIL import Image  # comes with matplotlib

    sound = np.concatenate(list(open_recording(soundscape, SPECTROGRAM_RATE).waveform()))
    frames = sound[: len(sound) // SPECTROGRAM_FFT * SPECTROGRAM_FFT].reshape(-1, SPECTROGRAM_FFT)
    power = np.abs(np.fft.rfft(frames * np.hanning(SPECTROGRAM_FFT), axis=1)) ** 2
    picture = 10 * np.log10(power.T + 1e-9)
    seconds = len(sound) / SPECTROGRAM_RATE
    shown = [label for label in names if any(x.label == label for x in (*planted, *detected))]
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 3])
    low, high = np.percentile(picture, [20, 99.8])
    extent = (0.0, seconds, 0.0, SPECTROGRAM_RATE / 2000)
    above.imshow(picture, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high, cmap="magma")
    above.set_ylabel("kHz")
    for row, label in enumerate(reversed(shown)):
        for d in (d for d in detected if d.label == label):
            below.barh(row, d.end - d.start, left=d.start, height=0.8, color="tab:green", alpha=d.confidence)
        for call in (call for call in planted if call.label == label):
            below.barh(row, call.end - call.start, left=call.start, height=0.8, fill=False, edgecolor="black")
    below.set_yticks(range(len(shown)), [names[label] for label in reversed(shown)])
    below.set_xlabel("seconds   (frame: planted; green: detected, the darker the surer)")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80)
    with publish(path) as temporary:  # a palette is a third of the size, and the README shows this picture
        Image.open(drawn).convert("RGB").quantize(256).save(temporary, format="png", optimize=True)


def meets(call: Interval, detection: Interval) -> bool:
    """Whether a detection's window holds enough of a call: half a second, or half of a shorter one."""
    return overlap(call, detection) >= min(LEAST_OVERLAP, (call.end - call.start) / 2)


def overlap(first: Interval, second: Interval) -> float:
    """Seconds two segments have in common; negative when they have none."""
    return min(first.end, second.end) - max(first.start, second.start)


if __name__ == "__main__":
    if sys.argv[1:]:  # it takes none: somebody wants to know what it is
        print(__doc__)
    else:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        try:
            tour()
        except KeyboardInterrupt:
            show("stopped; the same command begins anew", error=True)
            sys.exit(130)
