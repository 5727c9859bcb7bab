from __future__ import annotations

import math
import os
import re
import struct
import time
import tracemalloc
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile
import soxr
from broken import (
    FFMPEG_KINDS,
    RATE,
    SECONDS,
    SOUNDFILE_KINDS,
    Kind,
    Sound,
    cut,
    encode,
    noise,
    overwritten,
    sample,
    with_beep,
    write,
    write_zoo,
)

from sounds.audio import (
    FAINTEST,
    SEAM,
    SUFFIXES,
    TAIL_SECONDS,
    Outcome,
    Window,
    as_mp3,
    fill_window,
    find_recordings,
    holds_integers,
    network_input,
    ogg_checksum,
    open_recording,
    probe,
    read_samples,
    read_window,
)
from sounds.headers import Header, mended

SHARED = Path(__file__).parents[3] / "shared"
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


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Kind]]:
    folder = tmp_path_factory.mktemp("zoo")
    return folder, write_zoo(folder)


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


# ---- every format -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SOUNDFILE_KINDS, *FFMPEG_KINDS])
def test_every_format_is_read_whole_and_the_beep_stays_where_it_was(name: str, tmp_path: Path) -> None:
    path = sample(tmp_path, name, with_beep(noise(6.0), 4.0))
    _, outcome = whole(path)
    assert (outcome.status, outcome.reason, outcome.channels) == ("ok", "", 1)
    assert abs(outcome.seconds - 6.0) < 0.1
    assert abs(beep_time(path) - 4.0) < (0.05 if name in SOUNDFILE_KINDS else 0.09)  # the encoder of AAC starts early
    assert probe(path) == outcome


@pytest.mark.parametrize("name", sorted({*SOUNDFILE_KINDS, *FFMPEG_KINDS} - LOSSY))
def test_formats_without_loss_give_back_the_very_samples(name: str, tmp_path: Path) -> None:
    steps = np.round(noise(3.0) * 32_768) / np.float32(32_768)
    sound, _ = whole(sample(tmp_path, name, steps))
    assert np.abs(sound - steps).max() <= {"pcm8.wav": 1.01 / 128, "lossless.m4a": 1.01 / 32_768}.get(name, 0.0)


@pytest.mark.parametrize("name", ["alaw.wav", "ulaw.wav", "adpcm.wav"])
def test_old_telephone_codes_come_near_the_samples(name: str, tmp_path: Path) -> None:
    sound, _ = whole(sample(tmp_path, name, noise(3.0)))
    assert np.std(sound[: 3 * RATE] - noise(3.0)) < 0.25 * np.std(sound)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("pcm16.wav", (8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000, 250_000, 384_000, 1_000_000)),
        ("sound.flac", (8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000, 250_000, 384_000)),
        ("sound.ogg", (8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000)),
        ("pcm16.aiff", (8_000, 48_000, 96_000, 384_000)),
        ("sound.mp3", (8_000, 11_025, 22_050, 32_000, 44_100, 48_000)),
        ("sound.opus", (8_000, 12_000, 24_000, 48_000)),
        ("sound.m4a", (8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000)),
        ("sound.aac", (8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000)),
        ("sound.wma", (22_050, 44_100, 48_000)),
    ],
)
def test_every_format_is_read_whole_at_every_rate_it_has(name: str, rates: tuple[int, ...], tmp_path: Path) -> None:
    for rate in rates:
        sound, outcome = whole(sample(tmp_path, name, noise(2.0, rate), rate))
        assert (outcome.status, outcome.reason, outcome.sample_rate) == ("ok", "", rate), rate
        assert abs(outcome.seconds - 2.0) < (0.3 if name in FFMPEG_KINDS else 0.01), rate  # a packet of AAC: 0.13 s
        assert abs(len(sound) - outcome.seconds * RATE) <= 1, rate


@pytest.mark.parametrize(
    "rate", [8_000, 11_025, 16_000, 22_050, 22_077, 32_000, 44_100, 48_000, 96_000, 192_000, 250_000, 384_000]
)
def test_streamed_resampling_equals_that_of_the_whole_file(rate: int, tmp_path: Path) -> None:
    seconds = 70 if rate < 50_000 else 35 if rate < 300_000 else 20  # several blocks
    path = write(tmp_path / "a.wav", noise(seconds, rate), rate)
    original, _ = soundfile.read(path, dtype="float32")
    expected = original if rate == RATE else soxr.resample(original, rate, RATE, "HQ")
    sound, outcome = whole(path)
    assert np.array_equal(sound, expected)
    assert outcome == Outcome("ok", "", len(original) / rate, rate, 1)


def test_channels_are_mixed_to_their_mean(tmp_path: Path) -> None:
    stereo = noise(2.0, channels=2)
    for path in (write(tmp_path / "a.wav", stereo, subtype="FLOAT"), write(tmp_path / "a.flac", stereo)):
        sound, outcome = whole(path)
        assert outcome.channels == 2
        assert np.abs(sound - stereo.mean(axis=1)).max() < 2 / 32_768


