"""The same sound is known again whatever its coat, and nothing else is taken for it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray
from test_survey import forbidden, song, write

from archive import duplicates
from archive.duplicates import copies_of, same_sounds, without_duplicates
from archive.recordings import Recording
from archive.survey import Examination, examine, heard_by
from config import SOUNDS

ANIMALS = Path(__file__).parents[3] / "shared" / "animals"


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger of one's own."""
    monkeypatch.setattr("archive.survey.LEDGER", tmp_path / "ledger" / "examined.sqlite")


Print = NDArray[np.float32]


def coats(folder: Path, sound: NDArray[np.float32]) -> list[Path]:
    """One sound in many encodings, rates and levels."""

    def at(rate: int) -> NDArray[np.float32]:
        return soxr.resample(sound, 32_000, rate)

    late = np.concatenate([np.zeros(1_600, np.float32), sound])
    return [
        write(folder, "same.flac", sound),
        write(folder, "quiet.wav", 0.2 * sound),
        write(folder, "lossy.ogg", sound),
        write(folder, "lossy.mp3", at(22_050), 22_050),
        write(folder, "voice.opus", at(48_000), 48_000, "OPUS"),
        write(folder, "phone.wav", at(8_000), 8_000),
        write(folder, "late.wav", late),
        write(folder, "upside_down.wav", -sound),
    ]


def test_the_same_sound_is_known_again_whatever_its_coat(tmp_path: Path) -> None:
    original = write(tmp_path, "a.wav", song(0))
    others = [write(tmp_path, f"other{seed}.wav", song(seed)) for seed in range(1, 9)]
    paths = [original, *others, *coats(tmp_path / "coats", song(0))]
    pairs = same_sounds(paths, examine(paths))
    joined = {paths[index].name for one, other, _ in pairs for index in (one, other)}
    assert joined == {path.name for path in paths} - {path.name for path in others}


def test_copies_of_a_recording_are_found_among_others_of_its_length(tmp_path: Path) -> None:
    held_out = [write(tmp_path, f"held-out-{seed}.wav", song(seed)) for seed in (0, 5)]
    short = write(tmp_path, "short.wav", song(0, 0.5))
    copies = [
        write(tmp_path / "card", "same.flac", song(0)),
        write(tmp_path / "card", "lossy.ogg", song(0)),
        write(tmp_path / "card", "short.wav", song(0, 0.5)),
    ]
    others = [write(tmp_path / "card", f"other-{seed}.wav", song(seed)) for seed in range(1, 4)]
    assert copies_of([*held_out, short], [*others, *copies, *copies]) == set(copies)
    assert copies_of([], copies) == copies_of(held_out, []) == set()


def test_the_same_melody_sung_again_is_another_recording(tmp_path: Path) -> None:
    """What fingerprints alone would take for one sound, the waveforms tell apart."""
    rng = np.random.default_rng(5)
    one = song(0) + rng.normal(0, 0.001, 192_000).astype(np.float32)
    shift = np.interp(np.arange(192_000) * 1.003, np.arange(192_000), song(0)).astype(np.float32)
    paths = [write(tmp_path, "one.wav", one), write(tmp_path, "two.wav", shift)]
    examined = examine(paths)
    prints = [np.frombuffer(bytes.fromhex(examined[path].fingerprint), np.int8).astype(float) for path in paths]
    assert np.corrcoef(prints)[0, 1] > duplicates.ALIKE
    assert same_sounds(paths, examined) == []


def survey_with_a_tape(folder: Path, tape: NDArray[np.float32], at: float = 2.0) -> list[Path]:
    """Three recordings of 30 s with weather of their own, each with the same loud sound at the same second."""
    paths: list[Path] = []
    for number in range(3):
        sound = np.random.default_rng(number).normal(0, 0.004, 30 * 16_000)
        sound[int(at * 16_000) :][: len(tape)] += tape
        paths.append(write(folder, f"{number}.wav", sound.astype(np.float32), 16_000))
    return paths


