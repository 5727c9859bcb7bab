"""Which windows of a recording are used: any of its sound for training, those of a labelled segment for evaluation.

    draw_segment(recording, window_seconds=5.0, profile=None, rng=rng)      # start and end of one for training
    pieces(recording, audio)                                                # start and end of all for evaluation

Times alone are decided here, no sound is opened. No torch.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archive.recordings import Recording, overlaps
from config import AudioSettings

CANDIDATES = 8  # windows between which the energy of the sound decides
QUIET_CHANCE = 0.05  # what a window in which nothing stands out still weighs
OVERLAP_SECONDS = 0.5  # a window has a label when they share this much, or half of a shorter annotation or window
BLINK = 1e-6  # seconds: rounding


def draw_segment(
    recording: Recording, window_seconds: float, profile: NDArray[np.float64] | None, rng: np.random.Generator
) -> tuple[float, float]:
    """Start and end in seconds of a window of a recording, shorter where the recording or its kept segment is, or what
    holds sound in it.

    profile   (pieces,) how much stands out; of several windows drawn at random one is taken, rather one that stands out
    """
    ranges: list[tuple[float, float, float]] = []  # earliest and latest start, and where it must end
    if recording.start is not None and recording.end is not None:
        for low, high in sound_shared(recording) or ((0.0, recording.seconds),):
            bounds = max(recording.start, low), min(recording.end, high) - window_seconds
            room = max(low, high - window_seconds)
            earliest, latest = (min(max(low, start), room) for start in sorted(bounds))
            ranges.append((earliest, latest, high))
    else:
        for start, end in recording.usable or ((0.0, recording.seconds),):
            ranges.append((start, max(start, end - window_seconds), end))
    weights = np.array([latest - earliest + window_seconds for earliest, latest, _ in ranges])
    count = 1 if profile is None else CANDIDATES
    chosen: list[int] = rng.choice(len(ranges), count, p=weights / weights.sum()).tolist()
    drawn = [(ranges[which], float(rng.random())) for which in chosen]
    starts = [earliest + share * (latest - earliest) for (earliest, latest, _), share in drawn]
    ends = [min(start + window_seconds, limit) for start, ((_, _, limit), _) in zip(starts, drawn, strict=True)]
    which = 0
    if profile is not None and recording.seconds > 0:
        scale = len(profile) / recording.seconds
        stands_out = [
            profile[int(start * scale) : max(int(start * scale) + 1, int(np.ceil(end * scale)))].max(initial=0.0)
            for start, end in zip(starts, ends, strict=True)
        ]
        chances = np.square(np.array(stands_out, np.float64)) + QUIET_CHANCE
        which = int(rng.choice(count, p=chances / chances.sum()))
    return starts[which], max(ends[which], starts[which] + BLINK)


def sound_shared(recording: Recording) -> tuple[tuple[float, float], ...]:
    """What holds sound in a recording, of that what shares enough with its labelled segment."""
    assert recording.start is not None and recording.end is not None, f"{recording.name} has no labelled segment"
    return tuple(part for part in recording.alive if shares(*part, recording.start, recording.end))


def length_of(start: float, end: float, recording: Recording, window_seconds: float) -> float:
    """Seconds to be read for a segment: a whole window where it ends with the recording, so that what is shorter is
    filled once, as the predictor fills it, and not by way of a rounded length."""
    return window_seconds if end >= recording.seconds - BLINK else end - start


def shares(start: float, end: float, first: float, last: float) -> bool:
    """Whether a window and an annotation share enough: half a second, or half of a shorter annotation or window."""
    return min(end, last) - max(start, first) >= min(OVERLAP_SECONDS, (last - first) / 2, (end - start) / 2) - BLINK


def evaluated_windows(recording: Recording, audio: AudioSettings) -> list[tuple[float, float]]:
    """The windows of a labelled segment or of kept segments, start and end in seconds, in the order of time."""
    step, found = audio.window_seconds, list[tuple[float, float]]()
    least = min(OVERLAP_SECONDS, step / 2)
    if recording.start is not None and recording.end is not None:
        for number in range(int(recording.start // step), int(recording.end // step) + 1):
            start, end = number * step, min((number + 1) * step, recording.seconds)
            if start < end and shares(start, end, recording.start, recording.end):
                found.append((start, end))
        return found
    for first, last in overlaps(recording.keep, ((0.0, recording.seconds),)):
        count = max(1, math.ceil((last - first - least) / step))
        found += [(first + n * step, min(first + (n + 1) * step, last)) for n in range(count)]
    return [(start, end) for start, end in found if end > start]


if __name__ == "__main__":
    owl = Recording(Path("dawn.wav"), "dawn.wav", ("owl",), seconds=60.0, start=9.0, end=11.0)
    rng, audio = np.random.default_rng(0), AudioSettings()
    drawn = [draw_segment(owl, audio.window_seconds, None, rng) for _ in range(100)]
    print(f"windows of a call from 9 to 11 s begin at {min(drawn)[0]:.1f} to {max(drawn)[0]:.1f} s")
    assert all(start <= 9 and end >= 11 and abs(end - start - 5) < 1e-6 for start, end in drawn)
    assert evaluated_windows(owl, audio) == [(5.0, 10.0), (10.0, 15.0)], "those that share enough with it"
