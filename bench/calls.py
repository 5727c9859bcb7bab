"""Calls of bats and whales found by networks that were trained on made-up ones: at the animal's own rate, at 16 kHz.

    make bench-bats     make bench-whales     (or: .venv/bin/python -m bench.calls bats)

Reads    ../shared/whisper-base; of bats ../shared/bats too: three half seconds at 384 and 500 kHz, in which another
         detector has noted every call (its authors: "do not assume correct")
Writes   runs/bats/, runs/whales/: a season of made-up calls to train on and one to judge by, whose calls are known
         exactly, and a classifier for each geometry, where what is there already is not made again; prints one line for
         each geometry and set of recordings

A call is found where a window whose middle is near its own scores higher than 95 % of the windows without a call in all
other recordings of the set: no recording has a say in the threshold that it is judged by. At 16 kHz there is no bat in
the sound, so what is found there is chance: the negative control. `flagged` is the share of windows without a call that
are above those thresholds, `chance` what would be found if every window were flagged as often, whatever is in it.

Arms of bats learn from contexts of half a second, of which only the kind of bat is known, or `from annotations`: where
each call is, in contexts of 40 ms.

source    fin whales: https://doi.org/10.1121/1.395685 (1 s, 23 to 18 Hz); blue whales: https://doi.org/10.1121/1.1913089
          (tones of some 20 s near 20 Hz, with harmonics); humpbacks: https://doi.org/10.1126/science.173.3997.585
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from config import AudioSettings
from evaluation.metrics import Weights, bootstrap_interval
from model import BirdClefClassifier
from sounds.audio import read_samples
from sounds.windows import network_input
from training.checkpoint import load_classifier

WEIGHTS, BATS = Path("../shared/whisper-base"), Path("../shared/bats")
FALSE_SHARE = 0.05  # of the windows without a call that may be flagged
JUDGED = 8  # made-up recordings of a kind that are judged
HEAD = ("--train.frozen", "--train.head_passes", "1", "--train.head_updates", "200")  # of all arms alike
BAT_RATE, BIRD_RATE = ("--sound", "bat"), ("--sound", "bird")  # 256 kHz, 16 kHz
HALF_SECOND, SHORT = ("--audio.context_seconds", "0.5"), ("--audio.context_seconds", "0.04")  # a bat's call fits
Sound = NDArray[np.float64]
Scores = NDArray[np.float32]


class Call(NamedTuple):
    """What calls, and from when to when, in seconds."""

    kind: str
    start: float
    end: float


class Heard(NamedTuple):
    """What a classifier makes of a recording."""

    quiet: Scores  # highest of each window without a call
    loud: Scores  # the same of those with one
    near: list[tuple[Call, Scores]]  # each call, and (windows, kinds) of the windows near it


class Arm(NamedTuple):
    """How a classifier of calls is trained."""

    flags: tuple[str, ...]  # of main.py
    layout: str = "folders"  # annotations: it is told where each call is, not only of which kind a recording's are


@dataclass(frozen=True)
class Animal:
    """What is made up, and how it is listened to."""

    name: str
    kinds: tuple[str, ...]
    rates: tuple[int, ...]  # Hz
    seconds: float  # of a recording
    near: float  # seconds: of a window, and how near to a call it is found
    each: int  # recordings of each kind, and of none
    sound: Callable[[str, int, np.random.Generator], tuple[Sound, list[Call]]]
    arms: dict[str, Arm]


def bat_sound(kind: str, rate: int, rng: np.random.Generator) -> tuple[Sound, list[Call]]:
    """Half a second of hiss, perhaps a bush-cricket and clicks below 30 kHz, and some calls of a kind, or none."""
    seconds, calls = BAT.seconds, list[Call]()
    sound = 10 ** rng.uniform(-3.5, -2.3) * rng.normal(0, 1, round(seconds * rate))
    time = np.arange(len(sound)) / rate
    if rng.random() < 0.5:
        cricket = np.sin(2 * np.pi * rng.uniform(4_000, 25_000) * time)
        sound += 10 ** rng.uniform(-3, -1.5) * cricket * (np.sin(2 * np.pi * rng.uniform(15, 60) * time) > 0)
    begin = rng.uniform(0, 0.1)
    while kind in BAT.kinds and begin < seconds - 0.05:
        calls.append(laid(sound, bat_call(kind, rate, rng), begin, rate, kind))
        begin += rng.uniform(0.06, 0.12)
    return sound, calls


def bat_call(kind: str, rate: int, rng: np.random.Generator) -> Sound:
    """Start and end of its pitch, its length and level drawn anew each time: FM, CF, FM that ends in nearly CF, and a
    social call, which is lower and trembles."""
    low, length = rng.uniform(20_000, 60_000), rng.uniform(0.003, 0.008)
    high = low + rng.uniform(20_000, 50_000)
    if kind == "tone":
        high = low = rng.uniform(60_000, 110_000)
        length = rng.uniform(0.015, 0.04)
    if kind == "social":
        low, length = rng.uniform(14_000, 20_000), rng.uniform(0.02, 0.04)
        high = low + rng.uniform(5_000, 15_000)
    share = np.linspace(0, 1, round(length * rate))
    pitch = low + (high - low) * ((1 - share) if kind != "hook" else (1 - share) ** 3)
    if kind == "social":
        pitch = pitch + 2_000 * np.sin(2 * np.pi * 4 * share)
    return 10 ** rng.uniform(-2.2, -0.7) * np.sin(2 * np.pi * np.cumsum(pitch) / rate) * np.hanning(len(share))


def whale_sound(kind: str, rate: int, rng: np.random.Generator) -> tuple[Sound, list[Call]]:
    """A minute of the sea, louder the lower, perhaps a ship, and some calls of a kind, or none."""
    seconds, calls = WHALE.seconds, list[Call]()
    sound = sea(round(seconds * rate), rate, rng)
    if rng.random() < 0.5:
        sound += ship(len(sound), rate, rng)
    begin, pause = rng.uniform(0, 4), {"fin": (8, 14), "blue": (4, 20), "humpback": (0.5, 2)}.get(kind, (1, 1))
    while kind in WHALE.kinds:
        made = whale_call(kind, rate, rng)
        if begin + len(made) / rate > seconds:
            break
        calls.append(laid(sound, made, begin, rate, kind))
        begin = calls[-1].end + rng.uniform(*pause)
    return sound, calls


def sea(samples: int, rate: int, rng: np.random.Generator) -> Sound:
    """Noise that loses 6 dB an octave from 20 Hz up, as the deep sea does."""
    spectrum = np.fft.rfft(rng.normal(0, 1, samples))
    hertz = np.fft.rfftfreq(samples, 1 / rate)
    noise: Sound = np.fft.irfft(spectrum / np.maximum(hertz, 20) * 20, samples)
    loudness = 10 ** rng.uniform(-3.2, -2.2) / float(noise.std())
    return loudness * noise


def ship(samples: int, rate: int, rng: np.random.Generator) -> Sound:
    """Lines at multiples of the rate of its propeller's blades, and broad noise that beats at it, as it goes by."""
    time, blades = np.arange(samples) / rate, rng.uniform(5, 12)
    lines = sum(
        rng.uniform(0.2, 1) / number * np.sin(2 * np.pi * (blades * number * time + rng.random()))
        for number in range(1, 11)
    )
    broad = rng.normal(0, 0.4, samples) * (1 + 0.5 * np.sin(2 * np.pi * blades * time))
    closest, length = rng.uniform(0, samples / rate), rng.uniform(20, 60)
    return 10 ** rng.uniform(-3, -1.8) * (lines + broad) * np.exp(-(((time - closest) / length) ** 2))


