"""Calls of bats found within 20 ms in real recordings, by a network that was trained on made-up ones alone.

    make bench-bats          (or: .venv/bin/python -m bench.bats)

Reads    ../shared/whisper-base; ../shared/bats: three half seconds at 384 and 500 kHz, in which another detector has
         noted every call (its authors: "do not assume correct")
Writes   runs/bats/: a season of made-up sweeps and tones with their insects, and a classifier for each geometry, where
         what is there already is not made again; prints one line for each geometry

The network answers for every 20 ms of half a second. At 16 kHz there is no bat in the sound, so what it finds there is
chance: the negative control.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sounds.audio import read_samples
from sounds.windows import network_input
from training.checkpoint import load_classifier

BATS, WEIGHTS, RUNS = Path("../shared/bats"), Path("../shared/whisper-base"), Path("runs/bats")
SECONDS, NEAR, EACH = 0.5, 0.02, 40  # of a recording; of a window, and how near is found; recordings of a kind
KINDS = ("sweep", "tone", "hook")  # FM, CF, FM that ends in nearly CF
FALSE_SHARE = 0.05  # of the windows without a call that may be flagged
ARMS = {
    "bat, 256 kHz": ("--sound", "bat"),
    "bat, hop 1 ms": ("--sound", "bat", "--audio.hop_seconds", "0.001"),
    "bird, 16 kHz": ("--sound", "bird"),
}


def call(kind: str, rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """One call, as loud as it may be: start and end of its pitch, its length and level drawn anew each time."""
    low, length = rng.uniform(20_000, 60_000), rng.uniform(0.003, 0.008)
    high = low + rng.uniform(20_000, 50_000)
    if kind == "tone":
        high = low = rng.uniform(60_000, 110_000)
        length = rng.uniform(0.015, 0.04)
    share = np.linspace(0, 1, round(length * rate))
    pitch = low + (high - low) * ((1 - share) if kind != "hook" else (1 - share) ** 3)
    return 10 ** rng.uniform(-2.2, -0.7) * np.sin(2 * np.pi * np.cumsum(pitch) / rate) * np.hanning(len(share))


def recording(kind: str, rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Half a second of hiss, perhaps a bush-cricket and clicks below 30 kHz, and some calls of a kind, or none."""
    sound = 10 ** rng.uniform(-3.5, -2.3) * rng.normal(0, 1, round(SECONDS * rate))
    time = np.arange(len(sound)) / rate
    if rng.random() < 0.5:
        cricket = np.sin(2 * np.pi * rng.uniform(4_000, 25_000) * time)
        sound += 10 ** rng.uniform(-3, -1.5) * cricket * (np.sin(2 * np.pi * rng.uniform(15, 60) * time) > 0)
    begin = rng.uniform(0, 0.1)
    while kind in KINDS and begin < SECONDS - 0.05:
        pulse, first = call(kind, rate, rng), round(begin * rate)
        sound[first : first + len(pulse)] += pulse
        begin += rng.uniform(0.06, 0.12)
    return np.clip(sound, -1, 1).astype(np.float32)


def write_season(folder: Path) -> Path:
    """Recordings of each kind, and of none, at 256 and 384 kHz."""
    rng = np.random.default_rng(0)
    if not (folder / "done").is_file():
        for kind in (*KINDS, "nothing"):
            below = folder / ("nothing" if kind == "nothing" else "season") / kind
            below.mkdir(parents=True, exist_ok=True)
            for number in range(EACH):
                rate = (256_000, 384_000)[number % 2]
                soundfile.write(below / f"{kind}{number}.wav", recording(kind, rate, rng), rate)
        (folder / "done").touch()
    return folder


def trained(name: str, flags: tuple[str, ...], folder: Path) -> Path:
    """The classifier of a geometry: Whisper base as it is, and a head on it."""
    root = RUNS / name.replace(" ", "-").replace(",", "")
    model = root / "finetune" / "classifier.safetensors"
    if not model.is_file():
        words = ["main.py", "--preset", "base", "--encoder.weights", str(WEIGHTS), "--train.frozen", *flags]
        words += ["--audio.window_seconds", str(NEAR), "--audio.context_seconds", str(SECONDS)]
        words += ["--data.root", str(folder / "season"), "--data.layout", "folders", "--run.root", str(root)]
        words += ["--data.no_call", str(folder / "nothing"), "--data.no_call_share", "0.3", "--data.workers", "0"]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr.strip().splitlines()[-3:] or done.stdout[-300:]}"
    return model


def windows_of(path: Path, model: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Start in seconds and score of every 20 ms of a recording, and of those half a window later: the surest kind."""
    network, facts = load_classifier(model)
    audio, starts, scores = facts.audio, list[float](), list[float]()
    for shift in (0.0, NEAR / 2):
        samples = read_samples(path, round(shift * audio.sample_rate), audio.samples, audio.sample_rate)
        whole = len(samples) / audio.sample_rate
        with torch.no_grad():
            answer = network(torch.from_numpy(network_input(samples, audio.samples))[None]).amax(dim=1)
        for number, score in enumerate(answer.tolist()):
            if (number + 1) * NEAR <= whole + 1e-6:
                starts.append(shift + number * NEAR)
                scores.append(score)
    return np.array(starts), np.array(scores)


def judge(model: Path) -> dict[str, float]:
    """Area under the curve of windows with against windows without a call, and the share of calls found within 20 ms
    where the threshold flags 5 % of the windows without one."""
    without: list[NDArray[np.float64]] = []
    within: list[NDArray[np.float64]] = []
    nearest: list[float] = []  # the highest score within 20 ms of each call
    for notes in sorted(BATS.glob("*.json")):
        calls: list[dict[str, Any]] = json.loads(notes.read_text())["annotation"]
        starts, scores = windows_of(notes.with_suffix(""), model)
        shared = [
            np.minimum(starts + NEAR, one["end_time"]) - np.maximum(starts, one["start_time"]) > 0 for one in calls
        ]
        present = np.any(shared, axis=0)
        within, without = [*within, scores[present]], [*without, scores[~present]]
        for one in calls:
            middle = (one["start_time"] + one["end_time"]) / 2
            near = np.abs(starts + NEAR / 2 - middle) <= NEAR
            nearest.append(float(scores[near].max(initial=-np.inf)))
    quiet, loud = np.concatenate(without), np.concatenate(within)
    limit = float(np.quantile(quiet, 1 - FALSE_SHARE, method="higher"))
    truth = np.r_[np.zeros(len(quiet)), np.ones(len(loud))]
    return {
        "calls": len(nearest),
        "windows": len(truth),
        "AUC": float(roc_auc_score(truth, np.r_[quiet, loud], average=None)),
        "recall": float(np.mean(np.array(nearest) > limit)),
    }


if __name__ == "__main__":
    assert BATS.is_dir() and WEIGHTS.is_dir(), f"needs {BATS} and {WEIGHTS}"
    made_up = write_season(RUNS)
    for arm, flags in ARMS.items():
        found = judge(trained(arm, flags, made_up))
        print(f"{arm:16}" + "".join(f"{key} {value:8.3f}  " for key, value in found.items()))
