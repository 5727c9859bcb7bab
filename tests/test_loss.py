from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from math import exp, log
from time import perf_counter
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from config import ClassWeights, LossKind
from evaluation.metrics import macro_roc_auc
from loss import (
    CHUNK,
    CLASS_WEIGHTS,
    LOSS_KINDS,
    WEIGHED_BY_DISTANCE,
    asymmetric_loss,
    class_weight_vector,
    classification_loss,
    distance_to_present,
    distance_weights,
    focal_loss,
    imitation_loss,
    least_of_all,
    least_over_present,
    masked_reconstruction_loss,
    smooth_targets,
    valid_mask,
)

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


def distance_loss(
    logits: Tensor, targets: Tensor, distances: Tensor, *, valid: Tensor | None = None, **settings: Any
) -> Tensor:
    """Binary cross-entropy in which a far-fetched false alarm costs more, put together as training does it."""
    weights = distance_weights(logits, targets, distances, valid=valid, **settings)
    return classification_loss(logits, targets, kind="bce", valid=valid, absent_weights=weights)


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
        heard = [row for row in range(rows) if (targets[row] >= 0.1).any()]
        for row in heard:
            for label in range(species):
                share = float(valid[row, label]) * (1 - float(targets[row, label]))
                before, after = before + share, after + share * float(weights[row, label])
        weights[heard] *= before / after
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
    loss = distance_loss(logits, targets, distances, alpha=0.0, mode=mode, valid=valid, unit_mean=unit_mean)
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    assert loss.shape == () and torch.allclose(loss, each[valid].mean(), atol=1e-6)
    assert torch.allclose(distance_loss(logits, targets, distances, alpha=0.0), each.mean(), atol=1e-6), (
        "without a mask every entry counts"
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("unit_mean", [True, False])
def test_the_loss_equals_a_slow_loop(mode: Mode, unit_mean: bool) -> None:
    for seed in range(3):
        logits, targets, valid, distances = batch(seed)
        loss = distance_loss(logits, targets, distances, alpha=2.5, mode=mode, valid=valid, unit_mean=unit_mean)
        assert float(loss) == pytest.approx(by_hand(logits, targets, valid, distances, 2.5, mode, unit_mean), rel=1e-5)


def test_a_false_alarm_is_pushed_down_harder_the_farther_it_is() -> None:
    distances = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3], [2, 2, 0, 3], [3, 3, 3, 0]]) / 3
    logits, targets = torch.zeros(1, 4, requires_grad=True), torch.eye(4)[:1]
    push = 4 * gradient(distance_loss(logits, targets, distances, alpha=3.0, unit_mean=False), logits)[0]
    assert torch.allclose(push, torch.tensor([-0.5, 0.5 * 2, 0.5 * 3, 0.5 * 4])), "half of 1 + alpha * distance"
    plain = gradient(distance_loss(logits, targets, distances, alpha=0.0), logits)[0]
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
    loss = distance_loss(logits, targets, distances, alpha=3.0, present=present, valid=valid, unit_mean=False)
    push = 7 * gradient(loss, logits)[0]
    assert push[4] == 0 and torch.allclose(push[5], torch.tensor(0.5 * (1 + 3 / 3)))
    alone = distance_loss(logits, targets, distances, alpha=3.0, valid=valid, unit_mean=False)
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
    loss = distance_loss(logits, present.float(), distances, alpha=4.0, valid=expected)
    assert torch.equal(gradient(loss, logits) != 0, expected)
    everything = distance_loss(logits, present.float(), distances, alpha=4.0)
    assert (gradient(everything, logits) != 0).all(), "control: without the mask they are pushed"


def test_a_label_that_is_itself_present_counts_whatever_stands_above_it() -> None:
    ancestors = torch.tensor([[False, True], [False, False]])
    both, none = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.bool)
    assert valid_mask(both, ancestors).all() and valid_mask(none, ancestors).all()
    assert valid_mask(both, ancestors, torch.tensor([[False, True]])).tolist() == [[True, False]]


@pytest.mark.parametrize("mode", MODES)
def test_a_row_in_which_nothing_is_present_is_plain_bce(mode: Mode) -> None:
    logits, targets, _, distances = batch()
    silent = distance_loss(logits[1:2], targets[1:2], distances, alpha=4.0, mode=mode, unit_mean=False)
    assert torch.allclose(silent, F.binary_cross_entropy_with_logits(logits[1:2], targets[1:2]), atol=1e-6)
    assert torch.equal(distance_to_present(distances, targets >= 0.1)[1], torch.zeros(9))
    weights = distance_weights(logits, targets, distances, alpha=4.0, mode=mode)
    assert torch.equal(weights[1], torch.ones(9)), "whatever else is in the batch"
    others = torch.tensor([0, *range(2, len(targets))])
    alone = distance_weights(logits[others], targets[others], distances, alpha=4.0, mode=mode)
    assert torch.allclose(weights[others], alone), "and the others weigh what they weigh without it"
    assert (alone != 1).any(), "negative control"


