"""Layouts as they are found in the wild, with their traps: every row is used, or stays with its reason."""

import csv
import json
import re
from pathlib import Path

import pytest
from layouts import (
    ANIMALS,
    birdclef,
    by_name,
    inat,
    inat_audio,
    labels,
    line,
    lineage,
    noted,
    own_table,
    page,
    read,
    real_birdclef,
    sounds,
    write,
    xc,
)

from demo_data import FieldSeason
from sources import parse_labels, spoken_names
from taxonomy import FAMILY, RANKS

# birdclef


def test_birdclef_rows_carry_what_the_table_says(tmp_path: Path) -> None:
    birdclef(
        tmp_path,
        line("greti", "greti/XC7.ogg", "['65448', 'greti', 'nobody1', '']", "3.5"),
        line("65448", "65448/iNat9.ogg", author="Unknown"),
    )
    sounds(tmp_path, "train_audio/greti/XC7.ogg", "train_audio/65448/iNat9.ogg", "train_audio/greti/XC8.ogg")
    collection = read(tmp_path)
    rows = by_name(collection)
    great_tit, frog = rows["train_audio/greti/XC7.ogg"], rows["train_audio/65448/iNat9.ogg"]
    assert great_tit.labels == ("greti", "65448"), "a repeated label counts once, an unknown one is dropped"
    assert (great_tit.recording_id, great_tit.author, great_tit.rating) == ("XC7", "Ada", "3.5")
    assert (great_tit.latitude, great_tit.longitude, great_tit.license) == ("-4.5", "", "cc-by-nc 4.0")
    assert (great_tit.source, great_tit.fold, great_tit.group, great_tit.seconds) == ("XC", -1, "", 0.0)
    assert (frog.labels, frog.recording_id, frog.author, frog.rating) == (("65448",), "iNat9", "", "")
    assert labels(collection) == ("greti", "tawow", "65448")
    assert noted(collection, "birdclef", "train.csv is there", "--data.layout chooses another")
    assert noted(collection, "1 further labels", "nobody1")
    assert noted(collection, "1 sound files are not in train.csv", "XC8.ogg")


def test_a_recording_that_is_not_there_stays_as_missing(tmp_path: Path) -> None:
    birdclef(tmp_path, line("greti", "greti/XC7.ogg"), line("greti", "greti/XC8.ogg"))
    sounds(tmp_path, "train_audio/greti/XC7.ogg")
    collection = read(tmp_path)
    assert [row.status for row in collection.recordings] == ["ok", "missing"]
    assert noted(collection, "1 rows missing", "XC8.ogg") and noted(collection, "2 rows read, 1 kept: 1 labelled")


def test_when_nothing_is_there_the_first_missing_file_is_named(tmp_path: Path) -> None:
    birdclef(tmp_path, line("greti", "greti/XC7.ogg"))
    (tmp_path / "train_audio").mkdir()
    with pytest.raises(AssertionError, match=r"none of 1 rows can be used.*missing, train_audio/greti/XC7.ogg"):
        read(tmp_path)


def test_an_unknown_primary_label_is_refused_and_named(tmp_path: Path) -> None:
    birdclef(tmp_path, line("greti", "a.ogg"), line("nobody1", "b.ogg"))
    sounds(tmp_path, "train_audio/a.ogg", "train_audio/b.ogg")
    collection = read(tmp_path)
    assert [row.status for row in collection.recordings] == ["ok", "refused"]
    assert noted(collection, "1 rows refused", "b.ogg", "'nobody1' is not in the taxonomy")


def test_folders_of_sound_that_are_not_looked_into_are_named(tmp_path: Path) -> None:
    birdclef(tmp_path, line("greti", "a.ogg"))
    sounds(tmp_path, "train_audio/a.ogg", "train_soundscapes/x.ogg", "soundscapes/y.ogg", "soundscapes/z.ogg", "b.ogg")
    (tmp_path / "papers").mkdir()
    collection = read(tmp_path)
    assert noted(collection, "soundscapes/ is ignored, with 2 sound files", "train_soundscapes/")
    assert noted(collection, "1 sound files beside train.csv are ignored", "b.ogg")
    assert not any("train_soundscapes/ is ignored" in note or "papers" in note for note in collection.notes)


