"""Masks: the exact number, every place equally often, and no run longer than promised."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from masking import SPAN_TOKENS, hide_tokens

Strategy = Literal["span", "random", "block"]
STRATEGIES: tuple[Strategy, ...] = ("span", "random", "block")


def masks(strategy: Strategy, batch: int = 64, tokens: int = 250, ratio: float = 0.65, seed: int = 0) -> Tensor:
    return hide_tokens(batch, tokens, ratio, strategy, torch.Generator().manual_seed(seed))


def runs(row: Tensor, wanted: bool) -> list[int]:
    """Lengths of the runs of `wanted` on the ring."""
    turned = row.roll(-int((row != wanted).nonzero()[0, 0]))
    text = "".join("x" if value == wanted else " " for value in turned)
    return [len(run) for run in text.split()]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("ratio", [0.5, 0.65, 0.75])
def test_every_row_hides_exactly_its_share(strategy: Strategy, ratio: float) -> None:
    assert bool((masks(strategy, ratio=ratio).sum(dim=1) == round(250 * ratio)).all())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_seed_gives_the_same_mask_and_another_does_not(strategy: Strategy) -> None:
    assert torch.equal(masks(strategy, seed=3), masks(strategy, seed=3))
    assert not torch.equal(masks(strategy, seed=3), masks(strategy, seed=4))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_place_is_hidden_equally_often(strategy: Strategy) -> None:
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


def test_hiding_everything_or_nothing_is_refused() -> None:
    for ratio in (0.0, 1.0):
        with pytest.raises(AssertionError, match=r"mask\.ratio"):
            masks("random", ratio=ratio)
