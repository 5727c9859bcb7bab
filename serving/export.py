"""The trained network -> ONNX files that take waveforms: float32, and its twin with the encoder's products in INT8.

    write_float(model, facts, Path("classifier.onnx"), verified=True)
    write_int8(Path("classifier.onnx"), Path("classifier.int8.onnx"), facts, verified=True, recipe=recipe)
    write_openvino(Path("classifier.onnx"), Path("classifier.xml"))      # once more, as OpenVINO's own tools read it

Quantised are the linear layers of the encoder: weights to INT8 with a scale for each output channel, activations to
UINT8 with the scale they turn out to need, products in INT32. Front end, stem, attention products, norms and head stay
in float32: quantising the mel filters destroys the network's input. The weights of a large encoder lie beside the
file, in one named after it and its own digest: a protobuf ends at 2 GiB, and what is mapped need not be copied.
"""

from __future__ import annotations

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import io
import json
import logging
import re
import warnings
from collections import Counter
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.external_data_helper import (
    convert_model_to_external_data,
    load_external_data_for_model,
    write_external_data_tensors,
)
from torch import Tensor, nn

from evaluation.calibration import thresholds_to_json
from evaluation.familiarity import LEAST, Familiarity
from model import BirdClefClassifier
from runtime.digests import blank, name_beside, sha256, write_digest
from runtime.files import publish, scratch
from runtime.terminal import show
from serving import scorer as scoring
from serving.rewriting import LAYERS, SCOPES, fuse_attention, module_of, reduce_over_time
from serving.sensitivity import EIGHT_BITS, LEVELS, PRODUCTS
from taxonomy import to_json
from training.checkpoint import ClassifierFacts

FRONT_END = "model.log_mel"
LARGEST_FILE = 5e8  # bytes of weights that a file holds itself
UNKNOWN = "0" * 64  # in place of the digest of a file that is not written yet


class Deployed(nn.Module):
    """The classifier as it is served: waveforms (batch, samples) -> probabilities and embeddings of every window.

    forward   (batch, context samples) -> (batch * windows, species), (batch * windows, width); and (batch * windows,)
              where it is known what is familiar
    """

    def __init__(self, model: BirdClefClassifier, familiarity: Familiarity | None = None) -> None:
        super().__init__()
        self.model = model
        self.strangeness = Strangeness(familiarity) if familiarity else None

    def forward(self, waveforms: Tensor) -> tuple[Tensor, ...]:
        logits, embeddings = self.model.answers(waveforms)
        if self.strangeness is None:
            return logits.sigmoid(), embeddings
        return logits.sigmoid(), embeddings, self.strangeness(embeddings)


class Strangeness(nn.Module):
    """evaluation/familiarity.py as a part of the graph, all that it needs as constants.

    forward   (windows, width) -> (windows,) 0 to 1
    """

    def __init__(self, familiarity: Familiarity) -> None:
        super().__init__()
        self.mean: Tensor
        self.whitening: Tensor
        self.directions: Tensor
        self.low: Tensor
        self.steps: Tensor
        self.register_buffer("mean", torch.from_numpy(familiarity.mean))
        self.register_buffer("whitening", torch.from_numpy(familiarity.whitening))
        self.register_buffer("directions", torch.from_numpy(familiarity.directions).T.contiguous())
        levels = torch.from_numpy(familiarity.levels)
        self.register_buffer("low", levels[:-1].clone())
        self.register_buffer("steps", levels.diff())

    def forward(self, embeddings: Tensor) -> Tensor:
        seen = (embeddings - self.mean) @ self.whitening
        length = seen.square().sum(dim=1, keepdim=True).sqrt().clamp(min=LEAST)
        nearest = (seen / length @ self.directions).amax(dim=1, keepdim=True)
        return ((1 - nearest - self.low) / self.steps).clamp(0, 1).mean(dim=1)


