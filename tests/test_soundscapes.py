"""The soundscapes of bench/soundscapes.py: what is in them is what their answers say, no more and no less."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from archive.recordings import Recording
from bench import soundscapes
from bench.soundscapes import (
    RATE,
    SECONDS,
    Judged,
    Site,
    Waveform,
    at_thresholds,
    background_of,
    loudness,
    make_site,
    make_soundscape,
    recall_at_one_alarm,
    truth_of,
)

FLAT = np.eye(1, 9, 4, dtype=np.float32)[0]  # a room without echo, a microphone without colour


@pytest.fixture(scope="module")
def hiss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """7 s of noise: shorter than a soundscape."""
    path = tmp_path_factory.mktemp("hiss") / "hiss.wav"
    soundfile.write(path, np.random.default_rng(1).normal(0, 0.01, 7 * RATE), RATE)
    return path


@pytest.fixture(scope="module")
def beeps(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Two species, of one pitch each."""
    folder, rows = tmp_path_factory.mktemp("beeps"), list[Recording]()
    for label, hertz in (("owl", 1_000), ("tit", 4_000)):
        path = folder / f"{label}.wav"
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * np.arange(8 * RATE) / RATE), RATE)
        rows.append(Recording(path, path.name, (label,), seconds=8.0))
    return rows


def strength(sound: Waveform, hertz: float) -> NDArray[np.float64]:
    """Of a pitch in every tenth of a second."""
    pieces = sound[: len(sound) // 3200 * 3200].reshape(-1, 3200)
    wave = np.exp(-2j * np.pi * hertz * np.arange(3200) / RATE)
    return np.asarray(np.abs(pieces @ wave) / 3200, np.float64)


def test_pitches_are_where_the_answers_say_and_nowhere_else(hiss: Path, beeps: list[Recording]) -> None:
    site = Site("a", hiss, FLAT[4:], FLAT)
    seen = 0
    for seed in range(4):
        sound, calls = make_soundscape(site, beeps, np.random.default_rng(seed))
        times = (np.arange(SECONDS * 10) + 0.5) / 10
        for label, hertz in (("owl", 1_000), ("tit", 4_000)):
            due = np.zeros(len(times), bool)
            edge = np.zeros(len(times), bool)
            for call in calls:
                if call.label == label:
                    due |= (times > call.start + 0.1) & (times < call.end - 0.1)
                    edge |= (times > call.start - 0.1) & (times < call.end + 0.1)
            found = strength(sound, hertz)
            seen += int(due.sum())
            assert not due.any() or found[due].min() > 3 * np.median(found[~edge])
            assert found[~edge].max() < 6 * np.median(found[~edge])
    assert seen > 100


def test_a_piece_is_as_loud_as_its_answer_says_above_the_background(
    hiss: Path, beeps: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soundscapes, "CALLS", 1.0)
    site = Site("a", hiss, FLAT[4:], FLAT)
    measured = list[float]()
    for seed in range(20):
        sound, calls = make_soundscape(site, beeps, np.random.default_rng(seed))
        if len(calls) == 1:
            (call,), power = calls, loudness(sound)
            inside = power[round((call.start + 0.1) * RATE) : round((call.end - 0.1) * RATE)].mean()
            floor = np.median([power[at * RATE : (at + 1) * RATE].mean() for at in range(SECONDS)])
            measured.append(10 * np.log10(inside / floor - 1) - call.snr_db)
    assert len(measured) >= 4 and np.abs(measured).max() < 2.5 and abs(np.mean(measured)) < 1


def test_a_third_is_empty_and_the_same_seed_gives_the_same_samples(hiss: Path, beeps: list[Recording]) -> None:
    def site() -> Site:
        return make_site("a", hiss, np.random.default_rng(9))

    longest, sound = list[float](), np.zeros(0, np.float32)
    for seed in range(5):
        sound, calls = make_soundscape(site(), beeps, np.random.default_rng(seed))
        again = make_soundscape(site(), beeps, np.random.default_rng(seed))
        assert np.array_equal(sound, again[0]) and calls == again[1]
        assert len(sound) == SECONDS * RATE and 0.09 < np.abs(sound).max() <= 1
        busy = sorted((call.start, call.end) for call in calls)
        ends = np.maximum.accumulate([0.0, *(end for _, end in busy)])
        longest.append(float((np.array([*(start for start, _ in busy), SECONDS]) - ends).max()))
    assert min(longest) >= SECONDS / 3 - 1
    other = make_soundscape(site(), beeps, np.random.default_rng(77))
    assert not np.array_equal(sound, other[0])
    assert make_soundscape(site(), [], np.random.default_rng(0))[1] == []


def test_a_short_background_goes_on_without_a_seam(hiss: Path) -> None:
    minute = background_of(Site("a", hiss, FLAT, FLAT), np.random.default_rng(3))
    levels = np.sqrt((minute.reshape(-1, RATE // 10) ** 2).mean(axis=1))
    assert len(minute) == SECONDS * RATE and levels.min() > 0.008 and levels.max() < 0.012


def test_a_window_has_a_call_from_half_a_second_on_or_half_of_a_shorter_one(tmp_path: Path) -> None:
    table = tmp_path / "answers.csv"
    rows = ["4.6,9.0,owl", "9.0,10.49,tit", "14.9,15.1,owl", "14.8,15.05,tit"]
    text = "".join(f"a.flac,{row},0,x\n" for row in rows)
    table.write_text(f"file,start,end,label,snr_db,source\n{text}")
    truth = truth_of(table, ["b.flac", "a.flac"], ("owl", "tit"))
    assert truth.shape == (24, 2) and not truth[:12].any()
    there = np.argwhere(truth).tolist()
    found = {(row - 12, ("owl", "tit")[column]) for row, column in there}
    assert found == {(1, "owl"), (1, "tit"), (2, "owl"), (3, "owl"), (2, "tit")}


def test_recall_and_alarms_by_hand() -> None:
    truth = np.array([[1, 0], [0, 1], [0, 0], [0, 0]], np.float32)
    scores = np.array([[0.9, 0.2], [0.3, 0.6], [0.7, 0.1], [0.2, 0.5]], np.float32)
    found = Judged(truth, scores, np.full((4, 2), 0.55, np.float32), np.array(list("aabb")))
    assert at_thresholds(found, 2.0) == (1.0, 0.5)  # one window of four, in two hours
    assert recall_at_one_alarm(found, 1.0) == 1.0  # .7 passes once, .5 does not: from .5 on
    assert recall_at_one_alarm(found, 0.6) == 0.5  # not even once: above .7 there is the owl alone
