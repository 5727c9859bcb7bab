"""The animal's own rate from end to end: bats at 384 kHz through all four stages, and the report slowed down."""

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import soundfile
import torch
from numpy.typing import NDArray

import report
from config import SOUNDS, FinetuneCommand, PredictCommand, PretrainCommand, QuantizeCommand, ReportCommand, parse
from main import finetune
from predictor import predict
from quantize import quantize
from serving.export import write_float, write_int8
from ssl_mae import pretrain
from training.checkpoint import load_classifier

pytestmark = pytest.mark.usefixtures("undrawn")
RATE = 384_000
FASTER = ("--audio.hop_seconds", "0.002")  # than the hop of --sound bat, with a quarter of its tokens
AUDIO = replace(SOUNDS["bat"], hop_seconds=0.002)
FM, CF = "Fictopipistrellus", "Fictorhinolophus"


def call(species: str) -> NDArray[np.float64]:
    """80 to 40 kHz in 5 ms, or 83 kHz for 30 ms: the one sweeps, the other holds its pitch."""
    length = 0.005 if species == FM else 0.03
    time = np.arange(round(length * RATE)) / RATE
    phase = 80_000 * time - 40_000 / length / 2 * time**2 if species == FM else 83_000 * time
    return 0.1 * np.sin(2 * np.pi * phase) * np.hanning(len(time))


def night(seconds: float, calls: list[tuple[float, str]], rng: np.random.Generator) -> NDArray[np.float64]:
    """Hiss, a cricket at 4 kHz that means nothing, and calls at their seconds."""
    sound = rng.normal(0, 0.003, round(seconds * RATE))
    sound += 0.02 * np.sin(2 * np.pi * 4_000 * np.arange(len(sound)) / RATE) * rng.uniform(0, 1)
    for start, species in calls:
        first, pulse = round(start * RATE), call(species)
        sound[first : first + len(pulse)] += pulse
    return sound


