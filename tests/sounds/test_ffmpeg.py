"""What libsndfile leaves to FFmpeg is read as far as it goes, at its true times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from broken import (
    RATE,
    noise,
    overwritten,
    sample,
    with_beep,
    write,
)
from opened import SCALED, beep_time, faint_and_loud, whole


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


def test_a_decoder_that_goes_on_for_another_delivers_no_empty_block(tmp_path: Path) -> None:
    """A FLAC file whose header speaks of 60 of 100 s: what was delivered before is passed over, and not counted."""
    sound, path = noise(100.0), tmp_path / "a.flac"
    soundfile.write(path, sound, RATE, "PCM_16")
    due, content = soundfile.read(path, dtype="float32")[0], bytearray(path.read_bytes())
    word = int.from_bytes(content[18:26], "big") >> 36 << 36 | 60 * RATE
    path.write_bytes(bytes(content[:18]) + word.to_bytes(8, "big") + bytes(content[26:]))
    stream, outcome = whole(path)
    assert np.array_equal(stream, due) and (outcome.status, outcome.claimed_seconds) == ("salvaged", 60)
