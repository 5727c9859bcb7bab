"""The answers to windows: gathered, packed and unpacked without a change, put in order."""

import numpy as np

from serving.scored_windows import ByChannel, Windows, contexts_of, packed, unpacked
from serving.scorer import Answer


def gathered(starts: list[float], embeddings: bool = True) -> Windows:
    """A window of 5 s at each start; what is answered to it is its start."""
    windows = Windows()
    for start in starts:
        answer = Answer(np.full((2, 3), start, np.float32), np.full((2, 4), -start, np.float32))
        windows.take([(start, start + 5)], [1], answer, embeddings)
    return windows


def test_windows_come_in_the_order_of_time_with_their_answers() -> None:
    scored = gathered([5.0, 0.0, 10.0]).scored(channel=2, species=3)
    assert (list(scored.starts), list(scored.ends), scored.channel) == ([0.0, 5.0, 10.0], [5.0, 10.0, 15.0], 2)
    assert scored.probabilities[:, 0].tolist() == [0.0, 5.0, 10.0] and scored.embeddings[:, 3].tolist() == [
        -0.0,
        -5,
        -10,
    ]


def test_what_is_in_order_is_not_copied_and_embeddings_are_kept_on_request_alone() -> None:
    scored = gathered([0.0, 5.0], embeddings=False).scored(channel=0, species=3)
    assert not scored.probabilities.flags.owndata and scored.embeddings.shape == (2, 0)


def test_a_recording_without_windows_has_no_rows() -> None:
    assert Windows().scored(channel=0, species=206).probabilities.shape == (0, 206)


def test_what_is_packed_is_unpacked_unchanged_as_far_as_it_was_asked_for() -> None:
    answered: ByChannel = {(0, False): gathered([0.0, 5.0, 10.0]), (0, True): gathered([2.5])}
    again, contexts = unpacked(packed(answered, 3, {(0, False): 2, (0, True): 1}))
    assert contexts == 3 and again[0, True] == answered[0, True]
    assert again[0, False] == gathered([0.0, 5.0]) != answered[0, False]


def test_of_nothing_nothing_is_unpacked() -> None:
    assert unpacked({}) == ({}, 0) and contexts_of(None) == 0


def test_how_unfamiliar_windows_are_goes_with_them_where_a_model_tells_it() -> None:
    windows = Windows()
    for start in (5.0, 0.0):
        answer = Answer(
            np.full((2, 3), start, np.float32), np.zeros((2, 0), np.float32), np.array([9, start / 10], "f")
        )
        windows.take([(start, start + 5)], [1], answer, embeddings=False)
    again, _ = unpacked(packed({(0, False): windows}, 2, {(0, False): 2}))
    assert again[0, False].scored(0, 3).unfamiliar.tolist() == [0.0, 0.5]
    assert gathered([5.0, 0.0]).scored(0, 3).unfamiliar.shape == (0,)


def test_what_an_earlier_version_packed_is_unpacked() -> None:
    arrays = packed({(0, False): gathered([0.0])}, 1, {(0, False): 1})
    del arrays["0 0 unfamiliar"]
    assert unpacked(arrays)[0] == {(0, False): gathered([0.0])}
