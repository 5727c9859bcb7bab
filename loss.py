"""What a mistake costs: five losses by name and a weight by taxonomic distance for stage 2, masked reconstruction and
imitation for stage 1.

    valid = valid_mask(present, ancestors)                      # a bird is no false alarm where a blackbird sings
    weights = distance_weights(logits, targets, distances, alpha=1.0, present=present, valid=valid)
    loss = classification_loss(logits, targets, kind="bce", valid=valid, absent_weights=weights)

Everything is computed in float32, whatever precision the network runs in.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from config import ClassWeights, LossKind

LOSS_KINDS: tuple[LossKind, ...] = get_args(LossKind)
CLASS_WEIGHTS: tuple[ClassWeights, ...] = get_args(ClassWeights)
WEIGHED_BY_DISTANCE: tuple[LossKind, ...] = ("bce", "focal", "asymmetric")  # each absent species has a term of its own
AT_ONCE = 2**26  # batch * species * species up to which a GPU compares everything with everything: 256 MB
CHUNK = 256  # present labels looked up at once: bounds the memory when a batch has very many


def classification_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    kind: LossKind,
    valid: Tensor | None = None,
    absent_weights: Tensor | None = None,
    class_weights: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """The loss of a batch, by name: see the function behind each name.

    logits          (batch, species)  raw scores, any float type
    targets         (batch, species)  1 where present, a fraction after mixup or pseudo-labelling; not yet smoothed
    valid           (batch, species)  bool or 0/1, entries that count; default all of them
    absent_weights  (batch, species)  of distance_weights, on the absent part; only for bce, focal and asymmetric
    class_weights   (species,)        of class_weight_vector, on every term of a species
    smoothing       share of each valid target that is spread over all species. It is done here and not by the caller,
                    who needs the targets as they were: once smoothed, no species looks absent, every distance to the
                    nearest present one is 0 and the distance weights say nothing
    returns         ()  float32; no weight carries a gradient
    """
    species = logits.shape[-1]
    assert_same_shapes(logits, targets, valid)
    assert kind in LOSS_KINDS, f"kind {kind!r}; choose one of {LOSS_KINDS}"
    assert absent_weights is None or kind in WEIGHED_BY_DISTANCE, (
        f"{kind} has no term per absent species to weigh; give absent_weights=None or one of {WEIGHED_BY_DISTANCE}"
    )
    assert absent_weights is None or absent_weights.shape == logits.shape, f"absent_weights must be {logits.shape}"
    assert class_weights is None or class_weights.shape == (species,), f"class_weights must be ({species},)"
    assert 0 <= smoothing < 0.5, f"smoothing {smoothing}; choose 0 (none) to less than 0.5, such as 0.05"
    with torch.autocast(logits.device.type, enabled=False):
        scores, wanted = logits.float(), targets.float()
        counted = torch.ones_like(scores) if valid is None else valid.float()
        if kind == "ce":  # here, because nothing is silent any more once it is smoothed
            counted = counted * ((counted * wanted).sum(dim=1, keepdim=True) > 0)
        wanted = smooth_targets(wanted, counted, smoothing)
        absent = torch.ones_like(scores) if absent_weights is None else absent_weights.detach().float()
        classes = scores.new_ones(species) if class_weights is None else class_weights.detach().float()
        if kind == "bce":
            return bce_loss(scores, wanted, counted, absent, classes)
        if kind == "focal":
            return focal_loss(scores, wanted, counted, absent, classes)
        if kind == "asymmetric":
            return asymmetric_loss(scores, wanted, counted, absent, classes)
        if kind == "ce":
            return cross_entropy_loss(scores, wanted, counted, classes)
        return soft_auc_loss(scores, wanted, counted, classes)


def assert_same_shapes(logits: Tensor, targets: Tensor, valid: Tensor | None) -> None:
    """Refuse what would be broadcast into something nobody meant."""
    shape = logits.shape
    assert logits.ndim == 2 and targets.shape == shape, f"logits {shape}, targets {targets.shape}: not (batch, species)"
    assert valid is None or valid.shape == shape, f"valid must be (batch, species) = {shape}"


def bce_loss(scores: Tensor, wanted: Tensor, counted: Tensor, absent: Tensor, classes: Tensor) -> Tensor:
    """Binary cross-entropy: each species is a question of its own. Mean over the entries that count.

    scores, wanted, counted, absent  (batch, species)  float32: logits, targets, 0/1, weights of the absent part
    classes                          (species,)        float32: weights of the species
    """
    terms = wanted * F.softplus(-scores) + absent * (1 - wanted) * F.softplus(scores)
    return mean_of_counted(terms, counted, classes)


def focal_loss(
    scores: Tensor,
    wanted: Tensor,
    counted: Tensor,
    absent: Tensor,
    classes: Tensor,
    *,
    gamma: float = 2.0,
    present_share: float = 0.25,
) -> Tensor:
    """Binary cross-entropy in which what is answered well already counts less: times (1 - p) ** gamma where present,
    p ** gamma where absent, and present_share to 1 - present_share. Arguments as in bce_loss.

    source  https://arxiv.org/abs/1708.02002
    """
    # powers of p and 1 - p by way of their logarithms: exact where p is 0 or 1, and so is the gradient
    up = present_share * (-gamma * F.softplus(scores)).exp() * F.softplus(-scores)
    down = (1 - present_share) * (-gamma * F.softplus(-scores)).exp() * F.softplus(scores)
    return mean_of_counted(wanted * up + absent * (1 - wanted) * down, counted, classes)


def asymmetric_loss(
    scores: Tensor,
    wanted: Tensor,
    counted: Tensor,
    absent: Tensor,
    classes: Tensor,
    *,
    gamma_present: float = 1.0,
    gamma_absent: float = 4.0,
    margin: float = 0.05,
) -> Tensor:
    """Focal loss that forgives absent species more: they cost nothing below a probability of margin, and beyond it
    count by (p - margin) ** gamma_absent; present ones by (1 - p) ** gamma_present. Arguments as in bce_loss.

    The powers carry no gradient, as in the code of Bird-MAE.

    source  https://arxiv.org/abs/2009.14119
    """
    with torch.no_grad():
        chance = scores.sigmoid()
        up, down = (1 - chance) ** gamma_present, (chance - margin).clamp_min(0) ** gamma_absent
    # log(1 - max(p - margin, 0)), which the plain way is log(0) for a large score and no margin
    forgiven = torch.logaddexp(-F.softplus(scores), scores.new_tensor(margin).log()).clamp_max(0)
    terms = wanted * up * F.softplus(-scores) - absent * (1 - wanted) * down * forgiven
    return mean_of_counted(terms, counted, classes)


def cross_entropy_loss(scores: Tensor, wanted: Tensor, counted: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy over all species together, the targets of a row scaled to 1 where they are more; mean over rows.

    Species that do not count leave the softmax of their row, rows in which nothing is wanted the mean (without any row
    the loss is 0). A row whose targets are less than 1, as those of pseudo-labels are, costs as much less. It only
    compares species: a classifier trained so cannot say that nothing is there. Arguments as in bce_loss.
    """
    wanted = counted * wanted
    total = wanted.sum(dim=1, keepdim=True)
    # a finite lowest score: minus infinity times a target of 0 would be NaN
    shares = scores.masked_fill(counted == 0, torch.finfo(scores.dtype).min).log_softmax(dim=1)
    terms = -classes * wanted / total.clamp_min(1) * shares
    return terms.sum() / (total > 0).sum().clamp_min(1)