def whale_call(kind: str, rate: int, rng: np.random.Generator) -> Sound:
    """A fin whale's pulse, a blue whale's tone with its harmonics, or a unit of a song such as a humpback's."""
    level, harmonics = 10 ** rng.uniform(-2.2, -1), [1.0]
    if kind == "fin":
        length, first, last = rng.uniform(0.7, 1.1), rng.uniform(23, 28), rng.uniform(16, 19)
    elif kind == "blue":
        length, first = rng.uniform(10, 18), rng.uniform(15.5, 18)
        last, harmonics = first - rng.uniform(0, 1), [0.5, 0.2, 1.0]
    else:
        length, first, last = rng.uniform(0.5, 2), rng.uniform(120, 500), rng.uniform(120, 500)
        harmonics = [1.0, 0.5, 0.25]
    share = np.linspace(0, 1, round(length * rate))
    phase = 2 * np.pi * np.cumsum(first + (last - first) * share) / rate
    tones = sum(part * np.sin((number + 1) * phase) for number, part in enumerate(harmonics))
    return level * tones * np.minimum(1, 4 * np.minimum(share, 1 - share) + 1e-9)


def laid(sound: Sound, call: Sound, begin: float, rate: int, kind: str) -> Call:
    """Add a call to a sound, in place; returns where exactly it is."""
    first = round(begin * rate)
    sound[first : first + len(call)] += call
    return Call(kind, first / rate, (first + len(call)) / rate)


