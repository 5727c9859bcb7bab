"""A network's ONNX file made of that of another one of its shape: the exporter takes seconds for each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor

from serving.ensemble import needed_nodes
from serving.export import finish, set_facts
from training.checkpoint import ClassifierFacts

Weights = Mapping[str, Tensor]


def shape_of(facts: ClassifierFacts, weights: Weights) -> tuple[object, ...]:
    """What two networks have in common if their files differ in weights alone."""
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    return facts.size, facts.depth, facts.pool, facts.picture, facts.audio, facts.head, facts.taxonomy, shapes


def table_key(table: NDArray[np.float32]) -> tuple[tuple[int, ...], bytes]:
    return table.shape, table.tobytes()


def give_weights(graph: onnx.ModelProto, before: Weights, after: Weights) -> bool:
    """Put the weights of another network in the place of its own, in place; False where some of those that differ are
    not to be found in the file just once, as they are or transposed: then it has to be exported."""
    tables: dict[object, TensorProto] = {}
    twice = set[object]()
    for tensor in graph.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            key = table_key(numpy_helper.to_array(tensor))
            twice |= {key} & tables.keys()
            tables[key] = tensor
    tables = {key: tensor for key, tensor in tables.items() if key not in twice}
    for name in before:
        old, new = before[name].numpy(), after[name].numpy()
        if np.array_equal(old, new):
            continue
        forms = [(old, new), *([(old.T, new.T)] if old.ndim == 2 else [])]
        found = [(tables.pop(table_key(was)), becomes) for was, becomes in forms if table_key(was) in tables]
        if len(found) != 1:
            return False
        ((place, table),) = found
        place.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(table), place.name))
    return True


def without_output(graph: onnx.ModelProto, name: str) -> None:
    """Leave out an output and what is computed for it alone, in place."""
    kept = [output for output in graph.graph.output if output.name != name]
    nodes = needed_nodes(graph.graph.node, [output.name for output in kept])
    used = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in graph.graph.initializer if tensor.name in used]
    put(graph.graph.output, kept)
    put(graph.graph.node, nodes)
    put(graph.graph.initializer, constants)


def put(place: Any, content: Sequence[object]) -> None:
    """A repeated field's content in place of what it holds."""
    del place[:]
    place.extend(content)


def write_from(
    template: bytes, before: Weights, after: Weights, facts: ClassifierFacts, path: Path, verified: bool
) -> bool:
    """What `write_float` would write of a network whose familiarity is not known, made of the file of another one of
    its shape; False, and nothing is written, where that cannot be done."""
    graph = onnx.load_from_string(template)
    if not give_weights(graph, before, after):
        return False
    without_output(graph, "unfamiliar")
    set_facts(graph, facts, "float32", verified)
    finish(graph, path)
    return True
