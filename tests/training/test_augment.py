"""Harder batches: nothing at all when switched off, and labels that tell what is really heard."""

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor
from torchaudio.functional import mask_along_axis_iid

from config import AugmentSettings
from training.augment import (
    FADE,
    ISOLATED,
    MEL_MASKS,
    SPLICED,
    TIME_MASKS,
    TONE_DB,
    TONE_POINTS,
    augment_batch,
    augment_mel,
    chosen,
    control_tone,
    gains,
    isolate,
    level_ratio,
    mix,
    resize_mix,
    roll_rows,
    splice,
    tone_curve,
)

OFF = AugmentSettings(gain_db=(0.0, 0.0), mixup=0.0, noise=0.0, roll=0.0, splice=0.0, filter=0.0, mask=0.0, isolate=0.0)
EVERYTHING = AugmentSettings(mixup=1.0, sources=3, noise=1.0, roll=1.0, splice=1.0, filter=1.0, mask=1.0, isolate=1.0)
SOME = AugmentSettings(mixup=1.0, noise=0.0, roll=1.0, mask=1.0, isolate=0.0)
SEEDS = range(20)


def batch(rows: int = 6) -> tuple[Tensor, Tensor]:
    waveforms = torch.randn(rows, 4000, generator=generator())
    return waveforms, torch.eye(rows)


def tones(*hertz: float) -> Tensor:
    """(tones, 16000) one second of each at half of full scale."""
    time = torch.arange(16_000) / 16_000
    return torch.stack([torch.sin(2 * torch.pi * frequency * time) / 2 for frequency in hertz])


def wind(count: int = 3, samples: int = 4000) -> Tensor:
    return torch.randn(count, samples, generator=generator(99)) / 10


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spectrum(waveforms: Tensor) -> Tensor:
    """(batch, frequencies), complex."""
    return cast(Tensor, torch.fft.rfft(waveforms))


def decibels(one: Tensor, other: Tensor) -> Tensor:
    """(batch,) how far the level of each row lies above that of another."""
    return 10 * torch.log10(one.square().mean(dim=1) / other.square().mean(dim=1))


