"""People who "speak" as a tone of 500 Hz, and a package with a detector of Silero's shape that knows them by it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import soundfile
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sounds.voices import FILE, FRAME, RATE

HERTZ = 500.0
Spans = Sequence[tuple[float, float]]


def write_package(folder: Path, operator: str = "Identity", width: int = 576) -> Path:
    """The package silero_vad in a folder: its detector, and code that must never be imported. Returns the detector.

    operator   what hands on the memory; it counts frames in its first value, unless this is another one
    """
    package = folder / "silero_vad"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('the code of the package is not to be imported')\n")
    wave = np.exp(2j * np.pi * HERTZ * np.arange(FRAME) / RATE) * 2 / FRAME
    lead = np.zeros((max(width - FRAME, 0), 2))
    constants = {
        "wave": np.concatenate([lead, np.stack([wave.real, wave.imag], axis=1)])[-width:].astype(np.float32),
        "last": np.array([1], np.int64),
        "faintest": np.float32(0.0025),
        "steepness": np.float32(1e4),
        "one": np.float32(1),
    }
    nodes = [
        helper.make_node("MatMul", ["input", "wave"], ["parts"]),
        helper.make_node("Mul", ["parts", "parts"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "last"], ["power"], keepdims=0),
        helper.make_node("Sub", ["power", "faintest"], ["above"]),
        helper.make_node("Mul", ["above", "steepness"], ["steep"]),
        helper.make_node("Sigmoid", ["steep"], ["speech_probs"]),
        helper.make_node("Add", ["h", "one"], ["hn"]),
        helper.make_node(operator, ["c"], ["cn"]),
    ]
    shapes: dict[str, list[str | int]] = {"input": ["frames", width], "h": [1, 1, 128], "c": [1, 1, 128]}
    shapes |= {"speech_probs": ["frames"], "hn": [1, 1, 128], "cn": [1, 1, 128]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "voices", values[:3], values[3:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, package / "data" / FILE)
    return package / "data" / FILE


def not_installed(_: str) -> None:
    """In place of `find_spec`: nothing is there."""


def sound(seconds: float, talks: Spans = (), beeps: Spans = (), rate: int = RATE, seed: int = 0) -> NDArray[np.float32]:
    """(samples,) a hiss, in which people talk and animals beep at 3 kHz."""
    time = np.arange(round(seconds * rate)) / rate
    samples = np.random.default_rng(seed).normal(0, 0.01, len(time))
    for spans, hertz in ((talks, HERTZ), (beeps, 3_000.0)):
        for start, end in spans:
            samples += 0.3 * np.sin(2 * np.pi * hertz * time) * ((time >= start) & (time < end))
    return samples.astype(np.float32)


def write_sound(path: Path, seconds: float, talks: Spans = (), beeps: Spans = (), rate: int = RATE) -> Path:
    """The same as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(seconds, talks, beeps, rate, seed=len(path.name)), rate, "FLOAT")
    return path


def loudness(samples: NDArray[np.float32], rate: int, start: float, end: float, hertz: float = HERTZ) -> float:
    """Amplitude of a pitch between two times, 0.3 where somebody talks."""
    piece = samples[round(start * rate) : round(end * rate)].astype(np.float64)
    wave = np.exp(2j * np.pi * hertz * np.arange(len(piece)) / rate)
    return float(2 * abs(piece @ wave) / len(piece))
