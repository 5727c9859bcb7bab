from __future__ import annotations

from collections.abc import Iterator
from math import exp, log
from time import perf_counter
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from loss import (
    CHUNK,
    distance_to_present,
    hierarchical_distance_loss,
    least_over_present,
    masked_reconstruction_loss,
    valid_mask,
)
from metrics import macro_roc_auc

Mode = Literal["all", "hard", "soft"]
MODES: tuple[Mode, ...] = ("all", "hard", "soft")


def tree(*sizes: int) -> Tensor:
    """(species, species) distances of orders with so many species each, two species to a genus: 1/3, 2/3 or 1."""
    order = torch.cat([torch.full((size,), float(number)) for number, size in enumerate(sizes)])
    species = torch.arange(sum(sizes))
    paths = torch.stack([order, 100 * order + species // 2, species.float()], dim=1)
    return (paths[:, None] != paths[None]).sum(dim=2) / 3


def batch(seed: int = 0, rows: int = 6, species: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """logits; fractions as targets, one row without any; a mask; distances."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(rows, species, generator=generator) * (torch.rand(rows, species, generator=generator) < 0.3)
    targets[1] = 0
    logits = 3 * torch.randn(rows, species, generator=generator)
    valid = torch.rand(rows, species, generator=generator) < 0.8
    return logits, targets, valid, tree(4, species - 4)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are slowed down by threads, the more so where other work competes for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gradient(loss: Tensor, *inputs: Tensor) -> Tensor:
    return torch.autograd.grad(loss, inputs)[0]


def by_hand(
    logits: Tensor, targets: Tensor, valid: Tensor, distances: Tensor, alpha: float, mode: Mode, unit_mean: bool
) -> float:
    """One entry after the other, as it would be explained at a blackboard."""
    rows, species = logits.shape
    weights = torch.ones(rows, species, dtype=torch.float64)
    for row in range(rows):
        present = [label for label in range(species) if targets[row, label] >= 0.1]
        for label in range(species):
            delta = min((float(distances[label, other]) for other in present), default=0.0)
            chance = float(logits[row, label].double().sigmoid())
            extra = {"all": 1.0, "hard": float(chance > 0.5), "soft": chance}[mode]
            weights[row, label] += alpha * delta * extra
    if unit_mean:
        before = after = 0.0
        for row in range(rows):
            for label in range(species):
                share = float(valid[row, label]) * (1 - float(targets[row, label]))
                before, after = before + share, after + share * float(weights[row, label])
        weights *= before / after
    total = count = 0.0
    for row in range(rows):
        for label in range(species):
            wanted, chance = float(targets[row, label]), float(logits[row, label].double().sigmoid())
            term = -wanted * log(chance) - float(weights[row, label]) * (1 - wanted) * log(1 - chance)
            total += float(valid[row, label]) * term
            count += float(valid[row, label])
    return total / count


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("unit_mean", [True, False])
def test_alpha_zero_is_plain_bce(mode: Mode, unit_mean: bool) -> None:
    logits, targets, valid, distances = batch()
    loss = hierarchical_distance_loss(
        logits, targets, distances, alpha=0.0, mode=mode, valid=valid, unit_mean=unit_mean
    )
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    assert loss.shape == () and torch.allclose(loss, each[valid].mean(), atol=1e-6)
    assert torch.allclose(hierarchical_distance_loss(logits, targets, distances, alpha=0.0), each.mean(), atol=1e-6), (
        "without a mask every entry counts"
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("unit_mean", [True, False])
def test_the_loss_equals_a_slow_loop(mode: Mode, unit_mean: bool) -> None:
    for seed in range(3):
        logits, targets, valid, distances = batch(seed)
        loss = hierarchical_distance_loss(
            logits, targets, distances, alpha=2.5, mode=mode, valid=valid, unit_mean=unit_mean
        )
        assert float(loss) == pytest.approx(by_hand(logits, targets, valid, distances, 2.5, mode, unit_mean), rel=1e-5)


def test_a_false_alarm_is_pushed_down_harder_the_farther_it_is() -> None:
    distances = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3], [2, 2, 0, 3], [3, 3, 3, 0]]) / 3
    logits, targets = torch.zeros(1, 4, requires_grad=True), torch.eye(4)[:1]
    push = 4 * gradient(hierarchical_distance_loss(logits, targets, distances, alpha=3.0, unit_mean=False), logits)[0]
    assert torch.allclose(push, torch.tensor([-0.5, 0.5 * 2, 0.5 * 3, 0.5 * 4])), "half of 1 + alpha * distance"
    plain = gradient(hierarchical_distance_loss(logits, targets, distances, alpha=0.0), logits)[0]
    assert plain[1] == plain[3], "control: without alpha all are pushed alike"


def test_the_nearest_of_several_present_species_counts() -> None:
    distances = tree(4, 4)
    heard = torch.zeros(1, 8, dtype=torch.bool)
    heard[0, [0, 5]] = True
    nearest = distance_to_present(distances, heard)[0]
    assert torch.allclose(nearest * 3, torch.tensor([0.0, 1, 2, 2, 1, 0, 2, 2]))


def test_secondary_species_make_their_relatives_near_without_a_term_of_their_own() -> None:
    distances, targets, logits = tree(4, 4), torch.eye(8)[:1], torch.zeros(1, 8, requires_grad=True)
    secondary = torch.eye(8)[4:5] > 0
    present = (targets > 0) | secondary
    valid = valid_mask(present, torch.zeros(8, 8, dtype=torch.bool), secondary)
    loss = hierarchical_distance_loss(
        logits, targets, distances, alpha=3.0, present=present, valid=valid, unit_mean=False
    )
    push = 7 * gradient(loss, logits)[0]
    assert push[4] == 0 and torch.allclose(push[5], torch.tensor(0.5 * (1 + 3 / 3)))
    alone = hierarchical_distance_loss(logits, targets, distances, alpha=3.0, valid=valid, unit_mean=False)
    assert torch.allclose(7 * gradient(alone, logits)[0][5], torch.tensor(0.5 * (1 + 3))), "control: not told of it"


def test_taxa_above_and_below_a_present_label_are_no_false_alarms() -> None:
    ancestors = torch.zeros(5, 5, dtype=torch.bool)  # 0 order; 1 family in it; 2, 3 species in the family; 4 stranger
    ancestors[0, 1:4] = ancestors[1, 2:4] = True
    present = torch.eye(5, dtype=torch.bool)
    expected = torch.tensor(
        [[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool
    )
    assert torch.equal(valid_mask(present, ancestors), expected)
    logits = torch.ones(5, 5, requires_grad=True)
    distances = 1 - torch.eye(5)
    loss = hierarchical_distance_loss(logits, present.float(), distances, alpha=4.0, valid=expected)
    assert torch.equal(gradient(loss, logits) != 0, expected)
    everything = hierarchical_distance_loss(logits, present.float(), distances, alpha=4.0)
    assert (gradient(everything, logits) != 0).all(), "control: without the mask they are pushed"


def test_a_label_that_is_itself_present_counts_whatever_stands_above_it() -> None:
    ancestors = torch.tensor([[False, True], [False, False]])
    both, none = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.bool)
    assert valid_mask(both, ancestors).all() and valid_mask(none, ancestors).all()
    assert valid_mask(both, ancestors, torch.tensor([[False, True]])).tolist() == [[True, False]]


@pytest.mark.parametrize("mode", MODES)
def test_a_row_in_which_nothing_is_present_is_plain_bce(mode: Mode) -> None:
    logits, targets, _, distances = batch()
    silent = hierarchical_distance_loss(logits[1:2], targets[1:2], distances, alpha=4.0, mode=mode, unit_mean=False)
    assert torch.allclose(silent, F.binary_cross_entropy_with_logits(logits[1:2], targets[1:2]), atol=1e-6)
    assert torch.equal(distance_to_present(distances, targets >= 0.1)[1], torch.zeros(9))


def test_unit_mean_keeps_what_absent_species_weigh_together() -> None:
    _, targets, valid, distances = batch()
    logits = torch.zeros_like(targets, requires_grad=True)
    present = targets >= 0.1

    def push_down(unit_mean: bool) -> float:
        weighed = hierarchical_distance_loss(
            logits, torch.zeros_like(targets), distances, alpha=4.0, present=present, valid=valid, unit_mean=unit_mean
        )
        return float(gradient(weighed, logits).sum())

    assert push_down(unit_mean=True) == pytest.approx(0.5, abs=1e-6)
    assert push_down(unit_mean=False) > 1.0, "control: without it the absent weigh more"


def test_present_species_are_pulled_up_alike_whatever_alpha_is() -> None:
    logits, _, _, distances = batch()
    logits.requires_grad_()
    targets = torch.eye(9)[[0, 3, 5, 1, 1, 8]]
    pulls = [
        gradient(hierarchical_distance_loss(logits, targets, distances, alpha=alpha), logits)[targets > 0]
        for alpha in (0.0, 4.0)
    ]
    assert torch.allclose(pulls[0], pulls[1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_scores_stay_finite(mode: Mode, size: float) -> None:
    _, targets, valid, distances = batch()
    logits = torch.full_like(targets, size, requires_grad=True)
    loss = hierarchical_distance_loss(logits, targets, distances, alpha=4.0, mode=mode, valid=valid)
    assert loss.isfinite() and gradient(loss, logits).isfinite().all()


@pytest.mark.parametrize("mode", MODES)
def test_the_loss_is_float32_under_bf16_autocast(mode: Mode) -> None:
    logits, targets, valid, distances = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = hierarchical_distance_loss(logits, targets, distances, alpha=4.0, mode=mode, valid=valid)
        product = logits @ logits.T
        half = hierarchical_distance_loss(logits.bfloat16(), targets, distances, alpha=4.0, mode=mode, valid=valid)
    assert product.dtype == torch.bfloat16, "control: autocast is on"
    outside = hierarchical_distance_loss(logits, targets, distances, alpha=4.0, mode=mode, valid=valid)
    coarse = logits.bfloat16().float()
    rounded = hierarchical_distance_loss(coarse, targets, distances, alpha=4.0, mode=mode, valid=valid)
    assert inside.dtype == half.dtype == torch.float32
    assert torch.equal(inside, outside) and torch.equal(half, rounded)


def test_soft_is_the_gradient_of_a_convex_potential() -> None:
    alpha = 4.0
    _, _, _, distances = batch()
    logits = torch.linspace(-6, 6, 7 * 9, dtype=torch.float32).reshape(7, 9).requires_grad_()
    targets = torch.eye(9)[:7]
    loss = hierarchical_distance_loss(logits, targets, distances, alpha=alpha, mode="soft", unit_mean=False)
    delta = distance_to_present(distances, targets > 0)
    plus = F.softplus(logits)
    potential = targets * F.softplus(-logits) + (1 - targets) * (plus + alpha * delta * (plus - logits.sigmoid()))
    push = gradient(loss, logits)
    assert torch.allclose(push, gradient(potential.mean(), logits), atol=1e-7)
    weight = 1 + alpha * delta * logits.sigmoid()
    attached = targets * F.softplus(-logits) + (1 - targets) * weight * F.softplus(logits)
    assert not torch.allclose(push, gradient(attached.mean(), logits), atol=1e-3), "control: weights with a gradient"


def test_hard_weighs_only_what_the_model_believes() -> None:
    distances, targets = tree(4, 4), torch.eye(8)[:1]
    logits = torch.tensor([[0.0, -1, -1, -1, 2.1, 1.9, -1, 3]], requires_grad=True)
    loss = hierarchical_distance_loss(
        logits, targets, distances, alpha=4.0, mode="hard", tau=1 / (1 + exp(-2)), unit_mean=False
    )
    bce = F.binary_cross_entropy_with_logits(logits, targets)
    ratio = gradient(loss, logits)[0] / gradient(bce, logits)[0]
    assert torch.allclose(ratio, torch.tensor([1.0, 1, 1, 1, 5, 1, 1, 5]))


def test_smoothing_leaves_the_distances_alone_when_presence_is_told() -> None:
    distances, clean = tree(4, 4), torch.eye(8)[[0, 5]]
    heavy = 0.1 + 0.9 * clean * (1 - 0.1)
    logits = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))

    def weighed(targets: Tensor, present: Tensor | None) -> Tensor:
        loss = hierarchical_distance_loss(logits, targets, distances, alpha=4.0, present=present, unit_mean=False)
        return loss - F.binary_cross_entropy_with_logits(logits, targets)

    extra = 4 * distance_to_present(distances, clean > 0) * F.softplus(logits)
    assert torch.allclose(weighed(heavy, clean >= 0.1), ((1 - heavy) * extra).mean(), atol=1e-6)
    light = 0.95 * clean + 0.05 / 8
    assert torch.allclose(weighed(light, None), ((1 - light) * extra).mean(), atol=1e-6), "below the threshold"
    assert weighed(heavy, None).abs() < 1e-6, "control: presence read from smoothed labels makes it plain BCE"


def test_a_batch_without_a_valid_entry_costs_nothing() -> None:
    logits, targets, valid, distances = batch()
    assert float(hierarchical_distance_loss(logits, targets, distances, alpha=1.0, valid=valid & False)) == 0.0


def test_a_batch_in_which_everything_is_present_fits_through_in_chunks() -> None:
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(20, 60, generator=generator) < 0.7
    table = torch.rand(60, 60, generator=generator)
    assert int(present.sum()) > 3 * CHUNK
    dense = torch.where(present[:, :, None], table, torch.inf).amin(dim=1)
    assert torch.equal(least_over_present(present, lambda label: table[label]), dense)


def test_the_loss_of_a_usual_batch_takes_milliseconds() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 206, generator=generator, requires_grad=True)
    targets = (torch.rand(64, 206, generator=generator) < 0.015).float()
    distances, ancestors = tree(150, 56), torch.zeros(206, 206, dtype=torch.bool)

    def once() -> float:
        begin = perf_counter()
        valid = valid_mask(targets > 0, ancestors)
        gradient(hierarchical_distance_loss(logits, targets, distances, alpha=1.0, valid=valid), logits)
        return perf_counter() - begin

    assert min(once() for _ in range(10)) < 0.030


def test_shapes_and_settings_that_cannot_be_meant_are_refused() -> None:
    logits, targets, valid, distances = batch()
    with pytest.raises(AssertionError, match=r"targets torch.Size\(\[6, 8\]\)"):
        hierarchical_distance_loss(logits, targets[:, :8], distances, alpha=1.0)
    with pytest.raises(AssertionError, match="use the same labels"):
        hierarchical_distance_loss(logits, targets, distances[:8, :8], alpha=1.0)
    with pytest.raises(AssertionError, match="present: bool"):
        hierarchical_distance_loss(logits, targets, distances, alpha=1.0, present=targets)
    with pytest.raises(AssertionError, match="valid must be"):
        hierarchical_distance_loss(logits, targets, distances, alpha=1.0, valid=valid[0])
    with pytest.raises(AssertionError, match="alpha -1"):
        hierarchical_distance_loss(logits, targets, distances, alpha=-1.0)
    with pytest.raises(AssertionError, match="ancestors"):
        valid_mask(valid, distances[:8, :8] > 0)


def test_reconstruction_is_the_mean_square_over_hidden_tokens_alone() -> None:
    target = torch.zeros(1, 3, 2)
    prediction = torch.tensor([[[1.0, 3.0], [100.0, 100.0], [0.0, 2.0]]])
    hidden = torch.tensor([[True, False, True]])
    assert float(masked_reconstruction_loss(prediction, target, hidden)) == (1 + 9 + 0 + 4) / 4
    everything = masked_reconstruction_loss(prediction, target, torch.ones(1, 3, dtype=torch.bool))
    assert float(everything) == pytest.approx(float(F.mse_loss(prediction, target)))


def test_nothing_leaks_out_of_visible_tokens_not_even_nan() -> None:
    generator = torch.Generator().manual_seed(0)
    target, prediction = torch.randn(2, 4, 3, generator=generator), torch.randn(2, 4, 3, generator=generator)
    hidden = torch.tensor([[True, False, False, True], [False, True, True, False]])
    clean = masked_reconstruction_loss(prediction, target, hidden)
    target[~hidden], prediction[0, 1] = torch.nan, torch.inf
    prediction.requires_grad_()
    dirty = masked_reconstruction_loss(prediction, target, hidden)
    slope = gradient(dirty, prediction)
    assert torch.equal(clean, dirty)
    assert slope.isfinite().all() and not slope[~hidden].any() and slope[hidden].all()
    careless = ((prediction - target).square().mean(dim=2) * hidden).sum()
    assert careless.isnan(), "control: multiplying by the mask lets NaN through"


def test_reconstruction_is_float32_and_refuses_a_picture_without_hidden_tokens() -> None:
    target = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    hidden = torch.ones(2, 4, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = masked_reconstruction_loss(target.bfloat16(), target, hidden)
    assert loss.dtype == torch.float32 and 0 < float(loss) < 1e-4, "what rounding to bfloat16 lost"
    with pytest.raises(AssertionError, match="no token is hidden"):
        masked_reconstruction_loss(target, target, ~hidden)
    with pytest.raises(AssertionError, match="must be equal"):
        masked_reconstruction_loss(target[:, :3], target, hidden)
    with pytest.raises(AssertionError, match="hidden must be bool"):
        masked_reconstruction_loss(target, target, hidden[:, :3])


def pretend_fauna() -> Tensor:
    """(50, 4) class, order, family and species of 36 birds, 9 frogs and 5 insects."""
    birds = [(0, bird // 4, bird // 2, bird) for bird in range(36)]
    frogs = [(1, 100, 100 + frog // 3, 100 + frog) for frog in range(9)]
    return torch.tensor(birds + frogs + [(2, 200, 200, 200 + insect) for insect in range(5)])


def learn(seed: int, alpha: float, shuffled: bool) -> tuple[float, float, float]:
    """Fit a linear model to animals that sound the more alike the nearer they are; many birds, few insects.

    returns   by the true tree, all species equally common: mean distance of the best guess, and of the 1,000 surest
              false alarms; last the macro ROC-AUC
    """
    generator = torch.Generator().manual_seed(seed)
    paths = pretend_fauna()
    true_distances = (paths[:, None] != paths[None]).sum(dim=2) / 4
    order = torch.randperm(50, generator=generator) if shuffled else torch.arange(50)
    generator.manual_seed(1000 + seed)  # the same animals, shuffled tree or not
    voices = torch.zeros(50, 24)
    for rank, spread in enumerate((1.0, 0.7, 0.6, 0.5)):
        voices += spread * torch.randn(300, 24, generator=generator)[paths[:, rank]]
    commonness = torch.tensor([1.0] * 36 + [0.4] * 9 + [0.15] * 5)
    species = torch.cat(
        [
            torch.multinomial(commonness, 1000, True, generator=generator),
            torch.multinomial(torch.ones(50), 2000, True, generator=generator),
        ]
    )
    sounds = voices[species] + 1.2 * torch.randn(3000, 24, generator=generator)
    truth = F.one_hot(species, 50).float()
    weight, bias = torch.zeros(50, 24, requires_grad=True), torch.zeros(50, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=0.03)
    for _ in range(60):
        logits = F.linear(sounds[:1000], weight, bias)
        loss = hierarchical_distance_loss(logits, truth[:1000], true_distances[order][:, order], alpha=alpha)
        weight.grad, bias.grad = torch.autograd.grad(loss, (weight, bias))
        optimiser.step()
    scores = F.linear(sounds[1000:], weight, bias).detach()
    off = true_distances[species[1000:]]
    missed = float(off.gather(1, scores.argmax(dim=1, keepdim=True)).mean())
    absent = truth[1000:] == 0
    far = float(off[absent][scores[absent].topk(1000).indices].mean())
    return missed, far, macro_roc_auc(truth[1000:].numpy(), scores.numpy())


def test_the_tree_and_not_the_weighting_brings_mistakes_nearer() -> None:
    plain, weighted, shuffled = (
        torch.tensor([learn(seed, alpha, control) for seed in range(3)])
        for alpha, control in ((0.0, False), (4.0, False), (4.0, True))
    )
    gain, control = plain - weighted, plain - shuffled
    assert (gain[:, 0] > 0.02).all() and (gain[:, 1] > 0.05).all(), f"distance of guesses, of false alarms: {gain}"
    assert (gain[:, 2] < 0.005).all(), f"ranking the species has become worse by {gain[:, 2]}"
    assert control[:, 0].mean() < 0.2 * gain[:, 0].mean(), f"a shuffled tree gains {control[:, 0]}"
    assert control[:, 1].mean() < 0.2 * gain[:, 1].mean(), f"a shuffled tree gains {control[:, 1]}"


def test_cost_sensitive_posterior_is_where_theory_puts_it() -> None:
    """A sound that is species 0 in one of ten recordings and the farthest species else."""
    distances = 1 - torch.eye(2)
    targets = torch.tensor([[1.0, 0.0]] + [[0.0, 1.0]] * 9)
    score = torch.zeros(1, 2, requires_grad=True)
    for _ in range(400):
        loss = hierarchical_distance_loss(score.expand(10, 2), targets, distances, alpha=1.0, unit_mean=False)
        score.data -= 2.0 * gradient(loss, score)
    assert float(score.detach()[0, 0].sigmoid()) == pytest.approx(0.1 / (0.1 + 0.9 * 2), abs=1e-3)