BAT = Animal(
    "bats",
    ("sweep", "tone", "hook", "social"),
    (256_000, 384_000),
    0.5,
    0.02,
    40,
    bat_sound,
    {
        "bat, from annotations": Arm((*BAT_RATE, *SHORT), "annotations"),
        "bird, from annotations": Arm((*BIRD_RATE, *SHORT), "annotations"),
        "bat": Arm((*BAT_RATE, *HALF_SECOND)),
        "bird": Arm((*BIRD_RATE, *HALF_SECOND)),
    },
)
WHALE = Animal(
    "whales",
    ("fin", "blue", "humpback"),
    (2_000,),
    60.0,
    1.0,
    12,
    whale_sound,
    {
        "whale": Arm(("--sound", "whale", "--audio.context_seconds", "15")),
        "bird": Arm((*BIRD_RATE, "--audio.context_seconds", "15")),
    },
)
ANIMALS = {animal.name: animal for animal in (BAT, WHALE)}


def write_season(animal: Animal, folder: Path, each: int, seed: int) -> dict[Path, list[Call]]:
    """Recordings of each kind below season/, of none below nothing/, and where the calls are, in calls.json."""
    answers, rng, made = folder / "calls.json", np.random.default_rng(seed), dict[str, list[Call]]()
    for kind in () if answers.is_file() else (*animal.kinds, "nothing"):
        below = folder / ("nothing" if kind == "nothing" else "season") / kind
        below.mkdir(parents=True, exist_ok=True)
        for number in range(each):
            rate = animal.rates[number % len(animal.rates)]
            path = below / f"{kind}{number}.wav"
            sound, made[str(path.relative_to(folder))] = animal.sound(kind, rate, rng)
            soundfile.write(path, np.clip(sound, -1, 1), rate)
    if made:
        answers.write_text(json.dumps(made))
    listed: dict[str, list[Any]] = json.loads(answers.read_text())
    return {folder / name: [Call(*call) for call in calls] for name, calls in listed.items()}


def write_annotations(folder: Path, season: Path) -> None:
    """calls.csv beside the recordings of a season: where in them each call is."""
    listed: dict[str, list[Any]] = json.loads((folder / "calls.json").read_text())
    with (season / "calls.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("file", "start", "end", "species"))
        for name, calls in listed.items():
            table.writerows([Path(name).name, start, end, kind] for kind, start, end in calls)


def real_bats() -> dict[Path, list[Call]]:
    """The recordings of ../shared/bats in which calls are noted."""
    found: dict[Path, list[Call]] = {}
    for notes in sorted(BATS.glob("*.json")):
        calls: list[dict[str, Any]] = json.loads(notes.read_text())["annotation"]
        found[notes.with_suffix("")] = [Call("", call["start_time"], call["end_time"]) for call in calls]
    return found


def rate_of(path: Path) -> int:
    """Samples a second."""
    return int(soundfile.info(path).samplerate)


def settings(animal: Animal, arm: str) -> tuple[str, ...]:
    """Flags of main.py, wherever the recordings are."""
    base = ("--preset", "base", "--encoder.weights", str(WEIGHTS))
    return (*base, *HEAD, *animal.arms[arm].flags, "--audio.window_seconds", str(animal.near))


def trained(animal: Animal, arm: str, folder: Path) -> Path:
    """The classifier of a geometry: Whisper base as it is, and a head on it."""
    root = folder / arm.replace(" ", "-").replace(",", "")
    model = root / "finetune" / "classifier.safetensors"
    if not model.is_file():
        season, layout = folder / "train" / "season", animal.arms[arm].layout
        if layout == "annotations":
            write_annotations(folder / "train", season)
        words = ["main.py", *settings(animal, arm), "--run.root", str(root)]
        words += ["--data.root", str(season), "--data.layout", layout, "--data.workers", "0"]
        words += ["--data.no_call", str(folder / "train" / "nothing"), "--data.no_call_share", "0.3"]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr.strip().splitlines()[-3:] or done.stdout[-300:]}"
    return model


def windows_of(path: Path, network: BirdClefClassifier, audio: AudioSettings) -> tuple[NDArray[np.float64], Scores]:
    """Middle in seconds (windows,) and scores (windows, kinds) of every window of a recording, and of those half a
    window later."""
    middles, scores = list[float](), list[Scores]()
    near, seconds = audio.window_seconds, soundfile.info(path).duration
    for shift in np.arange(0, max(seconds - near, 0) + 1e-6, audio.context_seconds):
        for start in (shift, shift + near / 2):
            samples = read_samples(path, round(start * audio.sample_rate), audio.samples, audio.sample_rate)
            with torch.no_grad():
                answer = network(torch.from_numpy(network_input(samples, audio.samples))[None]).numpy()
            whole = int(len(samples) / audio.sample_rate / near + 1e-6)  # windows that are full of sound
            middles += [start + (number + 0.5) * near for number in range(min(whole, len(answer)))]
            scores += list(answer[:whole])
    return np.array(middles), np.array(scores)


