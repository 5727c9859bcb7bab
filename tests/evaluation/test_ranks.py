from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.metrics import rank_roc_auc
from evaluation.ranks import RankAnswer, deepest_answers, rank_groups, rank_names, rank_probabilities, rank_truth
from taxonomy import Taxonomy, ancestor_matrix, read_taxonomy

LIVING = """\
primary_label,scientific_name,common_name,class,kingdom,phylum,order,family,genus,finest_rank
greti,Parus major,Great Tit,Aves,,,Passeriformes,Paridae,,
eatit,Parus minor,Japanese Tit,Aves,,,Passeriformes,Paridae,,
bluti,Cyanistes caeruleus,Blue Tit,Aves,,,Passeriformes,Paridae,,
gannet,Morus bassanus,Gannet,Aves,,,Suliformes,Sulidae,,
mulberry,Morus alba,Mulberry,Magnoliopsida,Plantae,Tracheophyta,Rosales,Moraceae,,
bush,Tettigoniidae,Bush-crickets,Insecta,,,Orthoptera,Tettigoniidae,,
green,Tettigonia viridissima,Green Bush-cricket,Insecta,,,Orthoptera,Tettigoniidae,,
"""
GRETI, EATIT, BLUTI, GANNET, MULBERRY, BUSH, GREEN = range(7)


@pytest.fixture
def living(tmp_path: Path) -> Taxonomy:
    path = tmp_path / "taxonomy.csv"
    path.write_text(LIVING, encoding="utf-8")
    return read_taxonomy(path)


def row(**probabilities: float) -> NDArray[np.float64]:
    names = ("greti", "eatit", "bluti", "gannet", "mulberry", "bush", "green")
    return np.array([[probabilities.get(name, 0.0) for name in names]])


def said(answers: list[RankAnswer | None]) -> list[tuple[str, str, float]]:
    return [(answer.rank, answer.name, round(answer.probability, 9)) for answer in answers if answer]


def test_labels_of_one_taxon_share_a_number_and_what_is_not_known_has_none(living: Taxonomy) -> None:
    groups = rank_groups(living)
    assert list(groups) == ["class", "order", "family", "genus", "species"]
    assert groups["class"].tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert groups["family"].tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert groups["genus"].tolist() == [0, 0, 1, 2, 3, -1, 4], "a family has no genus"
    assert groups["species"].tolist() == [0, 1, 2, 3, 4, -1, 5]


def test_the_gannet_and_the_mulberry_share_the_name_of_their_genus_and_nothing_else(living: Taxonomy) -> None:
    names = rank_names(living)["genus"]
    assert names == ("Parus", "Cyanistes", "Morus", "Morus", "Tettigonia")
    assert rank_groups(living)["genus"][GANNET] != rank_groups(living)["genus"][MULBERRY]


def test_an_order_that_nobody_told_is_left_out_and_the_family_below_it_is_not() -> None:
    gap = ("Animalia", "Arthropoda", "Insecta", "?order of Tettigoniidae", "Tettigoniidae")
    lineages = ((*gap, "Tettigonia", "Tettigonia viridissima"), (*gap, "Decticus", "Decticus verrucivorus"))
    taxonomy = Taxonomy(("a", "b"), ("A", "B"), ("a", "b"), lineages, (7, 7))
    groups, names = rank_groups(taxonomy), rank_names(taxonomy)
    assert groups["order"].tolist() == [-1, -1] and names["order"] == ()
    assert groups["family"].tolist() == [0, 0] and names["family"] == ("Tettigoniidae",)
    assert rank_probabilities(np.array([[0.5, 0.5]]), groups["order"]).shape == (1, 0)
    assert rank_truth(np.array([[1, 0]]), groups["order"]).shape == (1, 0)
    answer = deepest_answers(np.array([[0.5, 0.5]]), taxonomy, 0.7)
    assert answer == [RankAnswer("family", "Tettigoniidae", 0.75)]


def test_names_stand_in_the_order_of_the_numbers(living: Taxonomy) -> None:
    groups, names = rank_groups(living), rank_names(living)
    for depth, rank in enumerate(groups, start=2):
        assert len(names[rank]) == groups[rank].max() + 1
        for label, taxon in enumerate(groups[rank]):
            assert taxon < 0 or names[rank][taxon] == living.lineages[label][depth]


def test_a_taxon_is_as_probable_as_any_of_its_species(living: Taxonomy) -> None:
    scores = row(greti=0.5, eatit=0.5, bluti=0.2, bush=0.1, green=0.3)
    groups = rank_groups(living)
    assert rank_probabilities(scores, groups["genus"])[0] == pytest.approx([0.75, 0.2, 0, 0, 0.3])
    assert rank_probabilities(scores, groups["family"])[0] == pytest.approx([0.8, 0, 0, 1 - 0.9 * 0.7])
    hundred = rank_probabilities(np.full((1, 100), 0.01), np.zeros(100, np.int64))
    assert hundred[0, 0] == pytest.approx(0.634, abs=0.001), "as the first lines of ranks.py warn"


def test_very_small_probabilities_add_up_and_certainty_stays_certain() -> None:
    pair = np.zeros(2, np.int64)
    assert rank_probabilities(np.array([[1e-20, 2e-20]]), pair)[0, 0] == pytest.approx(3e-20, rel=1e-12, abs=0)
    assert 1 - (1 - 1e-20) * (1 - 2e-20) == 0.0, "control: the plain way loses them"
    assert rank_probabilities(np.array([[1.0, 0.5], [0.0, 0.0]], np.float32), pair)[:, 0].tolist() == [1.0, 0.0]
    alone = np.random.default_rng(0).random((9, 3))
    assert rank_probabilities(alone, np.arange(3)) == pytest.approx(alone, rel=1e-12)