@pytest.mark.parametrize("seconds", [0.3, 3.0, 8.0])
def test_a_tape_or_a_beep_at_the_same_second_makes_no_duplicates(seconds: float, tmp_path: Path) -> None:
    """Loud as it is, it is one piece of several; a control shows that the loudest part alone would have decided."""
    count = int(seconds * 16_000)
    tape = (0.1 * np.sin(np.arange(count) ** 1.3 / 30) * (np.arange(count) // 4_000 % 2)).astype(np.float32)
    paths = survey_with_a_tape(tmp_path, tape)
    examined = examine(paths)
    assert same_sounds(paths, examined) == []
    first, second = (soundfile.read(path, dtype="float32")[0] for path in paths[:2])
    assert first @ second > 0.6 * np.linalg.norm(first) * np.linalg.norm(second) or seconds < 1, "control"
    copies = [
        write(tmp_path, f"copy{path.stem}.flac", 0.5 * soundfile.read(path, dtype="float32")[0], 16_000)
        for path in paths
    ]
    both = [*paths, *copies]
    assert same_sounds(both, examine(both)) == [(one, one + 3, "same") for one in range(3)]


def test_a_hum_and_a_beginning_in_common_make_no_duplicates(tmp_path: Path) -> None:
    seconds = np.arange(40 * 16_000) / 16_000
    hum = 0.2 * sum(np.sin(2 * np.pi * 50 * k * seconds) / k for k in range(1, 12))
    speech = song(3, 30.0, 16_000)
    paths: list[Path] = []
    for number in range(3):
        weather = np.random.default_rng(number).normal(0, 0.01, len(seconds))
        paths.append(write(tmp_path, f"hum{number}.wav", (hum + weather).astype(np.float32), 16_000))
        begun = np.concatenate([speech, np.zeros(3 * len(seconds) - len(speech))]) + np.tile(weather, 3)
        paths.append(write(tmp_path, f"speech{number}.wav", begun.astype(np.float32), 16_000))
    assert same_sounds(paths, examine(paths)) == []


def test_recordings_that_differ_only_above_8_khz_are_different(tmp_path: Path) -> None:
    """Bats over the same wind: neither the digest nor the comparison may end where a model's band does."""
    rng, rate = np.random.default_rng(0), 96_000
    wind = soxr.resample(song(4, 6.0, 16_000), 16_000, rate)
    bats = [soxr.resample(rng.normal(0, 0.05, 6 * 48_000).astype(np.float32), 48_000, rate) for _ in range(2)]
    spectra = [np.fft.rfft(bat) for bat in bats]
    above = np.fft.rfftfreq(len(bats[0]), 1 / rate) > 9_000
    high = [np.fft.irfft(spectrum * above, len(wind)).astype(np.float32) for spectrum in spectra]
    paths = [write(tmp_path, f"{n}.wav", (wind + bat).astype(np.float32), rate) for n, bat in enumerate(high)]
    examined = examine(paths)
    assert len({examined[path].digest for path in paths}) == 2
    assert same_sounds(paths, examined) == [(0, 1, "low")], "they may not be parted, and both stay"
    quiet = write(tmp_path, "quiet.flac", (0.5 * (wind + high[0])).astype(np.float32), rate)
    assert (0, 2, "same") in same_sounds([*paths, quiet], examine([*paths, quiet]))
    heard = heard_by(SOUNDS["bat"])
    for_bats = same_sounds([*paths, quiet], examine([*paths, quiet], heard), heard)
    assert for_bats == [(0, 2, "same")], "to a network that hears bats alone, the wind says nothing"


def test_a_copy_is_known_where_nothing_is_below_the_bats(tmp_path: Path) -> None:
    """As recorders with a high-pass filter write it: for birds there is nothing in it to compare."""
    rate, paths = 96_000, list[Path]()
    for number in range(2):
        noise = np.random.default_rng(number).normal(0, 0.05, 6 * rate)
        spectrum = np.fft.rfft(noise * np.repeat(np.random.default_rng(number).uniform(0, 1, 60), rate // 10))
        spectrum[np.fft.rfftfreq(6 * rate, 1 / rate) < 14_000] = 0
        sound = np.fft.irfft(spectrum).astype(np.float32)
        paths += [
            write(tmp_path, f"{number}.wav", sound, rate, "FLOAT"),
            write(tmp_path, f"{number}.flac", 0.5 * sound, rate, "PCM_24"),
        ]
    heard = heard_by(SOUNDS["bat"])
    assert same_sounds(paths, examine(paths, heard), heard) == [(0, 1, "same"), (2, 3, "same")]
    assert same_sounds(paths, examine(paths)) == [], "control: below 8 kHz there is rounding alone"


def test_all_channels_count_for_equal_samples(tmp_path: Path) -> None:
    left, right = song(0) * np.float32(0.5), song(1) * np.float32(0.5)
    one = write(tmp_path, "one.wav", np.stack([left, right], axis=1).astype(np.float32))
    other = write(tmp_path, "other.wav", np.stack([right, left], axis=1).astype(np.float32))
    same = tmp_path / "same.flac"
    soundfile.write(same, np.rint(soundfile.read(one, dtype="float32")[0] * 32_768).astype(np.int16), 32_000)
    digests = [examine([one, other, same])[path].digest for path in (one, other, same)]
    assert digests[0] == digests[2] != digests[1]


def test_comparing_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path, "a.wav", song(0)), write(tmp_path, "b.wav", 0.5 * song(0))]
    examined = examine(paths)
    pairs = same_sounds(paths, examined)
    monkeypatch.setattr("archive.duplicates.likeness_of", forbidden)
    assert same_sounds(paths, examined) == pairs == [(0, 1, "same")]


def test_real_recordings_are_known_again_after_a_lossy_codec(tmp_path: Path) -> None:
    if not ANIMALS.is_dir():
        pytest.skip("the recordings of ../shared/animals are not here")
    sources = [path for path in sorted(ANIMALS.glob("audio/*/*.ogg"))[::40] if soundfile.info(path).duration < 30]
    examined = examine(sources)
    sources = [path for path in sources if examined[path].seconds >= 1.5]
    copies: list[Path] = []
    for path in sources:
        sound, rate = soundfile.read(path, dtype="float32")
        copies.append(write(tmp_path, f"{path.stem}.mp3", soxr.resample(sound, rate, 22_050), 22_050))
    paths = [*sources, *copies]
    pairs = {pair[:2] for pair in same_sounds(paths, examine(paths))}
    found = [(number, number + len(sources)) in pairs for number in range(len(sources))]
    assert len(sources) >= 15 and np.mean(found) >= 0.9
    assert not [pair for pair in pairs if pair[1] - pair[0] != len(sources)]


def test_real_duplicates_under_two_names_are_found() -> None:
    if not ANIMALS.is_dir():
        pytest.skip("the recordings of ../shared/animals are not here")
    paths = sorted(ANIMALS.glob("audio/bos_taurus/*.ogg"))
    pairs = {(paths[one].name, paths[other].name) for one, other, _ in same_sounds(paths, examine(paths))}
    assert pairs == {("4670b750.ogg", "475b6d84.ogg"), ("5bd40f46.ogg", "abbb622a.ogg")}


def crowd_with_copies(rows: int, likeness: float) -> tuple[list[Print], list[float], set[tuple[int, int]]]:
    """Fingerprints, lengths, and which row holds the copy of which: every tenth row has one, in the second part."""
    rng = np.random.default_rng(7)
    prints = rng.standard_normal((rows, 128)).astype(np.float32)
    chosen = np.arange(0, rows, 10)
    noise = rng.standard_normal((len(chosen), 128)).astype(np.float32)
    unit = prints[chosen] / np.linalg.norm(prints[chosen], axis=1, keepdims=True)
    noise -= (noise * unit).sum(axis=1, keepdims=True) * unit
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    both = np.concatenate([prints, likeness * unit + np.sqrt(1 - likeness**2) * noise])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    expected = {(int(one), rows + place) for place, one in enumerate(chosen)}
    return list(both.astype(np.float32)), [60.0] * len(both), expected


def test_in_a_crowd_of_one_length_copies_are_found_without_comparing_each_with_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prints, seconds, expected = crowd_with_copies(3_000, 0.97)
    assert set(duplicates.alike(prints, seconds)) == expected, "each with each"
    monkeypatch.setattr(duplicates, "CROWD", 100)
    assert set(duplicates.alike(prints, seconds)) == expected
    monkeypatch.setattr(duplicates, "ORDERS", 1)
    monkeypatch.setattr(duplicates, "NEIGHBOURS", 1)
    found = set(duplicates.alike(prints, seconds))
    assert found < expected and len(found) < 0.8 * len(expected), "control: one order, one neighbour"


@pytest.mark.parametrize("crowd", [10_000, 100], ids=["each with each", "neighbours"])
def test_only_what_is_of_one_length_is_compared_and_the_most_alike_first(
    monkeypatch: pytest.MonkeyPatch, crowd: int
) -> None:
    monkeypatch.setattr(duplicates, "CROWD", crowd)
    prints, seconds, expected = crowd_with_copies(1_000, 0.97)
    apart = [second + 0.2 * (row >= 1_000) for row, second in enumerate(seconds)]
    assert set(duplicates.alike(prints, apart)) == set()
    steps = [60 + 0.02 * row / len(prints) for row in range(len(prints))]
    assert set(duplicates.alike(prints, steps)) == expected
    one = [prints[0]] * 300  # a microphone that hears one hum all night
    pairs = list(duplicates.alike(one, [60.0] * 300))
    assert len(pairs) == len(set(pairs)) <= 300 * duplicates.MOST_ALIKE < 300 * 299 / 2
    reached = {0}
    for first, second in sorted(pairs):
        reached |= {first, second} if {first, second} & reached else set()
    assert reached == set(range(300)), "still one after the other leads from the first to the last"


def test_twenty_thousand_pairs_of_duplicates_are_settled_in_linear_time() -> None:
    def settled(count: int) -> tuple[float, float, list[Recording]]:
        """Seconds of CPU that making the rows takes, and settling them."""
        begun = time.process_time()
        rows = [
            Recording(Path(f"/archive/{number:05}.wav"), f"{number:05}.wav", ("owl",), seconds=9.0)
            for number in range(2 * count)
        ]
        examined = {
            row.path: Examination("ok", "", 9.0, 16_000, 1, f"{number // 2}", "", "") for number, row in enumerate(rows)
        }
        own = {rows[0].path, *(Path(f"/elsewhere/{number}") for number in range(count))}
        started = time.process_time()
        found, left = without_duplicates(rows, examined, own)
        ended = time.process_time()
        assert left == [(rows[0].path, rows[1].path)], "a recording with times of its own stays"
        return started - begun, ended - started, found

    few = settled(2_000)[1]
    rounds = [settled(20_000) for _ in range(2)]
    made, many = min(first for first, _, _ in rounds), min(second for _, second, _ in rounds)
    found = rounds[0][2]
    assert [row.status for row in found] == ["ok", "ok", *["ok", "duplicate"] * 19_999]
    assert found[-1].reason == f"the same samples as {found[-2].name}"
    assert many < 4 * made, "on any CPU; in quadratic time it was 23 s where this is one"
    assert many < 40 * max(few, 0.01)