@pytest.mark.parametrize("channels", [2, 4, 6, 8])
@pytest.mark.parametrize(
    "name", ["pcm24.wav", "extensible.wav", "rf64.wav", "sound.flac", "pcm16.aiff", "lossless.m4a"]
)
def test_four_six_and_eight_channels_are_mixed_to_their_mean(name: str, channels: int, tmp_path: Path) -> None:
    several = noise(1.0, channels=channels)
    sound, outcome = whole(sample(tmp_path, name, several))
    assert (outcome.status, outcome.reason, outcome.channels) == ("ok", "", channels)
    assert np.abs(sound - several.mean(axis=1)).max() < 2 / 32_768


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("sound.ogg", (2, 4, 6, 8)),
        ("sound.opus", (2, 6, 8)),
        ("sound.mp3", (2,)),
        ("sound.m4a", (2, 4, 6, 8)),
        ("sound.aac", (2, 6, 8)),
        ("sound.wma", (2,)),
    ],
)
def test_several_channels_of_lossy_formats_are_read_whole(name: str, counts: tuple[int, ...], tmp_path: Path) -> None:
    for channels in counts:
        rate = 48_000
        _, outcome = whole(sample(tmp_path, name, noise(2.0, rate, channels), rate))
        assert (outcome.status, outcome.reason, outcome.channels) == ("ok", "", channels)
        assert abs(outcome.seconds - 2.0) < 0.15


def test_sixty_four_channels_are_mixed_to_their_mean(tmp_path: Path) -> None:
    many = noise(0.5, channels=64)
    sound, outcome = whole(write(tmp_path / "many.wav", many, subtype="FLOAT"))
    assert np.abs(sound - many.mean(axis=1)).max() < 1e-6
    assert (outcome.status, outcome.reason) == ("ok", "")


# ---- what was heard ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pcm16.wav", "sound.flac", "lossless.m4a"])
def test_the_loudest_sample_and_the_zeros_at_the_end_are_measured(name: str, tmp_path: Path) -> None:
    rate = 8_000
    sound = np.float32(0.1) * np.sign(noise(70.0, rate))  # 70 s: three blocks
    sound[5 * rate : 50 * rate] = 0  # zeros that are no tail
    sound[12 * rate] = -0.5
    _, outcome = whole(sample(tmp_path, name, sound, rate))
    assert outcome.loudest == pytest.approx(0.5, abs=1e-4)
    assert outcome.zero_tail_seconds == 0.0
    sound[25 * rate + 1 :] = 0
    sound[25 * rate] = 0.1
    _, outcome = whole(sample(tmp_path, name, sound, rate))
    assert outcome.zero_tail_seconds == 45 - 1 / rate  # over block borders
    _, outcome = whole(sample(tmp_path, name, np.zeros_like(sound), rate))
    assert outcome.status == "silent" and outcome.silent_seconds == 70.0
    assert (outcome.loudest, outcome.zero_tail_seconds) == (0.0, 70.0)


def test_the_loudest_sample_of_several_channels_is_that_of_their_mean(tmp_path: Path) -> None:
    stereo = np.zeros((RATE, 2), np.float32)
    stereo[100] = (0.5, 0.25)
    stereo[200] = (-0.9, 0.9)
    _, outcome = whole(write(tmp_path / "a.wav", stereo, subtype="FLOAT"))
    assert outcome.loudest == 0.375
    assert outcome.zero_tail_seconds == 1 - 101 / RATE


def test_a_recording_known_by_its_header_alone_is_not_called_silent(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1.0))
    assert probe(path) == whole(path)[1]  # what was heard is no part of what a recording is
    assert math.isnan(probe(path).loudest)


def test_channels_that_cancel_each_other_are_noted(tmp_path: Path) -> None:
    sound, other = noise(3.0), noise(3.0, seed=1)
    nothing = np.zeros_like(sound)
    lonely = np.zeros((len(sound), 16), np.float32)
    lonely[:, 3] = sound
    cancelling = [(sound, -sound), (sound, -0.9 * sound), (sound, other, -sound, -other), (sound, -sound, nothing)]
    for number_of, channels in enumerate(cancelling):
        _, outcome = whole(write(tmp_path / f"{number_of}.wav", np.stack(channels, axis=1)))
        assert outcome.status in ("ok", "silent")
        assert "cancel each other in the mean (antiphase)" in outcome.reason
    for channels in ((sound, sound), (sound, other), (sound, nothing), (nothing, nothing), (sound, -0.5 * sound)):
        assert "antiphase" not in whole(write(tmp_path / "b.wav", np.stack(channels, axis=1)))[1].reason
    assert "antiphase" not in whole(write(tmp_path / "lonely.wav", lonely))[1].reason
    for share, noted in ((-0.84, True), (-0.76, False)):  # the mean has 0.09 and 0.13 of its channels' RMS
        both = np.stack([sound, np.float32(share) * sound], axis=1)
        for path in (write(tmp_path / "c.wav", both), encode(tmp_path / "c.m4a", "alac", both)):  # either decoder
            assert ("antiphase" in whole(path)[1].reason) == noted


def test_a_suffix_that_lies_is_noted_and_one_that_says_nothing_is_not(tmp_path: Path) -> None:
    sound = noise(2.0)
    path = write(tmp_path / "a.ogg", sound, subtype="VORBIS")
    for name, words in (
        ("a.wav", "is a .ogg file named .wav, read all the same"),
        ("a.OPUS", ""),
        ("a.dat", ""),
        ("a", ""),
    ):
        (tmp_path / name).write_bytes(path.read_bytes())
        for outcome in (whole(tmp_path / name)[1], probe(tmp_path / name)):
            assert (outcome.status, outcome.reason) == ("ok", words)


