"""Names of folders as labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import (
    ANIMALS,
    by_name,
    labels,
    lineage,
    noted,
    read,
    sounds,
)

from archive.folders import spoken_names
from taxonomy import RANKS


def test_their_folders_are_taken_for_species() -> None:
    if not ANIMALS.is_dir():
        pytest.skip("the recordings of ../shared/animals are not there")
    collection = read(ANIMALS / "audio")
    assert noted(collection, "folders, because") and len(collection.recordings) == 1032
    assert lineage(collection, "anser_anser")["species"] == "Anser anser"


def test_folders_are_labels_as_birdnet_has_them(tmp_path: Path) -> None:
    sounds(
        tmp_path,
        "Parus major_Great Tit/a.wav",
        "Parus major_Great Tit/deep/b.WAV",
        "Strix aluco_Tawny Owl,Parus major/c.flac",
        "Background/d.wav",
        "-Strix aluco_Tawny Owl/e.wav",
        "loose.wav",
        "unlabeled/20240501_053000.wav",
    )
    collection = read(tmp_path)
    rows = by_name(collection)
    assert noted(collection, "folders, because", "--data.layout chooses another")
    assert set(labels(collection)) == {"Parus major", "Strix aluco"}
    assert collection.taxonomy is not None and set(collection.taxonomy.common_names) == {"Great Tit", "Tawny Owl"}
    assert rows["Parus major_Great Tit/a.wav"].labels == ("Parus major",)
    assert rows["Parus major_Great Tit/deep/b.WAV"].labels == ("Parus major",)
    assert rows["Strix aluco_Tawny Owl,Parus major/c.flac"].labels == ("Strix aluco", "Parus major")
    noise = rows["Background/d.wav"]
    assert (noise.labels, noise.absent, noise.listened) == ((), (), True)
    owl_free = rows["-Strix aluco_Tawny Owl/e.wav"]
    assert (owl_free.labels, owl_free.absent, owl_free.listened) == ((), ("Strix aluco",), True)
    assert not rows["loose.wav"].labeled
    assert rows["unlabeled/20240501_053000.wav"].recorded_at == "2024-05-01T05:30:00"


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("Parus major_Great Tit", ("Parus major", "Parus major", "Great Tit")),
        ("Parus major_Tit_great", ("Parus major", "Parus major", "Tit_great")),
        ("parus_major", ("parus_major", "Parus major", "")),
        ("canis_lupus_familiaris", ("canis_lupus_familiaris", "Canis lupus familiaris", "")),
        ("Engine_Engine", ("Engine", "Engine", "Engine")),
        ("Gryllidae_crickets", ("Gryllidae", "Gryllidae", "crickets")),
        ("amakin1", ("amakin1", "amakin1", "")),
        ("_odd", ("_odd", "_odd", "")),
    ],
)
def test_the_names_of_a_folder_are_told_apart(folder: str, names: tuple[str, str, str]) -> None:
    assert spoken_names(folder) == names


def test_common_names_are_no_binomials(tmp_path: Path) -> None:
    sounds(tmp_path, "Great Tit/a.wav", "Great Snipe/b.wav")
    collection = read(tmp_path, "folders")
    assert lineage(collection, "Great Tit")["genus"] != lineage(collection, "Great Snipe")["genus"]
    assert collection.taxonomy is not None and set(collection.taxonomy.finest) == {len(RANKS)}
