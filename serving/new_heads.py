"""A linear head on stored embeddings -> the ONNX file that gives those embeddings, with that head beside or in place of
its own.

    write_new_head(model, path, head, taxonomy, thresholds, beside=False, said={})

The network below the embeddings stays as it is, weight for weight: what was indexed is what will be scored. The head is
Standard and one linear layer in float32, as heads.py has it, and the file's own digest is made anew.
"""

from __future__ import annotations

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from evaluation.calibration import Threshold, Thresholds, thresholds_from_json, thresholds_to_json
from runtime.digests import beside as weights_beside
from runtime.files import scratch
from serving.export import finish
from serving.scorer import METADATA, provenance_of, read_facts
from taxonomy import Taxonomy, from_json, to_json

EMBEDDINGS, PROBABILITIES = "embeddings", "probabilities"
Numbers = NDArray[np.float32]


class NewHead(NamedTuple):
    """What makes answers of embeddings."""

    mean: Numbers  # (width,) of the embeddings
    deviation: Numbers
    weights: Numbers  # (width, labels)
    bias: Numbers  # (labels,)


def write_new_head(
    model: Path,
    path: Path,
    head: NewHead,
    taxonomy: Taxonomy,
    thresholds: Sequence[Threshold],
    beside: bool,
    said: Mapping[str, object],
) -> Taxonomy:
    """The file with the new head; returns the labels that it answers with.

    beside       keep the answers for the labels that the new head does not have
    thresholds   one for each label of the taxonomy
    said         of the refit, into the file's provenance
    Errors: a file that gives no embeddings, and --beside of an encoder that knows no species.
    """
    graph = onnx.load(model, load_external_data=False)
    outputs = {output.name for output in graph.graph.output}
    assert EMBEDDINGS in outputs, f"{model} gives no embeddings; make it anew with quantize.py"
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    facts = read_facts(metadata, model)
    old = from_json(facts["taxonomy"])
    kept = [column for column, label in enumerate(old.labels) if label not in taxonomy.labels] if beside else []
    assert kept or not beside, f"{model} has no species beside the new ones; leave --beside out"
    add_head(graph, head, kept, rename_answers(graph))
    drop_unused(graph)
    joined = joined_labels(old, kept, taxonomy)
    limits = joined_thresholds(thresholds_from_json(facts, old.labels, model), kept, thresholds)
    facts |= {"taxonomy": to_json(joined), "provenance": {**provenance_of(facts), **said}}
    write_copy(model, path, graph, facts | thresholds_to_json(limits))
    return joined


def write_copy(model: Path, path: Path, graph: onnx.ModelProto, facts: Mapping[str, object]) -> None:
    """A file once more, its weights as they are, with a digest of its own.

    graph   of `model`, as it is to be
    facts   what a file of ours is to say of itself; none for somebody else's, whose metadata stay
    """
    said = {entry.key: entry.value for entry in graph.metadata_props if entry.key != "seal"}
    helper.set_model_props(graph, {METADATA: json.dumps({**facts, "sealed": True})} if facts else said)
    weights = weights_beside(model) or model.with_name(f"{model.name}.data")
    with scratch(path.parent, "head") as folder:
        copied = Path(shutil.copyfile(weights, folder / "weights.data")) if weights.is_file() else None
        finish(graph, path, copied)


def write_foreign_head(model: Path, path: Path, head: NewHead, output: str) -> None:
    """Somebody else's file with the new head in place of its own: its outputs are `probabilities` and its embeddings.

    output   what it calls its embeddings (batch, values)
    """
    graph = onnx.load(model, load_external_data=False)
    rename_answers(graph)
    kept = [entry for entry in graph.graph.output if entry.name == output]
    shape = [size.dim_value or size.dim_param for size in kept[0].type.tensor_type.shape.dim] if kept else []
    assert len(shape) == 2, f"{model} gives embeddings {output!r} of {shape}, not of (batch, values); no head fits them"
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    add_head(graph, head, (), "", output)
    drop_unused(graph)
    write_copy(model, path, graph, {})


def rename_answers(graph: onnx.ModelProto) -> str:
    """Give the file's own probabilities a name that nothing else has, in place; returns it."""
    taken = {name for node in graph.graph.node for name in node.output}
    old = next(f"{PROBABILITIES}_{number}" for number in count(1) if f"{PROBABILITIES}_{number}" not in taken)
    for node in graph.graph.node:
        for names in (node.output, node.input):
            for index, name in enumerate(names):
                names[index] = old if name == PROBABILITIES else name
    return old