def test_when_all_labels_are_unknown_nothing_is_read(tmp_path: Path) -> None:
    birdclef(tmp_path, line("nobody1", "b.ogg"))
    sounds(tmp_path, "train_audio/b.ogg", "train_soundscapes/x.ogg")
    with pytest.raises(AssertionError, match=r"none of 1 rows can be used.*nobody1"):
        read(tmp_path)


def test_a_file_that_stands_twice_in_train_csv_is_refused_with_both_lines(tmp_path: Path) -> None:
    birdclef(tmp_path, line("greti", "a.ogg"), line("tawow", "a.ogg"))
    sounds(tmp_path, "train_audio/a.ogg")
    with pytest.raises(AssertionError, match=r"line 3: filename a.ogg stands at .*line 2 already"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["../secret.ogg", "/etc/passwd", "a/../../secret.ogg", "link.ogg", "loop.ogg"])
def test_a_path_out_of_train_audio_is_refused(name: str, tmp_path: Path) -> None:
    birdclef(tmp_path, line("greti", name))
    sounds(tmp_path, "secret.ogg", "train_audio/ok.ogg")
    (tmp_path / "train_audio" / "link.ogg").symlink_to(tmp_path / "secret.ogg")
    (tmp_path / "train_audio" / "loop.ogg").symlink_to("loop.ogg")
    with pytest.raises(AssertionError, match=r"train\.csv line 2: .* leaves|loop.ogg"):
        read(tmp_path)


def test_train_audio_itself_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", sounds(tmp_path / "disk", "greti/XC7.ogg")
    birdclef(root, line("greti", "greti/./XC7.ogg"))
    (root / "train_audio").symlink_to(disk)
    collection = read(root)
    assert by_name(collection)["train_audio/greti/XC7.ogg"].status == "ok"
    assert read(own_table(tmp_path / "out", collection)).recordings == collection.recordings


def test_a_name_longer_than_any_file_is_missing(tmp_path: Path) -> None:
    birdclef(tmp_path, line("greti", "x" * 5000), line("greti", "a.ogg"))
    sounds(tmp_path, "train_audio/a.ogg")
    assert [row.status for row in read(tmp_path).recordings] == ["ok", "missing"]


def test_folds_and_groups_of_the_table_are_taken(tmp_path: Path) -> None:
    birdclef(tmp_path, "greti,a.ogg,Ada-7,2", header="primary_label,filename,group,fold")
    sounds(tmp_path, "audio/a.ogg")
    assert [(row.name, row.group, row.fold) for row in read(tmp_path).recordings] == [("audio/a.ogg", "Ada-7", 2)]
    assert read(tmp_path).recordings[0].source == "birdclef", "where the table names no collection"
    birdclef(tmp_path, "greti,a.ogg,Ada-7,two", header="primary_label,filename,group,fold")
    with pytest.raises(AssertionError, match=r"line 2: fold 'two' is no whole number"):
        read(tmp_path)
    birdclef(tmp_path, "greti,a.ogg,Ada-7,0.0", header="primary_label,filename,group,fold")
    assert read(tmp_path).recordings[0].fold == 0


def test_tables_that_excel_saved_with_semicolons_and_decimal_commas_say_the_same(tmp_path: Path) -> None:
    birdclef(tmp_path, line("greti", "a.ogg", "['tawow', '65448']", "3.5"))
    sounds(tmp_path, "train_audio/a.ogg")
    (before,) = read(tmp_path).recordings
    for name in ("train.csv", "taxonomy.csv"):
        with (tmp_path / name).open(encoding="utf-8", newline="") as file:
            cells = list(csv.reader(file))
        with (tmp_path / name).open("w", encoding="utf-8-sig", newline="") as file:
            commas = [[re.sub(r"^(-?\d+)\.(\d+)$", r"\1,\2", cell) for cell in row] for row in cells]
            csv.writer(file, delimiter=";").writerows(commas)
    (after,) = read(tmp_path).recordings
    assert "3,5" in (tmp_path / "train.csv").read_text() and after == before
    assert (after.rating, after.latitude) == ("3.5", "-4.5")


def test_soundscapes_and_unlabelled_recordings_come_along(season: FieldSeason) -> None:
    collection = read(season.root)
    assert len(labels(collection)) == 16
    labelled = [row for row in collection.recordings if row.labels]
    others = [row for row in collection.recordings if not row.labels]
    assert len(labelled) == 128 and {row.fold for row in labelled} == {0, 1, 2, 3}
    assert all(row.group and row.recording_id.startswith("FS1") for row in labelled)
    assert len(others) == 9 and not any(row.labeled for row in others)
    assert by_name(collection)["train_soundscapes/FS1_20260514_053000.flac"].recorded_at == "2026-05-14T05:30:00"
    assert [row.name for row in collection.recordings] == sorted(row.name for row in collection.recordings)


