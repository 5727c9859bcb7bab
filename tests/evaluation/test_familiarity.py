"""How unlike training a window is: exact angles in two dimensions, a scale of held-out windows, and what counts."""

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.familiarity import FEWEST, distances, fit_familiarity, unfamiliar

ROUND = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float64)  # how the windows of a species lie about their mean
PLACES = np.array([[6, 0], [-6, 0]], np.float64)
SPECIES = np.repeat([0, 1], 4)


def at(*degrees: float) -> NDArray[np.float64]:
    """Vectors in some directions from the mean of all."""
    turned = np.radians(np.array(degrees))
    return 3 * np.stack([np.cos(turned), np.sin(turned)], axis=1)


def test_the_distance_is_one_less_the_cosine_to_the_nearest_species() -> None:
    fitted = fit_familiarity(np.concatenate([PLACES[0] + ROUND, PLACES[1] + ROUND]), SPECIES, at(*range(90)))
    found = distances(fitted, at(0, 60, 90, 120, 180))
    np.testing.assert_allclose(found, [0, 0.5, 1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(distances(fitted, 9 * at(60)), found[1:2], atol=1e-6)  # loudness does not count


def test_it_is_reported_as_the_share_of_held_out_windows_that_lie_nearer() -> None:
    held_out = at(*np.linspace(0, 80, 101))
    fitted = fit_familiarity(np.concatenate([PLACES[0] + ROUND, PLACES[1] + ROUND]), SPECIES, held_out)
    np.testing.assert_allclose(unfamiliar(fitted, held_out), np.linspace(0, 1, 101), atol=1e-3)
    assert unfamiliar(fitted, at(90)).tolist() == [1.0] and unfamiliar(fitted, at(0, 180)).max() < 1e-3


def test_what_differs_within_a_species_hardly_counts() -> None:
    flat = np.array([1, 20]) * ROUND  # the windows of each species differ twenty times as much in the second value
    fitted = fit_familiarity(np.concatenate([PLACES[0] + flat, PLACES[1] + flat]), SPECIES, at(*range(90)))
    plain = fit_familiarity(np.concatenate([PLACES[0] + ROUND, PLACES[1] + ROUND]), SPECIES, at(*range(90)))
    assert distances(fitted, at(45))[0] < 0.03 < 0.29 < distances(plain, at(45))[0], (
        "the negative control: alike in all"
    )


def test_an_unknown_species_is_less_familiar_than_known_ones_and_noise_of_the_known_is_not() -> None:
    rng = np.random.default_rng(0)
    where = 3 * rng.normal(size=(5, 16))
    some = [place + rng.normal(size=(80, 16)) for place in where]
    fitted = fit_familiarity(np.concatenate([one[:40] for one in some[:4]]), np.repeat(range(4), 40), some[0][40:])
    assert unfamiliar(fitted, some[4]).mean() > 0.9 > 0.7 > unfamiliar(fitted, some[3][40:]).mean()


def test_species_may_have_any_numbers_and_too_little_of_either_is_refused() -> None:
    vectors = np.concatenate([PLACES[0] + ROUND, PLACES[1] + ROUND])
    one, other = (fit_familiarity(vectors, numbers, at(*range(90))) for numbers in (SPECIES, np.repeat([205, 7], 4)))
    np.testing.assert_allclose(unfamiliar(one, at(10, 50, 170)), unfamiliar(other, at(10, 50, 170)))
    with pytest.raises(AssertionError, match="1 species"):
        fit_familiarity(vectors, np.zeros(8, np.int64), at(*range(90)))
    with pytest.raises(AssertionError, match=f"{FEWEST} are the fewest"):
        fit_familiarity(vectors, SPECIES, at(*range(FEWEST - 1)))


def test_windows_that_are_all_alike_give_no_nan() -> None:
    fitted = fit_familiarity(np.repeat(PLACES, 4, axis=0), SPECIES, np.repeat(PLACES[:1], FEWEST, axis=0))
    found = unfamiliar(fitted, np.concatenate([PLACES, fitted.mean[None]]))
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1
