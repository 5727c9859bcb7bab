"""Groups and folds, as properties of whatever table comes in."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.splits import draw_folds, join_groups

KEYS = st.lists(st.sets(st.sampled_from("abcdefghij"), min_size=1, max_size=3), min_size=1, max_size=30)
ROWS = st.lists(st.tuples(st.sampled_from("uvwxyz"), st.integers(0, 12).map(str)), min_size=1, max_size=60)


@given(KEYS)
def test_rows_that_share_a_key_share_a_group_and_no_others_do(keys: list[set[str]]) -> None:
    groups = join_groups(keys)
    reached: list[set[str]] = [set(row) for row in keys]
    for _ in keys:  # the plain definition: spread until nothing moves
        reached = [set[str]().union(*(other for other in reached if other & mine)) for mine in reached]
    for one, group in enumerate(groups):
        for other in range(one):
            assert (group == groups[other]) == bool(reached[one] & reached[other])
        assert group == min(reached[one])


@given(KEYS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_plays_no_part_in_groups(keys: list[set[str]], rng: random.Random) -> None:
    order = list(range(len(keys)))
    rng.shuffle(order)
    groups, shuffled = join_groups(keys), join_groups([keys[place] for place in order])
    assert [groups[place] for place in order] == shuffled


def test_a_chain_of_shared_keys_is_one_group() -> None:
    assert join_groups([{"c", "d"}, {"a", "b"}, {"b", "c"}, {"e"}]) == ["a", "a", "a", "e"]


def test_a_row_without_a_key_is_refused() -> None:
    with pytest.raises(AssertionError, match="a row without a key"):
        join_groups([{"a"}, set()])


def drawn(rows: list[tuple[str, str]], folds: int) -> list[int]:
    found: list[int] = draw_folds([label for label, _ in rows], [group for _, group in rows], folds).tolist()
    return found


@settings(deadline=None)
@given(ROWS, st.integers(2, 4))
def test_no_group_stands_in_two_folds(rows: list[tuple[str, str]], folds: int) -> None:
    found = drawn(rows, folds)
    places: dict[str, set[int]] = {}
    for (_, group), fold in zip(rows, found, strict=True):
        places.setdefault(group, set()).add(fold)
    assert all(len(mine) == 1 for mine in places.values())
    assert set(found) <= set(range(folds + 1)) and len(found) == len(rows)


@settings(deadline=None)
@given(ROWS, st.integers(2, 4), st.randoms(use_true_random=False))
def test_shuffled_rows_get_the_same_folds(rows: list[tuple[str, str]], folds: int, rng: random.Random) -> None:
    order = list(range(len(rows)))
    rng.shuffle(order)
    found, shuffled = drawn(rows, folds), drawn([rows[place] for place in order], folds)
    assert shuffled == [found[place] for place in order]


@settings(deadline=None)
@given(ROWS, st.integers(2, 4))
def test_a_label_of_one_group_always_trains(rows: list[tuple[str, str]], folds: int) -> None:
    found = drawn(rows, folds)
    for label in {label for label, _ in rows}:
        mine = {(group, fold) for (other, group), fold in zip(rows, found, strict=True) if other == label}
        assert len({group for group, _ in mine}) > 1 or {fold for _, fold in mine} == {folds}


def test_a_label_with_many_groups_is_in_every_fold() -> None:
    rows = [("owl", f"o{number // 2}") for number in range(40)] + [("frog", f"f{number}") for number in range(10)]
    found = drawn(rows, 5)
    for label in ("owl", "frog"):
        spread = Counter(fold for (other, _), fold in zip(rows, found, strict=True) if other == label)
        assert sorted(spread) == [0, 1, 2, 3, 4] and max(spread.values()) <= 2 * min(spread.values())


def test_where_groups_are_too_few_everything_trains() -> None:
    assert drawn([("a", "g"), ("a", "h"), ("b", "g"), ("b", "h")], 3) == [3, 3, 3, 3]
    assert sorted(drawn([("a", "g"), ("a", "h"), ("b", "g"), ("b", "h")], 2)) == [0, 0, 1, 1]