def test_a_name_that_is_no_utf8_is_read(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.wav", noise(1.0))
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/owl\xff\xfe.wav"))
    odd.write_bytes(plain.read_bytes())
    assert whole(odd)[1].status == "ok"
    song = encode(tmp_path / "a.m4a", "aac", noise(1.0))
    odd = odd.with_suffix(".m4a")
    odd.write_bytes(song.read_bytes())
    assert whole(odd)[1].status == "ok"


# ---- windows ------------------------------------------------------------------------------------------------------


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


# ---- one window by seeking ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SOUNDFILE_KINDS, *FFMPEG_KINDS])
def test_a_window_found_by_seeking_is_the_slice_of_the_whole(name: str, tmp_path: Path) -> None:
    path = sample(tmp_path, name, noise(9.0))
    sound, _ = whole(path)
    near = {"sound.opus": 1e-3, "sound.mp3": 1e-6}  # decoders that start anew round differently
    for start in (0.0, 1.2345, 5.0, 7.9):
        window = read_samples(path, round(start * RATE), RATE, RATE)
        assert len(window) == RATE
        assert np.abs(window - sound[round(start * RATE) :][:RATE]).max() <= near.get(name, 0.0)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_077, 32_000, 44_100, 250_000])
def test_a_resampled_window_agrees_with_the_streamed_recording(rate: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(12.0, rate), rate)
    sound, _ = whole(path)
    for start in (0.0, 0.01, 3.3333, 7.00007, 11.0):
        window = read_samples(path, round(start * RATE), RATE, RATE)
        assert np.abs(window - sound[round(start * RATE) :][:RATE]).max() < 1e-5


@pytest.mark.parametrize("name", ["pcm16.wav", "sound.flac", "sound.ogg", "sound.mp3", "sound.opus", "sound.m4a"])
def test_the_end_of_a_recording_is_the_same_by_seeking(name: str, tmp_path: Path) -> None:
    rate = 24_000 if name == "sound.opus" else 32_000
    path = sample(tmp_path, name, noise(6.3, rate), rate)
    for window in heard(path, 1.0)[0][-2:]:
        found = read_window(path, window.start, 1.0, RATE)
        assert np.abs(found - window.samples).max() < (1e-2 if name == "sound.opus" else 1e-5)


def test_beyond_the_end_and_in_what_is_no_sound_there_is_no_window(tmp_path: Path) -> None:
    sound = write(tmp_path / "a.wav", noise(1.0))
    text = tmp_path / "b.wav"
    text.write_text("no sound at all, but long enough to be some" * 9)
    for path, start in ((sound, 1.0), (sound, 99.0), (text, 0.0), (tmp_path, 0.0), (tmp_path / "none.wav", 0.0)):
        assert read_window(path, start, 1.0, RATE).shape == (0,)


def test_every_real_recording_ends_the_same_by_seeking() -> None:
    root = SHARED / "animals"
    if not root.is_dir():
        pytest.skip(f"no recordings at {root}")
    paths, _ = find_recordings([root])
    for path in paths[::20]:
        windows, outcome = heard(path, 5.0)
        assert outcome.status == ("ok" if windows else "short")
        assert probe(path) == outcome
        assert not windows or np.abs(read_window(path, windows[-1].start, 5.0, RATE) - windows[-1].samples).max() < 1e-5


# ---- damage -------------------------------------------------------------------------------------------------------


def test_every_kind_of_damage_gives_back_what_it_can_and_says_why(zoo: tuple[Path, list[Kind]]) -> None:
    folder, kinds = zoo
    assert len({broken.what for broken in kinds}) == len(kinds) >= 35
    wrong: list[str] = []
    for broken in kinds:
        begin = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sound, outcome = whole(folder / broken.name)
        found = "silent" if outcome.status == "ok" and outcome.loudest == 0 else outcome.status
        right = (
            found == broken.status
            and broken.least_seconds <= outcome.seconds <= broken.most_seconds
            and bool(re.search(broken.words, outcome.reason)) >= bool(outcome.reason) == bool(broken.words)
            and abs(len(sound) - outcome.seconds * RATE) <= 1
            and bool(np.isfinite(sound).all())
            and "\n" not in outcome.reason
            and time.monotonic() - begin < 10
        )
        wrong += [] if right else [f"{broken} became {outcome}"]
    assert not wrong, "\n".join(wrong)


def test_every_kind_of_damage_can_be_probed_and_searched_for_a_window(zoo: tuple[Path, list[Kind]]) -> None:
    folder, kinds = zoo
    for broken in kinds:
        window = read_window(folder / broken.name, 5.0, 1.0, RATE)
        assert len(window) == (0 if broken.status == "unreadable" else RATE), broken.name
        assert np.isfinite(window).all()
        assert (probe(folder / broken.name).status == "unreadable") == (broken.status == "unreadable"), broken.name


def test_space_set_aside_and_never_written_is_told_from_sound(zoo: tuple[Path, list[Kind]]) -> None:
    folder, _ = zoo
    for name, tail in (("tail.wav", 5.0), ("size_0_tail.wav", 5.0), ("silent.flac", SECONDS), ("guano.wav", 0.0)):
        assert whole(folder / name)[1].zero_tail_seconds == tail


@pytest.mark.parametrize(
    "name", ["pcm16.wav", "pcm16.aiff", "sound.flac", "sound.ogg", "sound.mp3", "sound.opus", "sound.aac"]
)
def test_half_a_file_is_salvaged(name: str, tmp_path: Path) -> None:
    sound = with_beep(noise(20.0), 4.0)
    path = cut(sample(tmp_path, name, sound))
    windows, outcome = heard(path, 5.0)
    assert outcome.status == "salvaged"
    assert 8.0 < outcome.seconds < 12.0
    assert windows[-1].end == pytest.approx(outcome.seconds, abs=0.001)
    assert abs(beep_time(path) - 4.0) < 0.09
    assert probe(path) == outcome


