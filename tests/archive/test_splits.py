"""Groups and folds, as properties of whatever table comes in."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.recordings import Recording
from archive.splits import draw_folds, join_groups, with_folds, with_groups
from config import DataSettings

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


@pytest.mark.parametrize("fold", [4, 5, 0])
def test_one_fold_for_all_is_no_fold(fold: int, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Recording(Path(f"{n}.ogg"), f"{n}.ogg", (f"s{n % 3}",), group=f"g{n}", fold=fold) for n in range(30)]
    config = DataSettings(Path())
    found = with_folds(rows, config)
    assert found == with_folds([replace(row, fold=-1) for row in rows], config)
    assert {row.fold for row in found} == set(range(5))
    assert f"all 30 labelled recordings are in fold {fold}" in capsys.readouterr().out
    assert with_folds([replace(row, fold=n % 2) for n, row in enumerate(rows)], config)[3].fold == 1


def row_of(name: str, label: str = "owl", **facts: Any) -> Recording:
    return Recording(Path("/archive") / name, name, (label,), seconds=9.0, **facts)


def test_a_person_s_day_is_a_group_and_without_days_the_person_is() -> None:
    rows = [
        row_of("a", author="Ada", recorded_at="2026-05-01T04:00:00"),
        row_of("b", author="Ada", recorded_at="2026-05-01"),
        row_of("c", author="Ada", recorded_at="2026-05-02"),
        row_of("d", author="Ben"),
        row_of("e", author="Ben"),
        row_of("f", recording_id="XC7"),
        row_of("g", recording_id="XC7", author="Cleo", recorded_at="2026-01-01"),
    ]
    groups = [row.group for row in with_groups(rows, [], 5)]
    assert groups[0] == groups[1] == "by Ada 2026-05-01" != groups[2]
    assert groups[3] == groups[4] == "by Ben" and groups[5] == groups[6]
    assert len(set(groups)) == 4


def test_unsigned_recordings_go_by_site_and_where_sites_are_few_by_day() -> None:
    many = [
        row_of(f"s{n}/{k}.wav", site=f"s{n}", recorded_at=f"2026-05-0{k}T04:00:00") for n in range(8) for k in (1, 2)
    ]
    assert len({row.group for row in with_groups(many, [], 4)}) == 8
    assert len({row.group for row in with_groups(many[:4], [], 4)}) == 4


def test_the_same_sound_in_two_files_is_one_group() -> None:
    rows = [row_of("a", author="Ada"), row_of("b", author="Ben"), row_of("c", author="Cleo"), row_of("d", group="mine")]
    groups = [row.group for row in with_groups(rows, [(rows[0].path, rows[2].path), (rows[1].path, rows[3].path)], 5)]
    assert groups[0] == groups[2] != groups[1] and groups[1] == groups[3]


@given(
    st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdef"), st.integers(1, 9)), min_size=8, max_size=60)
)
def test_whatever_the_table_no_group_straddles_and_nothing_is_lost(table: list[tuple[str, str, int]]) -> None:
    rows = [
        row_of(f"{n}", label=label, author=author, recorded_at=f"2026-05-0{day}")
        for n, (label, author, day) in enumerate(table)
    ]
    data = DataSettings(Path(), folds=2)
    found = with_folds(with_groups(rows, [(rows[0].path, rows[-1].path)], 2), data)
    assert [row.name for row in found] == [row.name for row in rows] and found[0].group == found[-1].group
    for side in (0, 1, 2):
        inside = {row.group for row in found if row.fold == side}
        assert not inside & {row.group for row in found if row.fold != side}