def as_before(
    waveforms: Tensor, targets: Tensor, settings: AugmentSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Level, shift and mixture in the order in which they were drawn when there was nothing else."""
    rows, device = len(waveforms), waveforms.device
    waveforms = waveforms * gains(rows, settings.gain_db, generator).to(device)
    shifts = torch.randint(waveforms.shape[1], (rows,), generator=generator)
    shifts = torch.where(chosen(rows, settings.roll, generator), shifts, 0).to(device)
    place = torch.arange(waveforms.shape[1], device=device)
    waveforms = waveforms.gather(1, (place - shifts[:, None]) % waveforms.shape[1])
    partner = (torch.arange(rows) + int(torch.randint(1, max(rows, 2), (1,), generator=generator))) % rows
    mixed = (chosen(rows, settings.mixup, generator) & (partner != torch.arange(rows))).to(device)[:, None]
    other = waveforms[partner.to(device)] * level_ratio(waveforms, waveforms[partner.to(device)], generator)
    waveforms = torch.where(mixed, waveforms + other, waveforms)
    targets = torch.where(mixed, torch.maximum(targets, targets[partner.to(device)]), targets)
    return waveforms, targets


@pytest.mark.parametrize("rows", [1, 2, 6])
@pytest.mark.parametrize(
    "settings",
    [
        AugmentSettings(isolate=0.0),
        OFF,
        AugmentSettings(mixup=1.0, roll=1.0, isolate=0.0),
        AugmentSettings(mixup=0.3, roll=0.0, mask=0.0, isolate=0.0),
    ],
)
def test_without_the_newer_steps_every_bit_is_what_it_was(settings: AugmentSettings, rows: int) -> None:
    waveforms, labels = batch(rows)
    for seed in SEEDS:
        now, before = generator(seed), generator(seed)
        found = augment_batch(waveforms, labels, settings, now, wind() if settings is OFF else None)
        expected = as_before(waveforms, labels, settings, before)
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
        assert torch.equal(now.get_state(), before.get_state())


@pytest.mark.parametrize(
    "settings",
    [
        replace(SOME, sources=2),
        replace(SOME, splice=1.0),
        replace(SOME, filter=1.0),
        replace(SOME, noise=1.0),
        replace(SOME, mixup=0.0),
        replace(SOME, roll=0.0),
        replace(SOME, isolate=1.0),
    ],
)
def test_each_step_makes_a_difference(settings: AugmentSettings) -> None:
    waveforms, labels = batch()
    plain, _ = augment_batch(waveforms, labels, SOME, generator(), wind())
    changed, _ = augment_batch(waveforms, labels, settings, generator(), wind())
    assert not torch.equal(plain, changed)


def test_switched_off_it_changes_nothing() -> None:
    waveforms, labels = batch()
    for backgrounds in (None, wind()):
        same, kept = augment_batch(waveforms, labels, OFF, generator(), backgrounds)
        assert torch.equal(same, waveforms) and torch.equal(kept, labels)
    mel = torch.randn(2, 80, 100)
    assert torch.equal(augment_mel(mel, OFF, generator()), mel)


def test_what_comes_in_stays_as_it_is() -> None:
    waveforms, labels, backgrounds = *batch(), wind()
    copies = waveforms.clone(), labels.clone(), backgrounds.clone()
    augment_batch(waveforms, labels, EVERYTHING, generator(), backgrounds)
    for one, copy in zip((waveforms, labels, backgrounds), copies, strict=True):
        assert torch.equal(one, copy)


def test_a_mixture_has_the_labels_of_both_and_holds_both() -> None:
    waveforms, labels = batch()
    mixed, union = augment_batch(waveforms, labels, replace(OFF, mixup=1.0), generator())
    assert union.sum(dim=1).tolist() == [2.0] * 6
    for row in range(6):
        added = mixed[row] - waveforms[row]
        partner = int(union[row].nonzero()[:, 0][union[row].nonzero()[:, 0] != row][0])
        similarity = torch.nn.functional.cosine_similarity(added, waveforms[partner], dim=0)
        level = 10 * torch.log10(added.square().mean() / waveforms[row].square().mean())
        assert similarity > 0.999 and -10.1 < level < 5.1


def test_of_several_sources_the_labels_are_those_that_are_heard() -> None:
    waveforms, labels = batch(8)
    counts: set[int] = set()
    for seed in SEEDS:
        mixed, union = mix(waveforms, labels, 0.8, 3, generator(seed))
        parts = cast(Tensor, torch.linalg.lstsq(waveforms.T, mixed.T).solution).T  # (mixture, source) factors, exact
        heard = parts.abs() > 0.05
        assert torch.equal(heard, union > 0) and torch.allclose(parts.diagonal(), torch.ones(8), atol=1e-3)
        others = parts[heard & ~torch.eye(8, dtype=torch.bool)]
        assert ((others > 0.29) & (others < 1.9)).all() and others.unique().numel() == others.numel()
        counts |= {int(count) for count in union.sum(dim=1)}
    assert counts == {1, 2, 3, 4}


def test_three_recordings_have_two_others_however_many_are_asked_for() -> None:
    waveforms, labels = batch(3)
    counts = torch.stack([mix(waveforms, labels, 1.0, 9, generator(seed))[1].sum(dim=1) for seed in SEEDS])
    assert {int(count) for count in counts.flatten()} == {2, 3}
    with pytest.raises(AssertionError, match=r"--augment\.sources 0: give 1 or more"):
        mix(waveforms, labels, 1.0, 0, generator())


def test_waveforms_are_mixed_and_not_their_pictures() -> None:
    sound = tones(440)
    for seed in SEEDS:
        mixed, _ = mix(torch.cat([sound, -sound]), torch.eye(2), 1.0, 1, generator(seed))
        assert (decibels(mixed, torch.cat([sound, sound])) < -2).all()  # pictures of sounds never weaken each other
        mixed, _ = mix(torch.cat([sound, sound]), torch.eye(2), 1.0, 1, generator(seed))
        assert (decibels(mixed, torch.cat([sound, sound])) > 2).all()


def test_the_background_lies_as_far_below_what_is_loudest_as_drawn() -> None:
    waveforms, labels = batch(50)
    waveforms = waveforms * gains(50, (-60.0, 0.0), generator(3))
    waveforms[:, 600:] *= 0.01  # a call of 600 samples, then hardly anything
    call = waveforms[:, :400]  # a tenth of the window
    for ratio in (-5.0, 3.0, 30.0):
        settings = replace(OFF, noise=1.0, snr_db=(ratio, ratio))
        noisy, kept = augment_batch(waveforms, labels, settings, generator(), wind())
        below = decibels(call, noisy - waveforms)
        assert (below - ratio).abs().median() < 0.5 and (below - ratio).max() < 0.1 and torch.equal(kept, labels)
        whole = decibels(waveforms, noisy - waveforms)  # negative control: the mean of the window is much less
        assert (whole - ratio).median() < -6
    noisy, _ = augment_batch(waveforms, labels, replace(OFF, noise=1.0, snr_db=(3.0, 30.0)), generator(), wind())
    ratios = decibels(call, noisy - waveforms)
    assert 2 < ratios.min() < 8 and 25 < ratios.max() < 30.1


def test_the_background_is_one_of_those_given_shifted_in_a_circle() -> None:
    waveforms, labels = batch(12)
    backgrounds = wind()
    noisy, _ = augment_batch(waveforms, labels, replace(OFF, noise=1.0, snr_db=(3.0, 3.0)), generator(), backgrounds)
    added = spectrum(torch.nn.functional.normalize(noisy - waveforms))[:, None]
    given = spectrum(torch.nn.functional.normalize(backgrounds))
    likeness = cast(Tensor, torch.fft.irfft(added * given.conj(), n=4000))  # at each shift
    best, shift = likeness.max(dim=2)
    assert (best.max(dim=1).values > 0.999).all() and (best.min(dim=1).values < 0.2).all()
    which = best.argmax(dim=1, keepdim=True)
    assert which.unique().numel() == 3 and shift.gather(1, which).unique().numel() > 9


def test_about_as_many_windows_as_asked_for_have_a_background() -> None:
    waveforms, labels = torch.randn(400, 100, generator=generator()), torch.zeros(400, 1)
    noisy, _ = augment_batch(waveforms, labels, replace(OFF, noise=0.3), generator(), wind(samples=100))
    assert 0.2 < (noisy != waveforms).any(dim=1).float().mean() < 0.4


def test_silence_stays_silent_and_silence_adds_nothing() -> None:
    waveforms, labels = batch()
    waveforms[2] = 0.0
    settings = replace(OFF, noise=1.0, filter=1.0)
    noisy, _ = augment_batch(waveforms, labels, settings, generator(), wind())
    assert noisy.isfinite().all() and torch.equal(noisy[2], torch.zeros(4000))
    assert (noisy != waveforms).any(dim=1).tolist() == [True, True, False, True, True, True]
    same, _ = augment_batch(waveforms, labels, replace(OFF, noise=1.0), generator(), torch.zeros(2, 4000))
    assert torch.equal(same, waveforms)
    everything, _ = augment_batch(torch.zeros(6, 4000), labels, EVERYTHING, generator(), wind())
    assert torch.equal(everything, torch.zeros(6, 4000))


def test_backgrounds_of_another_length_are_refused() -> None:
    waveforms, labels = batch()
    with pytest.raises(AssertionError, match=r"\(3, 3999\) under windows of 4000 samples; read them with the same"):
        augment_batch(waveforms, labels, replace(OFF, noise=1.0), generator(), wind(samples=3999))


def band_levels(waveforms: Tensor) -> Tensor:
    """(batch, 30) levels of equal bands in dB."""
    powers = spectrum(waveforms).abs().square()[:, 1:]
    return 10 * torch.log10(powers.reshape(len(waveforms), 30, -1).mean(dim=2))


def test_the_tone_control_keeps_the_level_and_changes_the_spectrum() -> None:
    waveforms = torch.randn(16, 4020, generator=generator()) * gains(16, (-40.0, 0.0), generator(1))
    changed = control_tone(waveforms, 1.0, generator())
    assert decibels(changed, waveforms).abs().max() < 0.01
    spread = (band_levels(changed) - band_levels(waveforms)).aminmax(dim=1)
    widths = spread.max - spread.min
    assert (widths > 2).all() and widths.max() < TONE_DB[1] - TONE_DB[0] + 1
    louder = band_levels(waveforms * gains(16, (-18.0, 6.0), generator())) - band_levels(waveforms)
    assert (louder.amax(dim=1) - louder.amin(dim=1)).max() < 0.1  # negative control: a level is no tone


def test_the_tone_control_delays_nothing() -> None:
    click = torch.zeros(1, 4000)
    click[0, 1234] = 1.0
    assert all(int(control_tone(click, 1.0, generator(seed)).abs().argmax()) == 1234 for seed in SEEDS)


def test_a_tone_control_goes_through_its_points_and_no_further() -> None:
    places, levels = torch.tensor([[0.0, 0.5, 1.0, 1.0]]), torch.tensor([[6.0, -20.0, 0.0, 99.0]])
    curve = 20 * torch.log10(tone_curve(places, levels, 4097))  # eight octaves from bin 16 to bin 4096
    assert curve[0, [0, 16, 256, 4096]].tolist() == pytest.approx([6.0, 6.0, -20.0, 0.0], abs=1e-3)
    assert curve[0, 64].item() == pytest.approx(-7.0, abs=1e-3)  # half the way
    assert (curve[0, 16:257].diff() < 1e-4).all() and (curve[0, 256:].diff() > -1e-4).all()


def test_a_tone_control_has_four_to_eight_points_well_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def watched(places: Tensor, decibels: Tensor, bins: int) -> Tensor:
        seen.append(places)
        return tone_curve(places, decibels, bins)

    monkeypatch.setattr("training.augment.tone_curve", watched)
    control_tone(torch.randn(100, 50, generator=generator()), 1.0, generator())
    counts = 1 + (seen[0].diff(dim=1) > 0).sum(dim=1)
    assert {int(count) for count in counts} == {*range(TONE_POINTS[0], TONE_POINTS[1] + 1)}
    assert seen[0].unique(dim=0).shape == (100, 8) and float(seen[0].min()) == 0.0 and float(seen[0].max()) == 1.0
    steps = seen[0].diff(dim=1)
    assert steps[steps > 0].min() > 0.05  # of eight octaves


def test_no_row_or_some_can_have_their_tone_changed() -> None:
    waveforms = torch.randn(200, 100, generator=generator())
    assert torch.equal(control_tone(waveforms, 0.0, generator()), waveforms)
    assert 0.2 < (control_tone(waveforms, 0.3, generator()) != waveforms).any(dim=1).float().mean() < 0.4


def test_a_splice_holds_a_stretch_of_the_other_recording_and_leaves_the_rest() -> None:
    waveforms, labels = batch()
    shifts: set[int] = set()
    for seed in SEEDS:
        spliced, union = splice(waveforms, labels, 1.0, generator(seed))
        assert union.sum(dim=1).tolist() == [2.0] * 6 and torch.equal(union.diagonal(), torch.ones(6))
        for row in range(6):
            changed = (spliced[row] != waveforms[row]).nonzero()[:, 0]
            start, end = int(changed[0]), int(changed[-1]) + 1
            assert SPLICED[0] * 4000 - 1 <= end - start <= SPLICED[1] * 4000 + 1
            inside = spliced[row, start + FADE : end - FADE]
            found: list[int] = []  # whose samples these are
            for other in range(6):
                for place in (waveforms[other] == inside[0]).nonzero()[:, 0]:
                    if torch.equal(waveforms[other, int(place) : int(place) + len(inside)], inside):
                        found.append(other)
                        shifts.add(start + FADE - int(place))
            assert found == [int((union[row] - labels[row]).argmax())]
    assert len(shifts) > 100 and min(shifts) < -1000 and max(shifts) > 1000  # from anywhere to anywhere


def test_an_isolated_piece_is_where_it_was_and_silence_is_about_it() -> None:
    waveforms, labels = batch()
    lengths: list[int] = []
    for seed in SEEDS:
        isolated, kept = augment_batch(waveforms, labels, replace(OFF, isolate=1.0), generator(seed))
        assert torch.equal(kept, labels)
        for row in range(6):
            there = isolated[row].nonzero()[:, 0]
            start, end = int(there[0]), int(there[-1]) + 1
            fade = (end - start) // 4 + 1
            inside = slice(start + fade, end - fade)
            assert torch.equal(isolated[row, inside], waveforms[row, inside])
            assert isolated[row].abs().le(waveforms[row].abs()).all()
            lengths.append(end - start)
    low, high = ISOLATED
    assert low * 4000 - 2 <= min(lengths) < low * 4000 + 200 and high * 4000 - 200 < max(lengths) <= high * 4000 + 2


def test_what_is_isolated_is_rather_what_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    waveforms = torch.randn(500, 4000, generator=generator()) / 1000
    waveforms[:, 1000:1500] *= 1000  # a call in hiss
    held = isolate(waveforms, 1.0, generator()).square().sum(dim=1) / waveforms.square().sum(dim=1)
    monkeypatch.setattr("training.augment.ISOLATED_DRAWS", 1)  # negative control: without listening
    blind = isolate(waveforms, 1.0, generator()).square().sum(dim=1) / waveforms.square().sum(dim=1)
    assert held.mean() > 0.65 and blind.mean() < 0.55


def test_about_as_many_windows_as_asked_for_are_isolated() -> None:
    waveforms = torch.randn(400, 4000, generator=generator())
    assert 0.2 < (isolate(waveforms, 0.3, generator()) != waveforms).any(dim=1).float().mean() < 0.4
    assert torch.equal(isolate(waveforms, 0.0, generator()), waveforms)


def steps_beyond(spliced: Tensor, union: Tensor, sounds: Tensor) -> Tensor:
    """(batch,) how much further a row's loudest step goes than those of the recordings it is made of."""
    steps = sounds.diff(dim=1).abs().amax(dim=1)
    return spliced.diff(dim=1).abs().amax(dim=1) - (union * steps).amax(dim=1)


@pytest.mark.parametrize("hertz", [(400, 530, 610, 370), (20, 27, 31, 18)])
def test_a_splice_makes_no_click(hertz: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = tones(*hertz)
    apart = 1.0  # at most, as far as two samples of theirs lie
    beyond = torch.cat([steps_beyond(*splice(sounds, torch.eye(4), 1.0, generator(s)), sounds) for s in SEEDS])
    assert beyond.max() <= apart / FADE
    monkeypatch.setattr("training.augment.FADE", 1)  # negative control: without a cross-fade
    beyond = torch.cat([steps_beyond(*splice(sounds, torch.eye(4), 1.0, generator(s)), sounds) for s in SEEDS])
    assert beyond.median() > 20 * apart / FADE


def test_levels_stay_in_their_range() -> None:
    factors = 20 * torch.log10(gains(10_000, (-18.0, 6.0), generator()))
    assert -18.01 < factors.min() < -17.5 and 5.5 < factors.max() < 6.01


def test_a_roll_keeps_every_sample() -> None:
    waveforms, labels = batch()
    rolled, _ = augment_batch(waveforms, labels, replace(OFF, roll=1.0), generator())
    assert not torch.equal(rolled, waveforms)
    assert torch.equal(rolled.sort(dim=1).values, waveforms.sort(dim=1).values)


def test_stripes_take_the_mean_and_leave_the_rest() -> None:
    mel = torch.randn(8, 80, 500, generator=generator()) + 3
    striped = augment_mel(mel, AugmentSettings(mask=1.0), generator())
    changed = striped != mel
    assert 0.0 < changed.float().mean() < 0.5
    mean = mel.mean(dim=(1, 2), keepdim=True).expand_as(mel)
    torch.testing.assert_close(striped[changed], mean[changed], atol=1e-5, rtol=0)


def test_stripes_are_those_of_torchaudio() -> None:
    mel = torch.randn(8, 80, 500, generator=generator()) + 3
    own = generator(5)
    kept = torch.ones(8, 1, 80, 500)
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=own)))
        for axis, (count, longest) in ((2, MEL_MASKS), (3, TIME_MASKS)):
            for _ in range(count):
                kept = mask_along_axis_iid(kept, longest, 0.0, axis)
    spared = ~chosen(8, 0.7, own)[:, None, None]
    expected = torch.where((kept[:, 0] > 0) | spared, mel, mel.mean(dim=(1, 2), keepdim=True))
    assert torch.equal(augment_mel(mel, AugmentSettings(mask=0.7), generator(5)), expected)
    assert not torch.equal(augment_mel(mel, AugmentSettings(mask=0.7), generator(6)), expected)  # negative control


