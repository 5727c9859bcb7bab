"""Every weight in one group, at the rate the formula gives; and updates that a bad batch cannot spoil."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from config import AudioSettings, EncoderSize, PictureSettings
from encoders import PictureEncoder
from model import Encoder, LogMel
from training.optim import between, cosine_schedule, differential_groups, follow, pull_to_start, update


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(EncoderSize(8, 16, 3, 2, 1, 16, 2))
        self.head = nn.Linear(16, 4)


def rates(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Name -> (rate, decay)."""
    found: dict[int, tuple[float, float]] = {}
    for group in differential_groups(model, 1e-4, 1e-3, layer_decay=0.5, weight_decay=0.1):
        for parameter in group["params"]:
            assert id(parameter) not in found, "a weight stands in two groups"
            found[id(parameter)] = (group["lr"], group["weight_decay"])
    return {name: found[id(parameter)] for name, parameter in model.named_parameters() if id(parameter) in found}


def test_every_trainable_weight_is_in_exactly_one_group_and_the_position_table_in_none() -> None:
    model = Toy()
    assert set(rates(model)) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert "encoder.whisper.embed_positions.weight" not in rates(model)


def test_rates_fall_with_depth_as_the_formula_says() -> None:
    found = rates(Toy())
    assert found["head.weight"][0] == 1e-3
    assert found["encoder.whisper.layer_norm.weight"][0] == 1e-4
    for layer, rate in ((2, 1e-4), (1, 0.5e-4), (0, 0.25e-4)):
        assert found[f"encoder.whisper.layers.{layer}.fc1.weight"][0] == pytest.approx(rate)
    assert found["encoder.whisper.conv1.weight"][0] == pytest.approx(0.125e-4)


def test_the_stem_of_the_transformer_on_pictures_learns_slowest_too() -> None:
    model = nn.Sequential()
    model.encoder = PictureEncoder(PictureSettings("vit"), AudioSettings(window_seconds=1, context_seconds=1), 128)
    found = {name.removeprefix("encoder.network."): rate for name, (rate, _) in rates(model).items()}
    assert found["layers.5.wide.weight"] == found["norm.weight"] == 1e-4
    assert found["layers.0.wide.weight"] == pytest.approx(1e-4 * 0.5**5)
    for name in ("patches.weight", "patches.bias", "row", "column"):
        assert found[name] == pytest.approx(1e-4 * 0.5**6), name


def test_norms_and_biases_do_not_decay() -> None:
    found = rates(Toy())
    assert found["encoder.whisper.layers.0.fc1.weight"][1] == 0.1
    assert found["encoder.whisper.layers.0.fc1.bias"][1] == 0.0
    assert found["encoder.whisper.layer_norm.weight"][1] == 0.0
    model = nn.Sequential()
    model.log_mel = LogMel(AudioSettings(compression="pcen_trained"), 80)
    assert rates(model) == {"log_mel.pcen.curve": (1e-3, 0.0)}, "logarithms, which would decay to a gain of 1"


def test_what_is_pulled_to_its_start_does_not_decay_to_zero_and_all_else_does() -> None:
    model = Toy()
    groups = differential_groups(model, 1e-4, 1e-3, layer_decay=0.5, weight_decay=0.1, pulled=True)
    decays = {id(weight): group["weight_decay"] for group in groups for weight in group["params"]}
    assert {decays[id(weight)] for weight in model.encoder.parameters() if weight.requires_grad} == {0.0}
    assert decays[id(model.head.weight)] == 0.1 and decays[id(model.head.bias)] == 0.0


def test_every_groups_rate_rises_from_the_first_update_on() -> None:
    groups = differential_groups(Toy(), 1e-4, 1e-3, layer_decay=0.5, weight_decay=0.1)
    optimizer = AdamW(groups)
    schedule = cosine_schedule(optimizer, steps=100, warmup=0.1)
    peaks = [group["initial_lr"] for group in optimizer.param_groups]
    assert len(set(peaks)) == 5  # head, two layers and what lies with the top one, the stem
    for step in range(10):
        shares = [group["lr"] / peak for group, peak in zip(optimizer.param_groups, peaks, strict=True)]
        assert shares == pytest.approx([(step + 1) / 10] * len(peaks))
        optimizer.step()
        schedule.step()


