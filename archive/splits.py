"""Which recordings belong together, and which part of them is held out.

    groups = join_groups([{"by Ada 2024-05-01"}, {"by Ada 2024-05-01", "XC7"}, {"XC7"}])     # all three are one
    folds = draw_folds(labels, groups, folds=5)

What stands on both sides of the split makes every score too good: the same afternoon, the same bird, the same file
under two names. So groups come first, folds second, and a group is never divided.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold


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
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a rare label is not in every fold is said by name elsewhere
        for number, (_, held_out) in enumerate(splitter.split(free_labels, free_labels, [groups[row] for row in free])):
            drawn[np.array(free)[held_out]] = number
    return drawn


if __name__ == "__main__":
    who = ["Ada", "Ada", "Ben", "Ben", "Cleo", "Cleo", "Dov", "Dov", "Elin"]
    labels = ["frog", "owl"] * 4 + ["newt"]
    groups = join_groups([{f"by {name}", f"file {row}"} for row, name in enumerate(who)])
    folds = draw_folds(labels, groups, folds=2)
    for name, label, group, fold in zip(who, labels, groups, folds, strict=True):
        print(f"{label:5} by {name:5} group {group:8} fold {fold}")
    assert folds[8] == 2, "the only newt trains"
    assert all(folds[row] == folds[row + 1] for row in range(0, 8, 2)), "who recorded both stands on one side"
