"""A run becomes a folder that transformers and predictor.py load, from the hub too, and that names no machine."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from conftest import Stages
from pretend_hub import Hub, hub

from config import SIZES, AudioSettings, HeadSettings, PredictCommand, PublishCommand, parse
from demo_data import FieldSeason
from model import BirdClefClassifier, Encoder
from predictor import predict
from publish import publish_run
from serving.scorer import open_scorer, score
from taxonomy import Taxonomy
from training.checkpoint import ClassifierFacts, load_classifier, save_classifier

__all__ = ("hub",)


def published(*words: object) -> int:
    return publish_run(parse(PublishCommand, list(map(str, words))))


@pytest.fixture(scope="module")
def folder(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("publish") / "hub"
    assert published(stages.classifier.parent, "--out", out, "--license", "cc-by-nc-4.0", "--watts", "30") == 0
    return out


def test_a_run_becomes_the_files_of_a_repository(folder: Path, stages: Stages) -> None:
    files = {"README.md", "config.json", "labels.csv", "classifier.safetensors", "classifier.int8.onnx"}
    assert {path.name for path in folder.iterdir()} == files | {"model.safetensors"}
    _, facts = load_classifier(stages.classifier)
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["primary_label"] for row in rows] == list(facts.taxonomy.labels)
    assert json.loads((folder / "config.json").read_text())["wild_whisper"]["species"] == len(rows)
    text = (folder / "README.md").read_text()
    about = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    scores = json.loads((stages.classifier.parent / "run.json").read_text())["scores"]
    metrics = {one["type"]: one for one in about["model-index"][0]["results"][0]["metrics"]}
    assert metrics["macro_auc"]["value"] == pytest.approx(scores["macro_auc"], abs=1e-4)
    assert f"[{scores['macro_auc_low']:.3f}, {scores['macro_auc_high']:.3f}]" in metrics["macro_auc"]["name"]
    assert "At 30 W that is" in text and about["license"] == "cc-by-nc-4.0"


def test_nothing_in_it_names_this_machine(folder: Path, stages: Stages, season: FieldSeason) -> None:
    told = [str(season.root), str(stages.runs), str(Path.home()), str(Path.cwd()), "finetune-0"]
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert [(name, text) for name, one in content.items() for text in told if text.encode() in one] == []
    assert (
        str(season.root).encode() in stages.classifier.read_bytes()
    )  # control: what is published was not always clean
    assert str(season.root).encode() in stages.model.read_bytes()


def test_transformers_loads_the_encoder_and_it_answers_as_ours(folder: Path, stages: Stages) -> None:
    from transformers import WhisperModel

    loaded = WhisperModel.from_pretrained(folder).encoder.eval()
    model, _ = load_classifier(stages.classifier)
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs, ours = loaded(mel).last_hidden_state, model.encoder(mel)
        for parameter in loaded.layers.parameters():
            parameter.add_(0.1)
        assert not torch.allclose(loaded(mel).last_hidden_state, ours, atol=1e-3)  # control
    assert theirs.shape == ours.shape and torch.allclose(theirs, ours, atol=1e-5)


def test_the_classifier_and_the_onnx_file_answer_as_before(folder: Path, stages: Stages) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (3, 80_000)).astype(np.float32)
    before, after = (open_scorer(path, threads=1) for path in (stages.model, folder / "classifier.int8.onnx"))
    assert np.array_equal(score(before, noise), score(after, noise)) and after.taxonomy == before.taxonomy
    assert after.thresholds == before.thresholds and after.provenance["license"] == "cc-by-nc-4.0"
    for fact in ("alarms_per_hour", "trained_on"):  # a limit of a later ensemble; nobody holds out what it heard
        assert after.provenance[fact] == before.provenance[fact], fact
    with torch.inference_mode():
        answers = [
            load_classifier(path)[0].answers(torch.from_numpy(noise))[0]
            for path in (stages.classifier, folder / "classifier.safetensors")
        ]
    assert torch.equal(*answers)


def test_what_others_allow_of_a_classifier_is_said_before_it_is_pushed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kin = ("Animalia", "Chordata", "Amphibia", "Anura", "Ranidae", "Rana", "Rana ficta")
    frog = Taxonomy(("frog",), ("Rana ficta",), ("Frog",), (kin,), (7,))
    birdnet = {"name": "BirdNET", "license": "CC BY-NC-SA 4.0", "sha256": "ab"}
    facts = ClassifierFacts("demo", AudioSettings(), HeadSettings(layers=3), frog, {"teachers": [birdnet]})
    network = BirdClefClassifier(Encoder(SIZES["demo"]), facts.audio, 1, facts.head)
    save_classifier(tmp_path / "classifier.safetensors", network, facts)
    for licence, promised in (("cc-by-4.0", True), ("cc-by-nc-4.0", False), ("", False)):
        words = ["--license", licence] if licence else []
        assert published(tmp_path, "--out", tmp_path / "hub", *words) == 0
        said = capsys.readouterr().out
        assert "NON-COMMERCIAL: made with the help of BirdNET" in said
        assert ("promises more than BirdNET allows" in said) == promised


def test_what_was_pushed_is_scored_from_the_hub_and_then_from_the_cache(
    hub: Hub,
    stages: Stages,
    season: FieldSeason,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (stages.classifier.parent, "--out", tmp_path / "hub", "--license", "cc-by-4.0", "--to", "owner/frogs")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert published(*words) == 0
    commit = hub.heads["owner/frogs", "main"]
    assert f"hf://owner/frogs@{commit}" in capsys.readouterr().out and "Bearer hf_secret" in hub.tokens
    assert set(hub.files[commit]) == {path.name for path in (tmp_path / "hub").iterdir()}
    assert b"hf_secret" not in b"".join(hub.files[commit].values())

    def scored(out: str, model: str) -> Path:
        flags = ["--model", model, "--out", str(tmp_path / out), "--scores", "--threads", "1"]
        assert predict(parse(PredictCommand, [str(season.soundscape), *flags])) == 0
        return tmp_path / out

    there = scored("there", "hf://owner/frogs")
    facts = json.loads((there / "run.json").read_text())
    assert facts["hub"] == [f"hf://owner/frogs@{commit}"] and "cc-by-4.0" in facts["licences"][0]
    assert "licence of classifier.int8.onnx: cc-by-4.0" in capsys.readouterr().out
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    again, here = scored("again", "hf://owner/frogs"), scored("here", str(stages.model))
    tables = [(place / "scores.csv").read_bytes() for place in (there, again, here)]
    assert tables[0] == tables[1] == tables[2]


REFUSED: dict[str, tuple[Callable[[Stages, Path], list[object]], str]] = {
    "no licence": (lambda stages, _: [stages.classifier.parent, "--to", "owner/name"], "--to needs --license"),
    "no such run": (lambda _, place: [place / "nowhere"], "no classifier at"),
    "no repository": (
        lambda stages, _: [stages.classifier.parent, "--license", "mit", "--to", "frogs"],
        "give owner/name",
    ),
    "another's file": (
        lambda stages, place: [stages.classifier.parent, "--onnx", other(stages, place)],
        "was not made of",
    ),
    "the run's own folder": (
        lambda stages, _: [stages.classifier.parent, "--out", stages.classifier.parent],
        "classifier.safetensors lies there and would be written over",
    ),
    "the folder of the ONNX file": (
        lambda stages, _: [stages.classifier.parent, "--out", stages.model.parent],
        "classifier.int8.onnx lies there and would be written over",
    ),
    "a folder with a card of its own": (
        lambda stages, place: [stages.classifier.parent, "--out", with_card(place)],
        "is no model card of ours",
    ),
    "public of nothing": (lambda stages, _: [stages.classifier.parent, "--public"], "--to names none"),
}


def other(stages: Stages, place: Path) -> Path:
    """The ONNX file of another training."""
    graph = onnx.load(stages.model)
    for entry in graph.metadata_props:
        entry.value = entry.value.replace('"held_out_fold": 0', '"held_out_fold": 3')
    onnx.save(graph, place / "other.onnx")
    return place / "other.onnx"


def with_card(place: Path) -> Path:
    """The folder of another project."""
    (place / "README.md").touch()
    return place


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_published_is_a_line(name: str, stages: Stages, tmp_path: Path) -> None:
    words, said = REFUSED[name]
    with pytest.raises(AssertionError, match=said) as refusal:
        published(*words(stages, tmp_path))
    assert "\n" not in str(refusal.value)
    assert not (stages.classifier.parent / "hub").exists()


def test_a_fold_is_published_by_its_folder_and_without_an_onnx_file(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fold = tmp_path / "finetune" / "fold-0"
    fold.mkdir(parents=True)
    shutil.copy(stages.classifier, fold)
    with pytest.raises(AssertionError, match=r"one classifier for each fold; name one: .*fold-0"):
        published(fold.parent)
    assert published(fold) == 0
    said = capsys.readouterr().out
    assert "without an ONNX file" in said and "nothing was pushed" in said and "no --license" in said
    assert not list((fold / "hub").glob("*.onnx")) and "quantize.py" in (fold / "hub" / "README.md").read_text()