def test_unit_mean_keeps_what_absent_species_weigh_together() -> None:
    _, targets, valid, distances = batch()
    logits = torch.zeros_like(targets, requires_grad=True)
    present = targets >= 0.1

    def push_down(unit_mean: bool) -> float:
        weighed = distance_loss(
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
        gradient(distance_loss(logits, targets, distances, alpha=alpha), logits)[targets > 0] for alpha in (0.0, 4.0)
    ]
    assert torch.allclose(pulls[0], pulls[1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_scores_stay_finite(mode: Mode, size: float) -> None:
    _, targets, valid, distances = batch()
    logits = torch.full_like(targets, size, requires_grad=True)
    loss = distance_loss(logits, targets, distances, alpha=4.0, mode=mode, valid=valid)
    assert loss.isfinite() and gradient(loss, logits).isfinite().all()


@pytest.mark.parametrize("mode", MODES)
def test_the_loss_is_float32_under_bf16_autocast(mode: Mode) -> None:
    logits, targets, valid, distances = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = distance_loss(logits, targets, distances, alpha=4.0, mode=mode, valid=valid)
        product = logits @ logits.T
        half = distance_loss(logits.bfloat16(), targets, distances, alpha=4.0, mode=mode, valid=valid)
    assert product.dtype == torch.bfloat16, "control: autocast is on"
    outside = distance_loss(logits, targets, distances, alpha=4.0, mode=mode, valid=valid)
    coarse = logits.bfloat16().float()
    rounded = distance_loss(coarse, targets, distances, alpha=4.0, mode=mode, valid=valid)
    assert inside.dtype == half.dtype == torch.float32
    assert torch.equal(inside, outside) and torch.equal(half, rounded)


def test_soft_is_the_gradient_of_a_convex_potential() -> None:
    alpha = 4.0
    _, _, _, distances = batch()
    logits = torch.linspace(-6, 6, 7 * 9, dtype=torch.float32).reshape(7, 9).requires_grad_()
    targets = torch.eye(9)[:7]
    loss = distance_loss(logits, targets, distances, alpha=alpha, mode="soft", unit_mean=False)
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
    loss = distance_loss(logits, targets, distances, alpha=4.0, mode="hard", tau=1 / (1 + exp(-2)), unit_mean=False)
    bce = F.binary_cross_entropy_with_logits(logits, targets)
    ratio = gradient(loss, logits)[0] / gradient(bce, logits)[0]
    assert torch.allclose(ratio, torch.tensor([1.0, 1, 1, 1, 5, 1, 1, 5]))


def test_smoothing_leaves_the_distances_alone_when_presence_is_told() -> None:
    distances, clean = tree(4, 4), torch.eye(8)[[0, 5]]
    heavy = 0.1 + 0.9 * clean * (1 - 0.1)
    logits = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))

    def weighed(targets: Tensor, present: Tensor | None) -> Tensor:
        loss = distance_loss(logits, targets, distances, alpha=4.0, present=present, unit_mean=False)
        return loss - F.binary_cross_entropy_with_logits(logits, targets)

    extra = 4 * distance_to_present(distances, clean > 0) * F.softplus(logits)
    assert torch.allclose(weighed(heavy, clean >= 0.1), ((1 - heavy) * extra).mean(), atol=1e-6)
    light = 0.95 * clean + 0.05 / 8
    assert torch.allclose(weighed(light, None), ((1 - light) * extra).mean(), atol=1e-6), "below the threshold"
    assert weighed(heavy, None).abs() < 1e-6, "control: presence read from smoothed labels makes it plain BCE"


def test_a_batch_without_a_valid_entry_costs_nothing() -> None:
    logits, targets, valid, distances = batch()
    assert float(distance_loss(logits, targets, distances, alpha=1.0, valid=valid & False)) == 0.0


