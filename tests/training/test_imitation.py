"""The student answers from the tokens that its teacher's window is about, and is judged by how much nearer it comes."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.nn import functional as F

from archive.recordings import Recording
from config import AudioSettings, WindowSettings
from data_loader import Batch, SegmentWindows, collate, of_all, segment_loader, set_epoch
from model import LogMel
from training.imitation import Imitated, inside, measure_imitation, prepare_imitation

CPU, AUDIO = torch.device("cpu"), AudioSettings()
SECONDS = 2.0


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Windows of 2 s of two recordings: in a of 20 s each is the only one with sound between 0.5 and 1.5 s of it of
    the pitch that its number says, b is shorter than the student's window."""
    root, found = tmp_path_factory.mktemp("tones"), list[Recording]()
    for name, count in (("a.wav", 10), ("b.wav", 1)):
        time = np.arange(16_000) / 16_000
        sound = np.zeros(count * 32_000)
        for number in range(count):
            sound[number * 32_000 + 8_000 :][:16_000] = 0.5 * np.sin(2 * np.pi * 500 * (number + 1) * time)
        soundfile.write(root / name, sound, 16_000, subtype="FLOAT")
        whole = Recording(root / name, name, seconds=2.0 * count, fold=1)
        found += [replace(whole, start=2.0 * number, end=2.0 * number + 2) for number in range(count)]
    return found


def data_of(rows: list[Recording]) -> WindowSettings:
    return WindowSettings(rows[0].path.parent, cache_gb=0.0, most_windows=720)


def imitated_of(rows: list[Recording], vectors: np.ndarray, seconds: float = SECONDS) -> Imitated:
    floats = vectors.astype(np.float32)
    return prepare_imitation(rows, floats, rows, floats, seconds, data_of(rows), AUDIO)


def test_the_tokens_inside_are_those_of_the_segment() -> None:
    begins, ends = torch.tensor([0.0, 1.5, 2.98, 4.0, 99.0]), torch.tensor([2.0, 3.5, 4.98, 4.4, 99.0])
    zeros = torch.zeros(5)
    batch = Batch(torch.zeros(5, 1), torch.stack([zeros, begins], dim=1), torch.stack([zeros, ends], dim=1))
    found = inside(batch, 250, 50.0)
    first = [int(row.int().argmax()) for row in found]
    assert found.sum(dim=1).tolist() == [100, 100, 100, 20, 1] and first == [0, 75, 149, 200, 249]


def test_what_a_short_recording_is_filled_with_is_not_inside(tmp_path: Path) -> None:
    """3.5 s of sound fill a window of 5 s by beginning anew; a teacher's window from 2 to 5 s heard the last 1.5 s."""
    path = tmp_path / "short.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 56_000), 16_000, subtype="FLOAT")
    row = Recording(path, "short.wav", seconds=3.5, start=2.0, end=5.0)
    windows = SegmentWindows([row], data_of([row]), AUDIO, seed=0)
    found = inside(collate([windows[0, 0, 0]], 80_000, 2), 250, 50.0)[0]
    assert torch.equal(found.nonzero()[:, 0], torch.arange(100, 175))


def test_one_huge_value_spoils_no_other(rows: list[Recording]) -> None:
    vectors = np.random.default_rng(0).normal(3.0, 1.0, (11, 5)).astype(np.float32)
    plain = imitated_of(rows, vectors).vectors
    for huge in (1e6, 1e15, 1e37):
        spoiled = vectors.copy()
        spoiled[4, 2] = huge
        found = imitated_of(rows, spoiled).vectors
        others = [0, 1, 3, 4]
        assert found.isfinite().all() and torch.allclose(found[:, others], plain[:, others], atol=1e-4), huge


def test_values_that_hardly_vary_are_not_blown_up_though_they_are_many(rows: list[Recording]) -> None:
    vectors = np.random.default_rng(0).normal(0.0, [1.0] * 4 + [1e-6] * 5, (11, 9))
    assert imitated_of(rows, vectors).vectors[:, 4:].abs().max() < 1e-4


