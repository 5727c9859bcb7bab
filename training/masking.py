"""Which tokens the autoencoder hides. A token is two mel frames, 20 ms of a bird; True means hidden.

Every row hides exactly round(ratio * tokens) of them, so that all shapes are known beforehand.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from config import MaskStrategy

SPAN_TOKENS = (5, 15)  # 0.1 to 0.3 s where a hop is 10 ms
BLOCK_TOKENS = 10
ENERGY_CHOICES, ENERGY_BETA, UNBIASED_SHARE = 8, 1.0, 0.25


def hide_tokens(
    batch: int,
    tokens: int,
    ratio: float,
    strategy: MaskStrategy,
    generator: torch.Generator,
    scores: Tensor | None = None,
) -> Tensor:
    """A mask for each row of a batch: (batch, tokens) bool, the same one again for the same generator state.

    scores    (batch, tokens) how much each token stands out, for the strategy energy; see contrast_scores
    """
    count = round(ratio * tokens)
    assert 0 < count < tokens, (
        f"mask.ratio {ratio} hides {count} of {tokens} tokens: neither none nor all can be learnt from"
    )
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    if strategy == "energy":
        assert scores is not None and scores.shape == (batch, tokens), "energy masks need a score for every token"
        return torch.from_numpy(energy_masks(scores.double().cpu().numpy(), count, rng))
    if strategy == "span":
        return torch.from_numpy(span_masks(batch, tokens, count, rng))
    draw = {"random": random_mask, "block": block_mask}[strategy]
    return torch.from_numpy(np.stack([draw(tokens, count, rng) for _ in range(batch)]))


def contrast_scores(mel: Tensor) -> Tensor:
    """How much each token stands out from its window: (batch, mels, frames) -> (batch, tokens).

    Contrast, not energy, or rain and hum would win: each mel bin in units of its own spread over time, what is above
    its mean, the eighth of the bins in which that is most; clipped at the 99th percentile of the window.
    """
    spread = mel.std(dim=2, keepdim=True).clamp(min=1e-3)
    above = ((mel - mel.mean(dim=2, keepdim=True)) / spread).clamp(min=0)
    frames = above.topk(max(1, mel.shape[1] // 8), dim=1).values.mean(dim=1)
    tokens = frames.reshape(len(mel), -1, 2).mean(dim=2)
    return tokens.minimum(torch.quantile(tokens, 0.99, dim=1, keepdim=True))


def random_mask(tokens: int, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Single tokens, each set of them as likely as any other: (tokens,) bool."""
    return rng.permutation(tokens) < count


def span_masks(rows: int, tokens: int, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Runs of 5 to 15 tokens, each followed by a gap, laid on a ring that is turned and cut open: (rows, tokens) bool.

    On a ring no position is special, so every token is hidden equally often; no run is longer than the longest span.
    All rows are drawn at once: one by one they would take longer than a GPU takes for its step.
    """
    shortest, longest = SPAN_TOKENS
    spans = rng.integers(shortest, longest, (rows, count // shortest + 1), endpoint=True)
    before = spans.cumsum(axis=1) - spans
    spans = np.minimum(spans, np.maximum(count - before, 0))  # the last one is cut short; those behind it are empty
    many, visible, most = (spans > 0).sum(axis=1), tokens - count, spans.shape[1]
    assert many.max() <= visible, f"{many.max()} spans need a gap each, {visible} tokens are left; lower mask.ratio"
    spans = np.take_along_axis(spans, np.argsort(rng.random(spans.shape) + (spans == 0), axis=1), axis=1)
    order = rng.random((rows, visible - 1)).argsort(axis=1).argsort(axis=1)
    cuts = order < many[:, None] - 1  # of the visible tokens into as many gaps, none of them empty
    gap = np.concatenate([np.zeros((rows, 1), np.int64), cuts.cumsum(axis=1)], axis=1) + most * np.arange(rows)[:, None]
    gaps = np.bincount(gap.ravel(), minlength=rows * most).reshape(rows, most)
    lengths = np.stack([spans, gaps], axis=2).ravel()
    rings = np.repeat(np.tile([True, False], rows * most), lengths).reshape(rows, tokens)
    turned = (np.arange(tokens) + rng.integers(tokens, size=(rows, 1))) % tokens
    return np.take_along_axis(rings, turned, axis=1)


def energy_masks(scores: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Of eight span masks one, rather one that hides much of what stands out; a quarter of the time any of them.

    scores    (rows, tokens)
    returns   (rows, tokens) bool

    What is wholly hidden cannot be guessed, hence the mild preference and the unbiased share
    """
    rows, tokens = scores.shape
    masks = span_masks(rows * ENERGY_CHOICES, tokens, count, rng).reshape(rows, ENERGY_CHOICES, tokens)
    hidden = np.einsum("rct,rt->rc", masks, scores) / count
    spread = np.maximum(hidden.std(axis=1, keepdims=True), 1e-9)
    chances = np.exp(ENERGY_BETA * (hidden - hidden.mean(axis=1, keepdims=True)) / spread)
    chances[rng.random(rows) < UNBIASED_SHARE] = 1.0
    below = chances.cumsum(axis=1) <= rng.random((rows, 1)) * chances.sum(axis=1, keepdims=True)
    chosen: NDArray[np.bool_] = masks[np.arange(rows), np.minimum(below.sum(axis=1), ENERGY_CHOICES - 1)]
    return chosen


def block_mask(tokens: int, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Blocks of 10 tokens in random order until `count` are hidden; neighbours may merge: (tokens,) bool."""
    position = np.arange(tokens)
    block = (position + rng.integers(BLOCK_TOKENS)) // BLOCK_TOKENS
    order = rng.permutation(block[-1] + 1)[block]
    side = rng.choice([-1, 1])  # the last block is cut short from either side
    mask = np.zeros(tokens, np.bool_)
    mask[np.argsort(order * tokens + side * position)[:count]] = True
    return mask


if __name__ == "__main__":
    for strategy in ("span", "random", "block"):
        mask = hide_tokens(2, 100, 0.65, strategy, torch.Generator().manual_seed(1))
        print(f"{strategy:>7}", "".join("█" if hidden else "·" for hidden in mask[0]))
        assert torch.equal(mask.sum(dim=1), torch.tensor([65, 65]))
