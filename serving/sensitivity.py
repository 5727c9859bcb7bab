"""What INT8 costs each matrix product of the encoder, measured in the logits, before anything is quantised.

    channels = input_channels(model, waveforms)                # how loud each input channel of each product is
    scales = smoothing(model, channels)                        # outlier channels are divided, their weights multiplied
    costs = product_costs(model, waveforms, channels, scales)  # how far each product alone would move the logits
    eight, spared = choose(costs, limit)                       # which weights need 8 bits, what stays in float32

The activations of a product share one scale: a channel hundreds of times louder than the others leaves them a handful
of levels, and what they said is lost. Smoothing moves the difference into the weights, which have a scale for each
output. What is still lost is judged where it counts: an error of a product's output, measured against that output,
says little, since one giant channel, which nothing behind it reads, may fill the output's variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import SIZES, AudioSettings, HeadSettings
from model import BirdClefClassifier, Encoder

LEVELS = 63  # of a weight of 7 bits: a CPU without VNNI adds two products of INT8 and UINT8 in 16 bits, which overflow
EIGHT_BITS = 127  # of a weight of 8 bits: such a CPU multiplies it in another way, which is exact and slower
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")  # these multiply the same activations
PRODUCTS = (*ATTENTION, "self_attn.out_proj", "fc1", "fc2")
MIGRATION = 0.5  # share of a channel's loudness that goes into the weights
FORM_PRICES = (0, 1, 6)  # of 7 bits, of 8, which only a CPU without VNNI feels, and of float32, which every CPU does
PROBES = 4  # random directions of the logits in which each context is asked
Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]


@dataclass(frozen=True)
class ProductCost:
    """One linear layer of the encoder."""

    name: str  # layers.0.fc2
    error: float  # rms change of the logits where it alone is INT8, weights of 7 bits, as a share of their spread
    error_8_bits: float  # the same, weights of 8 bits
    outlier: float  # its loudest input channel over the median one, before smoothing
    smoothed: bool  # whether it costs less so


@dataclass(frozen=True)
class Channels:
    """The input channels of a product."""

    peak: Tensor  # (inputs,) largest absolute value
    mean: Tensor  # (inputs,)


@torch.inference_mode()
def input_channels(model: BirdClefClassifier, waveforms: Tensor) -> dict[str, Channels]:
    """How loud the input channels of each product are.

    waveforms   (contexts, context samples)
    """
    peaks: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}

    def watch(name: str) -> Hook:
        def seen(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            tokens = inputs[0].flatten(end_dim=-2)
            peak, mean = tokens.abs().amax(dim=0), tokens.mean(dim=0) / len(waveforms)
            peaks[name] = torch.maximum(peaks[name], peak) if name in peaks else peak
            sums[name] = sums[name] + mean if name in sums else mean

        return seen

    with hooked(model, watch):
        for waveform in waveforms:
            model(waveform[None])
    return {name: Channels(peaks[name], sums[name]) for name in peaks}


@torch.inference_mode()
def smoothing(model: BirdClefClassifier, channels: Mapping[str, Channels]) -> dict[str, Tensor]:
    """What each input channel (inputs,) of each product is to be divided by, its weights multiplied by.

    Products of the same activations share their scales. Whether it pays is seen in `product_costs`.
    source    https://arxiv.org/abs/2211.10438 (SmoothQuant), equation 4
    """
    linears = linear_layers(model)
    scales: dict[str, Tensor] = {}
    for name, own in channels.items():
        layer, product = name.split(".")[1], name.split(".", 2)[2]
        alike = ATTENTION if product in ATTENTION else (product,)
        rows = torch.stack([channel_weights(linears[f"layers.{layer}.{one}"].weight) for one in alike]).amax(dim=0)
        scale = own.peak.clamp(min=1e-5) ** MIGRATION / rows.clamp(min=1e-5) ** (1 - MIGRATION)
        scales[name] = scale / scale.log().mean().exp()
    return scales


def product_costs(
    model: BirdClefClassifier, waveforms: Tensor, channels: Mapping[str, Channels], scales: Mapping[str, Tensor]
) -> list[ProductCost]:
    """How far each product of the encoder would move the logits if it alone were INT8, one context at a time, as the
    file will be run; the costliest first.

    To first order: the error of a product's output, times the gradient there of the logits' sum under random signs. The
    mean square over signs is the sum over the logits of their squared changes, for all products in one pass.
    waveforms   (contexts, context samples)
    channels    of `input_channels`: what rounded weights make of the mean is taken out of the bias
    scales      of `smoothing`; none: as the network is. What stands behind a norm is smoothed for nothing and always;
                the others where it pays
    """
    linears = linear_layers(model)
    moved: dict[tuple[str, bool, int], float] = {}
    outputs: dict[str, Tensor] = {}
    wrong: dict[tuple[str, bool, int], Tensor] = {}  # of the outputs of the context at hand

    def watch(name: str) -> Hook:
        # behind a norm smoothing costs nothing and is always done; elsewhere both ways are measured
        ways = {name in scales, name in scales and name.endswith((*ATTENTION, "fc1"))}

        def seen(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            linear, outputs[name] = linears[name], output
            with torch.no_grad():
                for smooth in ways:
                    scale = scales[name] if smooth else torch.ones(())
                    rounded, weight = rounded_activation(inputs[0] / scale), linear.weight * scale
                    for levels in (LEVELS, EIGHT_BITS):
                        coarse = rounded_weight(weight, levels)
                        constant = F.linear(channels[name].mean / scale, coarse - weight)
                        error = F.linear(rounded, coarse, linear.bias) - constant - output
                        wrong[name, smooth, levels] = error.bfloat16()  # of all products at once: half the memory

        return seen

    # every context forward once, and back once for each probe
    generator, answers = torch.Generator().manual_seed(0), list[Tensor]()
    with differentiable_inside(model), hooked(model, watch):
        for waveform in waveforms:
            logits: Tensor = model(waveform[None])
            for probe in range(PROBES):
                signs = torch.randint(0, 2, logits.shape, generator=generator) * 2.0 - 1.0
                asked = torch.autograd.grad(
                    (logits * signs).sum(), tuple(outputs.values()), retain_graph=probe < PROBES - 1
                )
                gradients = dict(zip(outputs, asked, strict=True))
                for key, missed in wrong.items():
                    moved[key] = moved.get(key, 0.0) + float((gradients[key[0]] * missed).sum()) ** 2
            answers.append(logits.detach())
    # as a share of the logits' spread; of two ways the cheaper
    every = torch.cat(answers)
    spread = max(float((every - every.mean(dim=0)).square().mean().sqrt()), 1e-6)
    error = {key: (total / (PROBES * every.numel())) ** 0.5 / spread for key, total in moved.items()}
    costs = [cheapest_form(name, error, outlier(channels[name].peak)) for name in linears]
    return sorted(costs, key=lambda cost: cost.error, reverse=True)


def cheapest_form(name: str, error: Mapping[tuple[str, bool, int], float], loudest: float) -> ProductCost:
    """What a product costs, smoothed or not, whichever is less; `error` by name, smoothed, and levels of a weight."""
    ways = [smooth for smooth in (True, False) if (name, smooth, LEVELS) in error]
    best = min(ways, key=lambda smooth: error[name, smooth, LEVELS])
    return ProductCost(name, error[name, best, LEVELS], error[name, best, EIGHT_BITS], loudest, best)


def choose(costs: Sequence[ProductCost], limit: float) -> tuple[list[str], dict[str, str]]:
    """The products whose weights need 8 bits, and those left in float32 with the reason, so that all together move the
    logits by no more than `limit` of their spread: while they would, the change that gains most for its price is made,
    of a product from 7 bits to 8, from 8 to float32, or from 7 to float32 at once where 8 bits help nothing."""
    forms = {cost.name: (cost.error, cost.error_8_bits, 0.0) for cost in costs}  # what is lost in each
    taken = dict.fromkeys(forms, 0)

    def gain(name: str, form: int) -> float:
        now = taken[name]
        size = 4 if name.endswith(("fc1", "fc2")) else 1  # of the others: so much longer do all forms of it take
        return (forms[name][now] ** 2 - forms[name][form] ** 2) / ((FORM_PRICES[form] - FORM_PRICES[now]) * size)

    while combined_error(left[taken[name]] for name, left in forms.items()) > limit:
        changes = [(name, form) for name, now in taken.items() for form in range(now + 1, len(FORM_PRICES))]
        name, form = max(changes, key=lambda change: gain(*change))
        taken[name] = form
    share = "in INT8 it alone would move the logits by {:.1f} % of their spread"
    spared = {name: share.format(100 * forms[name][1]) for name, now in taken.items() if now == 2}
    return [name for name, now in taken.items() if now == 1], spared


def combined_error(errors: Iterable[float]) -> float:
    """Errors of different products have nothing to do with each other: their squares add up."""
    return math.sqrt(sum(error**2 for error in errors))


def channel_weights(weight: Tensor) -> Tensor:
    """(inputs,) the largest weight of each input channel, as a share of the largest of its output: outputs have scales
    of their own, so only that counts."""
    return (weight.abs() / weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)).amax(dim=0)


def outlier(peak: Tensor) -> float:
    """How far the loudest channel stands out of the median one."""
    return float(peak.max() / peak.median().clamp(min=1e-9))


@contextmanager
def hooked(model: BirdClefClassifier, watch: Callable[[str], Hook]) -> Generator[None]:
    """While every product is watched."""
    handles = [linear.register_forward_hook(watch(name)) for name, linear in linear_layers(model).items()]
    yield
    for handle in handles:
        handle.remove()


@contextmanager
def differentiable_inside(model: BirdClefClassifier) -> Generator[None]:
    """With gradients of the encoder's states, and of no weight: those would take as much memory again."""
    needed = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    first = model.whisper_encoder.whisper.layers[0]

    def begin(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].detach().requires_grad_(), *inputs[1:])

    model.requires_grad_(False)
    handle = first.register_forward_pre_hook(begin)
    yield
    handle.remove()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(needed[name])


