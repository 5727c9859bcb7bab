"""Graphs are let through when they only compute, with weights in their own file or the one beside it."""

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import base64
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from xml.parsers.expat import ExpatError

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import Stages
from onnx import helper, numpy_helper
from test_scorer import greedy, needs_openvino, toy

import system
from config import SIZES, AudioSettings, HeadSettings, Pooling
from runtime import guard
from runtime.guard import CONTRIBUTED, DEEPEST, FOREIGN, LAYERS, OPERATORS, check_graph, check_ir
from serving.scorer import KNOWN_GRAPHS, cpu_flags, known_product, open_scorer, score


def operators(path: Path) -> set[str]:
    """As the onnx package reads them."""
    return {f"{node.domain}.{node.op_type}" for node in onnx.load(path, load_external_data=False).graph.node}


def known(names: set[str]) -> bool:
    return names <= {f".{name}" for name in OPERATORS} | {f"com.microsoft.{name}" for name in CONTRIBUTED}


def test_our_own_files_are_let_through(stages: Stages) -> None:
    for path in (stages.float_model, stages.model):
        assert known(operators(path)) and len(operators(path)) > 10
        check_graph(path, None)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("more", [HeadSettings(), HeadSettings(layers=1)])
@pytest.mark.parametrize("audio", [AudioSettings(), AudioSettings(32_000, 5.0, 10.0)])
def test_every_head_at_every_rate_is_exported_with_operators_that_are_let_through(
    pooling: Pooling, more: HeadSettings, audio: AudioSettings, tmp_path: Path
) -> None:
    """Sizes differ in how often a layer is there, not in what it consists of."""
    from model import BirdClefClassifier, Encoder
    from serving.export import write_float, write_int8
    from taxonomy import Taxonomy
    from training.checkpoint import ClassifierFacts

    head = replace(more, pooling=pooling)
    kin = ("Animalia", "Chordata", "Aves", "Passeriformes", "Fictidae", "Ficta")
    names = Taxonomy(("a", "b"), ("a", "b"), ("a", "b"), ((*kin, "a"), (*kin, "b")), (7, 7))
    facts = ClassifierFacts("demo", audio, head, names, {})
    model = BirdClefClassifier(Encoder(SIZES["demo"], audio), audio, 2, head).eval()
    write_float(model, facts, tmp_path / "m.onnx", verified=False)
    write_int8(tmp_path / "m.onnx", tmp_path / "m.int8.onnx", facts, verified=False)
    for path in (tmp_path / "m.onnx", tmp_path / "m.int8.onnx"):
        check_graph(path, None)
        assert known(operators(path)), operators(path)


def test_nothing_that_loops_branches_or_calls_is_among_them() -> None:
    assert OPERATORS.isdisjoint({"Loop", "Scan", "If", "SequenceMap", "ConstantOfShape", "Range", "Tile", "Constant"})
    assert FOREIGN.isdisjoint({"Loop", "Scan", "If", "SequenceMap"}) and "LSTM" in FOREIGN - OPERATORS


def test_an_operator_is_seen_wherever_a_file_hides_it(tmp_path: Path) -> None:
    """A message may come in several parts, which protobuf joins: every one of them is looked at."""
    path = toy(tmp_path / "m.onnx", "Sigmoid")
    check_graph(path, None)
    second = onnx.ModelProto()
    second.graph.node.append(helper.make_node("Loop", ["x"], ["y"]))
    path.write_bytes(path.read_bytes() + second.SerializeToString())
    assert "Loop" in {node.op_type for node in onnx.load(path).graph.node}
    with pytest.raises(AssertionError, match="'Loop'"):
        check_graph(path, None)


def test_a_field_of_a_kind_that_protobuf_no_longer_has_is_refused(tmp_path: Path) -> None:
    path = toy(tmp_path / "m.onnx", "Sigmoid")
    for tail in (b"\x3b\x3c", b"\x07", b"\xff" * 11, b"\x3a\x7f", b"\x00\x00"):  # a group, no kind, too long, cut, 0
        broken = tmp_path / "n.onnx"
        broken.write_bytes(path.read_bytes() + tail)
        with pytest.raises(AssertionError, match="damaged or no ONNX"):
            check_graph(broken, None)


def test_weights_beside_a_file_are_read_where_they_are_its_own(tmp_path: Path) -> None:
    path = toy(tmp_path / "m.onnx", "Sigmoid")
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(4_000, np.float32), "spare"))
    onnx.save(model, path, save_as_external_data=True, location="m.onnx.data", size_threshold=100)
    assert (tmp_path / "m.onnx.data").stat().st_size >= 16_000
    check_graph(path, None)
    assert score(open_scorer(path), np.zeros((1, 80_000), np.float32)).tolist() == [[0.5]]
    os.link(tmp_path / "m.onnx.data", tmp_path / "another")
    with pytest.raises(AssertionError, match="is a link"):
        check_graph(path, None)


