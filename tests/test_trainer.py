"""The supervised loop: what is pooled, what is kept, and that held-out scores are those of the file that is kept."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Stages
from loops import loop_of
from torch import Tensor, nn

from config import (
    SIZES,
    AudioSettings,
    AugmentSettings,
    DataSettings,
    EncoderKind,
    FinetuneCommand,
    HeadSettings,
    LossSettings,
    TrainSettings,
    parse,
)
from data_loader import Batch, labeled_loader, read_labeled, set_epoch, split, truth_table
from demo_data import FieldSeason
from evaluation.held_out import WindowScores, pool_windows
from evaluation.metrics import cmap
from main import finetune
from model import BirdClefClassifier, Encoder, picture_encoder
from runtime.runs import read_records
from trainer import STANDARD_DRAWS, fit_standard, out_of_patience, score_windows, training_loss
from training.checkpoint import ClassifierFacts, load_classifier
from training.objective import LossInputs, label_loss
from training.states import TrainingProgress

pytestmark = pytest.mark.usefixtures("undrawn")


def test_windows_are_pooled_by_their_mean() -> None:
    windows = WindowScores(
        np.array([1, 1, 0]),
        np.zeros(3),
        np.ones(3),
        np.array([[0.2, 0.4], [0.4, 0.0], [1.0, 0.5]], np.float32),
        np.zeros((3, 0), np.float32),
    )
    assert pool_windows(windows, 2) == pytest.approx(np.array([[1.0, 0.5], [0.3, 0.2]]))


def cmap_of(facts: ClassifierFacts) -> float:
    return float(json.loads(json.dumps(facts.provenance["held_out"]))["cmap"])


def test_by_default_the_last_epoch_is_kept_and_few_are_validated(stages: Stages) -> None:
    lines = read_records(stages.classifier.parent)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["epoch"] for line in lines if "cmap" in line] == [5, 6]
    _, facts = load_classifier(stages.classifier)
    assert facts.provenance["epoch"] == 6


def test_asked_to_choose_it_keeps_the_epoch_that_is_best_on_the_held_out_recordings_and_stops_where_none_is_better(
    few: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--preset", "demo", "--data.root", str(few.root), "--data.cache", str(tmp_path / "cache")]
    flags += ["--run.root", str(tmp_path), "--train.epochs", "9", "--data.most_windows", "1", "--encoder.depth", "1"]
    figures = iter([0.3, 0.9, 0.5, 0.8, 0.9])  # the last one is of the file that was kept

    def card(*_: object) -> dict[str, float]:
        return {"cmap": next(figures), "top1": 0.0}

    monkeypatch.setattr("trainer.scorecard", card)
    flags += ["--train.choose", "cmap", "--train.patience", "2"]
    assert finetune(parse(FinetuneCommand, [*flags, "--train.validate_every", "1"])) == 0
    _, facts = load_classifier(tmp_path / "finetune" / "classifier.safetensors")
    assert facts.provenance["epoch"] == 2 and "no better cmap in 2 epochs: stopping" in capsys.readouterr().out
    assert [line["epoch"] for line in read_records(tmp_path / "finetune")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("epoch", "best", "every", "patience", "stops"),
    [
        (5, 2, 1, 2, True),
        (4, 2, 1, 2, False),
        (11, 5, 5, 3, True),
        (11, 10, 5, 3, False),
        (10, 5, 5, 3, False),  # the one before was not validated, so nothing was decided there
        (1, 0, 1, 1, False),  # nothing is trained yet
        (99, 1, 1, 0, False),  # off
    ],
)
def test_whether_to_stop_depends_on_what_a_state_holds_so_that_a_resumed_run_stops_there_too(
    epoch: int, best: int, every: int, patience: int, stops: bool
) -> None:
    settings = replace(PLAIN.train, choose="cmap", validate_every=every, patience=patience)
    for step in (0, 7):
        assert out_of_patience(TrainingProgress(epoch=epoch, step=step, best_epoch=best), settings) is stops


def test_held_out_scores_are_those_of_the_file(stages: Stages, season: FieldSeason) -> None:
    model, facts = load_classifier(stages.classifier)
    _, recordings = read_labeled(DataSettings(season.root))
    _, valid = split(recordings, DataSettings(season.root))
    windows = score_windows(model, valid, AudioSettings(), torch.device("cpu"))
    with (stages.classifier.parent / "held_out_scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    written = np.array([[float(row[label]) for label in facts.taxonomy.labels] for row in rows])
    np.testing.assert_allclose(written, windows.scores, atol=1e-5)
    assert Counter(row["file"] for row in rows) == Counter(
        str(valid[int(index)].path.resolve()) for index in windows.owner
    )
    pooled = pool_windows(windows, len(valid))
    truth = truth_table(valid, facts.taxonomy.labels, facts.audio)
    assert cmap(truth, pooled) == pytest.approx(cmap_of(facts), abs=1e-6)


def test_training_learns_something(stages: Stages) -> None:
    lines = read_records(stages.classifier.parent)
    assert lines[-1]["loss"] < lines[0]["loss"] and lines[-1]["macro_auc"] > 0.7 and lines[-1]["cmap"] > 0.3


def test_of_a_small_folder_more_epochs_are_made_until_there_are_as_many_updates_as_asked_for() -> None:
    settings = TrainSettings(epochs=3, batch_size=8)
    assert settings.epochs_for(10) == 3
    assert replace(settings, updates=30).epochs_for(10) == 3 and replace(settings, updates=31).epochs_for(10) == 4
    assert replace(settings, updates=30, accumulate=4).epochs_for(10) == 10  # 3 updates each
    assert replace(settings, updates=5).epochs_for(1) == 5
    with pytest.raises(AssertionError, match=r"--train\.updates -1: give 0 or more"):
        replace(settings, updates=-1)


PLAIN = replace(
    FinetuneCommand.defaults("demo"), augment=AugmentSettings((0.0, 0.0), mixup=0.0, roll=0.0, mask=0.0, isolate=0.0)
)


def inputs_of(species: int, moments: float = 0.0) -> LossInputs:
    ancestors = torch.zeros(species, species, dtype=torch.bool)
    return LossInputs(LossSettings(alpha=0.0, moments=moments), 1 - torch.eye(species), ancestors)


def network(species: int) -> BirdClefClassifier:
    torch.manual_seed(0)
    return BirdClefClassifier(Encoder(SIZES["demo"]), AudioSettings(), species, HeadSettings()).eval()


def test_a_species_in_the_background_costs_nothing_and_is_no_false_alarm() -> None:
    model, targets = network(3), torch.tensor([[1.0, 0.0, 0.0]])

    def gradient(secondary: Tensor) -> Tensor:
        model.zero_grad()
        batch = Batch(torch.randn(1, 80_000, generator=torch.Generator().manual_seed(1)), targets, secondary)
        torch.autograd.backward(training_loss(loop_of(model), batch, inputs_of(3), PLAIN))
        pushed = model.get_parameter("head.score.bias").grad
        assert pushed is not None
        return pushed.clone()

    assert gradient(torch.tensor([[0.0, 1.0, 0.0]]))[1] == 0.0
    assert gradient(torch.zeros(1, 3))[1] > 0.0  # negative control: unlabelled, it would be pushed down


def test_a_share_of_the_loss_can_fall_on_the_best_moment() -> None:
    targets, none = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)
    quiet, loud = torch.zeros(1, 2), torch.tensor([[4.0, -4.0]])
    batch = Batch(torch.zeros(1, 80_000), targets, none)

    def loss(share: float) -> float:
        loop = loop_of(network(2), lambda _: (quiet, loud) if share else quiet)
        return training_loss(loop, batch, inputs_of(2, share), PLAIN).item()

    first, second = (label_loss(logits, targets, none, inputs_of(2)).item() for logits in (quiet, loud))
    assert first > 10 * second, "the two differ"
    assert loss(0.0) == pytest.approx(first) and loss(0.25) == pytest.approx(0.75 * first + 0.25 * second)


def test_the_gradient_reaches_head_and_encoder_alike() -> None:
    model = network(3)
    nn.init.normal_(model.get_parameter("head.score.weight"), std=0.1)  # of zeros nothing would reach the encoder
    batch = Batch(0.1 * torch.randn(2, 80_000), torch.eye(3)[:2], torch.zeros(2, 3))
    torch.autograd.backward(training_loss(loop_of(model), batch, inputs_of(3), PLAIN))
    silent = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert silent == ["encoder.whisper.layer_norm.weight", "encoder.whisper.layer_norm.bias"], (
        "no layer's norm but its own"
    )


@pytest.mark.parametrize("kind", ["cnn", "timm"])
def test_pictures_of_the_training_windows_have_mean_0_and_deviation_1(kind: EncoderKind, season: FieldSeason) -> None:
    words = ["--preset", "demo", "--data.root", str(season.root), "--encoder.kind", kind]
    config = parse(FinetuneCommand, words)
    taxonomy, recordings = read_labeled(config.data)
    audio, cpu = AudioSettings(), torch.device("cpu")
    loader = labeled_loader(recordings[:48], taxonomy, config.data, audio, 7, seed=0)
    picture = config.encoder.picture
    assert picture is not None
    encoder = picture_encoder(picture, audio)
    model = BirdClefClassifier(encoder, audio, len(taxonomy.labels), config.head)
    fit_standard(model, encoder, loader, cpu)

    def standardised(epoch: int) -> Tensor:
        set_epoch(loader, epoch)
        pictures = [encoder.picture(model.log_mel(batch.waveforms)) for batch in loader]
        return ((torch.cat(pictures) - encoder.mean) / encoder.deviation).transpose(0, 1).flatten(1).double()

    same = standardised(STANDARD_DRAWS)
    assert len(same) == (2 if kind == "cnn" else 1)
    torch.testing.assert_close(same.mean(dim=1), torch.zeros(len(same)).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(same.std(dim=1), torch.ones(len(same)).double(), atol=1e-3, rtol=0)
    others = standardised(1)  # other windows of the same recordings: nearly so
    assert float(others.mean(dim=1).abs().max()) < 0.1 and float((others.std(dim=1) - 1).abs().max()) < 0.1
    encoder.deviation.fill_(1.0)  # negative control
    assert float((standardised(STANDARD_DRAWS).std(dim=1) - 1).abs().min()) > 0.1