def test_every_row_is_rolled_as_torch_rolls_one() -> None:
    waveforms, shifts = batch(5)[0], torch.tensor([0, 1, 3999, -7, 2000])
    expected = torch.stack([row.roll(int(shift)) for row, shift in zip(waveforms, shifts, strict=True)])
    assert torch.equal(roll_rows(waveforms, shifts), expected)


def test_a_smaller_picture_of_another_row_is_laid_in_and_both_labels_count() -> None:
    levels = torch.tensor([1.0, 2.0, 3.0])
    mel, labels = levels[:, None, None].expand(3, 80, 500), torch.eye(3)
    for seed in range(20):
        mixed, union = resize_mix(mel, labels, 1.0, generator(seed))
        for row, own in enumerate(levels):
            place = (mixed[row] - own).abs() > 0.5
            other = float(mixed[row][place].mean())
            assert (
                torch.allclose(mixed[row][place], torch.tensor(other), atol=1e-4) and abs(other - round(other)) < 1e-4
            )
            high, wide = int(place.any(dim=1).sum()), int(place.any(dim=0).sum())
            assert place.sum() == high * wide and abs(high / 80 - wide / 500) < 0.01  # one piece of the same shape
            assert 8 <= high <= 64 and 50 <= wide <= 400
            assert union[row].nonzero()[:, 0].tolist() == sorted([row, round(other) - 1])


