"""Made-up noise: every kind is sound, none repeats, the same seed gives the same, and levels are as they should be."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from sounds import negatives
from sounds.audio import open_recording
from sounds.negatives import EACH, KINDS, LEVELS, UNSCALED, negative, negatives_folder
from sounds.notes import ASSUMED

RATE = 16_000


def made(kind: str, seed: int = 0, seconds: float = 2.0, rate: int = RATE) -> NDArray[np.float32]:
    return negative(kind, seconds, rate, np.random.default_rng(seed))


def share_below(sound: NDArray[np.float32], hertz: float) -> float:
    """Of its power."""
    power = np.abs(np.fft.rfft(sound.astype(np.float64))) ** 2
    return float(power[np.fft.rfftfreq(len(sound), 1 / RATE) < hertz].sum() / power.sum())


def at_its_peak(sound: NDArray[np.float32]) -> float:
    """The share of the samples that are as loud as the loudest."""
    return float(np.isclose(np.abs(sound), np.abs(sound).max(), atol=1e-6).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_finite_sound_within_full_scale_and_each_draw_another(kind: str) -> None:
    one, again, other = made(kind), made(kind), made(kind, 1)
    assert one.dtype == np.float32 and one.shape == (2 * RATE,) and np.isfinite(one).all()
    assert 0 < np.abs(one).max() <= 1 and len(np.unique(one)) > 1000
    assert np.array_equal(one, again) and not np.array_equal(one, other)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNSCALED])
def test_levels_are_drawn_between_the_limits(kind: str) -> None:
    peaks = [20 * np.log10(np.abs(made(kind, seed, 0.5)).max()) for seed in range(8)]
    assert all(LEVELS[0] - 0.1 <= peak <= LEVELS[1] + 0.1 for peak in peaks) and max(peaks) - min(peaks) > 5


def test_kinds_are_what_they_are_called() -> None:
    mean = {kind: np.mean([share_below(made(kind, seed), 500) for seed in range(6)]) for kind in KINDS}
    assert mean["wind"] > 0.6 and mean["engine"] > 0.5 and mean["offset"] > 0.8  # low
    assert mean["rain"] < 0.3 and mean["hiss"] < 0.3 and mean["clicks"] < 0.4  # not low
    clipped = {kind: np.mean([at_its_peak(made(kind, seed)) for seed in range(8)]) for kind in KINDS}
    assert clipped.pop("clipping") > 0.05 > 0.02 > max(clipped.values())
    assert np.abs(made("hiss")).max() < 0.06


def test_babble_has_the_rhythm_of_syllables() -> None:
    """Its envelope moves 2 to 8 times a second, which that of hiss does not."""

    def rhythm(kind: str, seed: int) -> float:
        envelope = np.abs(made(kind, seed, 8.0)).reshape(-1, 160).mean(axis=1)  # 100 a second
        power = np.abs(np.fft.rfft(envelope - envelope.mean())) ** 2
        hertz = np.fft.rfftfreq(len(envelope), 0.01)
        return float(power[(hertz > 2) & (hertz < 8)].sum() / power[hertz > 0.2].sum())

    assert min(rhythm("babble", seed) for seed in range(4)) > 2 * max(rhythm("hiss", seed) for seed in range(4))


def test_any_rate_will_do() -> None:
    for rate in (8_000, 32_000, 256_000):
        for kind in KINDS:
            assert made(kind, 0, 0.3, rate).shape == (round(0.3 * rate),)


def test_an_unknown_kind_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(AssertionError, match="'thunder' is none of rain, wind"):
        made("thunder")


def test_the_folder_is_made_once_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negatives, "SCRATCH", tmp_path)
    monkeypatch.setattr(negatives, "SECONDS", 0.2)
    folder = negatives_folder(RATE)
    paths = sorted(folder.iterdir())
    assert len(paths) == len(KINDS) * EACH and soundfile.info(paths[0]).samplerate == 32_000
    before = {path: path.read_bytes() for path in paths}
    paths[3].unlink()
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {path: path.read_bytes() for path in sorted(negatives_folder(RATE).iterdir())} == before
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())  # what was there stays


def test_networks_that_hear_more_get_noise_that_fills_their_band_at_its_true_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negatives, "SCRATCH", tmp_path)
    monkeypatch.setattr(negatives, "EACH", 1)
    monkeypatch.setattr(negatives, "SECONDS", 0.2)
    monkeypatch.setenv(ASSUMED, "10")  # of files that do not say how slowly they play
    path = negatives_folder(256_000) / "hiss-00.flac"
    recording = open_recording(path, 256_000)
    (window,) = recording.windows(0.2)
    power = np.abs(np.fft.rfft(window.samples)) ** 2
    assert window.samples.shape == (51_200,) and power[len(power) // 2 :].sum() > 0.05 * power.sum()
    assert negatives_folder(8_000) == negatives_folder(32_000) != path.parent


def test_all_of_it_is_taken_for_sound_and_none_for_a_broken_recorder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negatives, "SCRATCH", tmp_path)
    monkeypatch.setattr(negatives, "SECONDS", 3.0)
    for path in sorted(negatives_folder(RATE).iterdir()):
        recording = open_recording(path, RATE)
        assert sum(1 for _ in recording.windows(3.0)) == 1 and recording.outcome.status == "ok", path.name
