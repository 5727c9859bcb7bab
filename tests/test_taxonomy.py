from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from taxonomy import (
    RANKS,
    Taxonomy,
    ancestor_matrix,
    from_json,
    key,
    pairwise_distances,
    read_taxonomy,
    select_labels,
    to_json,
)

SHARED = Path(__file__).parents[2] / "shared"
HEADER = "primary_label,scientific_name,common_name,class_name,kingdom,phylum,order,family,genus,finest_rank"
MEADOW = """\
greti,Parus major,Great Tit,Aves,,,Passeriformes,Paridae,,
bluti,Cyanistes caeruleus,Blue Tit,Aves,,,Passeriformes,Paridae,,
marti,Poecile palustris,Marsh Tit,Aves,,,Passeriformes,Paridae,,
wilti,Poecile montanus,Willow Tit,Aves,,,Passeriformes,Paridae,,
tawow,Strix aluco,Tawny Owl,Aves,,,Strigiformes,Strigidae,,
frog,Rana temporaria,Common Frog,Amphibia,,,Anura,Ranidae,,
green,Tettigonia viridissima,Great Green Bush-cricket,Insecta,,,Orthoptera,Tettigoniidae,,
bush,Tettigoniidae,Bush-crickets,Insecta,,,Orthoptera,Tettigoniidae,,
field,Gryllus campestris,Field Cricket,Insecta,,,Orthoptera,Gryllidae,,
cicada,Cicada orni,Ash Cicada,Insecta,,,Hemiptera,Cicadidae,,
"""


def read(folder: Path, rows: str, header: str = HEADER) -> Taxonomy:
    path = folder / "taxonomy.csv"
    path.write_text(f"{header}\n{rows}", encoding="utf-8")
    return read_taxonomy(path)


def between(taxonomy: Taxonomy, one: str, other: str) -> int:
    """Steps between two labels; the trees below reach up to six."""
    distance = pairwise_distances(taxonomy)[taxonomy.labels.index(one), taxonomy.labels.index(other)]
    return round(float(distance) * 6)


def is_ultrametric(distances: NDArray[np.float32]) -> bool:
    detour = np.maximum(distances[:, :, None], distances[None]).min(axis=1)
    return bool((distances <= detour + 1e-6).all())


def obeys_triangle(distances: NDArray[np.float32]) -> bool:
    detour = (distances[:, :, None] + distances[None]).min(axis=1)
    return bool((distances <= detour + 1e-6).all())