def network_of(*layers: str) -> str:
    """An .xml as OpenVINO writes it."""
    return f'<?xml version="1.0"?><net name="n" version="11"><layers>{"".join(layers)}</layers><edges/></net>'


RELU = '<layer id="0" name="r" type="ReLU" version="opset1"><data a="1"/></layer>'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('<!DOCTYPE net SYSTEM "http://127.0.0.1:9/a.dtd"><net/>', "declares a document type"),
        ('<!DOCTYPE n [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><net>&b;</net>', "declares a document type"),
        (network_of(RELU.replace('"ReLU"', '"TensorIterator"')), r"the layer 'opset1\.TensorIterator'"),
        (network_of(RELU.replace('"ReLU"', '"ReadValue"')), r"the layer 'opset1\.ReadValue'"),
        (network_of(RELU.replace("opset1", "extension")), r"the layer 'extension\.ReLU'"),
        (network_of(RELU.replace(' type="ReLU"', "")), r"the layer 'opset1\.'"),
        (network_of(RELU.replace("<data", "<body>" + RELU + "</body><data")), "the element 'body'"),
        (network_of("<data>" * DEEPEST, "</data>" * DEEPEST), "elements inside of each other"),
    ],
)
def test_an_ir_that_could_loop_call_or_read_what_lies_elsewhere_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    path, weights = tmp_path / "m.xml", tmp_path / "m.bin"
    weights.touch()
    path.write_text(network_of(RELU), encoding="utf-8")
    check_ir(path, weights)  # negative control
    path.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match=said) as refusal:
        check_ir(path, weights)
    assert "\n" not in str(refusal.value) and not {"Loop", "If", "TensorIterator", "ReadValue", "Assign"} & LAYERS


# what an operator takes beside x, of shape (1, 4, 4, 4), and its attributes
OTHERS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "Clip": ([0.0, 1.0], {}), "Concat": (["x"], {"axis": 1}), "Cast": ([], {"to": 7}), "Flatten": ([], {"axis": 1}),
    "Conv": ([np.ones((2, 4, 3, 3)), np.ones(2)], {}), "BatchNormalization": ([np.ones(4)] * 4, {}),
    "LayerNormalization": ([np.ones(4), np.ones(4)], {}), "Gather": ([[0]], {"axis": 0}), "Gemm": (["x", "x"], {}),
    "Split": ([], {"axis": 1, "num_outputs": 2}), "TopK": ([[2]], {}), "Transpose": ([], {"perm": [0, 2, 1, 3]}),
    "Pad": ([[0] * 8], {}), "Expand": ([[2, 4, 4, 4]], {}), "Reshape": ([[1, -1]], {}),
    "Slice": ([[0], [2], [1], [1]], {}), "Where": (["x", "x"], {}), "PRelu": ([np.ones((4, 1, 1))], {}),
    "InstanceNormalization": ([np.ones(4), np.ones(4)], {}), "Resize": (["", np.array([1.0, 1.0, 2.0, 2.0])], {}),
    **dict.fromkeys(("AveragePool", "MaxPool"), ([], {"kernel_shape": [2, 2]})),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), ([[0]], {})),
    **dict.fromkeys(("Add", "Div", "MatMul", "Max", "Min", "Mul", "Pow", "Sub"), (["x"], {})),
}  # fmt: skip
INTEGERS = {"DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QuantizeLinear"}  # of INT8 files


def one_operator(name: str, path: Path) -> Path:
    """A network of one operator."""
    others, attributes = OTHERS.get(name, ([[1]] if name.startswith("Reduce") else [], {}))
    given, constants = ["x"], list[onnx.TensorProto]()
    for number, value in enumerate(others):
        given.append(value if isinstance(value, str) else f"c{number}")
        if not isinstance(value, str):
            kind = np.int64 if isinstance(value, list) else np.float32
            constants.append(numpy_helper.from_array(np.asarray(value, kind), f"c{number}"))
    flat, true = [4, 4] if name == "Gemm" else [1, 4, 4, 4], numpy_helper.from_array(np.array(True), "true")
    if name == "Where":
        given[0], constants = "true", [true]
    nodes = [helper.make_node(name, given, ["y", "z"] if name in ("Split", "TopK") else ["y"], **attributes)]
    ends = [helper.make_tensor_value_info("x", 1, flat)], [onnx.ValueInfoProto(name="y")]
    graph = helper.make_graph(nodes, name, *ends, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@needs_openvino
def test_what_is_let_through_of_onnx_is_let_through_as_openvino_keeps_it(tmp_path: Path) -> None:
    """Ensembles, other encoders: whatever network our files may hold, its IR is not refused by our own guard."""
    from serving.export import write_openvino

    for name in sorted(OPERATORS - INTEGERS):
        write_openvino(one_operator(name, tmp_path / "m.onnx"), tmp_path / "m.xml")
        check_ir(tmp_path / "m.xml", tmp_path / "m.bin")
    write_openvino(one_operator("Ceil", tmp_path / "m.onnx"), tmp_path / "m.xml")  # negative control
    with pytest.raises(AssertionError, match=r"the layer 'opset1\.Ceiling'"):
        check_ir(tmp_path / "m.xml", tmp_path / "m.bin")


def test_an_ir_that_is_too_large_no_xml_or_without_weights_of_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, weights = tmp_path / "m.xml", tmp_path / "m.bin"
    path.write_text(network_of(RELU), encoding="utf-8")
    with pytest.raises(AssertionError, match=r"m\.bin with the weights of .* is missing"):
        check_ir(path, weights)
    (tmp_path / "elsewhere").touch()
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AssertionError, match=r"m\.bin is a link"):
        check_ir(path, weights)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ExpatError):
        check_ir(path, weights)
    monkeypatch.setattr(guard, "LARGEST_XML", 100)
    with pytest.raises(AssertionError, match="more than any network takes to describe"):
        check_ir(path, weights)


