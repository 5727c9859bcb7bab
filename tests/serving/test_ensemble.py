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
from numpy.typing import NDArray
from scipy.special import expit, logit
from test_scorer import needs_openvino

from archive.licences import teachers_of
from archive.recordings import Recording, read_recordings, write_recordings
from config import AudioSettings, BlendOf, BlendSettings, GateSettings, HeadSettings, PictureSettings, QuantizeCommand
from evaluation.blending import Blend, blended, equal_blend, levels_of
from evaluation.calibration import Threshold, Thresholds
from evaluation.metrics import false_alarms_per_hour
from model import BirdClefClassifier, picture_encoder
from quantize import encoder_key, network_answers, quantize
from serving.comparison import ComparedWindows, OutOfFold, out_of_fold, read_windows
from serving.ensemble import (
    alarms_of,
    blend_members,
    common_facts,
    joined_graph,
    joined_recipes,
    load,
    mean_thresholds,
    needed_nodes,
    write_ensemble,
)
from serving.export import Recipe, front_end, write_openvino
from serving.scorer import METADATA, TOLERANCE, open_scorer, score
from serving.sensitivity import ProductCost
from taxonomy import Taxonomy
from training.checkpoint import ClassifierFacts, load_classifier, save_classifier

pytestmark = pytest.mark.usefixtures("undrawn")
BANDS = ((100.0, 3000.0), (500.0, 7000.0))
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
    low, high = (replace(facts, audio=replace(facts.audio, lowest_hz=hz, highest_hz=top)) for hz, top in BANDS)
    assert common_facts(paths, [low, high]).audio == replace(facts.audio, lowest_hz=100.0, highest_hz=7000.0)


def test_an_ensemble_says_which_networks_its_members_are_and_what_they_began_from(
    stages: Stages, tmp_path: Path
) -> None:
    facts = replace(load_classifier(stages.classifier)[1], provenance={"encoder": "random", "run": "a run"})
    kinds = [facts, replace(facts, picture=PictureSettings("cnn")), replace(facts, picture=PictureSettings("vit"))]
    common = common_facts([stages.classifier] * 3, kinds)
    write_ensemble([stages.float_model] * 2, tmp_path / "one.onnx", common, equal_blend("logits", 2), "float32", True)
    scorer = open_scorer(tmp_path / "one.onnx")
    assert scorer.encoder == f"ensemble of 3: {facts.words}, AudioCNN, AudioViT"
    assert {(one["encoder"], one["run"]) for one in scorer.provenance["members"]} == {("random", "a run")}
    assert len({str(one["network"]) for one in scorer.provenance["members"]}) == 3
    text = onnx.load(tmp_path / "one.onnx").metadata_props[0].value
    assert not {"size", "depth", "pool", "picture"} & json.loads(text).keys(), "it is no network of one size"


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


def test_the_licence_of_every_member_goes_on(stages: Stages) -> None:
    facts = load_classifier(stages.classifier)[1]
    free, other = (replace(facts, provenance={"license": name}) for name in ("CC0-1.0", "CC-BY-NC-4.0"))
    found = common_facts([stages.classifier] * 4, [facts, free, other, free]).provenance
    assert found["license"] == "CC0-1.0, CC-BY-NC-4.0"
    assert "license" not in common_facts([stages.classifier] * 2, [facts, facts]).provenance


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


def simulated(noise: int) -> tuple[np.ndarray, ComparedWindows]:
    """Two members' answers (2, windows, 5) to 300 recordings of a call, and to two long ones of so many windows without
    any, to which both answer too surely."""
    rng, truth = np.random.default_rng(0), np.zeros((302, 5), np.float32)
    truth[np.arange(300), np.arange(300) % 5] = 1
    owner = np.concatenate([np.arange(300), 300 + np.arange(noise) % 2])
    logits = rng.normal(-4, 1, (2, len(owner), 5)) + 8 * truth[owner]
    logits[:, 300:] += 3.0
    groups = np.arange(302).astype(np.str_)
    contexts = np.zeros((len(owner), 1), np.float32)
    held_out = ComparedWindows(contexts, np.arange(len(owner)), owner, truth, groups, np.arange(302))
    return expit(logits).astype(np.float32), held_out