def test_a_batch_in_which_everything_is_present_fits_through_in_chunks() -> None:
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(20, 60, generator=generator) < 0.7
    table = torch.rand(60, 60, generator=generator)
    assert int(present.sum()) > 3 * CHUNK
    dense = torch.where(present[:, :, None], table, torch.inf).amin(dim=1)
    assert torch.equal(least_over_present(present, lambda label: table[label]), dense)
    assert torch.equal(least_of_all(present, lambda label: table[label]), dense), "as on a GPU"


def test_the_loss_of_a_usual_batch_takes_milliseconds() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 206, generator=generator, requires_grad=True)
    targets = (torch.rand(64, 206, generator=generator) < 0.015).float()
    distances, ancestors = tree(150, 56), torch.zeros(206, 206, dtype=torch.bool)

    def once() -> float:
        begin = perf_counter()
        valid = valid_mask(targets > 0, ancestors)
        gradient(distance_loss(logits, targets, distances, alpha=1.0, valid=valid), logits)
        return perf_counter() - begin

    assert min(once() for _ in range(10)) < 0.030


def test_shapes_and_settings_that_cannot_be_meant_are_refused() -> None:
    logits, targets, valid, distances = batch()
    with pytest.raises(AssertionError, match=r"targets torch.Size\(\[6, 8\]\)"):
        distance_loss(logits, targets[:, :8], distances, alpha=1.0)
    with pytest.raises(AssertionError, match="use the same labels"):
        distance_loss(logits, targets, distances[:8, :8], alpha=1.0)
    with pytest.raises(AssertionError, match="present: bool"):
        distance_loss(logits, targets, distances, alpha=1.0, present=targets)
    with pytest.raises(AssertionError, match="valid must be"):
        distance_loss(logits, targets, distances, alpha=1.0, valid=valid[0])
    with pytest.raises(AssertionError, match="alpha -1"):
        distance_loss(logits, targets, distances, alpha=-1.0)
    with pytest.raises(AssertionError, match="ancestors"):
        valid_mask(valid, distances[:8, :8] > 0)


def everything_given(kind: LossKind, size: float | None = None) -> tuple[Tensor, Tensor]:
    """The loss of a batch with all that can be given to it, and its slope; size: that of every score, of both signs."""
    logits, targets, valid, distances = batch()
    targets[0, 0] = targets[2, 3] = 1
    valid[0, 0] = valid[2, 3] = True
    if size is not None:
        logits = size * logits.sign()
    logits.requires_grad_()
    weights = distance_weights(logits, targets, distances, alpha=4.0, valid=valid)
    loss = classification_loss(
        logits,
        targets,
        kind=kind,
        valid=valid,
        absent_weights=weights if kind in WEIGHED_BY_DISTANCE else None,
        class_weights=class_weight_vector(torch.arange(9), "sqrt"),
        smoothing=0.05,
    )
    return loss, gradient(loss, logits)


@pytest.mark.parametrize("kind", WEIGHED_BY_DISTANCE)
def test_alpha_zero_weighs_nothing_in_any_of_them(kind: LossKind) -> None:
    logits, targets, valid, distances = batch()
    plain = classification_loss(logits, targets, kind=kind, valid=valid)
    for alpha in (0.0, 4.0):
        weights = distance_weights(logits, targets, distances, alpha=alpha, valid=valid)
        weighed = classification_loss(logits, targets, kind=kind, valid=valid, absent_weights=weights)
        assert torch.allclose(weighed, plain, atol=1e-7) == (alpha == 0), "control: alpha 4 is another loss"


def test_bce_is_that_of_torch() -> None:
    logits, targets, valid, _ = batch()
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    assert torch.allclose(classification_loss(logits, targets, kind="bce"), each.mean(), atol=1e-6)
    assert torch.allclose(classification_loss(logits, targets, kind="bce", valid=valid), each[valid].mean(), atol=1e-6)


def test_distance_weights_carry_no_gradient_and_keep_their_mean() -> None:
    logits, targets, valid, distances = batch()
    weights = distance_weights(logits.requires_grad_(), targets, distances, alpha=2.5, mode="soft", valid=valid)
    assert not weights.requires_grad and weights.dtype == torch.float32
    absent = valid * (1 - targets)
    assert torch.allclose((weights * absent).sum(), absent.sum()), "the unit mean is already in them"
    plain = distance_weights(logits, targets, distances, alpha=2.5, mode="soft", valid=valid, unit_mean=False)
    assert not torch.allclose((plain * absent).sum(), absent.sum()), "control: without the unit mean they weigh more"


