"""Masks: the exact number, every place equally often, and no run longer than promised."""

import pytest
import torch
from torch import Tensor

from config import MaskStrategy
from training.masking import SPAN_TOKENS, contrast_scores, hide_tokens

STRATEGIES: tuple[MaskStrategy, ...] = ("span", "random", "block", "energy")


def masks(strategy: MaskStrategy, batch: int = 64, tokens: int = 250, ratio: float = 0.65, seed: int = 0) -> Tensor:
    flat = torch.zeros(batch, tokens)
    return hide_tokens(batch, tokens, ratio, strategy, torch.Generator().manual_seed(seed), flat)


def runs(row: Tensor, wanted: bool) -> list[int]:
    """Lengths of the runs of `wanted` on the ring."""
    turned = row.roll(-int((row != wanted).nonzero()[0, 0]))
    text = "".join("x" if value == wanted else " " for value in turned)
    return [len(run) for run in text.split()]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("ratio", [0.5, 0.65, 0.75])
def test_every_row_hides_exactly_its_share(strategy: MaskStrategy, ratio: float) -> None:
    assert bool((masks(strategy, ratio=ratio).sum(dim=1) == round(250 * ratio)).all())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_seed_gives_the_same_mask_and_another_does_not(strategy: MaskStrategy) -> None:
    assert torch.equal(masks(strategy, seed=3), masks(strategy, seed=3))
    assert not torch.equal(masks(strategy, seed=3), masks(strategy, seed=4))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_place_is_hidden_equally_often(strategy: MaskStrategy) -> None:
    share = masks(strategy, batch=6000, tokens=100).float().mean(dim=0)
    assert (share / 0.65 - 1).abs().max() < 0.06


def test_spans_without_a_ring_would_favour_the_middle() -> None:
    """The negative control: starts drawn from 0..T-length leave the edges visible too often."""
    generator = torch.Generator().manual_seed(0)
    share = torch.zeros(100)
    for start in torch.randint(0, 91, (20_000,), generator=generator):
        share[start : start + 10] += 1
    assert (share / share.mean() - 1).abs().max() > 0.5


def test_no_hidden_run_is_longer_than_the_longest_span() -> None:
    for row in masks("span"):
        assert max(runs(row, wanted=True)) <= SPAN_TOKENS[1]


def test_spans_hide_longer_runs_than_single_tokens() -> None:
    mean = {s: torch.tensor([float(r) for row in masks(s) for r in runs(row, True)]).mean() for s in STRATEGIES}
    assert mean["random"] < 4 < mean["span"] < 11 < mean["block"]


def planted(batch: int, first: int, last: int) -> Tensor:
    """A call in hum: (batch, 40 mels, 500 frames), louder in some bins from frame `first` to `last`."""
    mel = 0.1 * torch.randn(batch, 40, 500, generator=torch.Generator().manual_seed(0))
    mel[:, :5] += 2.0  # a hum, loud all the time
    mel[:, 20:26, first:last] += 1.0
    return mel


def test_what_stands_out_is_the_call_and_not_the_hum() -> None:
    """The call fills tokens 100 to 124 and half-covers none. A hum no longer than a call would stand out like one."""
    steady, louder, rising = planted(64, 200, 250), planted(64, 200, 250), planted(64, 200, 250)
    louder[:, :5] += 10.0
    rising[:, :5, 250:] += 10.0  # as loud only once the call is over, and until the end
    call = torch.arange(250).div(25, rounding_mode="floor") == 4
    for mel in (steady, rising):
        scores = contrast_scores(mel)
        assert scores.shape == (64, 250)
        assert bool((scores[:, call].amin(dim=1) > scores[:, ~call].amax(dim=1)).all())
    torch.testing.assert_close(contrast_scores(louder), contrast_scores(steady), atol=1e-4, rtol=0)
    energy = rising.reshape(64, 40, 250, 2).mean(dim=(1, 3))  # the negative control: all of that hum before the call
    assert bool((energy[:, 125:].amin(dim=1) > energy[:, call].amax(dim=1)).all())


@pytest.mark.parametrize(("seconds", "least", "most"), [(0.5, 0.70, 0.80), (0.2, 0.70, 0.85)])
def test_energy_masks_hide_more_of_a_call_and_seldom_all_of_a_long_one(
    seconds: float, least: float, most: float
) -> None:
    last = 200 + round(100 * seconds)
    scores = contrast_scores(planted(1, 200, last)).expand(3000, -1)
    call = slice(100, last // 2)
    found = hide_tokens(3000, 250, 0.65, "energy", torch.Generator().manual_seed(0), scores)[:, call].float()
    plain = masks("span", batch=3000)[:, call].float()
    assert plain.mean() == pytest.approx(0.65, abs=0.02)  # the negative control: masks that do not listen
    assert least < found.mean() < most
    assert seconds < 0.5 or found.all(dim=1).float().mean() < 0.01


def test_energy_masks_without_scores_are_refused() -> None:
    with pytest.raises(AssertionError, match="a score for every token"):
        hide_tokens(2, 100, 0.65, "energy", torch.Generator())


def test_hiding_everything_or_nothing_is_refused() -> None:
    for ratio in (0.0, 1.0):
        with pytest.raises(AssertionError, match=r"mask\.ratio"):
            masks("random", ratio=ratio)
