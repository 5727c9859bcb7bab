"""Recordings scored: averaged, smoothed and weighted as asked, and all the tables need of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.analysis import analyse, scored_channel
from serving.contexts import SoundSettings
from serving.detections import Choices
from serving.inputs import Entry
from serving.scored_windows import Windows
from sounds.damage import Outcome
from taxonomy import Taxonomy

FROG = Taxonomy(("41",), ("Rana ficta",), ("frog",), (("a", "b", "c", "d", "e", "f", "g"),), (7,))


def windows_of(scores: list[float]) -> Windows:
    windows = Windows([5.0 * k for k in range(len(scores))], [5.0 * k + 5 for k in range(len(scores))])
    windows.probabilities.extend(scores)
    return windows


ANSWERED = {(0, False): windows_of([0.0, 0.8, 0.0]), (0, True): windows_of([0.5, 0.5])}


@pytest.mark.parametrize(
    ("sound", "due"),
    [
        (SoundSettings(), [0.0, 0.8, 0.0]),
        (SoundSettings(tta=True), [0.5 / 3, 2.6 / 4, 0.5 / 3]),  # twice its own, once each neighbour
        (SoundSettings(smooth=True), [0.16 / 0.7, 0.32 / 0.8, 0.16 / 0.7]),  # at the ends over those that are there
        (SoundSettings(file_weight=True), [0.0, 0.64, 0.0]),
    ],
)
def test_the_windows_of_a_channel_are_averaged_and_weighted_as_asked(sound: SoundSettings, due: list[float]) -> None:
    np.testing.assert_allclose(scored_channel(ANSWERED, 0, 1, sound, 5.0).probabilities[:, 0], due, atol=1e-6)


def test_a_channel_without_windows_has_no_scores() -> None:
    assert scored_channel(ANSWERED, 2, 206, SoundSettings(), 5.0).probabilities.shape == (0, 206)


def test_what_is_known_of_a_recording_reaches_the_tables() -> None:
    entry = Entry(Path("pond/a.wav"), "pond", "2026-05-14T05:30:00", 10, 20, "1.5", "-2", "SM4", "S1", "17")
    outcome = replace(Outcome("ok", "", 15.0, 32_000, 2), dead=((10.0, 15.0),))
    choices = Choices(np.array([0.5], np.float32), np.array([True]))
    scored = [scored_channel(ANSWERED, 0, 1, SoundSettings(), 5.0)]
    analysed = analyse(entry, outcome, scored, FROG, choices)
    assert (analysed.seconds_analysed, analysed.seconds_silent, analysed.windows) == (10.0, 5.0, 3)
    assert [(found.start, found.detected_at) for found in analysed.found] == [(5.0, "2026-05-14T05:30:05")]
    facts = analysed.site, analysed.latitude, analysed.longitude, analysed.make, analysed.serial, analysed.temperature
    assert facts == ("pond", "1.5", "-2", "SM4", "S1", "17")
