"""Which recordings belong together, and which part of them is held out.

    groups = join_groups([{"by Ada 2024-05-01"}, {"by Ada 2024-05-01", "XC7"}, {"XC7"}])     # all three are one
    folds = draw_folds(labels, groups, folds=5)

What stands on both sides of the split makes every score too good: the same afternoon, the same bird, the same file
under two names. So groups come first, folds second, and a group is never divided.
"""

from __future__ import annotations

import warnings
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archive.recordings import Recording
from config import CollectionSettings
from runtime.terminal import show


def join_groups(keys: Sequence[Collection[str]]) -> list[str]:
    """The group of each row: rows that share a key, directly or by way of others, are one group.

    keys      per row what it must not be parted from; at least one, its own name for instance
    returns   per row the smallest key of its group, so the order of the rows plays no part
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for row in keys:
        roots = sorted({root(key) for key in row})
        assert roots, "a row without a key; give it its own name at least"
        for other in roots[1:]:
            parent[other] = roots[0]
    return [root(next(iter(row))) for row in keys]


def draw_folds(labels: Sequence[str], groups: Sequence[str], folds: int) -> NDArray[np.int64]:
    """A fold for each row such that groups stay whole and every label is spread as evenly as they allow.

    returns   (rows,) 0 to folds - 1; and `folds` for the groups that alone have a label: to hold one out would take
              the label from training, so they always train. Where there are too few groups to divide, all do
    source    https://scikit-learn.org/stable/modules/generated/sklearn.model_selection.StratifiedGroupKFold.html
    """
    assert folds >= 2, f"--data.folds {folds}: give 2 or more, one of them is held out"
    groups_of: dict[str, set[str]] = {}
    for label, group in zip(labels, groups, strict=True):
        groups_of.setdefault(label, set()).add(group)
    indispensable = {next(iter(owners)) for owners in groups_of.values() if len(owners) == 1}
    free = [row for row, group in enumerate(groups) if group not in indispensable]
    free_labels = [labels[row] for row in free]
    most = max(Counter(free_labels).values(), default=0)
    count = len({groups[row] for row in free})
    drawn = np.full(len(labels), folds, np.int64)
    if count < folds or most < folds:
        return drawn
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import, and stage 1 does without

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a rare label is not in every fold is said by name elsewhere
        for number, (_, held_out) in enumerate(splitter.split(free_labels, free_labels, [groups[row] for row in free])):
            drawn[np.array(free)[held_out]] = number
    return drawn


def with_groups(rows: Sequence[Recording], pairs: Sequence[tuple[Path, Path]], folds: int) -> list[Recording]:
    """What must stay on one side: one file, one sound, one recording of a collection, one person's day.

    A group that the table gives is taken as it is. Of a person without dates all recordings are one group. Recordings
    that nobody signed go by their site, or by the days of a site where there are too few sites to split.
    """
    sites = {row.site for row in rows if row.site and not row.author}
    by_day = len(sites) < 2 * folds
    same: dict[Path, set[str]] = {}
    for number, (one, other) in enumerate(pairs):
        same.setdefault(one, set()).add(f"~ same sound {number}")
        same.setdefault(other, set()).add(f"~ same sound {number}")
    keys: list[set[str]] = []
    for row in rows:
        if row.group:
            keys.append({row.group, *same.get(row.path, ())})
            continue
        keys_of_row = {f"file {row.name}", *same.get(row.path, ())}
        if row.recording_id:
            keys_of_row.add(f"id {row.recording_id}")
        if row.author:
            keys_of_row.add(f"by {row.author} {row.day}".rstrip())
        elif row.site and (row.day or not by_day):
            keys_of_row.add(f"at {row.site} {row.day if by_day else ''}".rstrip())
        keys.append(keys_of_row)
    return [replace(row, group=group) for row, group in zip(rows, join_groups(keys), strict=True)]


def with_folds(rows: Sequence[Recording], data: CollectionSettings) -> list[Recording]:
    """Every row with a fold: the table's own, or drawn so that groups stay whole and species are spread. One fold for
    all recordings divides nothing, and is no fold.

    Drawn over all labelled recordings that can be used, whatever is left out later, so both stages hold out the same.
    What is not labelled follows its group, or is held out by its group's name.
    """
    labelled = [index for index, row in enumerate(rows) if row.labels and row.sound]
    fold_of = {row.group: row.fold for row in (rows[index] for index in labelled) if row.fold >= 0}
    rows = [replace(row, fold=fold_of.get(row.group, -1)) if row.fold < 0 else row for row in rows]
    given = sum(rows[index].fold >= 0 for index in labelled)
    assert given in (0, len(labelled)), (
        f"{given} of {len(labelled)} labelled recordings have a fold; give all of them one, or none"
    )
    folds_given = {rows[index].fold for index in labelled}
    if given and len(folds_given) == 1:
        show(
            f"all {given} labelled recordings are in fold {folds_given.pop()}, so none could be held out: the column "
            f"fold is not used, {data.folds} folds are drawn"
        )
        rows, given = [replace(row, fold=-1) for row in rows], 0
    fold_of = {row.group: row.fold for row in rows if row.fold >= 0}
    fold_of |= {rows[index].group: rows[index].fold for index in labelled}
    if labelled and not given:
        labels = [rows[index].labels[0] for index in labelled]
        groups = [rows[index].group for index in labelled]
        fold_of = dict(zip(groups, draw_folds(labels, groups, data.folds).tolist(), strict=True))
        if set(fold_of.values()) == {data.folds}:
            show(
                f"{len(fold_of)} groups of labelled recordings cannot be divided into {data.folds} folds, so none can "
                "be held out; lower --data.folds, or give the table a column fold"
            )
    folds = [
        row.fold if row.fold >= 0 else fold_of.get(row.group, zlib.crc32(row.group.encode()) % data.folds)
        for row in rows
    ]
    return [replace(row, fold=fold) for row, fold in zip(rows, folds, strict=True)]


if __name__ == "__main__":
    who = ["Ada", "Ada", "Ben", "Ben", "Cleo", "Cleo", "Dov", "Dov", "Elin"]
    labels = ["frog", "owl"] * 4 + ["newt"]
    groups = join_groups([{f"by {name}", f"file {row}"} for row, name in enumerate(who)])
    folds = draw_folds(labels, groups, folds=2)
    for name, label, group, fold in zip(who, labels, groups, folds, strict=True):
        print(f"{label:5} by {name:5} group {group:8} fold {fold}")
    assert folds[8] == 2, "the only newt trains"
    assert all(folds[row] == folds[row + 1] for row in range(0, 8, 2)), "who recorded both stands on one side"
