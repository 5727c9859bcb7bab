"""Windows: none is left out, none is made of silence, and whatever blocks they come in they are the same."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from broken import (
    RATE,
    Sound,
    noise,
    write,
)
from opened import heard, whole

from sounds.audio import open_recording, read_window
from sounds.windows import FAINTEST, SEAM, TAIL_SECONDS, contexts, fill_window, network_input, window_times


def test_windows_without_overlap_joined_are_the_recording(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", noise(65.6, 44_100), 44_100)
    sound, _ = whole(path)
    windows, outcome = heard(path, 5.0)
    assert len(windows) == 14
    assert all(len(window.samples) == 5 * RATE for window in windows)
    for number, window in enumerate(windows):
        assert np.array_equal(window.samples, network_input(sound[number * 5 * RATE :][: 5 * RATE], 5 * RATE))
    level = np.concatenate(
        [window.samples - sound[index * 5 * RATE :][: 5 * RATE] for index, window in enumerate(windows[:-1])]
    )
    assert np.abs(level).max() < 1e-3, "nothing but the mean is missing"
    assert windows[-1].end == len(sound) / RATE == pytest.approx(outcome.seconds, abs=1 / RATE)


@pytest.mark.parametrize(("length", "overlap"), [(5.0, 2.5), (1.0, 0.1), (0.7, 0.69), (3.0, 1 / 3)])
def test_overlapping_windows_start_at_whole_multiples_of_a_whole_hop(
    length: float, overlap: float, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.wav", noise(7.123))
    sound, _ = whole(path)
    hop = round(length * RATE) - round(overlap * RATE)
    windows, _ = heard(path, length, overlap)
    for index, window in enumerate(windows):
        here = sound[index * hop : index * hop + round(length * RATE)]
        assert window.start == index * hop / RATE
        assert np.array_equal(window.samples, network_input(here, round(length * RATE)))
    assert all(late.end > early.end for early, late in pairwise(windows))  # none lies wholly within another
    assert len(sound) / RATE - TAIL_SECONDS < windows[-1].end <= len(sound) / RATE


def test_the_last_window_repeats_what_is_left_and_tells_its_true_end(tmp_path: Path) -> None:
    windows, _ = heard(write(tmp_path / "a.wav", noise(2.5), subtype="FLOAT"))
    assert [(window.start, window.end) for window in windows] == [(0.0, 1.0), (1.0, 2.0), (2.0, 2.5)]
    assert np.array_equal(windows[-1].samples, network_input(noise(2.5)[2 * RATE :], RATE))
    missing = windows[-1].samples[: RATE // 2 - RATE // 100] - noise(2.5)[2 * RATE : -RATE // 100]
    assert np.ptp(missing) < 1e-6, "the mean and nothing else"


def test_a_blink_behind_the_last_full_window_gets_no_window_of_its_own(tmp_path: Path) -> None:
    for seconds in (3.0, 3.0 + 1 / RATE, 3.499):
        windows, outcome = heard(write(tmp_path / "a.wav", noise(seconds)))
        assert [window.end for window in windows] == [1.0, 2.0, 3.0]
        assert outcome.seconds == pytest.approx(seconds, abs=1 / RATE)  # it was read all the same


def test_a_recording_shorter_than_a_window_is_repeated(tmp_path: Path) -> None:
    sound = noise(0.4)
    windows, outcome = heard(write(tmp_path / "a.wav", sound, subtype="FLOAT"))
    assert [(window.start, window.end) for window in windows] == [(0.0, 0.4)]
    assert np.array_equal(windows[0].samples, network_input(sound, RATE))
    period = len(sound) - RATE // 100  # the copies overlap by a hundredth of the window
    for copy in range(2):
        inside = slice(copy * period + RATE // 100, (copy + 1) * period)
        assert np.ptp(windows[0].samples[inside] - sound[RATE // 100 : period]) < 1e-6
    assert outcome.seconds == 0.4


def test_a_window_is_filled_by_repetition_and_nothing_becomes_silence() -> None:
    assert fill_window(np.array([1, 2, 3], np.float32), 7).tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert fill_window(np.array([1, 2, 3], np.float32), 3).tolist() == [1, 2, 3]
    assert fill_window(np.arange(9, dtype=np.float32), 3).tolist() == [0, 1, 2]
    assert fill_window(np.zeros(0, np.float32), 2).tolist() == [0, 0]
    assert fill_window(np.ones(2, np.float32), 5).dtype == fill_window(noise(0.3), RATE).dtype == np.float32
    whole = noise(1.0)
    assert fill_window(whole, RATE) is whole, "a piece of a window's length is not touched"


def test_silence_stays_silence_and_a_repeated_hiss_keeps_its_level_and_a_stub_its_sound() -> None:
    assert not fill_window(np.zeros(RATE // 2, np.float32), 5 * RATE).any()
    for seconds in (0.05, 0.5, 3.1, 4.999):
        piece = noise(seconds)
        before, filled = piece.copy(), fill_window(piece, 5 * RATE)
        assert np.array_equal(piece, before), "what was handed in is not changed"
        overlap = min(RATE // 20, len(piece) // 4)
        assert len(filled) == 5 * RATE and np.array_equal(filled[: len(piece) - overlap], piece[: len(piece) - overlap])
        levels = np.sqrt(np.square(filled[: 5 * RATE // 1600 * 1600].reshape(-1, 1600)).mean(axis=1))
        assert levels.min() > 0.8 * piece.std() and levels.max() < 1.2 * piece.std()


def strongest_onset(samples: Sound) -> int:
    """The sample before which the energy above 1 kHz rises most, in steps of 10 ms; the first 50 ms do not count."""
    step = RATE // 100
    frames = np.lib.stride_tricks.sliding_window_view(samples, 2 * step)[::step] * np.hanning(2 * step)
    power = np.log10(np.square(np.abs(np.fft.rfft(frames)))[:, 20:].mean(axis=1) + 1e-10)
    return (5 + int(np.argmax(np.maximum(power[7:] - power[5:-2], 0.0)))) * step + 2 * step


@pytest.mark.parametrize("seconds", [0.6, 1.7, 3.4])
def test_the_seam_of_a_repeated_clip_is_not_its_strongest_onset(seconds: float) -> None:
    """Low tones over a faint hiss, cut anywhere, with a soft call in the middle: end to end, the step in the tone
    between two copies is a click over all frequencies, louder than the call."""
    found = {"end to end": 0, "faded": 0}
    for seed in range(20):
        rng, time = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
        tone = 0.2 * np.sin(2 * np.pi * rng.uniform(150, 400) * time + rng.uniform(0, 6))
        call = 0.01 * np.sin(2 * np.pi * 3_000 * time) * np.exp(-(((time - seconds / 2) / 0.02) ** 2))
        clip: Sound = (tone + call + rng.normal(0, 1e-4, len(time))).astype(np.float32)
        overlap = min(RATE // 20, len(clip) // 4)
        for name, filled, period in (
            ("end to end", np.resize(clip, 5 * RATE).astype(np.float32), len(clip)),
            ("faded", fill_window(clip, 5 * RATE), len(clip) - overlap),
        ):
            place = (strongest_onset(filled) + RATE // 50) % period
            found[name] += place < RATE // 50 + overlap
    assert found["end to end"] >= 15 and found["faded"] == 0, found


def test_windows_may_be_changed_without_changing_their_neighbours(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(4.0))
    kept = [window.samples.copy() for window in heard(path, 1.0, 0.5)[0]]
    for index, window in enumerate(open_recording(path, RATE).windows(1.0, 0.5)):
        assert np.array_equal(window.samples, kept[index])
        window.samples[:] = 0


def test_windows_are_decoded_as_they_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "long.flac", np.tile(noise(60.0, 48_000), 8), 48_000)
    tracemalloc.start()
    recording = open_recording(path, RATE)
    windows = recording.windows(5.0)
    first = next(windows)
    assert (first.start, first.end) == (0.0, 5.0)
    assert recording.outcome.status == "unreadable"  # nobody has seen its end
    assert sum(1 for _ in windows) == 95
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert recording.outcome.seconds == 480.0
    assert peak < 30e6, f"{peak / 1e6:.0f} MB for 92 MB of samples"


def test_an_overlap_as_long_as_the_window_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1.0))
    for overlap in (1.0, 1.5, -0.5):
        with pytest.raises(AssertionError, match="overlap"):
            list(open_recording(path, RATE).windows(1.0, overlap))


@pytest.mark.parametrize("seconds", [0.3, 4.0, 5.0, 5.2, 9.0, 20.0, 20.3, 23.0, 41.7])
@pytest.mark.parametrize("overlap", [0.0, 2.5])
def test_a_longer_context_holds_the_same_windows(seconds: float, overlap: float, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * 1000)).astype(np.float32)
    soundfile.write(path, samples, 1000, subtype="FLOAT")
    expected = {(w.start, w.end): w.samples for w in open_recording(path, 1000).windows(5.0, overlap)}
    found: dict[tuple[float, float], Sound] = {}
    for context, windows in contexts(open_recording(path, 1000).waveform(), 1000, 20.0, 5.0, overlap):
        assert len(context.samples) == 20_000 and windows
        for number, (start, end) in enumerate(windows):
            assert start == pytest.approx(context.start + 5 * number) and (start, end) not in found
            found[start, end] = context.samples[5000 * number : 5000 * (number + 1)]
    assert sorted(found) == sorted(expected)
    assert np.allclose(window_times(seconds, 5.0, overlap), sorted(expected)), "known without the sound too"
    for (start, end), window in expected.items():
        length = round((end - start) * 1000)
        if end == pytest.approx(seconds):  # the end goes over into what it is repeated by, in a context later
            length -= round(SEAM * 20_000)
        assert np.ptp(found[start, end][:length] - window[:length]) < 1e-6, "the mean of another segment was removed"


def test_a_context_that_overlaps_oddly_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones(1000), 1000)
    with pytest.raises(AssertionError, match="a whole part of the window"):
        list(contexts(open_recording(path, 1000).waveform(), 1000, 20.0, 5.0, 1.3))


def test_a_constant_that_is_added_changes_no_window(tmp_path: Path) -> None:
    plain = next(open_recording(write(tmp_path / "a.wav", noise(5.0)), RATE).windows(5.0)).samples
    for offset in (0.05, -0.2):
        path = write(tmp_path / "b.wav", noise(5.0) + np.float32(offset))
        moved = next(open_recording(path, RATE).windows(5.0)).samples
        assert np.abs(moved - plain).max() < 2 / 32_768 and abs(float(moved.mean())) < 1e-6
        assert np.abs(read_window(path, 0.0, 5.0, RATE) - moved).max() == 0


def test_faint_windows_are_raised_to_one_level_and_others_left_at_theirs(tmp_path: Path) -> None:
    def level(samples: Sound) -> float:
        return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))

    for gain, due in ((1.0, 0.1), (0.1, 0.01), (0.01, FAINTEST), (1e-4, FAINTEST), (4.0, 0.4)):
        path = write(tmp_path / "a.wav", np.float32(gain) * noise(5.0), subtype="FLOAT")
        (window,), outcome = list(open_recording(path, RATE).windows(5.0)), whole(path)[1]
        assert level(window.samples) == pytest.approx(due, rel=0.02)
        assert ("very quiet" in outcome.reason) == (gain == 1e-4) and outcome.status == "ok"
