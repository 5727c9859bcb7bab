"""Stage 3: the float file equals the trained network, what is worse than the gate allows is mended or refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch
from conftest import Stages

from archive.recordings import Recording, write_recordings
from config import SIZES, AudioSettings, BudgetSettings, GateSettings, HeadSettings, Preset, QuantizeCommand
from quantize import (
    HeldOut,
    compare,
    enough_windows,
    file_scores,
    gate_line,
    gate_reasons,
    judged,
    network_scores,
    probed_depths,
    quantize,
    quickest_way,
    read_windows,
    scanned_contexts,
    smaller_one,
)
from serving.scorer import open_scorer
from serving.speed import Speed, deepest_that_fits
from taxonomy import Taxonomy
from training.checkpoint import ClassifierFacts, load_classifier, save_classifier


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the half minute in which processes of their own measure the speed; test_speed.py and the card do that."""
    speed = Speed(10.0, 500.0, 100, 1.0)
    names = ("torch float32", "ONNX float32", "ONNX INT8")

    def known(_classifier: Path, _floats: Path, _int8: Path) -> dict[tuple[str, int], Speed]:
        return {(name, 1): speed for name in names}

    monkeypatch.setattr("quantize.measure_all", known)


def held_out_of(stages: Stages, most: int = 2000) -> HeldOut:
    table = stages.classifier.with_name("held_out_recordings.csv")
    return read_windows(table, load_classifier(stages.classifier)[1], most)


def test_the_float_file_equals_the_trained_network(stages: Stages) -> None:
    model, _ = load_classifier(stages.classifier)
    held_out = held_out_of(stages, 40)
    assert len(held_out.owner) >= 40 and held_out.truth.sum() >= len(held_out.truth) > 10
    served = file_scores(stages.float_model, held_out.contexts)
    np.testing.assert_allclose(served, network_scores(model, held_out.contexts), atol=1e-4)


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
    config = QuantizeCommand(stages.classifier, GateSettings(min_agreement=1.01))
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
    config = QuantizeCommand(stages.classifier, GateSettings(allow_worse=True), max_error=0.0)
    with pytest.raises(AssertionError, match="no INT8 file: 18 of its 18 products would be float32, so it is none"):
        quantize(replace(config, run=replace(config.run, root=tmp_path)))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("gate "))
    assert line.startswith("gate refused: ") and line.endswith(
        "; 18 of its 18 products would be float32, so it is none"
    )
    assert not (tmp_path / "quantize-001" / "classifier.int8.onnx").exists()
    assert len(json.loads((tmp_path / "quantize-001" / "quantize.json").read_text())["kept_in_float32"]) == 18


def spoiled(stages: Stages, tmp_path: Path) -> Path:
    """The same classifier, but for one channel in each layer that shouts: in INT8 the others lose their voice."""
    model, facts = load_classifier(stages.classifier)
    with torch.no_grad():
        for block in model.encoder.whisper.layers:
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
    config = QuantizeCommand(spoiled(stages, tmp_path), GateSettings(min_agreement=0.9), max_error=0.1)
    assert quantize(replace(config, run=replace(config.run, root=tmp_path))) == 0
    card = json.loads((tmp_path / "quantize" / "quantize.json").read_text())
    assert card["kept_in_float32"] == {} and card["gate"] == "passed" and card["int8"]["top1_agreement"] >= 0.98
    assert card["products_judged_on"].endswith(" held-out contexts, which judge the file too")


