"""BirdCLEF's tables, of every year and as spreadsheets save them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from layouts import (
    birdclef,
    by_name,
    labels,
    line,
    lineage,
    noted,
    own_table,
    read,
    real_birdclef,
    sounds,
    write,
)

from archive.birdclef import parse_labels
from demo_data import FieldSeason
from taxonomy import FAMILY, RANKS


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
        f"{soundscape},00:01:05,00:01:10,greti;tawow\n"
        f"{soundscape},00:01:10,00:01:15,47158son01\n"
    )
    write(tmp_path, {"train_soundscapes_labels.csv": table})
    collection = read(tmp_path)
    rows = [row for row in collection.recordings if row.name.endswith(soundscape)]
    assert [(row.start, row.end, row.labels, row.status) for row in rows] == [
        (5.0, 10.0, ("greti", "65448"), "ok"),
        (65.0, 70.0, ("tawow", "greti"), "ok"),
        (70.0, 75.0, ("47158son01",), "refused"),
    ]
    assert rows[0].site == "S01" and rows[0].recorded_at == "2025-01-01T05:00:00"
    assert noted(collection, "1 rows stood there twice")
    assert noted(
        collection, f"1 rows speak of a stretch of which another row speaks: joined, train_soundscapes/{soundscape}"
    )
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
