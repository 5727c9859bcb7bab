"""A batch in, a harder batch out: level, a second animal, a shift in time, stripes hidden from the log-mel picture.

Waveforms are mixed, never log-mel pictures: sound adds up in the air. No change of pitch or speed: both carry species.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchaudio.functional import mask_along_axis_iid

from config import AugmentSettings

TIME_MASKS, MEL_MASKS = (2, 40), (2, 12)  # how many stripes, and the longest: frames of 10 ms, mel bins


def augment_batch(
    waveforms: Tensor, targets: Tensor, settings: AugmentSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Level, shift and mixture, drawn for each row on its own.

    waveforms  (batch, samples)
    targets    (batch, species) 1 where heard; the mixture of two recordings has heard what either has heard
    generator  on the CPU: the same state gives the same batch on any device
    """
    batch, device = len(waveforms), waveforms.device
    waveforms = waveforms * gains(batch, settings.gain_db, generator).to(device)
    shifts = torch.randint(waveforms.shape[1], (batch,), generator=generator)
    shifts = torch.where(chosen(batch, settings.roll, generator), shifts, 0).to(device)
    place = torch.arange(waveforms.shape[1], device=device)
    waveforms = waveforms.gather(1, (place - shifts[:, None]) % waveforms.shape[1])
    partner = (torch.arange(batch) + int(torch.randint(1, max(batch, 2), (1,), generator=generator))) % batch
    mixed = (chosen(batch, settings.mixup, generator) & (partner != torch.arange(batch))).to(device)[:, None]
    other = waveforms[partner.to(device)] * level_ratio(waveforms, waveforms[partner.to(device)], generator)
    waveforms = torch.where(mixed, waveforms + other, waveforms)
    targets = torch.where(mixed, torch.maximum(targets, targets[partner.to(device)]), targets)
    return waveforms, targets


def augment_mel(mel: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Stripes of time and of frequency set to the picture's mean, in a share `mask` of the rows.

    mel     (batch, mels, frames)
    source  https://arxiv.org/abs/1904.08779 (SpecAugment)
    """
    if settings.mask == 0.0:
        return mel
    kept = torch.ones(len(mel), 1, *mel.shape[1:])
    with torch.random.fork_rng(devices=[]):  # torchaudio draws from the global generator
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        for axis, (count, longest) in ((2, MEL_MASKS), (3, TIME_MASKS)):
            for _ in range(count):
                kept = mask_along_axis_iid(kept, longest, 0.0, axis)
    spared = ~chosen(len(mel), settings.mask, generator)[:, None, None]
    return torch.where(((kept[:, 0] > 0) | spared).to(mel.device), mel, mel.mean(dim=(1, 2), keepdim=True))


def gains(batch: int, decibels: tuple[float, float], generator: torch.Generator) -> Tensor:
    """(batch, 1) factors between two levels in dB."""
    low, high = decibels
    return 10 ** ((low + (high - low) * torch.rand(batch, 1, generator=generator)) / 20)


def level_ratio(waveforms: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """(batch, 1) factors that bring the others to between 10 dB below and 5 dB above the level of the first."""
    level = waveforms.square().mean(dim=1, keepdim=True).sqrt() / (
        others.square().mean(dim=1, keepdim=True).sqrt() + 1e-6
    )
    return level.clamp(max=100.0) * gains(len(waveforms), (-10.0, 5.0), generator).to(waveforms.device)


def chosen(batch: int, probability: float, generator: torch.Generator) -> Tensor:
    """(batch,) bool, each True with the given probability."""
    return torch.rand(batch, generator=generator) < probability


if __name__ == "__main__":
    time = torch.arange(16_000) / 16_000
    sounds = torch.stack([torch.sin(2 * torch.pi * hertz * time) for hertz in (300, 900, 2700)])
    heard = torch.eye(3)
    everything = AugmentSettings(mixup=1.0, roll=1.0, mask=1.0)
    mixture, both = augment_batch(sounds, heard, everything, torch.Generator().manual_seed(0))
    print("heard in each mixture:", both.sum(dim=1), "levels", mixture.square().mean(dim=1).sqrt())
    nothing = AugmentSettings(gain_db=(0.0, 0.0), mixup=0.0, roll=0.0, mask=0.0)
    same, labels = augment_batch(sounds, heard, nothing, torch.Generator().manual_seed(0))
    assert (
        torch.equal(same, sounds) and torch.equal(labels, heard) and torch.equal(both.sum(dim=1), torch.full((3,), 2.0))
    )
