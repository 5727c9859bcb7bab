"""Every format is read whole, every damage gives back what it can, and what was read is said."""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from pathlib import Path

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
    cut,
    encode,
    noise,
    sample,
    with_beep,
    write,
    write_zoo,
)
from opened import LOSSY, beep_time, heard, whole

from sounds.audio import as_mp3, examine_header, open_recording, read_window
from sounds.damage import Outcome


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Kind]]:
    folder = tmp_path_factory.mktemp("zoo")
    return folder, write_zoo(folder)


# ---- every format -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SOUNDFILE_KINDS, *FFMPEG_KINDS])
def test_every_format_is_read_whole_and_the_beep_stays_where_it_was(name: str, tmp_path: Path) -> None:
    path = sample(tmp_path, name, with_beep(noise(6.0), 4.0))
    _, outcome = whole(path)
    assert (outcome.status, outcome.reason, outcome.channels) == ("ok", "", 1)
    assert abs(outcome.seconds - 6.0) < 0.1
    assert abs(beep_time(path) - 4.0) < (0.05 if name in SOUNDFILE_KINDS else 0.09)  # the encoder of AAC starts early
    assert examine_header(path) == outcome


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


def test_a_recording_known_by_its_header_alone_is_not_called_silent(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1.0))
    assert examine_header(path) == whole(path)[1]  # what was heard is no part of what a recording is
    assert math.isnan(examine_header(path).loudest)


def test_a_name_that_is_no_utf8_is_read(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.wav", noise(1.0))
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/owl\xff\xfe.wav"))
    odd.write_bytes(plain.read_bytes())
    assert whole(odd)[1].status == "ok"
    song = encode(tmp_path / "a.m4a", "aac", noise(1.0))
    odd = odd.with_suffix(".m4a")
    odd.write_bytes(song.read_bytes())
    assert whole(odd)[1].status == "ok"


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
        assert (examine_header(folder / broken.name).status == "unreadable") == (broken.status == "unreadable"), (
            broken.name
        )


def test_space_set_aside_and_never_written_is_told_from_sound(zoo: tuple[Path, list[Kind]]) -> None:
    folder, _ = zoo
    for name, tail in (("tail.wav", 5.0), ("size_0_tail.wav", 5.0), ("silent.flac", SECONDS), ("guano.wav", 0.0)):
        assert whole(folder / name)[1].silent_seconds == tail


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
    assert examine_header(path) == outcome


@pytest.mark.parametrize("name", ["pcm16.wav", "sound.flac", "sound.mp3"])
def test_half_a_file_tells_how_much_it_claims_and_how_much_was_read(name: str, tmp_path: Path) -> None:
    _, outcome = whole(cut(sample(tmp_path, name, noise(20.0))))
    assert f"{outcome.seconds:.1f} s of the 20.0 s" in outcome.reason


def test_glued_recordings_are_read_to_the_end(tmp_path: Path) -> None:
    for name in ("sound.ogg", "sound.flac"):
        path = sample(tmp_path, name, noise(20.0))
        glued = path.with_name("glued_" + name)
        glued.write_bytes(2 * path.read_bytes())
        outcome = whole(glued)[1]
        assert (outcome.status, round(outcome.seconds)) == ("salvaged", 40)


# ---- a piece for a browser ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000])
def test_a_piece_of_sound_as_mp3_is_as_long_as_it_was_and_sounds_alike(tmp_path: Path, rate: int) -> None:
    tone = (0.3 * np.sin(2 * np.pi * 1_000 * np.arange(2 * rate) / rate)).astype(np.float32)
    (tmp_path / "a.mp3").write_bytes(as_mp3(tone, rate))
    (heard,) = list(open_recording(tmp_path / "a.mp3", rate).waveform())
    assert len(heard) == len(tone) and np.corrcoef(heard, tone)[0, 1] > 0.99
    assert (tmp_path / "a.mp3").stat().st_size < 20_000