def test_asymmetric_without_powers_and_margin_is_bce() -> None:
    logits, targets, valid, _ = batch()
    entries = logits.requires_grad_(), targets, valid.float(), torch.ones_like(logits), torch.ones(9)
    bce = classification_loss(logits, targets, kind="bce", valid=valid)
    bare = asymmetric_loss(*entries, gamma_present=0, gamma_absent=0, margin=0)
    assert torch.allclose(bare, bce, atol=1e-6)
    assert torch.allclose(gradient(bare, logits), gradient(bce, logits), atol=1e-7)
    for power_present, power_absent, margin in ((1, 0, 0), (0, 4, 0), (0, 0, 0.05)):
        other = asymmetric_loss(*entries, gamma_present=power_present, gamma_absent=power_absent, margin=margin)
        assert not torch.allclose(other, bce, rtol=0.02), "control: each of the three matters"


def test_focal_without_power_is_half_of_bce() -> None:
    logits, targets, valid, _ = batch()
    entries = logits.requires_grad_(), targets, valid.float(), torch.ones_like(logits), torch.ones(9)
    bce = classification_loss(logits, targets, kind="bce", valid=valid)
    bare = focal_loss(*entries, gamma=0, present_share=0.5)
    assert torch.allclose(bare, bce / 2, atol=1e-6)
    assert torch.allclose(gradient(bare, logits), gradient(bce, logits) / 2, atol=1e-7)
    for gamma, share in ((2.0, 0.5), (0.0, 0.25)):
        assert not torch.allclose(focal_loss(*entries, gamma=gamma, present_share=share), bce / 2, rtol=0.02), "control"


def test_focal_and_asymmetric_are_what_a_blackboard_says() -> None:
    """One present species at a probability of 0.8, one absent at 0.6, one absent at 0.04."""
    chances = torch.tensor([[0.8, 0.6, 0.04]], dtype=torch.float64)
    logits, targets = chances.logit().float().requires_grad_(), torch.eye(3)[:1]
    focal = 0.25 * 0.2**2 * -log(0.8) + 0.75 * 0.6**2 * -log(0.4) + 0.75 * 0.04**2 * -log(0.96)
    asymmetric = 0.2 * -log(0.8) + 0.55**4 * -log(0.45)
    assert float(classification_loss(logits, targets, kind="focal").detach()) == pytest.approx(focal / 3, rel=1e-5)
    loss = classification_loss(logits, targets, kind="asymmetric")
    assert float(loss.detach()) == pytest.approx(asymmetric / 3, rel=1e-5)
    # d/dz -log(1 - (p - m)) = p (1 - p) / (1 - p + m), and the powers stand still
    expected = torch.tensor([-0.2 * 0.2, 0.55**4 * 0.6 * 0.4 / 0.45, 0.0])
    assert torch.allclose(3 * gradient(loss, logits)[0], expected, rtol=1e-5)
    moving = (logits.sigmoid()[0, 1] - 0.05) ** 4 * -(1.05 - logits.sigmoid()[0, 1]).log()
    assert float(gradient(moving, logits)[0, 1]) > 1.5 * float(expected[1]), "control: powers with a gradient"


def pairs_by_hand(logits: Tensor, targets: Tensor, valid: Tensor, classes: Tensor) -> float:
    """Every present entry beside every absent one."""
    costs = list[float]()
    entries = [(row, label) for row in range(len(logits)) for label in range(logits.shape[1]) if valid[row, label]]
    for above in entries:
        for below in entries:
            if targets[above] > 0.5 > targets[below]:
                weight = float(classes[above[1]]) * (float(targets[above]) - 0.5) * (0.5 - float(targets[below]))
                costs.append(weight * log(1 + exp(float(logits[below]) - float(logits[above]))))
    return sum(costs) / len(costs)


def test_soft_auc_equals_a_slow_double_loop() -> None:
    for seed in range(3):
        logits, targets, valid, _ = batch(seed)
        classes, one = torch.linspace(0.5, 2, 9), torch.ones(9)
        valid[targets == targets.max()] = True  # so that there is a pair
        loss = classification_loss(logits, targets, kind="soft_auc", valid=valid)
        weighed = classification_loss(logits, targets, kind="soft_auc", valid=valid, class_weights=classes)
        assert float(loss) == pytest.approx(pairs_by_hand(logits, targets, valid, one), rel=1e-5)
        assert float(weighed) == pytest.approx(pairs_by_hand(logits, targets, valid, classes), rel=1e-5)
        every = pairs_by_hand(logits, targets, torch.ones_like(valid), one)
        assert float(loss) != pytest.approx(every, rel=1e-3), "control: the mask matters"


