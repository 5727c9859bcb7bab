"""Several served files -> one: it takes the same waveforms, and blends what they answer inside its graph.

    write_ensemble([Path("a.onnx"), Path("b.onnx")], Path("classifier.onnx"), facts, blend, "float32", verified=True)

What the members have in common is computed once: the front end where its geometry is the same, and the whole encoder of
heads that were fitted on the same frozen one. The embeddings are those of the first member; how unfamiliar a window is
the file does not tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from archive.licences import handed_on
from config import BlendSettings
from evaluation.blending import Blend, among_folds, blended, equal_blend, fit_blend
from evaluation.calibration import MOST_SURE, Threshold, Thresholds, mean_as_logits
from evaluation.held_out import WindowScores, calibrate_highest, judged_entries, loudest_windows
from runtime.digests import sha256
from serving.comparison import ComparedWindows, OutOfFold
from serving.contexts import common_audio
from serving.export import Recipe, network_facts, save, set_facts
from serving.sensitivity import ProductCost
from training.checkpoint import ClassifierFacts

LEAST = 1e-7  # the least probability that has a logit here, of one that was blended


def write_ensemble(
    members: Sequence[Path],
    path: Path,
    facts: ClassifierFacts,
    blend: Blend,
    precision: str,
    verified: bool,
    int8: Mapping[str, object] | None = None,
) -> None:
    """Publish the members as one file.

    facts   of the ensemble (`common_facts`)
    int8    of INT8 members: what is in float32 all the same, as set_facts has it
    """
    graph = joined_graph([load(member) for member in members], blend)
    set_facts(graph, facts, precision, verified, int8)
    save(graph, path)


def load(path: Path) -> onnx.ModelProto:
    """A graph with all its weights."""
    graph = onnx.load(path, load_external_data=False)
    load_external_data_for_model(graph, str(path.parent))
    return graph


def joined_graph(members: Sequence[onnx.ModelProto], blend: Blend) -> onnx.ModelProto:
    """One graph of several, what they have in common once."""
    first = members[0]
    versions = {(one.domain, one.version) for member in members for one in member.opset_import}
    assert len({domain for domain, _ in versions}) == len(versions), (
        "the members were exported by different versions of ONNX; make all files anew with `python quantize.py`"
    )
    nodes, constants = list[onnx.NodeProto](), list[onnx.TensorProto]()
    logits, embeddings = list[str](), list[str]()
    for number, member in enumerate(members):
        own = prefixed(member.graph, f"member_{number}/")
        makers = {node.output[0]: node for node in own.node}
        last = makers[own.output[0].name]
        assert last.op_type == "Sigmoid", f"member {number + 1} ends in {last.op_type}, not in probabilities"
        logits.append(last.input[0])
        embeddings.append(own.output[1].name)
        nodes += [node for node in own.node if node is not last]
        constants += own.initializer
    nodes += blending(logits, blend, constants)
    nodes.append(helper.make_node("Identity", [embeddings[0]], ["embeddings"], "embeddings"))
    nodes, constants = shared(nodes, constants)
    ends = [output for output in first.graph.output if output.name in ("probabilities", "embeddings")]
    outputs = [output.name for output in ends]
    nodes = needed_nodes(nodes, outputs)
    used = {name for node in nodes for name in node.input}
    kept = [constant for constant in constants if constant.name in used]
    graph = helper.make_graph(nodes, "ensemble", first.graph.input, ends, kept)
    imports = [helper.make_opsetid(domain, version) for domain, version in sorted(versions)]
    return helper.make_model(graph, opset_imports=imports, ir_version=first.ir_version)


def prefixed(graph: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
    """The same with names of its own, but for its input."""
    found = onnx.GraphProto()
    found.CopyFrom(graph)
    kept = {"", *(given.name for given in graph.input)}
    for node in found.node:
        node.name = f"{prefix}{node.name}"
        for names in (node.input, node.output):
            names[:] = [name if name in kept else f"{prefix}{name}" for name in names]
    for part in (*found.initializer, *found.output):
        part.name = f"{prefix}{part.name}"
    return found


def blending(logits: Sequence[str], blend: Blend, constants: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    """Nodes from the members' logits to probabilities, as evaluation.blending.blended; their constants are added."""
    nodes = list[onnx.NodeProto]()

    def constant(value: NDArray[np.floating] | float, name: str) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, np.float32), f"blend/{name}"))
        return f"blend/{name}"

    def add(kind: str, inputs: Sequence[str], name: str, **attributes: int) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [f"blend/{name}"], f"blend/{name}"))
        nodes[-1].attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        return f"blend/{name}"

    limits = [constant(-MOST_SURE, "lowest"), constant(MOST_SURE, "highest")]
    unit = [constant(0.0, "zero"), constant(1.0, "one")]
    parts = list[str]()
    for number, (name, weight) in enumerate(zip(logits, blend.weights, strict=True)):
        part = add("Clip", [name, *limits], f"logits_{number}")
        if blend.of == "probabilities":
            part = add("Sigmoid", [part], f"probabilities_{number}")
        if blend.of == "ranks":
            low, high = blend.levels[number, :-1], blend.levels[number, 1:]
            axis = numpy_helper.from_array(np.array([1], np.int64), f"blend/axis_{number}")
            constants.append(axis)
            part = add("Unsqueeze", [part, axis.name], f"rows_{number}")  # (windows, 1, species)
            part = add("Sub", [part, constant(low, f"low_{number}")], f"above_{number}")
            part = add("Mul", [part, constant(1 / (high - low), f"slope_{number}")], f"steps_{number}")
            part = add("Clip", [part, *unit], f"passed_{number}")
            part = add("ReduceMean", [part, axis.name], f"ranks_{number}", keepdims=0)
        parts.append(add("Mul", [part, constant(weight, f"weight_{number}")], f"weighted_{number}"))
    z = parts[0]
    for number, part in enumerate(parts[1:], 1):
        z = add("Add", [z, part], f"sum_{number}")
    if blend.of != "logits":
        z = add("Clip", [z, constant(LEAST, "least"), constant(1 - LEAST, "most")], "share")
        rest = add("Sub", [unit[1], z], "rest")
        z = add("Sub", [add("Log", [z], "log"), add("Log", [rest], "log_rest")], "logit")
        z = add("Clip", [z, *limits], "mean")
    z = add("Add", [add("Mul", [z, constant(blend.scale, "scale")], "scaled"), constant(blend.bias, "bias")], "moved")
    nodes.append(helper.make_node("Sigmoid", [z], ["probabilities"], "probabilities"))
    return nodes