def unequal_ranks(taxonomy: Taxonomy) -> NDArray[np.float32]:
    """The wrong way: how many ranks differ, wherever they stand."""
    rows = taxonomy.lineages
    return np.array([[sum(a != b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows], np.float32)


def test_distance_counts_the_ranks_up_to_where_two_lineages_meet(tmp_path: Path) -> None:
    meadow = read(tmp_path, MEADOW)
    assert between(meadow, "marti", "wilti") == 1
    assert between(meadow, "greti", "bluti") == 2
    assert between(meadow, "green", "field") == 3
    assert between(meadow, "greti", "tawow") == 4
    assert between(meadow, "greti", "frog") == 5
    assert between(meadow, "greti", "green") == 6


def test_distance_is_symmetric_zero_to_itself_one_at_most_and_an_ultrametric(tmp_path: Path) -> None:
    distances = pairwise_distances(read(tmp_path, MEADOW))
    assert distances.dtype == np.float32 and distances.max() == 1
    assert (distances == distances.T).all() and not np.diagonal(distances).any()
    assert is_ultrametric(distances)


def test_the_farthest_pair_of_the_chosen_labels_is_at_distance_one(tmp_path: Path) -> None:
    tits = select_labels(read(tmp_path, MEADOW), ["wilti", "greti", "marti"])
    assert tits.common_names == ("Willow Tit", "Great Tit", "Marsh Tit")
    assert pairwise_distances(tits).tolist() == [[0, 1, 0.5], [1, 0, 1], [0.5, 1, 0]]
    assert pairwise_distances(select_labels(tits, ["greti"])).tolist() == [[0]]


def test_a_family_is_two_steps_from_its_own_species_and_three_from_another_family(tmp_path: Path) -> None:
    meadow = read(tmp_path, MEADOW)
    assert meadow.finest[meadow.labels.index("bush")] == 5
    assert between(meadow, "bush", "green") == 2
    assert between(meadow, "bush", "field") == 3
    assert meadow.lineages[meadow.labels.index("bush")][5:] == ("?bush", "?bush")


def test_only_taxa_of_which_another_label_is_a_part_are_ancestors(tmp_path: Path) -> None:
    coarse = "birds,Aves,Birds,Aves,,,,,,\nbush2,Tettigoniidae,Bush-crickets,Insecta,,,,Tettigoniidae,,\n"
    meadow = read(tmp_path, MEADOW + coarse)
    above = {(meadow.labels[one], meadow.labels[other]) for one, other in np.argwhere(ancestor_matrix(meadow)).tolist()}
    birds = {("birds", bird) for bird in ("greti", "bluti", "marti", "wilti", "tawow")}
    assert above == birds | {("bush", "green"), ("bush2", "green")}, "two labels of one family are not above each other"


def test_mechanism_penalty_sets_cicadas_apart_from_crickets_and_stays_a_metric(tmp_path: Path) -> None:
    meadow = read(tmp_path, MEADOW + "stink,Nezara viridula,Green Stink Bug,Insecta,,,Hemiptera,Pentatomidae,,\n")
    apart = pairwise_distances(meadow, 0.25)
    names = ("cicada", "stink", "green", "field", "frog", "greti")
    cicada, stink, green, field, frog, bird = (meadow.labels.index(name) for name in names)
    assert apart[cicada, stink] == pytest.approx((3 / 6 + 0.25) / 1.25)
    assert apart[cicada, green] == pytest.approx((4 / 6 + 0.25) / 1.25)
    assert apart[green, field] == pytest.approx(3 / 6 / 1.25)
    assert apart[frog, bird] == pytest.approx((5 / 6 + 0.25) / 1.25), "larynx against syrinx"
    assert apart.max() == 1 and not np.diagonal(apart).any() and obeys_triangle(apart)
    assert is_ultrametric(pairwise_distances(meadow)) and not is_ultrametric(apart)
    assert not obeys_triangle(np.array([[0, 3, 1], [3, 0, 1], [1, 1, 0]], np.float32)), "the check must be able to fail"


def test_homonyms_stay_apart_where_counting_unequal_ranks_breaks_the_ultrametric(tmp_path: Path) -> None:
    morus = read(
        tmp_path,
        "gannet,Morus bassanus,Gannet,Aves,Animalia,Chordata,Suliformes,Sulidae,,\n"
        "tit,Parus major,Great Tit,Aves,Animalia,Chordata,Passeriformes,Paridae,,\n"
        "mulberry,Morus alba,Mulberry,Magnoliopsida,Plantae,Tracheophyta,Rosales,Moraceae,,\n",
    )
    distances = pairwise_distances(morus)
    assert distances[0, 2] == distances[1, 2] == 1
    assert is_ultrametric(distances)
    assert not is_ultrametric(unequal_ranks(morus))


def test_names_are_trimmed_and_compared_without_case_but_shown_as_written(tmp_path: Path) -> None:
    taxonomy = read(
        tmp_path,
        " a , Daedalellus  waehneri , Katydid ,Insecta ,,,Orthoptera,Tettigoniidae ,,\n"
        "b,DAEDALELLUS other,Katydid,INSECTA,,,orthoptera,TETTIGONIIDAE,,\n",
    )
    assert taxonomy.labels == ("a", "b") and taxonomy.lineages[0][4] == "Tettigoniidae"
    assert taxonomy.lineages[1][4] == "TETTIGONIIDAE"
    assert pairwise_distances(taxonomy).max() == 1 and np.array_equal(pairwise_distances(taxonomy), 1 - np.eye(2))
    assert key(" Bos  Taurus") == key("bos taurus")
    rows = (taxonomy.lineages[0][:6], taxonomy.lineages[1][:6])
    assert [key(name) for name in rows[0]] == [key(name) for name in rows[1]], "they differ at the species alone"


def test_a_missing_name_is_copied_from_a_row_with_the_same_lower_name(tmp_path: Path) -> None:
    taxonomy = read(
        tmp_path,
        "a,Tettigonia viridissima,A,Insecta,,,,,Tettigonia,\n"
        "b,Tettigonia cantans,B,Insecta,,,,Tettigoniidae,Tettigonia,\n"
        "c,Decticus verrucivorus,C,Insecta,,,Orthoptera,Tettigoniidae,,\n",
    )
    assert [lineage[3:5] for lineage in taxonomy.lineages] == [("Orthoptera", "Tettigoniidae")] * 3


def test_nothing_is_copied_from_a_homonym_in_another_class(tmp_path: Path) -> None:
    taxonomy = read(
        tmp_path,
        "a,Oenanthe oenanthe,Wheatear,Aves,,,,,,\nb,Oenanthe crocata,Dropwort,Magnoliopsida,,,Apiales,Apiaceae,,\n",
    )
    assert taxonomy.lineages[0][3:5] == ("?order of Oenanthe", "?family of Oenanthe")


def test_rows_that_disagree_about_a_missing_name_are_reported_with_the_row(tmp_path: Path) -> None:
    rows = (
        "a,Cicada orni,A,Insecta,,,Hemiptera,Cicadidae,,\n"
        "b,Tibicen plebejus,B,Insecta,,,Homoptera,Cicadidae,,\n"
        "c,Lyristes plebejus,C,Insecta,,,,Cicadidae,,\n"
    )
    with pytest.raises(AssertionError, match=r"c has no order.*Cicadidae disagree.*Hemiptera.*Homoptera"):
        read(tmp_path, rows)


def test_a_gap_that_nobody_fills_is_shared_by_those_below_it_and_by_no_others(tmp_path: Path) -> None:
    taxonomy = read(
        tmp_path,
        "a,Gryllus campestris,A,Insecta,,,,Gryllidae,,\n"
        "b,Acheta domesticus,B,Insecta,,,,Gryllidae,,\n"
        "c,Tettigonia cantans,C,Insecta,,,,Tettigoniidae,,\n"
        "d,Parus major,D,Aves,,,,Paridae,,\n",
    )
    assert taxonomy.lineages[0][3] == taxonomy.lineages[1][3] == "?order of Gryllidae"
    assert taxonomy.lineages[2][3] == "?order of Tettigoniidae"
    assert between(taxonomy, "a", "b") == 2 and between(taxonomy, "a", "c") == 4


def test_two_unspecified_labels_of_one_genus_are_never_equal_by_accident(tmp_path: Path) -> None:
    taxonomy = read(
        tmp_path,
        "koel,Eudynamys sp.,Koel,Aves,,,Cuculiformes,Cuculidae,,\n"
        "koel2,Eudynamys,Koel,Aves,,,Cuculiformes,Cuculidae,Eudynamys,genus\n"
        "owl,Strix aluco,Owl,Aves,,,Strigiformes,unknown,,\n"
        "owlet,Athene noctua,Owlet,Aves,,,Strigiformes,Unknown,,\n"
        "frog,Rana arvalis,Frog,Amphibia,,,,,,\n"
        "bug,Cicada orni,Bug,Insecta,,,,,,\n",
    )
    assert taxonomy.finest[:2] == (6, 6) and between(taxonomy, "koel", "koel2") == 1
    assert between(taxonomy, "owl", "owlet") == 3, "two unknown families are two families"


def test_birdclefs_five_columns_give_class_genus_and_species(tmp_path: Path) -> None:
    header = "primary_label,inat_taxon_id,scientific_name,common_name,class_name"
    rows = (
        "1,1,Parus major,Great Tit,Aves\n2,2,Parus minor,Japanese Tit,Aves\n3,3,Strix aluco,Tawny Owl,Aves\n"
        "4,4,Rana temporaria,Frog,Amphibia\n5,5,Tettigoniidae,Katydids,Insecta\n6,6,Aves,Birds,Aves\n"
    )
    taxonomy = read(tmp_path, rows, header)
    assert [between(taxonomy, "1", other) for other in "23456"] == [1, 4, 5, 6, 4]
    assert taxonomy.finest == (7, 7, 7, 7, 5, 3)
    assert np.argwhere(ancestor_matrix(taxonomy)).tolist() == [[5, 0], [5, 1], [5, 2]]


def test_an_unknown_kingdom_does_not_part_the_animals_of_one_class(tmp_path: Path) -> None:
    header = "primary_label,scientific_name,common_name,class_name"
    taxonomy = read(tmp_path, "a,Aa aa,A,Tardigradiae\nb,Bb bb,B,Tardigradiae\nc,Parus major,C,Aves\n", header)
    assert taxonomy.lineages[0][:2] == ("?kingdom of Tardigradiae", "?phylum of Tardigradiae")
    assert round(float(pairwise_distances(taxonomy)[0, 1]) * 7) == 4


def test_labels_stay_text_and_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.csv"
    path.write_text(f"{HEADER}\n007,Parus major,,Aves,,,,,,\n1e5,Strix aluco,Owl,Aves,,,,,,\n", encoding="utf-8-sig")
    taxonomy = read_taxonomy(path)
    assert taxonomy.labels == ("007", "1e5")
    assert taxonomy.common_names == ("Parus major", "Owl"), "without a common name the scientific one is shown"


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("a,Parus major,A,Aves,,,,,,\na,Strix aluco,B,Aves,,,,,,\n", "line 3: primary_label a stands at .* line 2"),
        (",Parus major,A,Aves,,,,,,\n", "line 2: no primary_label"),
        ("a,,A,Aves,,,,,,\n", "line 2: no scientific_name for a"),
        ("a,Parus major,A,,,,,,,\n", "line 2: no class_name for Parus major"),
        ("a,Parus major,A,Aves,,,,,\n", "line 2: 9 cells, not 10"),
        ("a,Paridae,A,Aves,,,,Paridae,Parus,family\n", r"line 2: the label is a family and yet says \['Parus'\]"),
        ("a,Parus major,A,Aves,,,,,,superfamily\n", "line 2: finest_rank 'superfamily'"),
        ("", "no rows"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, rows: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        read(tmp_path, rows)


def test_a_missing_file_column_or_label_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"no nowhere\.csv in"):
        read_taxonomy(tmp_path / "nowhere.csv")
    with pytest.raises(AssertionError, match=r"no columns \['common_name'\]"):
        read(tmp_path, "a,Parus major\n", "primary_label,scientific_name")
    with pytest.raises(AssertionError, match="no column class_name or class"):
        read(tmp_path, "a,Parus major,Great Tit\n", "primary_label,scientific_name,common_name")
    with pytest.raises(AssertionError, match="class_name Aves but class Amphibia"):
        read(tmp_path, "a,Parus major,A,Aves,Amphibia\n", "primary_label,scientific_name,common_name,class_name,class")
    with pytest.raises(AssertionError, match=r"labels \['dragon'\] are not in the taxonomy"):
        select_labels(read(tmp_path, MEADOW), ["frog", "dragon"])
    with pytest.raises(AssertionError, match=r"labels \['frog'\] occur more than once"):
        select_labels(read(tmp_path, MEADOW), ["frog", "greti", "frog"])


def test_a_taxonomy_survives_the_way_through_json(tmp_path: Path) -> None:
    meadow = read(tmp_path, MEADOW)
    assert from_json(json.loads(json.dumps(to_json(meadow)))) == meadow


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("ranks", ["order", "family"], "stored ranks"),
        ("labels", "frog", "stored labels are 'frog', not a list"),
        ("labels", ["frog"], "1 labels with"),
        ("common_names", [None] * 10, "stored common_names are not all text"),
        ("lineages", [["Animalia"]] * 10, "greti: lineage"),
        ("finest", [0] * 10, "greti: 0 known ranks"),
        ("finest", ["species"] * 10, "not all whole numbers"),
    ],
)
def test_a_damaged_stored_taxonomy_is_refused(tmp_path: Path, name: str, value: object, complaint: str) -> None:
    stored = to_json(read(tmp_path, MEADOW))
    with pytest.raises(AssertionError, match=complaint):
        from_json({**stored, name: value})


