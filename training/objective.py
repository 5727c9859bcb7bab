"""What one training step is judged by: a batch made harder, its labels, and what its answers cost.

    inputs = prepare_loss_inputs(taxonomy, train, config.loss, backgrounds, device)      # once
    batch, mel = augmented(batch, model.log_mel, config.augment, inputs, generator)
    loss = label_loss(model.context_logits(mel), batch.targets, batch.secondary, inputs)

Both phases of stage 2 use it: the head alone on features of a frozen encoder (training/frozen.py), and all
weights (trainer.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from archive.recordings import Recording
from config import AugmentSettings, LossSettings
from data_loader import Batch
from loss import WEIGHED_BY_DISTANCE, class_weight_vector, classification_loss, distance_weights, valid_mask
from taxonomy import Taxonomy, ancestor_matrix, pairwise_distances
from training.augment import augment_batch, augment_mel, resize_mix


@dataclass(frozen=True)
class LossInputs:
    """What the loss needs beside the batch; the same in every step."""

    loss: LossSettings
    distances: Tensor  # (species, species)
    ancestors: Tensor  # (species, species) bool
    class_weights: Tensor | None = None  # (species,)
    backgrounds: Tensor | None = None  # (count, samples) sound without animals to put under the windows


def prepare_loss_inputs(
    taxonomy: Taxonomy,
    train: Sequence[Recording],
    settings: LossSettings,
    backgrounds: Tensor | None,
    device: torch.device,
) -> LossInputs:
    """Distances, ancestors, class weights and backgrounds on the device."""
    table = pairwise_distances(taxonomy, settings.mechanism_penalty)
    if settings.shuffle:
        order = np.random.default_rng(0).permutation(len(table))
        table = table[order][:, order]
    counts = Counter(label for row in train for label in row.labels[:1])
    weights = class_weight_vector(torch.tensor([counts[label] for label in taxonomy.labels]), settings.class_weights)
    return LossInputs(
        settings,
        torch.from_numpy(table).to(device),
        torch.from_numpy(ancestor_matrix(taxonomy)).to(device),
        None if weights is None else weights.to(device),
        None if backgrounds is None else backgrounds.to(device),
    )


def augmented(
    batch: Batch,
    log_mel: Callable[[Tensor], Tensor],
    settings: AugmentSettings,
    inputs: LossInputs,
    generator: torch.Generator,
) -> tuple[Batch, Tensor]:
    """A batch made harder, and its log-mel pictures (batch, channels, frames)."""
    labels = torch.cat([batch.targets, batch.secondary], dim=1)
    waveforms, labels = augment_batch(batch.waveforms, labels, settings, generator, inputs.backgrounds)
    mel, labels = resize_mix(log_mel(waveforms), labels, settings.resize_mix, generator)
    targets, secondary = labels.chunk(2, dim=1)
    return Batch(waveforms, targets, secondary), augment_mel(mel, settings, generator)


def label_loss(logits: Tensor, targets: Tensor, secondary: Tensor, inputs: LossInputs) -> Tensor:
    """The loss of a batch of answers: (batch, species) logits, targets, species in the background -> ()."""
    settings = inputs.loss
    background = (secondary > 0.5) & (targets < 0.5)  # there, perhaps inaudible: no loss, but no false alarm either
    present = (targets > 0.5) | background
    valid, weights = valid_mask(present, inputs.ancestors, background), None
    if settings.ancestors == "flat":
        valid = ~background
    if settings.ancestors == "imply":
        implied = (present.float() @ inputs.ancestors.T.float() > 0) & ~background
        targets, present, valid = torch.maximum(targets, implied.float()), present | implied, valid | implied
    if settings.alpha and settings.kind in WEIGHED_BY_DISTANCE:
        weights = distance_weights(
            logits, targets, inputs.distances, alpha=settings.alpha, mode=settings.mode, present=present, valid=valid
        )
    return classification_loss(
        logits,
        targets,
        kind=settings.kind,
        valid=valid,
        absent_weights=weights,
        class_weights=inputs.class_weights,
        smoothing=settings.smoothing,
    )


if __name__ == "__main__":
    tit = torch.tensor([[1.0, 0.0, 0.0]])
    distances = torch.tensor([[0.0, 0.2, 1.0]] * 3)
    inputs = LossInputs(LossSettings(alpha=4.0), distances, torch.zeros(3, 3, dtype=torch.bool))
    logits = torch.zeros(1, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(label_loss(logits, tit, torch.zeros(1, 3), inputs), logits)
    print("a tit sings; the push on tit, crow and cricket:", [round(float(push), 3) for push in gradient[0]])
    assert gradient[0, 0] < 0 < gradient[0, 1] < gradient[0, 2], "a cricket is the worse mistake"