def unheard_by(groups: tuple[int, ...], member: list[list[int]]) -> OutOfFold:
    """That of 302 recordings; `member`: of how many in turn, which member of each group answers."""
    rows = [Recording(Path(f"{number}.wav"), f"{number}.wav", ("a",)) for number in range(302)]
    return OutOfFold(groups, rows, np.resize(np.array(member), (302, len(member[0]))))


BOTH = unheard_by((0, 1), [[0, 1]])


def member_facts(provenance: dict[str, object], least: float = 0.0) -> ClassifierFacts:
    """Of a classifier of five species, none of whose thresholds is below `least`."""
    names = tuple("abcde")
    taxonomy = Taxonomy(names, names, names, tuple((*"kpcofg", name) for name in names), (7,) * 5)
    limits = tuple(Threshold(name, 0.5, 0.9, None, 0.8, 0.9, 40, 300, "", least=least) for name in names)
    return ClassifierFacts(
        "demo", AudioSettings(), HeadSettings(), taxonomy, provenance, Thresholds(limits, {"genus": max(least, 0.1)})
    )


def false_alarms(members: np.ndarray, held_out: ComparedWindows, facts: ClassifierFacts) -> float:
    """An hour, of the blend at its thresholds."""
    blend, found, _ = blend_members(members, held_out, BOTH, facts, BlendSettings(weights="equal"))
    empty = blended(blend, members)[300:]
    return false_alarms_per_hour(empty, found.thresholds.applied, len(empty) * 5 / 3600)


def test_a_judged_blend_keeps_to_the_false_alarms_that_its_members_were_fitted_for() -> None:
    members, held_out = simulated(noise=600)
    assert false_alarms(members, held_out, member_facts({"alarms_per_hour": 20.0})) <= 30
    assert false_alarms(members, held_out, member_facts({})) > 100  # control: what precision alone would have


def test_without_windows_of_nothing_no_threshold_of_a_blend_is_below_those_of_its_members() -> None:
    members, held_out = simulated(noise=0)
    for provenance in (
        {"alarms_per_hour": 20.0},
        {},
    ):  # of an earlier version nobody says how many they were fitted for
        quiet, free = (
            blend_members(
                members, held_out, BOTH, member_facts(dict(provenance), least), BlendSettings(weights="equal")
            )
            for least in (0.97, 0.0)
        )
        assert quiet[1].thresholds.applied.min() >= np.float32(0.97) and "no threshold below 0.970" in quiet[2]
        assert quiet[1].thresholds.ranks and min(quiet[1].thresholds.ranks.values()) >= 0.97
        assert free[1].thresholds.applied.min() < 0.9 and "no threshold below" not in free[2]  # control


def test_of_folds_those_answer_that_did_not_hear_a_recording_and_each_network_has_one_weight() -> None:
    """Two folds of a good network and two of a bad one: a fold that heard a recording knows it by heart, and would be
    taken for an expert."""
    (good, _), held_out = simulated(noise=0)
    rng, truth = np.random.default_rng(1), held_out.truth[held_out.owner]
    bad: NDArray[np.float64] = expit(np.asarray(rng.normal(-3, 1, good.shape), np.float64))
    by_heart = np.where(truth > 0, 1 - 1e-6, 1e-6)
    even = held_out.owner[:, None] % 2 == 0
    members = np.stack([np.where(even, good, by_heart), np.where(even, by_heart, good)])
    members = np.concatenate([members, [np.where(even, bad, by_heart), np.where(even, by_heart, bad)]])
    unheard = unheard_by((0, 0, 1, 1), [[0, 2], [1, 3]])
    facts = member_facts({})
    blend, found, line = blend_members(members.astype(np.float32), held_out, unheard, facts, BlendSettings())
    first, second, third, fourth = blend.weights
    assert first == second > 0.4 > 0.1 > third == fourth and sum(blend.weights) == pytest.approx(1)
    assert (
        "each answered by the members that did not hear it: networks" in line and found.thresholds != facts.thresholds
    )
    pair = np.stack([good, bad]).astype(np.float32)
    alone, _, told = blend_members(pair, held_out, BOTH, facts, BlendSettings())
    assert alone.weights == pytest.approx((2 * first, 2 * third)) and alone.scale == blend.scale
    assert line.split("networks ")[1] == told.split("members ")[1], "both are judged by the same answers"
    heard = unheard_by((0, 0, 1, 1), [[1, 3], [0, 2]])  # negative control: as if the others had been asked
    assert (
        "networks 1.000 1.000" in blend_members(members.astype(np.float32), held_out, heard, facts, BlendSettings())[2]
    )