def test_the_deepest_rank_that_is_sure_enough_answers(living: Taxonomy) -> None:
    rows = {
        "Parus major": row(greti=0.95),
        "Parus": row(greti=0.7, eatit=0.7),  # .91
        "Paridae": row(greti=0.6, eatit=0.3, bluti=0.7),  # .916, its genera .72 and .7
        "Aves": row(greti=0.6, gannet=0.8),  # .92, its orders .6 and .8
        "": row(greti=0.5, mulberry=0.6, bush=0.7),
    }
    answers = deepest_answers(np.concatenate(list(rows.values())), living, 0.9)
    assert [answer.name if answer else "" for answer in answers] == list(rows)
    assert [answer.rank for answer in answers if answer] == ["species", "genus", "family", "class"]
    assert answers[1] is not None and answers[1].probability == pytest.approx(0.91)


def test_a_label_that_is_a_family_answers_as_a_family_at_best(living: Taxonomy) -> None:
    assert said(deepest_answers(row(bush=0.99), living, 0.9)) == [("family", "Tettigoniidae", 0.99)]
    both = deepest_answers(row(bush=0.99, green=0.95), living, 0.9)
    assert said(both) == [("species", "Tettigonia viridissima", 0.95)], "its species may say more"
    assert deepest_answers(row(bush=0.99), living, {"species": 0.9, "genus": 0.9}) == [None]


def test_every_rank_has_its_own_threshold_and_one_left_out_never_answers(living: Taxonomy) -> None:
    scores = row(greti=0.6, eatit=0.6)  # the genus: .84

    def answer(**thresholds: float) -> list[tuple[str, str, float]]:
        return said(deepest_answers(scores, living, thresholds))

    assert answer(species=0.5, genus=0.9) == [("species", "Parus major", 0.6)]
    assert answer(species=0.7, genus=0.8, family=0.1) == [("genus", "Parus", 0.84)]
    assert answer(family=0.8) == [("family", "Paridae", 0.84)]
    assert answer(species=0.7) == []
    assert deepest_answers(row(greti=0.75), living, 0.75)[0] is not None, "a threshold is reached, not passed"


def test_an_answer_is_never_shallower_when_the_threshold_falls(living: Taxonomy) -> None:
    scores = np.random.default_rng(0).random((200, 7)) ** 3
    depth = {"class": 1, "order": 2, "family": 3, "genus": 4, "species": 5}
    strict, lax = deepest_answers(scores, living, 0.8), deepest_answers(scores, living, 0.5)
    pairs = [(depth[a.rank] if a else 0, depth[b.rank] if b else 0) for a, b in zip(strict, lax, strict=True)]
    assert all(one <= other for one, other in pairs) and len({one for one, _ in pairs}) > 3


def test_higher_ranks_know_more_and_a_coarse_label_trains_the_ranks_it_knows(living: Taxonomy) -> None:
    truth = np.eye(7)[[GRETI, BUSH, GREEN]]
    groups = rank_groups(living)
    assert rank_truth(truth, groups["family"]).tolist() == [
        [True, False, False, False],
        [False, False, False, True],
        [False, False, False, True],
    ]
    assert rank_truth(truth, groups["genus"])[1].any() == np.False_, "which genus it is, nobody knows"


def test_the_groups_agree_with_the_taxonomy_on_who_contains_whom(living: Taxonomy) -> None:
    groups = rank_groups(living)
    for above, below in np.argwhere(ancestor_matrix(living)):
        assert groups["family"][above] == groups["family"][below] >= 0 > groups["genus"][above]
    for coarse, fine in (("class", "order"), ("order", "family"), ("family", "genus"), ("genus", "species")):
        known = groups[fine] >= 0
        parents = set(zip(groups[fine][known].tolist(), groups[coarse][known].tolist(), strict=True))
        assert len(parents) == len(set(groups[fine][known].tolist())), f"a {fine} with two of {coarse} above it"


def test_the_groups_serve_the_metric_of_ranks(living: Taxonomy) -> None:
    truth = np.eye(7)
    scores = np.full((7, 7), 0.1) + 0.6 * truth
    scores[GRETI], scores[EATIT] = scores[EATIT].copy(), scores[GRETI].copy()  # two of one genus, confused
    areas = rank_roc_auc(truth, scores, rank_groups(living))
    assert areas["species"] < 1.0
    assert [areas[rank] for rank in ("class", "order", "family", "genus")] == [1.0] * 4


def test_what_cannot_be_answered_is_refused(living: Taxonomy) -> None:
    with pytest.raises(AssertionError, match=r"thresholds for \['tribe'\]"):
        deepest_answers(row(), living, {"tribe": 0.5})
    with pytest.raises(AssertionError, match="choose 0 to 1"):
        deepest_answers(row(), living, 1.5)
    with pytest.raises(AssertionError, match="both must be of the same labels"):
        deepest_answers(np.zeros((1, 3)), living, 0.5)
    for bad in (-0.1, 1.1, np.nan):
        with pytest.raises(AssertionError, match="not logits"):
            deepest_answers(row(greti=bad), living, 0.5)