@pytest.fixture(scope="module")
def bats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage 2 on ten recordings of each of two bats and ten without, and the files of stage 3."""
    folder, rng = tmp_path_factory.mktemp("bats"), np.random.default_rng(0)
    (folder / "nothing").mkdir()
    for number in range(10):
        soundfile.write(folder / "nothing" / f"nothing{number}.wav", night(0.5, [], rng), RATE)
    for species in (FM, CF):
        (folder / "season" / species).mkdir(parents=True)
        for number in range(10):
            calls = [(0.03 + 0.09 * k + rng.uniform(0, 0.02), species) for k in range(5)]
            soundfile.write(folder / "season" / species / f"{species}{number}.wav", night(0.5, calls, rng), RATE)
    runs = ["--run.root", str(folder / "runs")]
    words = ["--preset", "demo", "--sound", "bat", "--data.root", str(folder / "season"), *runs]
    words += ["--data.layout", "folders", "--data.cache", str(folder / "cache"), "--data.folds", "5"]
    words += ["--data.no_call", str(folder / "nothing"), "--data.no_call_share", "0.4", "--encoder.depth", "1"]
    assert (
        finetune(parse(FinetuneCommand, [*words, *FASTER, "--train.epochs", "10", "--augment.gain_db", "-6", "6"])) == 0
    )
    network, facts = load_classifier(folder / "runs" / "finetune" / "classifier.safetensors")
    write_float(network, facts, folder / "classifier.onnx", verified=False)
    write_int8(folder / "classifier.onnx", folder / "classifier.int8.onnx", facts, verified=False)
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".txt" else ","))


def test_the_geometry_travels_in_every_file(bats: Path) -> None:
    _, facts = load_classifier(bats / "runs" / "finetune" / "classifier.safetensors")
    assert facts.audio == AUDIO and facts.provenance["sound"] == "bat"
    settings = json.loads((bats / "runs" / "finetune" / "run.json").read_text())["settings"]
    assert settings["sound"] == "bat" and settings["audio"]["lowest_hz"] == 10_000


def test_the_served_file_equals_the_trained_network_at_another_geometry(bats: Path) -> None:
    network, facts = load_classifier(bats / "runs" / "finetune" / "classifier.safetensors")
    sound = torch.randn(3, facts.audio.samples, generator=torch.Generator().manual_seed(0)) * 0.05
    session = ort.InferenceSession(str(bats / "classifier.onnx"))
    found = session.run(["probabilities"], {"waveforms": sound.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, network(sound).sigmoid().numpy(), atol=1e-5)


def test_bats_are_found_in_their_own_half_seconds_at_384_khz(bats: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    calls = [(1.05 + 0.09 * k, FM) for k in range(5)] + [(2.55 + 0.09 * k, CF) for k in range(4)]
    soundfile.write(tmp_path / "night.wav", night(4.0, calls, rng), RATE)
    soundfile.write(tmp_path / "bird.wav", rng.normal(0, 0.1, 3 * 16_000), 16_000)
    model, out = bats / "classifier.int8.onnx", tmp_path / "out"
    words = [str(tmp_path / "night.wav"), str(tmp_path / "bird.wav"), "--model", str(model), "--scores"]
    assert predict(parse(PredictCommand, [*words, "--out", str(out), "--min_conf", "0.3"])) == 2, "one is no bat's"
    scores = {float(row["start"]): row for row in table(out / "scores.csv")}
    assert sorted(scores) == [0.5 * number for number in range(8)]
    for species, start in ((FM, 1.0), (CF, 2.5)):
        best = max(scores, key=lambda at: float(scores[at][species]))
        assert best == start and float(scores[best][species]) > 0.5
    found = {(float(row["Start (s)"]), row["Species code"]) for row in table(out / "detections.csv")}
    assert {(1.0, FM), (2.5, CF)} <= found
    files = {Path(row["file"]).name: row for row in table(out / "files.csv")}
    assert files["night.wav"]["status"] == "ok" and files["bird.wav"]["status"] == "unreadable"
    assert "recorded at 16000 Hz; all that the model gets lies above 10000 Hz" in files["bird.wav"]["reason"]
    raven = table(out / "exports" / "raven.selections.txt")
    assert {(row["Low Freq (Hz)"], row["High Freq (Hz)"]) for row in raven} == {("10000.0", "120000.0")}
    assert report.report(parse(ReportCommand, [str(out)])) == 0
    page = (out / "report.html").read_text()
    assert '"slowed": 10.0' in page.replace('"slowed":10.0', '"slowed": 10.0') and "played" in page


@pytest.mark.slow
def test_stage_three_measures_a_file_of_another_geometry(bats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, runs = bats / "runs" / "finetune" / "classifier.safetensors", ["--run.root", str(bats / "runs")]
    assert quantize(parse(QuantizeCommand, ["--classifier", str(model), *runs])) == 0
    assert "same best species in 100.0 %" in capsys.readouterr().out


def test_stage_one_takes_another_geometry_and_stage_two_goes_on_from_it_alone(bats: Path, tmp_path: Path) -> None:
    words = ["--preset", "demo", "--data.root", str(bats / "season"), "--run.root", str(tmp_path)]
    words += ["--data.layout", "folders", "--data.cache", str(bats / "cache"), "--train.epochs", "1"]
    assert pretrain(parse(PretrainCommand, [*words, "--sound", "bat", *FASTER])) == 0
    encoder = ["--encoder.weights", str(tmp_path / "mae" / "encoder.safetensors")]
    with pytest.raises(AssertionError, match="give both stages the same --audio flags"):
        finetune(parse(FinetuneCommand, [*words, *encoder, "--data.valid_fold", "0"]))


def test_recordings_below_the_band_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    for species in (FM, CF):
        (tmp_path / "low" / species).mkdir(parents=True)
        for number in range(5):
            noise = np.random.default_rng([number, len(species)]).normal(0, 0.1, 16_000)
            soundfile.write(tmp_path / "low" / species / f"{species}{number}.wav", noise, 16_000)
    words = ["--preset", "demo", "--sound", "bat", "--data.root", str(tmp_path / "low"), "--data.layout", "folders"]
    with pytest.raises(AssertionError, match=r"none of 10 recordings holds anything above 10000 Hz, .* 16000 Hz"):
        finetune(parse(FinetuneCommand, [*words, "--run.root", str(tmp_path / "runs")]))
    assert not (tmp_path / "runs").exists()