class DeployedEncoder(nn.Module):
    """The same of an encoder that knows no species: (batch, context samples) -> (batch * windows, width)."""

    def __init__(self, model: BirdClefClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveforms: Tensor) -> Tensor:
        embeddings: Tensor = self.model.answers(waveforms)[1]
        return embeddings


def write_float(
    model: BirdClefClassifier,
    facts: ClassifierFacts,
    path: Path,
    verified: bool,
    familiarity: Familiarity | None = None,
) -> None:
    """The float32 file, front end included, for any number of contexts at a time; of an encoder without species
    embeddings alone.

    familiarity   what is known of the training windows: with it the file tells how unlike them a window is
    """
    show("exporting ...")
    large = sum(4 * parameter.numel() for parameter in model.parameters()) > LARGEST_FILE
    example = torch.zeros(2, model.log_mel.samples)
    batch = torch.export.Dim("batch", min=1, max=4096)
    network: nn.Module = Deployed(model, familiarity)
    names = ["probabilities", "embeddings", *(["unfamiliar"] if familiarity else [])]
    if not facts.taxonomy.labels:
        network, names = DeployedEncoder(model), ["embeddings"]
    with quietly():
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            input_names=["waveforms"],
            output_names=names,
            dynamic_shapes={"waveforms": {0: batch}},
            verbose=False,
        )
    assert program is not None, "torch.onnx.export gave no program"
    with scratch(path.parent, "export") as folder:
        exported = folder / "network.onnx"
        program.save(exported, external_data=large)
        graph = onnx.load(exported, load_external_data=False)
        for node in graph.graph.node:  # the exporter's notes hold stack traces; only the scopes are needed
            scopes = [entry for entry in node.metadata_props if entry.key == SCOPES]
            del node.metadata_props[:]
            node.metadata_props.extend(scopes)
        if facts.picture:
            fold_constants(graph)
        reduce_over_time(graph)
        set_facts(graph, facts, "float32", verified)
        finish(graph, path, folder / "network.onnx.data" if large else None)


def fold_constants(graph: onnx.ModelProto) -> None:
    """Compute all that depends on constants alone, in place: networks that standardise their own weights do that for
    every window otherwise, and weights that are no constants are not quantised."""
    known = {tensor.name for tensor in graph.graph.initializer}
    folded: list[onnx.NodeProto] = []
    for node in graph.graph.node:
        if node.input and all(not name or name in known for name in node.input):
            known.update(node.output)
            folded.append(node)
    rest = [node for node in graph.graph.node if node not in folded]
    made = {name for node in folded for name in node.output}
    wanted = sorted(made & {name for node in rest for name in node.input})
    if not wanted:
        return
    used = {name for node in folded for name in node.input}
    constants = [tensor for tensor in graph.graph.initializer if tensor.name in used]
    ends = [onnx.ValueInfoProto(name=name) for name in wanted]
    part = onnx.helper.make_graph(folded, "constants", [], ends, constants)
    model = onnx.helper.make_model(part, opset_imports=graph.opset_import, ir_version=graph.ir_version)
    values = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(wanted, {})
    left = {name for node in rest for name in node.input}
    kept = [tensor for tensor in graph.graph.initializer if tensor.name in left]
    kept += [numpy_helper.from_array(np.asarray(value), name) for name, value in zip(wanted, values, strict=True)]
    del graph.graph.node[:]
    graph.graph.node.extend(rest)
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(kept)


@dataclass(frozen=True)
class Recipe:
    """What becomes of the products of an INT8 file, each named as in `products`: layers.0.fc2."""

    spared: Mapping[str, str] = field(default_factory=dict[str, str])  # those that stay in float32, and why
    eight: Collection[str] = ()  # those whose weights have 8 bits, not 7
    scales: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, NDArray[np.float32]])
    """What input channels (inputs,) are divided by, while weights are multiplied (`sensitivity.smoothing`)."""
    means: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, NDArray[np.float32]])
    """Of input channels (inputs,), before that: what rounded weights make of them is taken out of the biases."""


