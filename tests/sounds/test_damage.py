"""What is wrong with a recording is said, and what is no sound is not analysed."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soxr
from broken import (
    RATE,
    encode,
    noise,
    overwritten,
    sample,
    write,
)
from opened import analysed, clipped_from, heard, whole

from sounds.audio import examine_header, read_samples, read_window
from sounds.windows import network_input


@pytest.mark.parametrize("name", ["pcm16.wav", "sound.flac", "lossless.m4a"])
def test_the_loudest_sample_is_measured(name: str, tmp_path: Path) -> None:
    rate = 8_000
    sound = np.float32(0.1) * np.sign(noise(70.0, rate))  # 70 s: three blocks
    sound[12 * rate] = -0.5
    _, outcome = whole(sample(tmp_path, name, sound, rate))
    assert outcome.loudest == pytest.approx(0.5, abs=1e-4)
    _, outcome = whole(sample(tmp_path, name, np.zeros_like(sound), rate))
    assert outcome.status == "silent" and outcome.silent_seconds == 70.0
    assert outcome.loudest == 0.0


def test_the_loudest_sample_of_several_channels_is_that_of_their_mean(tmp_path: Path) -> None:
    stereo = np.zeros((RATE, 2), np.float32)
    stereo[100] = (0.5, 0.25)
    stereo[200] = (-0.9, 0.9)
    _, outcome = whole(write(tmp_path / "a.wav", stereo, subtype="FLOAT"))
    assert outcome.loudest == 0.375


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
        for outcome in (whole(tmp_path / name)[1], examine_header(tmp_path / name)):
            assert (outcome.status, outcome.reason) == ("ok", words)


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
    assert examine_header(path) == outcome


def test_a_pipe_a_folder_a_device_and_nothing_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    cases = {"pipe.wav": "pipe", "folder.wav": "folder", "loop.wav": "found", "none.wav": "found", "a\0b.wav": "found"}
    for name, word in cases.items():
        for outcome in (whole(tmp_path / name)[1], examine_header(tmp_path / name)):
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


def test_a_click_in_zeros_is_no_sound_and_what_is_ok_has_a_window(tmp_path: Path) -> None:
    """Zeros are known by whole seconds; a click in each of them, or a recording of less than two, hid them."""
    for seconds, clicks in ((1.5, [0]), (4.0, [8_000, 24_000]), (0.9, [14_000])):
        sound = np.zeros(round(seconds * RATE), np.float32)
        sound[clicks] = 0.1
        starts, outcome = analysed(write(tmp_path / "a.wav", sound))
        assert not starts and outcome.status == "silent" and outcome.silent_seconds == seconds, seconds
        assert "holds no sound" in outcome.reason
        sound[: round(0.35 * RATE)] = noise(0.35)  # control: as much as a window needs
        starts, outcome = analysed(write(tmp_path / "a.wav", sound))
        assert starts == [0.0] and outcome.status == "ok", seconds


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
    monkeypatch.setattr("sounds.libsndfile.BLOCK_BYTES", size)
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
