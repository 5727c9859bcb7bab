"""A file of another origin is opened with care, says what it takes and gives, and is asked one window at a time."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign_models import BARE, LONE, PERCH_2, write_foreign
from onnx import TensorProto, helper

from serving.foreign import EMBEDDINGS, check_length, model_digest, open_foreign, output_of


def test_what_a_file_takes_is_known_whatever_its_axes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for shape in (BARE, LONE, PERCH_2):
        file = open_foreign(write_foreign(tmp_path / "m.onnx", shape))
        assert file.samples == shape.samples and set(file.outputs) == {shape.scores, shape.embeddings}
        window = noise.normal(0, 0.1, shape.samples).astype(np.float32)
        (answer,) = file.ask(window, [shape.scores])
        assert answer.size == 4 and answer.dtype == np.float32
    assert open_foreign(write_foreign(tmp_path / "m.onnx", BARE, any_length=True)).samples == 0


def test_a_file_in_half_precision_is_given_what_it_takes(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMax", ["x"], ["loudest"], axes=[1])]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 100])
    found = helper.make_tensor_value_info("loudest", TensorProto.FLOAT16, ["batch", 1])
    graph = helper.make_graph(nodes, "loudness", [given], [found])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    (answer,) = open_foreign(tmp_path / "m.onnx").ask(np.linspace(0, 0.25, 100, dtype=np.float32), ["loudest"])
    assert answer.dtype == np.float32 and answer.item() == 0.25


def test_outputs_go_by_their_name_then_by_a_usual_one(tmp_path: Path) -> None:
    file = open_foreign(write_foreign(tmp_path / "m.onnx", PERCH_2))
    assert output_of(file, "", EMBEDDINGS, "--x") == "embedding" and output_of(file, "label", (), "--x") == "label"
    with pytest.raises(AssertionError, match=r"has no output 'z'; --x: one of \['embedding', 'label'\]"):
        output_of(file, "z", EMBEDDINGS, "--x")
    with pytest.raises(AssertionError, match="several outputs; add --x"):
        output_of(file, "", (), "--x")
    check_length(file, 32_000, 5.0, "the rate")
    with pytest.raises(
        AssertionError, match=r"takes 160000 samples at a time, 3\.33333 s at 48000 Hz, not 5 s.*the rate"
    ):
        check_length(file, 48_000, 5.0, "the rate")


def test_what_takes_no_waveforms_and_what_is_missing_or_damaged_is_refused_in_a_line(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "m.onnx", BARE)
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("latitude", TensorProto.FLOAT, [1]))
    onnx.save(model, tmp_path / "two.onnx")
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:999])
    for name, said in (("two.onnx", "not waveforms"), ("cut.onnx", "damaged"), ("gone.onnx", "no model at")):
        with pytest.raises(AssertionError, match=said) as refusal:
            open_foreign(tmp_path / name)
        assert "\n" not in str(refusal.value)
    open_foreign(path)  # negative control


def test_weights_beside_a_file_belong_to_its_digest(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "m.onnx", BARE)
    alone = model_digest(path)
    path.with_name("m.onnx.data").write_bytes(b"weights")
    assert model_digest(path) != alone
