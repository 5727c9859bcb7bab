"""Recordings opened as the tests of this wing open them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from broken import (
    RATE,
    Sound,
    noise,
)

from sounds.audio import open_recording
from sounds.damage import Outcome
from sounds.windows import Window

LOSSY = {
    "alaw.wav",
    "ulaw.wav",
    "adpcm.wav",
    "sound.ogg",
    "sound.mp3",
    "sound.opus",
    "sound.m4a",
    "sound.aac",
    "sound.wma",
}
SCALED = "its float samples are those of 16-bit integers, divided by 32768 here"


def whole(path: Path, rate: int = RATE) -> tuple[Sound, Outcome]:
    recording = open_recording(path, rate)
    blocks = list(recording.waveform())
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32), recording.outcome


def heard(path: Path, window_seconds: float = 1.0, overlap_seconds: float = 0.0) -> tuple[list[Window], Outcome]:
    recording = open_recording(path, RATE)
    windows = list(recording.windows(window_seconds, overlap_seconds))
    return windows, recording.outcome


def beep_time(path: Path) -> float:
    """Seconds to the beginning of the loudest tenth of a second, over all windows."""
    windows, _ = heard(path, 5.0)
    sound = np.concatenate([window.samples[: round((window.end - window.start) * RATE)] for window in windows])
    energy = np.cumsum(np.square(sound, dtype=np.float64))
    return float(np.argmax(energy[RATE // 10 :] - energy[: -RATE // 10]) + 1) / RATE


def analysed(path: Path, **how: Any) -> tuple[list[float], Outcome]:
    """Where windows of 5 s begin, and how it went."""
    recording = open_recording(path, RATE, **how)
    return [window.start for window in recording.windows(5.0)], recording.outcome


def faint_and_loud(seconds: int, loud: int) -> Sound:
    """The numbers of a 16-bit file: noise of at most 14 steps, and 6 s of loud sound from second `loud` on."""
    numbers = np.random.default_rng(5).integers(-14, 15, seconds * RATE).astype(np.float32)
    numbers[loud * RATE : (loud + 6) * RATE] = np.rint(10_000 * noise(6.0))
    return numbers


def clipped_from(first: float, last: float, rate: int, seconds: float = 40.0) -> Sound:
    """Noise that is clipped throughout between two times."""
    sound, (start, end) = noise(seconds, rate), (round(first * rate), round(last * rate))
    sound[start:end] = np.clip(1_000 * sound[start:end], -1, 1)
    return sound