def test_soft_auc_is_finite_at_a_thousand_where_the_plain_formula_is_not() -> None:
    logits, targets = torch.tensor([[-1e3, 1e3]], requires_grad=True), torch.tensor([[1.0, 0.0]])
    loss = classification_loss(logits, targets, kind="soft_auc")
    assert float(loss.detach()) == 0.25 * 2e3 and gradient(loss, logits).tolist() == [[-0.25, 0.25]]
    plain = (1 + (logits[0, 1] - logits[0, 0]).exp()).log()
    assert plain.isinf() and gradient(plain, logits).isnan().any(), "control: log(1 + exp) overflows"


def test_soft_auc_without_a_pair_is_zero_and_still_has_a_slope() -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets, valid = torch.eye(3)[:2], torch.ones(2, 3, dtype=torch.bool)
    for wanted, counted in (
        (torch.zeros(2, 3), valid),
        (torch.ones(2, 3), valid),
        (torch.full((2, 3), 0.5), valid),
        (targets, targets > 0),
        (targets, valid & False),
    ):
        loss = classification_loss(logits, wanted, kind="soft_auc", valid=counted)
        assert float(loss.detach()) == 0.0 and not gradient(loss, logits).any()
    assert gradient(classification_loss(logits, targets, kind="soft_auc"), logits).all(), "control: here are pairs"


def test_ce_is_that_of_torch_for_single_labels() -> None:
    logits, _, _, _ = batch()
    labels = torch.tensor([0, 3, 5, 1, 1, 8])
    targets, classes = torch.eye(9)[labels], torch.linspace(0.5, 2, 9)
    loss = classification_loss(logits, targets, kind="ce")
    assert torch.allclose(loss, F.cross_entropy(logits, labels), atol=1e-6)
    smooth = classification_loss(logits, targets, kind="ce", smoothing=0.1)
    assert torch.allclose(smooth, F.cross_entropy(logits, labels, label_smoothing=0.1), atol=1e-6)
    weighed = classification_loss(logits, targets, kind="ce", class_weights=classes)
    assert torch.allclose(weighed, F.cross_entropy(logits, targets, weight=classes), atol=1e-6)
    assert not torch.allclose(loss, smooth, atol=1e-3) and not torch.allclose(loss, weighed, atol=1e-3), "control"


def test_ce_of_several_species_shares_the_row_among_them() -> None:
    logits = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    both = classification_loss(logits, torch.tensor([[1.0, 1, 0, 0]]), kind="ce")
    each = [classification_loss(logits, torch.eye(4)[[label]], kind="ce") for label in (0, 1)]
    assert torch.allclose(both, (each[0] + each[1]) / 2)


def test_ce_of_a_row_that_is_less_than_certain_costs_as_much_less() -> None:
    """The scores of pseudo-labels: scaled to 1 they would all be certain."""
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    known, guessed = torch.eye(4)[[1, 2]], torch.eye(4)[[1, 2]]
    guessed[1] *= 0.4
    each = [classification_loss(logits[row : row + 1], known[row : row + 1], kind="ce") for row in (0, 1)]
    assert torch.allclose(classification_loss(logits, known, kind="ce"), (each[0] + each[1]) / 2)
    assert torch.allclose(classification_loss(logits, guessed, kind="ce"), (each[0] + 0.4 * each[1]) / 2)


def test_ce_leaves_out_invalid_species_and_silent_rows() -> None:
    logits, _, _, _ = batch()
    logits.requires_grad_()
    targets, valid = torch.eye(9)[[0, 3, 5, 1, 1, 8]], torch.ones(6, 9, dtype=torch.bool)
    valid[0, 4] = valid[1, 3] = False  # a species beside the one heard; the only one heard
    targets[2] = 0
    for smoothing in (0.0, 0.05):
        loss = classification_loss(logits, targets, kind="ce", valid=valid, smoothing=smoothing)
        slope = gradient(loss, logits)
        assert slope[0, 4] == 0 and slope[0, valid[0]].all(), "an invalid species leaves the softmax"
        assert not slope[1:3].any() and slope[3:].all(), "rows without a species that counts leave the mean"
        kept = [0, 3, 4, 5]
        alone = classification_loss(logits[kept], targets[kept], kind="ce", valid=valid[kept], smoothing=smoothing)
        assert torch.allclose(loss, alone)
    without = torch.cat([logits[:1, :4], logits[:1, 5:]], dim=1)
    first = classification_loss(logits[:1], targets[:1], kind="ce", valid=valid[:1])
    assert torch.allclose(first, F.cross_entropy(without, torch.tensor([0])))
    assert gradient(classification_loss(logits, targets, kind="ce"), logits)[0, 4] != 0, "control: valid, it is pushed"
    low = torch.full((1, 9), -1e4)
    assert float(classification_loss(low, targets[:1], kind="ce", valid=valid[:1])) == pytest.approx(log(8)), (
        "however low"
    )