def soft_auc_loss(scores: Tensor, wanted: Tensor, counted: Tensor, classes: Tensor) -> Tensor:
    """A smooth ROC-AUC: every present entry (target above 0.5) against every absent one (below), over the whole batch
    and all species; a pair in the wrong order costs what its scores are apart.

    mean over pairs of (y_a - 0.5) (0.5 - y_b) softplus(z_b - z_a), times the weight of the present species; 0 without
    a pair. Takes memory for all pairs, about 16 bytes each: 20 MB for 64 windows and 206 species. Arguments as in
    bce_loss.

    source  4th place of BirdCLEF+ 2025, https://github.com/dylanliu2/BirdCLEF2025-4th-place-solution
    """
    above, below = (counted > 0) & (wanted > 0.5), (counted > 0) & (wanted < 0.5)
    if not (above.any() and below.any()):
        return 0 * scores.sum()
    weights = (classes * (wanted - 0.5))[above][:, None] * (0.5 - wanted[below])
    return (weights * F.softplus(scores[below] - scores[above][:, None])).mean()


def mean_of_counted(terms: Tensor, counted: Tensor, classes: Tensor) -> Tensor:
    """The weighted terms over the number of entries, not over their weights: twice the weight costs twice as much."""
    return (counted * classes * terms).sum() / counted.sum().clamp_min(1)


def smooth_targets(wanted: Tensor, counted: Tensor, smoothing: float) -> Tensor:
    """(batch, species) targets of which a share is spread over all species, where they count; the others as they were.

    Over the species and not half to half: 0.05 / 2 each would be five false positives in a window of 206 species.
    """
    return ((1 - smoothing) * wanted + smoothing / wanted.shape[-1]).where(counted > 0, wanted)