def test_soundscape_labels_of_2026_become_stretches(tmp_path: Path) -> None:
    birdclef(
        tmp_path,
        "greti,a.ogg,Aves,14640",
        header="primary_label,filename,class_name,inat_taxon_id",
    )
    soundscape = "BC2026_Train_1_S01_20250101_050000.ogg"
    sounds(tmp_path, "train_audio/a.ogg", f"train_soundscapes/{soundscape}", "train_soundscapes/silent.ogg")
    table = (
        "filename,start,end,primary_label\n"
        f"{soundscape},00:00:05,00:00:10,greti;65448\n"
        f"{soundscape},00:00:05,00:00:10,greti;65448\n"
        f"{soundscape},00:01:05,00:01:10,tawow\n"
        f"{soundscape},00:01:10,00:01:15,47158son01\n"
    )
    write(tmp_path, {"train_soundscapes_labels.csv": table})
    collection = read(tmp_path)
    rows = [row for row in collection.recordings if row.name.endswith(soundscape)]
    assert [(row.start, row.end, row.labels, row.status) for row in rows] == [
        (5.0, 10.0, ("greti", "65448"), "ok"),
        (65.0, 70.0, ("tawow",), "ok"),
        (70.0, 75.0, ("47158son01",), "refused"),
    ]
    assert rows[0].site == "S01" and rows[0].recorded_at == "2025-01-01T05:00:00"
    assert noted(collection, "1 rows stood there twice")
    silent = [row for row in collection.recordings if row.name == "train_soundscapes/silent.ogg"]
    assert len(silent) == 1 and not silent[0].labeled


@pytest.mark.parametrize(
    ("cell", "found"),
    [("['']", []), ("[]", []), ("", []), ("['65448', '22976']", ["65448", "22976"]), ('["a "]', ["a"])],
)
def test_lists_of_secondary_labels_are_read(cell: str, found: list[str]) -> None:
    assert parse_labels(cell) == found


@pytest.mark.parametrize(
    "cell", ["__import__('os')", "[1, 2]", "['a' 'b'", "{'a'}", "['a'] * 9", "nan", "['" + "a" * 5000 + "']"]
)
def test_anything_else_in_that_cell_is_refused(cell: str) -> None:
    with pytest.raises(AssertionError, match="secondary labels"):
        parse_labels(cell, "train.csv line 2")


def test_the_real_rows_of_birdclef_2025_are_read_with_the_lineages_that_come_along(tmp_path: Path) -> None:
    rows = real_birdclef(tmp_path / "bc")
    collection = read(tmp_path / "bc")
    assert len(collection.recordings) == len(rows) == 15 and all(row.status == "ok" for row in collection.recordings)
    frog = by_name(collection)["train_audio/126247/XC941297.ogg"]
    assert frog.labels == ("126247", "65448", "22976", "476538")
    assert (frog.recording_id, frog.author, frog.rating) == ("XC941297", "Chris Harrison", "3.5")
    assert by_name(collection)["train_audio/126247/iNat1109254.ogg"].recording_id == "iNat1109254"
    assert noted(collection, "orders and families of 206 of 206 labels", "this program")
    assert lineage(collection, "126247")["family"] == "Leptodactylidae"
    assert not noted(collection, "open ranks")
    assert collection.taxonomy is not None
    finest = dict(zip(collection.taxonomy.labels, collection.taxonomy.finest, strict=True))
    assert {label for label, rank in finest.items() if rank == FAMILY + 1} == {"48124", "50186", "52884"}
    assert set(finest.values()) == {FAMILY + 1, len(RANKS)}


def test_the_animals_beside_the_project_are_read() -> None:
    if not ANIMALS.is_dir():
        pytest.skip("the recordings of ../shared/animals are not there")
    collection = read(ANIMALS)
    assert len(collection.recordings) == 1032 and all(row.status == "ok" for row in collection.recordings)
    assert {row.fold for row in collection.recordings} == {0, 1, 2, 3} and all(r.group for r in collection.recordings)
    assert any(row.recording_id == "XC129809" for row in collection.recordings)
    assert "" in {row.rating for row in collection.recordings}
    assert {"3.0", "4.0", ""} == {row.rating for row in collection.recordings}
    assert len(labels(collection)) == 259


