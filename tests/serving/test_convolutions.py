"""Networks for pictures as they are served: equal to the trained ones, and in INT8 between fixed scales."""

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from test_scorer import needs_openvino
from torch import nn

from config import AudioSettings, BudgetSettings, HeadSettings, PictureSettings, Pooling
from model import BirdClefClassifier, picture_encoder
from serving.budget import fit_budget
from serving.convolutions import (
    FIRST,
    NETWORK,
    Contexts,
    ProductCounts,
    network_products,
    restate_facts,
    write_int8_convolutions,
)
from serving.export import front_end, write_float, write_openvino
from serving.rewriting import module_of
from serving.scorer import TOLERANCE, open_scorer, score
from serving.speed import Speed
from taxonomy import Taxonomy
from training.checkpoint import ClassifierFacts

LABELS = tuple("abcde")
TAXONOMY = Taxonomy(LABELS, LABELS, LABELS, tuple(("k", "p", "c", "o", "f", "g", label) for label in LABELS), (7,) * 5)
SECOND = AudioSettings(window_seconds=1.0, context_seconds=1.0)
TWO = AudioSettings(32_000, 1.0, 2.0, 0.01, 1024, 20, 16_000, 64, "pcen")  # 64 mel channels, two windows
KINDS: Mapping[str, tuple[PictureSettings, AudioSettings, Pooling]] = {
    "timm": (PictureSettings("timm", "test_nfnet"), TWO, "attention"),  # which standardises its own weights
    "cnn": (PictureSettings("cnn"), replace(SECOND, compression="pcen_trained"), "pooled"),
    "vit": (PictureSettings("vit", frequency="gem"), SECOND, "pooled"),
}


def noise(audio: AudioSettings, count: int = 12) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return (rng.normal(0, 0.1, (count, audio.samples)) * 10 ** rng.uniform(-2, 0, (count, 1))).astype(np.float32)


