"""Blends: what they are of, which weights are kept, and that they are judged on recordings they were not fitted on."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit

from config import BlendOf
from evaluation.blending import (
    LEVELS,
    Blend,
    Worth,
    beyond_rounding,
    blended,
    equal_blend,
    fit_blend,
    levels_of,
    ranks,
)
from evaluation.calibration import mean_as_logits


def members_of(spreads: tuple[float, ...], recordings: int = 240) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(members, windows, 3) probabilities and (recordings, 3) truth; a window each, the members the vaguer the larger
    their spread."""
    rng = np.random.default_rng(0)
    truth = (rng.random((recordings, 3)) < 0.3).astype(np.float32)
    logits = [4 * truth - 2 + rng.normal(0, spread, truth.shape) for spread in spreads]
    return expit(np.stack(logits)).astype(np.float32), truth


def fit(of: BlendOf, spreads: tuple[float, ...], fitted: bool = True, groups: int = 240) -> tuple[Blend, Worth]:
    members, truth = members_of(spreads)
    names = (np.arange(240) % groups).astype(np.str_)
    return fit_blend(of, members, np.arange(240), truth, names, truth >= 0, fitted)


def test_a_blend_of_logits_is_the_sigmoid_of_their_weighted_mean() -> None:
    members = np.array([[[0.9, 0.2]], [[0.5, 0.2]]], np.float32)
    expected = expit(0.75 * logit(np.array([0.9, 0.2])) + 0.25 * logit(np.array([0.5, 0.2])))
    assert np.allclose(blended(Blend("logits", (0.75, 0.25)), members), expected, atol=1e-6)


def test_a_blend_of_probabilities_is_their_weighted_mean() -> None:
    members = np.array([[[0.9, 0.2]], [[0.5, 0.2]]], np.float32)
    assert np.allclose(blended(Blend("probabilities", (0.75, 0.25)), members), [[0.8, 0.2]], atol=1e-6)


def test_scale_and_bias_act_on_the_blended_logit() -> None:
    members = np.full((2, 1, 1), 0.8, np.float32)
    assert np.isclose(
        blended(Blend("logits", (0.5, 0.5), 2.0, -1.0), members)[0, 0], expit(2 * logit(np.array(0.8)) - 1)
    )


def test_certain_answers_stay_finite() -> None:
    members = np.array([[[0.0, 1.0]], [[1.0, 1.0]]], np.float32)
    for of in ("logits", "probabilities"):
        answers = blended(equal_blend(of, 2), members)
        assert np.allclose(answers[0], [0.5, 1.0], atol=1e-5)


def test_a_rank_is_the_share_of_windows_that_score_lower() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 1000, 1))
    found = ranks(logits, levels_of(logits))[0, :, 0]
    expected = logits[0, :, 0].argsort().argsort() / 999
    assert np.abs(found - expected).max() < 1 / (LEVELS - 1)


def test_ranks_do_not_mind_how_sure_a_member_is() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 500, 2))
    assert np.allclose(ranks(logits, levels_of(logits)), ranks(3 * logits - 1, levels_of(3 * logits - 1)), atol=1e-4)


def test_equal_scores_have_levels_that_rise_all_the_same() -> None:
    assert (np.diff(levels_of(np.zeros((1, 50, 2))), axis=1) > 0).all()


@pytest.mark.parametrize("of", ["logits", "probabilities", "ranks"])
def test_the_member_that_knows_more_gets_more_weight_and_that_helps(of: BlendOf) -> None:
    blend, worth = fit(of, (1.0, 6.0))
    assert blend.weights[0] > 0.7 and np.isclose(sum(blend.weights), 1)
    assert worth.fitted > worth.equal and worth.members[0] > worth.members[1]


def test_weights_stay_equal_where_members_are_alike_or_nobody_asked_or_nobody_can_say() -> None:
    half = (0.5, 0.5)
    assert fit("logits", (1.0, 6.0), fitted=False)[0].weights == half
    assert fit("logits", (1.0, 6.0), groups=1)[0].weights == half  # nothing to judge them by
    assert fit("logits", (1.0, 6.0), groups=240)[0].weights != half  # control


def test_two_that_err_apart_are_better_together() -> None:
    worth = fit("logits", (3.0, 3.0))[1]
    assert worth.equal > max(worth.members) + 0.02


def test_ranks_come_out_as_probabilities() -> None:
    members, truth = members_of((2.0, 2.0))
    blend = fit("ranks", (2.0, 2.0))[0]
    answers = blended(blend, members)
    assert blend.scale != 1 and abs(float(answers.mean()) - float(truth.mean())) < 0.03
    assert (
        abs(float(blended(Blend("ranks", blend.weights, levels=blend.levels), members).mean()) - 0.5) < 0.05
    )  # control


@pytest.mark.parametrize(("scale", "sure"), [(1.0, 10.5), (1.0, 13.5), (3.0, 9.0), (20.0, 7.0)])
def test_a_file_that_blends_the_logits_of_certain_members_is_right_though_probabilities_do_not_tell_them(
    scale: float, sure: float
) -> None:
    z = np.stack([np.linspace(sure, sure + 0.5, 200), -np.linspace(sure - 0.4, sure + 0.7, 200)])[..., None]
    members, blend = expit(z).astype(np.float32), Blend("logits", (0.5, 0.5), scale)
    answers = expit(scale * z.mean(axis=0)).astype(np.float32)
    assert np.abs(answers - blended(blend, members)).max() > 1e-4  # control: plainly compared it would be refused
    assert beyond_rounding(answers, blend, members) < 1e-6
    assert beyond_rounding(answers, Blend("logits", (0.7, 0.3), scale), members) > 1e-3  # another blend is another


@pytest.mark.parametrize("of", ["logits", "probabilities", "ranks"])
def test_of_members_that_are_not_certain_no_difference_is_put_down_to_rounding(of: BlendOf) -> None:
    members = members_of((2.0, 2.0))[0].clip(0.01, 0.99)
    blend = Blend(
        of,
        (0.5, 0.5),
        levels=levels_of(logit(members.astype(np.float64))) if of == "ranks" else np.zeros((0, 0, 0), np.float32),
    )
    right = blended(blend, members)
    assert beyond_rounding(right, blend, members) == 0
    for step in (1e-4, -1e-4):
        assert 0.9e-4 < beyond_rounding(right + np.float32(step), blend, members) <= 1.01e-4


def test_ranks_of_members_that_know_nothing_are_refused_with_a_way_out() -> None:
    members, truth = members_of((0.1, 0.1))
    with pytest.raises(AssertionError, match=r"give --blend\.of logits, or leave"):
        names = np.arange(240).astype(np.str_)
        fit_blend("ranks", 1 - members, np.arange(240), truth, names, truth >= 0, fitted=False)


def test_the_mean_as_logits_is_that_of_one_file_that_blends_and_ends_before_0_and_1() -> None:
    probabilities = np.random.default_rng(0).random((3, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(
        mean_as_logits(probabilities), blended(equal_blend("logits", 3), probabilities), atol=1e-6
    )
    assert mean_as_logits(np.array([[0.0], [1.0]])) == pytest.approx(0.5)
    assert mean_as_logits(np.array([[0.9], [1e-9]])) < 0.01 < np.mean([0.9, 1e-9])  # control: the mean of probabilities
