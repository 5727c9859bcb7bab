"""What INT8 costs: the logits say it; the output of the guilty product does not, where one giant channel fills it."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from config import SIZES, AudioSettings, HeadSettings
from model import BirdClefClassifier, Encoder
from serving.sensitivity import (
    ATTENTION,
    EIGHT_BITS,
    LEVELS,
    ProductCost,
    choose,
    combined_error,
    input_channels,
    linear_layers,
    product_costs,
    rounded_activation,
    rounded_weight,
    smoothing,
)

GUILTY = "layers.1.fc2"


def small() -> BirdClefClassifier:
    torch.manual_seed(0)
    model = BirdClefClassifier(Encoder(SIZES["demo"]), AudioSettings(), 5, HeadSettings()).eval()
    torch.nn.init.normal_(model.head.score.weight, std=0.1)
    return model


def sounds(count: int = 4) -> Tensor:
    """Noise of different colours, so that answers differ."""
    torch.manual_seed(1)
    waveforms = 0.1 * torch.randn(count, 80_000)
    for row in range(1, count):
        waveforms[row] += 0.2 * torch.sin(0.15 * row * torch.arange(80_000))
    return waveforms


def with_a_massive_activation(waveforms: Tensor) -> BirdClefClassifier:
    """A channel behind a Gelu that is 500 in one token of a window and nothing elsewhere, and goes into one channel of
    the residual: in real Whisper base the tokens behind layer 4 have a root mean square of 2.3 and a largest value
    of 502."""
    model = small()
    block = model.whisper_encoder.whisper.layers[1]
    received: list[Tensor] = []
    handle = block.get_submodule("fc1").register_forward_hook(
        lambda _module, inputs, _output: received.append(inputs[0])
    )
    with torch.no_grad():
        for waveform in waveforms:
            model(waveform[None])
        handle.remove()
        weight, bias = block.get_parameter("fc1.weight"), block.get_parameter("fc1.bias")
        highest = [(tokens[0] @ weight[3]).sort(descending=True).values[:2] for tokens in received]
        floor = max(float(values[1]) for values in highest)
        gain = 500.0 / (max(float(values[0]) for values in highest) - floor)
        weight[3] *= gain
        bias[3] = -gain * floor
        block.get_parameter("fc2.weight")[:, 3] = 0.0
        block.get_parameter("fc2.weight")[7, 3] = 1.0
    return model


@torch.inference_mode()
def logits(model: BirdClefClassifier, waveforms: Tensor) -> Tensor:
    return torch.cat([model(waveform[None]) for waveform in waveforms])


@torch.inference_mode()
def really_moved(
    model: BirdClefClassifier, waveforms: Tensor, name: str, scale: Tensor, levels: int, mean: Tensor
) -> float:
    """How far one product in INT8 moves the logits, as a share of their spread, by running it so."""
    linear, before = linear_layers(model)[name], logits(model, waveforms)
    weight = rounded_weight(linear.weight * scale, levels)
    constant = F.linear(mean / scale, weight - linear.weight * scale)

    def rounded(_module: object, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        return F.linear(rounded_activation(inputs[0] / scale), weight, linear.bias) - constant

    handle = linear.register_forward_hook(rounded)
    after = logits(model, waveforms)
    handle.remove()
    spread = (before - before.mean(dim=0)).square().mean().sqrt()
    return float((after - before).square().mean().sqrt() / spread)


@torch.inference_mode()
def share_of_its_output(model: BirdClefClassifier, waveforms: Tensor, name: str) -> float:
    """What was measured before: the error of a product's output, as a share of the variance of that output."""
    linear, lost, varied = linear_layers(model)[name], list[Tensor](), list[Tensor]()

    def watch(_module: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        wrong = F.linear(rounded_activation(inputs[0]), rounded_weight(linear.weight), linear.bias) - output
        lost.append(wrong.square().mean())
        varied.append(output.var())

    handle = linear.register_forward_hook(watch)
    logits(model, waveforms)
    handle.remove()
    return float(torch.stack(lost).sum() / torch.stack(varied).sum())


def test_every_linear_layer_is_measured_and_the_dearest_comes_first() -> None:
    model = small()
    waveforms = sounds(2)
    costs = product_costs(model, waveforms, input_channels(model, waveforms), {})
    assert {cost.name for cost in costs} == set(linear_layers(model)) and len(costs) == 18
    assert [cost.error for cost in costs] == sorted((cost.error for cost in costs), reverse=True)
    assert all(cost.error_8_bits > 0 for cost in costs) and 0 < costs[0].error < 0.2


def test_what_is_predicted_of_a_product_is_what_happens_when_it_alone_is_int8() -> None:
    model, waveforms = small(), sounds()
    channels = input_channels(model, waveforms)
    scales, one = smoothing(model, channels), torch.ones(())
    for cost in product_costs(model, waveforms, channels, scales)[::4]:
        for levels, predicted in ((LEVELS, cost.error), (EIGHT_BITS, cost.error_8_bits)):
            mean = channels[cost.name].mean
            moved = really_moved(model, waveforms, cost.name, scales.get(cost.name, one), levels, mean)
            assert moved / 2 < predicted < 2 * moved, (cost.name, levels, moved, predicted)


def test_a_massive_activation_is_found_in_the_logits_and_not_in_the_output_of_its_product() -> None:
    waveforms = sounds()
    model = with_a_massive_activation(waveforms)
    with torch.inference_mode():
        tokens = model.encoder.layer_states(model.log_mel(waveforms))[1]
    assert 1 < float(tokens.square().mean().sqrt()) < 4 and 400 < float(tokens.max()) < 600
    channels = input_channels(model, waveforms)
    costs = product_costs(model, waveforms, channels, {})
    assert costs[0].name == GUILTY and costs[0].error > 5 * costs[1].error and costs[0].outlier > 300
    mean = channels[GUILTY].mean
    truly = really_moved(model, waveforms, GUILTY, torch.ones(()), LEVELS, mean)
    assert truly > 0.1
    assert share_of_its_output(model, waveforms, GUILTY) < 0.05, "negative control: the old measure saw nothing"
    assert GUILTY in choose(costs, 0.05)[1]
    scales = smoothing(model, channels)
    smooth = really_moved(model, waveforms, GUILTY, scales[GUILTY], LEVELS, mean)
    assert smooth < truly / 4, (smooth, truly)
    assert GUILTY not in choose(product_costs(model, waveforms, channels, scales), truly / 2)[1]


def test_products_of_the_same_activations_are_smoothed_alike_and_behind_a_gelu_only_where_it_pays() -> None:
    waveforms = sounds(2)
    for model, expected in ((small(), False), (with_a_massive_activation(waveforms), True)):
        channels = input_channels(model, waveforms)
        scales = smoothing(model, channels)
        for layer in range(3):
            same = [scales[f"layers.{layer}.{product}"] for product in ATTENTION]
            assert all(torch.equal(same[0], other) for other in same[1:])
        smoothed = {cost.name: cost.smoothed for cost in product_costs(model, waveforms, channels, scales)}
        assert smoothed[GUILTY] == expected
        assert all(smoothed[name] for name in scales if name.endswith((*ATTENTION, "fc1")))
        assert all(float(scale.log().mean()) == pytest.approx(0, abs=1e-5) for scale in scales.values())


def test_the_step_that_gains_most_for_its_price_is_taken_until_all_together_are_cheap_enough() -> None:
    costs = [ProductCost(*cost, 1.0, True) for cost in (("a", 0.3, 0.25), ("b", 0.2, 0.01), ("c", 0.03, 0.02))]
    assert choose(costs, 0.37) == ([], {})
    assert choose(costs, 0.31) == (["b"], {})  # 0.2**2 - 0.01**2 is more than 0.3**2 - 0.25**2
    assert choose(costs, 0.26) == (["a", "b"], {})
    why = {"a": "in INT8 it alone would move the logits by 25.0 % of their spread"}
    assert choose(costs, 0.1) == (["b"], why)
    assert choose(costs, 0.023) == (["b", "c"], why)
    assert choose(costs, 0.0) == ([], choose(costs, 0.0)[1]) and len(choose(costs, 0.0)[1]) == 3
    assert combined_error([0.3, 0.4]) == pytest.approx(0.5)


def test_a_product_that_8_bits_do_not_help_goes_to_float32_at_once_and_the_others_stay() -> None:
    costs = [ProductCost(*cost, 1.0, False) for cost in (("guilty", 0.35, 0.35), ("a", 0.03, 0.01), ("b", 0.02, 0.02))]
    assert choose(costs, 0.1) == ([], {"guilty": "in INT8 it alone would move the logits by 35.0 % of their spread"})


def test_peaks_and_means_are_those_of_all_tokens() -> None:
    model, waveforms, received = small(), sounds(3), list[Tensor]()
    handle = linear_layers(model)[GUILTY].register_forward_hook(
        lambda _module, inputs, _output: received.append(inputs[0])
    )
    channels = input_channels(model, waveforms)
    handle.remove()
    tokens = torch.cat(received).flatten(end_dim=1)
    assert tokens.shape == (750, 384) and len(channels) == 18
    torch.testing.assert_close(channels[GUILTY].mean, tokens.mean(dim=0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(channels[GUILTY].peak, tokens.abs().amax(dim=0))


def test_rounding_is_that_of_int8() -> None:
    rounded = rounded_weight(torch.tensor([[1.0, -2.0], [0.0, 0.0]]))
    torch.testing.assert_close(rounded, torch.tensor([[31 * 2 / 63, -2.0], [0.0, 0.0]]))
    values = torch.tensor([-1.0, 0.0, 0.3, 1.55])
    rounded = rounded_activation(values)
    assert rounded[1] == 0.0 and (rounded - values).abs().max() <= 0.5 * 2.55 / 255 + 1e-6
    assert len(set(rounded_activation(torch.linspace(0, 1, 10_000)).numpy().tolist())) == 256
    assert torch.equal(rounded_activation(torch.zeros(3)), torch.zeros(3))


def test_measuring_leaves_the_network_as_it_was() -> None:
    model, waveforms = small(), sounds(1)
    model.head.score.weight.requires_grad_(False)
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    before = logits(model, waveforms)
    channels = input_channels(model, waveforms)
    product_costs(model, waveforms, channels, smoothing(model, channels))
    assert torch.equal(logits(model, waveforms), before)
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    assert all(parameter.grad is None for parameter in model.parameters())