@pytest.mark.parametrize("name", ["pcm16.wav", "sound.flac", "sound.mp3"])
def test_half_a_file_tells_how_much_it_claims_and_how_much_was_read(name: str, tmp_path: Path) -> None:
    _, outcome = whole(cut(sample(tmp_path, name, noise(20.0))))
    assert f"{outcome.seconds:.1f} s of the 20.0 s" in outcome.reason


@pytest.mark.parametrize("name", ["sound.flac", "sound.ogg", "sound.opus", "sound.m4a"])
def test_after_garbage_in_the_middle_time_is_still_true(name: str, tmp_path: Path) -> None:
    path = sample(tmp_path, name, with_beep(noise(30.0), 25.0))
    garbage = np.random.default_rng(1).bytes(4096)
    damaged = overwritten(path, path.stat().st_size // 3, garbage)
    sound, outcome = whole(damaged)
    assert outcome.status == "salvaged"
    assert "lost in between" in outcome.reason
    assert abs(outcome.seconds - 30.0) < 0.1
    assert len(sound) == round(outcome.seconds * RATE)
    assert abs(beep_time(damaged) - 25.0) < 0.09


def test_after_garbage_in_an_mp3_most_is_salvaged_and_times_are_called_doubtful(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp3", noise(40.0), subtype="MPEG_LAYER_III")
    _, outcome = whole(overwritten(path, path.stat().st_size // 3, np.random.default_rng(1).bytes(8192)))
    assert outcome.status == "salvaged"
    assert outcome.seconds > 36
    assert "s of the 40.0 s" in outcome.reason


def test_one_flipped_bit_in_an_ogg_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ogg", with_beep(noise(10.0), 8.0), subtype="VORBIS")
    middle = path.stat().st_size // 2
    damaged = overwritten(path, middle, bytes([path.read_bytes()[middle] ^ 4]))
    assert "damaged in the page" in whole(damaged)[1].reason
    assert abs(beep_time(damaged) - 8.0) < 0.05


def test_the_checksum_of_ogg_follows_its_definition() -> None:
    register = 0
    for byte in b"OggS":  # bit by bit: polynomial 04c11db7, begun at 0, highest bit first
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ 0x04C11DB7 * (register >> 31)) & 0xFFFFFFFF
    assert ogg_checksum(b"OggS") == struct.pack("<I", register)


def test_glued_recordings_are_read_to_the_end(tmp_path: Path) -> None:
    for name in ("sound.ogg", "sound.flac"):
        path = sample(tmp_path, name, noise(20.0))
        glued = path.with_name("glued_" + name)
        glued.write_bytes(2 * path.read_bytes())
        outcome = whole(glued)[1]
        assert (outcome.status, round(outcome.seconds)) == ("salvaged", 40)


@pytest.mark.parametrize("claim", [0, 44])
def test_a_wav_whose_header_was_never_finished_is_read_to_its_end(claim: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(5.0))
    data = path.read_bytes().index(b"data") + 4
    unfinished = overwritten(path, data, struct.pack("<I", claim))
    sound, outcome = whole(unfinished)
    assert (outcome.status, outcome.seconds) == ("salvaged", 5.0)
    assert np.array_equal(sound, whole(path)[0])
    assert np.array_equal(read_samples(unfinished, 2 * RATE, RATE, RATE), sound[2 * RATE : 3 * RATE])


def test_a_wav_that_claims_four_gigabytes_or_a_header_too_much_is_fine(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(5.0))
    data = path.read_bytes().index(b"data") + 4
    for claim in (2**32 - 1, 2 * 5 * RATE + 44):
        _, outcome = whole(overwritten(path, data, struct.pack("<I", claim)))
        assert (outcome.status, outcome.seconds) == ("ok", 5.0)


def test_a_wav_with_chunks_after_its_sound_is_fine(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1.0))
    with path.open("ab") as file:
        file.write(b"guan" + struct.pack("<I", 100_000) + b"GUANO" * 20_000)
    assert whole(path)[1] == Outcome("ok", "", 1.0, RATE, 1)


def test_a_flac_without_a_length_or_with_twice_the_length_is_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", noise(5.0))
    head = int.from_bytes(path.read_bytes()[18:26], "big") >> 36 << 36  # 36 bits of it are the number of frames
    streamed = whole(overwritten(path, 18, head.to_bytes(8, "big")))[1]
    assert (streamed.status, streamed.seconds) == ("ok", 5.0)
    doubled = overwritten(path, 18, (head | 10 * RATE).to_bytes(8, "big"))
    for outcome in (whole(doubled)[1], probe(doubled)):
        assert (outcome.status, outcome.seconds) == ("salvaged", 5.0)
        assert "5.0 s of the 10.0 s" in outcome.reason


def test_what_is_no_number_becomes_silence_before_resampling(tmp_path: Path) -> None:
    sound = noise(2.0, 48_000)
    broken = sound.copy()
    broken[48_000 : 48_000 + 5] = (np.nan, np.inf, -np.inf, 1e30, -1e30)
    silent = np.where(broken == sound, sound, 0).astype(np.float32)
    heard_sound, outcome = whole(write(tmp_path / "a.wav", broken, 48_000, "FLOAT"))
    assert outcome.status == "salvaged"
    assert outcome.reason.startswith("5 samples are no numbers")
    assert np.array_equal(heard_sound, soxr.resample(silent, 48_000, RATE, "HQ"))
    assert np.isfinite(read_window(tmp_path / "a.wav", 0.5, 1.0, RATE)).all()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.wav", b"", "has 0 bytes"),
        ("stub.wav", b"RIFF" + bytes(16), "has 20 bytes"),
        ("note.wav", b"This is a note, whatever its name says.\n" * 3, "named .wav, is text"),
        ("page.mp3", b"<!doctype html><html><body>not found</body></html>" * 9, "named .mp3, is an HTML page"),
        ("photo.flac", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "named .flac, is an image"),
        ("zeros.wav", bytes(130_000), "zeros"),
        ("random.wav", np.random.default_rng(0).bytes(130_000), "no known format"),
        ("random.mp3", b"\xff\xe4" + np.random.default_rng(1).bytes(130_000), "no known format"),
        ("bare", np.random.default_rng(2).bytes(2_000), "named without a suffix"),
        ("header.flac", b"fLaC" + bytes(60), "begins like a FLAC file"),
        ("list.mp3", b"#EXTM3U\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n" * 3, "is text"),
    ],
)
def test_what_is_no_sound_is_named_for_what_it_is(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    windows, outcome = heard(path)
    assert (windows, outcome.status, outcome.seconds, outcome.sample_rate) == ([], "unreadable", 0.0, 0)
    assert words in outcome.reason
    assert "\n" not in outcome.reason
    assert probe(path) == outcome


def test_a_pipe_a_folder_a_device_and_nothing_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    cases = {"pipe.wav": "pipe", "folder.wav": "folder", "loop.wav": "found", "none.wav": "found", "a\0b.wav": "found"}
    for name, word in cases.items():
        for outcome in (whole(tmp_path / name)[1], probe(tmp_path / name)):
            assert outcome.status == "unreadable"
            assert word in outcome.reason
    assert "device" in whole(Path("/dev/zero"))[1].reason


def test_absurd_rates_and_channels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(2.0))
    for rate in (1, 999, 1_000_001, 2**31 - 1):
        outcome = whole(overwritten(path, 24, struct.pack("<I", rate)))[1]
        assert (outcome.status, f"{rate} Hz" in outcome.reason) == ("unreadable", True)
    outcome = whole(write(tmp_path / "many.wav", np.zeros((1000, 65), np.float32)))[1]
    assert (outcome.status, "65 channels" in outcome.reason) == ("unreadable", True)


