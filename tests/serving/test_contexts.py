"""What a model is given of a recording, and what became of the recording."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from config import AudioSettings
from serving.contexts import Piece, SoundSettings, channels, common_audio, context_pieces, worse
from serving.inputs import Entry
from serving.journal import open_journal
from sounds.damage import Outcome
from sounds.decoders import Decoder
from sounds.voices import Segments, VoiceFinder


class Known(VoiceFinder):
    """Somebody speaks from 6 to 7 s of the first channel, and never in the second."""

    def __init__(self) -> None: ...

    def find(self, path: Path, channel: int = 0) -> Segments:
        assert path.name == "two.wav"
        return ((6.0, 7.0),) if channel < 2 else ()


def pieces_of(path: Path, sound: SoundSettings, begun: int = 0) -> list[Piece]:
    """All of a recording; of a journal that has the answers to its first contexts, what is left."""
    entry = Entry(path)
    with open_journal(path.with_suffix(""), {}, arrays=False) as journal, Decoder() as decoder:
        if begun:
            journal.save_begun(entry, {"contexts": np.array([begun])})
        finder = Known() if sound.voices != "off" else None
        return [piece for piece, _ in context_pieces([entry], AudioSettings(), sound, decoder, journal, finder)]


@pytest.fixture
def two_channels(tmp_path: Path) -> Path:
    """Twelve seconds."""
    path = tmp_path / "two.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (16_000 * 12, 2)), 16_000)
    return path


def test_every_channel_is_read_by_itself_and_the_outcome_comes_last(two_channels: Path) -> None:
    found = pieces_of(two_channels, SoundSettings(channel="each"))
    assert [piece.channel for piece in found[:-1]] == [1, 1, 1, 2, 2, 2]
    assert [piece.windows for piece in found[:3]] == [((0.0, 5.0),), ((5.0, 10.0),), ((10.0, 12.0),)]
    assert [piece.outcome is not None for piece in found] == [False] * 6 + [True]
    shares = [piece.share for piece in found[:-1]]
    np.testing.assert_allclose(shares, np.array([5, 10, 12, 17, 22, 24]) / 24)


def test_what_an_earlier_run_answered_is_left_out_and_no_more_than_that(two_channels: Path) -> None:
    begun, *rest = pieces_of(two_channels, SoundSettings(), begun=2)
    assert begun.begun is not None and [piece.windows for piece in rest] == [((10.0, 12.0),), ()]


def test_what_reads_shorter_than_before_begins_anew(two_channels: Path) -> None:
    first, again, *rest = pieces_of(two_channels, SoundSettings(), begun=4)
    assert first.begun and again.begun == {} and len(rest) == 3 + 1


def test_shifted_windows_are_counted_from_half_a_step_on(two_channels: Path) -> None:
    found = pieces_of(two_channels, SoundSettings(tta=True))
    assert [piece.windows for piece in found if piece.shifted] == [((0.0, 5.0),), ((5.0, 9.5),)]


@pytest.mark.parametrize(("channel", "due"), [("mean", [0]), ("3", [3]), ("each", [1, 2])])
def test_channels_are_counted_from_one_and_the_mean_is_none_of_them(channel: str, due: list[int]) -> None:
    assert channels(SoundSettings(channel=channel), Outcome("ok", "", 60.0, 16_000, 2)) == due


@pytest.mark.parametrize(
    ("flag", "value"), [("shortest", -1.0), ("channel", "0"), ("channel", "left"), ("batch_size", 0)]
)
def test_a_setting_that_makes_no_sense_is_refused_by_its_flag(flag: str, value: object) -> None:
    with pytest.raises(AssertionError, match=f"^--{flag} {value}: give "):
        SoundSettings(**{flag: value})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - by name


@pytest.mark.parametrize(
    ("before", "now", "status"),
    [
        ("ok", "ok", "ok"),
        ("ok", "salvaged", "salvaged"),
        ("salvaged", "ok", "salvaged"),
        ("ok", "unreadable", "salvaged"),
    ],
)
def test_a_recording_that_is_read_twice_is_as_good_as_the_worse_time(before: str, now: str, status: str) -> None:
    first, second = (Outcome(word, word, 60.0 if word == "ok" else 30.0, 16_000, 2) for word in (before, now))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - words of a table
    told = worse(worse(None, first), second)
    assert told.status == status and told.seconds == (60.0 if status == "ok" else 30.0)
    assert status == "ok" or "salvaged" in told.reason or "unreadable" in told.reason


def test_windows_with_voices_are_skipped_in_the_channel_that_has_them(two_channels: Path) -> None:
    found = pieces_of(two_channels, SoundSettings(channel="each", voices="skip"))
    times = {channel: [piece.windows for piece in found[:-1] if piece.channel == channel] for channel in (1, 2)}
    assert times == {1: [((0.0, 5.0),), ((10.0, 12.0),)], 2: [((0.0, 5.0),), ((5.0, 10.0),), ((10.0, 12.0),)]}
    assert {channel: speech.skipped for channel, speech in found[-1].speech.items()} == {1: 5.0, 2: 0.0}


def test_of_windows_that_overlap_only_what_is_in_none_counts_as_skipped(two_channels: Path) -> None:
    found = pieces_of(two_channels, SoundSettings(overlap=2.5, voices="skip"))
    assert [piece.windows for piece in found[:-1]] == [((0.0, 5.0),), ((7.5, 12.0),)]  # 2.5 and 5 s hold 6 to 7 s
    assert found[-1].speech[0].skipped == 2.5


def test_a_run_that_skips_goes_on_where_it_was(two_channels: Path) -> None:
    begun, *rest = pieces_of(two_channels, SoundSettings(voices="skip"), begun=1)
    assert begun.begun is not None and [piece.windows for piece in rest] == [((10.0, 12.0),), ()]
    assert rest[-1].speech[0].skipped == 5.0, "as if it had not been stopped"


def test_models_that_answer_for_the_same_windows_get_the_same_sound_whatever_they_make_of_it() -> None:
    paths = [Path("one.onnx"), Path("other.onnx")]
    log, pcen = AudioSettings(), AudioSettings(compression="pcen", mels=128, lowest_hz=200.0)
    assert common_audio(paths, [log, pcen]) == log and common_audio(paths, [pcen, log]).lowest_hz == 0
    low, high = AudioSettings(highest_hz=3000.0), AudioSettings(lowest_hz=50.0, highest_hz=7000.0)
    assert common_audio(paths, [low, high]) == AudioSettings(highest_hz=7000.0)
    assert common_audio(paths, [low, log]).top_hz == 8000
    for name, value in (("sample_rate", 32_000), ("context_seconds", 10.0)):
        other = AudioSettings(**{name: value})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - by name
        with pytest.raises(AssertionError, match=rf"other\.onnx takes sound with {name} .*the same --audio\.{name}"):
            common_audio(paths, [log, other])