@pytest.mark.usefixtures("unmeasured")
def test_outliers_that_are_not_smoothed_stay_in_float32_and_without_that_the_gate_refuses(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quantize.smoothing", nothing_smoothed)
    config = QuantizeCommand(spoiled(stages, tmp_path), GateSettings(min_agreement=0.98), max_error=0.1)
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
    config = QuantizeCommand(spoiled(stages, tmp_path), gate, max_error=1e9)
    assert quantize(replace(config, run=replace(config.run, root=tmp_path))) == 0
    held_out, counts = held_out_of(stages), list[list[int]]()
    for name, source in (("classifier.onnx", "classifier.onnx"), ("classifier.int8.onnx", "classifier.int8.onnx"),
                         ("classifier.int8.onnx", "classifier.onnx")):  # fmt: skip
        limits = [limit.applied for limit in open_scorer(tmp_path / "quantize" / source).thresholds.species]
        scores = file_scores(tmp_path / "quantize" / name, held_out.contexts)[held_out.rows]
        counts.append((scores >= np.array(limits, np.float32)).sum(axis=0).tolist())  # as predictor.py compares
    assert counts[0] == counts[1] and sum(counts[0]) > 0
    assert counts[0] != counts[2], "negative control: with the thresholds of float32 it does not"


def test_the_gate_counts_auc_as_well_as_agreement() -> None:
    truth = np.eye(4, dtype=np.float32)[np.arange(40) % 4]
    rows = np.arange(40)
    held_out = HeldOut(np.zeros((40, 1), np.float32), rows, rows, truth, rows.astype(np.str_))
    floats = (0.2 + 0.6 * truth).astype(np.float32)
    worse = floats.copy()
    worse[0, 1] = 0.79  # still not the best of its row, but above some that are there
    worse[1, 1] = 0.5
    gate = compare(worse, floats, held_out, tuple("abcd"))
    assert gate["top1_agreement"] == 1.0 and gate["worst_species"] == gate["most_changed_species"] == "b"
    assert float(gate["macro_auc_drop"]) == pytest.approx((1 / 300) / 4)  # one pair of 300 in one of four species
    assert not gate_reasons(gate, GateSettings()) and gate_reasons(gate, GateSettings(max_auc_drop=0.0005))
    assert gate_reasons(gate | {"top1_agreement": 0.97}, GateSettings()) == [
        "another best species in 3.0 % of the windows"
    ]
    assert gate["windows"] == 40 and float(gate["top1_agreement_low"]) == pytest.approx(
        0.912, abs=1e-3
    )  # 40 / (40 + 1.96**2)
    assert (
        0
        < float(gate["macro_auc_drop_low"])
        < float(gate["macro_auc_drop"])
        < float(gate["macro_auc_drop_high"])
        < 0.01
    )
    same = compare(floats, floats, held_out, tuple("abcd"))  # both files are weighted alike: no change is no change
    assert same["macro_auc_drop_low"] == same["macro_auc_drop_high"] == same["cmap_drop_high"] == 0
    assert "same best species in 100.0 % [95 %: 91.2, 100.0] of 40 windows" in gate_line(gate)


def test_too_few_windows_decide_nothing_but_what_is_certain() -> None:
    assert enough_windows(0.98) == 149 and 0.98**149 < 0.05 < 0.98**148 and enough_windows(0.5) == 5
    assert enough_windows(1.01) == enough_windows(1.0) == enough_windows(0.0) == 1
    good: dict[str, float | str] = {"top1_agreement": 29 / 30, "top1_agreement_high": 0.994, "macro_auc_drop": 0.1}
    verdict, why = judged(good, GateSettings(), 30)
    assert verdict == "undecided" and "149 held-out windows are needed to tell 98 % from less" in why
    assert judged(good | {"top1_agreement_high": 0.97}, GateSettings(), 30)[0] == "refused"
    assert judged(good | {"top1_agreement_high": 0.97}, GateSettings(), 0)[0] == "undecided"  # on noise
    assert judged(good, GateSettings(), 149)[0] == "refused"
    assert judged(good | {"top1_agreement": 0.99, "macro_auc_drop": 0.001}, GateSettings(), 149) == (
        "passed",
        "",
    )


def test_products_are_judged_on_one_context_of_each_recording(tmp_path: Path) -> None:
    names = ("a", "b")
    taxonomy = Taxonomy(names, names, names, tuple(("k", "p", "c", "o", "f", "g", name) for name in names), (7, 7))
    facts = ClassifierFacts("demo", AudioSettings(), HeadSettings(), taxonomy, {})
    rows: list[Recording] = []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 16_000 * 60), 16_000)
        rows.append(Recording(path, path.name, ("a",), seconds=60.0))
    write_recordings(tmp_path / "training_recordings.csv", rows)
    held_out = read_windows(tmp_path / "held_out_recordings.csv", facts, 10)
    contexts, source = scanned_contexts(tmp_path / "classifier.safetensors", facts, held_out)
    assert len(contexts) == 3 and source == "training contexts", "not twelve windows of each"


