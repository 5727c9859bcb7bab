"""Heads: one moment can decide, every head begins fair, and what is normalised does not leak between windows."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from config import HeadSettings, Pooling
from heads import AttentionHead, Head, LayerMix, MeanHead, PrototypeHead, Standard, mel_statistics

POOLINGS: tuple[Pooling, ...] = ("attention", "mean", "prototype")


def test_attention_can_rest_on_one_moment() -> None:
    head = AttentionHead(96, 1)
    tokens = torch.zeros(1, 250, 96)
    tokens[0, 17, 0] = 1.0
    for layer in (head.attention, head.score):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        head.attention.weight[0, 0] = 100.0
        head.score.weight[0, 0] = 1.0
    assert head(tokens).item() > 0.98
    squashed = torch.tensor([1.0] + [0.0] * 249).tanh().softmax(dim=0)[0]  # negative control: what tanh would allow
    assert squashed < 0.01


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_untrained_head_gives_each_species_about_its_share(pooling: Pooling) -> None:
    torch.manual_seed(0)
    head = Head(96, 80, 100, HeadSettings(pooling, statistics=True))
    head.train()
    shares = head(torch.randn(8, 250, 96), torch.randn(8, 80, 500)).sigmoid()
    assert 0.003 < shares.mean() < 0.03  # 1 in 100


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_order_of_the_moments_does_not_matter(pooling: Pooling) -> None:
    head = Head(96, 80, 5, HeadSettings(pooling)).eval()
    tokens, mel, order = torch.randn(2, 250, 96), torch.randn(2, 80, 500), torch.randperm(250)
    torch.testing.assert_close(head(tokens, mel), head(tokens[:, order], mel))


def test_the_mean_of_the_moments_is_the_window_for_the_mean_head_only() -> None:
    tokens = torch.randn(2, 250, 96)
    mean, attention = MeanHead(96, 5), AttentionHead(96, 5)
    torch.testing.assert_close(mean.moments(tokens).mean(dim=1), mean(tokens), atol=1e-5, rtol=0)
    assert not torch.allclose(attention.moments(tokens).mean(dim=1), attention(tokens), atol=1e-3)


def test_attention_is_a_mean_of_moments_that_lies_between_the_least_and_the_greatest() -> None:
    tokens = 3 * torch.randn(4, 250, 96)
    head = AttentionHead(96, 5)
    moments = head.moments(tokens)
    assert (head(tokens) <= moments.amax(dim=1) + 1e-5).all() and (head(tokens) >= moments.amin(dim=1) - 1e-5).all()


def test_a_prototype_hears_the_nearest_moment_alone() -> None:
    torch.manual_seed(0)
    head = PrototypeHead(96, 2, 3).eval()
    tokens = torch.randn(1, 250, 96).requires_grad_()
    torch.autograd.backward(head(tokens)[0, 0])
    assert tokens.grad is not None
    touched = (tokens.grad[0].abs().sum(dim=1) > 0).sum()
    assert 1 <= touched <= 3  # one for each of its prototypes at most
    with torch.no_grad():
        tokens[0, 5] = head.prototypes[1, 2]  # tokens like it in every dimension, the statistics being 0 and 1
    likeness = head.likeness(tokens).detach()
    assert likeness[0, 5, 1, 2].item() == pytest.approx(1.0, abs=1e-4) and likeness.abs().max() <= 1 + 1e-5


def test_heads_compute_in_float32_under_autocast() -> None:
    tokens, mel = torch.randn(1, 250, 96), torch.randn(1, 80, 500)
    for pooling in POOLINGS:
        head = Head(96, 80, 5, HeadSettings(pooling, statistics=True)).eval()
        with torch.autocast("cpu", torch.bfloat16):
            assert head(tokens, mel).dtype == torch.float32, pooling


def test_the_mixture_normalises_each_layer() -> None:
    states = torch.randn(3, 2, 10, 16) * torch.tensor([1.0, 100.0, 0.01])[:, None, None, None]
    mix = LayerMix(3)
    normal = [F.layer_norm(state, (16,)) for state in states]
    torch.testing.assert_close(mix(states), (normal[0] + normal[1] + normal[2]) / 3)
    assert not torch.allclose(states.mean(dim=0), mix(states), atol=0.1)  # negative control: the loudest would win
    with torch.no_grad():
        mix.weight.copy_(torch.tensor([0.0, 0.0, 50.0]))
    torch.testing.assert_close(mix(states), normal[2])


def test_values_are_standardised_by_all_batches_and_a_batch_of_one_is_as_good_as_any() -> None:
    torch.manual_seed(0)
    values = torch.randn(64, 3) * torch.tensor([1.0, 10.0, 0.1]) + torch.tensor([0.0, 5.0, -2.0])
    whole, single = Standard(3).train(), Standard(3).train()
    whole(values)
    for row in values:
        single(row[None])
    torch.testing.assert_close(single.eval()(values), whole.eval()(values), atol=1e-3, rtol=0)
    assert single(values).std(dim=0, unbiased=False).tolist() == pytest.approx([1.0] * 3, abs=1e-3)
    assert torch.equal(single(values), single(values))  # judging moves nothing


def test_statistics_are_those_of_each_mel_bin() -> None:
    mel = torch.arange(500.0).repeat(1, 80, 1)
    expected = torch.tensor([249.5, math.sqrt((500**2 - 1) / 12), 499.0, 50.0])
    torch.testing.assert_close(mel_statistics(mel).reshape(4, 80)[:, 0], expected)


def test_statistics_alone_can_tell_two_pictures_apart_and_at_first_say_nothing() -> None:
    torch.manual_seed(0)
    head = Head(96, 80, 2, HeadSettings(dropout=0.0, statistics=True)).train()
    tokens = torch.zeros(8, 250, 96)  # an encoder that hears nothing
    mel = torch.randn(8, 80, 500)
    mel[4:, 30] += 3.0
    assert torch.equal(head(tokens, mel)[0], head(tokens, mel)[7])
    target = torch.eye(2).repeat_interleave(4, dim=0)
    optimizer = torch.optim.SGD(head.parameters(), 0.1)
    for _ in range(20):
        optimizer.zero_grad()
        torch.autograd.backward(F.binary_cross_entropy_with_logits(head(tokens, mel), target))
        optimizer.step()
    assert head(tokens, mel).argmax(dim=1).tolist() == [0] * 4 + [1] * 4
