"""Blocks of a waveform -> contexts and windows, and a network's input of each: filled by repetition, without its mean.

    for context, windows in contexts(blocks, 16_000, context_seconds=20.0, window_seconds=5.0): ...

Blocks may come from a decoder here or in another process, or from a cache. Opens no sound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a process that decodes has no settings, whose reader is slow to import
    from config import AudioSettings

SEAM = 0.01  # of a window, 50 ms of 5 s: how long a repeated piece and its next copy sound together
SHORTEST_SECONDS = 0.3  # of sound: less of it, repeated, is taken for an animal all too often (LOG.md)
TAIL_SECONDS = 0.5  # what is left behind the last full window and is shorter gets no window of its own
SHORT_SHARE = 0.5  # of a window: where that is less than either of the two, it counts in their place
FAINTEST = 10**-2.5  # RMS, -50 dB: what is fainter is raised to it before a network gets it (LOG.md)
MICRO = 1_000_000  # parts of a second, where no sample rate counts
SILENCE = 1e-5  # of full scale: what moves less, over a whole second, is no sound

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """A piece of a recording, as long as every other."""

    start: float  # seconds; a whole number of samples
    end: float  # seconds; of the sound itself, so never after the recording's end
    samples: Waveform  # (window_samples,), the sound repeated where it is shorter


def contexts(
    blocks: Iterable[Waveform],
    sample_rate: int,
    context_seconds: float,
    window_seconds: float,
    overlap_seconds: float = 0.0,
    begin_seconds: float = 0.0,
    shortest: float = SHORTEST_SECONDS,
) -> Iterator[tuple[Window, list[tuple[float, float]]]]:
    """Segments long enough for a network that answers for several windows at a time, with the windows in each.

    blocks          (samples,) each, the waveform of one recording wherever they come from
    begin_seconds   from which on the recording is read, and times are counted
    shortest        seconds of sound without which there is no context, or half of a shorter window
    returns         each context, its sound repeated where it is shorter, and start and end in seconds of its first
                    windows; its other windows hold only repeated sound

    The first window that reaches the end of the recording is the last, and no window lies wholly within another. Behind
    a full window less than TAIL_SECONDS is left out: a blink of sound repeated for seconds is a buzz that nobody
    recorded. For that reason a context with less than `shortest` of sound in it is left out too: zeros and constants
    are none. Contexts do not overlap; with an overlap of windows there are several rows of them, each begun a step
    later, so the windows of different contexts take turns.
    """
    length, window = (round(seconds * sample_rate) for seconds in (context_seconds, window_seconds))
    shortest = least_sound(shortest, window_seconds)
    hop = window - round(overlap_seconds * sample_rate)
    assert 1 <= hop <= window, (
        f"windows of {window_seconds} s overlap by {overlap_seconds} s; let them overlap by 0 s or more, not wholly"
    )
    assert length == window or (window % hop == 0 and length % window == 0), (
        f"a context of {context_seconds} s and windows of {window_seconds} s that overlap by {overlap_seconds} s: "
        "give an overlap that leaves a whole part of the window, such as 0 or half of it"
    )
    starts = context_starts(length, window, hop)
    start, held = next(starts), np.zeros(0, np.float32)
    begin = -round(begin_seconds * sample_rate)  # held begins at this sample
    for block in blocks:
        held = np.concatenate([held, block])
        if begin < 0:
            held, begin = held[-begin:], min(0, begin + len(held))
        while begin + len(held) > start + length:  # only more than enough shows that a context is not the last
            samples = held[start - begin : start - begin + length].copy()
            if holds_sound(samples, sample_rate, shortest):
                yield context_at(start, samples, sample_rate, length, window, hop)
            start = next(starts)
            if start > begin:
                held, begin = held[start - begin :], start
    while start < begin + len(held):
        samples = held[start - begin :]
        context, windows = context_at(start, samples, sample_rate, length, window, hop)
        if windows and holds_sound(samples, sample_rate, shortest):
            yield context, windows
        start = next(starts)


def context_starts(length: int, window: int, hop: int) -> Iterator[int]:
    """The sample at which each context begins; a context that is one window begins a hop after the one before."""
    if length == window:
        yield from count(0, hop)
    rows = window // hop
    for number in count():
        yield length * (number // rows) + hop * (number % rows)


def context_at(
    start: int, samples: Waveform, sample_rate: int, length: int, window: int, hop: int
) -> tuple[Window, list[tuple[float, float]]]:
    """A context that begins at a sample, and which of its windows are new: not within the one a hop before."""
    end, tail = start + len(samples), min(TAIL_SECONDS * sample_rate, SHORT_SHARE * window)
    new = [
        (first / sample_rate, min(first + window, end) / sample_rate)
        for first in range(start, end, window)
        if is_new(first, end, window, hop, tail)
    ]
    return Window(start / sample_rate, end / sample_rate, network_input(samples, length)), new


def is_new(first: int, end: int, window: int, hop: int, tail: float) -> bool:
    """Whether a window that begins at a sample is full, or holds enough that the one a hop before does not."""
    return first == 0 or first + window <= end or end - (first - hop + window) >= tail


def window_times(seconds: float, window_seconds: float, overlap_seconds: float) -> list[tuple[float, float]]:
    """Start and end in seconds of all windows of a recording so long, with sound or without, in the order of time."""
    end, window, hop = (round(MICRO * each) for each in (seconds, window_seconds, window_seconds - overlap_seconds))
    tail = min(TAIL_SECONDS * MICRO, SHORT_SHARE * window)
    starts = (first for first in range(0, end, hop) if is_new(first, end, window, hop, tail))
    return [(first / MICRO, min(first + window, end) / MICRO) for first in starts]


def rows_with_sound(
    samples: Waveform, windows: Sequence[tuple[float, float]], audio: AudioSettings, shortest: float
) -> tuple[int, ...]:
    """Which of the first windows of a context (samples,) hold sound; a context that is one window does."""
    length, rate = round(audio.window_seconds * audio.sample_rate), audio.sample_rate
    shortest = least_sound(shortest, audio.window_seconds)
    pieces = [samples[row * length :][: round((end - start) * rate)] for row, (start, end) in enumerate(windows)]
    return tuple(row for row, piece in enumerate(pieces) if len(windows) == 1 or holds_sound(piece, rate, shortest))


def least_sound(shortest: float, window_seconds: float) -> float:
    """Seconds of sound without which a window is none: those asked for, or half of a shorter window."""
    return min(shortest, SHORT_SHARE * window_seconds)


def fill_window(samples: Waveform, length: int) -> Waveform:
    """A piece (samples,) repeated, or cut, to (length,); zeros for an empty one.

    Where one copy ends and the next begins both sound, at equal power, for SEAM of the window or a quarter of a shorter
    piece: end to end, the seam was the strongest onset in a third of real short clips (LOG.md).
    """
    if len(samples) == length:
        return samples
    count = len(samples)
    overlap = min(round(SEAM * length), count // 4) if count < length else 0
    if not overlap:
        return np.resize(samples, length)
    angle = np.pi / 2 * (np.arange(overlap, dtype=np.float32) + np.float32(0.5)) / np.float32(overlap)
    repeated = samples[: count - overlap].copy()
    repeated[:overlap] *= np.sin(angle)
    repeated[:overlap] += samples[count - overlap :] * np.cos(angle)
    filled = np.resize(repeated, length)
    filled[:overlap] = samples[:overlap]  # before the first copy is nothing
    return filled


def network_input(samples: Waveform, length: int) -> Waveform:
    """What a network is given of a piece (samples,), in training and in service alike: repeated to (length,), its mean
    removed, raised to FAINTEST where it is fainter.

    Cheap microphones add a constant to all they record. At a fifth of full scale it is stronger than any animal, and
    raises the floor of Whisper's log-mel spectrogram, which lies a fixed distance below its maximum. Levels are learnt
    down to where training has windows; 20 dB below, half of what is known is lost (LOG.md).
    """
    filled = fill_window(samples, length)
    centred = filled - np.float32(filled.mean(dtype=np.float64))
    level = math.sqrt(float(centred @ centred) / max(length, 1))
    return centred * np.float32(FAINTEST / level) if SILENCE / 10 < level < FAINTEST else centred


def holds_sound(samples: Waveform, sample_rate: int, shortest: float = SHORTEST_SECONDS) -> bool:
    """Whether a piece (samples,) holds as much sound as a network should be asked about, in seconds."""
    alive = 0
    for start in range(0, len(samples), sample_rate):  # a second is enough for most
        alive += sounding(samples[start : start + sample_rate], sample_rate)
        if alive and alive >= shortest * sample_rate:
            return True
    return False


def sounding(samples: Waveform, sample_rate: int) -> int:
    """How many samples of a piece (samples,) lie in tenths of a second in which something moves."""
    grain = max(1, sample_rate // 10)
    whole = len(samples) - len(samples) % grain
    tenths = samples[:whole].reshape(-1, grain)
    moving = grain * int(np.count_nonzero(tenths.max(axis=1) - tenths.min(axis=1) >= SILENCE)) if whole else 0
    rest = samples[whole:]
    return moving + (len(rest) if len(rest) and float(rest.max() - rest.min()) >= SILENCE else 0)


if __name__ == "__main__":
    hiss = np.random.default_rng(0).normal(0, 0.1, 12_000).astype(np.float32)
    hiss[5_000:10_000] = 0  # a microphone that is dead for 5 s
    blocks = [hiss[start : start + 700] for start in range(0, len(hiss), 700)]
    found = list(contexts(blocks, 1_000, 5.0, 5.0))
    for window, _ in found:
        print(f"{window.start:4.1f} to {window.end:4.1f} s: {len(window.samples)} samples")
    assert [(window.start, window.end) for window, _ in found] == [(0.0, 5.0), (10.0, 12.0)]
    assert all(len(window.samples) == 5_000 and abs(float(window.samples.mean())) < 1e-6 for window, _ in found)
    assert [windows for _, windows in contexts(blocks, 1_000, 10.0, 5.0)] == [[(0.0, 5.0), (5.0, 10.0)], [(10.0, 12.0)]]