def shared(
    nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Without what is computed twice: a node that does the same to the same as one before it, a constant that is equal
    to another."""
    same, kept_constants = dict[str, str](), list[onnx.TensorProto]()
    known = dict[bytes, list[str]]()
    for tensor in constants:
        values = numpy_helper.to_array(tensor)
        key = hashlib.sha256(f"{values.dtype} {values.shape} ".encode() + values.tobytes()).digest()
        if key in known:
            same[tensor.name] = known[key][0]
        else:
            known[key] = [tensor.name]
            kept_constants.append(tensor)
    kept = list[onnx.NodeProto]()
    for node in nodes:
        node.input[:] = [same.get(name, name) for name in node.input]
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        key = "\n".join([node.domain, node.op_type, *node.input]).encode() + b"\0".join(attributes)
        if key in known:
            same |= dict(zip(node.output, known[key], strict=True))
        else:
            known[key] = list(node.output)
            kept.append(node)
    return kept, kept_constants


def needed_nodes(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on, in their order."""
    wanted, kept = set(outputs), list[onnx.NodeProto]()
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def common_facts(paths: Sequence[Path], members: Sequence[ClassifierFacts]) -> ClassifierFacts:
    """The facts of the ensemble: those of the first member, and in the provenance who the others are.

    Errors: members that answer for other species, or take other sound, are refused in one line.
    """
    first = members[0]
    for path, other in zip(paths[1:], members[1:], strict=True):
        assert other.taxonomy == first.taxonomy, (
            f"{path} knows other species than {paths[0]}; train all members on the same table of recordings"
        )
    audio = common_audio(paths, [facts.audio for facts in members])
    named = zip(paths, members, strict=True)
    helpers = [one for path, facts in named for one in handed_on(facts.provenance, path.name, sha256(path))]
    teachers = {str(sorted(one.items())): one for one in helpers}
    every: list[dict[str, object]] = [
        facts.provenance | {"sha256": sha256(path), "network": network_facts(facts)}
        for path, facts in zip(paths, members, strict=True)
    ]
    provenance: dict[str, object] = {"members": every}
    if limits := [alarms for facts in members if (alarms := alarms_of(facts.provenance))]:
        provenance["alarms_per_hour"] = min(limits)
    if teachers:
        provenance["teachers"] = list(teachers.values())
    if licences := dict.fromkeys(str(one) for facts in members if (one := facts.provenance.get("license"))):
        provenance["license"] = ", ".join(licences)
    thresholds = mean_thresholds([facts.thresholds for facts in members])
    return replace(first, audio=audio, provenance=provenance, thresholds=thresholds)


def mean_thresholds(members: Sequence[Thresholds]) -> Thresholds:
    """Thresholds for an ensemble whose members have no held-out recording in common: the mean, as logits, of those that
    were fitted for each of them; precise where all are, and as sure as the least sure."""
    if not all(member.species for member in members):
        return Thresholds()
    species = tuple(mean_threshold(same) for same in zip(*(member.species for member in members), strict=True))
    common = set[str].intersection(*(set(member.ranks) for member in members))
    return Thresholds(
        species, {rank: mean_limit([member.ranks[rank] for member in members]) for rank in sorted(common)}
    )


def mean_threshold(members: Sequence[Threshold]) -> Threshold:
    """The same of one species; its recordings are those of all members."""
    best = mean_limit([one.best_f1 for one in members])
    precise = [one.precise for one in members if one.precise is not None]
    every = len(precise) == len(members)
    unsure = max(members, key=lambda one: (one.precise is None, -one.precision_low))
    return Threshold(
        unsure.label,
        best_f1=best,
        f1=min(one.f1 for one in members),
        precise=mean_limit(precise) if every else None,
        precision_low=min(one.precision_low for one in members),
        recall=min(one.recall for one in members),
        positives=sum(one.positives for one in members),
        negatives=sum(one.negatives for one in members),
        note=unsure.note,
        precision_high=max(one.precision_high for one in members),
        wanted=unsure.wanted,
        least=max(one.least for one in members),
    )


def mean_limit(limits: Sequence[float]) -> float:
    """The probability whose logit is the mean, as thresholds are written."""
    return round(float(mean_as_logits(np.array(limits))), 6)


def blend_members(
    members: NDArray[np.float32],
    held_out: ComparedWindows,
    unheard: OutOfFold,
    facts: ClassifierFacts,
    settings: BlendSettings,
) -> tuple[Blend, ClassifierFacts, str]:
    """How members are blended; the facts with the thresholds of that; and, in a line, what it is worth.

    Members that are folds of one network have one weight together, and of each recording those answer that did not hear
    it: one of each network. Where all are folds of one there is no weight to fit, and thresholds stay those of the
    members; so they do where no recording can judge.
    No threshold is lower than the members' floor, for that may be of noise which no table names; nor than what the
    blend needs in held-out windows without any species.
    members   (members, windows of all contexts, species) probabilities
    held_out  windows of `unheard.rows`, or noise
    facts     of `common_facts`
    """
    if not len(unheard.rows) or not len(held_out.truth):
        blend = equal_blend(settings.of, len(members))
        return blend, facts, f"blend of {settings.of}, equal weights; not judged"
    owner, truth = held_out.owner, held_out.truth
    answering = unheard.member[held_out.listed][owner]  # (windows, groups)
    windows = members[answering.T, held_out.rows]  # (groups, windows, species)
    sure = judged_entries(truth, facts.taxonomy)
    several = len(windows) > 1
    blend, worth = fit_blend(
        settings.of, windows, owner, truth, held_out.groups, sure, several and settings.weights == "fitted"
    )
    if not several:
        line = f"cmAP on {len(truth)} recordings, each answered by a member that did not hear it: {worth.equal:.3f}"
        return among_folds(blend, unheard.group), facts, f"{line}; equal weights"
    times, scores = np.zeros(len(owner)), blended(blend, windows)
    highest = loudest_windows(WindowScores(owner, times, times, scores, scores[:, :0]), len(truth))
    empty, alarms, floor = scores[~truth[owner].any(axis=1)], alarms_of(facts.provenance), facts.thresholds.floor
    hours = len(empty) * facts.audio.window_seconds / 3600
    calibration = calibrate_highest(highest, truth, facts.taxonomy, alarms, empty, hours, floor)
    cooled = replace(blend, scale=blend.scale / calibration.temperature, bias=blend.bias / calibration.temperature)
    alone, weights = (" ".join(f"{value:.3f}" for value in values) for values in (worth.members, blend.weights))
    line = f"cmAP on {len(truth)} recordings held out of all: members {alone}; equal weights {worth.equal:.3f}"
    if unheard.has_folds:
        line = f"cmAP on {len(truth)} recordings, each answered by the members that did not hear it: networks {alone}; "
        line += f"equal weights {worth.equal:.3f}"
    if settings.weights == "fitted":
        line += f", fitted {worth.fitted:.3f} on groups that they were not fitted on"
    line += f"; kept: {weights}"
    if calibration.floor:
        line += f"; no threshold below {calibration.floor:.3f}"
    return among_folds(cooled, unheard.group), replace(facts, thresholds=calibration.thresholds), line


def alarms_of(provenance: Mapping[str, object]) -> float:
    """False alarms an hour that thresholds were fitted for; 0: no limit, or an earlier version that does not say."""
    stored = provenance.get("alarms_per_hour")
    return float(stored) if isinstance(stored, float | int) else 0.0


def joined_recipes(
    recipes: Sequence[Recipe], costs: Sequence[Sequence[ProductCost]]
) -> tuple[Recipe, list[ProductCost]]:
    """What became of the products of several encoders, whose layers count on from one to the next; those of a network
    for pictures, which have no costs, keep their names behind the number of their encoder."""
    spared, eight, every, offset = dict[str, str](), list[str](), list[ProductCost](), 0
    for number, (recipe, own) in enumerate(zip(recipes, costs, strict=True), 1):
        names = {cost.name: moved_on(cost.name, offset) for cost in own}
        spared |= {names.get(name, f"encoder {number}: {name}"): why for name, why in recipe.spared.items()}
        eight += [names[name] for name in recipe.eight]
        every += [replace(cost, name=names[cost.name]) for cost in own]
        offset += 1 + max((int(name.split(".")[1]) for name in names), default=-1)
    return Recipe(spared, eight), every


def moved_on(name: str, offset: int) -> str:
    """layers.0.fc2 -> layers.4.fc2"""
    _, layer, product = name.split(".", 2)
    return f"layers.{int(layer) + offset}.{product}"


if __name__ == "__main__":
    import onnxruntime as ort

    rng = np.random.default_rng(0)
    front, sound = rng.normal(size=(8, 6)).astype(np.float32), rng.normal(size=(3, 8)).astype(np.float32)
    graphs = list[onnx.ModelProto]()
    for _ in range(2):
        parts = {"front": front, "head": rng.normal(size=(6, 2)).astype(np.float32)}
        steps = [("MatMul", ["waveforms", "front"], "features"), ("MatMul", ["features", "head"], "logits")]
        steps += [("Sigmoid", ["logits"], "probabilities"), ("Identity", ["features"], "embeddings")]
        made = [helper.make_node(kind, inputs, [name], name) for kind, inputs, name in steps]
        shapes: dict[str, list[str | int | None]] = {"waveforms": ["n", 8], "probabilities": ["n", 2]}
        shapes["embeddings"] = ["n", 6]
        ends = [helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
        weights = [numpy_helper.from_array(values, name) for name, values in parts.items()]
        graph = helper.make_graph(made, "member", ends[:1], ends[1:], weights)
        graphs.append(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    blend = equal_blend("probabilities", 2)
    one = joined_graph(graphs, blend)
    answers = [
        ort.InferenceSession(model.SerializeToString()).run(["probabilities"], {"waveforms": sound})[0]
        for model in (*graphs, one)
    ]
    products = sum(node.op_type == "MatMul" for node in one.graph.node)
    print(f"two members: {products} products of 4; largest difference {np.abs(answers[2] - answers[:2]).max():.2f}")
    assert products == 3, "the front end is computed once"
    assert np.allclose(answers[2], blended(blend, np.stack(answers[:2])), atol=1e-6)
