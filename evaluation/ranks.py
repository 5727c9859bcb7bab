"""Answers at the right rank: "a tit" where the species is in doubt, "a bird" where even that is.

    answers = deepest_answers(probabilities, taxonomy, {"species": 0.9, "genus": 0.9, "family": 0.8})
    areas = rank_roc_auc(truth, probabilities, rank_groups(taxonomy))         # of metrics

A taxon is there when any of its species is: 1 - prod(1 - p) over them. That holds as far as the probabilities do and
no further: a hundred birds at 0.01 each make a bird at 0.63. So give it calibrated probabilities, and every rank a
threshold of its own, fitted on `rank_probabilities` and `rank_truth` like a species' on its scores.

A node of the tree is its whole path from the root. A label that is a family has no genus: it answers as a family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonomy import CLASS, RANKS, Taxonomy, key, numbered

ANSWERED: tuple[str, ...] = RANKS[CLASS:]  # class to species: above them every recording says the same


@dataclass(frozen=True)
class RankAnswer:
    """The best taxon of the deepest rank that is sure enough."""

    rank: str
    name: str  # scientific
    probability: float


def deepest_answers(
    scores: NDArray[np.floating[Any]], taxonomy: Taxonomy, thresholds: float | Mapping[str, float]
) -> list[RankAnswer | None]:
    """Per row the best taxon of the deepest rank at which it reaches the threshold: species first, class last.

    scores      (rows, species) probabilities, in the order of the taxonomy's labels
    thresholds  one for all ranks, or rank -> threshold; a rank that is left out is never answered at
    returns     (rows,) None where no rank is sure enough
    """
    wanted = dict(thresholds) if isinstance(thresholds, Mapping) else dict.fromkeys(ANSWERED, thresholds)
    strange = sorted(set(wanted) - set(ANSWERED))
    assert not strange, f"thresholds for {strange}; ranks are {ANSWERED}"
    assert all(0 <= threshold <= 1 for threshold in wanted.values()), f"thresholds {wanted}; choose 0 to 1 for each"
    answers: list[RankAnswer | None] = [None] * len(scores)
    groups, names = rank_groups(taxonomy), rank_names(taxonomy)
    for rank in [rank for rank in ANSWERED if rank in wanted and names[rank]]:  # deeper ranks overwrite
        probabilities = rank_probabilities(scores, groups[rank])
        best = np.argmax(probabilities, axis=1)
        for row in np.flatnonzero(probabilities.max(axis=1) >= wanted[rank]):
            answers[row] = RankAnswer(rank, names[rank][int(best[row])], float(probabilities[row, best[row]]))
    return answers


def rank_groups(taxonomy: Taxonomy) -> dict[str, NDArray[np.int64]]:
    """Which labels are of one taxon, for the ranks from class to species.

    returns   rank -> (species,) number of the taxon, counted from 0 without gaps in the order of the labels; -1 where
              it is not known, and below the rank of the label itself
    """
    groups: dict[str, NDArray[np.int64]] = {}
    for depth, rank in enumerate(ANSWERED, start=CLASS):
        nodes = {  # label -> its path from the root
            label: tuple(key(name) for name in lineage[: depth + 1])
            for label, lineage in enumerate(taxonomy.lineages)
            if not lineage[depth].startswith("?")
        }
        groups[rank] = np.full(len(taxonomy.labels), -1, np.int64)
        groups[rank][list(nodes)] = numbered(nodes.values())
    return groups


def rank_names(taxonomy: Taxonomy) -> dict[str, tuple[str, ...]]:
    """Rank -> the scientific names of its taxa, in the order of their numbers; two of one name have another parent."""
    names: dict[str, tuple[str, ...]] = {}
    for depth, (rank, group) in enumerate(rank_groups(taxonomy).items(), start=CLASS):
        first = [int(np.flatnonzero(group == taxon)[0]) for taxon in range(group_count(group))]
        names[rank] = tuple(taxonomy.lineages[label][depth] for label in first)
    return names


def rank_probabilities(scores: NDArray[np.floating[Any]], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """(rows, taxa) how probable it is that any of a taxon's species is there, were they independent of each other.

    scores   (rows, species) probabilities
    group    (species,) number of the taxon or -1: one rank of `rank_groups`, whose `rank_names` name the columns
    """
    assert scores.ndim == 2 and scores.shape[1:] == group.shape, (
        f"scores {scores.shape}, {group.shape} groups; both must be of the same labels"
    )
    assert ((scores >= 0) & (scores <= 1)).all(), "scores below 0, above 1 or NaN; give probabilities, not logits"
    with np.errstate(divide="ignore"):  # log(0): what is certain stays certain
        absence = np.log1p(-scores.astype(np.float64))
    taxa = [-np.expm1(absence[:, group == taxon].sum(axis=1)) for taxon in range(group_count(group))]
    return np.stack(taxa, axis=1) if taxa else np.zeros((len(scores), 0))


def rank_truth(truth: NDArray[Any], group: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(rows, taxa) whether any of a taxon's species is there; a label that is not known at this rank is nowhere."""
    assert truth.ndim == 2 and truth.shape[1:] == group.shape, (
        f"truth {truth.shape}, {group.shape} groups; both must be of the same labels"
    )
    taxa = [(truth[:, group == taxon] > 0).any(axis=1) for taxon in range(group_count(group))]
    return np.stack(taxa, axis=1) if taxa else np.zeros((len(truth), 0), np.bool_)


def group_count(group: NDArray[np.int64]) -> int:
    return int(group.max(initial=-1)) + 1


if __name__ == "__main__":
    birds = ("Animalia", "Chordata", "Aves", "Passeriformes")
    tits = ((*birds, "Paridae", "Parus", "Parus major"), (*birds, "Paridae", "Poecile", "Poecile palustris"))
    robin = (*birds, "Muscicapidae", "Erithacus", "Erithacus rubecula")
    species = (*tits, robin)
    codes, names = ("greti", "marti", "robin"), ("Great Tit", "Marsh Tit", "Robin")
    taxonomy = Taxonomy(codes, tuple(names_of[-1] for names_of in species), names, species, (7, 7, 7))
    windows = {"clear": (0.97, 0.02, 0.01), "a tit, but which?": (0.7, 0.8, 0.05), "wind": (0.01, 0.02, 0.01)}
    answers = deepest_answers(np.array(list(windows.values())), taxonomy, 0.9)
    for name, answer in zip(windows, answers, strict=True):
        print(f"{name:18}", f"{answer.rank} {answer.name} {answer.probability:.3f}" if answer else "no answer")
    assert [answer.name if answer else "" for answer in answers] == ["Parus major", "Paridae", ""]
