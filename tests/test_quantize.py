"""Stage 3: the float file equals the trained network, what is worse than the gate allows is mended or refused."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import MOST_WINDOWS, Stages
from test_ensemble import picture_member
from test_scorer import absent

from config import SIZES, AudioSettings, BudgetSettings, EncoderSettings, GateSettings, QuantizeCommand, parse
from model import LogMel
from quantize import file_scores, network_answers, open_trained, quantize
from serving.comparison import ComparedWindows, read_windows, scanned_contexts
from serving.convolutions import FIRST
from serving.gate import compare_answers, enough_windows
from serving.scorer import answers_of, open_scorer, score
from training.checkpoint import load_classifier, load_encoder, save_classifier

pytestmark = pytest.mark.usefixtures("undrawn")


def test_an_encoder_without_labels_becomes_a_file_that_embeds_as_the_network_does(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--encoder", str(stages.encoder), "--run.root", str(tmp_path)]
    assert quantize(parse(QuantizeCommand, [*words, "--depth", "1"])) == 0
    path = tmp_path / "quantize" / "encoder.onnx"
    said = capsys.readouterr().out
    assert f"search.py index RECORDINGS --model {tmp_path}" in said and "8 values" not in said
    scorer, audio = open_scorer(path, threads=1), AudioSettings()
    assert not scorer.taxonomy.labels and scorer.audio == audio and scorer.provenance["encoder"] == str(stages.encoder)
    sound = np.random.default_rng(3).normal(0, 0.1, (2, audio.samples)).astype(np.float32)
    encoder = load_encoder(EncoderSettings("demo", str(stages.encoder)), audio).eval()
    with torch.inference_mode():
        states = encoder.layer_states(LogMel(audio, encoder.size.mels)(torch.from_numpy(sound)))
        pooled = [torch.nn.functional.layer_norm(state, state.shape[2:]).mean(dim=1).numpy() for state in states]
    found = np.concatenate([answer.embeddings for answer in answers_of(scorer, sound)])
    assert np.allclose(found, pooled[0], atol=1e-4) and found.shape == (2, encoder.size.width)
    assert not np.allclose(found, pooled[1], atol=1e-2)  # control: another layer is another vector


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--encoder", "nowhere"), "no encoder at nowhere"),
        (("--encoder", "a/b", "--max_windows", "3"), "--max_windows changes nothing with --encoder"),
        (("--encoder", "a/b", "--export", "openvino"), "--export changes nothing with --encoder"),
        (("--depth", "3"), "--depth changes nothing without --encoder"),
        (("--classifier", "a", "--blend.of", "ranks"), "--blend is for several --classifier; leave it out"),
    ],
)
def test_an_encoder_that_is_not_there_and_idle_flags_are_one_line(words: Sequence[str], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        quantize(parse(QuantizeCommand, list(words)))


def held_out_of(stages: Stages, most: int = 2000) -> ComparedWindows:
    table = stages.classifier.with_name("held_out_recordings.csv")
    return read_windows(table, load_classifier(stages.classifier)[1], most)


def test_the_float_file_equals_the_trained_network(stages: Stages) -> None:
    model, _ = load_classifier(stages.classifier)
    held_out = held_out_of(stages, 40)
    assert len(held_out.owner) >= 40 and held_out.truth.sum() >= len(held_out.truth) > 10
    served = file_scores(stages.float_model, held_out.contexts)
    np.testing.assert_allclose(served, network_answers(model, held_out.contexts)[0], atol=1e-4)


def test_the_card_says_what_was_done_and_what_it_costs(stages: Stages) -> None:
    card = json.loads((stages.model.parent / "quantize.json").read_text())
    assert card["verified"] and card["largest_float_difference"] < 1e-4 and card["kept_in_float32"] == {}
    assert len(card["products"]) == 18 and 0 < card["products"][0]["error"] < 0.1
    assert card["gate"] == "passed" and card["products_judged_on"] == "32 training contexts"
    assert card["int8"]["windows"] == len(held_out_of(stages).owner) >= enough_windows(0.9) == 29
    for name in ("top1_agreement", "macro_auc_drop", "cmap_drop"):
        assert card["int8"][f"{name}_low"] <= card["int8"][name] <= card["int8"][f"{name}_high"]
    for times in card["milliseconds_of_a_context_by_part"].values():
        assert times["attention"] > 0 and times["convolutions"] > 0 and sum(times.values()) < 1000
    assert card["milliseconds_of_a_context_by_part"]["float32"]["INT8 products"] == 0
    assert card["milliseconds_of_a_context_by_part"]["INT8"]["INT8 products"] > 0
    assert (stages.model.parent / "quantize.png").read_bytes()[:4] == b"\x89PNG"
    assert card["int8"]["top1_agreement"] >= 0.9 and card["int8"]["largest_difference"] < 0.1
    assert abs(card["int8"]["macro_auc_drop"]) < 0.01 and card["int8"]["worst_species"]
    assert {name.split(",")[0] for name in card["speed"]} >= {"torch float32", "ONNX float32", "ONNX INT8"}
    assert card["fits_budget"] and card["budget"].startswith("11.7 h of sound take ")
    linear_bytes = 4 * SIZES["demo"].layers * 12 * SIZES["demo"].width ** 2
    assert stages.float_model.stat().st_size - stages.model.stat().st_size > 0.7 * linear_bytes


def test_held_out_windows_are_drawn_from_all_species_and_not_from_the_top_of_the_table(stages: Stages) -> None:
    held_out = held_out_of(stages, 8)
    assert len({int(row.argmax()) for row in held_out.truth}) >= 4
    assert len(held_out_of(stages).truth) > len(held_out.truth)


@pytest.mark.usefixtures("unmeasured")
def test_an_int8_file_that_disagrees_is_refused_and_the_float_file_kept(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = QuantizeCommand((stages.classifier,), GateSettings(min_agreement=1.01), max_windows=MOST_WINDOWS)
    config = replace(config, run=replace(config.run, root=tmp_path))
    with pytest.raises(AssertionError, match=r"no INT8 file: another best species .*--gate\.allow_worse"):
        quantize(config)
    run = tmp_path / "quantize-001"
    assert (run / "classifier.onnx").is_file() and not (run / "classifier.int8.onnx").exists()
    assert json.loads((run / "run.json").read_text())["status"] == "failed" and not (tmp_path / "quantize").exists()
    assert json.loads((run / "quantize.json").read_text())["gate"] == "refused"
    windows = len(held_out_of(stages).owner)
    assert (
        "gate refused: same best species in " in (said := capsys.readouterr().out) and f" of {windows} windows" in said
    )


@pytest.mark.usefixtures("unmeasured")
def test_a_file_of_which_most_is_float32_is_not_called_int8_whatever_the_gate_allows(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = QuantizeCommand(
        (stages.classifier,), GateSettings(allow_worse=True), max_error=0.0, max_windows=MOST_WINDOWS
    )
    with pytest.raises(AssertionError, match="no INT8 file: 18 of its 18 products would be float32, so it is none"):
        quantize(replace(config, run=replace(config.run, root=tmp_path)))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("gate "))
    assert line.startswith("gate refused: ") and line.endswith(
        "; 18 of its 18 products would be float32, so it is none"
    )
    assert not (tmp_path / "quantize-001" / "classifier.int8.onnx").exists()
    assert len(json.loads((tmp_path / "quantize-001" / "quantize.json").read_text())["kept_in_float32"]) == 18


@pytest.mark.usefixtures("unmeasured")
def test_a_network_for_pictures_is_judged_and_measured_as_whisper_is(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = picture_member(stages, tmp_path / "cnn", seconds=1.0)
    config = QuantizeCommand(
        (path,), GateSettings(min_agreement=0.9, allow_worse=True), BudgetSettings(minutes=1.0), max_windows=40
    )
    assert quantize(replace(config, run=replace(config.run, root=tmp_path))) == 0
    card, out = json.loads((tmp_path / "quantize" / "quantize.json").read_text()), capsys.readouterr().out
    assert card["encoder"] == "AudioCNN" and card["picture"]["kind"] == "cnn"
    assert card["depth"] == 0 and card["products"] == [] and [*card["kept_in_float32"].values()] == [FIRST]
    assert card["verified"] and card["int8"]["largest_difference"] > 0 and card["gate"] in ("passed", "refused")
    assert not card["fits_budget"] and "AudioCNN does not fit; take a smaller network" in out
    assert card["largest_size_that_fits"] is None and (tmp_path / "quantize" / "quantize.png").is_file()
    floats, int8 = (open_scorer(tmp_path / "quantize" / name) for name in ("classifier.onnx", "classifier.int8.onnx"))
    assert floats.encoder == int8.encoder == "AudioCNN" and (floats.precision, int8.precision) == ("float32", "int8")
    held_out = read_windows(path.with_name("held_out_recordings.csv"), load_classifier(path)[1], 40)
    contexts, rows = held_out.contexts, held_out.rows
    reported = [score(one, contexts)[rows] >= one.thresholds.applied for one in (floats, int8)]
    assert np.array_equal(*(part.sum(axis=0) for part in reported)), "thresholds are moved for it as for any other"
    assert (floats.thresholds.differing(int8.thresholds) > 0) == (card["thresholds_moved"] > 0)


def spoiled(stages: Stages, tmp_path: Path) -> Path:
    """The same classifier, but for one channel in each layer that shouts: in INT8 the others lose their voice."""
    model, facts = load_classifier(stages.classifier)
    with torch.no_grad():
        for block in model.whisper_encoder.whisper.layers:
            block.get_parameter("fc1.weight")[3] *= 3000.0
            block.get_parameter("fc1.bias")[3] = 3000.0
            block.get_parameter("fc2.weight")[:, 3] /= 3000.0
    path = tmp_path / "classifier.safetensors"
    save_classifier(path, model, facts)
    labels = stages.classifier.with_name("held_out_recordings.csv")
    (tmp_path / labels.name).write_bytes(labels.read_bytes())
    return path


def nothing_smoothed(_model: object, _peaks: object) -> dict[str, torch.Tensor]:
    return {}


@pytest.mark.usefixtures("unmeasured")
def test_planted_outliers_are_smoothed_and_every_product_is_int8(stages: Stages, tmp_path: Path) -> None:
    config = QuantizeCommand((spoiled(stages, tmp_path),), GateSettings(min_agreement=0.9), max_error=0.1)
    assert quantize(replace(config, run=replace(config.run, root=tmp_path))) == 0
    card = json.loads((tmp_path / "quantize" / "quantize.json").read_text())
    assert card["kept_in_float32"] == {} and card["gate"] == "passed" and card["int8"]["top1_agreement"] >= 0.98
    assert card["products_judged_on"].endswith(" held-out contexts, which judge the file too")


@pytest.mark.usefixtures("unmeasured")
def test_outliers_that_are_not_smoothed_stay_in_float32_and_without_that_the_gate_refuses(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quantize.smoothing", nothing_smoothed)
    config = QuantizeCommand((spoiled(stages, tmp_path),), GateSettings(min_agreement=0.98), max_error=0.1)
    with pytest.raises(AssertionError, match="no INT8 file: another best species"):  # negative control: it is bad
        quantize(replace(config, max_error=1e9, run=replace(config.run, root=tmp_path / "worse")))
    capsys.readouterr()
    assert quantize(replace(config, run=replace(config.run, root=tmp_path / "mended"))) == 0
    card = json.loads((tmp_path / "mended" / "quantize" / "quantize.json").read_text())
    assert set(card["kept_in_float32"]) <= {f"layers.{layer}.fc2" for layer in range(3)} and card["kept_in_float32"]
    assert card["int8"]["top1_agreement"] >= 0.98
    written = onnx.load(tmp_path / "mended" / "quantize" / "classifier.int8.onnx")
    facts = json.loads({entry.key: entry.value for entry in written.metadata_props}["wild_whisper"])
    assert facts["int8"] == {
        "products": 18,
        "eight_bits": sorted(card["eight_bits"]),
        "kept_in_float32": card["kept_in_float32"],
    }
    said = capsys.readouterr().out
    for name, reason in card["kept_in_float32"].items():
        assert f"{name} stays in float32: {reason}" in said


@pytest.mark.usefixtures("unmeasured")
def test_the_int8_file_reports_as_many_held_out_windows_of_each_species_as_the_float32_file(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantize.smoothing", nothing_smoothed)
    gate = GateSettings(min_agreement=0.9, allow_worse=True)
    config = QuantizeCommand((spoiled(stages, tmp_path),), gate, max_error=1e9)
    assert quantize(replace(config, run=replace(config.run, root=tmp_path))) == 0
    held_out, counts = held_out_of(stages), list[list[int]]()
    for name, source in (("classifier.onnx", "classifier.onnx"), ("classifier.int8.onnx", "classifier.int8.onnx"),
                         ("classifier.int8.onnx", "classifier.onnx")):  # fmt: skip
        limits = [limit.applied for limit in open_scorer(tmp_path / "quantize" / source).thresholds.species]
        scores = file_scores(tmp_path / "quantize" / name, held_out.contexts)[held_out.rows]
        counts.append((scores >= np.array(limits, np.float32)).sum(axis=0).tolist())  # as predictor.py compares
    assert counts[0] == counts[1] and sum(counts[0]) > 0
    assert counts[0] != counts[2], "negative control: with the thresholds of float32 it does not"


def test_products_are_judged_on_training_windows_and_the_file_on_others(stages: Stages) -> None:
    _, facts = load_classifier(stages.classifier)
    held_out = held_out_of(stages)
    contexts, source = scanned_contexts(stages.classifier, facts, held_out)
    assert len(contexts) == 32 and source == "training contexts"
    assert not any((context == other).all() for context in contexts for other in held_out.contexts)
    contexts, source = scanned_contexts(stages.classifier.with_name("elsewhere") / "c.safetensors", facts, held_out)
    assert source.startswith("held-out contexts") and (contexts == held_out.contexts[:32]).all()


def test_without_openvino_its_form_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.scorer.find_spec", absent)
    (tmp_path / "classifier.safetensors").touch()
    with pytest.raises(AssertionError, match=r"^--export openvino: OpenVINO is not installed here; .* leave the flag"):
        quantize(QuantizeCommand((tmp_path / "classifier.safetensors",), export="openvino"))


def test_after_training_by_folds_the_way_to_one_of_them_is_told(tmp_path: Path) -> None:
    (tmp_path / "fold-2").mkdir()
    (tmp_path / "fold-2" / "classifier.safetensors").touch()
    with pytest.raises(AssertionError, match=r"one for each of 1 folds; for example --classifier .*fold-2"):
        quantize(QuantizeCommand((tmp_path / "classifier.safetensors",)))


def test_without_held_out_recordings_the_files_say_unverified(stages: Stages, tmp_path: Path) -> None:
    lonely = tmp_path / "classifier.safetensors"
    lonely.write_bytes(stages.classifier.read_bytes())
    assert open_trained(stages.classifier, QuantizeCommand(gate=GateSettings(min_agreement=0.9)))[1].verified  # control
    trained = open_trained(lonely, QuantizeCommand())[1]
    nothing = np.zeros((32, 3), np.float32)
    assert not trained.verified
    assert "macro_auc_drop" not in compare_answers(nothing, nothing, trained.held_out, ("a", "b", "c"))


@pytest.mark.usefixtures("unmeasured")
def test_the_card_and_the_screen_say_which_depth_would_fit(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = GateSettings(min_agreement=0.9)
    config = QuantizeCommand((stages.classifier,), gate, max_error=0.1, max_windows=MOST_WINDOWS)
    config = replace(config, budget=BudgetSettings(minutes=1.2), run=replace(config.run, root=tmp_path))
    assert quantize(config) == 0  # 11.7 h at 500 x real time: 1.4 minutes
    advice = "demo does not fit 1.2 minutes and 2 GB on 1 core; depth 2 would; `python probe.py` says at what cmAP"
    advice += "; all of it would with its tokens in pairs (--encoder.pool 2)"
    card = json.loads((tmp_path / "quantize" / "quantize.json").read_text())
    assert advice in capsys.readouterr().out.splitlines() and card["budget"].endswith(f": does not fit; {advice}")
    assert card["served_as"] == "ONNX INT8" and not card["fits_budget"]
