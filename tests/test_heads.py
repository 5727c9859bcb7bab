"""Heads: several layers count alike however loud they are, one moment can decide, and every head begins fair."""

from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from config import HeadSettings, Pooling
from heads import (
    MOMENT_FRAMES,
    STATISTICS,
    AttentionHead,
    Head,
    PooledHead,
    Standard,
    build_head,
    pool_time,
    pool_tokens,
    received_layers,
)

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
WIDTH = 16


def layers(count: int, batch: int = 2, tokens: int = 50, seed: int = 0) -> list[Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, tokens, WIDTH, generator=chance) for _ in range(count)]


def picture(batch: int = 2, channels: int = 80, frames: int = 100) -> Tensor:
    return torch.randn(batch, channels, frames, generator=torch.Generator().manual_seed(7))


def fitted(head: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """The loss on what it was fitted on, after 100 updates."""
    optimizer = AdamW(head.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(head(inputs), targets))
        optimizer.step()
    return F.cross_entropy(head.eval()(inputs), targets).item()


def test_what_is_pooled_is_the_mean_the_deviation_and_the_greatest_over_time() -> None:
    values = torch.stack([torch.arange(5.0), torch.full((5,), 3.0)], dim=1)[None]
    expected = torch.tensor([[2.0, 3.0, 2.0**0.5, 1e-4, 4.0, 3.0]])
    torch.testing.assert_close(pool_time(values), expected)
    assert values.requires_grad_() is values
    (gradient,) = torch.autograd.grad(pool_time(values).sum(), values)
    assert gradient.isfinite().all(), "where nothing varies too"


def test_a_layer_counts_no_more_for_being_loud() -> None:
    head = PooledHead(WIDTH, 3, 0, 4, 0.0)
    states, mel = layers(3), picture()
    loud = [gain * state + offset for gain, offset, state in zip((1, 100, 0.1), (0, 30, -2), states, strict=True)]
    torch.testing.assert_close(head.summary(loud, mel), head.summary(states, mel), atol=0.01, rtol=0)
    raw = [torch.cat([pool_time(state) for state in which], dim=1) for which in (loud, states)]
    assert (raw[0] - raw[1]).abs().max() > 10  # negative control: without the norm


def test_channels_a_hundred_times_the_others_do_not_keep_a_head_from_learning() -> None:
    """As in Whisper, a few channels are far above the rest and say nothing of the species."""
    torch.manual_seed(0)
    tokens = torch.randn(64, 50, WIDTH)
    species = torch.arange(64) % 2
    tokens[:, :, 5] += 0.5 * species[:, None]
    tokens[:, :, 0] = 300 + 3 * torch.randn(64, 1)
    tokens[:, :, 1] = -200 + 2 * torch.randn(64, 50)
    head = PooledHead(WIDTH, 1, 0, 2, 0.0)
    summary, raw = head.summary([tokens], picture(64)), pool_time(tokens)
    head.standard.fit(summary)
    loss = fitted(head.train(), summary, species)
    assert loss < 0.3
    for unready in (raw, summary):  # negative controls: neither norm nor standardisation, and no standardisation
        assert fitted(nn.Linear(STATISTICS * WIDTH, 2), unready, species) > 2 * loss


def test_moments_are_fitted_where_a_value_varies_by_a_thousandth_of_its_mean() -> None:
    chance = torch.Generator().manual_seed(0)
    values = 10 + 0.01 * torch.randn(20_000, 3, generator=chance)
    standard = Standard(3).eval()
    standard.fit(values)
    exact = values.double().var(dim=0, unbiased=False)
    torch.testing.assert_close(standard.variance.double(), exact, rtol=1e-5, atol=0)
    told = standard(values)
    assert told.mean(dim=0).abs().max() < 1e-3 and (told.std(dim=0) - 1).abs().max() < 1e-3
    once = values.square().mean(dim=0) - values.mean(dim=0).square()  # negative control: one pass in float32
    assert (once.double() / exact - 1).abs().max() > 0.05


def test_a_value_that_never_varies_is_not_blown_up() -> None:
    standard = Standard(1).eval()
    standard.fit(torch.full((10, 1), 2.0))
    assert standard(torch.tensor([[2.0]])).item() == 0.0 and standard(torch.tensor([[2.001]])).item() < 11


def test_fitted_moments_stay_and_running_ones_move_while_training_alone() -> None:
    values, other = torch.randn(64, 3), 5 + torch.randn(64, 3)
    kept, running = PooledHead(1, 1, 0, 2, 0.0), PooledHead(1, 1, 0, 2, 0.0)
    kept.standard.fit(values)
    running(values)
    before = {"kept": kept.standard.mean.clone(), "running": running.standard.mean.clone()}
    kept.train()(other)
    running.eval()(other)
    assert torch.equal(kept.standard.mean, before["kept"]), "fitted"
    assert torch.equal(running.standard.mean, before["running"]), "judging moves nothing"
    running.train()(other)
    assert (running.standard.mean - before["running"]).min() > 1.0  # negative control


def test_running_moments_are_those_of_all_batches_and_a_batch_of_one_is_as_good_as_any() -> None:
    torch.manual_seed(0)
    values = torch.randn(64, 3) * torch.tensor([1.0, 10.0, 0.1]) + torch.tensor([0.0, 5.0, -2.0])
    whole, single = Standard(3), Standard(3)
    whole.follow(values)
    for row in values:
        single.follow(row[None])
    torch.testing.assert_close(single(values), whole(values), atol=1e-3, rtol=0)
    assert single(values).std(dim=0, unbiased=False).tolist() == pytest.approx([1.0] * 3, abs=1e-3)


@pytest.mark.parametrize("is_fitted", [False, True])
def test_a_batch_that_is_not_finite_does_not_spoil_the_moments(is_fitted: bool) -> None:
    standard = Standard(2)
    values = torch.randn(8, 2)
    if is_fitted:
        standard.fit(values)
    standard.follow(values)
    before = standard(values)
    bad = values.clone()
    bad[3, 0] = torch.nan
    standard.follow(bad)
    assert torch.equal(standard(values)[:, 0], before[:, 0]) and standard(values).isfinite().all()


def test_mel_channels_of_which_the_checkpoint_knows_nothing_go_to_the_head_directly() -> None:
    head = PooledHead(WIDTH, 2, 5, 3, 0.0)
    states, mel = layers(2), picture(channels=85)
    summary = head.summary(states, mel)
    assert summary.shape == (2, STATISTICS * (2 * WIDTH + 5))
    torch.testing.assert_close(summary[:, -STATISTICS * 5 :], pool_time(mel[:, 80:].transpose(1, 2)))
    torch.testing.assert_close(summary[:, : STATISTICS * WIDTH], pool_tokens(states[0]))
    low = mel.clone()
    low[:, :80] = 0.0
    assert torch.equal(head.summary(states, low), summary), "those it knows reach the head through the encoder alone"


def test_a_moment_of_the_pooled_head_is_its_answer_to_half_a_second() -> None:
    head = PooledHead(WIDTH, 2, 3, 4, 0.0).eval()
    nn.init.normal_(head.score.weight)
    states, mel = layers(2, tokens=60), picture(channels=83, frames=120)
    moments = head.moments(states, mel)
    assert moments.shape == (2, 2, 4) and MOMENT_FRAMES * 0.01 == 0.5
    second = head(head.summary([state[:, 25:] for state in states], mel[:, :, 50:]))  # what is left over is in the last
    torch.testing.assert_close(moments[:, 1], second)
    short = head.moments([state[:, :10] for state in states], mel[:, :, :20])
    torch.testing.assert_close(short[:, 0], head(head.summary([state[:, :10] for state in states], mel[:, :, :20])))


def test_moments_are_standardised_as_windows_are_and_leave_no_trace_in_it() -> None:
    head = PooledHead(WIDTH, 1, 0, 2, 0.0).train()
    states, mel = layers(1), picture()
    head(head.summary(states, mel))
    before = head.standard.mean.clone()
    head.moments(states, mel)
    assert torch.equal(head.standard.mean, before)
    head(head.summary(states[:1], mel) + 1.0)
    assert not torch.equal(head.standard.mean, before)  # negative control: a window does


@pytest.mark.parametrize(("pooling", "seconds"), [("pooled", 0.5), ("attention", 0.02)])
def test_moments_tell_when_a_call_was(pooling: Pooling, seconds: float) -> None:
    torch.manual_seed(0)
    head = build_head(WIDTH, 3, 0, 5, HeadSettings(pooling)).eval()
    nn.init.normal_(head.score.weight)
    quiet, mel = layers(3, 1, 250), picture(1, 80, 500)
    call = [state.clone() for state in quiet]
    for state in call:
        state[:, 100:105] += 3 * torch.randn(WIDTH)  # 0.1 s long, 2 s after the beginning
    difference = (head.moments(call, mel) - head.moments(quiet, mel)).abs().amax(dim=(0, 2))
    changed = [round(int(number) * seconds, 2) for number in difference.nonzero()[:, 0]]
    assert len(difference) == round(5 / seconds)
    assert changed == ([2.0] if pooling == "pooled" else [2.0, 2.02, 2.04, 2.06, 2.08])


def test_attention_can_rest_on_one_moment() -> None:
    head = AttentionHead(96, 1, 1, 0.0)
    tokens = torch.zeros(1, 1, 250, 96)
    tokens[0, 0, 17, 0] = 1.0
    for layer in (head.attention, head.score):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        head.attention.weight[0, 0] = 100.0
        head.score.weight[0, 0] = 1.0
    assert head(tokens).item() > 0.98
    squashed = torch.tensor([1.0] + [0.0] * 249).tanh().softmax(dim=0)[0]  # negative control: what tanh would allow
    assert squashed < 0.01


def test_attention_is_a_mean_of_moments_that_lies_between_the_least_and_the_greatest() -> None:
    states, mel = [3 * state for state in layers(2, 4, 250)], picture(4)
    head = AttentionHead(WIDTH, 2, 5, 0.0)
    moments, whole = head.moments(states, mel), head(head.summary(states, mel))
    assert (whole <= moments.amax(dim=1) + 1e-5).all() and (whole >= moments.amin(dim=1) - 1e-5).all()


def test_the_mixture_begins_with_equal_shares_and_can_choose_one_layer() -> None:
    head = AttentionHead(WIDTH, 3, 2, 0.0)
    states = [gain * state for gain, state in zip((1, 100, 0.1), layers(3), strict=True)]
    normal = [F.layer_norm(state, (WIDTH,)) for state in states]
    summary = head.summary(states, picture())
    torch.testing.assert_close(head.tokens(summary), (normal[0] + normal[1] + normal[2]) / 3)
    assert not torch.allclose(torch.stack(states).mean(dim=0), head.tokens(summary), atol=0.1)  # negative control
    with torch.no_grad():
        head.mixture.copy_(torch.tensor([0.0, 0.0, 50.0]))
    torch.testing.assert_close(head.tokens(summary), normal[2])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_order_of_the_moments_does_not_matter(pooling: Pooling) -> None:
    head, states, mel, order = trained(pooling), layers(2), picture(), torch.randperm(50)
    mixed = [state[:, order] for state in states]
    torch.testing.assert_close(head(head.summary(states, mel)), head(head.summary(mixed, mel)))
    assert not torch.equal(head.moments(states, mel), head.moments(mixed, mel))  # negative control


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_head_computes_in_float32_under_autocast(pooling: Pooling) -> None:
    head, states, mel = trained(pooling), layers(2), picture()
    expected = head(head.summary(states, mel))
    with torch.autocast("cpu", torch.bfloat16):
        assert (states[0] @ torch.ones(WIDTH, 1)).dtype == torch.bfloat16  # negative control: it is on
        summary = head.summary(states, mel)
        assert torch.equal(head(summary), expected) and head.moments(states, mel).dtype == torch.float32
    assert summary.dtype == torch.float32


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_untrained_head_gives_each_species_about_its_share(pooling: Pooling) -> None:
    torch.manual_seed(0)
    head = build_head(WIDTH, 2, 0, 100, HeadSettings(pooling)).train()
    shares = head(head.summary(layers(2, 8), picture(8))).sigmoid()
    assert shares.mean().item() == pytest.approx(0.01, rel=0.3)
    if pooling == "pooled":
        torch.testing.assert_close(shares, torch.full((8, 100), 0.01))


def test_of_many_layers_evenly_spaced_ones_are_received_the_last_among_them() -> None:
    assert received_layers(HeadSettings(layers=6), 6) == (1, 2, 3, 4, 5, 6)
    assert received_layers(HeadSettings(layers=6), 4) == (1, 2, 3, 4), "all that there are"
    assert received_layers(HeadSettings(layers=6), 12) == (2, 4, 6, 8, 10, 12)
    assert received_layers(HeadSettings(layers=6), 32) == (6, 11, 16, 22, 27, 32)
    assert received_layers(HeadSettings(layers=1), 32) == (32,)
    for wanted in range(1, 12):
        for depth in range(1, 33):
            told = received_layers(HeadSettings(layers=wanted), depth)
            assert len(set(told)) == min(wanted, depth) and told[-1] == depth and told == tuple(sorted(told))
    with pytest.raises(AssertionError, match=r"--head\.layers 0: give 1 or more"):
        HeadSettings(layers=0)


def trained(pooling: Pooling) -> Head:
    """A head whose weights say something."""
    torch.manual_seed(0)
    head = build_head(WIDTH, 2, 0, 5, HeadSettings(pooling)).eval()
    nn.init.normal_(head.score.weight)
    return head