@pytest.mark.parametrize("kind", LOSS_KINDS)
def test_a_batch_of_which_nothing_counts_costs_nothing_by_any_name(kind: LossKind) -> None:
    logits, targets, valid, _ = batch()
    for wanted, counted in ((targets, valid & False), (torch.zeros_like(targets), valid)):
        loss = classification_loss(logits.requires_grad_(), wanted, kind=kind, valid=counted, smoothing=0.05)
        silent_teaches = kind in WEIGHED_BY_DISTANCE and bool(counted.any())
        assert (float(loss.detach()) != 0) == bool(gradient(loss, logits).any()) == silent_teaches


@pytest.mark.parametrize("kind", LOSS_KINDS)
def test_taxa_above_and_below_a_present_label_teach_nothing_by_any_name(kind: LossKind) -> None:
    ancestors = torch.zeros(5, 5, dtype=torch.bool)  # 0 order; 1 family in it; 2, 3 species in the family; 4 stranger
    ancestors[0, 1:4] = ancestors[1, 2:4] = True
    present = torch.eye(5, dtype=torch.bool)[1:2]
    logits, distances = torch.ones(1, 5, requires_grad=True), 1 - torch.eye(5)
    valid = valid_mask(present, ancestors)

    def slope(counted: Tensor | None) -> Tensor:
        weights = distance_weights(logits, present.float(), distances, alpha=4.0, present=present, valid=counted)
        weighed = weights if kind in WEIGHED_BY_DISTANCE else None
        loss = classification_loss(logits, present.float(), kind=kind, valid=counted, absent_weights=weighed)
        return gradient(loss, logits)[0]

    assert (slope(valid) != 0).tolist() == [False, True, False, False, True]
    assert slope(None).all(), "control: without the mask they are pushed"


@pytest.mark.parametrize("kind", WEIGHED_BY_DISTANCE)
def test_a_far_absent_species_is_pushed_harder_than_a_near_one(kind: LossKind) -> None:
    distances = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3], [2, 2, 0, 3], [3, 3, 3, 0]]) / 3
    logits, targets = torch.zeros(1, 4, requires_grad=True), torch.eye(4)[:1]

    def push(table: Tensor) -> Tensor:
        weights = distance_weights(logits, targets, table, alpha=3.0, unit_mean=False)
        return gradient(classification_loss(logits, targets, kind=kind, absent_weights=weights), logits)[0]

    plain = gradient(classification_loss(logits, targets, kind=kind), logits)[0]
    assert torch.allclose(push(distances) / plain, torch.tensor([1.0, 2, 3, 4])), "1 + alpha * distance"
    orders = [list(order) for order in permutations(range(4))]
    shuffled = torch.stack([push(distances[order][:, order]) for order in orders]).mean(dim=0)
    assert torch.allclose(shuffled[1:], shuffled[1].expand(3)), "control: over all shuffled trees, near and far alike"


@pytest.mark.parametrize("kind", LOSS_KINDS)
@pytest.mark.parametrize("size", [1e3, 1e4])
def test_extreme_scores_stay_finite_by_any_name(kind: LossKind, size: float) -> None:
    loss, slope = everything_given(kind, size)
    assert loss.isfinite() and slope.isfinite().all()
    assert slope.any(), "control: there is something to learn"


def test_the_forgiven_part_of_asymmetric_stays_finite_without_a_margin() -> None:
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    ones = torch.ones(1, 2)
    loss = asymmetric_loss(logits, torch.zeros(1, 2), ones, ones, torch.ones(2), gamma_absent=0, margin=0)
    assert float(loss.detach()) == 5e3 and gradient(loss, logits).tolist() == [[0.5, 0.0]]
    assert (1 - logits.sigmoid()).log().isinf().any(), "control: the plain logarithm is not"


@pytest.mark.parametrize("kind", LOSS_KINDS)
def test_every_loss_is_float32_under_bf16_autocast(kind: LossKind) -> None:
    outside, slope = everything_given(kind)
    logits, targets, valid, _ = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, slope_inside = everything_given(kind)
        half = classification_loss(logits.bfloat16(), targets, kind=kind, valid=valid)
        assert (logits @ logits.T).dtype == torch.bfloat16, "control: autocast is on"
    rounded = classification_loss(logits.bfloat16().float(), targets, kind=kind, valid=valid)
    assert inside.dtype == half.dtype == torch.float32
    assert torch.equal(inside, outside) and torch.equal(slope, slope_inside) and torch.equal(half, rounded)