def linear_layers(model: BirdClefClassifier) -> dict[str, nn.Linear]:
    """The products with weights of the encoder, by name: layers.0.fc2."""
    found: dict[str, nn.Linear] = {}
    for number in range(model.whisper_encoder.size.layers):
        for product in PRODUCTS:
            part = model.whisper_encoder.whisper.get_submodule(f"layers.{number}.{product}")
            assert isinstance(part, nn.Linear), f"layers.{number}.{product} is no linear layer"
            found[f"layers.{number}.{product}"] = part
    return found


def rounded_weight(weight: Tensor, levels: int = LEVELS) -> Tensor:
    """A weight (outputs, inputs) as INT8 has it, with a scale for each output."""
    scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / levels
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
    nn.init.normal_(model.head.score.weight, std=0.1)
    waveforms = 0.1 * torch.randn(2, 80_000)
    before = product_costs(model, waveforms, input_channels(model, waveforms), {})
    block = model.whisper_encoder.whisper.layers[1]
    with torch.no_grad():  # the same function, but for one channel that stands out
        block.get_parameter("fc1.weight")[3] *= 1000.0
        block.get_parameter("fc2.weight")[:, 3] /= 1000.0
    channels = input_channels(model, waveforms)
    after = product_costs(model, waveforms, channels, {})
    smooth = product_costs(model, waveforms, channels, smoothing(model, channels))
    for name, costs in (("as it was", before), ("with an outlier", after), ("smoothed", smooth)):
        print(f"{name:16}", ", ".join(f"{cost.name} {cost.error:.1e} (x {cost.outlier:.0f})" for cost in costs[:3]))
    assert after[0].name == "layers.1.fc2" and after[0].error > 10 * before[0].error > smooth[0].error
