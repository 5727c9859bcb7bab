"""How often a recording is drawn: as its length and its species say, never beyond the cap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_segments import event, of_length

from archive.draws import counted_windows, expected_draws, pseudo_draws, with_neighbours
from archive.recordings import Recording
from config import AudioSettings

AUDIO = AudioSettings()


@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=200),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([1.0, 2.0, 4.0, 100.0]),
    st.integers(0, 1000),
)
def test_draws_add_up_and_never_pass_the_cap(labels: list[str], balance: float, most: float, seed: int) -> None:
    classes = [(label,) for label in labels]
    windows = np.random.default_rng(seed).uniform(1, 6, len(labels))
    of_length = expected_draws(classes, balance, most, windows)
    assert of_length.sum() == pytest.approx(windows.sum()) and (of_length / windows).max() <= most + 1e-6
    assert balance > 0 or np.allclose(of_length, windows)
    for label in set(labels):  # within a species by length alone
        rates = (of_length / windows)[[one == label for one in labels]]
        assert np.allclose(rates, rates[0])
    expected = expected_draws(classes, balance, most)
    assert expected.sum() == pytest.approx(len(labels)) and expected.max() <= most + 1e-6
    assert balance > 0 or np.allclose(expected, 1)
    for one, other in zip(labels, expected, strict=True):
        rarer = [e for label, e in zip(labels, expected, strict=True) if labels.count(label) < labels.count(one)]
        assert all(e >= other - 1e-9 for e in rarer)


def test_rare_species_are_drawn_more_often_by_the_square_root() -> None:
    labels = [("common",)] * 90 + [("rare",)] * 10
    expected = expected_draws(labels, 0.5, 100.0)
    assert expected[90:].sum() / expected[:90].sum() == pytest.approx((10 / 90) ** 0.5)
    capped = expected_draws(labels, 0.5, 1.5)
    assert capped[90:].tolist() == [1.5] * 10 and capped.sum() == pytest.approx(100)


def test_a_recording_counts_for_as_many_windows_as_it_is_long_and_never_for_more_than_the_cap() -> None:
    seconds = (0.2, 5.0, 7.5, 30.0, 3600.0)
    counts = [counted_windows(of_length(s), AUDIO, 6) for s in seconds]
    assert counts == [1.0, 1.0, 1.5, 6.0, 6.0]
    assert counted_windows(of_length(3600.0), AUDIO, 720) == 720.0
    assert counted_windows(of_length(40.0), replace(AUDIO, context_seconds=20.0), 6) == 2.0
    assert counted_windows(event(10.0, 22.5), AUDIO, 6) == 2.5 and counted_windows(event(10.0, 10.2), AUDIO, 6) == 1.0
    assert counted_windows(replace(of_length(3600.0), keep=((0.0, 5.0), (60.0, 65.0))), AUDIO, 6) == 2.0


def scored(site: str, **scores: float) -> Recording:
    """A window with a classifier's labels."""
    return replace(event(0, 5, *scores), site=site, scores=tuple(scores.values()))


def drawn(windows: list[Recording], real: dict[str, float], **changes: float) -> list[float]:
    """How often each is drawn beside 60 other draws, rounded."""
    usual = {"share": 0.4, "sites": 0.5, "most": 4.0, "mass": 1.0, "others": 60.0}
    return [round(float(count), 6) for count in pseudo_draws(windows, real, **(usual | changes))]


def test_what_a_longer_context_holds_besides_counts_as_drawn_with_a_window() -> None:
    first = scored("pond", frog=0.5)
    windows = [replace(first, start=5.0 * number, end=5.0 * number + 5) for number in range(4)]
    windows[3] = replace(windows[3], labels=("owl", "frog"), scores=(0.9, 0.8))
    windows.append(replace(windows[3], path=Path("other.wav")))
    assert with_neighbours(windows, 5.0) == windows, "windows beside each other share nothing"
    near = with_neighbours(windows, 10.0)
    assert [row.scores for row in near] == [(0.5,), (0.5,), (0.8, 0.9), (0.8, 0.9), (0.9, 0.8)]
    assert near[2].labels == ("frog", "owl") and near[2].start == 10 and near[4] == windows[4]
    assert drawn(near[2:4], {"frog": 60, "owl": 0.9}, others=1000) == [0.5, 0.5], "both hold the owl of one"


def test_pseudo_labels_of_a_species_never_weigh_more_than_what_people_labelled_of_it() -> None:
    windows = [scored("pond", frog=0.5)] * 10 + [scored("pond", owl=0.8)] * 10
    assert drawn(windows, {"frog": 30, "owl": 8}) == [2.0] * 10 + [1.0] * 10, "2 x 10 x .8 owls are twice 8"
    assert drawn(windows, {"frog": 30, "owl": 8}, mass=0.5) == [2.0] * 10 + [0.5] * 10
    assert drawn(windows, {"frog": 30, "owl": 8}, mass=0) == [2.0] * 20, "without the limit"
    assert drawn(windows, {"frog": 30}) == [2.0] * 10 + [0.0] * 10, "nobody has labelled an owl"


def test_a_species_whose_scores_are_all_nothing_holds_no_window_back() -> None:
    windows = [scored("pond", frog=0.9, owl=0.0)] * 10
    assert drawn(windows, {"frog": 36, "owl": 8}) == [4.0] * 10 and drawn(windows, {"frog": 18}) == [2.0] * 10


def test_a_window_of_several_species_goes_by_the_strictest_limit() -> None:
    windows = [scored("pond", frog=0.5, owl=0.8)] * 10 + [scored("pond", frog=0.5)] * 10
    found = drawn(windows, {"frog": 10, "owl": 4})
    assert found == [0.5] * 10 + [1.0] * 10, "16 owls for 4, 20 frogs for 10"


def test_large_sites_are_drawn_by_the_root_of_their_share() -> None:
    windows = [scored("pond", frog=0.1)] * 16 + [scored("ridge", frog=0.1)] * 4
    for sites, pond in ((0.0, 0.8), (0.5, 2 / 3), (1.0, 0.5)):
        found = drawn(windows, {"frog": 99}, sites=sites, others=30)
        assert sum(found) == pytest.approx(20) and sum(found[:16]) == pytest.approx(20 * pond)


def test_few_windows_are_drawn_no_more_often_than_any_other() -> None:
    assert drawn([scored("pond", frog=0.1)] * 3, {"frog": 99}) == [4.0] * 3
    assert drawn([scored("pond", frog=0.1)] * 3, {"frog": 99}, most=1.5) == [1.5] * 3
