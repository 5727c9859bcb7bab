"""What a training step is judged by: harder windows and their labels, distances, ancestors, what is left out."""

from typing import Literal

import pytest
import torch

from config import AugmentSettings, DataSettings, LossSettings
from data_loader import Batch, read_labeled
from demo_data import FieldSeason
from training.objective import LossInputs, augmented, label_loss, prepare_loss_inputs


def nothing_special(species: int, settings: LossSettings | None = None) -> LossInputs:
    ancestors = torch.zeros(species, species, dtype=torch.bool)
    return LossInputs(settings or LossSettings(alpha=0.0), 1 - torch.eye(species), ancestors)


def test_of_mixed_windows_the_labels_of_both_count() -> None:
    batch = Batch(torch.randn(4, 16_000), torch.eye(4), torch.eye(4).roll(1, dims=0))

    def mixed(share: float) -> Batch:
        settings = AugmentSettings((0.0, 0.0), mixup=share, roll=0.0, mask=0.0, isolate=0.0)
        chance = torch.Generator().manual_seed(0)
        harder, mel = augmented(batch, lambda waveforms: waveforms[:, None, :100], settings, nothing_special(4), chance)
        assert torch.equal(mel[:, 0], harder.waveforms[:, :100]), "the picture is that of the mixture"
        return harder

    assert (mixed(1.0).targets.sum(dim=1) == 2).all() and (mixed(1.0).secondary.sum(dim=1) == 2).all()
    untouched = mixed(0.0)  # negative control
    assert torch.equal(untouched.targets, batch.targets) and torch.equal(untouched.secondary, batch.secondary)


def test_a_species_that_is_present_and_in_the_background_too_is_present() -> None:
    inputs, tit = nothing_special(2), torch.tensor([[1.0, 0.0]])
    logits = torch.zeros(1, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(label_loss(logits, tit, torch.ones(1, 2), inputs), logits)
    assert gradient[0, 0] < 0 and gradient[0, 1] == 0


def test_a_far_mistake_costs_more_and_without_alpha_all_cost_the_same() -> None:
    tit = torch.tensor([[1.0, 0.0, 0.0]])
    distances = torch.tensor([[0.0, 0.2, 1.0], [0.2, 0.0, 1.0], [1.0, 1.0, 0.0]])

    def push(alpha: float) -> list[float]:
        inputs = LossInputs(LossSettings(alpha=alpha), distances, torch.zeros(3, 3, dtype=torch.bool))
        logits = torch.zeros(1, 3, requires_grad=True)
        (gradient,) = torch.autograd.grad(label_loss(logits, tit, torch.zeros(1, 3), inputs), logits)
        return [float(force) for force in gradient[0]]

    _, crow, cricket = push(4.0)
    assert cricket > 1.5 * crow > 0
    assert push(0.0)[1] == pytest.approx(push(0.0)[2])  # negative control


def test_weights_of_classes_go_by_the_first_label_of_each_recording(season: FieldSeason) -> None:
    taxonomy, recordings = read_labeled(DataSettings(season.root))
    few = [row for row in recordings if row.labels[0] != taxonomy.labels[0]]
    few += [row for row in recordings if row.labels[0] == taxonomy.labels[0]][:1]
    cpu = torch.device("cpu")
    weights = prepare_loss_inputs(taxonomy, few, LossSettings(class_weights="inverse"), None, cpu).class_weights
    assert weights is not None and int(weights.argmax()) == 0 and weights.shape == (len(taxonomy.labels),)
    assert prepare_loss_inputs(taxonomy, few, LossSettings(), None, cpu).class_weights is None


def test_a_shuffled_taxonomy_has_the_same_distances_in_other_places(season: FieldSeason) -> None:
    taxonomy, recordings = read_labeled(DataSettings(season.root))
    cpu = torch.device("cpu")
    true = prepare_loss_inputs(taxonomy, recordings, LossSettings(), None, cpu).distances
    shuffled = prepare_loss_inputs(taxonomy, recordings, LossSettings(shuffle=True), None, cpu).distances
    assert not torch.equal(true, shuffled) and torch.equal(true.flatten().sort()[0], shuffled.flatten().sort()[0])
    assert torch.equal(shuffled, shuffled.T) and not shuffled.diagonal().any()


def test_bird_where_a_tit_sings_is_left_alone_pulled_up_or_pushed_down() -> None:
    tit, owl, bird = (torch.eye(3)[column] for column in range(3))
    ancestors = torch.zeros(3, 3, dtype=torch.bool)
    ancestors[2, :2] = True

    def push(policy: Literal["ignore", "imply", "flat"], heard: torch.Tensor) -> list[float]:
        inputs = LossInputs(LossSettings(alpha=0.0, ancestors=policy), torch.zeros(3, 3), ancestors)
        logits = torch.zeros(1, 3, requires_grad=True)
        (gradient,) = torch.autograd.grad(label_loss(logits, heard[None], torch.zeros(1, 3), inputs), logits)
        return [float(force.sign()) for force in gradient[0]]

    assert push("ignore", tit) == [-1, 1, 0] and push("ignore", bird) == [0, 0, -1]
    assert push("imply", tit) == [-1, 1, -1] and push("imply", bird) == [0, 0, -1]
    assert push("flat", tit) == [-1, 1, 1] and push("flat", bird) == [1, 1, -1]
    assert push("ignore", owl) == [1, -1, 0]
