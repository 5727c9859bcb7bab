"""What INT8 costs: next to nothing where activations are alike, everything where one channel shouts."""

import torch

from config import SIZES, AudioSettings, HeadSettings
from model import BirdClefClassifier, Encoder
from sensitivity import linear_layers, product_costs, rounded_activation, rounded_weight


def small() -> BirdClefClassifier:
    torch.manual_seed(0)
    return BirdClefClassifier(Encoder(SIZES["demo"]), AudioSettings(), 5, HeadSettings()).eval()


def test_every_linear_layer_is_measured_and_the_dearest_comes_first() -> None:
    model = small()
    costs = product_costs(model, 0.1 * torch.randn(2, 80_000))
    assert {cost.name for cost in costs} == set(linear_layers(model)) and len(costs) == 18
    assert [cost.error for cost in costs] == sorted((cost.error for cost in costs), reverse=True)
    assert 0 < costs[0].error < 0.01


def test_a_channel_that_shouts_is_found_and_only_there() -> None:
    model = small()
    waveforms = 0.1 * torch.randn(2, 80_000)
    before = {cost.name: cost.error for cost in product_costs(model, waveforms)}
    block = model.encoder.whisper.layers[1]
    with torch.no_grad():
        block.get_parameter("fc1.weight")[3] *= 1000.0
        block.get_parameter("fc2.weight")[:, 3] /= 1000.0
    after = product_costs(model, waveforms)
    assert after[0].name == "layers.1.fc2" and after[0].error > 100 * before["layers.1.fc2"]
    assert after[0].outlier > 10
    assert all(cost.error < 3 * before[cost.name] for cost in after[1:])


def test_rounding_is_that_of_int8() -> None:
    rounded = rounded_weight(torch.tensor([[1.0, -2.0], [0.0, 0.0]]))
    torch.testing.assert_close(rounded, torch.tensor([[31 * 2 / 63, -2.0], [0.0, 0.0]]))
    values = torch.tensor([-1.0, 0.0, 0.3, 1.55])
    rounded = rounded_activation(values)
    assert rounded[1] == 0.0 and (rounded - values).abs().max() <= 0.5 * 2.55 / 255 + 1e-6
    assert len(set(rounded_activation(torch.linspace(0, 1, 10_000)).numpy().tolist())) == 256
    assert torch.equal(rounded_activation(torch.zeros(3)), torch.zeros(3))


def test_measuring_leaves_the_network_as_it_was() -> None:
    model, waveforms = small(), 0.1 * torch.randn(1, 80_000)
    with torch.inference_mode():
        before = model(waveforms)
        product_costs(model, waveforms)
        assert torch.equal(model(waveforms), before)