# ---- finding ------------------------------------------------------------------------------------------------------


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def test_recordings_are_found_at_any_depth_in_any_case_and_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.WAV", "b/1.Flac", "a/deep/er/3.ogg", "z.mp3", "notes.txt", "b/README")
    paths, notes = find_recordings([tmp_path])
    assert paths == [tmp_path / name for name in ("a/deep/er/3.ogg", "b/1.Flac", "b/2.WAV", "z.mp3")]
    assert notes == ["found 4 audio files (1 .ogg, 1 .flac, 1 .wav, 1 .mp3); ignored 2 other"]
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


def test_hidden_and_system_names_are_skipped_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "._a.wav", ".trash/b.wav", "$RECYCLE.BIN/c.wav", "System Volume Information/d.wav")
    paths, notes = find_recordings([tmp_path])
    assert paths == [tmp_path / "a.wav"]
    assert notes == ["found 1 audio files (1 .wav); ignored 4 hidden"]


def test_a_recording_reached_twice_is_one_and_linked_folders_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "card/a.wav", "elsewhere/b.wav")
    (tmp_path / "card/same.wav").symlink_to(tmp_path / "card/a.wav")
    (tmp_path / "card/loop").symlink_to(tmp_path / "card")
    (tmp_path / "card/self.ogg").symlink_to("self.ogg")
    (tmp_path / "card/linked").symlink_to(tmp_path / "elsewhere")
    paths, notes = find_recordings([tmp_path / "card", tmp_path / "card/a.wav"])
    assert paths == [tmp_path / "card/a.wav", tmp_path / "card/self.ogg"]
    assert notes == ["found 2 audio files (1 .wav, 1 .ogg); ignored 2 links to folders, 2 named twice"]


def test_a_file_given_by_name_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    touch(tmp_path, "data", ".hidden.wav")
    paths, _ = find_recordings([tmp_path / "data", tmp_path / ".hidden.wav"])
    assert paths == [tmp_path / ".hidden.wav", tmp_path / "data"]


def test_nothing_found_names_what_is_there_and_a_missing_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "b.txt", "c.csv")
    paths, notes = find_recordings([tmp_path])
    assert paths == []
    assert "the suffixes there are: 2 .txt, 1 .csv" in notes[0]
    with pytest.raises(AssertionError, match="nothing at"):
        find_recordings([tmp_path / "none"])


@pytest.mark.parametrize("seconds", [0.3, 4.0, 5.0, 5.2, 9.0, 20.0, 20.3, 23.0, 41.7])
@pytest.mark.parametrize("overlap", [0.0, 2.5])
def test_a_longer_context_holds_the_same_windows(seconds: float, overlap: float, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * 1000)).astype(np.float32)
    soundfile.write(path, samples, 1000, subtype="FLOAT")
    expected = {(w.start, w.end): w.samples for w in open_recording(path, 1000).windows(5.0, overlap)}
    found: dict[tuple[float, float], Sound] = {}
    for context, windows in open_recording(path, 1000).contexts(20.0, 5.0, overlap):
        assert len(context.samples) == 20_000 and windows
        for place, (start, end) in enumerate(windows):
            assert start == pytest.approx(context.start + 5 * place) and (start, end) not in found
            found[start, end] = context.samples[5000 * place : 5000 * (place + 1)]
    assert sorted(found) == sorted(expected)
    for (start, end), window in expected.items():
        length = round((end - start) * 1000)
        if end == pytest.approx(seconds):  # the end goes over into what it is repeated by, in a context later
            length -= round(SEAM * 20_000)
        assert np.ptp(found[start, end][:length] - window[:length]) < 1e-6, "the mean of another stretch was removed"