@pytest.mark.parametrize("kind", LOSS_KINDS)
def test_no_weight_carries_a_gradient(kind: LossKind) -> None:
    logits, targets, _, _ = batch()
    targets[0, 0] = 1
    logits.requires_grad_()
    classes, absent = torch.ones(9, requires_grad=True), 1 + logits.sigmoid()
    attached = classification_loss(
        logits,
        targets,
        kind=kind,
        absent_weights=absent if kind in WEIGHED_BY_DISTANCE else None,
        class_weights=classes,
    )
    still = classification_loss(
        logits,
        targets,
        kind=kind,
        absent_weights=absent.detach() if kind in WEIGHED_BY_DISTANCE else None,
        class_weights=classes.detach(),
    )
    slope, of_classes = torch.autograd.grad(attached, (logits, classes), allow_unused=True)
    assert of_classes is None and torch.equal(slope, gradient(still, logits))


@pytest.mark.parametrize("kind", LOSS_KINDS)
def test_class_weights_of_one_change_nothing_and_others_do(kind: LossKind) -> None:
    logits, targets, valid, _ = batch()
    targets[0, 0], valid[0, 0] = 1, True
    plain = classification_loss(logits, targets, kind=kind, valid=valid)
    even = classification_loss(logits, targets, kind=kind, valid=valid, class_weights=torch.ones(9))
    twice = classification_loss(logits, targets, kind=kind, valid=valid, class_weights=torch.full((9,), 2.0))
    assert torch.equal(even, plain) and torch.allclose(twice, 2 * plain)
    zero = classification_loss(logits, targets, kind=kind, valid=valid, class_weights=torch.zeros(9))
    assert float(zero) == 0.0, "the sum is not divided by the weights"


def test_class_weights_multiply_the_terms_of_their_species() -> None:
    logits, targets = torch.zeros(1, 3, requires_grad=True), torch.eye(3)[:1]
    weights = torch.tensor([1.0, 2.0, 4.0])
    slope = gradient(classification_loss(logits, targets, kind="bce", class_weights=weights), logits)[0]
    assert torch.allclose(3 * slope, torch.tensor([-0.5, 1.0, 2.0]))


def test_inverse_and_balanced_class_weights_are_the_same_once_their_mean_is_one() -> None:
    counts = torch.tensor([990, 100, 10, 2])
    inverse, balanced, sqrt = (class_weight_vector(counts, kind) for kind in ("inverse", "balanced", "sqrt"))
    assert inverse is not None and balanced is not None and sqrt is not None
    assert torch.allclose(inverse, balanced) and not torch.allclose(inverse, sqrt, rtol=0.1)
    assert torch.allclose(inverse, 1102 / (4 * counts)), "N / (C n) is of mean 1 already"
    raw = counts.sum() / counts
    assert not torch.allclose(raw, inverse, rtol=1.0), "control: before it, inverse is C times as much"
    for weights in (inverse, sqrt):
        assert float((counts * weights).sum()) == pytest.approx(1102, rel=1e-5)
    assert float(sqrt[3] / sqrt[1]) == pytest.approx((100 / 2) ** 0.5, rel=1e-5)
    assert class_weight_vector(counts, "none") is None


@pytest.mark.parametrize("kind", [kind for kind in CLASS_WEIGHTS if kind != "none"])
def test_a_species_without_recordings_weighs_what_the_rarest_one_does(kind: ClassWeights) -> None:
    weights = class_weight_vector(torch.tensor([9, 0, 4]), kind)
    without = class_weight_vector(torch.tensor([9, 4]), kind)
    assert weights is not None and without is not None and weights.isfinite().all()
    assert weights[1] == weights[2] > weights[0]
    assert torch.allclose(weights[[0, 2]], without), "nobody is heard of it, so it shifts nothing"


