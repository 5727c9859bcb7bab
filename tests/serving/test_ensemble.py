"""Ensembles in one file: it answers as its members blended, shares what they share, and foreign members are refused."""

import json
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import ExportOnce, Stages
from test_scorer import needs_openvino

from archive.licences import teachers_of
from archive.recordings import read_recordings, write_recordings
from config import BlendOf, BlendSettings, GateSettings, QuantizeCommand
from evaluation.blending import Blend, blended, equal_blend, levels_of
from evaluation.calibration import Threshold, Thresholds
from quantize import quantize
from serving.ensemble import common_facts, joined_graph, load, mean_thresholds, needed_nodes, write_ensemble
from serving.export import write_openvino
from serving.scorer import TOLERANCE, open_scorer, score
from training.checkpoint import load_classifier, save_classifier

LENIENT = GateSettings(min_agreement=0.9)


def other_member(stages: Stages, folder: Path, encoder: bool = False) -> Path:
    """The stages' classifier with another head (`encoder`: another encoder too), and the tables beside it."""
    model, facts = load_classifier(stages.classifier)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        layers = model.whisper_encoder.whisper.layers.parameters() if encoder else ()
        for parameter in (*model.head.parameters(), *layers):
            parameter.mul_(1 + 0.2 * torch.rand(parameter.shape, generator=generator))
    folder.mkdir(exist_ok=True)
    save_classifier(folder / "classifier.safetensors", model, facts)
    for name in ("held_out_recordings.csv", "training_recordings.csv"):
        (folder / name).write_bytes(stages.classifier.with_name(name).read_bytes())
    return folder / "classifier.safetensors"


def contexts_of(path: Path) -> np.ndarray:
    audio = open_scorer(path).audio
    samples = round(audio.context_seconds * audio.sample_rate)
    return np.random.default_rng(0).normal(0, 0.1, (3, samples)).astype(np.float32)