def test_their_folders_are_taken_for_species() -> None:
    if not ANIMALS.is_dir():
        pytest.skip("the recordings of ../shared/animals are not there")
    collection = read(ANIMALS / "audio")
    assert noted(collection, "folders, because") and len(collection.recordings) == 1032
    assert lineage(collection, "anser_anser")["species"] == "Anser anser"


# folders


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


@pytest.mark.parametrize(
    ("folders", "layout"),
    [
        (["Parus major", "Strix aluco"], "folders"),
        (["parus_major", "strix_aluco", "noise"], "folders"),
        (["amakin1", "126247"], "folders"),  # codes of the lineages that come along
        (["Parus major_Great Tit", "site_A", "extra", "noise"], "folders"),
        (["Parus major_Great Tit"], "unlabeled"),  # one folder is no choice of labels
        (["site_A", "site_B", "site_C"], "unlabeled"),
        (["Site north", "Site south"], "unlabeled"),
        (["north_ridge", "south_ridge"], "unlabeled"),
        (["20240501", "20240502"], "unlabeled"),
        (["A1", "A2", "Parus major"], "unlabeled"),
    ],
)
def test_auto_tells_species_from_places(folders: list[str], layout: str, tmp_path: Path) -> None:
    sounds(tmp_path, *(f"{folder}/x.wav" for folder in folders))
    collection = read(tmp_path)
    assert noted(collection, f"{layout}, because")
    assert (collection.taxonomy is None) == (layout == "unlabeled")
    assert layout == "folders" or noted(collection, "--data.layout folders takes folders for labels")


def test_the_layout_that_was_asked_for_is_taken(tmp_path: Path) -> None:
    sounds(tmp_path, "site_A/x.wav", "site_B/y.wav")
    assert labels(read(tmp_path, "folders")) == ("site",)
    sounds(tmp_path / "birds", "Parus major/x.wav", "Strix aluco/x.wav")
    assert read(tmp_path / "birds", "unlabeled").taxonomy is None
    with pytest.raises(AssertionError, match=r"no train.csv|no taxonomy.csv|neither train_audio"):
        read(tmp_path, "birdclef")
    with pytest.raises(AssertionError, match="no JSON of iNatSounds"):
        read(tmp_path, "inaturalist")
    with pytest.raises(AssertionError, match="no pages of xeno-canto"):
        read(tmp_path, "xeno-canto")
    with pytest.raises(AssertionError, match="no annotations below"):
        read(tmp_path, "annotations")


def test_common_names_are_no_binomials(tmp_path: Path) -> None:
    sounds(tmp_path, "Great Tit/a.wav", "Great Snipe/b.wav")
    collection = read(tmp_path, "folders")
    assert lineage(collection, "Great Tit")["genus"] != lineage(collection, "Great Snipe")["genus"]
    assert collection.taxonomy is not None and set(collection.taxonomy.finest) == {len(RANKS)}


def test_a_label_with_a_semicolon_is_refused(tmp_path: Path) -> None:
    sounds(tmp_path, "Parus; major/a.wav", "Strix aluco/b.wav")
    with pytest.raises(AssertionError, match=r"'Parus; major'.*semicolon.*rename"):
        read(tmp_path, "folders")


# unlabelled


def test_a_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"no folder .*nowhere; point --data.root"):
        read(tmp_path / "nowhere")


# several collections, keep.csv, recordings.csv