def write_int8(
    float_path: Path, path: Path, facts: ClassifierFacts, verified: bool, recipe: Recipe | None = None
) -> None:
    """The INT8 twin of a float32 file."""
    recipe, folder = recipe or Recipe(), float_path.parent
    graph = onnx.load(float_path, load_external_data=False)
    wanted = products(graph)
    expected = len(PRODUCTS) * facts.encoder.layers
    assert len(wanted) == expected, (
        f"{len(wanted)} of {expected} matrix products were found: a silent failure, please report it"
    )
    strange = sorted({*recipe.spared, *recipe.eight, *recipe.scales} - set(wanted.values()))
    assert not strange, f"no product of the name {strange}"
    fuse_attention(graph, facts.encoder)
    separate_constants(graph)
    biases = product_biases(graph, wanted)
    factors = smooth_activations(graph, wanted, recipe.scales, biases, folder)
    roundings: dict[str, Rounding] = {}
    for node, name in wanted.items():
        mean = recipe.means.get(name)
        mean = None if mean is None else mean / recipe.scales.get(name, np.float32(1))
        levels = EIGHT_BITS if name in recipe.eight else LEVELS
        if name not in recipe.spared:
            roundings[node] = Rounding(levels, factors.pop(name, None), mean, biases.get(name, ""))
    weights = {wanted[node.name]: node.input[1] for node in graph.graph.node if node.name in wanted}
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    for name, factor in factors.items():  # of products that stay in float32
        multiply(constants[weights[name]], factor, folder)
    quantise_products(graph, roundings, folder)
    load_external_data_for_model(graph, str(folder))  # what stays in float32
    int8 = {"products": len(wanted), "eight_bits": sorted(recipe.eight), "kept_in_float32": dict(recipe.spared)}
    set_facts(graph, facts, "int8", verified, int8)
    save(graph, path)


def save(graph: onnx.ModelProto, path: Path) -> None:
    """Write a graph, its weights beside it where they are many."""
    if sum(len(tensor.raw_data) for tensor in graph.graph.initializer) <= LARGEST_FILE:
        finish(graph, path)
        return
    with scratch(path.parent, "export") as folder:
        convert_model_to_external_data(graph, location="weights.data")
        write_external_data_tensors(graph, str(folder))
        finish(graph, path, folder / "weights.data")


def finish(graph: onnx.ModelProto, path: Path, weights: Path | None = None) -> None:
    """Publish a graph with its digest inside; the file of its weights first, under a name that no other has: so at any
    moment the old pair or the new one is there, whole.

    weights   on the same disk; it is moved
    """
    digest, weights_name = "", path.name
    if weights:
        digest = sha256(weights)
        weights_name = name_beside(path.name, digest)
        with publish(path.with_name(weights_name)) as temporary:
            weights.replace(temporary)
        point_to(graph, weights_name)
    graph.metadata_props.add(key="seal", value=blank(digest))
    with publish(path, graph.ByteSize()) as temporary:
        onnx.save(graph, temporary)
        write_digest(temporary)
    ours = re.compile(rf"{re.escape(path.name)}\.([0-9a-f]{{16}}\.)?data")
    for old in path.parent.iterdir():
        if ours.fullmatch(old.name) and old.name != weights_name:
            old.unlink()


def write_openvino(float_path: Path, path: Path) -> None:
    """A float32 file once more as OpenVINO keeps networks: an .xml with the graph, our facts and a digest of both
    files, and a .bin of its name with the weights. For every encoder and for ensembles alike, since what is read is the
    ONNX file."""
    from openvino import save_model

    model = scoring.openvino_core().read_model(str(float_path))
    model.set_rt_info(blank(UNKNOWN), ["framework", "seal"])  # beside our facts, where ONNX's metadata went
    with scratch(path.parent, "export") as folder:
        made = folder / path.name
        save_model(model, str(made), compress_to_fp16=False)
        weights = made.with_suffix(".bin")
        digest, size = sha256(weights), made.stat().st_size
        with publish(path.with_suffix(".bin")) as temporary:
            weights.replace(temporary)
        with publish(path, size) as temporary:
            temporary.write_bytes(made.read_bytes().replace(blank(UNKNOWN).encode(), blank(digest).encode()))
            write_digest(temporary)