def test_what_is_laid_in_is_the_whole_picture_and_about_as_often_as_asked_for() -> None:
    """Frequencies and moments keep their order: a rising tone rises in it too."""
    rising = (torch.arange(80.0)[:, None] == torch.arange(0, 80, 0.16)[None].floor()).float()
    mel = torch.stack([torch.zeros_like(rising), rising])
    mixed, _ = resize_mix(mel, torch.eye(2), 1.0, generator(1))
    (bins, frames) = mixed[0].gt(0.3).nonzero().T
    assert torch.corrcoef(torch.stack([bins.float(), frames.float()]))[0, 1] > 0.99
    many, labels = torch.randn(400, 8, 10), torch.eye(400)
    mixed, union = resize_mix(many, labels, 0.3, generator(2))
    changed = (mixed != many).flatten(1).any(dim=1)
    assert 80 < int(changed.sum()) < 160 and torch.equal(union.sum(dim=1) > 1, changed)
    same, kept = resize_mix(many[:1], labels[:1], 1.0, generator())  # nobody to mix with
    assert torch.equal(same, many[:1]) and torch.equal(kept, labels[:1])
    before = generator().get_state()
    off = generator()
    drawn = resize_mix(many, labels, 0.0, off)
    assert drawn[0] is many and torch.equal(off.get_state(), before)  # switched off it draws nothing


