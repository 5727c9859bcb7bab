"""A new head in the file that gives the embeddings: the right answers, the network below untouched."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from test_search import PITCHES, whistle_model

from evaluation.calibration import Threshold
from runtime.digests import state_of
from serving.new_heads import NewHead, write_new_head
from serving.scorer import Scorer, answers_of, open_scorer
from taxonomy import Taxonomy

LINEAGE = ("Animalia", "Chordata", "Amphibia", "Anura", "Fictidae", "Rana", "Rana ficta")


def names(*labels: str) -> Taxonomy:
    return Taxonomy(labels, labels, labels, (LINEAGE,) * len(labels), (7,) * len(labels))


def limit(label: str, at: float = 0.5) -> Threshold:
    return Threshold(label, at, 0.0, None, 0.0, 0.0, 3, 3, "")


def head_of(*pitches: int) -> NewHead:
    """Answers that are likely as far as a pitch is louder than 30."""
    width = len(PITCHES)
    weights = np.zeros((width, len(pitches)), np.float32)
    weights[[PITCHES.index(pitch) for pitch in pitches], range(len(pitches))] = 2
    return NewHead(
        np.full(width, 10, np.float32), np.full(width, 5, np.float32), weights, np.full(len(pitches), -8, np.float32)
    )


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return whistle_model(tmp_path / "whistles.onnx")


def sound() -> NDArray[np.float32]:
    time = np.arange(80_000) / 16_000
    return np.stack([0.2 * np.sin(2 * np.pi * pitch * time) for pitch in (1100, 2600)]).astype(np.float32)


def answers(scorer: Scorer) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities and embeddings."""
    found = answers_of(scorer, sound())
    return np.concatenate([one.probabilities for one in found]), np.concatenate([one.embeddings for one in found])


def test_an_encoder_gets_species_and_answers_as_the_head_says(encoder: Path, tmp_path: Path) -> None:
    path, head = tmp_path / "new.onnx", head_of(1100, 2600)
    write_new_head(encoder, path, head, names("frog", "toad"), [limit("frog", 0.3), limit("toad")], False, {"refit": 1})
    scorer = open_scorer(path, threads=1)
    given, embeddings = answers(scorer)
    logits = (embeddings - head.mean) / head.deviation @ head.weights + head.bias
    assert np.allclose(given, 1 / (1 + np.exp(-logits)), atol=1e-5)
    assert (given.argmax(axis=1) == [0, 1]).all() and given.max() > 0.9 > 0.1 > given.min()
    assert np.array_equal(embeddings, answers(open_scorer(encoder, threads=1))[1])  # the network below is the same
    assert scorer.taxonomy.labels == ("frog", "toad") and scorer.provenance == {"refit": 1}
    assert [one.applied for one in scorer.thresholds.species] == [0.3, 0.5]


def test_a_head_in_place_of_the_old_one_leaves_nothing_of_it(encoder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    write_new_head(encoder, first, head_of(1100), names("frog"), [limit("frog")], False, {})
    write_new_head(first, second, head_of(2600), names("toad"), [limit("toad")], False, {})
    scorer = open_scorer(second, threads=1)
    assert scorer.taxonomy.labels == ("toad",) and answers(scorer)[0].argmax(axis=0).tolist() == [1]
    assert len(onnx.load(second).graph.node) == len(onnx.load(first).graph.node)


def test_a_head_beside_the_old_one_keeps_its_answers_but_for_what_is_new(encoder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    before = [limit("frog", 0.3), limit("toad", 0.4)]
    write_new_head(encoder, first, head_of(1100, 2600), names("frog", "toad"), before, False, {"a": 1})
    new = [limit("toad", 0.7), limit("newt", 0.8)]
    joined = write_new_head(first, second, head_of(1100, 4000), names("toad", "newt"), new, True, {"b": 2})
    scorer = open_scorer(second, threads=1)
    assert scorer.taxonomy == joined and joined.labels == ("frog", "toad", "newt")
    old, now = answers(open_scorer(first, threads=1))[0], answers(scorer)[0]
    assert np.array_equal(now[:, 0], old[:, 0]) and np.allclose(now[:, 1], old[:, 0], atol=1e-6)  # toad: now at 1100 Hz
    assert [one.applied for one in scorer.thresholds.species] == [0.3, 0.7, 0.8] and scorer.provenance == {
        "a": 1,
        "b": 2,
    }


def test_the_file_is_signed_anew_and_damage_shows(encoder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.onnx"
    write_new_head(encoder, path, head_of(1100), names("frog"), [limit("frog")], False, {})
    assert state_of(path) == "sound"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    assert state_of(path) == "damaged"


def test_thresholds_of_a_file_that_has_none_stay_none(encoder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    write_new_head(encoder, first, head_of(1100), names("frog"), [], False, {})
    write_new_head(first, second, head_of(2600), names("toad"), [limit("toad")], True, {})
    assert open_scorer(second, threads=1).thresholds.species == ()


def test_what_gives_no_embeddings_and_what_has_no_species_are_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="leave --beside out"):
        write_new_head(encoder, tmp_path / "n.onnx", head_of(1100), names("frog"), [limit("frog")], True, {})
    model = onnx.load(encoder)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "something"
    onnx.save(model, encoder)
    with pytest.raises(AssertionError, match="gives no embeddings"):
        write_new_head(encoder, tmp_path / "n.onnx", head_of(1100), names("frog"), [limit("frog")], False, {})
