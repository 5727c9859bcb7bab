"""From the encoder's tokens to one score per species: one or two linear layers, and which moments they listen to.

    head = build_head(width, species, settings)
    logits = head(tokens)                       # (batch, tokens, width) -> (batch, species)
    moments = head.moments(tokens)              # (batch, tokens, species), who is heard when

Heads know nothing of sound or files. Each begins by giving every species the probability 1 / species.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import HeadSettings
from processes import mean_of_all

QUIETEST_SPREAD = 1e-4  # a statistic or a token's dimension that hardly varies is not blown up beyond this
SLOWEST = 0.01  # share that a new batch has in the moments, once a hundred have been heard
STATISTICS = 4  # of each mel bin: mean, deviation, maximum, 10 % quantile


class MeanHead(nn.Module):
    """All moments count alike: the score of a window is the mean of the scores of its tokens.

    forward   (batch, tokens, width) -> logits (batch, species)
    """

    def __init__(self, width: int, species: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, species)
        nn.init.constant_(self.score.bias, first_bias(species))

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.score(tokens.mean(dim=1))
        return logits.float()

    def moments(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) -> logits of each moment (batch, tokens, species)."""
        logits: Tensor = self.score(tokens)
        return logits.float()


class AttentionHead(nn.Module):
    """Each species weighs the moments that speak for it.

    forward   (batch, tokens, width) -> logits (batch, species)
    source    the sound event detection heads of BirdCLEF's winners,
              https://github.com/VSydorskyy/BirdCLEF_2025_2nd_place; clamped instead of squashed by tanh, so that a
              call that fills 6 % of a window can still have nearly all of the weight
    """

    def __init__(self, width: int, species: int) -> None:
        super().__init__()
        self.attention = nn.Linear(width, species)
        self.score = nn.Linear(width, species)
        nn.init.constant_(self.score.bias, first_bias(species))

    def forward(self, tokens: Tensor) -> Tensor:
        attention: Tensor = self.attention(tokens)
        return (attention.float().clamp(-10.0, 10.0).softmax(dim=1) * self.moments(tokens)).sum(dim=1)

    def moments(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) -> logits of each moment (batch, tokens, species)."""
        scores: Tensor = self.score(tokens)
        return scores.float()


class PrototypeHead(nn.Module):
    """Each species has a few learnt examples; what counts is how near any moment comes to each of them.

    forward   (batch, tokens, width) -> logits (batch, species)
    Tokens are standardised first, because raw ones all point much the same way. The bias begins so that the likeness
    that chance alone gives leaves every species at 1 / species.
    source    https://arxiv.org/abs/2404.10420 (AudioProtoPNet), as used in https://arxiv.org/abs/2504.12880
    """

    def __init__(self, width: int, species: int, prototypes: int, tokens: int = 250) -> None:
        super().__init__()
        self.standard = Standard(width)
        self.prototypes = nn.Parameter(torch.randn(species, prototypes, width))
        self.weight = nn.Parameter(torch.full((species, prototypes), math.sqrt(width) / prototypes))
        by_chance = math.sqrt(2 * math.log(tokens) / width) * math.sqrt(width)
        self.bias = nn.Parameter(torch.full((species,), first_bias(species) - by_chance))

    def forward(self, tokens: Tensor) -> Tensor:
        likeness = self.likeness(tokens).amax(dim=1)  # (batch, species, prototypes)
        logits: Tensor = (likeness * self.weight.clamp(min=0.0)).sum(dim=2) + self.bias
        return logits

    def moments(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) -> logits of each moment (batch, tokens, species)."""
        return (self.likeness(tokens) * self.weight.clamp(min=0.0)).sum(dim=3) + self.bias

    def likeness(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, species, prototypes) cosines."""
        with torch.autocast(tokens.device.type, enabled=False):
            standard = self.standard(tokens.float())
            flat = F.normalize(self.prototypes, dim=2).flatten(0, 1)
            cosines: Tensor = F.normalize(standard, dim=2) @ flat.T
            likeness: Tensor = cosines.unflatten(2, self.prototypes.shape[:2])
            return likeness


class Head(nn.Module):
    """What stands on the encoder: dropout, a second layer if wanted, a pooling head, and the window's statistics.

    forward   tokens (batch, tokens, width), mel (batch, channels, frames) -> logits (batch, species)
    With `statistics` the log-mel picture has a voice of its own: a linear layer on what each mel bin does over time,
    which needs no encoder to have learnt anything. The answer is the mean of both voices. Each is trained as if it were
    alone (`voices`): trained on their mean, the encoder learns less of what the statistics say already (LOG.md).
    """

    def __init__(self, width: int, channels: int, species: int, settings: HeadSettings) -> None:
        super().__init__()
        self.dropout = nn.Dropout(settings.dropout)
        inner = settings.hidden or width
        self.hidden: nn.Linear | None = nn.Linear(width, inner) if settings.hidden else None
        self.pool = build_pool(inner, species, settings)
        self.standard: Standard | None = None
        self.statistics: nn.Linear | None = None
        if settings.statistics:
            self.standard = Standard(STATISTICS * channels)
            self.statistics = nn.Linear(STATISTICS * channels, species)
            nn.init.zeros_(self.statistics.weight)
            nn.init.constant_(self.statistics.bias, first_bias(species))

    def forward(self, tokens: Tensor, mel: Tensor) -> Tensor:
        return self.voices(tokens, mel).mean(dim=1)

    def voices(self, tokens: Tensor, mel: Tensor) -> Tensor:
        """Logits (batch, voices, species): what the tokens say, and with `statistics` what those say.

        tokens   (batch, tokens, width)
        mel      (batch, channels, frames)
        """
        told: list[Tensor] = [self.pool(self.features(tokens))]
        if self.statistics is not None and self.standard is not None:
            with torch.autocast(mel.device.type, enabled=False):
                told.append(self.statistics(self.dropout(self.standard(mel_statistics(mel)))))
        return torch.stack(told, dim=1)

    def moments(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) -> what the tokens alone say of each moment: logits (batch, tokens, species)."""
        return self.pool.moments(self.features(tokens))

    def features(self, tokens: Tensor) -> Tensor:
        """Tokens as the pooling head hears them."""
        tokens = self.dropout(tokens)
        if self.hidden is not None:
            tokens = self.dropout(F.relu(self.hidden(tokens)))
        return tokens