def test_memory_is_limited_for_every_session(tmp_path: Path) -> None:
    """And a graph that asks for more is refused in one line, in a process that goes on."""
    path = toy(tmp_path / "m.onnx", "Sigmoid")
    silence = np.zeros((1, 80_000), np.float32)
    with pytest.raises(AssertionError, match=r"cannot be run .*[Aa]vailable memory") as refusal:
        score(open_scorer(greedy(path)), silence)
    assert "\n" not in str(refusal.value)
    assert score(open_scorer(path), silence).tolist() == [[0.5]]


def test_facts_of_another_kind_are_refused_in_one_line(tmp_path: Path) -> None:
    for facts in ({"audio": {"sample_rate": "x"}}, {"rank_thresholds": {"genus": 2}}, {"format": "1"}):
        with pytest.raises(AssertionError) as refusal:
            open_scorer(toy(tmp_path / "m.onnx", "Sigmoid", facts=json.loads(json.dumps(facts))))
        assert "\n" not in str(refusal.value)


def test_a_name_that_is_no_text_is_refused_in_one_line(tmp_path: Path) -> None:
    """Found by test_fuzz.py: ONNX Runtime hands out such bytes as an error of decoding."""
    path = toy(tmp_path / "m.onnx", "Sigmoid")
    spoilt = path.read_bytes().replace(b"probabilities", b"probabilitie\x80")
    path.write_bytes(spoilt)
    with pytest.raises(AssertionError, match=r"cannot be run|damaged"):
        score(open_scorer(path), np.zeros((1, 80_000), np.float32))
    toy(path, "Sigmoid")
    path.write_bytes(path.read_bytes().replace(b"frog", b"fro\x80"))
    with pytest.raises(AssertionError, match="is damaged"):
        open_scorer(path)


def test_the_limit_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(system, "CGROUP", limit)
    limit.write_text("1000000\n")
    assert guard.most_memory() == 750_000


@pytest.mark.parametrize(
    ("values", "kind", "wide"),
    [
        ([-64, 64, 0], "int8", False),
        ([65], "int8", True),
        ([-65, 1], "int8", True),
        ([200, 1], "uint8", False),
        ([1e9], "float32", False),
        ([], "int8", False),
    ],
)
def test_weights_of_more_than_seven_bits_are_known_by_their_values(
    values: list[float], kind: str, wide: bool, tmp_path: Path
) -> None:
    tensor = numpy_helper.from_array(np.array([values], kind), "weights")
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [], [tensor])), path)
    assert guard.has_wide_weights(path) == wide
    assert not wide or not guard.has_wide_weights(narrowed(path, tensor))


def narrowed(path: Path, tensor: onnx.TensorProto) -> Path:
    """The same file with the largest weight that two products of still fit into 16 bits."""
    half = numpy_helper.from_array(np.clip(numpy_helper.to_array(tensor), -64, 64), "weights")
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [], [half])), path)
    return path


def test_weights_whose_values_cannot_be_seen_are_taken_for_wide_ones(tmp_path: Path) -> None:
    tensor = helper.make_tensor("weights", onnx.TensorProto.INT8, [2], [1, 2])  # in int32_data, not as bytes
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [], [tensor])), tmp_path / "m.onnx")
    assert guard.has_wide_weights(tmp_path / "m.onnx")


@pytest.mark.parametrize("levels", KNOWN_GRAPHS)
def test_a_session_for_the_weights_of_a_file_multiplies_them_exactly(levels: int, tmp_path: Path) -> None:
    path = tmp_path / "product.onnx"
    path.write_bytes(zlib.decompress(base64.b85decode(KNOWN_GRAPHS[levels])))
    assert guard.has_wide_weights(path) == (levels == 127)
    sounds, weights = known_product(levels)
    for exact, trusted in (
        (guard.has_wide_weights(path), True),
        (False, levels == 63 or "vnni" in " ".join(cpu_flags())),
    ):
        session = ort.InferenceSession(str(path), guard.bounded_options(exact), providers=["CPUExecutionProvider"])
        given = session.run(None, {"sound": sounds})[0]
        same = np.array_equal(given, sounds @ weights)
        assert same or not trusted
        assert not same or trusted or "avx2" not in cpu_flags(), "the control"
