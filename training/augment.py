"""A batch in, a harder batch out: tone, level, shift in time, a short call left alone, other animals, weather, stripes
hidden from the picture.

    waveforms, targets = augment_batch(waveforms, targets, config.augment, generator, backgrounds)
    mel, targets = resize_mix(log_mel(waveforms), targets, config.augment.resize_mix, generator)
    mel = augment_mel(mel, config.augment, generator)

Waveforms are mixed, never log-mel pictures: sound adds up in the air. No change of pitch or speed: both carry species.
The exception is ResizeMix, off as it is, which other projects train networks for pictures with. All chance comes from
one generator on the CPU. Tone, isolation, splice, ResizeMix, further sources and background draw from it only where
they are switched on, so runs without them stay what they were. What is drawn, a few numbers for each row,
goes to the device of the sound without waiting for it, and nothing is ever asked back: a GPU is not kept from what it
has to do.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from config import AugmentSettings, MixtureSettings

TIME_MASKS, MEL_MASKS = (2, 40), (2, 12)  # how many stripes, and the longest: frames, mel bins
RESIZED = (0.1, 0.8)  # smallest and largest side of a picture laid into another, shares of its own
SPLICED = (0.2, 0.6)  # shortest and longest segment of another recording, shares of the window
ISOLATED = (0.1, 0.8)  # shortest and longest piece that is left alone, shares of the window
ISOLATED_DRAWS = 4  # of which the loudest is taken, for there the animal is
ISOLATED_FADE = 800  # samples faded in and out, or a quarter of a shorter piece: 50 ms at 16 kHz, 3 ms of a bat
FADE = 160  # samples of cross-fade at either end of it: 10 ms at 16 kHz, as many cycles at any other
LOUD = 0.1  # of the window: the loudest piece of this length is what a background is compared with
TONE_POINTS = (4, 8)  # fewest and most points that a tone control goes through
TONE_DB = (-20.0, 6.0)  # lowest and highest of them
TONE_OCTAVES = 8  # below half the sample rate: 31 Hz to 8 kHz at 16 kHz
SILENCE = 1e-12  # mean square: 120 dB below full scale, less than one sample of 16 bits in a window


def augment_batch(
    waveforms: Tensor,
    targets: Tensor,
    settings: MixtureSettings,
    generator: torch.Generator,
    backgrounds: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Each recording's own tone, level and shift, then what else is mixed in, drawn for each row on its own.

    waveforms    (batch, samples)
    targets      (batch, species) 1 where present; what is put together of several recordings has what any of them has
    generator    on the CPU: the same state gives the same batch on any device
    backgrounds  (count, samples) sound without animals, as data_loader.noise_bank reads it, on any device

    returns      new tensors, (batch, samples) and (batch, species)
    """
    batch, samples = waveforms.shape
    device = waveforms.device
    if settings.filter > 0:
        waveforms = control_tone(waveforms, settings.filter, generator)
    waveforms = waveforms * gains(batch, settings.gain_db, generator).to(device, non_blocking=True)
    shifts = torch.randint(samples, (batch,), generator=generator)
    shifts = torch.where(chosen(batch, settings.roll, generator), shifts, 0)
    waveforms = roll_rows(waveforms, shifts)
    if isinstance(settings, AugmentSettings) and settings.isolate > 0:
        waveforms = isolate(waveforms, settings.isolate, generator)
    if settings.splice > 0:
        waveforms, targets = splice(waveforms, targets, settings.splice, generator)
    waveforms, targets = mix(waveforms, targets, settings.mixup, settings.sources, generator)
    if backgrounds is not None and isinstance(settings, AugmentSettings) and settings.noise > 0:
        waveforms = add_background(waveforms, backgrounds, settings.noise, settings.snr_db, generator)
    return waveforms, targets


