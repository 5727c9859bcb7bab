"""The verdict on stage 1 says what the scores say: better or worse where they are, nothing of arms that are alike."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.verdict import SCRATCH_WEIGHTS, WHISPER, Arm, Found, Judged, Question, layer_statistics, line
from config import SIZES, PretrainCommand, parse
from model import Encoder

ROWS, SPECIES = 120, 6


def judged() -> Judged:
    """Each species in turn; groups and sites of five rows."""
    truth = np.eye(SPECIES, dtype=np.float32)[np.arange(ROWS) % SPECIES]
    groups = np.array([str(row // 5) for row in range(ROWS)])
    return Judged(truth, groups, truth, groups)


def scored(signal: float, seed: int = 0) -> dict[int, Found]:
    """Scores that say so much of the truth beside noise, of two seeds; half of the recordings are held out."""
    found: dict[int, Found] = {}
    for number in (0, 1):
        rng = np.random.default_rng([seed, number])
        tables = [(signal * judged().recordings + rng.normal(size=(ROWS, SPECIES))).astype(np.float32) for _ in "12"]
        tables[0][::2] = np.nan
        found[number] = Found(*tables)
    return found


@pytest.mark.parametrize(("signal", "said"), [(2.0, ""), (4.0, "**better**"), (0.5, "**worse**")])
def test_an_arm_is_called_better_or_worse_where_its_interval_leaves_out_zero(signal: float, said: str) -> None:
    text = line(Arm("another", None), "frozen", scored(signal, seed=1), scored(2.0), judged(), Path())
    assert text.count("better") == 2 * said.count("better") and text.count("worse") == 2 * said.count("worse")
    assert text.startswith("| another | frozen | 2 |  | ")


def test_the_first_arm_is_compared_with_nothing() -> None:
    first = scored(2.0)
    text = line(Arm("as it is", None), "probe", first, first, judged(), Path())
    assert "[" not in text and text.count("|") == 9


@pytest.mark.parametrize("question", [WHISPER, SCRATCH_WEIGHTS], ids=lambda question: question.size)
def test_the_arms_differ_in_what_they_are_named_after_alone(question: Question) -> None:
    flags = [(*question.stage_one, *arm.stage_one) for arm in question.arms if arm.stage_one is not None]
    parsed = [parse(PretrainCommand, ["--preset", question.size, *question.start, *words]) for words in flags]
    assert len({repr(one) for one in parsed}) == len(parsed) == len(question.arms) - 1
    assert len({(one.train.encoder_rate, one.train.batch_size, one.data.most_windows) for one in parsed}) == 1
    named = {arm.name: one for arm, one in zip(question.arms[1:], parsed, strict=True)}
    assert all(
        one.mask.shuffle == ("shuffled" in name) and name.startswith(one.mask.strategy) for name, one in named.items()
    )
    assert all(one.pulled == ("pulled" in name) for name, one in named.items())


def test_a_layers_statistics_are_mean_deviation_and_maximum_of_its_normalised_tokens() -> None:
    torch.manual_seed(0)
    encoder = Encoder(SIZES["demo"])
    sound = np.random.default_rng(0).normal(0, 0.1, (2, 80_000)).astype(np.float32)
    owners, found = layer_statistics(encoder, iter([(4, sound[0]), (7, sound[1])]))
    assert owners.tolist() == [4, 7] and found.shape == (2, 3, 3 * 96)
    mean, spread, highest = np.split(found, 3, axis=2)
    np.testing.assert_allclose(mean.mean(axis=2), 0, atol=1e-5)  # as every token's is
    assert (highest > mean).all() and (spread >= 0).all() and not np.allclose(found[0], found[1])
