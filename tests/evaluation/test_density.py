"""Draws of the truth: verdicts move them, parts add up, and the intervals hold the truth of made-up seasons."""

import math

import numpy as np
import pytest

from bench.counts import KINDS, coverage, even_shares, made_up
from evaluation.density import (
    Strata,
    beta_binomial,
    draw_truths,
    interval,
    log_gamma,
    log_odds,
    sigmoid,
    site_surprise,
    stratum_shares,
)

MIDDLES = log_odds(np.array([0.15, 0.55, 0.95]))


def one_cell(yes: list[int], no: list[int], windows: tuple[int, ...] = (1000, 500, 200)) -> Strata:
    table = [np.array([each], np.int64) for each in (windows, yes, no)]
    return Strata(table[0], table[1], table[2], np.array([0]), MIDDLES)


def test_the_gamma_function_is_that_of_the_library() -> None:
    points = np.array([1e-7, 0.3, 1.0, 7.9, 8.0, 1234.5])
    assert log_gamma(points) == pytest.approx([math.lgamma(point) for point in points], abs=1e-8)


def test_a_beta_binomial_of_one_verdict_is_its_share() -> None:
    yes, no = np.array([1, 0]), np.array([0, 1])
    fit = beta_binomial(yes, no, np.array([0.3, 0.3]), np.array(20.0))
    assert np.exp(fit) == pytest.approx([0.3, 0.7], abs=1e-6)


def test_where_all_was_listened_to_the_truth_is_known() -> None:
    strata = one_cell([3, 5, 9], [7, 5, 1], (10, 10, 10))
    assert (draw_truths(strata, np.random.default_rng(0), 50) == 17).all()
    some = one_cell([3, 5, 9], [7, 5, 1])  # control: of thousands of windows it is not
    assert np.unique(draw_truths(some, np.random.default_rng(0), 50)).size > 10


def test_more_verdicts_make_the_interval_narrower_and_verdicts_move_it() -> None:
    generator = np.random.default_rng(0)
    few, many = one_cell([1, 5, 9], [9, 5, 1]), one_cell([10, 50, 90], [90, 50, 10])
    widths = []
    for strata in (few, many):
        low, high = interval(draw_truths(strata, generator, 400)[:, 0] / 1700)
        assert low < (0.1 * 1000 + 0.5 * 500 + 0.9 * 200) / 1700 < high
        widths.append(float(high - low))
    assert widths[1] < widths[0] / 2
    wrong = draw_truths(one_cell([0, 0, 1], [100, 100, 99]), generator, 400)[:, 0]
    assert np.quantile(wrong, 0.975) < 0.1 * 1700, "an unsure classifier that is always wrong is not believed"


def test_a_stratum_with_many_verdicts_has_its_own_share_whatever_the_curve_says() -> None:
    odd = one_cell([450, 60, 60], [150, 540, 540], (3000, 3000, 3000))  # the lower the score the surer
    shares = stratum_shares(odd, np.random.default_rng(0), 400).mean(axis=0)
    assert shares == pytest.approx([0.75, 0.1, 0.1], abs=0.05)


def test_where_the_species_is_common_more_of_the_same_scores_are_right() -> None:
    """The prior shift, with verdicts at neither of the two sites that are compared."""
    windows = np.array([[500, 100, 300], [500, 20, 5], [600, 100, 200]], np.int64)
    yes, no = np.zeros_like(windows), np.zeros_like(windows)
    yes[2], no[2] = [3, 15, 29], [27, 15, 1]
    truths = draw_truths(Strata(windows, yes, no, np.arange(3), MIDDLES), np.random.default_rng(0), 400)
    rich, poor = truths[:, 0] / 900, truths[:, 1] / 525
    assert np.median(rich) > 3 * np.median(poor)
    alike = windows.copy()
    alike[:2] = windows[2]  # control: sites with the same scores are the same
    truths = draw_truths(Strata(alike, yes, no, np.arange(3), MIDDLES), np.random.default_rng(0), 400)
    assert np.median(truths[:, 0]) == pytest.approx(np.median(truths[:, 1]), rel=0.1)


def test_verdicts_at_a_site_move_that_site() -> None:
    windows = np.tile(np.array([300, 200, 200]), (2, 1))
    yes, no = np.zeros_like(windows), np.zeros_like(windows)
    yes[0], no[1] = [10, 30, 40], [40, 40, 40]
    truths = draw_truths(Strata(windows, yes, no, np.arange(2), MIDDLES), np.random.default_rng(0), 200)
    assert np.quantile(truths[:, 0], 0.025) > np.quantile(truths[:, 1], 0.975)


def test_the_parts_of_a_season_add_up_to_what_the_strata_say() -> None:
    season = made_up(KINDS[0], np.random.default_rng(3))
    strata = season.strata
    truths = draw_truths(strata, np.random.default_rng(0), 400)
    left = (strata.windows - strata.yes - strata.no).sum(axis=0)
    plain = stratum_shares(strata, np.random.default_rng(0), 400) @ left + strata.yes.sum()
    assert truths.sum(axis=1).mean() == pytest.approx(plain.mean(), rel=0.03)
    assert truths.shape == (400, len(strata.site)) and (truths <= strata.windows.sum(axis=1)).all()


def test_sites_that_differ_in_more_than_how_common_the_species_is_are_a_surprise() -> None:
    windows = np.tile(np.array([300, 200, 200]), (2, 1))
    yes, no = (np.tile(np.array(each), (2, 1)) for each in ([5, 20, 38], [35, 20, 2]))
    alike = Strata(windows, yes, no, np.arange(2), MIDDLES)
    assert site_surprise(alike, np.random.default_rng(0), 200) > 0.05
    apart = Strata(
        windows, np.array([[10, 38, 39], [0, 2, 20]]), np.array([[30, 2, 1], [40, 38, 20]]), np.arange(2), MIDDLES
    )
    assert site_surprise(apart, np.random.default_rng(0), 200) < 0.01


def test_the_same_seed_draws_the_same() -> None:
    strata = made_up(KINDS[1], np.random.default_rng(1)).strata
    first, again, other = (draw_truths(strata, np.random.default_rng(seed), 20) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_more_verdicts_than_windows_are_refused() -> None:
    with pytest.raises(AssertionError, match="more verdicts than windows"):
        one_cell([1001, 0, 0], [0, 0, 0])


def test_strata_take_turns_until_they_are_empty() -> None:
    assert even_shares(np.array([10, 1, 10]), 7).tolist() == [3, 1, 3]
    assert even_shares(np.array([1, 1]), 7).tolist() == [1, 1]


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[3]], ids=lambda kind: kind.name)
def test_intervals_hold_the_truth_of_made_up_seasons(kind: object) -> None:
    """Twelve seasons bound it from below alone; make bench-counts has a thousand: 11 of 12 or fewer is chance in half
    of all runs, 9 or fewer in one of 500 where 95 % is true."""
    found = coverage(next(each for each in KINDS if each == kind), 12)
    assert (found >= 0.8).all()


def test_intervals_that_ignore_the_errors_of_the_classifier_do_not_hold_it() -> None:
    """The control: all detections taken for right."""
    held = 0
    for seed in range(12):
        season = made_up(KINDS[0], np.random.default_rng([0, seed]))
        held += int(season.strata.windows.sum() == season.truth.sum())
    assert held == 0
    assert sigmoid(log_odds(np.array([0.25]))) == pytest.approx([0.25])