def test_a_taxonomy_is_read_without_torch_or_pandas() -> None:
    heavy = "import sys, taxonomy; print([m for m in ('torch', 'pandas', 'sklearn') if m in sys.modules])"
    folder = Path(__file__).parents[1]
    printed = subprocess.run([sys.executable, "-c", heavy], cwd=folder, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"


def real_table(name: str) -> Path:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"no {path}: real tables are not part of the project")
    return path


def test_the_heights_of_birdclef_2025_are_as_counted_by_an_independent_walk() -> None:
    path = real_table("birdclef2025/lineage.csv")
    taxonomy = read_taxonomy(path)
    above = np.triu_indices(206, 1)
    steps = (pairwise_distances(taxonomy)[above] * 6).round().astype(int)
    assert np.bincount(np.minimum(steps, 5), minlength=6).tolist() == [0, 44, 544, 2478, 8252, 9797]
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    walked = [0] * 6
    for place, one in enumerate(rows):
        for other in rows[:place]:
            same = 0
            for rank in ("class_name", "order", "family", "genus"):
                if not one[rank] or one[rank] != other[rank]:
                    break
                same += 1
            walked[5 - same] += 1
    assert walked == [0, 44, 544, 2478, 8252, 9797]
    family = taxonomy.labels.index("48124")
    assert ancestor_matrix(taxonomy).sum() == ancestor_matrix(taxonomy)[family].sum() == 13
    assert "Daedadelus waehnerorum" in taxonomy.scientific_names
    assert is_ultrametric(pairwise_distances(taxonomy))


def test_the_mixed_ranks_of_real_tables_are_understood() -> None:
    taxonomy = read_taxonomy(real_table("animals/taxonomy.csv"))
    rank = {label: RANKS[finest - 1] for label, finest in zip(taxonomy.labels, taxonomy.finest, strict=True)}
    expected = {"aves_sp": "class", "anura_sp": "order", "caprimulgidae_sp": "family", "eudynamys_sp": "genus"}
    assert {label: rank[label] for label in expected} == expected
    birds = [lineage[2] == "Aves" for lineage in taxonomy.lineages]
    above = ancestor_matrix(taxonomy)[taxonomy.labels.index("aves_sp")]
    assert above.sum() == sum(birds) - 1, "every bird but the label itself"
    assert is_ultrametric(pairwise_distances(taxonomy)) and obeys_triangle(pairwise_distances(taxonomy, 0.25))