def augment_mel(mel: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Stripes of time and of frequency set to the picture's mean, in a share `mask` of the rows.

    mel     (batch, mels, frames)
    source  https://arxiv.org/abs/1904.08779 (SpecAugment)
    """
    if settings.mask == 0.0:
        return mel
    rows, bins, frames = mel.shape
    own = torch.Generator().manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
    drawn = [draw_stripes(rows, *one, own) for one in ((bins, *MEL_MASKS), (frames, *TIME_MASKS))]
    struck = chosen(rows, settings.mask, generator).to(mel.device, non_blocking=True)[:, None]
    over_bins, over_frames = (
        struck & within(stripes.to(mel.device, non_blocking=True), size)
        for stripes, size in zip(drawn, (bins, frames), strict=True)
    )
    hidden = over_bins[:, :, None] | over_frames[:, None, :]
    return torch.where(hidden, mel.mean(dim=(1, 2), keepdim=True), mel)


def resize_mix(mel: Tensor, labels: Tensor, probability: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The whole picture of another row, made smaller, in place of a piece of the picture; the labels of both count.
    Size and position are drawn once for all rows. Unlike `splice` it changes pitch and speed of what is laid in.

    mel     (batch, mels, frames)
    labels  (batch, species)
    source  https://arxiv.org/abs/2012.11101 (ResizeMix), where labels are mixed by the area
    """
    if probability == 0.0:
        return mel, labels
    rows, bins, frames = mel.shape
    partner = neighbour_rows(rows, draw_step(rows, generator), mel.device)
    changed = chosen(rows, probability, generator).to(mel.device, non_blocking=True)[:, None] & (rows > 1)
    smallest, largest = RESIZED
    drawn, down, right = (float(value) for value in torch.rand(3, generator=generator))
    share = smallest + (largest - smallest) * drawn
    height, width = max(1, round(share * bins)), max(1, round(share * frames))
    top, left = round(down * (bins - height)), round(right * (frames - width))
    small = torch.nn.functional.interpolate(mel[partner][:, None], (height, width), mode="bilinear", antialias=True)
    pasted = mel.clone()
    pasted[:, top : top + height, left : left + width] = small[:, 0]
    union = torch.maximum(labels, labels[partner])
    return torch.where(changed[..., None], pasted, mel), torch.where(changed, union, labels)


def draw_stripes(rows: int, size: int, count: int, longest: int, generator: torch.Generator) -> Tensor:
    """(2, count, rows) the first position of each stripe and the first one behind it: up to `longest` of `size`."""
    bounds: list[Tensor] = []
    for _ in range(count):
        length = torch.rand(rows, generator=generator) * longest
        start = (torch.rand(rows, generator=generator) * (size - length)).long()
        bounds.append(torch.stack([start, start + length.long()]))
    return torch.stack(bounds, dim=1)


def within(stripes: Tensor, size: int) -> Tensor:
    """(rows, size) whether a position is in any of the stripes (2, count, rows)."""
    position = torch.arange(size, device=stripes.device)
    starts, ends = stripes[..., None]
    inside: Tensor = ((position >= starts) & (position < ends)).any(dim=0)
    return inside


def control_tone(waveforms: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """A random tone control, as another microphone, distance or thicket: the spectrum times a smooth curve.

    The row keeps its level and nothing is delayed; what rings goes round the ends of the window.

    waveforms  (batch, samples)
    source     the idea of RandomFiltering, https://github.com/VSydorskyy/BirdCLEF_2025_2nd_place
    """
    batch, samples = waveforms.shape
    fewest, most = TONE_POINTS
    rows = chosen(batch, probability, generator).nonzero()[:, 0]
    counts = torch.randint(fewest, most + 1, (batch, 1), generator=generator)
    widths = 0.5 + torch.rand(batch, most - 1, generator=generator)  # none so narrow that it would ring for long
    widths = torch.where(torch.arange(most - 1) < counts - 1, widths, 0.0)
    positions = torch.cat([torch.zeros(batch, 1), widths.cumsum(dim=1)], dim=1)
    low, high = TONE_DB
    decibels = low + (high - low) * torch.rand(batch, most, generator=generator)
    if not len(rows):  # MKL refuses to transform nothing
        return waveforms
    points = torch.stack([positions / positions[:, -1:], decibels])[:, rows].to(waveforms.device, non_blocking=True)
    rows = rows.to(waveforms.device, non_blocking=True)
    before = waveforms[rows]
    curve = tone_curve(points[0], points[1], samples // 2 + 1)
    after = cast(Tensor, torch.fft.irfft(torch.fft.rfft(before) * curve, n=samples))
    return waveforms.index_copy(0, rows, after * (power(before) / power(after).clamp(min=SILENCE)).sqrt())


def tone_curve(positions: Tensor, decibels: Tensor, bins: int) -> Tensor:
    """Curves through some points, smooth over the logarithm of frequency.

    positions  (batch, points) rising from 0, the lowest frequency and all below, to 1, half the sample rate; of
               several at one position the first counts
    decibels   (batch, points) gains there

    returns   (batch, bins) factors from 0 Hz to half the sample rate
    """
    hertz = torch.arange(bins, device=positions.device) / (bins - 1)  # 1: half the sample rate
    pitch = (1 + torch.log2(hertz) / TONE_OCTAVES).clamp(min=0.0)
    level = decibels[:, :1].expand(-1, bins)
    for start, end, step in zip(positions.T[:-1], positions.T[1:], decibels.diff(dim=1).T, strict=True):
        way = ((pitch - start[:, None]) / (end - start).clamp(min=1e-6)[:, None]).clamp(0.0, 1.0)
        level = level + step[:, None] * way.square() * (3 - 2 * way)
    return torch.pow(10.0, level / 20)


def isolate(waveforms: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """One short piece of the window left alone, with silence before and behind it: a call as a soundscape has it.

    Published clips are cut to their animal, and a short one is repeated until the window is full, so that without this
    a network is never given a window with a single call in it (LOG.md says what that costs).

    waveforms  (batch, samples)
    """
    batch, samples = waveforms.shape
    shortest, longest = ISOLATED
    rows = chosen(batch, probability, generator).to(waveforms.device, non_blocking=True)[:, None]
    lengths = (samples * (shortest + (longest - shortest) * torch.rand(batch, generator=generator))).round().long()
    drawn = [draw_below(samples - lengths + 1, generator) for _ in range(ISOLATED_DRAWS)]
    starts = torch.stack(drawn, dim=1).to(waveforms.device, non_blocking=True)
    lengths = lengths.to(waveforms.device, non_blocking=True)[:, None]
    energy = torch.nn.functional.pad(waveforms.square().cumsum(dim=1), (1, 0))
    loudest = (energy.gather(1, starts + lengths) - energy.gather(1, starts)).argmax(dim=1, keepdim=True)
    inside = torch.arange(samples, device=waveforms.device) - starts.gather(1, loudest)  # 0: the first sample
    fade = (lengths / 4).clamp(1, ISOLATED_FADE)
    share = (torch.minimum(inside + 1, lengths - inside) / fade).clamp(0.0, 1.0)
    return torch.where(rows, waveforms * share, waveforms)


def splice(waveforms: Tensor, targets: Tensor, probability: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A segment of the window replaced by one of another row, with a short cross-fade at either end so that no click
    is made; the labels of both count, though a call may have lain in what was cut away.

    ResizeMix for sound without its resizing, which would change pitch or speed: the pasted piece is cut, not shrunk.

    waveforms  (batch, samples)
    targets    (batch, species)
    source     https://arxiv.org/abs/2012.11101 (ResizeMix)
    """
    batch, samples = waveforms.shape
    device = waveforms.device
    partner = neighbour_rows(batch, draw_step(batch, generator), device)
    changed = chosen(batch, probability, generator).to(device, non_blocking=True)[:, None] & (batch > 1)
    shortest, longest = SPLICED
    lengths = (samples * (shortest + (longest - shortest) * torch.rand(batch, generator=generator))).round().long()
    starts, origins = (draw_below(samples - lengths + 1, generator) for _ in range(2))
    lengths, shifts = lengths.to(device, non_blocking=True)[:, None], starts - origins
    inside = torch.arange(samples, device=device) - starts.to(device, non_blocking=True)[:, None]  # 0: the first sample
    share = (torch.minimum(inside + 1, lengths - inside) / FADE).clamp(0.0, 1.0)
    spliced = torch.lerp(waveforms, roll_rows(waveforms[partner], shifts), share)
    union = torch.maximum(targets, targets[partner])
    return torch.where(changed, spliced, waveforms), torch.where(changed, union, targets)


def mix(
    waveforms: Tensor, targets: Tensor, probability: float, sources: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One to `sources` other rows added, each at its own level; the labels of all count.

    waveforms  (batch, samples)
    targets    (batch, species)
    """
    assert sources >= 1, f"--augment.sources {sources}: give 1 or more; --augment.mixup 0 mixes nothing"
    batch, device = len(waveforms), waveforms.device
    steps = [draw_step(batch, generator)]
    mixed = chosen(batch, probability, generator) & (batch > 1)
    counts = torch.ones(batch)
    if sources > 1:
        others = 1 + torch.randperm(batch - 1, generator=generator)
        steps += others[others != steps[0]][: sources - 1].tolist()
        counts = torch.randint(1, len(steps) + 1, (batch,), generator=generator)
    mixture, union = waveforms, targets
    for number, step in enumerate(steps):
        partner = neighbour_rows(batch, step, device)
        added = (mixed & (number < counts)).to(device, non_blocking=True)[:, None]
        other = waveforms[partner] * level_ratio(waveforms, waveforms[partner], generator)
        mixture = torch.where(added, mixture + other, mixture)
        union = torch.where(added, torch.maximum(union, targets[partner]), union)
    return mixture, union


def add_background(
    waveforms: Tensor, backgrounds: Tensor, probability: float, snr_db: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """One of the backgrounds, cyclically shifted, under the window. Silence stays silent, and silence adds nothing.

    waveforms    (batch, samples)
    backgrounds  (count, samples) on any device; only what is used is moved
    snr_db       range of the power of the row, where it is loudest, over the power of what is added to it, dB
    """
    batch, samples = waveforms.shape
    assert len(backgrounds) and backgrounds.shape[1] == samples, (
        f"backgrounds of shape {tuple(backgrounds.shape)} under windows of {samples} samples; "
        "read them with the same audio settings (data_loader.noise_bank)"
    )
    which = torch.randint(len(backgrounds), (batch,), generator=generator)
    shifts = torch.randint(samples, (batch,), generator=generator)
    disturbed = chosen(batch, probability, generator).to(waveforms.device, non_blocking=True)[:, None]
    ratio = gains(batch, snr_db, generator).to(waveforms.device, non_blocking=True)
    chance = backgrounds[which.to(backgrounds.device, non_blocking=True)]
    noise = roll_rows(chance.to(waveforms, non_blocking=True), shifts)
    factor = (loudest_power(waveforms) / power(noise).clamp(min=SILENCE)).sqrt() / ratio
    return torch.where(disturbed, waveforms + noise * factor, waveforms)


def roll_rows(waveforms: Tensor, shifts: Tensor) -> Tensor:
    """(batch, samples), each row shifted cyclically to the right by its own number of samples (batch,), all of them at
    once: every row is a piece of itself written twice."""
    rows, samples = waveforms.shape
    starts = (-shifts % samples).to(waveforms.device, non_blocking=True)
    twice = torch.cat([waveforms, waveforms], dim=1)
    return twice.unfold(1, samples, 1)[torch.arange(rows, device=waveforms.device), starts]


def gains(batch: int, decibels: tuple[float, float], generator: torch.Generator) -> Tensor:
    """(batch, 1) factors between two levels in dB."""
    low, high = decibels
    return 10 ** ((low + (high - low) * torch.rand(batch, 1, generator=generator)) / 20)


def level_ratio(waveforms: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """(batch, 1) factors that bring the others to between 10 dB below and 5 dB above the level of the first; into a
    silent one they come at their own level, or their labels would stand for nothing."""
    silent = power(waveforms) < SILENCE
    level = torch.where(silent, 1.0, power(waveforms).sqrt() / (power(others).sqrt() + 1e-6))
    gain = gains(len(waveforms), (-10.0, 5.0), generator).to(waveforms.device, non_blocking=True)
    return level.clamp(max=100.0) * gain


def power(waveforms: Tensor) -> Tensor:
    """(batch, 1) mean squares of the rows."""
    return waveforms.square().mean(dim=1, keepdim=True)


def loudest_power(waveforms: Tensor) -> Tensor:
    """(batch, 1) mean squares of the loudest piece of each row, `LOUD` of the window long."""
    length = max(1, round(LOUD * waveforms.shape[1]))
    powers = torch.nn.functional.avg_pool1d(waveforms.square()[:, None], length, max(1, length // 2))
    return powers.amax(dim=2)


def chosen(batch: int, probability: float, generator: torch.Generator) -> Tensor:
    """(batch,) bool, each True with the given probability."""
    return torch.rand(batch, generator=generator) < probability


def draw_step(batch: int, generator: torch.Generator) -> int:
    """How many rows on the neighbour is, the same for all rows so that each is somebody's; 1 where there is none."""
    return int(torch.randint(1, max(batch, 2), (1,), generator=generator))


def neighbour_rows(batch: int, step: int, device: torch.device) -> Tensor:
    """(batch,) the row some steps on, beyond the last the first again."""
    return (torch.arange(batch, device=device) + step) % batch


def draw_below(limits: Tensor, generator: torch.Generator) -> Tensor:
    """(batch,) whole numbers, each at least 0 and below its limit (batch,)."""
    return (torch.rand(len(limits), generator=generator, dtype=torch.float64) * limits).long().minimum(limits - 1)


if __name__ == "__main__":
    time = torch.arange(16_000) / 16_000
    sounds = torch.stack([torch.sin(2 * torch.pi * hertz * time) for hertz in (300, 900, 2700, 5000)])
    present, wind = torch.eye(4), torch.randn(2, 16_000, generator=torch.Generator().manual_seed(1))
    everything = AugmentSettings(mixup=1.0, sources=2, noise=1.0, roll=1.0, splice=1.0, filter=1.0, mask=1.0)
    mixture, labels = augment_batch(sounds, present, everything, torch.Generator().manual_seed(0), wind)
    print("species in each window:", labels.sum(dim=1), "levels", mixture.square().mean(dim=1).sqrt())
    assert labels.sum(dim=1).min() >= 2 and mixture.isfinite().all()
    nothing = AugmentSettings(gain_db=(0.0, 0.0), mixup=0.0, noise=0.0, roll=0.0, mask=0.0, isolate=0.0)
    same, labels = augment_batch(sounds, present, nothing, torch.Generator().manual_seed(0), wind)
    assert torch.equal(same, sounds) and torch.equal(labels, present)