def test_the_schedule_rises_then_falls_to_its_floor() -> None:
    optimizer = AdamW([nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = cosine_schedule(optimizer, steps=100, warmup=0.1)
    seen: list[float] = []
    for _ in range(100):
        seen.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    assert seen[0] == pytest.approx(0.1) and seen[9] == pytest.approx(1.0) == max(seen)
    assert seen[10:] == sorted(seen[10:], reverse=True)
    assert float(schedule.get_last_lr()[0]) == pytest.approx(0.01)


def one_update(losses: list[float], accumulate: int) -> float:
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = AdamW([weight], lr=0.1, weight_decay=0.0)
    schedule = cosine_schedule(optimizer, 10, 0.0)
    for number, factor in enumerate(losses, 1):
        update((weight * factor).sum(), [weight], optimizer, schedule, 1.0, accumulate, number == len(losses))
    return weight.item()


def test_two_halves_accumulate_to_the_whole() -> None:
    assert one_update([0.2, 0.6], accumulate=2) == pytest.approx(one_update([0.4], accumulate=1))


def test_a_loss_that_is_not_finite_moves_nothing() -> None:
    for bad in (math.nan, math.inf):
        assert one_update([bad], accumulate=1) == 1.0
    assert one_update([0.4], accumulate=1) != 1.0


def test_a_running_mean_follows_the_weights_and_takes_counters_as_they_are() -> None:
    model = nn.BatchNorm1d(2)
    average = copy.deepcopy(model)
    with torch.no_grad():
        model.weight.add_(1.0)
    model(torch.randn(4, 2))
    follow(average, model, 0.9, updates=1000)
    torch.testing.assert_close(average.weight.detach(), torch.tensor([1.1, 1.1]))
    counters = dict(model.named_buffers())
    assert all(torch.equal(value, counters[name]) for name, value in average.named_buffers())
    assert counters["num_batches_tracked"] == 1
    follow(average, model, 0.9, updates=1)  # early on it is quick: 2/11 of the old one are left
    torch.testing.assert_close(average.weight.detach(), torch.full((2,), 2 - 0.9 * 2 / 11))


def test_a_plain_mean_forgets_what_was_before_it_and_counts_every_update_alike() -> None:
    model, average = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    running = copy.deepcopy(average)
    values = [9.0, 1.0, 2.0, 6.0]
    for number, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        follow(average, model, 0.9, 1000, plain=number)  # 0: the first is before it
        follow(running, model, 0.9, 1000)
    assert average.weight.item() == pytest.approx(3.0) and running.weight.item() != pytest.approx(3.0, abs=0.5)


def test_a_plain_mean_of_weights_has_a_plain_mean_of_their_statistics_and_a_running_one_the_last() -> None:
    norm = nn.BatchNorm1d(1)
    norm.register_buffer("table", torch.tensor([-math.inf, 0.1]))  # what never changes, changes in no bit
    plain, running = copy.deepcopy(norm), copy.deepcopy(norm)
    for number, value in enumerate([9.0, 1.0, 2.0, 6.0]):
        assert norm.running_mean is not None and norm.num_batches_tracked is not None
        norm.running_mean.fill_(value)
        norm.num_batches_tracked.fill_(number)
        follow(plain, norm, 0.9, 1000, plain=number)  # 0: the first is before it
        follow(running, norm, 0.9, 1000)
    found = [one.state_dict() for one in (plain, running)]
    assert [one["running_mean"].item() for one in found] == pytest.approx([3.0, 6.0])
    for one in found:
        assert one["num_batches_tracked"].item() == 3 and torch.equal(one["table"], norm.state_dict()["table"])


def test_between_two_networks_lie_weights_a_share_of_the_way_and_the_counters_of_the_end() -> None:
    networks = [nn.BatchNorm1d(2) for _ in range(3)]
    kept, start, end = networks
    with torch.no_grad():
        start.weight.fill_(1.0)
        end.weight.fill_(5.0)
    end(torch.randn(4, 2))
    for share, weight in ((0.25, 2.0), (1.0, 5.0)):
        between(kept, start, end, share)
        assert kept.weight.tolist() == [weight, weight]
    assert torch.equal(torch.as_tensor(kept.running_mean), torch.as_tensor(end.running_mean))
    assert start.weight.tolist() == [1.0, 1.0] and end.weight.tolist() == [5.0, 5.0]


def pulled(share: float, slopes: list[float], rate: float = 0.1) -> list[float]:
    """A weight that begins at 1 and is pulled there, after each of some updates with these slopes of the loss."""
    network, start = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for one in (network, start):
        nn.init.ones_(one.weight)
    optimizer = AdamW(network.parameters(), lr=rate, weight_decay=0.0)
    schedule = LambdaLR(optimizer, lambda step: 0.5 if step == 0 else 1.0)
    pull_to_start(optimizer, schedule, network, start, share)
    seen: list[float] = []
    for slope in slopes:
        update((network.weight * slope).sum(), network.parameters(), optimizer, schedule, clip=1e9)
        seen.append(network.weight.item())
    return seen


def test_a_pull_goes_its_share_of_the_way_back_before_each_update_and_less_while_the_rates_are_low() -> None:
    # Adam's steps are the rate: 1 - .05, then .95 + .4 * .05 - .1, then .87 + .4 * .13 - .1
    assert pulled(0.4, [1.0, 1.0, 1.0]) == pytest.approx([0.95, 0.87, 0.822], abs=1e-6)
    assert pulled(0.0, [1.0, 1.0, 1.0]) == pytest.approx([0.95, 0.85, 0.75], abs=1e-6)  # negative control


def test_a_pull_is_weaker_in_proportion_to_the_rates() -> None:
    network, start = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 3.0)
    nn.init.constant_(start.weight, 1.0)
    optimizer = AdamW(network.parameters(), lr=0.1, weight_decay=0.0)
    schedule = cosine_schedule(optimizer, steps=10, warmup=0.4)  # a quarter, a half, ...
    pull_to_start(optimizer, schedule, network, start, 0.4)
    seen: list[float] = []
    for _ in range(2):
        update(0.0 * network.weight.sum(), network.parameters(), optimizer, schedule, clip=1.0)
        seen.append(network.weight.item())
    assert seen == pytest.approx([3 - 0.1 * 2, 2.8 - 0.2 * 1.8])


def test_a_weight_that_is_always_pushed_the_same_way_comes_to_rest_where_the_pull_is_as_strong() -> None:
    assert 1 - pulled(0.1, [1.0] * 200, rate=0.01)[-1] == pytest.approx(0.01 / 0.1, rel=1e-3)
    assert 1 - pulled(0.0, [1.0] * 200, rate=0.01)[-1] == pytest.approx(1.995, rel=1e-3)  # negative control


def test_an_update_that_is_thrown_away_pulls_nothing() -> None:
    assert pulled(0.4, [1.0, math.nan]) == pytest.approx([0.95, 0.95])
