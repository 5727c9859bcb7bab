"""By seeking or as a stream, a recording is the same; no header is believed more than the samples."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile
from broken import (
    FFMPEG_KINDS,
    RATE,
    SOUNDFILE_KINDS,
    noise,
    overwritten,
    sample,
    write,
)
from opened import SCALED, faint_and_loud, heard, whole

from sounds.audio import examine_header, open_recording, read_samples, read_window
from sounds.damage import Outcome
from sounds.discovery import find_recordings
from sounds.headers import Header, mended
from sounds.libsndfile import holds_integers
from sounds.windows import network_input

SHARED = Path(__file__).parents[3] / "shared"


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
        assert examine_header(path) == outcome
        assert not windows or np.abs(read_window(path, windows[-1].start, 5.0, RATE) - windows[-1].samples).max() < 1e-5


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
    for outcome in (whole(doubled)[1], examine_header(doubled)):
        assert (outcome.status, outcome.seconds) == ("salvaged", 5.0)
        assert "5.0 s of the 10.0 s" in outcome.reason


@pytest.mark.parametrize("claim", [b"\xff" * 8, b"\xff" * 7 + b"\x7f", bytes(8)], ids=["2^64-1", "2^63-1", "0"])
def test_a_header_that_claims_more_than_a_file_can_hold_is_no_end(tmp_path: Path, claim: bytes) -> None:
    """Found by 50,000 damaged files: nobody can seek beyond 2^63."""
    path = overwritten(sample(tmp_path, "w64.wav", noise(3.0)), 16, claim)
    recording = open_recording(path, RATE)
    list(recording.waveform())
    assert recording.outcome.status in ("ok", "salvaged", "unreadable") and examine_header(path).status


def test_float_samples_on_the_scale_of_integers_are_those_of_the_integers(tmp_path: Path) -> None:
    sound = noise(40.0)
    plain = whole(write(tmp_path / "a.wav", sound, subtype="FLOAT"))[0]
    heard_anew, outcome = whole(write(tmp_path / "b.wav", sound * np.float32(32_768), subtype="FLOAT"))
    assert np.array_equal(heard_anew, plain) and outcome.reason == SCALED
    assert np.array_equal(read_samples(tmp_path / "b.wav", 35 * RATE, RATE, RATE), plain[35 * RATE : 36 * RATE])
    spike = sound.copy()
    spike[5] = 20_000
    assert whole(write(tmp_path / "c.wav", spike, subtype="FLOAT"))[1].loudest == 20_000, "control: one wild sample"


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
    assert np.array_equal(sound, plain) and outcome.reason == SCALED and examine_header(path) == outcome
    assert outcome.loudest == np.abs(plain).max()
    for start in (0, 15, 28, loud, seconds - 5):
        window = read_window(path, start, 5.0, RATE)
        assert np.array_equal(window, network_input(plain[start * RATE :][: 5 * RATE], 5 * RATE)), start
    soundfile.write(path, several / np.float32(32_768), RATE, subtype="FLOAT")  # another file of the same name
    assert np.array_equal(read_samples(path, 15 * RATE, RATE, RATE), early[:RATE])


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

    monkeypatch.setattr("sounds.libsndfile.mended", counted)
    monkeypatch.setattr(Counted, "taken", 0)
    facts = path.stat()
    assert holds_integers(str(path), facts.st_size, facts.st_mtime_ns) == due
    assert 64 * 1024 <= Counted.taken < size / 10