def test_folds_of_one_network_have_equal_weights_and_keep_their_thresholds() -> None:
    members, held_out = simulated(noise=0)
    facts, unheard = member_facts({}), unheard_by((0, 0), [[0], [1]])
    blend, found, line = blend_members(members, held_out, unheard, facts, BlendSettings())
    assert blend.weights == (0.5, 0.5) and blend.scale == 1 and found == facts
    assert line.startswith("cmAP on 302 recordings, each answered by a member that did not hear it: ")


def test_which_member_answers_is_told_by_the_tables_beside_them(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.wav").touch()
    rows = [Recording(tmp_path / f"{number}.wav", f"{number}.wav", ("a",)) for number in range(5)]

    def member(name: str, *held_out: int) -> Path:
        (tmp_path / name).mkdir()
        write_recordings(tmp_path / name / "held_out_recordings.csv", [rows[number] for number in held_out])
        return tmp_path / name / "classifier.safetensors"

    whisper = [member("w0", 0, 1), member("w1", 2, 3)]
    seeds = [member("s0", 0, 1), member("s1", 2, 3)]
    others = [member("c0", 1, 2), member("c1", 3, 4)]
    kinds = ["whisper"] * 4 + ["cnn"] * 2
    found = out_of_fold([whisper[0], seeds[0], whisper[1], seeds[1], *others], kinds)
    assert found.group == (0, 1, 0, 1, 2, 2) and found.has_folds
    names = [row.path.stem for row in found.rows]
    assert dict(zip(names, found.member.tolist(), strict=True)) == {"1": [0, 1, 4], "2": [2, 3, 4], "3": [2, 3, 5]}
    plain = out_of_fold([whisper[0], others[0]], ["whisper", "cnn"])  # of one fold each: what was held out of both
    assert plain.group == (0, 1) and not plain.has_folds and [row.path.stem for row in plain.rows] == ["1"]
    assert plain.member.tolist() == [[0, 1]]
    apart = out_of_fold([whisper[0], others[1]], ["whisper", "cnn"])
    assert not apart.rows and apart.member.shape == (0, 2)
    (tmp_path / "none").mkdir()
    nobody = out_of_fold([whisper[0], tmp_path / "none" / "classifier.safetensors"], ["whisper", "whisper"])
    assert nobody.group == (0, 1) and not nobody.rows, "without a table nobody knows what it has heard"


def test_an_ensemble_is_fitted_for_the_fewest_false_alarms_that_a_member_was(stages: Stages) -> None:
    paths = [stages.classifier] * 3
    every = [member_facts({"alarms_per_hour": alarms}, least) for alarms, least in ((30.0, 0.6), (20.0, 0.4), (0.0, 0))]
    common = common_facts(paths, every)
    assert alarms_of(common.provenance) == 20 and common.thresholds.floor == 0.6
    assert alarms_of(common_facts(paths, [member_facts({})] * 3).provenance) == 0
    assert alarms_of({"alarms_per_hour": 20}) == 20 and alarms_of({"alarms_per_hour": "20"}) == 0


def test_products_of_several_encoders_are_counted_on_and_those_of_a_network_for_pictures_named() -> None:
    costs = [[ProductCost(f"layers.{layer}.fc2", 0.1, 0.05, 1.0, False) for layer in range(2)], []]
    recipes = [Recipe({"layers.1.fc2": "costly"}, ["layers.0.fc2"]), Recipe({"node_conv2d": "no constants"})]
    joined, every = joined_recipes([*recipes, recipes[0]], [*costs, costs[0]])
    assert [cost.name for cost in every] == [f"layers.{layer}.fc2" for layer in range(4)]
    assert joined.spared == {
        "layers.1.fc2": "costly",
        "encoder 2: node_conv2d": "no constants",
        "layers.3.fc2": "costly",
    }
    assert joined.eight == ["layers.0.fc2", "layers.2.fc2"]


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
    facts = json.loads(
        {entry.key: entry.value for entry in onnx.load(folder / "classifier.int8.onnx").metadata_props}[METADATA]
    )
    alone = json.loads(stages.model.with_name("quantize.json").read_text())
    assert facts["int8"]["products"] == len(card["products"]) == len(alone["products"]) >= kinds[0]
    assert card["encoder"] == scorer.encoder == f"ensemble of 2: 2 x {alone['encoder']}" and "size" not in card
    assert (folder / "quantize.png").is_file()
    if config.export == "openvino":
        assert card["openvino"]["file"] == "classifier.xml" and "classifier.xml and classifier.bin: at most" in out
        assert card["openvino"]["largest_difference"] <= TOLERANCE[card["openvino"]["engine"]]
        theirs = open_scorer(folder / "classifier.xml")
        assert theirs.provenance == scorer.provenance and theirs.precision == "float32"


@pytest.mark.usefixtures("unmeasured")
def test_folds_of_one_network_become_one_file_that_is_unverified_and_ranks_are_refused(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = other_member(stages, tmp_path / "other", encoder=True)
    tables = [stages.classifier.with_name(f"{kind}_recordings.csv") for kind in ("held_out", "training")]
    heard_by_one = read_recordings(tables[1])[:12]
    write_recordings(other.with_name("held_out_recordings.csv"), heard_by_one[:4])
    write_recordings(other.with_name("training_recordings.csv"), heard_by_one[4:])
    config = QuantizeCommand((stages.classifier, other), LENIENT, max_error=0.1)
    config = replace(config, run=replace(config.run, root=tmp_path))
    with pytest.raises(AssertionError, match="ranks needs two networks, and recordings that were held out of both"):
        quantize(replace(config, blend=BlendSettings("ranks")))
    assert quantize(config) == 0
    out, count = capsys.readouterr().out, len(read_recordings(tables[0])) + 4
    assert f"2 members, folds of 1 network; {count} recordings were held out of one fold of each" in out
    assert f"cmAP on {count} recordings, each answered by a member that did not hear it: " in out
    scorer = open_scorer(tmp_path / "quantize" / "classifier.int8.onnx")
    assert not scorer.verified
    mean = mean_thresholds([load_classifier(path)[1].thresholds for path in (stages.classifier, other)])
    assert [one.label for one in scorer.thresholds.species] == list(scorer.taxonomy.labels)
    assert np.array_equal(scorer.thresholds.applied, mean.applied)


def test_members_without_a_recording_that_can_judge_count_alike_and_keep_the_mean_of_their_thresholds() -> None:
    members, held_out = simulated(noise=0)
    facts, nobody = member_facts({}), OutOfFold((0, 1), [], np.zeros((0, 2), np.int64))
    blend, found, line = blend_members(members, held_out, nobody, facts, BlendSettings())
    assert (blend.weights, blend.scale) == ((0.5, 0.5), 1.0) and found == facts and "not judged" in line


def picture_member(stages: Stages, folder: Path, seed: int = 0, seconds: float = 5.0) -> Path:
    """An AudioCNN that nobody trained, for the stages' species and windows of so long, with the tables beside it."""
    facts = load_classifier(stages.classifier)[1]
    facts = replace(facts, audio=replace(facts.audio, window_seconds=seconds, context_seconds=seconds))
    picture, head = PictureSettings("cnn"), HeadSettings()
    torch.manual_seed(0)
    encoder = picture_encoder(picture, facts.audio)
    torch.manual_seed(seed)
    model = BirdClefClassifier(encoder, facts.audio, len(facts.taxonomy.labels), head)
    model.train()
    torch.manual_seed(0)
    model(0.1 * torch.randn(4, facts.audio.samples))  # the norms of batches have seen some
    torch.nn.init.normal_(model.head.score.weight, std=0.05, generator=torch.Generator().manual_seed(seed))
    folder.mkdir(exist_ok=True)
    save_classifier(
        folder / "classifier.safetensors", model.eval(), replace(facts, head=head, picture=picture, pool=1, depth=0)
    )
    for name in ("held_out_recordings.csv", "training_recordings.csv"):
        (folder / name).write_bytes(stages.classifier.with_name(name).read_bytes())
    return folder / "classifier.safetensors"


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
def test_whisper_and_a_network_for_pictures_become_one_file_that_answers_as_both_blended(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = (stages.classifier, picture_member(stages, tmp_path / "cnn"), picture_member(stages, tmp_path / "more", 1))
    config = QuantizeCommand(paths, GateSettings(allow_worse=True), max_error=0.1, max_windows=40)
    config = replace(config, run=replace(config.run, root=tmp_path), blend=BlendSettings("probabilities", "equal"))
    assert quantize(config) == 0
    folder, out = tmp_path / "quantize", capsys.readouterr().out
    card = json.loads((folder / "quantize.json").read_text())
    words = load_classifier(stages.classifier)[1].words
    files = [open_scorer(folder / name) for name in ("classifier.onnx", "classifier.int8.onnx")]
    assert {one.encoder for one in files} == {card["encoder"]} == {f"ensemble of 3: {words}, 2 x AudioCNN"}
    assert card["blend"] == "probabilities" and card["weights"] == [1 / 3] * 3 and "held out of all: members" in out
    # the blend by hand: the mean of probabilities, then the temperature that was fitted for it
    contexts = read_windows(paths[0].with_name("held_out_recordings.csv"), load_classifier(paths[0])[1], 40).contexts
    members = np.stack([network_answers(load_classifier(path)[0], contexts)[0] for path in paths])
    mean, found = (
        logit(part.astype(np.float64).clip(1e-6, 1 - 1e-6))
        for part in (members.mean(axis=0), score(files[0], contexts))
    )
    temperature = np.median(mean / found)
    assert np.allclose(expit(mean / temperature), expit(found), atol=1e-4) and np.ptp(expit(found)) > 1e-3
    assert np.abs(score(files[1], contexts) - score(files[0], contexts)).max() < 0.1
    # both heads of one network share it in INT8 too, and each picture of the sound is made once
    kinds = Counter(node.op_type for node in onnx.load(folder / "classifier.int8.onnx").graph.node)
    alone = Counter(node.op_type for node in load(folder / "classifier.onnx").graph.node)
    assert kinds["Conv"] == alone["Conv"]
    import onnxruntime as ort

    session = ort.InferenceSession(front_end(folder / "classifier.onnx"))
    shapes = {one.shape[1:] for one in session.run(None, {"waveforms": contexts[:1]})}
    assert len(session.get_outputs()) == 2 and len(shapes) == 2  # of Whisper's mel channels, and of the other's


def test_encoders_are_one_where_weights_tokens_and_front_end_are_the_same(stages: Stages) -> None:
    model, facts = load_classifier(stages.classifier)
    log, pcen = (
        BirdClefClassifier(model.whisper_encoder, replace(facts.audio, compression=kind), 3, facts.head)
        for kind in ("log", "pcen_trained")
    )
    same = encoder_key(model, facts)
    assert encoder_key(log, facts) == same  # another head, for other species
    assert encoder_key(model, replace(facts, pool=facts.pool + 1)) != same
    assert encoder_key(pcen, replace(facts, audio=replace(facts.audio, compression="pcen_trained"))) != same
    trained = encoder_key(pcen, facts)
    with torch.no_grad():
        next(pcen.log_mel.parameters()).add_(0.1)
    assert encoder_key(pcen, facts) != trained


def test_a_blend_needs_a_weight_for_each_member() -> None:
    with pytest.raises(AssertionError, match="weights"):
        blended(Blend("logits", (1.0,)), np.full((2, 1, 1), 0.5, np.float32))