def point_to(graph: onnx.ModelProto, name: str) -> None:
    """Say that the weights which are not in a graph lie in the file of this name beside it."""
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name


def products(graph: onnx.ModelProto) -> dict[str, str]:
    """Node -> name (layers.0.fc2) of the matrix products with constant weights inside the encoder's layers."""
    constants = {tensor.name for tensor in graph.graph.initializer}
    found: dict[str, str] = {}
    for node in graph.graph.node:
        name = module_of(node)
        ours = name.startswith(LAYERS) and name.endswith(PRODUCTS)
        if ours and node.op_type == "MatMul" and node.input[1] in constants:
            found[node.name] = name.removeprefix(LAYERS)
    return found


def front_end(path: Path) -> bytes:
    """The part of a file that makes log-mel pictures of waveforms, as a file of its own; an ensemble makes several."""
    graph = onnx.load(path, load_external_data=False)
    nodes = [node for node in graph.graph.node if module_of(node).startswith(FRONT_END)]
    others = (node for node in graph.graph.node if not module_of(node).startswith(FRONT_END))
    used = {name for node in others for name in node.input}
    made = [name for node in nodes for name in node.output if name in used]
    wanted = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in graph.graph.initializer if tensor.name in wanted]
    pictures = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in made]
    part = onnx.helper.make_graph(nodes, "front end", graph.graph.input, pictures, constants)
    model = onnx.helper.make_model(part, opset_imports=graph.opset_import, ir_version=graph.ir_version)
    load_external_data_for_model(model, str(path.parent))
    content: bytes = model.SerializeToString()
    return content


def separate_constants(graph: onnx.ModelProto) -> None:
    """Give each norm and each sum constants of its own, in place: the exporter keeps equal ones once, as all norms and
    biases of an encoder are before it is trained, and what is changed for one must not change for another."""
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    uses = Counter(name for node in graph.graph.node for name in node.input)
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            if node.op_type in ("LayerNormalization", "Add") and name in constants and uses[name] > 1:
                uses[name] -= 1
                node.input[index] = f"{name}_{node.name}"
                graph.graph.initializer.add().CopyFrom(constants[name])
                graph.graph.initializer[-1].name = node.input[index]


def product_biases(graph: onnx.ModelProto, wanted: Mapping[str, str]) -> dict[str, str]:
    """Name of a product -> the constant that is added to it; without those that have none.

    wanted   node -> name of the products
    """
    constants = {tensor.name for tensor in graph.graph.initializer}
    outputs = {node.output[0]: wanted[node.name] for node in graph.graph.node if node.name in wanted}
    found: dict[str, str] = {}
    for node in graph.graph.node:
        if node.op_type == "Add":
            for one, other in (node.input, reversed(node.input)):
                if one in outputs and other in constants:
                    found[outputs[one]] = other
    return found