@pytest.mark.parametrize("settings", [AugmentSettings(), EVERYTHING])
def test_the_same_generator_state_gives_the_same_batch_and_leaves_the_global_one_alone(
    settings: AugmentSettings,
) -> None:
    waveforms, labels = batch()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, heard = augment_batch(waveforms, labels, settings, generator(7), wind())
    stripes = augment_mel(waveforms[:, None, :1000].repeat(1, 80, 1), settings, generator(7))
    assert torch.equal(torch.rand(1), expected)
    again, union = augment_batch(waveforms, labels, settings, generator(7), wind())
    assert torch.equal(first, again) and torch.equal(heard, union)
    assert torch.equal(stripes, augment_mel(waveforms[:, None, :1000].repeat(1, 80, 1), settings, generator(7)))
    assert not torch.equal(first, augment_batch(waveforms, labels, settings, generator(8), wind())[0])


def test_a_row_depends_on_those_it_has_the_labels_of_and_on_no_other() -> None:
    waveforms, labels = batch(16)
    changed = waveforms.clone()
    changed[3] = torch.randn(4000, generator=generator(1)) / 5
    whole = replace(EVERYTHING, isolate=0.0)  # of what is isolated, a piece may be spliced that is silent
    heard: set[bool] = set()
    for seed in SEEDS:
        first, union = augment_batch(waveforms, labels, whole, generator(seed), wind())
        second, again = augment_batch(changed, labels, whole, generator(seed), wind())
        assert torch.equal(union, again)
        assert (first != second).any(dim=1).tolist() == (union[:, 3] > 0).tolist()
        heard |= {bool(value) for value in union[:, 3]}
    assert heard == {True, False}