def test_products_are_judged_on_training_windows_and_the_file_on_others(stages: Stages) -> None:
    _, facts = load_classifier(stages.classifier)
    held_out = held_out_of(stages)
    contexts, source = scanned_contexts(stages.classifier, facts, held_out)
    assert len(contexts) == 32 and source == "training contexts"
    assert not any((context == other).all() for context in contexts for other in held_out.contexts)
    contexts, source = scanned_contexts(stages.classifier.with_name("elsewhere") / "c.safetensors", facts, held_out)
    assert source.startswith("held-out contexts") and (contexts == held_out.contexts[:32]).all()


def test_the_gate_hears_the_stretches_that_were_held_out_whatever_their_labels_look_like(tmp_path: Path) -> None:
    kin = ("Animalia", "Chordata", "Aves", "Passeriformes", "Fictidae", "Ficta")
    labels = ("Parus major", "Corvus corax")
    taxonomy = Taxonomy(labels, labels, labels, tuple((*kin, label) for label in labels), (7, 7))
    facts = ClassifierFacts("demo", AudioSettings(), HeadSettings(), taxonomy, {})
    wave = np.repeat(np.linspace(0.01, 0.5, 60), 16_000).astype(np.float32)  # louder with every second
    wave *= np.resize(np.repeat([1, -1], 8), wave.shape).astype(np.float32)
    soundfile.write(tmp_path / "hour.wav", wave, 16_000)
    stretches = [
        Recording(tmp_path / "hour.wav", "hour.wav", (label,), seconds=60.0, start=start, end=start + 5, fold=0)
        for label, start in zip(labels, (10.0, 40.0), strict=True)
    ]
    write_recordings(tmp_path / "held_out_recordings.csv", stretches)
    held_out = read_windows(tmp_path / "held_out_recordings.csv", facts, 100)
    assert held_out.contexts.shape == (2, 80_000) and len(held_out.owner) == 2
    for context, truth in zip(held_out.contexts, held_out.truth, strict=True):
        start = 10 if truth[0] else 40
        np.testing.assert_allclose(context, wave[16_000 * start : 16_000 * (start + 5)], atol=1e-3)
    assert sorted(held_out.truth.tolist()) == [[0.0, 1.0], [1.0, 0.0]]
    answers = np.array([[0.9, 0.1], [0.1, 0.9]], np.float32)
    assert "macro_auc_drop" in compare(answers, answers, held_out, labels)


def test_a_long_recording_does_not_fill_the_memory(tmp_path: Path) -> None:
    names = ("a", "b")
    taxonomy = Taxonomy(names, names, names, tuple(("k", "p", "c", "o", "f", "g", name) for name in names), (7, 7))
    facts = ClassifierFacts("demo", AudioSettings(), HeadSettings(), taxonomy, {})
    soundfile.write(tmp_path / "long.wav", np.resize([0.25, -0.25], 16_000 * 600), 16_000)
    write_recordings(
        tmp_path / "held_out_recordings.csv", [Recording(tmp_path / "long.wav", "long.wav", ("a",), seconds=600.0)]
    )
    assert len(read_windows(tmp_path / "held_out_recordings.csv", facts, 10).owner) == 10


def test_after_training_by_folds_the_way_to_one_of_them_is_told(tmp_path: Path) -> None:
    (tmp_path / "fold-2").mkdir()
    (tmp_path / "fold-2" / "classifier.safetensors").touch()
    with pytest.raises(AssertionError, match=r"one for each of 1 folds; for example --classifier .*fold-2"):
        quantize(QuantizeCommand(tmp_path / "classifier.safetensors"))


def test_without_held_out_recordings_the_files_say_unverified(stages: Stages, tmp_path: Path) -> None:
    lonely = tmp_path / "classifier.safetensors"
    lonely.write_bytes(stages.classifier.read_bytes())
    facts = load_classifier(lonely)[1]
    held_out = read_windows(lonely.with_name("held_out_recordings.csv"), facts, 10)
    assert scanned_contexts(lonely, facts, held_out)[1] == "contexts of noise"
    assert len(held_out.truth) == 0 and len(held_out.contexts) == 32
    nothing = np.zeros((32, 3), np.float32)
    assert "macro_auc_drop" not in compare(nothing, nothing, held_out, ("a", "b", "c"))


