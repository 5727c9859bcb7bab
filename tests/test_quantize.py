"""Stage 3: the served file equals the trained network, INT8 is really INT8, and a worse file is refused."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import Stages

from checkpoint import ClassifierFacts, load_classifier
from config import SIZES, AudioSettings, HeadSettings, Pooling, QuantizeCommand
from model import BirdClefClassifier, Encoder
from quantize import LINEAR_LAYERS, encoder_products, export, held_out_windows, network_scores, quantize, write_int8
from scorer import open_scorer, score

HERE = Path(__file__).parents[1]


def test_the_float_file_equals_the_trained_network(stages: Stages) -> None:
    model, facts = load_classifier(stages.classifier)
    names, windows = held_out_windows(stages.classifier, facts.audio, 40)
    assert len(names) == len(windows) == 40
    served = score(open_scorer(stages.float_model), windows)
    np.testing.assert_allclose(served, network_scores(model, windows), atol=1e-4)


def test_any_number_of_windows_at_a_time_gives_the_same_float_scores(stages: Stages) -> None:
    session = open_scorer(stages.float_model).session
    windows = np.random.default_rng(0).normal(0, 0.1, (3, 80_000)).astype(np.float32)
    together = session.run(None, {"waveforms": windows})[0]
    alone = np.concatenate([session.run(None, {"waveforms": window[None]})[0] for window in windows])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_every_linear_layer_of_the_encoder_is_int8_and_nothing_else(stages: Stages) -> None:
    plain = Counter(node.op_type for node in onnx.load(stages.float_model).graph.node)
    int8 = Counter(node.op_type for node in onnx.load(stages.model).graph.node)
    layers = SIZES["demo"].layers
    assert int8["MatMulInteger"] == LINEAR_LAYERS * layers
    assert int8["MatMul"] == plain["MatMul"] - LINEAR_LAYERS * layers  # front end, attention products, head
    assert int8["Conv"] == plain["Conv"] == 2 and int8["ConvInteger"] == 0


def test_the_mel_filters_are_never_quantised(stages: Stages) -> None:
    graph = onnx.load(stages.float_model)
    chosen = set(encoder_products(graph))
    front_end = {n.name for n in graph.graph.node if any("model.log_mel" in e.value for e in n.metadata_props)}
    products = {n.name for n in graph.graph.node if n.op_type == "MatMul"}
    assert len(front_end & products) == 3 and not chosen & front_end


def test_no_path_of_the_machine_that_trained_travels_in_the_file(stages: Stages) -> None:
    for path in (stages.float_model, stages.model):
        assert str(HERE).encode() not in path.read_bytes()


def test_weights_are_scaled_per_channel(stages: Stages) -> None:
    scales = [t for t in onnx.load(stages.model).graph.initializer if t.name.endswith("_scale")]
    assert scales and all(list(scale.dims) in ([96], [384]) for scale in scales)


def test_the_int8_file_is_smaller_and_agrees(stages: Stages) -> None:
    card = json.loads((stages.model.parent / "quantize.json").read_text())
    assert card["verified"] and card["float32"]["top1_agreement"] == 1.0
    assert card["int8"]["top1_agreement"] >= 0.9 and card["int8"]["largest_difference"] < 0.1
    linear_bytes = 4 * SIZES["demo"].layers * 12 * SIZES["demo"].width ** 2
    assert stages.float_model.stat().st_size - stages.model.stat().st_size > 0.7 * linear_bytes


def test_facts_travel_into_both_files(stages: Stages) -> None:
    _, facts = load_classifier(stages.classifier)
    for path, precision in ((stages.float_model, "float32"), (stages.model, "int8")):
        scorer = open_scorer(path)
        assert scorer.taxonomy == facts.taxonomy and scorer.audio == facts.audio
        assert scorer.precision == precision and scorer.verified


def test_an_int8_file_that_disagrees_is_refused_and_the_float_file_kept(stages: Stages, tmp_path: Path) -> None:
    config = QuantizeCommand("demo", stages.classifier, min_agreement=1.01)
    with pytest.raises(AssertionError, match="INT8 names another best species"):
        quantize(replace(config, run=replace(config.run, root=tmp_path)))
    run = tmp_path / "quantize-001"
    assert (run / "classifier.onnx").is_file() and not (run / "classifier.int8.onnx").exists()
    assert json.loads((run / "run.json").read_text())["status"] == "failed" and not (tmp_path / "quantize").exists()


def test_a_silent_failure_to_quantise_is_noticed(tmp_path: Path, stages: Stages) -> None:
    """The quantiser skips what it is not told about; a graph without scopes must not pass as INT8."""
    _, facts = load_classifier(stages.classifier)
    graph = onnx.load(stages.float_model)
    for node in graph.graph.node:
        del node.metadata_props[:]
    onnx.save(graph, tmp_path / "bare.onnx")
    with pytest.raises(AssertionError, match="of 18 matrix products were quantised"):
        write_int8(tmp_path / "bare.onnx", tmp_path / "int8.onnx", facts, verified=True)
    assert not (tmp_path / "int8.onnx").exists()


def test_without_held_out_recordings_the_files_say_unverified(stages: Stages, tmp_path: Path) -> None:
    model, facts = load_classifier(stages.classifier)
    lonely = tmp_path / "classifier.safetensors"
    lonely.write_bytes(stages.classifier.read_bytes())
    assert held_out_windows(lonely, facts.audio, 10)[0] == []
    export(model, facts, tmp_path / "m.onnx", verified=False)
    assert not open_scorer(tmp_path / "m.onnx").verified


def test_a_network_too_large_for_one_file_is_refused_before_any_work(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, facts = load_classifier(stages.classifier)
    monkeypatch.setattr("quantize.LARGEST_FILE", 1e6)
    with pytest.raises(AssertionError, match="more than an ONNX file can hold"):
        export(model, facts, tmp_path / "m.onnx", verified=False)


def test_held_out_windows_are_drawn_from_all_species_and_not_from_the_top_of_the_table(stages: Stages) -> None:
    with (stages.classifier.parent / "held_out_scores.csv").open(encoding="utf-8", newline="") as file:
        listed = list(dict.fromkeys(row["file"] for row in csv.DictReader(file)))
    names, windows = held_out_windows(stages.classifier, AudioSettings(), 8)
    assert len(names) == len(windows) == 8
    assert {Path(name).parent.name for name in names} != {Path(name).parent.name for name in listed[:8]}


def test_128_mel_bins_export_too(tmp_path: Path, stages: Stages) -> None:
    _, facts = load_classifier(stages.classifier)
    torch.manual_seed(0)
    wide = replace(SIZES["demo"], mels=128)
    model = BirdClefClassifier(Encoder(wide), AudioSettings(), len(facts.taxonomy.labels), HeadSettings("mean")).eval()
    export(
        model,
        ClassifierFacts("demo", AudioSettings(), HeadSettings("mean"), facts.taxonomy, {}),
        tmp_path / "m.onnx",
        False,
    )
    windows = np.random.default_rng(0).normal(0, 0.1, (2, 80_000)).astype(np.float32)
    served = score(open_scorer(tmp_path / "m.onnx"), windows)
    np.testing.assert_allclose(served, network_scores(model, windows), atol=1e-4)


@pytest.mark.parametrize("pooling", ["prototype", "attention"])
def test_every_kind_of_head_and_a_longer_context_is_served_as_it_was_trained(
    pooling: Pooling, tmp_path: Path, stages: Stages
) -> None:
    _, facts = load_classifier(stages.classifier)
    torch.manual_seed(0)
    audio = AudioSettings(context_seconds=10.0)
    head = HeadSettings(pooling, layers=2, hidden=24, prototypes=3, statistics=True)
    model = BirdClefClassifier(Encoder(SIZES["demo"]), audio, len(facts.taxonomy.labels), head)
    model.train()(0.1 * torch.randn(4, 160_000))  # statistics that are not those of a new model
    model.eval().temperature.fill_(1.7)
    about = replace(facts, audio=audio, head=head)
    export(model, about, tmp_path / "m.onnx", False)
    windows = np.random.default_rng(0).normal(0, 0.1, (3, 160_000)).astype(np.float32)
    opened = open_scorer(tmp_path / "m.onnx")
    served = score(opened, windows)
    assert served.shape == (6, len(facts.taxonomy.labels)) and opened.windows == 2
    np.testing.assert_allclose(served, network_scores(model, windows), atol=1e-4)
    assert opened.thresholds == facts.thresholds and opened.rank_thresholds == facts.rank_thresholds
    with torch.inference_mode():
        _, embeddings = model.answers(torch.from_numpy(windows[:1]))
    given = opened.session.run(["embeddings"], {"waveforms": windows[:1]})[0]
    np.testing.assert_allclose(given, embeddings.numpy(), atol=1e-4)
