"""ONNX files in the shapes of other people's classifiers, which know how loud some pitches are, and what they say."""

from __future__ import annotations

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import soundfile
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

PITCHES = (400, 1100, 2600, 4000)  # Hz: four animals that whistle
WIDTH = len(PITCHES)
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """What a file takes and gives."""

    rate: int
    seconds: float
    input: str
    axes: tuple[str | int, ...]  # of the input, without its samples
    scores: str
    activation: str  # what its scores lack; "inside" for one that gives probabilities
    embeddings: str = ""
    peak: float = 0.0

    @property
    def samples(self) -> int:
        return round(self.rate * self.seconds)


BIRDNET_2 = Shape(48_000, 3.0, "input", ("batch",), "output", "sigmoid")
BIRDNET_3 = Shape(32_000, 3.0, "input", ("batch",), "predictions", "inside", "embeddings_1280")
PERCH_2 = Shape(32_000, 5.0, "inputs", ("batch",), "label", "softmax", "embedding", 0.25)
BARE = Shape(16_000, 2.0, "samples", (), "logits", "sigmoid", "vector")  # takes (samples,) alone
LONE = Shape(16_000, 2.0, "audio", (1, 1), "scores", "inside", "features")  # one window at a time, (1, 1, samples)


def write_foreign(path: Path, shape: Shape, any_length: bool = False, extra: Sequence[onnx.NodeProto] = ()) -> Path:
    """Embeddings: how loud each pitch is. Scores: a linear head on them."""
    angles = 2 * np.pi * np.array(PITCHES) * np.arange(shape.samples)[:, None] / shape.rate
    constants = {"cos": np.cos(angles), "sin": np.sin(angles), "head": 3 * np.eye(WIDTH), "bias": np.full(WIDTH, -2.0)}
    constants |= {"scale": np.array(40 / shape.samples)}
    nodes = [helper.make_node("MatMul", [shape.input, name], [f"{name}_sum"]) for name in ("cos", "sin")]
    nodes += [helper.make_node("Mul", [f"{name}_sum"] * 2, [f"{name}_power"]) for name in ("cos", "sin")]
    nodes += [
        helper.make_node("Add", ["cos_power", "sin_power"], ["power"]),
        helper.make_node("Sqrt", ["power"], ["loudness"]),
        helper.make_node("Mul", ["loudness", "scale"], [shape.embeddings or "hidden"]),
        helper.make_node("MatMul", [shape.embeddings or "hidden", "head"], ["weighted"]),
        helper.make_node("Add", ["weighted", "bias"], ["z" if shape.activation == "inside" else shape.scores]),
    ]
    nodes += [helper.make_node("Sigmoid", ["z"], [shape.scores])] if shape.activation == "inside" else []
    length = "samples" if any_length else shape.samples
    given = helper.make_tensor_value_info(shape.input, TensorProto.FLOAT, [*shape.axes, length])
    names = [*([shape.embeddings] if shape.embeddings else []), shape.scores]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [*shape.axes, WIDTH]) for name in names]
    weights = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in constants.items()]
    graph = helper.make_graph([*nodes, *extra], "whistles", [given], ends, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def write_card(path: Path, shape: Shape, labels: object, **more: object) -> Path:
    """The card of such a file."""
    facts: dict[str, object] = {
        "name": "whistles",
        "license": "CC-BY-NC-4.0",
        "citation": "Whistler 2026",
        "sample_rate": shape.rate,
        "window_seconds": shape.seconds,
        "activation": "none" if shape.activation == "inside" else shape.activation,
        "scores": shape.scores,
        "labels": labels,
        "peak": shape.peak,
    }
    path.write_text(json.dumps(facts | more), encoding="utf-8")
    return path


def write_whistles(path: Path, shape: Shape, *pitches: float) -> Path:
    """A recording at the rate of a file: a whistle in each of its windows, or noise alone where the pitch is 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, time = np.random.default_rng(len(path.name) + len(pitches)), np.arange(shape.samples) / shape.rate
    sound = [0.1 * (1 + number % 3) * np.sin(2 * np.pi * pitch * time) for number, pitch in enumerate(pitches)]
    noise = rng.normal(0, 0.02, shape.samples * len(pitches))
    soundfile.write(path, np.concatenate(sound) + noise, shape.rate, subtype="FLOAT")
    return path


def by_hand(path: Path, sound: Path, shape: Shape) -> tuple[Numbers, Numbers]:
    """Probabilities and embeddings (windows, values): the graph run window by window, on sound without its mean."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [shape.scores, shape.embeddings] if shape.embeddings else [shape.scores]
    found: list[list[Numbers]] = []
    for window in soundfile.read(sound, dtype="float32")[0].reshape(-1, shape.samples):
        samples = window - window.mean()
        samples = samples / np.abs(samples).max() * shape.peak if shape.peak else samples
        shaped = samples.astype(np.float32).reshape((1,) * len(shape.axes) + (-1,))
        found.append([np.ravel(answer).astype(np.float64) for answer in session.run(names, {shape.input: shaped})])
    scores = np.stack([answers[0] for answers in found])
    if shape.activation == "sigmoid":
        scores = 1 / (1 + np.exp(-scores))
    if shape.activation == "softmax":
        scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    vectors = np.stack([answers[1] for answers in found]) if shape.embeddings else np.zeros((len(scores), 0))
    return scores, vectors