def class_weight_vector(counts: Tensor, kind: ClassWeights) -> Tensor | None:
    """How much more a rare species weighs, from the number of its recordings; none: None.

    counts   (species,)  recordings of each; a species without any weighs what the rarest one with some does
    kind     inverse: N / n; balanced: N / (C n); sqrt: 1 / sqrt(n)
    returns  (species,)  float32, so scaled that the mean over recordings is 1. Without that the kinds would also differ
                         by a hidden learning rate; with it, inverse and balanced are the same
    """
    assert kind in CLASS_WEIGHTS, f"kind {kind!r}; choose one of {CLASS_WEIGHTS}"
    if kind == "none":
        return None
    assert counts.ndim == 1 and bool((counts >= 0).all()), f"counts {counts.shape}: not (species,), 0 or more each"
    assert bool(counts.any()), "no species has a recording; count the recordings trained on"
    number = counts.double()
    total, some = number.sum(), number.where(number > 0, number[number > 0].min())
    weights = {"inverse": total / some, "balanced": total / (len(counts) * some), "sqrt": some.rsqrt()}[kind]
    return (weights * total / (number * weights).sum()).float()


@torch.no_grad()
def distance_weights(
    logits: Tensor,
    targets: Tensor,
    distances: Tensor,
    *,
    alpha: float,
    mode: Literal["all", "hard", "soft"] = "all",
    present: Tensor | None = None,
    valid: Tensor | None = None,
    unit_mean: bool = True,
    tau: float = 0.5,
    presence_threshold: float = 0.1,
) -> Tensor:
    """How much each absent species weighs: 1 + alpha * (its distance to the nearest present one) * g.

    logits      (batch, species)    raw scores, any float type
    targets     (batch, species)    1 where present, a fraction after mixup; before smoothing
    distances   (species, species)  symmetric, taxonomic distance in [0, 1], 0 on the diagonal
    alpha       0 weighs all alike: plain BCE
    mode        g: 1 in "all"; 1 where the probability exceeds tau, else 0, in "hard"; the probability in "soft"
    present     (batch, species)    bool, what is there, secondary species too. Default: targets >= presence_threshold;
                                    give it whenever targets are smoothed, else every species looks present and the
                                    distances lose their say
    valid       (batch, species)    bool or 0/1, entries that count; default all of them
    unit_mean   scale the weights of the batch so that the absent species weigh together what they weigh in plain BCE;
                rows in which nothing is present have weights of 1 and no part in that
    returns     (batch, species)    float32, without gradient; only meant for the absent part of a loss
    source      after the cost-sensitive losses in https://arxiv.org/abs/1912.09393, for many labels
    """
    shape, species = logits.shape, logits.shape[-1]
    assert_same_shapes(logits, targets, valid)
    assert distances.shape == (species, species), f"distances {distances.shape}, {species} species; use the same labels"
    assert present is None or (present.shape == shape and present.dtype == torch.bool), "present: bool (batch, species)"
    assert alpha >= 0 and 0 < tau < 1, f"alpha {alpha}, tau {tau}; choose alpha >= 0 and tau between 0 and 1"
    assert mode in ("all", "hard", "soft"), f"mode {mode!r}; choose all, hard or soft"
    with torch.autocast(logits.device.type, enabled=False):
        there = targets >= presence_threshold if present is None else present
        something = there.any(dim=1, keepdim=True)
        weights = 1 + alpha * distance_to_present(distances, there) * suspicion(logits.float(), mode, tau)
        if unit_mean:
            absent = something * (1 - targets.float() if valid is None else valid.float() * (1 - targets.float()))
            weights *= absent.sum() / (weights * absent).sum().clamp_min(1e-9)
        return weights.where(something, 1.0)


def valid_mask(present: Tensor, ancestors: Tensor, secondary: Tensor | None = None) -> Tensor:
    """Which entries teach something: not the taxa above a present label (they are true as well), nor those below it
    (nobody knows), nor secondary labels (present, but without their own recording).

    present    (batch, species)    bool, what is there, secondary species too
    ancestors  (species, species)  bool, [c, k] where c is a taxon above k
    secondary  (batch, species)    bool
    returns    (batch, species)    bool; for classification_loss(valid=...)
    """
    species = present.shape[-1]
    assert ancestors.shape == (species, species), f"ancestors {ancestors.shape}, {species} species; use the same labels"
    unrelated = least_over_present(present, lambda label: ~(ancestors[label] | ancestors[:, label].T))
    valid = present | (unrelated > 0)
    return valid if secondary is None else valid & ~secondary