class Standard(nn.Module):
    """Each value in units of its spread over everything heard in training, the last batches counting most.

    forward   (..., values) -> the same
    The moments that are collected are used while training as well, so a batch of one is as good as any.
    """

    def __init__(self, values: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.square: Tensor
        self.batches: Tensor
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("square", torch.ones(values))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                rows = values.reshape(-1, values.shape[-1])
                self.batches += 1
                share = (1 / self.batches).clamp(min=SLOWEST)
                moments = torch.stack([rows.mean(dim=0), rows.square().mean(dim=0)])
                mean, square = mean_of_all(moments, len(rows))
                self.mean.lerp_(mean, share)
                self.square.lerp_(square, share)
        spread = (self.square - self.mean.square()).clamp(min=QUIETEST_SPREAD**2).sqrt()
        standard: Tensor = (values - self.mean) / spread
        return standard


class LayerMix(nn.Module):
    """Several layers of the encoder as one: each normalised, weighed by a softmax that is learnt.

    forward   (layers, batch, tokens, width) -> (batch, tokens, width)
    source    https://arxiv.org/abs/1802.05365 (ELMo), section 3.2
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layers))
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, states: Tensor) -> Tensor:
        normal = F.layer_norm(states, states.shape[3:])
        shares = self.weight.softmax(dim=0)[:, None, None, None].to(normal.dtype)
        return self.gain.to(normal.dtype) * (shares * normal).sum(dim=0)


def pool_tokens(tokens: Tensor) -> Tensor:
    """(batch, tokens, width) -> (batch, 3 * width): mean, deviation and maximum over time, each token layer-normed."""
    normal = F.layer_norm(tokens.float(), tokens.shape[2:])
    return torch.cat([normal.mean(dim=1), normal.std(dim=1, correction=0), normal.amax(dim=1)], dim=1)


def build_pool(width: int, species: int, settings: HeadSettings) -> AttentionHead | MeanHead | PrototypeHead:
    """The pooling head that `--head.pooling` names."""
    if settings.pooling == "prototype":
        return PrototypeHead(width, species, settings.prototypes)
    return AttentionHead(width, species) if settings.pooling == "attention" else MeanHead(width, species)


def mel_statistics(mel: Tensor) -> Tensor:
    """(batch, channels, frames) -> (batch, 4 * channels): mean, deviation, maximum, 10 % quantile over time."""
    spread = mel.var(dim=2, unbiased=False).clamp(min=QUIETEST_SPREAD**2).sqrt()
    tenth = mel.topk(1 + mel.shape[2] // 10, dim=2, largest=False).values.amax(dim=2)
    return torch.cat([mel.mean(dim=2), spread, mel.amax(dim=2), tenth], dim=1)


def first_bias(species: int) -> float:
    """The logit of 1 / species."""
    return -math.log(max(species - 1, 1))


if __name__ == "__main__":
    torch.manual_seed(0)
    quiet = torch.randn(1, 250, 96) * 0.1
    call = quiet.clone()
    call[:, 100:105] += torch.randn(96)  # a call of 0.1 s
    mel = torch.randn(1, 80, 500)
    for pooling in ("attention", "mean", "prototype"):
        head = Head(96, 80, 5, HeadSettings(pooling)).eval()
        moments = head.moments(call)
        when = int((moments - head.moments(quiet)).abs().amax(dim=(0, 2)).argmax())
        print(f"{pooling:10} logits {tuple(head(call, mel).shape)}, moments {tuple(moments.shape)}, most at {when}")
        assert 100 <= when < 105
    mixed = LayerMix(3)(torch.randn(3, 2, 250, 96))
    print("three layers mixed:", tuple(mixed.shape), "statistics of a picture:", tuple(mel_statistics(mel).shape))
    assert mixed.shape == (2, 250, 96)