def facts_of(size: Preset, depth: int = 0) -> ClassifierFacts:
    names = ("a", "b")
    taxonomy = Taxonomy(names, names, names, tuple(("k", "p", "c", "o", "f", "g", name) for name in names), (7, 7))
    return ClassifierFacts(size, AudioSettings(), HeadSettings(), taxonomy, {"encoder": "whisper"}, depth=depth)


def test_a_model_that_does_not_fit_is_told_which_depth_would_and_at_what_cmap(tmp_path: Path) -> None:
    facts, slow = facts_of("large-v3"), Speed(1250.0, 4.0, 800, 1.0)  # 11.7 h take 175.5 minutes: 51 % fit
    card: dict[str, object] = {"size": "large-v3", "weights": "whisper"}
    card |= {"layers_1_to": [{"depth": depth, "cmap": cmap, "top1": 0.5} for depth, cmap in
                             ((8, 0.5), (14, 0.6125), (16, 0.6125), (20, 0.64), (32, 0.62))]}  # fmt: skip
    path = tmp_path / "probe.json"
    path.write_text(json.dumps(card))
    depths = probed_depths(path, facts)
    budget = BudgetSettings()
    assert deepest_that_fits(slow, "large-v3", 90, 11.7, 2.0) == 16
    assert smaller_one(slow, "ONNX INT8", 2, facts, budget, depths) == (
        "large-v3 does not fit 90 minutes and 2 GB on 2 cores; depth 14 would, at cmAP 0.613 (probe.py; 0.620 at depth "
        "32)"
    )  # not 16, which is no better, and not 20, which is better and does not fit
    assert smaller_one(slow, "ONNX INT8", 1, facts, budget, {}) == (
        "large-v3 does not fit 90 minutes and 2 GB on 1 core; depth 16 would; `python probe.py` says at what cmAP"
    )
    half = smaller_one(slow, "ONNX INT8", 2, facts_of("large-v3", 16), budget, depths)
    assert half.startswith("large-v3, the lowest 16 of 32 layers does not fit 90") and "; depth 8 would" in half
    hungry = smaller_one(Speed(10.0, 500.0, 6400, 1.0), "OpenVINO", 2, facts, budget, depths)
    assert "; depth 8 would, at cmAP 0.500" in hungry  # 4.4 GB too many are 23 layers of .197 GB
    assert smaller_one(slow, "ONNX INT8", 2, facts, replace(budget, minutes=1.0), depths).endswith(
        "no depth of it would"
    )
    assert probed_depths(path, facts_of("small")) == probed_depths(tmp_path / "none.json", facts) == {}
    path.write_text(json.dumps(card | {"weights": "another"}))
    assert probed_depths(path, facts) == {}


def test_the_budget_is_answered_for_the_engine_that_is_quicker() -> None:
    def speed(milliseconds: float) -> Speed:
        return Speed(milliseconds, 5000 / milliseconds, 100, 1.0)

    alone = {("ONNX float32", 2): speed(30.0), ("ONNX INT8", 2): speed(20.0)}
    assert (quickest_way(alone, 2, False), quickest_way(alone, 2, True)) == ("ONNX INT8", "ONNX float32")
    for milliseconds, expected in ((17.9, "OpenVINO"), (18.1, "ONNX INT8"), (30.0, "ONNX INT8")):
        assert quickest_way(alone | {("OpenVINO", 2): speed(milliseconds)}, 2, False) == expected


@pytest.mark.usefixtures("unmeasured")
def test_the_card_and_the_screen_say_which_depth_would_fit(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = QuantizeCommand(stages.classifier, GateSettings(min_agreement=0.9), max_error=0.1)
    config = replace(config, budget=BudgetSettings(minutes=1.2), run=replace(config.run, root=tmp_path))
    assert quantize(config) == 0  # 11.7 h at 500 x real time: 1.4 minutes
    advice = "demo does not fit 1.2 minutes and 2 GB on 1 core; depth 2 would; `python probe.py` says at what cmAP"
    card = json.loads((tmp_path / "quantize" / "quantize.json").read_text())
    assert advice in capsys.readouterr().out.splitlines() and card["budget"].endswith(f": does not fit; {advice}")
    assert card["served_as"] == "ONNX INT8" and not card["fits_budget"]