def test_collections_side_by_side_join_their_labels_by_scientific_name(tmp_path: Path) -> None:
    bc = birdclef(tmp_path / "birdclef", line("greti", "greti/XC7.ogg"), line("tawow", "t.ogg"))
    write(
        bc,
        {
            "taxonomy.csv": "primary_label,scientific_name,common_name,class_name\n"
            "greti,Parus major,Great Tit,Aves\ntawow,Strix aluco,Tawny Owl,Aves\n"
        },
    )
    sounds(bc, "train_audio/greti/XC7.ogg", "train_audio/t.ogg")
    inaturalist = tmp_path / "inat"
    write(inaturalist, {"train.json": inat([inat_audio(1, "a.wav"), inat_audio(2, "b.wav")], {1: 3, 2: 4})})
    sounds(inaturalist, "a.wav", "b.wav")
    write(tmp_path, {"xc/p.json": page(xc(9, "Sitta", "europaea", also=["parus MAJOR", "Strix aluco", "Dodo dodo"]))})
    sounds(tmp_path, "xc/XC9.mp3", "cards/card1/20240501_053000.wav", "loose.wav", "keep/x.txt")
    write(tmp_path, {"keep.csv": "filename,start,end\ninat/a.wav,0.5,2\n"})
    collection = read(tmp_path)
    assert noted(collection, "side by side, because birdclef/ is birdclef, inat/ is inaturalist, xc/ is xeno-canto")
    assert labels(collection) == ("greti", "tawow", "Sitta europaea"), "the first collection's code"
    assert lineage(collection, "greti")["family"] == "Paridae", "a blank filled from the other collection"
    rows = by_name(collection)
    assert rows["inat/a.wav"].labels == ("greti",) and rows["inat/a.wav"].keep == ((0.5, 2.0),)
    assert rows["birdclef/train_audio/greti/XC7.ogg"].labels == ("greti",)
    assert rows["xc/XC9.mp3"].labels == ("Sitta europaea", "greti", "tawow")
    assert rows["cards/card1/20240501_053000.wav"].recorded_at and not rows["loose.wav"].labeled
    assert noted(collection, "inat/: 1 labels under the names of other folders", "Parus major = greti")
    assert all(row.path == tmp_path / row.name for row in collection.recordings)
    assert len(rows) == 7


def test_labels_that_share_a_scientific_name_within_a_collection_are_not_joined(tmp_path: Path) -> None:
    header = "primary_label,scientific_name,common_name,class_name\n"
    for folder, codes in (("a", ("son01", "son02", "x")), ("b", ("son02", "son03", "x"))):
        rows = "".join(f"{code},Insecta,Sonotype,Insecta\n" for code in codes[:2])
        rows += f"x,{'Parus major' if folder == 'a' else 'Parus ater'},,Aves\n"
        birdclef(tmp_path / folder, *(f"{code},{code}.ogg" for code in codes), header="primary_label,filename")
        write(tmp_path / folder, {"taxonomy.csv": header + rows})
        sounds(tmp_path / folder, *(f"audio/{code}.ogg" for code in codes))
    collection = read(tmp_path)
    assert labels(collection) == ("son01", "son02", "x", "son03", "Parus ater")
    assert by_name(collection)["b/audio/x.ogg"].labels == ("Parus ater",), "one code, two species"


def test_keep_csv_names_the_stretches_that_may_be_heard(tmp_path: Path) -> None:
    sounds(tmp_path, "Parus major/a.wav", "Strix aluco/b.ogg", "Strix aluco/c.ogg")
    write(
        tmp_path,
        {"keep.csv": "filename,start,end\nParus major/a.wav,9,12\na.wav,0.9,7.3\nStrix aluco/b,1,2\ngone.wav,0,1\n"},
    )
    collection = read(tmp_path)
    rows = by_name(collection)
    assert rows["Parus major/a.wav"].keep == ((0.9, 7.3), (9.0, 12.0))
    assert rows["Strix aluco/b.ogg"].keep == ((1.0, 2.0),) and rows["Strix aluco/c.ogg"].keep == ()
    assert noted(collection, "keep.csv: 1 rows name no recording", "gone.wav")
    write(tmp_path, {"keep.csv": "filename,start,end\na.wav,9,3\n"})
    with pytest.raises(AssertionError, match=r"keep.csv line 2: '9' to '3' is no stretch"):
        read(tmp_path)


def test_a_table_that_was_written_reads_the_same_again(season: FieldSeason, tmp_path: Path) -> None:
    collection = read(season.root)
    again = read(own_table(tmp_path, collection))
    assert again.recordings == collection.recordings and again.taxonomy == collection.taxonomy


def test_a_written_table_follows_what_is_on_the_disk_now(tmp_path: Path) -> None:
    sounds(tmp_path, "in/Parus major/a.wav", "in/Strix aluco/b.wav", "in/Strix aluco/c.wav")
    table = own_table(tmp_path / "out", read(tmp_path / "in"))
    (tmp_path / "in/Strix aluco/b.wav").unlink()
    assert [row.status for row in read(table).recordings] == ["ok", "missing", "ok"]
    content = table.read_text().replace("Strix aluco;", "").replace(",Parus major,", ",Dodo,", 1)
    table.write_text(content)
    assert [row.status for row in read(table).recordings] == ["refused", "missing", "ok"]
    (tmp_path / "out" / "taxonomy.csv").unlink()
    with pytest.raises(AssertionError, match=r"3 labelled rows, and there is no taxonomy.csv beside it"):
        read(table)


