"""The served file of a network for pictures -> its INT8 twin: convolutions and linear layers between fixed scales.

    count = write_int8_convolutions(Path("classifier.onnx"), Path("classifier.int8.onnx"), facts, True, contexts)

The scales of all activations are measured on training contexts and then stay, so that a window is scored the same
whatever it comes with. A rectifier behind a convolution is part of it: its scale covers what the rectifier leaves, not
what it cuts off. Weights have 7 bits, as those of Whisper's encoder, and a scale for each output channel. Front end,
the first convolution, pooling and head stay in float32. Done by ONNX Runtime's own quantiser; serving/gate.py says
whether it is kept.
"""

from __future__ import annotations

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import logging
import math
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from runtime.files import scratch
from serving.export import save, set_facts
from serving.rewriting import module_of
from training.checkpoint import ClassifierFacts

NETWORK = "model.encoder.network"  # what the names of its modules begin with
KINDS = ("Conv", "Gemm", "MatMul")
RECTIFIERS = ("Relu", "Clip")  # which a scale that begins at zero, and one that ends where it does, replaces
FIRST = "it reads the picture itself, from silence to the loudest call"  # 256 levels are few for that
CHANGING = "its weights are no constants"
MOST_CONTEXTS = 16  # that the scales are measured on: all activations of all of them are kept


class ProductCounts(NamedTuple):
    """Of the convolutions and products of a network."""

    products: int
    spared: int  # which stay in float32


def write_int8_convolutions(
    float_path: Path, path: Path, facts: ClassifierFacts, verified: bool, contexts: NDArray[np.float32]
) -> ProductCounts:
    """The INT8 twin of a float32 file.

    contexts    (contexts, samples) of training, on which the scales of activations are measured
    """
    graph = onnx.load(float_path)
    quantised, spared = network_products(graph)
    rectifiers = rectifiers_behind(graph, quantised)
    with scratch(path.parent, "export") as folder:
        made = folder / "int8.onnx"
        if quantised:
            with no_advice():
                quantize_static(
                    float_path,
                    made,
                    Contexts(contexts[:: -(-len(contexts) // MOST_CONTEXTS)]),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=[*KINDS, *RECTIFIERS],
                    nodes_to_quantize=[*quantised, *rectifiers],
                    per_channel=True,
                    reduce_range=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                )
            graph = onnx.load(made)
    restate(graph, path, facts, verified, ProductCounts(len(quantised) + len(spared), len(spared)))
    return ProductCounts(len(quantised) + len(spared), len(spared))


def restate_facts(path: Path, facts: ClassifierFacts, verified: bool, count: ProductCounts) -> None:
    """Write an INT8 file again with other facts, its thresholds for example."""
    restate(onnx.load(path), path, facts, verified, count)


def restate(graph: onnx.ModelProto, path: Path, facts: ClassifierFacts, verified: bool, count: ProductCounts) -> None:
    """Publish a graph with these facts alone."""
    del graph.metadata_props[:]
    set_facts(graph, facts, "int8", verified, {"products": count.products, "kept_in_float32": count.spared})
    save(graph, path)


def network_products(graph: onnx.ModelProto) -> tuple[list[str], dict[str, str]]:
    """The nodes of a network's convolutions and products that become INT8, and those that stay in float32, with why: of
    several the first, and those whose weights are no constants (a product of two activations, inside of attention, is
    none of either)."""
    constants = {tensor.name for tensor in graph.graph.initializer}
    inside = [node for node in graph.graph.node if module_of(node).startswith(NETWORK) and node.op_type in KINDS]
    weighted = [node for node in inside if node.op_type != "MatMul" or node.input[1] in constants]
    quantised = [node.name for node in weighted if node.input[1] in constants]
    spared = {node.name: CHANGING for node in weighted if node.input[1] not in constants}
    if len(quantised) > 1 and weighted[0].name == quantised[0]:
        spared[quantised.pop(0)] = FIRST
    return quantised, spared


def rectifiers_behind(graph: onnx.ModelProto, quantised: Collection[str]) -> list[str]:
    """The nodes that cut off what products have made below zero, or above a limit: the limits of a scale that covers
    what is left, which holds zero, do the same."""
    made = {output for node in graph.graph.node if node.name in quantised for output in node.output}
    values = {one.name: float(numpy_helper.to_array(one)) for one in graph.graph.initializer if not one.dims}

    def within(node: onnx.NodeProto) -> bool:
        low, high = (values.get(name, 0.0 if not name else math.nan) for name in (*node.input[1:], "", "")[:2])
        return low <= 0 <= high

    behind = [node for node in graph.graph.node if node.op_type in RECTIFIERS and node.input[0] in made]
    return [node.name for node in behind if within(node)]


def spared_products(float_path: Path) -> dict[str, str]:
    """The nodes of a float32 file that stay in float32 in its twin, and why."""
    return network_products(onnx.load(float_path))[1]


class Contexts(CalibrationDataReader):
    """Contexts one at a time, as ONNX Runtime asks for them."""

    def __init__(self, contexts: Sequence[NDArray[np.float32]] | NDArray[np.float32]) -> None:
        self.left: Iterator[NDArray[np.float32]] = iter(contexts)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next context as the graph's input; None behind the last."""
        context = next(self.left, None)
        return None if context is None else {"waveforms": context[None]}


@contextmanager
def no_advice() -> Generator[None]:
    """Without the quantiser's advice to prepare a graph that is prepared."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


if __name__ == "__main__":
    import onnxruntime as ort
    from onnx import helper

    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(8, 1, 1, 9)).astype(np.float32)
    nodes = [
        helper.make_node("Unsqueeze", ["waveforms", "axes"], ["picture"], "unsqueeze"),
        helper.make_node("Conv", ["picture", "kernel"], ["found"], "convolution"),
    ]
    scope = onnx.StringStringEntryProto(key="pkg.torch.onnx.name_scopes", value=f"['', '{NETWORK}', 'conv']")
    nodes[1].metadata_props.append(scope)
    ends = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("waveforms", [1, 99]), ("found", None))]
    tensors = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.array([1, 2]), "axes")]
    toy = helper.make_graph(nodes, "toy", ends[:1], ends[1:], tensors)
    graph = helper.make_model(toy, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    print(f"to be quantised: {network_products(graph)[0]}")
    assert network_products(graph) == (["convolution"], {}), "the only one is not spared"
    sounds = rng.normal(size=(4, 99)).astype(np.float32)
    with TemporaryDirectory() as folder, no_advice():
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, before)
        quantize_static(before, after, Contexts(sounds), per_channel=True, reduce_range=True)
        sessions = [ort.InferenceSession(str(path)) for path in (before, after)]
        floats, int8 = (session.run(None, {"waveforms": sounds[:1]})[0] for session in sessions)
    error = np.abs(int8 - floats).max() / np.abs(floats).max()
    print(f"largest error {error:.3f} of the largest answer")
    assert 0 < error < 0.05
