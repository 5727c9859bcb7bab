"""Graphs that are said in another way have the same values, and what is not understood stays as it is."""

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import Stages
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from serving.rewriting import REDUCTIONS, SCOPES, TIME, module_of, reduce_over_time


def reducing(kind: str, kept: int | None, axis: int = TIME, time: int | str = 7) -> onnx.ModelProto:
    """A graph of one reduction of (batch, time, 4) in a module; `kept` None: the attribute is left out, which is 1."""
    node = helper.make_node(kind, ["tokens", "axes"], ["found"], "reduce")
    if kept is not None:
        node.attribute.append(helper.make_attribute("keepdims", kept))
    node.metadata_props.append(onnx.StringStringEntryProto(key=SCOPES, value="['', 'model.head', 'reduce']"))
    tokens = helper.make_tensor_value_info("tokens", onnx.TensorProto.FLOAT, ["batch", time, 4])
    axes = numpy_helper.from_array(np.array([axis]), "axes")
    found = onnx.ValueInfoProto(name="found")
    graph = helper.make_graph([node], "toy", [tokens], [found], [axes], value_info=[tokens])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def answer(graph: onnx.ModelProto, batch: int) -> NDArray[np.float32]:
    tokens = np.random.default_rng(batch).normal(size=(batch, 7, 4)).astype(np.float32) - 3
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"tokens": tokens})[0]
    return np.asarray(found, np.float32)


@pytest.mark.parametrize("kept", [0, 1, None])
@pytest.mark.parametrize("kind", REDUCTIONS)
def test_a_rewritten_reduction_has_the_same_values_and_shape(kind: str, kept: int | None) -> None:
    before, after = reducing(kind, kept), reducing(kind, kept)
    reduce_over_time(after)
    kinds = [node.op_type for node in after.graph.node]
    assert kind not in kinds and {"MatMul", "MaxPool"} & set(kinds)
    assert {module_of(node) for node in after.graph.node} == {"model.head"}
    for batch in (1, 3):
        was, now = answer(before, batch), answer(after, batch)
        assert was.shape == now.shape == ((batch, 4) if kept == 0 else (batch, 1, 4))
        np.testing.assert_allclose(now, was, rtol=1e-6)


@pytest.mark.parametrize(("axis", "time"), [(2, 7), (0, 7), (TIME, "seconds")])
def test_other_dimensions_and_unknown_numbers_of_tokens_stay(axis: int, time: int | str) -> None:
    graph = reducing("ReduceMean", 0, axis, time)
    before = graph.SerializeToString()
    reduce_over_time(graph)
    assert graph.SerializeToString() == before


def test_equal_weights_are_kept_once() -> None:
    graph = reducing("ReduceMean", 0)
    graph.graph.node.add().CopyFrom(graph.graph.node[0])
    graph.graph.node[1].output[0], graph.graph.node[1].name = "again", "reduce_again"
    reduce_over_time(graph)
    assert [tensor.name for tensor in graph.graph.initializer] == ["axes", "ReduceMean_of_7"]


def test_served_files_reduce_no_tokens_in_the_slow_way(stages: Stages) -> None:
    graph = onnx.load(stages.float_model)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.graph.value_info}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    left = {node.name: node for node in graph.graph.node if node.op_type in REDUCTIONS}
    assert left and all(name in constants for node in left.values() for name in node.input[1:])
    for node in left.values():
        assert constants[node.input[1]].tolist() != [TIME] or len(shapes[node.input[0]]) != 3
    int8 = Counter(node.op_type for node in onnx.load(stages.model).graph.node)  # made of that graph
    assert sum(int8[kind] for kind in REDUCTIONS) == len(left) and int8["MaxPool"] >= 1
