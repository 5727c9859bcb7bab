"""Harder batches: nothing at all when switched off, and labels that tell what is really mixed in."""

import pytest
import torch

from augment import augment_batch, augment_mel, gains
from config import AugmentSettings

OFF = AugmentSettings(gain_db=(0.0, 0.0), mixup=0.0, roll=0.0, mask=0.0)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    waveforms = torch.randn(6, 4000, generator=torch.Generator().manual_seed(0))
    return waveforms, torch.eye(6)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_switched_off_it_changes_nothing() -> None:
    waveforms, labels = batch()
    same, kept = augment_batch(waveforms, labels, OFF, generator())
    assert torch.equal(same, waveforms) and torch.equal(kept, labels)
    mel = torch.randn(2, 80, 100)
    assert torch.equal(augment_mel(mel, OFF, generator()), mel)


def test_a_mixture_has_the_labels_of_both_and_holds_both() -> None:
    waveforms, labels = batch()
    mixed, union = augment_batch(waveforms, labels, AugmentSettings((0.0, 0.0), 1.0, 0.0, 0.0), generator())
    assert union.sum(dim=1).tolist() == [2.0] * 6
    for row in range(6):
        added = mixed[row] - waveforms[row]
        partner = int(union[row].nonzero()[:, 0][union[row].nonzero()[:, 0] != row][0])
        similarity = torch.nn.functional.cosine_similarity(added, waveforms[partner], dim=0)
        level = 10 * torch.log10(added.square().mean() / waveforms[row].square().mean())
        assert similarity > 0.999 and -10.1 < level < 5.1


def test_levels_stay_in_their_range() -> None:
    factors = 20 * torch.log10(gains(10_000, (-18.0, 6.0), generator()))
    assert -18.01 < factors.min() < -17.5 and 5.5 < factors.max() < 6.01


def test_a_roll_keeps_every_sample() -> None:
    waveforms, labels = batch()
    rolled, _ = augment_batch(waveforms, labels, AugmentSettings((0.0, 0.0), 0.0, 1.0, 0.0), generator())
    assert not torch.equal(rolled, waveforms)
    assert torch.equal(rolled.sort(dim=1).values, waveforms.sort(dim=1).values)


def test_stripes_take_the_mean_and_leave_the_rest() -> None:
    mel = torch.randn(8, 80, 500, generator=generator()) + 3
    striped = augment_mel(mel, AugmentSettings(mask=1.0), generator())
    changed = striped != mel
    assert 0.0 < changed.float().mean() < 0.5
    mean = mel.mean(dim=(1, 2), keepdim=True).expand_as(mel)
    torch.testing.assert_close(striped[changed], mean[changed], atol=1e-5, rtol=0)


def test_the_same_generator_state_gives_the_same_batch_and_leaves_the_global_one_alone() -> None:
    waveforms, labels = batch()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, _ = augment_batch(waveforms, labels, AugmentSettings(), generator(7))
    stripes = augment_mel(waveforms[:, None, :1000].repeat(1, 80, 1), AugmentSettings(), generator(7))
    assert torch.equal(torch.rand(1), expected)
    again, _ = augment_batch(waveforms, labels, AugmentSettings(), generator(7))
    assert torch.equal(first, again)
    assert torch.equal(
        stripes, augment_mel(waveforms[:, None, :1000].repeat(1, 80, 1), AugmentSettings(), generator(7))
    )


def test_a_batch_of_one_has_nobody_to_mix_with() -> None:
    waveforms, labels = torch.randn(1, 100), torch.ones(1, 1)
    alone, kept = augment_batch(waveforms, labels, AugmentSettings((0.0, 0.0), 1.0, 0.0, 0.0), generator())
    assert torch.equal(alone, waveforms) and kept.item() == pytest.approx(1.0)