def test_what_is_wanted_belongs_to_the_sound_inside(rows: list[Recording]) -> None:
    """The vector of a row is its number; the pitch of the sound inside its tokens says the same number."""
    vectors = np.stack([np.arange(11.0), np.ones(11)], axis=1)
    imitated = imitated_of(rows, vectors)
    loader = segment_loader(rows, data_of(rows), AUDIO, 4, seed=0)
    log_mel, seen = LogMel(AUDIO, 80), list[int]()
    begins = list[float]()
    for epoch in (1, 2, 3):
        set_epoch(loader, epoch)
        for part in loader:
            batch = of_all(part, CPU)
            wanted, within = imitated.wanted(batch, 250)
            pitch = pitch_inside(log_mel(batch.waveforms), within)
            number = (wanted[:, 0] * vectors[:, 0].std() + vectors[:, 0].mean()).round().int().tolist()
            assert [500 * (n % 10 + 1) for n in number] == pytest.approx(pitch, rel=0.12)
            seen += number
            begins += batch.targets[:, 1].tolist()
            if epoch == 1 and len(number) == 4:  # negative control: the tokens of another row
                assert [500 * (n % 10 + 1) for n in number] != pytest.approx(
                    pitch_inside(log_mel(batch.waveforms), within.roll(1, dims=0)), rel=0.12
                )
    assert sorted(seen) == sorted([*range(11)] * 3) and 0 <= min(begins) < 0.5 and 2.5 < max(begins) <= 3.0


def test_a_long_recording_does_not_count_for_more_than_its_most_windows(rows: list[Recording]) -> None:
    data = replace(data_of(rows), most_windows=4)
    assert len(segment_loader(rows, data, AUDIO, 1, seed=0)) == 4 + 1
    assert len(segment_loader(rows, data_of(rows), AUDIO, 1, seed=0)) == 10 + 1  # negative control


def pitch_inside(mel: Tensor, within: Tensor) -> list[float]:
    """Hz of the loudest mel bin among some tokens: (batch,)."""
    frames = within.repeat_interleave(2, dim=1)[:, None]
    bins = mel.masked_fill(~frames, -9.0).amax(dim=2).argmax(dim=1)
    # Slaney's scale: 80 bins up to 8 kHz, linear to 1 kHz
    step, top = math.log(6.4) / 27, 15 + math.log(8) / (math.log(6.4) / 27)
    mels = [(int(number) + 1) * top / 81 for number in bins]
    return [mel * 1000 / 15 if mel < 15 else 1000 * math.exp((mel - 15) * step) for mel in mels]


def test_the_teacher_itself_has_skill_one_and_its_best_single_vector_none(rows: list[Recording]) -> None:
    imitated = imitated_of(rows, np.random.default_rng(0).normal(3.0, 1.0, (11, 5)))
    best = F.normalize(imitated.vectors, dim=1).mean(dim=0)

    def skill(answer: Tensor) -> dict[str, float]:
        return measure_imitation(lambda _mel, _inside: answer, LogMel(AUDIO, 80), imitated, CPU)

    perfect, trivial = skill(7 * imitated.held_out_vectors), skill(best.expand(11, -1))
    assert perfect["skill"] == pytest.approx(1.0) and perfect["cosine"] == pytest.approx(1.0)
    assert trivial["skill"] == pytest.approx(0.0, abs=1e-6)
    assert trivial["cosine"] == pytest.approx(trivial["trivial_cosine"], abs=1e-6)  # of another length, so rounded anew
    assert skill(-imitated.held_out_vectors)["skill"] < -0.5


def test_what_all_vectors_share_is_taken_out_and_silent_values_are_not_blown_up(rows: list[Recording]) -> None:
    vectors = np.random.default_rng(0).normal(50.0, [2.0, 1e-6, 4.0], (11, 3))
    units = imitated_of(rows, vectors).vectors
    assert units.mean(dim=0).abs().max() < 1e-4 and units.std(dim=0, correction=0)[[0, 2]] == pytest.approx([1, 1])
    assert units[:, 1].abs().max() < 1e-3
    with pytest.raises(AssertionError, match="are all the same"):
        imitated_of(rows, np.ones((11, 3)))


def test_windows_that_do_not_fit_are_refused_in_a_line(rows: list[Recording]) -> None:
    vectors = np.random.default_rng(0).normal(size=(11, 3))
    with pytest.raises(AssertionError, match=r"give --audio\.context_seconds"):
        imitated_of(rows, vectors, seconds=10.0)
    few = vectors.astype(np.float32)
    with pytest.raises(AssertionError, match="3 values for training, 2 for held-out"):
        prepare_imitation(rows, few, rows, few[:, :2], SECONDS, data_of(rows), AUDIO)


def test_other_vectors_or_windows_are_another_imitation(rows: list[Recording]) -> None:
    vectors = np.random.default_rng(0).normal(size=(11, 3))
    first, again = imitated_of(rows, vectors), imitated_of(rows, vectors)
    vectors[3, 1] += 1e-3
    assert first.digest == again.digest != imitated_of(rows, vectors).digest
    assert imitated_of([*rows[1:], rows[0]], vectors).digest != imitated_of(rows, vectors).digest