def add_head(graph: onnx.ModelProto, head: NewHead, kept: Sequence[int], old: str, output: str = EMBEDDINGS) -> None:
    """Standardise, one linear layer, sigmoid; behind the columns that are kept of the file's own answers, `old`.

    output   the embeddings
    """
    taken = {name.partition(".")[0] for node in graph.graph.node for name in node.output}
    own = next(f"head_{number}" for number in count(1) if f"head_{number}" not in taken)
    constants: dict[str, NDArray[np.float32] | NDArray[np.int64]] = {
        f"{own}.{name}": values for name, values in head._asdict().items()
    }
    answers = f"{own}.probabilities" if kept else PROBABILITIES
    steps = [
        ("Cast", [output], f"{own}.embeddings"),  # of files in half precision
        ("Sub", [f"{own}.embeddings", f"{own}.mean"], f"{own}.centred"),
        ("Div", [f"{own}.centred", f"{own}.deviation"], f"{own}.standard"),
        ("Gemm", [f"{own}.standard", f"{own}.weights", f"{own}.bias"], f"{own}.logits"),
        ("Sigmoid", [f"{own}.logits"], answers),
    ]
    nodes = [helper.make_node(kind, given, [made], f"{own}.{kind}") for kind, given, made in steps]
    nodes[0].attribute.append(helper.make_attribute("to", onnx.TensorProto.FLOAT))
    if kept:
        constants[f"{own}.kept"] = np.array(kept, np.int64)
        nodes += [
            helper.make_node("Gather", [old, f"{own}.kept"], [f"{own}.others"], f"{own}.Gather", axis=1),
            helper.make_node("Concat", [f"{own}.others", answers], [PROBABILITIES], f"{own}.Concat", axis=1),
        ]
    graph.graph.node.extend(nodes)
    graph.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    others = [other for other in graph.graph.output if other.name != PROBABILITIES]
    embeddings = next(other for other in others if other.name == output)
    rows = embeddings.type.tensor_type.shape.dim[0]
    size: list[str | int | None] = [rows.dim_param or None, len(kept) + head.weights.shape[1]]
    found = helper.make_tensor_value_info(PROBABILITIES, onnx.TensorProto.FLOAT, size)
    del graph.graph.output[:]
    graph.graph.output.extend([found, *others])
    del graph.graph.value_info[:]


def drop_unused(graph: onnx.ModelProto) -> None:
    """Leave out what no output needs any more, in place: a head that was replaced."""
    needed = {output.name for output in graph.graph.output}
    nodes: list[onnx.NodeProto] = []
    for node in reversed(graph.graph.node):  # a graph is in an order in which what is needed comes first
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
    constants = [tensor for tensor in graph.graph.initializer if tensor.name in needed]
    del graph.graph.node[:]
    graph.graph.node.extend(reversed(nodes))
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(constants)


def joined_labels(old: Taxonomy, kept: Sequence[int], new: Taxonomy) -> Taxonomy:
    """The labels that are kept, then the new ones."""
    columns = ("labels", "scientific_names", "common_names", "lineages", "finest")
    return Taxonomy(*((*(getattr(old, name)[row] for row in kept), *getattr(new, name)) for name in columns))


def joined_thresholds(old: Thresholds, kept: Sequence[int], new: Sequence[Threshold]) -> Thresholds:
    """Those of the labels that are kept, then the new ones; none where the file has none: it is one each or none."""
    if kept and not old.species:
        return Thresholds()
    return Thresholds((*(old.species[row] for row in kept), *new))


if __name__ == "__main__":
    import onnxruntime as ort

    rng = np.random.default_rng(0)
    lineage = ("Animalia", "Chordata", "Amphibia", "Anura", "Fictidae", "Rana", "Rana ficta")
    old, new = (Taxonomy((name,), (name,), (name,), (lineage,), (7,)) for name in ("toad", "frog"))
    steps = [
        ("MatMul", ["waveforms", "w"], EMBEDDINGS),
        ("MatMul", [EMBEDDINGS, "h"], "z"),
        ("Sigmoid", ["z"], PROBABILITIES),
    ]
    nodes = [helper.make_node(kind, given, [made], made) for kind, given, made in steps]
    shapes: dict[str, list[str | int | None]] = {"waveforms": ["n", 8], PROBABILITIES: ["n", 1], EMBEDDINGS: ["n", 4]}
    ends = [helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    parts = {"w": rng.normal(size=(8, 4)).astype(np.float32), "h": rng.normal(size=(4, 1)).astype(np.float32)}
    weights = [numpy_helper.from_array(values, name) for name, values in parts.items()]
    toy = helper.make_graph(nodes, "toy", ends[:1], ends[1:], weights)
    graph = helper.make_model(toy, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    facts = {"format": 2, "audio": {}, "taxonomy": to_json(old), "precision": "float32", "verified": False}
    helper.set_model_props(graph, {METADATA: json.dumps(facts)})
    head = NewHead(np.zeros(4, np.float32), np.ones(4, np.float32), parts["h"] * 2, np.zeros(1, np.float32))
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(graph, Path(folder) / "toy.onnx")
        limit = Threshold("frog", 0.5, 0.0, None, 0.0, 0.0, 3, 3, "")
        labels = write_new_head(
            Path(folder) / "toy.onnx", Path(folder) / "new.onnx", head, new, [limit], True, {}
        ).labels
        session = ort.InferenceSession(str(Path(folder) / "new.onnx"), providers=["CPUExecutionProvider"])
        answers = session.run([PROBABILITIES], {"waveforms": rng.normal(size=(3, 8)).astype(np.float32)})[0]
    print(dict(zip(labels, answers.T.round(3).tolist(), strict=True)))
    logits = np.log(answers / (1 - answers))
    assert np.allclose(logits[:, 1], 2 * logits[:, 0], atol=1e-4), "the frog's head is twice the toad's"