@pytest.mark.slow  # loads what torch needs for it
def test_every_step_works_on_another_device_than_the_generators() -> None:
    waveforms, labels = batch()
    elsewhere = torch.device("meta")  # computes shapes alone
    with pytest.raises(RuntimeError, match="device"):
        torch.maximum(waveforms, waveforms.to(elsewhere))  # and notices what was left behind
    mixed, union = augment_batch(waveforms.to(elsewhere), labels.to(elsewhere), EVERYTHING, generator(), wind())
    assert mixed.device == union.device == elsewhere and mixed.shape == waveforms.shape and union.shape == labels.shape


def test_a_batch_of_one_has_nobody_to_mix_with() -> None:
    waveforms, labels = torch.randn(1, 1000), torch.ones(1, 1)
    settings = replace(OFF, mixup=1.0, sources=3, splice=1.0)
    alone, kept = augment_batch(waveforms, labels, settings, generator())
    assert torch.equal(alone, waveforms) and kept.item() == pytest.approx(1.0)


def test_what_is_mixed_into_silence_is_heard() -> None:
    waveforms = torch.stack([torch.zeros(16_000), torch.randn(16_000, generator=torch.Generator().manual_seed(0))])
    settings = AugmentSettings(gain_db=(0.0, 0.0), mixup=1.0, roll=0.0, mask=0.0, isolate=0.0)
    mixed, labels = augment_batch(waveforms, torch.eye(2), settings, torch.Generator().manual_seed(1))
    assert labels[0].tolist() == [1.0, 1.0]
    level = mixed[0].square().mean().sqrt()
    assert 0.3 < level < 1.8  # between 10 dB below its own level and 5 dB above
