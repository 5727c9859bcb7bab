"""The windows on which files are compared: of held-out recordings, as training judged them."""

from pathlib import Path

import numpy as np
import soundfile

from archive.recordings import Recording, write_recordings
from config import AudioSettings, HeadSettings
from serving.comparison import (
    ComparedWindows,
    noise_windows,
    pooled_answers,
    read_windows,
    scanned_contexts,
    training_windows,
)
from serving.gate import compare_answers
from taxonomy import Taxonomy
from training.checkpoint import ClassifierFacts

LABELS = ("Parus major", "Corvus corax")
KIN = ("Animalia", "Chordata", "Aves", "Passeriformes", "Fictidae", "Ficta")
TAXONOMY = Taxonomy(LABELS, LABELS, LABELS, tuple((*KIN, label) for label in LABELS), (7, 7))
FACTS = ClassifierFacts("demo", AudioSettings(), HeadSettings(), TAXONOMY, {})


def test_products_are_judged_on_one_context_of_each_recording(tmp_path: Path) -> None:
    rows: list[Recording] = []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 16_000 * 60), 16_000)
        rows.append(Recording(path, path.name, LABELS[:1], seconds=60.0))
    write_recordings(tmp_path / "training_recordings.csv", rows)
    held_out = read_windows(tmp_path / "held_out_recordings.csv", FACTS, 10)
    contexts, source = scanned_contexts(tmp_path / "classifier.safetensors", FACTS, held_out)
    assert len(contexts) == 3 and source == "training contexts", "not twelve windows of each"


def test_the_gate_hears_the_stretches_that_were_held_out_whatever_their_labels_look_like(tmp_path: Path) -> None:
    wave = np.repeat(np.linspace(0.01, 0.5, 60), 16_000).astype(np.float32)  # louder with every second
    wave *= np.resize(np.repeat([1, -1], 8), wave.shape).astype(np.float32)
    soundfile.write(tmp_path / "hour.wav", wave, 16_000)
    stretches = [
        Recording(tmp_path / "hour.wav", "hour.wav", (label,), seconds=60.0, start=start, end=start + 5, fold=0)
        for label, start in zip(LABELS, (10.0, 40.0), strict=True)
    ]
    write_recordings(tmp_path / "held_out_recordings.csv", stretches)
    held_out = read_windows(tmp_path / "held_out_recordings.csv", FACTS, 100)
    assert held_out.contexts.shape == (2, 80_000) and len(held_out.owner) == 2
    for context, truth in zip(held_out.contexts, held_out.truth, strict=True):
        start = 10 if truth[0] else 40
        np.testing.assert_allclose(context, wave[16_000 * start : 16_000 * (start + 5)], atol=1e-3)
    assert sorted(held_out.truth.tolist()) == [[0.0, 1.0], [1.0, 0.0]]
    answers = np.array([[0.9, 0.1], [0.1, 0.9]], np.float32)
    assert "macro_auc_drop" in compare_answers(answers, answers, held_out, LABELS)


def test_a_long_recording_does_not_fill_the_memory(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.resize([0.25, -0.25], 16_000 * 600), 16_000)
    write_recordings(
        tmp_path / "held_out_recordings.csv", [Recording(tmp_path / "long.wav", "long.wav", LABELS[:1], seconds=600.0)]
    )
    assert len(read_windows(tmp_path / "held_out_recordings.csv", FACTS, 10).owner) == 10


def test_without_recordings_it_is_the_same_noise_every_time_and_nothing_is_known_of_it(tmp_path: Path) -> None:
    held_out = read_windows(tmp_path / "none.csv", FACTS, 10)
    assert held_out.contexts.shape == (32, 80_000) and held_out.truth.shape == (0, 2)
    np.testing.assert_array_equal(held_out.contexts, noise_windows(FACTS).contexts)
    assert scanned_contexts(tmp_path / "c.safetensors", FACTS, held_out)[1] == "contexts of noise"


def test_windows_are_pooled_by_recording_whatever_their_contexts() -> None:
    rows, owner = np.array([0, 1, 3]), np.array([0, 0, 1])  # row 2 of the answers is of no new window
    held_out = ComparedWindows(
        np.zeros((2, 1), np.float32), rows, owner, np.eye(2, dtype=np.float32), np.array(["a", "b"])
    )
    scores = np.array([[0.5, 0.0], [0.5, 0.0], [0.0, 1.0], [0.0, 0.25]], np.float32)
    np.testing.assert_allclose(pooled_answers(scores, held_out), [[0.5, 0.0], [0.0, 0.25]], atol=1e-6)


def test_what_is_familiar_is_learnt_from_all_species_in_turn_and_a_few_windows_of_each_recording(
    tmp_path: Path,
) -> None:
    rows: list[Recording] = []
    for number in range(6):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 16_000 * 60), 16_000)
        label = {4: (), 5: LABELS[1:]}.get(number, LABELS[:1])
        rows.append(Recording(path, path.name, label, seconds=60.0))
    write_recordings(tmp_path / "training_recordings.csv", rows)
    found = list(training_windows(tmp_path / "classifier.safetensors", FACTS, 100))
    assert [one for _, _, one in found] == [0] * 4 + [1] * 4 + [0] * 12, "the rare one is among the first"
    assert all(samples.shape == (80_000,) and windows == (0,) for samples, windows, _ in found)
    assert len(list(training_windows(tmp_path / "classifier.safetensors", FACTS, 6))) == 6
    assert not list(training_windows(tmp_path / "nowhere" / "classifier.safetensors", FACTS, 6))