def masked_reconstruction_loss(prediction: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error over what the encoder could not see.

    prediction  (batch, tokens, values)
    target      (batch, tokens, values)
    hidden      (batch, tokens)          bool; the visible tokens may hold anything, NaN too
    returns     ()                       float32, mean over the values of hidden tokens
    source      https://arxiv.org/abs/2111.06377, section 3
    """
    assert target.ndim == 3, f"target {target.shape}: not (batch, tokens, values)"
    assert prediction.shape == target.shape, f"prediction {prediction.shape} for target {target.shape}; must be equal"
    assert hidden.shape == target.shape[:2] and hidden.dtype == torch.bool, f"hidden must be bool {target.shape[:2]}"
    assert hidden.is_cuda or bool(hidden.any()), (
        "no token is hidden, so there is nothing to reconstruct; raise the masked share"
    )
    with torch.autocast(prediction.device.type, enabled=False):
        # chosen before it is squared: the gradient of a square would carry a NaN through
        error = torch.where(hidden[..., None], prediction.float() - target.float(), 0.0)
        return error.square().sum() / (hidden.sum() * target.shape[-1])


def imitation_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """How far a student's vectors point from its teacher's: 1 - cosine, mean over the batch.

    prediction  (batch, values)
    target      (batch, values)
    returns     ()               float32, 0 where they point the same way, 2 where they point away from each other
    """
    assert prediction.ndim == 2 and prediction.shape == target.shape, (
        f"prediction {tuple(prediction.shape)} for target {tuple(target.shape)}; both must be (batch, values)"
    )
    with torch.autocast(prediction.device.type, enabled=False):
        return (1 - F.cosine_similarity(prediction.float(), target.float(), dim=1)).mean()


def distance_to_present(distances: Tensor, present: Tensor) -> Tensor:
    """(batch, species) distance to the nearest species that is present in the row, 0 in rows without any."""
    nearest = least_over_present(present, lambda label: distances[label])
    return nearest.where(present.any(dim=1, keepdim=True), 0.0)


def least_over_present(present: Tensor, rows_of: Callable[[Tensor], Tensor]) -> Tensor:
    """(batch, species) the least of rows_of(label) -> (labels, species) over the labels present; inf without any.

    Only the rows that are needed are looked up, so that ten thousand species cost no batch * species * species; but a
    GPU would have to stop and say which these are, so there all are where they fit.
    """
    if present.is_cuda and present.numel() * present.shape[1] <= AT_ONCE:
        return least_of_all(present, rows_of)
    least = torch.full(present.shape, torch.inf, device=present.device)
    rows, labels = present.nonzero(as_tuple=True)
    for row, label in zip(torch.split(rows, CHUNK), torch.split(labels, CHUNK), strict=True):
        values = rows_of(label).float()
        least.scatter_reduce_(0, row[:, None].expand_as(values), values, "amin")
    return least


def least_of_all(present: Tensor, rows_of: Callable[[Tensor], Tensor]) -> Tensor:
    """The same without asking which labels are present: (batch, species)."""
    values = rows_of(torch.arange(present.shape[1], device=present.device)).float()
    return torch.where(present[:, :, None], values, torch.inf).amin(dim=1)


def suspicion(scores: Tensor, mode: Literal["all", "hard", "soft"], tau: float) -> Tensor:
    """(batch, species) how much of the extra weight an absent species gets: 1, whether it is believed, or how much."""
    if mode == "soft":
        return scores.sigmoid()
    return torch.ones_like(scores) if mode == "all" else (scores > log(tau / (1 - tau))).float()


if __name__ == "__main__":
    names = ["great tit", "blue tit", "frog", "birds"]
    ancestors = torch.zeros(4, 4, dtype=torch.bool)
    ancestors[3, :2] = True
    distances = torch.tensor([[0, 2, 5, 4], [2, 0, 5, 4], [5, 5, 0, 5], [4, 4, 5, 0]]) / 5
    targets = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    valid = valid_mask(targets > 0, ancestors)
    logits = torch.zeros(1, 4, requires_grad=True)
    weights = distance_weights(logits, targets, distances, alpha=4.0, valid=valid)
    for kind in WEIGHED_BY_DISTANCE:
        loss = classification_loss(logits, targets, kind=kind, valid=valid, absent_weights=weights)
        (gradient,) = torch.autograd.grad(loss, logits)
        pushes = {name: 3 * float(force) for name, force in zip(names, gradient[0], strict=True)}
        print(f"a great tit sings; pushed down by {kind}:", {name: round(push, 3) for name, push in pushes.items()})
        assert pushes["frog"] > pushes["blue tit"] > 0 > pushes["great tit"], f"{kind}: a frog is the worse guess"
        assert pushes["birds"] == 0.0, f"{kind}: birds is no mistake"
