"""What INT8 costs each matrix product of the encoder, measured before anything is quantised.

    costs = product_costs(model, waveforms)           # one row per product: error, and how far its outliers stand out

Activations share one scale: a channel hundreds of times louder than the others leaves them a handful of levels, and
what they said is lost. Such products are better left in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from config import SIZES, AudioSettings, HeadSettings
from model import BirdClefClassifier, Encoder

LEVELS = 63  # of weights, not 127: a CPU without VNNI adds two products of INT8 and UINT8 in 16 bits, which overflow
PRODUCTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2")


@dataclass(frozen=True)
class ProductCost:
    """One linear layer of the encoder."""

    name: str  # layers.0.fc2
    error: float  # of its output in INT8: mean square, as a share of the output's variance
    outlier: float  # largest activation over the 99 % quantile of all of them


@torch.inference_mode()
def product_costs(model: BirdClefClassifier, waveforms: Tensor) -> list[ProductCost]:
    """What each product of the encoder would lose, one context at a time, as the file will be run; the dearest first.

    waveforms   (contexts, context samples)
    """
    lost: dict[str, float] = {}
    varied: dict[str, float] = {}
    outlier: dict[str, float] = {}
    linears = linear_layers(model)

    def watch(name: str, linear: nn.Linear) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        table = rounded_weight(linear.weight)

        def seen(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            wrong = nn.functional.linear(rounded_activation(inputs[0]), table, linear.bias) - output
            lost[name] = lost.get(name, 0.0) + float(wrong.square().mean())
            varied[name] = varied.get(name, 0.0) + float(output.var())
            sizes = inputs[0].abs().flatten()
            usual = float(sizes.kthvalue(max(1, round(0.99 * len(sizes)))).values)
            outlier[name] = max(outlier.get(name, 0.0), float(sizes.max()) / max(usual, 1e-9))

        return seen

    hooks = [linear.register_forward_hook(watch(name, linear)) for name, linear in linears.items()]
    for waveform in waveforms:
        model(waveform[None])
    for hook in hooks:
        hook.remove()
    costs = [ProductCost(name, lost[name] / max(varied[name], 1e-12), outlier[name]) for name in lost]
    return sorted(costs, key=lambda cost: cost.error, reverse=True)


def linear_layers(model: BirdClefClassifier) -> dict[str, nn.Linear]:
    """The products with weights of the encoder, by name: layers.0.fc2."""
    found: dict[str, nn.Linear] = {}
    for number in range(model.encoder.size.layers):
        for product in PRODUCTS:
            part = model.encoder.whisper.get_submodule(f"layers.{number}.{product}")
            assert isinstance(part, nn.Linear), f"layers.{number}.{product} is no linear layer"
            found[f"layers.{number}.{product}"] = part
    return found


def rounded_weight(weight: Tensor) -> Tensor:
    """A weight (outputs, inputs) as INT8 has it, with a scale for each output."""
    scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / LEVELS
    return (weight / scale).round() * scale


def rounded_activation(values: Tensor) -> Tensor:
    """Activations as UINT8 has them, with one scale and zero point for all of them."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = max(high - low, 1e-12) / 255
    zero = round(-low / scale)
    return ((values / scale).round() + zero).clamp(0, 255).sub(zero) * scale


if __name__ == "__main__":
    torch.manual_seed(0)
    model = BirdClefClassifier(Encoder(SIZES["demo"]), AudioSettings(), 5, HeadSettings()).eval()
    waveforms = 0.1 * torch.randn(2, 80_000)
    before = product_costs(model, waveforms)
    block = model.encoder.whisper.layers[1]
    with torch.no_grad():  # the same function, but for one channel that shouts
        block.get_parameter("fc1.weight")[3] *= 1000.0
        block.get_parameter("fc2.weight")[:, 3] /= 1000.0
    after = product_costs(model, waveforms)
    for name, costs in (("as it was", before), ("with an outlier", after)):
        print(f"{name:16}", ", ".join(f"{cost.name} {cost.error:.1e} (x {cost.outlier:.0f})" for cost in costs[:3]))
    assert after[0].name == "layers.1.fc2" and after[0].error > 20 * before[0].error
