"""From the encoder's tokens to one score per species: what of several layers counts, and when.

    head = build_head(width, layers, extra_channels, species, settings)
    summary = head.summary(states, mel)        # no weights take part: of a frozen encoder it can be computed once
    logits = head(summary)                     # (batch, species)
    moments = head.moments(states, mel)        # (batch, moments, species): who calls when

Heads know nothing of sound or files. Each begins by giving every species the probability 1 / species. All of a head is
computed in float32, whatever precision the encoder runs in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import HeadSettings
from runtime.processes import mean_of_all

STATISTICS = 3  # of each value over time: mean, deviation, maximum
SMALLEST_DEVIATION = 1e-4  # a feature that hardly varies is not blown up beyond this
SMALLEST_SHARE = 0.01  # that a new batch has in the running moments, once a hundred have been seen
MOMENT_FRAMES = 50  # of 10 ms: the pooled head describes a moment by half a second, or 50 frames of another length


class PooledHead(nn.Module):
    """What each of several layers does over time (mean, deviation, maximum), standardised, and one linear layer on it.

    summary   states, a list of (batch, tokens, width), one for each layer; mel (batch, channels, frames)
              -> (batch, features), features = 3 * (layers * width + extra channels)
    forward   (batch, features) -> logits (batch, species)
    Each token of each layer is normalised without learnt parameters first: a few channels of Whisper's raw tokens are
    hundreds of times the others, and no head of a few hundred updates can use those beside them. Mel channels above
    8 kHz, of which no Whisper checkpoint knows anything, are described in the same way and go to the head directly.
    source    layers of a frozen Whisper for sound tagging: https://arxiv.org/abs/2307.03183
    """

    def __init__(self, width: int, layers: int, extra_channels: int, species: int, dropout: float) -> None:
        super().__init__()
        self.extra_channels = extra_channels
        features = STATISTICS * (layers * width + extra_channels)
        self.standard = Standard(features)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(features, species)
        nn.init.zeros_(self.score.weight)
        nn.init.constant_(self.score.bias, first_bias(species))

    def summary(self, states: Sequence[Tensor], mel: Tensor) -> Tensor:
        with torch.autocast(mel.device.type, enabled=False):
            parts = [pool_tokens(state) for state in states]
            if self.extra_channels:
                parts.append(pool_time(mel[:, -self.extra_channels :].transpose(1, 2).float()))
            return torch.cat(parts, dim=1)

    def forward(self, summary: Tensor) -> Tensor:
        with torch.autocast(summary.device.type, enabled=False):
            if self.training:
                self.standard.follow(summary.detach().float())
            return self.logits(summary.float())

    def logits(self, summary: Tensor) -> Tensor:
        """(batch, features) -> (batch, species), the moments of the standardisation staying as they are."""
        logits: Tensor = self.score(self.dropout(self.standard(summary)))
        return logits

    def moments(self, states: Sequence[Tensor], mel: Tensor) -> Tensor:
        """Logits of each moment, (batch, moments, species): the head's answer to each half second by itself; what is
        left over at the end belongs to the last one. Nothing is collected of them: their deviations and maxima are not
        those of windows."""
        tokens, frames = states[0].shape[1], mel.shape[2]
        each = max(1, round(MOMENT_FRAMES * tokens / frames))
        count = max(1, tokens // each)
        edges = [min(each * number, tokens) for number in range(count)] + [tokens]
        logits: list[Tensor] = []
        with torch.autocast(mel.device.type, enabled=False):
            for start, end in pairwise(edges):
                picture = mel[:, :, start * frames // tokens : end * frames // tokens]
                logits.append(self.logits(self.summary([state[:, start:end] for state in states], picture)))
            return torch.stack(logits, dim=1)


class AttentionHead(nn.Module):
    """Several layers, each normalised, in a mixture that is learnt; each species weighs the moments that speak for it.

    summary   states, a list of (batch, tokens, width), one for each layer; mel is not used
              -> (batch, layers, tokens, width)
    forward   (batch, layers, tokens, width) -> logits (batch, species)
    source    the sound event detection heads of BirdCLEF's winners,
              https://github.com/VSydorskyy/BirdCLEF_2025_2nd_place; clamped instead of squashed by tanh, so that a
              call that fills 6 % of a window can still have nearly all of the weight. The mixture:
              https://arxiv.org/abs/1802.05365 (ELMo), section 3.2
    """

    def __init__(self, width: int, layers: int, species: int, dropout: float) -> None:
        super().__init__()
        self.mixture = nn.Parameter(torch.zeros(layers))
        self.gain = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(dropout)
        self.attention = nn.Linear(width, species)
        self.score = nn.Linear(width, species)
        nn.init.constant_(self.score.bias, first_bias(species))

    def summary(self, states: Sequence[Tensor], mel: Tensor) -> Tensor:
        with torch.autocast(mel.device.type, enabled=False):
            return torch.stack([F.layer_norm(state.float(), state.shape[2:]) for state in states], dim=1)

    def forward(self, summary: Tensor) -> Tensor:
        with torch.autocast(summary.device.type, enabled=False):
            tokens = self.tokens(summary.float())
            attention: Tensor = self.attention(tokens)
            weights = attention.clamp(-10.0, 10.0).softmax(dim=1)
            logits: Tensor = (weights * self.score(tokens)).sum(dim=1)
            return logits

    def moments(self, states: Sequence[Tensor], mel: Tensor) -> Tensor:
        """Logits of each moment, (batch, tokens, species), one for every token."""
        with torch.autocast(mel.device.type, enabled=False):
            logits: Tensor = self.score(self.tokens(self.summary(states, mel)))
            return logits

    def tokens(self, summary: Tensor) -> Tensor:
        """(batch, layers, tokens, width) -> the mixture (batch, tokens, width), some of it dropped while training."""
        shares = self.mixture.softmax(dim=0)[:, None, None]
        mixed: Tensor = self.dropout(self.gain * (shares * summary).sum(dim=1))
        return mixed


Head = PooledHead | AttentionHead


class Standard(nn.Module):
    """Each value in units of its deviation over the training windows.

    forward   (..., values) -> the same
    Fitted once where the encoder starts from a checkpoint (`fit`), else collected while training (`follow`), the last
    batches counting most. What is collected is used while training as well, so a batch of one is as good as any.
    """

    def __init__(self, values: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.variance: Tensor
        self.batches: Tensor
        self.fitted: Tensor
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("variance", torch.ones(values))
        self.register_buffer("batches", torch.zeros(()))
        self.register_buffer("fitted", torch.zeros(()))  # 1: the moments stay as they are

    def fit(self, values: Tensor) -> None:
        """Take the moments of (rows, values) and keep them; in two passes and float64, because some of Whisper's
        features vary by less than a thousandth of their mean."""
        parts = [values[first : first + 4096] for first in range(0, len(values), 4096)]
        mean = torch.stack([part.double().sum(dim=0) for part in parts]).sum(dim=0) / len(values)
        squares = [(part.double() - mean).square().sum(dim=0) for part in parts]
        self.mean.copy_(mean)
        self.variance.copy_(torch.stack(squares).sum(dim=0) / len(values))
        self.fitted.fill_(1.0)

    def forward(self, values: Tensor) -> Tensor:
        standard: Tensor = (values - self.mean) / self.variance.clamp(min=SMALLEST_DEVIATION**2).sqrt()
        return standard

    @torch.no_grad()
    def follow(self, rows: Tensor) -> None:
        """Let the running moments take a step towards those of (rows, values), unless they are fitted; what is not
        finite moves nothing."""
        self.batches += 1
        share = (1 / self.batches).clamp(min=SMALLEST_SHARE) * (1 - self.fitted)
        mean = mean_of_all(rows.mean(dim=0), len(rows))
        variance = mean_of_all((rows - mean).square().mean(dim=0), len(rows))
        sound = mean.isfinite() & variance.isfinite()
        mean, variance = torch.where(sound, mean, self.mean), torch.where(sound, variance, self.variance)
        step = mean - self.mean
        self.mean.add_(share * step)
        self.variance.lerp_(variance + (1 - share) * step.square(), share)


def build_head(width: int, layers: int, extra_channels: int, species: int, settings: HeadSettings) -> Head:
    """The head that `--head.pooling` names.

    width           of a token
    layers          how many of the encoder's layers it receives
    extra_channels  mel channels above those of the checkpoint, at the end of the log-mel picture
    """
    if settings.pooling == "attention":
        return AttentionHead(width, layers, species, settings.dropout)
    return PooledHead(width, layers, extra_channels, species, settings.dropout)


def received_layers(settings: HeadSettings, depth: int) -> tuple[int, ...]:
    """The layers whose tokens the head receives, counted from 1: evenly spaced, the last among them."""
    assert settings.layers >= 1, f"--head.layers {settings.layers}: give 1 or more"
    count = min(settings.layers, depth)
    return tuple(math.ceil(depth * number / count) for number in range(1, count + 1))


def pool_tokens(tokens: Tensor) -> Tensor:
    """(batch, tokens, width) -> (batch, 3 * width): mean, deviation, maximum over time of tokens that were each
    normalised to mean 0 and deviation 1 over their width."""
    return pool_time(F.layer_norm(tokens.float(), tokens.shape[2:]))


def pool_time(values: Tensor) -> Tensor:
    """(batch, time, values) -> (batch, 3 * values): mean, deviation, maximum over time."""
    deviation = values.var(dim=1, unbiased=False).clamp(min=SMALLEST_DEVIATION**2).sqrt()
    return torch.cat([values.mean(dim=1), deviation, values.amax(dim=1)], dim=1)


def first_bias(species: int) -> float:
    """The logit of 1 / species."""
    return -math.log(max(species - 1, 1))


if __name__ == "__main__":
    torch.manual_seed(0)
    quiet = [torch.randn(1, 250, 96) for _ in range(3)]
    call = [state.clone() for state in quiet]
    for state in call:
        state[:, 100:105] += 3 * torch.randn(96)  # a call of 0.1 s, 2 s after the beginning
    mel = torch.randn(1, 80, 500)
    for pooling in ("pooled", "attention"):
        head = build_head(96, 3, 0, 5, HeadSettings(pooling)).eval()
        nn.init.normal_(head.score.weight)
        moments = head.moments(call, mel)
        loudest = int((moments - head.moments(quiet, mel)).abs().amax(dim=(0, 2)).argmax())
        seconds = 5 * loudest / moments.shape[1]
        print(f"{pooling}: {tuple(moments.shape)} moments; the call makes most difference at {seconds:.2f} s")
        assert 2.0 <= seconds < 2.1
