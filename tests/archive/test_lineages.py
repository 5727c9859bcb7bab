"""Blanks in lineages are filled from tables beside them and from our own, and nothing is contradicted."""

import shutil
from pathlib import Path

import pytest
from layouts import BIRDCLEF, TAXONOMY, birdclef, labels, lineage, noted, read, real_birdclef, sounds, write

from taxonomy import FAMILY, ORDER, RANKS


def test_a_table_of_lineages_beside_the_taxonomy_comes_before_ours(tmp_path: Path) -> None:
    real_birdclef(tmp_path / "bc")
    shutil.copy(BIRDCLEF / "lineage.csv", tmp_path / "bc" / "lineage.csv")
    collection = read(tmp_path / "bc")
    assert noted(collection, "206 of 206", "lineage.csv") and not noted(collection, "this program")
    assert collection.taxonomy is not None and sorted(set(collection.taxonomy.finest)) == [FAMILY + 1, len(RANKS)]


def test_a_lineage_that_contradicts_the_table_is_not_used(tmp_path: Path) -> None:
    birdclef(tmp_path, "greti,a.ogg", header="primary_label,filename")
    sounds(tmp_path, "audio/a.ogg")
    write(
        tmp_path,
        {
            "taxonomy.csv": "primary_label,scientific_name,common_name,class_name\n"
            "greti,Parus major,Great Tit,Aves\nfrog,Rana temporaria,Frog,Amphibia\n",
            "orders.csv": "primary_label,order,family,class_name\n"
            "greti,Passeriformes,Paridae,Aves\nfrog,Passeriformes,Paridae,Aves\n",
        },
    )
    collection = read(tmp_path)
    assert noted(collection, "1 of 2 labels", "orders.csv") and noted(collection, "1 of 2", "open ranks: frog")
    assert lineage(collection, "greti")["order"] == "Passeriformes"
    assert lineage(collection, "frog")["order"].startswith("?")


def test_a_taxonomy_beside_the_folders_tells_their_lineages(tmp_path: Path) -> None:
    sounds(tmp_path, "greti/a.wav", "Strix aluco/b.wav", "strix_uralensis/c.wav", "wren/d.wav")
    write(tmp_path, {"taxonomy.csv": TAXONOMY})
    collection = read(tmp_path)
    assert set(labels(collection)) == {"greti", "Strix aluco", "strix_uralensis", "wren"}
    assert lineage(collection, "greti")["species"] == "Parus major", "by the label"
    assert lineage(collection, "Strix aluco")["order"] == "Strigiformes", "by the scientific name"
    assert lineage(collection, "strix_uralensis")["family"] == "Strigidae", "by the genus"
    assert lineage(collection, "strix_uralensis")["species"] == "Strix uralensis"
    assert lineage(collection, "wren")["class"].startswith("?") and noted(collection, "1 of 4", "open ranks: wren")


def test_folders_without_a_taxonomy_take_the_lineages_that_come_along(tmp_path: Path) -> None:
    sounds(tmp_path, "Leptodactylus insularum/a.wav", "Leptodactylus nobodyi/b.wav", "Gryllidae/c.wav", "48124/d.wav")
    sounds(tmp_path, "Orthoptera/e.wav")
    collection = read(tmp_path, "folders")
    assert lineage(collection, "Leptodactylus insularum")["family"] == "Leptodactylidae"
    assert lineage(collection, "Leptodactylus nobodyi")["order"] == "Anura", "by the genus"
    assert collection.taxonomy is not None
    finest = dict(zip(collection.taxonomy.labels, collection.taxonomy.finest, strict=True))
    assert finest["Gryllidae"] == finest["48124"] == FAMILY + 1 and finest["Orthoptera"] == ORDER + 1
    assert lineage(collection, "Orthoptera")["class"] == "Insecta"


@pytest.mark.parametrize(("mark", "encoding"), [("\t", "utf-8"), (",", "utf-16")])
def test_a_table_of_lineages_that_cannot_be_read_is_refused_and_not_overlooked(
    mark: str, encoding: str, tmp_path: Path
) -> None:
    birdclef(tmp_path, "greti,a.ogg", header="primary_label,filename")
    sounds(tmp_path, "audio/a.ogg")
    table = "primary_label,scientific_name,common_name,class_name\ngreti,Parus major,Great Tit,Aves\n"
    write(tmp_path, {"taxonomy.csv": table})
    assert not noted(read(tmp_path), "lineage.csv")
    cells = (("primary_label", "order", "family"), ("greti", "Passeriformes", "Paridae"))
    write(tmp_path, {"lineage.csv": "\n".join(mark.join(row) for row in cells).encode(encoding)})
    with pytest.raises(AssertionError, match=r"lineage\.csv.*(separated by commas|UTF-8)"):
        read(tmp_path)
