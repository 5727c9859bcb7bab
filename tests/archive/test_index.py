"""Recordings are found by what tables call them; what cannot be used stays as a row with its reason."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from layouts import by_name, noted, own_table, read, sounds, write
from test_metadata import texts, wav

from archive.index import NameIndex, iso_time, with_metadata
from archive.recordings import Recording, read_recordings, write_recordings


def test_unlabelled_recordings_tell_time_and_place_by_their_names(tmp_path: Path) -> None:
    sounds(tmp_path, "siteA/H21_20230510_051500.ogg", "siteB/00000000.WAV", "x.mp3", ".hidden.wav", "._x.wav")
    collection = read(tmp_path)
    rows = by_name(collection)
    assert collection.taxonomy is None and len(rows) == 3
    assert rows["siteA/H21_20230510_051500.ogg"].recorded_at == "2023-05-10T05:15:00"
    assert rows["siteA/H21_20230510_051500.ogg"].site == "H21"
    assert rows["siteB/00000000.WAV"].recorded_at == "" and noted(collection, "00000000.WAV", "no sensible time")
    assert {row.source for row in rows.values()} == {"unlabeled"}


def test_where_there_is_no_sound_the_suffixes_that_are_there_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"a.xyz": "", "b.xyz": "", "c.pdf": ""})
    with pytest.raises(AssertionError, match=r"no recordings in .*2 \.xyz, 1 \.pdf; readable are .*\.wav"):
        read(tmp_path)


def test_a_name_that_is_not_utf8_is_refused_and_can_still_be_printed(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.wav")).touch()
    sounds(tmp_path, "good.wav")
    collection = read(tmp_path)
    rows = by_name(collection)
    assert rows["caf\\xe9.wav"].status == "refused" and "rename it" in rows["caf\\xe9.wav"].reason
    assert rows["good.wav"].status == "ok"
    "\n".join(collection.notes).encode()
    (tmp_path / "out").mkdir()
    write_recordings(tmp_path / "out" / "recordings.csv", collection.recordings)
    assert len(read_recordings(tmp_path / "out" / "recordings.csv")) == 2


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    sounds(tmp_path, "root/a.wav", "secret.wav")
    (tmp_path / "root" / "b.wav").symlink_to(tmp_path / "secret.wav")
    rows = by_name(read(tmp_path / "root"))
    assert rows["a.wav"].status == "ok"
    assert rows["b.wav"].status == "refused" and "link out of" in rows["b.wav"].reason
    table = own_table(tmp_path / "out", read(tmp_path / "root"))
    assert [row.status for row in read(table).recordings] == ["ok", "refused"]
    table.write_text(table.read_text().replace("refused", "ok"))
    assert [row.status for row in read(table).recordings] == ["ok", "refused"], "whatever the table says"


def test_names_are_found_as_far_as_folders_agree() -> None:
    index = NameIndex(["siteA/0500.wav", "siteB/0500.wav", "siteA/1.wav", "siteA/1.flac", "x/Up.WAV"])
    assert index.find("siteA/0500.wav") == ["siteA/0500.wav"]
    assert index.find("/media/card/siteB/0500.wav") == ["siteB/0500.wav"]
    assert index.find("siteC/0500.wav") == []
    assert index.find("0500.wav") == ["siteA/0500.wav", "siteB/0500.wav"]
    assert index.find("0500.wav", "siteB") == ["siteB/0500.wav"]
    assert index.find("1.flac") == ["siteA/1.flac"] and len(index.find("1")) == 2
    assert index.find("up.wav") == index.find("UP") == index.find("x\\up.mp3") == ["x/Up.WAV"]
    assert index.find("") == index.find("/") == []


@pytest.mark.parametrize(
    ("date", "time", "written"),
    [
        ("2013-05-12", "07:00", "2013-05-12T07:00:00"),
        ("2013-05-12", "7:05", "2013-05-12T07:05:00"),
        ("2013-05-12", "?", "2013-05-12"),
        ("2013-05-12", "25:00", "2013-05-12"),
        ("2013-05-00", "07:00", ""),
        ("2013-00-00", "", ""),
        ("", "07:00", ""),
        ("2021-05-07 10:12:00+00:00", "", "2021-05-07T10:12:00+00:00"),
    ],
)
def test_a_date_is_told_as_far_as_it_is_valid(date: str, time: str, written: str) -> None:
    assert iso_time(date, time) == written


def test_rows_get_what_the_recorder_wrote_into_the_file_where_no_table_says_otherwise(tmp_path: Path) -> None:
    comment = "Recorded at 05:30:00 01/05/2024 (UTC+2) by AudioMoth 24E144055DDD3203 at gain setting 2"
    path = wav(tmp_path / "20240501_063000.WAV", before=texts(ICMT=comment))
    plain = Recording(path, path.name, recorded_at="2024-05-01T06:30:00")  # from the name
    table = replace(plain, recorded_at="2023-01-01", serial="mine")
    gone = Recording(tmp_path / "gone.wav", "gone.wav", status="missing")
    (one, other, third), said = with_metadata([plain, table, gone])
    assert (one.recorded_at, one.serial) == ("2024-05-01T05:30:00+02:00", "24E144055DDD3203")
    assert (other.recorded_at, other.serial, other.make) == ("2023-01-01", "mine", one.make) and third == gone
    assert said == [
        "1 times or positions are doubtful: 20240501_063000.WAV: its name says 2024-05-01T06:30:00, the file "
        "2024-05-01T05:30:00+02:00, which is taken"
    ]
