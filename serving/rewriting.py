"""Parts of an exported graph that ONNX Runtime does slowly -> others of the same value that it does quickly.

    reduce_over_time(graph)               # means as products, maxima as pooling
    fuse_attention(graph, facts.encoder)  # one operator in place of all between the projections

Scoring asks for one context at a time on each thread, and that is the case that counts here: for a batch of one ONNX
Runtime 1.31 takes .29 ms for the mean over 250 tokens of width 512, and .04 for the same as a product (one thread of an
AMD EPYC, Zen 3). Its fused sum and norm (SkipLayerNormalization, the sum given out too) took .87 ms where sum and norm
take .16, so these are left apart.
"""

from __future__ import annotations

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from config import EncoderSize

SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes which module a node comes from
LAYERS = "model.encoder.whisper."  # what all names of the encoder's layers begin with
TIME = 1  # the dimension of tokens, of three
TURN = [0, 2, 1]  # that and the width, exchanged
REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax")


def module_of(node: onnx.NodeProto) -> str:
    """The module of the network that a node comes from: model.encoder.whisper.layers.0.fc2."""
    scopes = [entry.value for entry in node.metadata_props if entry.key == SCOPES]
    parts = [part.strip(" '[]") for part in scopes[0].split(",")] if scopes else []
    return parts[-2] if len(parts) > 1 else ""


def reduce_over_time(graph: onnx.ModelProto) -> None:
    """Write sums, means and maxima over the tokens, (batch, time, width) -> (batch, width) or (batch, 1, width), in
    another way, in place: a sum or mean as the product with a row of equal weights, a maximum as pooling. Where the
    number of tokens is not known, and in other dimensions, they stay."""
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    tokens = {
        value.name: value.type.tensor_type.shape.dim[TIME].dim_value
        for value in graph.graph.value_info
        if len(value.type.tensor_type.shape.dim) == 3 and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.graph.node:
        time = tokens.get(node.input[0], 0) if node.op_type in REDUCTIONS else 0
        axes = constants.get(node.input[1]) if time and len(node.input) > 1 else None
        if axes is None or numpy_helper.to_array(axes).tolist() != [TIME]:
            nodes.append(node)
            continue
        out, name = node.output[0], node.name
        kept = all(entry.name != "keepdims" or entry.i for entry in node.attribute)
        whole = out if kept else f"{out}_kept"  # with a dimension of one for time
        if node.op_type == "ReduceMax":
            turned, highest = f"{out}_turned", f"{out}_highest"
            made = [
                onnx.helper.make_node("Transpose", [node.input[0]], [turned], f"{name}_turn", perm=TURN),
                onnx.helper.make_node("MaxPool", [turned], [highest], f"{name}_pool", kernel_shape=[time]),
                onnx.helper.make_node("Transpose", [highest], [whole], f"{name}_back", perm=TURN),
            ]
        else:
            row = f"{node.op_type}_of_{time}"
            if row not in constants:
                weight = 1.0 if node.op_type == "ReduceSum" else 1 / time
                constants[row] = numpy_helper.from_array(np.full((1, time), weight, np.float32), row)
                graph.graph.initializer.append(constants[row])
            made = [onnx.helper.make_node("MatMul", [row, node.input[0]], [whole], f"{name}_product")]
        if not kept:
            made.append(onnx.helper.make_node("Squeeze", [whole, node.input[1]], [out], f"{name}_squeeze"))
        for one in made:
            one.metadata_props.extend(node.metadata_props)  # it belongs to the same module
        nodes += made
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def fuse_attention(graph: onnx.ModelProto, size: EncoderSize) -> None:
    """Replace everything between the projections of each attention, in place, by ONNX Runtime's one operator for it.

    It needs no table of all pairs of tokens, and no transposed copies.
    source    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MultiHeadAttention
    """
    inside: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        inside.setdefault(module_of(node), []).append(node)
    fused: dict[str, onnx.NodeProto] = {}  # by the name of the last node that it replaces
    gone: set[str] = set()
    for name, nodes in inside.items():
        if name.startswith(LAYERS) and name.endswith(".self_attn"):
            inputs = [inside[f"{name}.{part}_proj"][-1].output[0] for part in "qkv"]
            fused[nodes[-1].name] = onnx.helper.make_node(
                "MultiHeadAttention",
                inputs,
                [nodes[-1].output[0]],
                f"{name}.attention",
                domain="com.microsoft",
                num_heads=size.heads,
                scale=(size.width // size.heads) ** -0.5,
            )
            gone.update(node.name for node in nodes)
    nodes = [fused.get(node.name, node) for node in graph.graph.node if node.name in fused or node.name not in gone]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    graph.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    del graph.graph.value_info[:]


if __name__ == "__main__":
    import time

    import onnxruntime as ort

    rng = np.random.default_rng(0)
    nodes = [onnx.helper.make_node(kind, ["sound", "axes"], [kind.lower()], kind, keepdims=0) for kind in REDUCTIONS]
    sound = onnx.helper.make_tensor_value_info("sound", onnx.TensorProto.FLOAT, ["batch", 250, 512])
    ends = [onnx.ValueInfoProto(name=kind.lower()) for kind in REDUCTIONS]
    axes = numpy_helper.from_array(np.array([TIME]), "axes")
    toy = onnx.helper.make_graph(nodes, "toy", [sound], ends, [axes], value_info=[sound])
    graph = onnx.helper.make_model(toy, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    given = {"sound": rng.normal(size=(1, 250, 512)).astype(np.float32)}
    answers, times = list[list[NDArray[np.float32]]](), list[float]()
    for rewrite in (False, True):
        if rewrite:
            reduce_over_time(graph)
        session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        answers.append([np.asarray(found, np.float32) for found in session.run(None, given)])
        begun = time.perf_counter()
        for _ in range(100):
            session.run(None, given)
        times.append(10 * (time.perf_counter() - begun))
    print(f"sum, mean and maximum over 250 tokens: {times[0]:.2f} ms, rewritten {times[1]:.2f}")
    for before, after in zip(*answers, strict=True):
        assert np.abs(before - after).max() < 1e-4, "the values are the same"
