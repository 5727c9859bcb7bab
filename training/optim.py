"""Parameter groups with a rate of their own, the schedule, and one update: the only caller of `backward` and `step`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

STEM = r"\.conv\d\.|^encoder\.network\.(patches\.|row$|column$)"  # Whisper's, and AudioViT's


def differential_groups(
    model: nn.Module,
    encoder_rate: float,
    head_rate: float,
    layer_decay: float,
    weight_decay: float,
    pulled: bool = False,
) -> list[dict[str, Any]]:
    """AdamW groups: what is new learns fast, the encoder slowly, its lower layers slower still.

    The top layer and the final norm learn at encoder_rate, each layer below by layer_decay slower, the convolutional
    stem (and AudioViT's positions) slowest; everything that is not part of `encoder` learns at head_rate. Norms, biases
    and single vectors do not decay, nor does a learnt curve of the mel picture, logarithms of three vectors. Each
    trainable parameter is in exactly one group; frozen ones (the position table) are in none.

    pulled   whether the encoder's weights are drawn to where they started from (`pull_to_start`): to zero they do not
             decay then
    """
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    layers = 1 + max((layer for name in trainable if (layer := layer_of_parameter(name)) is not None), default=-1)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trainable.items():
        rate = head_rate
        inside = name.startswith("encoder.")
        if inside:
            rate = encoder_rate * layer_decay ** depth_below_top(name, layers)
        vector = parameter.ndim <= 1 or name.startswith("log_mel.")
        decay = 0.0 if vector or (inside and pulled) else weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


def depth_below_top(name: str, layers: int) -> int:
    """0 for the top layer and the final norm, `layers` for the stem."""
    layer = layer_of_parameter(name)
    if layer is not None:
        return layers - 1 - layer
    return layers if re.search(STEM, name) else 0


def layer_of_parameter(name: str) -> int | None:
    """12 for encoder.whisper.layers.12.fc1.weight, None outside the encoder's layers."""
    found = re.match(r"encoder\..*\blayers\.(\d+)\.", name)
    return int(found[1]) if found else None


def cosine_schedule(optimizer: AdamW, steps: int, warmup: float, floor: float = 0.01) -> LambdaLR:
    """All rates rise from 0 for a share `warmup` of the steps, then fall along a cosine to `floor` of their peak."""
    rising = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        progress = min(1.0, (step - rising) / max(1, steps - rising))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def pull_to_start(optimizer: AdamW, schedule: LambdaLR, network: nn.Module, start: nn.Module, share: float) -> None:
    """From now on each update first lets the weights go a share of the way back to those they started from: a decay as
    AdamW's, decoupled from the gradient, but towards them and not towards zero. One that is thrown away does not.

    start   the network as it was
    share   at the peak of the rates; less in proportion where they are lower, so that a weight which every update
            pushes the same way comes to rest about 1 / share of these pushes away
    source  https://arxiv.org/abs/1802.01483 (L2-SP: a penalty towards the start in place of the decay),
            https://arxiv.org/abs/1711.05101 (why beside Adam's step and not in its gradient: algorithm 2)
    """

    @torch.no_grad()
    def pull(*_: object) -> None:
        now = share * schedule.lr_lambdas[0](schedule.last_epoch)
        for weight, first in zip(network.parameters(), start.parameters(), strict=True):
            weight.lerp_(first, now)

    optimizer.register_step_pre_hook(pull)


def update(
    loss: Tensor,
    parameters: Iterable[nn.Parameter],
    optimizer: AdamW,
    schedule: LambdaLR,
    clip: float,
    accumulate: int = 1,
    last: bool = True,
) -> float:
    """Add the gradient of loss / accumulate; on the `last` part of a step, clip it and move the weights.

    returns  the norm of the gradient before clipping (0.0 before the last part). A loss or gradient that is not finite
             moves nothing, is thrown away and gives nan: one bad recording must not spoil the weights.
    """
    torch.autograd.backward(loss / accumulate)
    if not last:
        return 0.0
    total = nn.utils.clip_grad_norm_(parameters, clip)
    norm = float(total.full_tensor() if isinstance(total, DTensor) else total)  # of weights divided among processes
    if math.isfinite(norm):
        optimizer.step()
        schedule.step()
    optimizer.zero_grad(set_to_none=True)
    return norm if math.isfinite(norm) else math.nan


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float, updates: int, plain: int = 0) -> None:
    """Let a running mean of the weights take a step towards them. Counters are taken as they are, statistics too
    without `plain`.

    updates   so far, this one among them: the mean is shorter at first, or it would remember the random start
    plain     so many updates, this one among them, have the same weight each, and all before them none; 0: the running
              mean goes on. The statistics of norms are averaged alike: those of the last weights do not fit their mean
    source    of `plain`: https://arxiv.org/abs/1803.05407 (SWA), which measures statistics anew in one more epoch
    """
    share = 1 / plain if plain > 0 else 1 - min(decay, (1 + updates) / (10 + updates))
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, share)
    for kept, value in zip(average.buffers(), model.buffers(), strict=True):
        if plain > 0 and kept.is_floating_point() and not torch.equal(kept, value):
            kept.lerp_(value, share)
        else:
            kept.copy_(value)


@torch.no_grad()
def between(network: nn.Module, start: nn.Module, end: nn.Module, share: float) -> None:
    """Give a network the weights that lie `share` of the way from those of `start` to those of `end`; what is no weight
    is that of `end`.

    source    https://arxiv.org/abs/2109.01903 (WiSE-FT): what a pretrained network knew, and what it has learnt since
    """
    for weight, first, last in zip(network.parameters(), start.parameters(), end.parameters(), strict=True):
        weight.copy_(first).lerp_(last, share)
    for kept, reported in zip(network.buffers(), end.buffers(), strict=True):
        kept.copy_(reported)


if __name__ == "__main__":
    model = nn.ModuleDict({"encoder": nn.Linear(4, 4), "head": nn.Linear(4, 1)})
    groups = differential_groups(model, encoder_rate=1e-2, head_rate=5e-2, layer_decay=1.0, weight_decay=0.1)
    optimizer = AdamW(groups)
    schedule = cosine_schedule(optimizer, steps=100, warmup=0.05)
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    losses: list[float] = []
    for _ in range(100):
        guess = model["head"](torch.relu(model["encoder"](inputs)))
        loss = (guess[:, 0] - inputs.sum(dim=1)).square().mean()
        update(loss, model.parameters(), optimizer, schedule, clip=1.0)
        losses.append(loss.item())
    print(f"{len(groups)} groups, loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert losses[-1] < 0.5 * losses[0]
