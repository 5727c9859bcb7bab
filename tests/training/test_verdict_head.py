"""A head on stored embeddings: fitted, judged without leaks, and taught by the windows that it knows least about."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.verdict_head import (
    ALIKE,
    Judged,
    LinearHead,
    choose_next,
    fit_verdict_head,
    judge_labels,
    out_of_fold,
    probabilities,
)

NOTHING = np.zeros((0, 8), np.float32)


def calls(count: int, seed: int = 0, spread: float = 0.3) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Windows of two species and of neither, in turn."""
    rng = np.random.default_rng(seed)
    kinds = np.eye(8)[:3] * 3
    kind = np.arange(count) % 3
    features = (kinds[kind] + rng.normal(0, spread, (count, 8))).astype(np.float32)
    return features, kind[:, None] == np.arange(2)


def judged_windows(count: int = 30) -> Judged:
    features, present = calls(count)
    return Judged(features, present, np.ones_like(present), np.arange(count) // 3)


def test_a_head_knows_windows_that_it_has_not_seen() -> None:
    head = fit_verdict_head(judged_windows(), NOTHING)
    features, present = calls(300, seed=1)
    assert ((head.logits(features) > 0) == present).all()
    assert np.allclose(head.logits(features), features @ head.weights + head.bias)  # linear, as our head is


def test_yes_and_no_have_the_same_weight_however_many_there_are_of_each() -> None:
    features, present = calls(30)
    rows = np.concatenate([np.arange(30), *[np.flatnonzero(~present[:, 0])] * 20])  # twenty times the No
    one = fit_verdict_head(Judged(features, present[:, :1], np.ones((30, 1), np.bool_), np.arange(30)), NOTHING)
    more = fit_verdict_head(
        Judged(features[rows], present[rows, :1], np.ones((len(rows), 1), np.bool_), np.arange(len(rows))), NOTHING
    )
    midway = features[present[:, 0]].mean(axis=0) / 2 + features[~present[:, 0]].mean(axis=0) / 2
    assert abs(float(one.logits(midway)[0])) < 0.1 and abs(float(more.logits(midway)[0])) < 0.1


def test_windows_that_nobody_listened_to_count_as_no() -> None:
    judged, elsewhere = judged_windows(), np.zeros((50, 8), np.float32)
    elsewhere[:, 7] = 3
    with_them, without = fit_verdict_head(judged, elsewhere), fit_verdict_head(judged, NOTHING)
    assert (with_them.logits(elsewhere[:1]) < without.logits(elsewhere[:1])).all()


def test_what_is_unknown_of_a_label_teaches_it_nothing() -> None:
    judged = judged_windows()
    known = judged.known.copy()
    known[10:, 0] = False
    wrong = judged.present.copy()
    wrong[10:, 0] = np.logical_not(wrong[10:, 0])
    weights = [
        fit_verdict_head(judged._replace(known=known, present=some), NOTHING).weights[:, 0]
        for some in (judged.present, wrong)
    ]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], fit_verdict_head(judged._replace(present=wrong), NOTHING).weights[:, 0])


def test_a_recording_is_never_judged_by_a_head_that_was_fitted_to_it() -> None:
    """Labels by chance, the same for all windows of a recording, which are all alike: only a leak could know them."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    features = (rng.normal(size=(40, 64))[groups] + rng.normal(0, 0.01, (400, 64))).astype(np.float32)
    present = np.asarray(rng.permutation(np.arange(40)) % 2 == 0)[groups]
    judged = Judged(features, present[:, None], np.ones((400, 1), np.bool_), groups)
    honest = judge_labels(judged, np.zeros((0, 64), np.float32), ["a"])[0]
    leaky = judge_labels(judged._replace(groups=np.arange(400)), np.zeros((0, 64), np.float32), ["a"])[0]
    assert honest.auc < 0.75 and leaky.auc > 0.95  # the control: each window a group of its own
    assert honest.interval[0] < honest.precision < honest.interval[1]
    assert (honest.yes, honest.no) == (200, 200)


def test_windows_around_what_is_judged_are_left_out_of_the_background_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first value of each window says of which recording it is."""
    groups, around = np.repeat(np.arange(10), 4), np.repeat(np.arange(12), 3)
    features, background = (np.tile(some[:, None], 8).astype(np.float32) for some in (groups, around))
    seen: list[tuple[set[float], set[float]]] = []

    def fitted(given: NDArray[np.float32], _: object, elsewhere: NDArray[np.float32]) -> tuple[object, float]:
        seen.append((set(given[:, 0].tolist()), set(elsewhere[:, 0].tolist())))
        return np.zeros(8, np.float32), 0.0

    monkeypatch.setattr("training.verdict_head.fit_label", fitted)
    judged = Judged(features, np.arange(40)[:, None] % 2 == 0, np.ones((40, 1), np.bool_), groups)
    judge_labels(judged, background, ["a"], around=around)
    assert len(seen) == 5 and all(len(fit) == 8 and elsewhere == fit | {10, 11} for fit, elsewhere in seen)
    seen.clear()
    judge_labels(judged, background, ["a"])  # control: it is of no group
    assert all(elsewhere == set(range(12)) for _, elsewhere in seen)


