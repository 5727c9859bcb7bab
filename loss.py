"""What a mistake costs: distance-weighted cross-entropy for stage 2, masked reconstruction for stage 1.

    valid = valid_mask(present, ancestors)                      # a bird is no false alarm where a blackbird sings
    loss = hierarchical_distance_loss(logits, targets, distances, alpha=1.0, present=present, valid=valid)

Everything is computed in float32, whatever precision the network runs in.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 256  # present labels looked up at once: bounds the memory when a batch has very many


def hierarchical_distance_loss(
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
    """Binary cross-entropy in which a far-fetched false alarm costs more than a near miss.

    An absent species weighs 1 + alpha * (its distance to the nearest present one) * g; a present one weighs 1.

    logits      (batch, species)    raw scores, any float type
    targets     (batch, species)    1 where heard, a fraction after mixup or smoothing
    distances   (species, species)  symmetric, taxonomic distance in [0, 1], 0 on the diagonal
    alpha       0 is plain BCE
    mode        g: 1 in "all"; 1 where the probability exceeds tau, else 0, in "hard"; the probability in "soft"
    present     (batch, species)    bool, what is heard, secondary species too. Default: targets >= presence_threshold;
                                    give it whenever targets are smoothed, else every species looks present and the
                                    distances lose their say
    valid       (batch, species)    bool or 0/1, entries that count; default all of them
    unit_mean   scale the weights of the batch so that the absent species weigh together what they weigh in plain BCE
    returns     ()                  float32, mean over valid entries; weights carry no gradient. A row in which nothing
                                    is present is plain BCE
    source      after the cost-sensitive losses in https://arxiv.org/abs/1912.09393, for many labels
    """
    shape, species = logits.shape, logits.shape[-1]
    assert logits.ndim == 2 and targets.shape == shape, f"logits {shape}, targets {targets.shape}: not (batch, species)"
    assert distances.shape == (species, species), f"distances {distances.shape}, {species} species; use the same labels"
    assert present is None or (present.shape == shape and present.dtype == torch.bool), "present: bool (batch, species)"
    assert valid is None or valid.shape == shape, f"valid must be (batch, species) = {shape}"
    assert alpha >= 0 and 0 < tau < 1, f"alpha {alpha}, tau {tau}; choose alpha >= 0 and tau between 0 and 1"
    assert mode in ("all", "hard", "soft"), f"mode {mode!r}; choose all, hard or soft"
    with torch.autocast(logits.device.type, enabled=False):
        scores, wanted = logits.float(), targets.float()
        counted = torch.ones_like(scores) if valid is None else valid.float()
        with torch.no_grad():
            delta = distance_to_present(distances, targets >= presence_threshold if present is None else present)
            weight = 1 + alpha * delta * suspicion(scores, mode, tau)
            if unit_mean:
                negatives = counted * (1 - wanted)
                weight *= negatives.sum() / (weight * negatives).sum().clamp_min(1e-9)
        terms = wanted * F.softplus(-scores) + weight * (1 - wanted) * F.softplus(scores)
        return (counted * terms).sum() / counted.sum().clamp_min(1)


def valid_mask(present: Tensor, ancestors: Tensor, secondary: Tensor | None = None) -> Tensor:
    """Which entries teach something: not the taxa above a present label (they are true as well), nor those below it
    (nobody knows), nor secondary labels (heard, but without their own recording).

    present    (batch, species)    bool, what is heard, secondary species too
    ancestors  (species, species)  bool, [c, k] where c is a taxon above k
    secondary  (batch, species)    bool
    returns    (batch, species)    bool; for hierarchical_distance_loss(valid=...)
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
    assert bool(hidden.any()), "no token is hidden, so there is nothing to reconstruct; raise the masked share"
    with torch.autocast(prediction.device.type, enabled=False):
        # chosen before it is squared: the gradient of a square would carry a NaN through
        error = torch.where(hidden[..., None], prediction.float() - target.float(), 0.0)
        return error.square().sum() / (hidden.sum() * target.shape[-1])


def distance_to_present(distances: Tensor, present: Tensor) -> Tensor:
    """(batch, species) distance to the nearest species that is present in the row, 0 in rows without any."""
    nearest = least_over_present(present, lambda label: distances[label])
    return nearest.where(present.any(dim=1, keepdim=True), 0.0)


def least_over_present(present: Tensor, rows_of: Callable[[Tensor], Tensor]) -> Tensor:
    """(batch, species) the least of rows_of(label) -> (labels, species) over the labels present; inf without any.

    Only the rows that are needed are looked up, so that ten thousand species cost no batch * species * species.
    """
    least = torch.full(present.shape, torch.inf, device=present.device)
    rows, labels = present.nonzero(as_tuple=True)
    for row, label in zip(torch.split(rows, CHUNK), torch.split(labels, CHUNK), strict=True):
        values = rows_of(label).float()
        least.scatter_reduce_(0, row[:, None].expand_as(values), values, "amin")
    return least


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
    heard = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    valid = valid_mask(heard > 0, ancestors)
    logits = torch.zeros(1, 4, requires_grad=True)
    loss = hierarchical_distance_loss(logits, heard, distances, alpha=4.0, valid=valid)
    (gradient,) = torch.autograd.grad(loss, logits)
    push = {name: 3 * float(force) for name, force in zip(names, gradient[0], strict=True)}
    print("a great tit sings; pushed down:", {name: round(force, 3) for name, force in push.items()})
    tokens, hidden = torch.randn(2, 5, 8), torch.tensor([[True, False, False, True, False]] * 2)
    print("painting grey costs", round(float(masked_reconstruction_loss(torch.zeros(2, 5, 8), tokens, hidden)), 2))
    assert push["frog"] > push["blue tit"] > push["birds"] == 0.0, "a frog is the worse guess; birds is no mistake"
    assert abs(push["frog"] + push["blue tit"] - 1.0) < 1e-6, "the unit mean keeps what the absent weigh together"