def smooth_activations(
    graph: onnx.ModelProto,
    wanted: Mapping[str, str],
    scales: Mapping[str, NDArray[np.float32]],
    biases: Mapping[str, str],
    folder: Path,
) -> dict[str, NDArray[np.float32]]:
    """Divide the input channels of products by scales, in place: in the weights of the norm before them, in the values
    of the attention before them, or, behind a Gelu, by a multiplication of its own.

    wanted    node -> name of the products
    biases    name -> the constant that is added to it
    returns   name -> what its weights are to be multiplied by, (inputs, 1) or (inputs, outputs)
    source    https://arxiv.org/abs/2211.10438 (SmoothQuant)
    """
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    makers = {node.output[0]: node for node in graph.graph.node}
    factors: dict[str, NDArray[np.float32]] = {name: scale[:, None] for name, scale in scales.items()}
    smoothed: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.graph.node:
        name = wanted.get(node.name, "")
        if name in scales:
            activation, inverse = node.input[0], (1 / scales[name]).astype(np.float32)
            if activation not in smoothed:
                smoothed[activation] = activation
                # a norm, the values of attention, or a multiplication of its own takes the scale in
                if makers[activation].op_type == "LayerNormalization":
                    for constant in makers[activation].input[1:]:
                        multiply(constants[constant], inverse, folder)
                elif name.endswith("out_proj"):
                    values = name.replace("out_proj", "v_proj")
                    factors[values] = factors.get(values, np.ones((1, 1), np.float32)) * inverse
                    if values in biases:
                        multiply(constants[biases[values]], inverse, folder)
                else:
                    smoothed[activation] = f"{activation}_smooth"
                    graph.graph.initializer.append(numpy_helper.from_array(inverse, f"{activation}_smoothing"))
                    inputs = [activation, f"{activation}_smoothing"]
                    nodes.append(onnx.helper.make_node("Mul", inputs, [smoothed[activation]], f"{activation}_smooth"))
            node.input[0] = smoothed[activation]
        nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return factors


def multiply(tensor: onnx.TensorProto, factor: NDArray[np.float32], folder: Path) -> None:
    """A constant of a graph, in place."""
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor, str(folder)) * factor, tensor.name))


@dataclass(frozen=True)
class Rounding:
    """How the weights of a product become INT8."""

    levels: int = LEVELS  # the largest whole number: 63 are 7 bits, 127 are 8
    factor: NDArray[np.float32] | None = None  # by which they are multiplied first, (inputs, 1) or (inputs, outputs)
    mean: NDArray[np.float32] | None = None  # (inputs,) of what they are multiplied with
    bias: str = ""  # the constant from which what rounding makes of the mean is taken, where there is one