def test_known_species_are_judged_as_known_and_get_a_threshold() -> None:
    found = judge_labels(judged_windows(60), NOTHING, ["frog", "toad"])
    assert [(one.label, one.yes, one.no) for one in found] == [("frog", 20, 40), ("toad", 20, 40)]
    assert all(one.precision == pytest.approx(1) and one.auc == 1 for one in found)
    scores = out_of_fold(*calls(60)[:1], calls(60)[1][:, 0], np.arange(60) // 3, NOTHING)
    reported = scores >= found[0].threshold.applied
    assert np.array_equal(reported, calls(60)[1][:, 0]) and found[0].threshold.precise is not None


def test_a_label_of_one_recording_alone_cannot_be_judged() -> None:
    features, present = calls(9)
    one = judge_labels(
        Judged(features, present[:, :1], np.ones((9, 1), np.bool_), np.zeros(9, np.int64)), NOTHING, ["a"]
    )[0]
    assert np.isnan(one.precision) and one.interval == (0.0, 1.0) and one.threshold.note == "never validated"


def test_a_label_without_a_no_is_refused() -> None:
    features, _ = calls(9)
    with pytest.raises(AssertionError, match="9 of 9 windows have the species"):
        fit_verdict_head(Judged(features, np.ones((9, 1), np.bool_), np.ones((9, 1), np.bool_), np.arange(9)), NOTHING)


def test_probabilities_do_not_overflow() -> None:
    assert probabilities(np.array([-1e9, 0, 1e9], np.float32)).tolist() == pytest.approx([0, 0.5, 1], abs=1e-9)


def test_the_least_certain_come_first_and_labels_and_sites_take_turns() -> None:
    logits = np.array([[5, 0.1], [5, 0.2], [5, 0.3], [0.4, 5], [9, 9], [0.05, 9]], np.float32)
    sites = np.array([0, 0, 1, 1, 1, 0])
    listened = np.array([False, False, False, False, False, True])
    chosen = choose_next(logits, np.eye(6, dtype=np.float32), sites, listened, most=4)
    assert chosen == [(0, 1), (2, 1), (3, 0), (1, 1)]  # (site, label) in turn; 5 was listened to
    assert [row for row, _ in choose_next(logits, np.eye(6, dtype=np.float32), sites, listened, most=99)] == [
        *(0, 2, 3, 1, 4)
    ]


def test_the_same_call_is_not_asked_twice_while_there_are_others() -> None:
    logits = np.linspace(0.1, 1, 6, dtype=np.float32)[:, None]
    vectors = np.eye(6, dtype=np.float32)
    vectors[1] = vectors[0]
    sites, none = np.zeros(6, np.int64), np.zeros(6, np.bool_)
    assert [row for row, _ in choose_next(logits, vectors, sites, none, most=4)] == [0, 2, 3, 4]
    assert [row for row, _ in choose_next(logits, np.eye(6, dtype=np.float32), sites, none, most=4)] == [0, 1, 2, 3]
    assert [row for row, _ in choose_next(logits, vectors, sites, none, most=6)] == [0, 2, 3, 4, 5, 1]
    assert float(vectors[0] @ vectors[1]) > ALIKE


def test_a_head_is_what_it_says() -> None:
    head = LinearHead(np.array([[2.0], [0.0]], np.float32), np.array([-1.0], np.float32))
    assert head.logits(np.array([[1.0, 9.0], [0.5, 9.0]], np.float32)).tolist() == [[1.0], [0.0]]