@pytest.fixture(scope="module")
def pair(stages: Stages, export_once: ExportOnce, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The float32 files of the stages' classifier and of another one with the same encoder."""
    folder = tmp_path_factory.mktemp("pair")
    model, facts = load_classifier(other_member(stages, folder))
    export_once(model, facts, folder / "other.onnx", True)
    return stages.float_model, folder / "other.onnx"


@pytest.mark.parametrize("of", ["logits", "probabilities", "ranks"])
def test_one_file_answers_as_its_members_blended(
    pair: tuple[Path, Path], stages: Stages, tmp_path: Path, of: BlendOf
) -> None:
    contexts = contexts_of(pair[0])
    members = np.stack([score(open_scorer(path), contexts) for path in pair])
    blend = replace(equal_blend(of, 2), weights=(0.3, 0.7), scale=1.5, bias=-0.2)
    if of == "ranks":
        wide = np.random.default_rng(0).normal(0, 3, (2, 100, members.shape[2]))
        blend = replace(blend, levels=levels_of(wide))
    facts = load_classifier(stages.classifier)[1]
    write_ensemble(pair, tmp_path / "one.onnx", facts, blend, "float32", True)
    answers = score(open_scorer(tmp_path / "one.onnx"), contexts)
    assert np.abs(answers - blended(blend, members)).max() < 1e-5
    assert np.abs(answers - members[0]).max() > 1e-3  # control: the other one counts


@needs_openvino
def test_openvino_has_the_same_answers_of_one_whisper_and_of_a_blend_of_ranks(
    pair: tuple[Path, Path], stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.scorer.limit_process", lambda: None)
    levels = levels_of(np.random.default_rng(0).normal(0, 3, (2, 100, len(open_scorer(pair[0]).taxonomy.labels))))
    blend = replace(equal_blend("ranks", 2), levels=levels)
    write_ensemble(pair, tmp_path / "both.onnx", load_classifier(stages.classifier)[1], blend, "float32", True)
    answers = list[np.ndarray]()
    for number, path in enumerate((pair[0], tmp_path / "both.onnx")):
        write_openvino(path, tmp_path / f"{number}.xml")
        ours, theirs = open_scorer(path), open_scorer(tmp_path / f"{number}.xml")
        answers += [score(ours, contexts_of(path)), score(theirs, contexts_of(path))]
        assert np.abs(answers[-1] - answers[-2]).max() <= TOLERANCE[theirs.engine]
        assert theirs.thresholds == ours.thresholds and theirs.provenance == ours.provenance
    assert np.abs(answers[0] - answers[2]).max() > 0.01  # control: they are two networks


def test_what_members_share_is_there_once(pair: tuple[Path, Path]) -> None:
    one = load(pair[0])
    both = joined_graph([one, load(pair[1])], equal_blend("logits", 2))
    before, after = (Counter(node.op_type for node in model.graph.node) for model in (one, both))
    assert after["Conv"] == before["Conv"] and after["Softmax"] == before["Softmax"]  # one encoder for two heads
    assert sum(after.values()) < 1.3 * sum(before.values())
    twice = joined_graph([one, one], equal_blend("logits", 2))
    assert len(twice.graph.node) < len(both.graph.node)  # control: heads that are the same are there once too


def test_nodes_that_nobody_needs_are_left_out() -> None:
    made = [onnx.helper.make_node("Relu", [given], [out]) for given, out in (("a", "b"), ("b", "c"), ("b", "d"))]
    assert [node.output[0] for node in needed_nodes(made, ["c"])] == ["b", "c"]


def test_members_of_other_species_or_other_sound_are_refused(stages: Stages) -> None:
    facts = load_classifier(stages.classifier)[1]
    paths = [stages.classifier, stages.classifier]
    with pytest.raises(AssertionError, match=r"takes sound with context_seconds 10\.0"):
        common_facts(paths, [facts, replace(facts, audio=replace(facts.audio, context_seconds=10.0))])
    fewer = replace(facts.taxonomy, common_names=tuple(f"a {name}" for name in facts.taxonomy.common_names))
    with pytest.raises(AssertionError, match="knows other species"):
        common_facts(paths, [facts, replace(facts, taxonomy=fewer)])
    every = common_facts(paths, [facts, facts]).provenance["members"]
    assert isinstance(every, list) and len(every) == 2  # pyright: ignore[reportUnknownArgumentType] - control


def test_the_licence_of_every_members_teacher_goes_on(stages: Stages) -> None:
    facts = load_classifier(stages.classifier)[1]
    taught = replace(facts, provenance={"teachers": [{"name": "T", "license": "CC BY-NC 4.0"}]})
    paths = [stages.classifier] * 3
    assert common_facts(paths, [facts, taught, taught]).provenance["teachers"] == taught.provenance["teachers"]
    assert "teachers" not in common_facts(paths, [facts, facts, facts]).provenance
    published = replace(facts, provenance={"license": "cc-by-nc-4.0"})
    (member,) = teachers_of(common_facts(paths, [facts, published, published]).provenance)
    assert (member["name"], member["license"]) == (stages.classifier.name, "cc-by-nc-4.0")
    assert len(member["sha256"]) == 64


def test_thresholds_of_members_without_common_recordings_are_the_mean_as_logits() -> None:
    low = Threshold("tit", 0.2, 0.8, 0.1, 0.85, 0.7, 20, 80, "", 0.95)
    high = Threshold("tit", 0.8, 0.6, 0.9, 0.9, 0.5, 30, 90, "", 0.99)
    found = mean_thresholds([Thresholds((low,), {"genus": 0.2, "order": 0.5}), Thresholds((high,), {"genus": 0.8})])
    one = found.species[0]
    assert one.best_f1 == pytest.approx(0.5) and one.precise == pytest.approx(0.5) and found.ranks == {"genus": 0.5}
    assert (one.positives, one.negatives, one.precision_low) == (50, 170, 0.85)
    unsure = replace(high, precise=None, note="never precise enough", least=0.6)
    alone = mean_thresholds([Thresholds((low,)), Thresholds((unsure,))]).species[0]
    assert alone.precise is None and alone.note == "never precise enough" and alone.applied == 0.6
    assert mean_thresholds([Thresholds(), Thresholds((low,))]).species == ()


@pytest.mark.usefixtures("unmeasured")
def test_several_classifiers_become_one_int8_file(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.scorer.limit_process", lambda: None)  # it would count for all tests of this process
    other = other_member(stages, tmp_path / "other")
    config = QuantizeCommand((stages.classifier, other), LENIENT, max_error=0.1)
    config = replace(config, export="openvino" if find_spec("openvino") else "onnx")
    assert quantize(replace(config, run=replace(config.run, root=tmp_path))) == 0
    folder, out = tmp_path / "quantize", capsys.readouterr().out
    card = json.loads((folder / "quantize.json").read_text())
    assert not any("torch" in name for name in card["speed"]), "an ensemble has no single network"
    assert "held out of all: members" in out and len(card["weights"]) == 2 and card["blend"] == "logits"
    scorer = open_scorer(folder / "classifier.int8.onnx")
    assert scorer.verified and len(scorer.provenance["members"]) == 2 and scorer.thresholds.species
    graph = onnx.load(folder / "classifier.int8.onnx").graph
    one = onnx.load(stages.model).graph
    kinds = [Counter(node.op_type for node in part.node)["MatMulInteger"] for part in (graph, one)]
    assert kinds[0] == kinds[1]  # the same frozen encoder: the same recipe, computed once
    assert (folder / "quantize.png").is_file()
    if config.export == "openvino":
        assert card["openvino"]["file"] == "classifier.xml" and "classifier.xml and classifier.bin: at most" in out
        assert card["openvino"]["largest_difference"] <= TOLERANCE[card["openvino"]["engine"]]
        theirs = open_scorer(folder / "classifier.xml")
        assert theirs.provenance == scorer.provenance and theirs.precision == "float32"


@pytest.mark.usefixtures("unmeasured")
def test_members_without_common_held_out_recordings_are_not_judged_and_ranks_refused(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = other_member(stages, tmp_path / "other", encoder=True)
    tables = stages.classifier.with_name("training_recordings.csv"), other.with_name("held_out_recordings.csv")
    write_recordings(tables[1], read_recordings(tables[0])[:4])  # as of another fold
    config = QuantizeCommand((stages.classifier, other), LENIENT, max_error=0.1)
    config = replace(config, run=replace(config.run, root=tmp_path))
    with pytest.raises(AssertionError, match="ranks needs recordings that were held out of all"):
        quantize(replace(config, blend=BlendSettings("ranks")))
    assert quantize(config) == 0
    out = capsys.readouterr().out
    assert "nobody can say what the ensemble is worth" in out
    scorer = open_scorer(tmp_path / "quantize" / "classifier.int8.onnx")
    assert not scorer.verified
    mean = mean_thresholds([load_classifier(path)[1].thresholds for path in (stages.classifier, other)])
    assert [one.label for one in scorer.thresholds.species] == list(scorer.taxonomy.labels)
    assert np.array_equal(scorer.thresholds.applied, mean.applied)


def test_a_blend_needs_a_weight_for_each_member() -> None:
    with pytest.raises(AssertionError, match="weights"):
        blended(Blend("logits", (1.0,)), np.full((2, 1, 1), 0.5, np.float32))
