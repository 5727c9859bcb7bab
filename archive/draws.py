"""How often each recording is drawn in an epoch: by its length, of rare species more, of common ones less.

    expected = expected_draws([row.labels[:1] for row in rows], balance=0.5, most=4.0, windows=windows)

What is drawn then, and in which order, is for `data_loader.EpochBatches` to say. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archive.recordings import Recording
from archive.segments import shares
from config import AudioSettings


def counted_windows(recording: Recording, audio: AudioSettings, most: int) -> float:
    """How many windows a recording counts for in an epoch: as many as what is used of it is long, from 1 to `most`.

    Of a labelled segment that is its length, of kept segments the sum of theirs, without what holds no sound. Windows
    of one recording are alike (one animal, one site, one microphone): beyond some, more of them teach nothing new, and
    the longer a recording that is labelled as a whole, the more of its windows hold none of the animal.
    """
    seconds = sum(end - start for start, end in recording.usable)
    return min(max(1.0, seconds / audio.context_seconds), float(most))


def expected_draws(
    classes: Sequence[tuple[str, ...]], balance: float, most: float, windows: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """How often each recording is drawn in an epoch of as many draws as the recordings have windows.

    classes  per recording what it is to be balanced over
    balance  0: each window once; 1: each class equally often; between: in proportion to (windows of class) ** -balance
    most     no window more often than this; what is cut off goes to the others
    windows  (recordings,) that each counts for; by default one
    """
    counted = np.ones(len(classes)) if windows is None else windows
    sums: dict[tuple[str, ...], float] = {}
    for name, count in zip(classes, counted.tolist(), strict=True):
        sums[name] = sums.get(name, 0.0) + count
    expected: NDArray[np.float64] = counted * np.array([sums[name] ** -balance for name in classes])
    expected *= counted.sum() / expected.sum()
    limit = most * counted
    while (expected > limit + 1e-9).any():
        expected = np.minimum(expected, limit)
        below = expected < limit
        expected[below] *= (counted.sum() - limit[~below].sum()) / expected[below].sum()
    return expected


def no_call_draws(windows: NDArray[np.float64], others: float, share: float, most: float) -> NDArray[np.float64]:
    """How often each recording without a species is drawn in an epoch, in proportion to its windows.

    windows  (recordings,) that each counts for
    others   draws of recordings with species
    share    of all draws, or less where a window would be drawn more than `most` times
    """
    draws: NDArray[np.float64] = windows * min(most, share / (1 - share) * others / max(float(windows.sum()), 1.0))
    return draws


def with_neighbours(windows: Sequence[Recording], context_seconds: float) -> list[Recording]:
    """Windows with a classifier's scores, each with the highest score of every species in all that a context may hold
    that is drawn for it: as much as can be learnt from one draw."""
    by_file: dict[Path, list[int]] = {}
    for index, window in enumerate(windows):
        by_file.setdefault(window.path, []).append(index)
    found = list(windows)
    for own in by_file.values():
        times = [(windows[index].start or 0.0, windows[index].end or 0.0) for index in own]
        starts, ends = np.array(times).T
        for index, (start, end) in zip(own, times, strict=True):
            first, last = end - context_seconds, start + context_seconds
            best: dict[str, float] = {}
            for place in np.flatnonzero((ends > first) & (starts < last)).tolist():
                if shares(first, last, *times[place]):
                    other = windows[own[place]]
                    for label, score in zip(other.labels, other.scores, strict=True):
                        best[label] = max(best.get(label, 0.0), score)
            found[index] = replace(windows[index], labels=tuple(best), scores=tuple(best.values()))
    return found


def pseudo_draws(
    windows: Sequence[Recording],
    real: Mapping[str, float],
    *,
    share: float,
    sites: float,
    most: float,
    mass: float,
    others: float,
) -> NDArray[np.float64]:
    """How often each window with a classifier's scores for labels is drawn in an epoch.

    real     draws of recordings that people labelled with a species, by species
    share    of all draws, or less where a window would be drawn more than `most` times
    sites    0: each window as often; 1: each site; between: in proportion to (windows of its site) ** -sites
    mass     the scores that are drawn of a species sum to at most so many times its real draws: the windows with its
             label are drawn less often, those of several species by the strictest limit; 0: no limit
    others   draws of all recordings that people labelled
    """
    expected = expected_draws([(window.site,) for window in windows], sites, most)
    expected *= min(most, share / (1 - share) * others / len(windows))
    expected = np.minimum(expected, most)
    drawn: dict[str, float] = {}
    for window, count in zip(windows, expected.tolist(), strict=True):
        for label, score in zip(window.labels, window.scores, strict=True):
            drawn[label] = drawn.get(label, 0.0) + count * score
    held = {
        label: min(1.0, mass * real.get(label, 0.0) / total) if mass and total else 1.0
        for label, total in drawn.items()
    }
    limited: NDArray[np.float64] = expected * [min(held[label] for label in window.labels) for window in windows]
    return limited


if __name__ == "__main__":
    species = [("owl",)] * 90 + [("newt",)] * 10
    for balance in (0.0, 0.5, 1.0):
        expected = expected_draws(species, balance, most=10.0)
        print(f"balance {balance:g}: each owl {expected[0]:.2f} times an epoch, each newt {expected[-1]:.2f} times")
        assert np.isclose(expected.sum(), 100)
    assert np.isclose(expected[:90].sum(), expected[90:].sum()), "both species equally often"