def test_joined_tables_of_two_roots_keep_their_recordings_apart(tmp_path: Path) -> None:
    for part in ("one", "two"):
        own_table(tmp_path / f"out-{part}", read(sounds(tmp_path / part, "a.wav")))
    first, second = ((tmp_path / f"out-{part}" / "recordings.csv").read_text() for part in ("one", "two"))
    joined = tmp_path / "recordings.csv"
    joined.write_text(first + second.partition("\n")[2])
    assert [row.name for row in read(joined).recordings] == ["one/a.wav", "two/a.wav"]


def test_another_table_or_file_is_no_root(tmp_path: Path) -> None:
    birdclef(tmp_path, line("greti", "a.ogg"))
    with pytest.raises(AssertionError, match=r"train.csv has the columns .* not root and path; point --data.root"):
        read(tmp_path / "train.csv")
    sounds(tmp_path, "a.wav")
    with pytest.raises(AssertionError, match=r"a.wav is a file; point --data.root at a folder"):
        read(tmp_path / "a.wav")


@pytest.mark.parametrize("folder", ["-", " - ", "?", "unknown", "-,-", "- "])
def test_a_folder_whose_name_says_nothing_is_unlabelled(folder: str, tmp_path: Path) -> None:
    sounds(tmp_path, "Parus major/a.wav", "Strix aluco/b.wav", "-Parus major/c.wav", f"{folder}/d.wav")
    rows = by_name(read(tmp_path, "folders"))
    silent = rows[f"{folder}/d.wav"]
    assert (silent.labels, silent.absent, silent.labeled) == ((), (), False)
    assert rows["-Parus major/c.wav"].absent == ("Parus major",) and rows["-Parus major/c.wav"].labeled


# what this program itself has written


RUN = '{"name": "x", "status": "finished", "command": [], "settings": {}, "versions": {}, "recordings": {"ok": 1}}'


def test_results_and_clips_inside_of_a_season_are_no_recordings(tmp_path: Path) -> None:
    sounds(tmp_path, "pond/20240501_053000.wav", "results/clips/owl.mp3", "runs/predict/a/owl.mp3", "mine/owl.wav")
    raven = "Selection\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\t0\t5\tStrix aluco\n"
    write(tmp_path, {"results/run.json": RUN, "runs/predict/a/run.json": RUN, "results/clips/owl.txt": raven})
    write(tmp_path, {"mine/run.json": '{"recordings": 3}', "cut/.wild-whisper": "", "cut/1.mp3": ""})
    collection = read(tmp_path)
    assert [row.name for row in collection.recordings] == ["mine/owl.wav", "pond/20240501_053000.wav"]
    assert noted(collection, "3 folders of this program's results"), "the search says what it left out"
    assert noted(collection, "1 JSON files are no pages", "run.json"), "a run.json of somebody else is a stranger"
    assert [row.name for row in read(tmp_path / "results").recordings] == ["clips/owl.mp3"], (
        "a folder that is named is read"
    )


def test_results_in_the_season_itself_hide_nothing_of_it(tmp_path: Path) -> None:
    sounds(tmp_path, "20240501_053000.wav")
    write(tmp_path, {"run.json": RUN})
    collection = read(tmp_path)
    assert [row.name for row in collection.recordings] == ["20240501_053000.wav"]
    assert not noted(collection, "are no pages")


def test_a_folder_of_recordings_that_also_got_the_results_is_searched_from_above(tmp_path: Path) -> None:
    """As after `cd pond; python predictor.py . --out .`, or with both paths written out."""
    runs: dict[str, dict[str, object]] = {
        "pond": {"settings": {"inputs": ["."], "out": "."}},
        "ridge": {"settings": {}, "inputs": [str(tmp_path / "ridge")]},
        "results": {"settings": {"inputs": ["."], "out": "results"}, "inputs": [str(tmp_path / "pond")]},
    }
    for name, told in runs.items():
        sounds(tmp_path, f"{name}/a.wav")
        write(tmp_path, {f"{name}/run.json": json.dumps(json.loads(RUN) | told)})
    assert [row.name for row in read(tmp_path).recordings] == ["pond/a.wav", "ridge/a.wav"]
