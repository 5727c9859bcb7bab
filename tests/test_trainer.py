"""The supervised loop: what is pooled, what is kept, and that held-out scores are those of the file that is kept."""

import csv
import json
from collections import Counter
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from conftest import Stages

from checkpoint import ClassifierFacts, load_classifier
from config import SIZES, AudioSettings, AugmentSettings, DataSettings, FinetuneCommand, HeadSettings, LossSettings
from data_loader import Batch, read_labeled, split, truth_table
from demo_data import FieldSeason
from evaluation import WindowScores, pool_windows
from metrics import cmap
from model import BirdClefClassifier, Encoder
from runs import read_records
from trainer import Lesson, cost, prepare_lesson, score_windows, training_loss


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


def test_the_kept_epoch_is_the_one_with_the_best_cmap(stages: Stages) -> None:
    lines = read_records(stages.classifier.parent)
    best = max(lines, key=lambda line: line["cmap"])
    _, facts = load_classifier(stages.classifier)
    assert facts.provenance["epoch"] == best["epoch"]
    assert cmap_of(facts) == pytest.approx(best["cmap"])


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
    assert cmap(truth, pooled) == pytest.approx(cmap_of(facts), abs=0.01)  # that one was heard from the cache


def test_training_learns_something(stages: Stages) -> None:
    lines = read_records(stages.classifier.parent)
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert max(line["macro_auc"] for line in lines) > 0.6


def test_a_species_in_the_background_costs_nothing_and_is_no_false_alarm() -> None:
    config = FinetuneCommand.defaults("demo")
    config = replace(config, augment=AugmentSettings((0.0, 0.0), mixup=0.0, roll=0.0, mask=0.0))
    torch.manual_seed(0)
    model = BirdClefClassifier(Encoder(SIZES["demo"]), AudioSettings(), 3, HeadSettings("mean")).eval()
    distances, ancestors = 1 - torch.eye(3), torch.zeros(3, 3, dtype=torch.bool)
    targets, background = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])

    def gradient(secondary: torch.Tensor) -> torch.Tensor:
        model.zero_grad()
        batch = Batch(torch.randn(1, 80_000, generator=torch.Generator().manual_seed(1)), targets, secondary)
        generator = torch.Generator().manual_seed(0)
        lesson = Lesson(config.loss, distances, ancestors)
        loss = training_loss(model, model.judge, batch, lesson, config, generator)
        torch.autograd.backward(loss)
        pushed = model.get_parameter("head.pool.score.bias").grad
        assert pushed is not None
        return pushed.clone()

    assert gradient(background)[1] == 0.0
    assert gradient(torch.zeros(1, 3))[1] > 0.0  # negative control: unlabelled, it would be pushed down


def test_a_share_of_the_loss_can_fall_on_the_best_moment() -> None:
    torch.manual_seed(0)
    lesson = Lesson(LossSettings(alpha=0.0), torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool))
    targets, none = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)
    quiet, loud = torch.zeros(1, 2), torch.tensor([[4.0, -4.0]])
    model = BirdClefClassifier(Encoder(SIZES["demo"]), AudioSettings(), 2, HeadSettings("mean"))
    batch = Batch(torch.zeros(1, 80_000), targets, none)
    config = FinetuneCommand.defaults("demo")

    def loss(share: float) -> float:
        mine = replace(lesson, loss=LossSettings(alpha=0.0, moments=share))
        generator = torch.Generator().manual_seed(0)
        return training_loss(model, lambda _: (quiet[:, None], loud), batch, mine, config, generator).item()

    first, second = (cost(logits, targets, none, lesson).item() for logits in (quiet, loud))
    assert loss(0.0) == pytest.approx(first) and loss(0.25) == pytest.approx(0.75 * first + 0.25 * second)


def test_each_voice_of_the_head_is_taught_as_if_it_were_alone() -> None:
    lesson = Lesson(LossSettings(alpha=0.0), torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool))
    batch = Batch(torch.zeros(1, 80_000), torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2))
    model = BirdClefClassifier(Encoder(SIZES["demo"]), AudioSettings(), 2, HeadSettings("mean"))
    voices = torch.tensor([[[0.0, 0.0], [9.0, -9.0]]], requires_grad=True)  # the second knows the answer already
    config, generator = FinetuneCommand.defaults("demo"), torch.Generator().manual_seed(0)
    loss = training_loss(model, lambda _: (voices, voices[:, 0]), batch, lesson, config, generator)
    (gradient,) = torch.autograd.grad(loss, voices)
    assert gradient[0, 0].abs().min() == pytest.approx(0.125)  # half of what it is without the second
    together = cost(voices.mean(dim=1), batch.targets, batch.secondary, lesson)
    assert torch.autograd.grad(together, voices)[0].abs().max() < 0.01  # negative control: taught as a mean


def test_a_shuffled_taxonomy_has_the_same_distances_in_other_places(season: FieldSeason) -> None:
    taxonomy, recordings = read_labeled(DataSettings(season.root))
    cpu = torch.device("cpu")
    true = prepare_lesson(taxonomy, recordings, LossSettings(), None, cpu).distances
    shuffled = prepare_lesson(taxonomy, recordings, LossSettings(shuffle=True), None, cpu).distances
    assert not torch.equal(true, shuffled) and torch.equal(true.flatten().sort()[0], shuffled.flatten().sort()[0])
    assert torch.equal(shuffled, shuffled.T) and not shuffled.diagonal().any()


def test_bird_where_a_tit_sings_is_left_alone_pulled_up_or_pushed_down() -> None:
    tit, owl, bird = (torch.eye(3)[column] for column in range(3))
    ancestors = torch.zeros(3, 3, dtype=torch.bool)
    ancestors[2, :2] = True

    def push(policy: Literal["ignore", "imply", "flat"], heard: torch.Tensor) -> list[float]:
        lesson = Lesson(LossSettings(alpha=0.0, ancestors=policy), torch.zeros(3, 3), ancestors)
        logits = torch.zeros(1, 3, requires_grad=True)
        (gradient,) = torch.autograd.grad(cost(logits, heard[None], torch.zeros(1, 3), lesson), logits)
        return [float(force.sign()) for force in gradient[0]]

    assert push("ignore", tit) == [-1, 1, 0] and push("ignore", bird) == [0, 0, -1]
    assert push("imply", tit) == [-1, 1, -1] and push("imply", bird) == [0, 0, -1]
    assert push("flat", tit) == [-1, 1, 1] and push("flat", bird) == [1, 1, -1]
    assert push("ignore", owl) == [1, -1, 0]