def judge(model: Path, answers: dict[Path, list[Call]], near: float) -> dict[str, float]:
    """The figures of a classifier on recordings whose calls are known."""
    network, facts = load_classifier(model)
    heard: list[Heard] = []
    for path, calls in answers.items():
        middles, scores = windows_of(path, network, facts.audio)
        present, nearby = np.zeros(len(middles), np.bool_), list[tuple[Call, Scores]]()
        for call in calls:
            present |= (middles + near / 2 > call.start) & (middles - near / 2 < call.end)
            nearby.append((call, scores[np.abs(middles - (call.start + call.end) / 2) <= near + 1e-9]))
        highest = scores.max(axis=1)
        heard.append(Heard(highest[~present], highest[present], nearby))
    return figures(heard, facts.taxonomy.labels)


def figures(heard: Sequence[Heard], labels: Sequence[str]) -> dict[str, float]:
    """Area under the curve of windows with against windows without a call; the share of calls found near, with an
    interval over the recordings, and what chance would find; and, where the kind of a call is known, the share of those
    found that are taken for it."""
    limits = [threshold_without(heard, number) for number in range(len(heard))]
    quiet, loud = np.concatenate([each.quiet for each in heard]), np.concatenate([each.loud for each in heard])
    flagged = sum(int((each.quiet > limit).sum()) for each, limit in zip(heard, limits, strict=True)) / len(quiet)
    hits = [
        [bool(scores.max(initial=-np.inf) > limit) for _, scores in each.near]
        for each, limit in zip(heard, limits, strict=True)
    ]
    found = [
        (*pair, hit) for each, own in zip(heard, hits, strict=True) for pair, hit in zip(each.near, own, strict=True)
    ]
    named = [labels[int(near.max(axis=0).argmax())] == call.kind for call, near, hit in found if hit and call.kind]
    hit_or_not = np.concatenate([np.array(own, np.float64) for own in hits])
    of_recording = np.repeat(np.arange(len(hits)), [len(own) for own in hits])
    low, high = bootstrap_interval(partial(weighted_share, hit_or_not), of_recording)
    said = {
        "calls": len(found),
        "windows": len(quiet) + len(loud),
        "AUC": float(roc_auc_score(np.r_[np.zeros(len(quiet)), np.ones(len(loud))], np.r_[quiet, loud], average=None)),
        "flagged": flagged,
        "recall": sum(hit for _, _, hit in found) / len(found),
        "from": low,
        "to": high,
        "chance": float(np.mean([1 - (1 - flagged) ** len(near) for _, near, _ in found])),
    }
    return said | ({"right kind": float(np.mean(named))} if named else {})


def threshold_without(heard: Sequence[Heard], left_out: int) -> float:
    """What a share of the windows without a call is above, in all recordings but one."""
    others = [each.quiet for number, each in enumerate(heard) if number != left_out]
    return float(np.quantile(np.concatenate(others), 1 - FALSE_SHARE, method="higher"))


def weighted_share(hits: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """(draws,): the share of calls that are found, each as heavy as its recording."""
    shares: NDArray[np.float64] = hits @ weights / weights.sum(axis=0)
    return shares


if __name__ == "__main__":
    assert WEIGHTS.is_dir(), f"needs {WEIGHTS}"
    chosen = ANIMALS[sys.argv[1] if sys.argv[1:] else "bats"]
    runs = Path("runs") / chosen.name
    write_season(chosen, runs / "train", chosen.each, seed=0)
    judged = write_season(chosen, runs / "judged", JUDGED, seed=1)
    sets = {
        f"made up, {rate // 1000} kHz": {path: calls for path, calls in judged.items() if rate_of(path) == rate}
        for rate in chosen.rates
    }
    if chosen is BAT and BATS.is_dir():
        sets["real"] = real_bats()
    for arm in sys.argv[2:] or chosen.arms:
        classifier = trained(chosen, arm, runs)
        for of, answers in sets.items():
            said = judge(classifier, answers, chosen.near)
            print(f"{arm:16}{of:18}" + "".join(f"{key} {value:.6g}  " for key, value in said.items()), flush=True)