def quantise_products(graph: onnx.ModelProto, chosen: Mapping[str, Rounding], folder: Path = Path()) -> None:
    """Replace some products of a graph, in place, by their INT8 form.

    chosen    node -> how its weights are rounded
    folder    where the weights that the graph does not hold itself are; they are read one at a time
    x @ W becomes (DynamicQuantizeLinear(x) @ W8) in INT32, times the scale of x and the scales of W's columns. Products
    of the same activations share their quantisation; ONNX Runtime fuses the rest.
    """
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    users: dict[str, int] = {}
    for node in graph.graph.node:
        for name in node.input:
            users[name] = users.get(name, 0) + 1
    nodes: list[onnx.NodeProto] = []
    quantised: set[str] = set()
    for node in graph.graph.node:
        if node.name not in chosen:
            nodes.append(node)
            continue
        # its activations, once for all products of the same
        activation, weight = node.input
        if activation not in quantised:
            quantised.add(activation)
            parts = [f"{activation}_{part}" for part in ("quantized", "scale", "zero_point")]
            nodes.append(onnx.helper.make_node("DynamicQuantizeLinear", [activation], parts, f"{activation}_quantize"))
        # its weights, and the bias that takes out what rounding makes of the mean
        if f"{weight}_quantized" not in weights:
            how, exact = chosen[node.name], numpy_helper.to_array(weights[weight], str(folder))
            exact = exact if how.factor is None else exact * how.factor
            table, units = quantised_weight(exact, how.levels)
            if how.mean is not None and how.bias in weights:
                moved = numpy_helper.to_array(weights[how.bias], str(folder)) - how.mean @ (table * units - exact)
                weights[how.bias] = numpy_helper.from_array(moved.astype(np.float32), how.bias)
            for name, values in ((f"{weight}_quantized", table), (f"{weight}_scale", units)):
                weights[name] = numpy_helper.from_array(values, name)
        users[weight] -= 1
        if not users[weight]:
            del weights[weight]
        # the product in integers, then back to float32
        out = node.output[0]
        inputs = [f"{activation}_quantized", f"{weight}_quantized", f"{activation}_zero_point"]
        scales = [f"{activation}_scale", f"{weight}_scale"]
        nodes += [
            onnx.helper.make_node("MatMulInteger", inputs, [f"{out}_int32"], f"{node.name}_quant"),
            onnx.helper.make_node("Cast", [f"{out}_int32"], [f"{out}_float"], f"{out}_cast", to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", scales, [f"{out}_scales"], f"{out}_scaling"),
            onnx.helper.make_node("Mul", [f"{out}_float", f"{out}_scales"], [out], f"{out}_rescaled"),
        ]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(weights.values())
    del graph.graph.value_info[:]


def quantised_weight(weight: NDArray[np.float32], levels: int = LEVELS) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(inputs, outputs) float32 -> INT8 of the same shape, and a scale for each output (outputs,)."""
    scales = (np.abs(weight).max(axis=0) / levels).astype(np.float32)
    scales[scales == 0] = 1.0
    return np.clip(np.rint(weight / scales), -levels, levels).astype(np.int8), scales


def set_facts(
    graph: onnx.ModelProto,
    facts: ClassifierFacts,
    precision: str,
    verified: bool,
    int8: Mapping[str, object] | None = None,
) -> None:
    """Labels, lineage, thresholds, audio geometry and provenance into the file's metadata; of an INT8 file what is in
    float32 all the same, and how finely its weights are rounded."""
    content = {
        "format": scoring.FORMAT,
        **({} if "members" in facts.provenance else network_facts(facts)),  # an ensemble names that of each member
        "precision": precision,
        "verified": verified,
        "audio": asdict(facts.audio),
        "taxonomy": to_json(facts.taxonomy),
        **thresholds_to_json(facts.thresholds),
        "provenance": facts.provenance,
        "sealed": True,
    }
    content |= {"int8": int8} if int8 else {}
    content |= {"unfamiliar": True} if any(output.name == "unfamiliar" for output in graph.graph.output) else {}
    onnx.helper.set_model_props(graph, {scoring.METADATA: json.dumps(content)})


def network_facts(facts: ClassifierFacts) -> dict[str, object]:
    """Which encoder a file holds, as `scorer.encoder_from_facts` reads it."""
    found: dict[str, object] = {"size": facts.size, "depth": 0 if facts.picture else facts.encoder.layers}
    return found | {"pool": facts.pool} | ({"picture": asdict(facts.picture)} if facts.picture else {})


@contextmanager
def quietly() -> Generator[None]:
    """Without the exporter's progress report and warnings about its own insides."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "root", "onnxscript", "onnx_ir")}
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 8)).astype(np.float32) * np.array([1, 1, 1, 1, 1, 1, 1, 100], np.float32)
    nodes = [onnx.helper.make_node("MatMul", ["sound", "weight"], ["answer"], "product")]
    shapes: dict[str, list[str | int | None]] = {"sound": ["rows", 64], "answer": ["rows", 8]}
    given, answered = (onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items())
    toy = onnx.helper.make_graph(nodes, "toy", [given], [answered], [numpy_helper.from_array(weight, "weight")])
    graph = onnx.helper.make_model(toy, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    sound = {"sound": rng.normal(size=(5, 64)).astype(np.float32)}
    floats = ort.InferenceSession(graph.SerializeToString()).run(None, sound)[0]
    quantise_products(graph, {"product": Rounding()})
    int8 = ort.InferenceSession(graph.SerializeToString()).run(None, sound)[0]
    error = np.abs(int8 - floats).max(axis=0) / np.abs(floats).max(axis=0)
    print("largest error of each channel", error.round(4).tolist())
    assert 0 < error.max() < 0.03, "a channel a hundred times as loud does not spoil its neighbours in the weights"