def test_a_context_that_overlaps_oddly_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones(1000), 1000)
    with pytest.raises(AssertionError, match="a whole part of the window"):
        list(open_recording(path, 1000).contexts(20.0, 5.0, 1.3))


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000])
def test_a_piece_of_sound_as_mp3_is_as_long_as_it_was_and_sounds_alike(tmp_path: Path, rate: int) -> None:
    tone = (0.3 * np.sin(2 * np.pi * 1_000 * np.arange(2 * rate) / rate)).astype(np.float32)
    (tmp_path / "a.mp3").write_bytes(as_mp3(tone, rate))
    (heard,) = list(open_recording(tmp_path / "a.mp3", rate).waveform())
    assert len(heard) == len(tone) and np.corrcoef(heard, tone)[0, 1] > 0.99
    assert (tmp_path / "a.mp3").stat().st_size < 20_000


@pytest.mark.parametrize("claim", [b"\xff" * 8, b"\xff" * 7 + b"\x7f", bytes(8)], ids=["2^64-1", "2^63-1", "0"])
def test_a_header_that_claims_more_than_a_file_can_hold_is_no_end(tmp_path: Path, claim: bytes) -> None:
    """Found by 50,000 damaged files: nobody can seek beyond 2^63."""
    path = overwritten(sample(tmp_path, "w64.wav", noise(3.0)), 16, claim)
    recording = open_recording(path, RATE)
    list(recording.waveform())
    assert recording.outcome.status in ("ok", "salvaged", "unreadable") and probe(path).status


# ---- what is no sound, and levels -----------------------------------------------------------------------------------


def analysed(path: Path, **how: Any) -> tuple[list[float], Outcome]:
    """Where windows of 5 s begin, and how it went."""
    recording = open_recording(path, RATE, **how)
    return [window.start for window in recording.windows(5.0)], recording.outcome


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_where_a_microphone_is_dead_nothing_is_analysed_and_no_effort_is_counted(rate: int, tmp_path: Path) -> None:
    count, sound = 30 * rate, noise(60.0, rate)
    clipped = np.clip(1_000 * noise(60.0, rate), -1, 1)
    dead = {
        "zeros at the end": (0 * sound, 30.0, "30.0 s of it, the first at 30.0 s, hold no sound"),
        "a constant": (0 * sound + np.float32(0.3), 30.0, "hold no sound"),
        "clipped throughout": (clipped, 30.0, "s, are clipped throughout and are left out"),
        "loud, and clipped at times": (np.clip(8 * sound, -1, 1), 0.0, ""),
    }
    for name, (bad, lost, words) in dead.items():
        half = np.where(np.arange(len(sound)) < count, sound, bad).astype(np.float32)
        starts, outcome = analysed(write(tmp_path / "a.wav", half, rate))
        assert starts == [5.0 * n for n in range(6 if lost else 12)], name
        assert outcome.status == "ok" and outcome.silent_seconds == pytest.approx(lost, abs=0.01), name
        assert words in outcome.reason and bool(words) == bool(outcome.reason), name
        assert outcome.seconds == 60.0, "times stay true"
        starts, outcome = analysed(write(tmp_path / "b.wav", bad.astype(np.float32), rate))
        assert (outcome.status == "silent") == (lost > 0) == (not starts), name
        assert outcome.silent_seconds == (60.0 if lost else 0.0)


def test_a_dead_channel_is_named_and_the_others_are_heard(tmp_path: Path) -> None:
    sound = noise(20.0)
    for bad in (0 * sound, 0 * sound + np.float32(0.2)):
        starts, outcome = analysed(write(tmp_path / "a.wav", np.stack([sound, bad], axis=1)))
        assert outcome.reason == "no sound for a while in channel 2, use another one" and len(starts) == 4
        starts, outcome = analysed(write(tmp_path / "a.wav", np.stack([sound, bad], axis=1)), channel=2)
        assert outcome.status == "silent" and not starts
    assert analysed(write(tmp_path / "a.wav", np.stack([sound, noise(20.0, seed=1)], axis=1)))[1].reason == ""


def test_a_stub_is_too_short_and_gets_no_window_unless_it_is_asked_for(tmp_path: Path) -> None:
    for seconds, due in ((0.01, "short"), (0.29, "short"), (0.31, "ok"), (1.0, "ok")):
        path = write(tmp_path / "a.wav", noise(seconds))
        starts, outcome = analysed(path)
        assert outcome.status == due and len(starts) == (due == "ok")
        assert ("too short to analyse, at least 0.3 s" in outcome.reason) == (due == "short")
        assert outcome.silent_seconds == (outcome.seconds if due == "short" else 0)
        assert analysed(path, shortest=0.0)[1].status == "ok" and len(analysed(path, shortest=0.0)[0]) == 1


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


SCALED = "its float samples are those of 16-bit integers, divided by 32768 here"


def test_float_samples_on_the_scale_of_integers_are_those_of_the_integers(tmp_path: Path) -> None:
    sound = noise(40.0)
    plain = whole(write(tmp_path / "a.wav", sound, subtype="FLOAT"))[0]
    heard_anew, outcome = whole(write(tmp_path / "b.wav", sound * np.float32(32_768), subtype="FLOAT"))
    assert np.array_equal(heard_anew, plain) and outcome.reason == SCALED
    assert np.array_equal(read_samples(tmp_path / "b.wav", 35 * RATE, RATE, RATE), plain[35 * RATE : 36 * RATE])
    spike = sound.copy()
    spike[5] = 20_000
    assert whole(write(tmp_path / "c.wav", spike, subtype="FLOAT"))[1].loudest == 20_000, "control: one wild sample"