def test_smoothing_spreads_a_share_over_all_species_but_not_where_nothing_counts() -> None:
    targets, valid = torch.tensor([[1.0, 0.0, 0.0, 1.0]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert torch.allclose(smooth_targets(targets, valid, 0.2), torch.tensor([[0.85, 0.05, 0.0, 1.0]]))
    assert torch.equal(smooth_targets(targets, torch.ones(1, 4), 0.0), targets)
    assert not torch.equal(smooth_targets(targets, torch.ones(1, 4), 0.2)[0, 2:], targets[0, 2:]), "control"


@pytest.mark.parametrize("kind", LOSS_KINDS)
def test_every_loss_smooths_the_targets_itself(kind: LossKind) -> None:
    logits, _, valid, _ = batch()
    targets = torch.eye(9)[[0, 3, 5, 1, 1, 8]]
    valid |= targets > 0
    inside = classification_loss(logits, targets, kind=kind, valid=valid, smoothing=0.1)
    outside = classification_loss(logits, smooth_targets(targets, valid, 0.1), kind=kind, valid=valid)
    assert torch.equal(inside, outside)
    assert not torch.allclose(inside, classification_loss(logits, targets, kind=kind, valid=valid)), "control"


def test_smoothing_leaves_the_distance_weights_unchanged() -> None:
    distances, targets = tree(4, 4), torch.eye(8)[[0, 5]]
    logits = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    weights = distance_weights(logits, targets, distances, alpha=4.0, unit_mean=False)
    assert torch.allclose(weights, 1 + 4 * distances[[0, 5]])
    smooth = smooth_targets(targets, torch.ones(2, 8), 0.4)
    extra = classification_loss(logits, targets, kind="bce", absent_weights=weights, smoothing=0.4)
    extra -= classification_loss(logits, targets, kind="bce", smoothing=0.4)
    expected = (1 - smooth) * 4 * distances[[0, 5]] * F.softplus(logits)
    assert torch.allclose(extra, expected.mean(), atol=1e-6), "all of the distance, on the smoothed absent part"
    assert not distance_to_present(distances, smooth > 0).any(), "control: presence in smoothed targets is everywhere"
    careless = distance_weights(logits, smooth, distances, alpha=4.0, present=smooth > 0, unit_mean=False)
    assert torch.equal(careless, torch.ones(2, 8)), "control: and nothing is far any more"


def test_arguments_that_cannot_be_meant_are_refused_by_name() -> None:
    logits, targets, valid, _ = batch()
    ones = torch.ones_like(logits)
    for kind in ("ce", "soft_auc"):
        with pytest.raises(AssertionError, match=f"{kind} has no term per absent species"):
            classification_loss(logits, targets, kind=kind, absent_weights=ones)
    with pytest.raises(AssertionError, match="absent_weights must be"):
        classification_loss(logits, targets, kind="bce", absent_weights=ones[0])
    with pytest.raises(AssertionError, match="class_weights must be"):
        classification_loss(logits, targets, kind="bce", class_weights=ones)
    with pytest.raises(AssertionError, match="valid must be"):
        classification_loss(logits, targets, kind="bce", valid=valid[:, :1])
    with pytest.raises(AssertionError, match="choose 0"):
        classification_loss(logits, targets, kind="bce", smoothing=0.5)
    with pytest.raises(AssertionError, match="not \\(batch, species\\)"):
        classification_loss(logits, targets[:3], kind="bce")
    nonsense: Any = "hinge"
    with pytest.raises(AssertionError, match="choose one of"):
        classification_loss(logits, targets, kind=nonsense)
    with pytest.raises(AssertionError, match="no species has a recording"):
        class_weight_vector(torch.zeros(3), "sqrt")
    with pytest.raises(AssertionError, match="0 or more"):
        class_weight_vector(torch.tensor([3, -1]), "sqrt")


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
        loss = distance_loss(logits, truth[:1000], true_distances[order][:, order], alpha=alpha)
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
        loss = distance_loss(score.expand(10, 2), targets, distances, alpha=1.0, unit_mean=False)
        score.data -= 2.0 * gradient(loss, score)
    assert float(score.detach()[0, 0].sigmoid()) == pytest.approx(0.1 / (0.1 + 0.9 * 2), abs=1e-3)


def test_an_imitation_costs_by_where_vectors_point_and_not_by_how_long_they_are() -> None:
    target = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [1.0, 1.0]])
    same, opposite = imitation_loss(5 * target, target), imitation_loss(-target, target)
    assert float(same) == pytest.approx(0.0, abs=1e-6) and float(opposite) == pytest.approx(2.0)
    turned = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])  # by 90, 0, 45 and 0 degrees
    assert float(imitation_loss(turned, target)) == pytest.approx((1 + 1 - 0.5**0.5) / 4)
    with pytest.raises(AssertionError, match=r"both must be \(batch, values\)"):
        imitation_loss(target[:, :1], target)