class Served:
    """A network and its two files."""

    def __init__(self, kind: str, folder: Path) -> None:
        picture, audio, pooling = KINDS[kind]
        head = HeadSettings(pooling)
        torch.manual_seed(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("encoders.VIT_LAYERS", 2)  # each alike, and a second or more to export
            encoder = picture_encoder(picture, audio)
        self.model = BirdClefClassifier(encoder, audio, len(LABELS), head)
        self.contexts = torch.from_numpy(noise(audio))
        self.model.train()
        self.model(self.contexts)  # the norms of batches have seen some
        nn.init.normal_(self.model.head.score.weight, std=0.02)
        self.model.eval()
        self.facts = ClassifierFacts("demo", audio, head, TAXONOMY, {}, picture=picture)
        self.float, self.int8 = folder / "classifier.onnx", folder / "classifier.int8.onnx"
        write_float(self.model, self.facts, self.float, verified=True)
        self.count = write_int8_convolutions(self.float, self.int8, self.facts, True, noise(audio))


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(request.param, tmp_path_factory.mktemp("served"))


def test_the_float_file_answers_as_the_network_does_and_says_what_it_is(served: Served) -> None:
    scorer = open_scorer(served.float)
    with torch.inference_mode():
        wanted = served.model(served.contexts).sigmoid().numpy()
    found = score(scorer, served.contexts.numpy())
    assert found.shape == wanted.shape and np.abs(found - wanted).max() <= 1e-4 < np.ptp(wanted)
    assert (
        scorer.encoder == served.facts.words and scorer.audio == served.facts.audio and scorer.taxonomy.labels == LABELS
    )


def test_all_products_of_the_network_but_the_first_are_int8_and_nothing_else(served: Served) -> None:
    graph = onnx.load(served.float)
    quantised, spared = network_products(graph)
    assert served.count == ProductCounts(len(quantised) + 1, 1) and len(quantised) >= 7
    (first,) = (node for node in graph.graph.node if node.name in spared)
    assert [*spared.values()] == [FIRST] and module_of(first).startswith(NETWORK)
    names = {"DynamicQuantizeLinear", "MatMulInteger", "BatchNormalization"}  # what is left of weights that standardise
    kinds = Counter(node.op_type for node in onnx.load(served.int8).graph.node)
    assert not names & kinds.keys() and kinds["QuantizeLinear"] >= len(quantised) // 2
    heads = [node for node in graph.graph.node if node.op_type in ("Gemm", "MatMul") and node.name not in quantised]
    assert heads, "front end and head are products too, and stay"
    assert served.int8.stat().st_size < served.float.stat().st_size


def test_a_scale_covers_what_a_rectifier_leaves_not_what_it_cuts_off(tmp_path: Path) -> None:
    """Answers from -500 to 6, of which a network sees those above zero: of 256 levels three would be left."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 1, 1, 3)).astype(np.float32)
    bias = np.array([-500, -500, -500, 0], np.float32)
    nodes = [
        helper.make_node("Unsqueeze", ["waveforms", "axes"], ["picture"], "unsqueeze"),
        helper.make_node("Conv", ["picture", "kernel"], ["edges"], "first"),
        helper.make_node("Conv", ["edges", "mix", "bias"], ["found"], "second", kernel_shape=[1, 1]),
        helper.make_node("Clip", ["found", "low", "high"], ["cut"], "rectifier"),
        helper.make_node("Flatten", ["cut"], ["probabilities"], "out", axis=1),
    ]
    scope = onnx.StringStringEntryProto(key="pkg.torch.onnx.name_scopes", value=f"['', '{NETWORK}', 'conv']")
    for node in nodes[1:3]:
        node.metadata_props.append(scope)
    mix = (2 * rng.normal(size=(4, 4, 1, 1))).astype(np.float32)
    constants = {"kernel": kernel, "mix": mix, "bias": bias, "axes": np.array([1, 2])}
    constants |= {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    ends = [
        helper.make_tensor_value_info(name, 1, ["batch", size])
        for name, size in (("waveforms", 999), ("probabilities", None))
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "toy", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    sounds = rng.normal(size=(8, 999)).astype(np.float32)
    facts = ClassifierFacts("demo", SECOND, HeadSettings(), TAXONOMY, {}, picture=PictureSettings("cnn"))
    count = write_int8_convolutions(tmp_path / "m.onnx", tmp_path / "int8.onnx", facts, False, sounds)
    assert count == ProductCounts(2, 1)
    floats, int8 = (
        onnxruntime.InferenceSession(str(tmp_path / name)).run(None, {"waveforms": sounds})[0].reshape(8, 4, -1)[:, 3]
        for name in ("m.onnx", "int8.onnx")
    )
    error = np.abs(int8 - floats).mean()
    assert floats.max() > 5 and error < 0.1, error


def test_int8_answers_nearly_as_float32_and_alone_as_in_company(served: Served) -> None:
    contexts = served.contexts.numpy()
    int8, floats = (open_scorer(path) for path in (served.int8, served.float))
    assert int8.precision == "int8" and int8.known_answer == "exact"
    difference = np.abs(score(int8, contexts) - score(floats, contexts)).max()
    assert 0 < difference < 0.1
    together = int8.network(contexts[:4])["probabilities"]
    alone = np.concatenate([int8.network(context[None])["probabilities"] for context in contexts[:4]])
    np.testing.assert_allclose(together, alone, atol=1e-5)  # no scale depends on what comes with a window


def test_other_thresholds_change_the_facts_alone(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "classifier.int8.onnx"
    path.write_bytes(served.int8.read_bytes())
    restate_facts(path, replace(served.facts, provenance={"run": "another"}), False, served.count)
    one, other = open_scorer(served.int8), open_scorer(path)
    assert other.provenance == {"run": "another"} and not other.verified and one.verified
    np.testing.assert_array_equal(score(one, served.contexts[:2].numpy()), score(other, served.contexts[:2].numpy()))


@needs_openvino
def test_openvino_answers_as_the_network_does_from_files_of_its_own(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.scorer.limit_process", lambda: None)
    path = served.float.with_suffix(".xml")
    write_openvino(served.float, path)
    scorer, contexts = open_scorer(path), served.contexts.numpy()
    wanted = score(open_scorer(served.float), contexts)
    assert np.abs(score(scorer, contexts) - wanted).max() <= TOLERANCE[scorer.engine] < np.ptp(wanted)
    assert scorer.encoder == served.facts.words and scorer.audio == served.facts.audio


def test_the_front_end_can_be_taken_out_of_a_file(served: Served) -> None:
    import onnxruntime as ort

    sounds = served.contexts[:2].numpy()
    (picture,) = ort.InferenceSession(front_end(served.float)).run(None, {"waveforms": sounds})
    with torch.inference_mode():
        wanted = served.model.log_mel(served.contexts[:2]).numpy()
    if picture.shape != wanted.shape:  # what turns it round was joined with what turned it back
        wanted = wanted.transpose(0, 2, 1)
    np.testing.assert_allclose(picture, wanted, atol=1e-3)


def test_a_flipped_bit_is_found(served: Served, tmp_path: Path) -> None:
    path, content = tmp_path / "classifier.int8.onnx", bytearray(served.int8.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(AssertionError, match="is damaged"):
        open_scorer(path)


def test_the_budget_is_judged_without_a_guess_at_other_sizes(served: Served) -> None:
    speeds = {("ONNX INT8", 1): Speed(10.0, 500.0, 100, 1.0), ("ONNX float32", 1): Speed(20.0, 250.0, 100, 1.0)}
    fit = fit_budget(speeds, served.facts, BudgetSettings(), False, {})
    assert fit.fits and fit.largest is None and not fit.rates
    tight = fit_budget(speeds, served.facts, BudgetSettings(minutes=0.1), False, {})
    assert not tight.fits and f"{served.facts.words} does not fit; take a smaller network" in tight.words


def test_contexts_are_handed_out_one_at_a_time() -> None:
    reader = Contexts(noise(SECOND, 2))
    shapes = [next_one["waveforms"].shape for next_one in iter(reader.get_next, None)]
    assert shapes == [(1, 16_000)] * 2 and reader.get_next() is None