def faint_and_loud(seconds: int, loud: int) -> Sound:
    """The numbers of a 16-bit file: noise of at most 14 steps, and 6 s of loud sound from second `loud` on."""
    numbers = np.random.default_rng(5).integers(-14, 15, seconds * RATE).astype(np.float32)
    numbers[loud * RATE : (loud + 6) * RATE] = np.rint(10_000 * noise(6.0))
    return numbers


@pytest.mark.parametrize(("seconds", "loud"), [(70, 3), (70, 62), (600, 301)])
@pytest.mark.parametrize("channels", [1, 2])
def test_whether_samples_are_integers_is_decided_once_for_a_file(
    seconds: int, loud: int, channels: int, tmp_path: Path
) -> None:
    """Wherever reading begins and in whatever order, faint stretches are divided as loud ones are."""
    numbers = faint_and_loud(seconds, loud)
    several = np.stack([numbers] * channels, axis=1)
    path, plain = tmp_path / "a.wav", numbers / np.float32(32_768)
    soundfile.write(path, several, RATE, subtype="FLOAT")
    early = read_samples(path, 15 * RATE, 5 * RATE, RATE)  # before anything else has been read
    assert np.array_equal(early, plain[15 * RATE : 20 * RATE]) and np.abs(early).max() == np.float32(14 / 32_768)
    sound, outcome = whole(path)
    assert np.array_equal(sound, plain) and outcome.reason == SCALED and probe(path) == outcome
    assert outcome.loudest == np.abs(plain).max()
    for start in (0, 15, 28, loud, seconds - 5):
        window = read_window(path, start, 5.0, RATE)
        assert np.array_equal(window, network_input(plain[start * RATE :][: 5 * RATE], 5 * RATE)), start
    soundfile.write(path, several / np.float32(32_768), RATE, subtype="FLOAT")  # another file of the same name
    assert np.array_equal(read_samples(path, 15 * RATE, RATE, RATE), early[:RATE])


def test_float_samples_that_another_decoder_reads_are_judged_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = faint_and_loud(70, 62)
    path = tmp_path / "a.wav"
    soundfile.write(path, numbers, RATE, subtype="FLOAT")

    def refuse(*_: Any) -> Any:
        yield from ()
        return False

    monkeypatch.setattr("sounds.audio.soundfile_blocks", refuse)
    assert np.array_equal(whole(path)[0], numbers / np.float32(32_768)) and whole(path)[1].reason == SCALED
    soundfile.write(path, noise(20.0), RATE, subtype="FLOAT")
    assert np.array_equal(whole(path)[0], noise(20.0)) and whole(path)[1].reason == ""


def clipped_from(first: float, last: float, rate: int, seconds: float = 40.0) -> Sound:
    """Noise that is clipped throughout between two times."""
    sound, (start, end) = noise(seconds, rate), (round(first * rate), round(last * rate))
    sound[start:end] = np.clip(1_000 * sound[start:end], -1, 1)
    return sound


@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (RATE, 2), (48_000, 8), (24_000, 1)])
@pytest.mark.parametrize("name", ["float.wav", "sound.flac", "pcm24.aif"])
def test_seconds_clipped_throughout_are_those_of_the_recording_wherever_reading_begins(
    name: str, rate: int, channels: int, tmp_path: Path
) -> None:
    """At 48 kHz a block of eight channels is no whole number of seconds; a second at a time is asked for, and more."""
    sound = clipped_from(11.6, 15.3, rate) * np.float32(0.9)
    path = sample(tmp_path, name, np.stack([sound] * channels, axis=1), rate)
    stream, outcome = whole(path)
    silenced = np.abs(whole(path, rate)[0]).reshape(40, rate).max(axis=1) == 0
    assert np.flatnonzero(silenced).tolist() == [12, 13, 14] and outcome.dead == ((12.0, 15.0),)
    for start in (2.5, 7.25, 10.7, 11.7, 12.5, 14.99, 15.2, 15.99, 16.2, 34.5):
        for length in (0.2, 1.0, 5.0):
            first = round(start * RATE)
            piece, due = read_samples(path, first, round(length * RATE), RATE), stream[first:][: round(length * RATE)]
            assert len(piece) == len(due)
            assert np.array_equal(piece, due) if rate == RATE else np.abs(piece - due).max() < 1e-5, (start, length)
    assert (
        np.array_equal(read_window(path, 2.5, 5.0, RATE), network_input(stream[40_000:120_000], 80_000)) or rate != RATE
    )


