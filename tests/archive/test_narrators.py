"""Narrators are cut out of recordings, and nothing else is; what was searched once is not searched again."""

from __future__ import annotations

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pretend_voices import write_package, write_sound

from archive.narrators import speech_in, with_speech, with_voices
from archive.recordings import COLUMNS, Recording, read_recordings, write_recordings
from archive.segments import draw_segment, evaluated_windows
from config import AudioSettings
from sounds.voices import AROUND_SECONDS, Segments, VoiceFinder

OWL = Recording(Path("owl.ogg"), "owl.ogg", ("tawow",), seconds=60.0)


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger of one's own, and a pretend detector."""
    monkeypatch.setattr("archive.survey.LEDGER", tmp_path / "ledger" / "examined.sqlite")
    write_package(tmp_path / "package")
    monkeypatch.syspath_prepend(tmp_path / "package")


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the recordings that are searched, as they are."""
    names: list[str] = []
    find = VoiceFinder.find

    def noted(self: VoiceFinder, path: Path, channel: int = 0) -> Segments:
        names.append(path.name)
        return find(self, path, channel)

    monkeypatch.setattr(VoiceFinder, "find", noted)
    yield names


def test_a_narrator_is_cut_out_of_training_and_of_what_is_held_out() -> None:
    row = with_speech(OWL, ((0.0, 7.5), (58.0, 61.0)), cut=True)
    assert row.voices == ((0.0, 7.5), (58.0, 60.0)) and row.keep == row.usable == ((7.5, 58.0),)
    rng = np.random.default_rng(0)
    drawn = [draw_segment(row, 5.0, None, rng) for _ in range(200)]
    assert min(drawn)[0] >= 7.5 and max(end for _, end in drawn) <= 58.0
    assert evaluated_windows(row, AudioSettings())[0][0] == 7.5
    assert min(draw_segment(OWL, 5.0, None, rng)[0] for _ in range(200)) < 7.5  # negative control


def test_what_somebody_keeps_is_kept_as_far_as_nobody_speaks() -> None:
    kept = with_speech(replace(OWL, keep=((5.0, 20.0), (30.0, 31.0))), ((10.0, 12.0), (30.1, 40.0)), cut=True)
    assert kept.keep == ((5.0, 10.0), (12.0, 20.0))  # the tenth of a second that is left is no recording


def test_a_recording_of_nothing_else_is_refused() -> None:
    for row in (OWL, replace(OWL, keep=((10.0, 20.0),)), replace(OWL, alive=((10.0, 20.0),))):
        refused = with_speech(row, ((5.0, 25.0),) if row != OWL else ((0.0, 59.9),), cut=True)
        assert (refused.status, refused.sound) == ("refused", False)
        assert refused.reason == "somebody speaks throughout; leave out --data.voices to keep it"


def test_labelled_segments_stay_and_report_changes_nothing() -> None:
    labelled = replace(OWL, start=3.0, end=4.0)
    assert with_speech(labelled, ((0.0, 7.5),), cut=True) == replace(labelled, voices=((0.0, 7.5),))
    assert with_speech(OWL, ((0.0, 7.5),), cut=False) == replace(OWL, voices=((0.0, 7.5),))
    assert with_speech(replace(OWL, status="missing"), ((0.0, 7.5),), cut=True).voices == ()


def test_a_recording_is_searched_once_unless_it_or_the_detector_changes(tmp_path: Path, searched: list[str]) -> None:
    paths = [write_sound(tmp_path / "a.wav", 8, [(2, 4)]), write_sound(tmp_path / "bb.wav", 8)]
    first = speech_in(paths)
    assert first[paths[1]] == () and first[paths[0]][0] == pytest.approx((2 - AROUND_SECONDS, 4.2), abs=0.064)
    assert sorted(searched) == ["a.wav", "bb.wav"] and speech_in(paths) == first and len(searched) == 2
    write_sound(paths[1], 9, [(6, 8)])
    assert len(speech_in(paths)[paths[1]]) == 1 and searched[2:] == ["bb.wav"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sounds.voices.VERSION", 99)
        assert speech_in(paths)[paths[0]] == first[paths[0]] and len(searched) == 5


def test_what_could_not_be_searched_to_its_end_is_searched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, found = write_sound(tmp_path / "a.wav", 8, [(2, 4)]), [((1.0, float("inf")),), ((1.8, 4.2),)]

    def find(*_: object) -> Segments:
        return found.pop(0)

    monkeypatch.setattr(VoiceFinder, "find", find)
    assert [speech_in([path])[path][-1][1] for _ in range(3)] == [float("inf"), 4.2, 4.2] and not found


def test_the_table_has_a_column_of_voices_only_where_some_were_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        Recording(write_sound(tmp_path / name, 8, talks), name, ("a",), seconds=8.0)
        for name, talks in (("a.wav", [(2.0, 4.0)]), ("bb.wav", []), ("ccc.wav", [(0.0, 8.0)]))
    ]
    table, found = tmp_path / "recordings.csv", with_voices(rows, cut=True)
    said = capsys.readouterr().out
    assert "voices in 2 of 3 recordings, 0.2 minutes, which are cut out" in said
    assert "1 of them keep nothing and are refused, such as ccc.wav" in said
    for written, more in ((found, ("voices",)), (rows, ())):
        write_recordings(table, written)
        assert tuple(table.read_text().splitlines()[0].split(",")) == (*COLUMNS, *more)
    write_recordings(table, found)
    again = read_recordings(table)
    assert [len(row.keep) for row in again] == [2, 0, 0] and [len(row.voices) for row in again] == [1, 0, 1]
    assert with_voices(again, cut=True) == again  # what is cut is not cut again
