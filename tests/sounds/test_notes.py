"""Texts beside the sound: one that says how slowly it plays is believed, and undone wherever a file is opened."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from archive.survey import examine
from sounds.audio import examine_header, open_recording, read_samples, reading_version
from sounds.decoders import Decoder
from sounds.notes import EXPANDED, expansion_in, undo_expansion

TRUE, STATED = 384_000, 38_400
SOUND = np.random.default_rng(0).normal(0, 0.1, 2 * TRUE).astype(np.float32)


@pytest.fixture(autouse=True)
def nothing_assumed() -> Iterator[None]:
    yield
    undo_expansion(1)


def written(path: Path, rate: int, guano: str = "") -> Path:
    """The sound in a WAV file that states a rate, with a chunk of GUANO behind it."""
    soundfile.write(path, SOUND, rate, subtype="FLOAT")
    if guano:
        text = guano.encode() + b" " * (len(guano) % 2)
        raw = path.read_bytes() + b"guan" + len(text).to_bytes(4, "little") + text
        path.write_bytes(raw[:4] + (len(raw) - 8).to_bytes(4, "little") + raw[8:])
    return path


def test_a_tenfold_recording_is_read_as_the_sound_was(tmp_path: Path) -> None:
    slow = written(tmp_path / "slow.wav", STATED, "GUANO|Version: 1.0\nTE: 10\n")
    plain = written(tmp_path / "plain.wav", TRUE)
    for rate in (TRUE, 256_000):
        whole = [np.concatenate(list(open_recording(path, rate).waveform())) for path in (slow, plain)]
        assert len(whole[0]) == 2 * rate
        np.testing.assert_array_equal(whole[0], whole[1])
        pieces = [read_samples(path, rate // 2, rate // 4, rate) for path in (slow, plain)]
        np.testing.assert_array_equal(pieces[0], pieces[1])
    header = examine_header(slow)
    assert (header.sample_rate, header.seconds, header.status) == (TRUE, 2.0, "ok")
    (examined,) = examine([slow]).values()
    assert (examined.sample_rate, examined.seconds) == (TRUE, 2.0)
    with Decoder() as decoder:  # in a process of its own
        recording = open_recording(slow, 256_000)
        assert sum(map(len, decoder.waveform(recording))) == 512_000 and recording.outcome.seconds == 2.0


def test_without_a_note_a_file_is_what_it_says_unless_somebody_knows_better(tmp_path: Path) -> None:
    silent = written(tmp_path / "silent.wav", STATED)
    said = written(tmp_path / "said.wav", STATED, "GUANO|Version:1.0\nTE:5\n")
    usual = reading_version()
    assert examine_header(silent).seconds == 20.0 and examine([silent])[silent].seconds == 20.0
    undo_expansion(10)
    assert examine_header(silent).seconds == 2.0 and examine_header(said).seconds == 4.0, "its own note counts"
    assert examine([silent])[silent].seconds == 2.0, "what was known of it before was of another reading"
    with Decoder() as decoder:
        recording = open_recording(silent, 256_000)
        assert sum(map(len, decoder.waveform(recording))) == 512_000
    assert reading_version() != usual
    undo_expansion(1)
    assert examine_header(silent).seconds == 20.0 and reading_version() == usual


def test_a_note_that_would_make_more_of_it_than_any_recorder_can_is_not_believed(tmp_path: Path) -> None:
    assert examine_header(written(tmp_path / "a.wav", TRUE, "GUANO|Version:1.0\nTE:10\n")).sample_rate == TRUE
    assert examine_header(written(tmp_path / "b.wav", STATED, "GUANO|Version:1.0\nTE:0\n")).sample_rate == STATED
    with pytest.raises(AssertionError, match="--time_expansion 1000: give 1 to 100"):
        undo_expansion(1000)


@pytest.mark.parametrize(
    ("text", "factor"),
    [
        ("GUANO|Version:1.0\nTE:10\nSpecies Manual ID:Nyctalus", "10"),
        ("GUANO|Version:1.0;TE: 8", "8"),
        ("recorded with TE=10", "10"),
        ("Time expansion factor: 20", "20"),
        ("time-expanded x10", "10"),
        ("NOTE:10 bats", ""),
        ("SITE: 7", ""),
        ("te 10 septembre", ""),
        ("Recorded at 19:22:55 14/12/2020 (UTC-5) by AudioMoth 24E144055DDD3203", ""),
    ],
)
def test_a_note_is_understood_in_the_ways_it_is_written(text: str, factor: str) -> None:
    found = EXPANDED.search(text)
    assert (found[1] if found else "") == factor


def test_comments_count_as_guano_does(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with soundfile.SoundFile(path, "w", STATED, 1) as file:
        file.comment = "D240x, TE=10"
        file.write(SOUND)
    with path.open("rb") as raw:
        assert expansion_in(raw) == 10
    assert examine_header(path).sample_rate == TRUE