@pytest.mark.parametrize("size", [4 * 997, 4 * 65_537, 2**24])
def test_no_size_of_the_blocks_changes_what_is_silenced(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.flac", clipped_from(3.5, 6.2, RATE, 9.4))
    monkeypatch.setattr("sounds.audio.BLOCK_BYTES", size)
    sound, outcome = whole(path)
    assert (
        outcome.dead == ((4.0, 6.0),) and not sound[4 * RATE : 6 * RATE].any() and sound[7 * RATE // 2 : 4 * RATE].all()
    )


def test_a_rest_shorter_than_a_second_belongs_to_the_second_before_it(tmp_path: Path) -> None:
    frames, sound = 20 * RATE, noise(22.0)
    for count in (frames + 1, frames + RATE // 2, frames + RATE - 1):
        quiet, constant = sound[:count].copy(), sound[:count].copy()
        quiet[frames:] = 0  # a moment without sound behind sound
        constant[19 * RATE :] = 0.2
        clipped = np.where(np.arange(count) < 19 * RATE, sound[:count], np.sign(sound[:count])).astype(np.float32)
        assert analysed(write(tmp_path / "a.wav", sound[:count]))[1].dead == ()
        assert analysed(write(tmp_path / "b.wav", quiet))[1].dead == ()
        assert analysed(write(tmp_path / "c.wav", constant))[1].dead == ((19.0, count / RATE),)
        stream, outcome = whole(write(tmp_path / "d.wav", clipped))
        assert outcome.dead == ((19.0, count / RATE),) and not stream[19 * RATE :].any()
        assert np.array_equal(read_samples(tmp_path / "d.wav", frames - 5, 2 * RATE, RATE), stream[frames - 5 :])
        assert np.array_equal(read_samples(tmp_path / "d.wav", frames, RATE, RATE), stream[frames:])
    quiet = np.concatenate([sound[:frames], np.zeros(RATE, np.float32)])
    assert analysed(write(tmp_path / "a.wav", quiet))[1].dead == ((20.0, 21.0),), "control: a second is one"


def test_a_rest_is_judged_behind_its_second_and_by_itself(tmp_path: Path) -> None:
    """20 s of sound, of which the last may hold none, and half a second, or one frame."""
    frames, sound = 20 * RATE, noise(22.0)
    zeros, clipped = np.zeros(RATE, np.float32), np.sign(sound[19 * RATE : 20 * RATE])
    assert np.abs(clipped).min() == 1
    for count in (1, RATE // 2):
        noisy, still, full = sound[frames:][:count], zeros[:count], np.sign(sound[frames:][:count])
        for last, rest, due in (
            (sound[19 * RATE : frames], noisy, ()),
            (sound[19 * RATE : frames], still, ()),
            (sound[19 * RATE : frames], full, ()),
            (zeros, still, ((19.0, 20 + count / RATE),)),
            (zeros, noisy, ((19.0, 20.0 if count > 1 else 20 + count / RATE),)),  # a frame by itself is a constant
            (clipped, noisy, ((19.0, 20.0 if count > 1 else 20 + count / RATE),)),
            (clipped, full, ((19.0, 20 + count / RATE),)),
        ):
            plain = np.concatenate([sound[: 19 * RATE], last, rest])
            path = write(tmp_path / "a.wav", plain, subtype="FLOAT")
            stream, outcome = whole(path)
            assert outcome.dead == due and outcome.status == "ok"
            if due and last is clipped:  # a constant is left out, but it is not made silent
                plain[19 * RATE : round(due[0][1] * RATE)] = 0
            assert np.array_equal(stream, plain)
            for start in (18 * RATE, frames - 5, frames):
                assert np.array_equal(read_samples(path, start, 3 * RATE, RATE), stream[start:])


class Counted:
    """An open file that counts the bytes that are read of it."""

    taken = 0

    def __init__(self, file: Any) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        content: bytes = self.file.read(size)
        Counted.taken += len(content)
        return content


@pytest.mark.parametrize(
    ("name", "due"), [("sound", False), ("loud sound", False), ("faint numbers", True), ("halves of numbers", True)]
)
def test_of_a_long_file_only_pieces_are_read_to_know_its_numbers(
    name: str, due: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour at 384 kHz: a hole in the disk with a second of sound at either end, and 6 s in the middle."""
    rate, path = 384_000, tmp_path / "a.wav"
    size = 4 * 3_600 * rate
    sound = np.random.default_rng(0).uniform(-14, 14, rate).astype("<f4")
    middle, ends = {
        "sound": (sound / 14, sound / 14),
        "loud sound": (sound, sound),
        "faint numbers": (np.rint(sound), np.rint(sound)),
        "halves of numbers": (sound * 1_000, np.rint(sound) + np.float32(0.5)),
    }[name]
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, rate, 4 * rate, 4, 32)
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, 72 + size, size, size // 4, 0)
    head = b"RF64" + b"\xff" * 4 + b"WAVE" + sizes + form + b"data" + b"\xff" * 4
    with path.open("wb") as file:
        file.write(head + ends.tobytes())
        file.seek(len(head) + size // 2)
        file.write(np.tile(middle, 6).tobytes())
        file.seek(len(head) + size - 4 * rate)
        file.write(ends.tobytes())

    def counted(file: BinaryIO, header: Header) -> Counted:
        return Counted(mended(file, header))

    monkeypatch.setattr("sounds.audio.mended", counted)
    monkeypatch.setattr(Counted, "taken", 0)
    facts = path.stat()
    assert holds_integers(str(path), facts.st_size, facts.st_mtime_ns) == due
    assert 64 * 1024 <= Counted.taken < size / 10


def test_a_decoder_that_goes_on_for_another_delivers_no_empty_block(tmp_path: Path) -> None:
    """A FLAC file whose header speaks of 60 of 100 s: what was delivered before is passed over, and not counted."""
    sound, path = noise(100.0), tmp_path / "a.flac"
    soundfile.write(path, sound, RATE, "PCM_16")
    due, content = soundfile.read(path, dtype="float32")[0], bytearray(path.read_bytes())
    word = int.from_bytes(content[18:26], "big") >> 36 << 36 | 60 * RATE
    path.write_bytes(bytes(content[:18]) + word.to_bytes(8, "big") + bytes(content[26:]))
    stream, outcome = whole(path)
    assert np.array_equal(stream, due) and (outcome.status, outcome.claimed_seconds) == ("salvaged", 60)
