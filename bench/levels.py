"""What a trained classifier makes of other levels, of a constant added to the sound, and of stubs.

    python -m bench.levels runs/finetune/classifier.safetensors ../shared/animals/noise levels       # or stubs

Reads    a classifier and the recordings it was validated on (held_out_recordings.csv beside it); recordings of noise
Prints   of held-out recordings top-1 accuracy and cmAP by gain and offset, as the network hears them with and without
         each remedy; of noise the share of windows in which something is detected; the same by the length of stubs
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from archive.recordings import read_recordings
from data_loader import truth_table
from sounds.audio import open_recording
from sounds.discovery import find_recordings
from sounds.windows import fill_window
from training.checkpoint import load_classifier

RATE, SECONDS = 16_000, 5
RECORDINGS, CALM = 70, 30  # windows that are judged
LENGTHS = (0.1, 0.2, 0.3, 0.5, 1.0, 5.0, 0.05, 0.7, 2.0)  # seconds
STUBS = 24
Sound = NDArray[np.float32]


def centred(samples: Sound) -> Sound:
    moved: Sound = samples - np.float32(samples.mean(dtype=np.float64))
    return moved


def scaled_and_lifted(factor: np.float32, samples: Sound) -> Sound:
    return lifted(samples * factor, 10**-2.5)


def lifted(samples: Sound, least: float, most: float = 0.5) -> Sound:
    """Brought to the nearer end of a range of levels (RMS) where it lies outside."""
    level = float(np.sqrt(np.mean(np.square(samples), dtype=np.float64)))
    return samples * np.float32(min(max(level, least), most) / level) if level > 1e-6 else samples


@torch.inference_mode()
def scores_of(model: torch.nn.Module, windows: list[Sound]) -> NDArray[np.float32]:
    stacked = torch.from_numpy(np.stack(windows))
    scores: Sound = torch.cat([model(stacked[at : at + 16]).sigmoid() for at in range(0, len(stacked), 16)]).numpy()
    return scores


def main(classifier: Path, noise: Path, part: str) -> None:
    torch.set_num_threads(1)
    model, facts = load_classifier(classifier)
    model.eval()
    calm: list[Sound] = []
    for path in find_recordings([noise])[0]:
        calm += [window.samples for window in islice(open_recording(path, RATE).windows(SECONDS), 1)]
    if part == "stubs":
        judge_stubs(model, calm)
        return
    rows = [row for row in read_recordings(classifier.with_name("held_out_recordings.csv")) if row.labels]
    rows = [rows[int(index)] for index in np.random.default_rng(0).permutation(len(rows))[:RECORDINGS]]
    windows = [next(open_recording(row.path, RATE, shortest=0.0).windows(SECONDS)).samples for row in rows]
    truth = truth_table(rows, facts.taxonomy.labels, facts.audio).argmax(axis=1)
    calm = calm[:: max(1, len(calm) // CALM)][:CALM]
    plain = scores_of(model, windows)

    def judge(name: str, change: Callable[[Sound], Sound], noisy: bool = True) -> None:
        scores = scores_of(model, [change(one) for one in windows])
        best = scores.argmax(axis=1)
        top, same = float((best == truth).mean()), float((best == plain.argmax(axis=1)).mean())
        sure = np.mean(scores[np.arange(len(truth)), truth] >= 0.25)
        alarms = scores_of(model, [change(one) for one in calm]).max(axis=1) if noisy else np.zeros(0)
        told = f"noise with .25: {np.mean(alarms >= 0.25):.2f}" if noisy else ""
        print(
            f"{name:30} top-1 {top:.3f}  right and sure of .25: {sure:.3f}  best as before {same:.3f}  largest change "
            f"{np.abs(scores - plain).max():.3f}  {told}",
            flush=True,
        )

    judge("as it is", lambda one: one)
    for offset in (0.05, 0.2):
        judge(f"offset {offset}", partial(np.add, np.float32(offset)), False)
    judge("offset 0.2, mean removed", lambda one: centred(one + np.float32(0.2)), False)
    for gain in (-40, -60, -20):
        factor = np.float32(10 ** (gain / 20))
        judge(f"{gain} dB", partial(np.multiply, factor))
        if gain < -20:
            judge(f"{gain} dB, at least -50 dB", partial(scaled_and_lifted, factor))
    judge("0 dB, at least -50 dB", lambda one: lifted(one, 10**-2.5))
    judge("every window at -30 dB", lambda one: lifted(one, 10**-1.5, 10**-1.5))
    judge("times 32768", lambda one: one * np.float32(32768), False)
    judge("+40 dB, clipped", lambda one: np.clip(one * np.float32(100), -1, 1), False)


def judge_stubs(model: torch.nn.Module, calm: list[Sound]) -> None:
    rng, length = np.random.default_rng(0), SECONDS * RATE
    print("stubs repeated to 5 s: share with a best species of .25 and more, of .5 and more, the highest")
    for seconds in LENGTHS:
        count = round(seconds * RATE)
        white = [fill_window(rng.normal(0, 0.02, count).astype(np.float32), length) for _ in range(STUBS)]
        starts = rng.integers(0, length - count + 1, STUBS)
        chosen = zip(rng.integers(0, len(calm), STUBS), starts, strict=True)
        real = [fill_window(calm[int(which)][start : start + count], length) for which, start in chosen]
        for name, kind in (("white", white), ("recorded", real)):
            best = scores_of(model, kind).max(axis=1)
            print(
                f"{seconds:5.2f} s {name:9} {np.mean(best >= 0.25):.2f} {np.mean(best >= 0.5):.2f} {best.max():.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
