"""JSON of iNaturalist and xeno-canto, whole, spoilt and hostile."""

import os
from pathlib import Path

import pytest
from layouts import by_name, inat, inat_audio, labels, lineage, noted, page, read, sounds, write, xc

from archive.collection import Collection
from archive.portals import license_name
from archive.splits import with_groups


def test_inaturalist_files_carry_the_whole_lineage(tmp_path: Path) -> None:
    train = inat(
        [
            inat_audio(11, "train/00003_Parus/a.wav", date="2021-05-07 10:12:00+00:00", latitude=47.5, longitude=8.1),
            inat_audio(12, "00003_Parus/b.wav", date=None, latitude=float("nan"), longitude=None),
            inat_audio(13, "train/00003_Parus/gone.wav"),
        ],
        {11: 3, 12: 3, 13: 3},
    )
    assert "NaN" in train
    val = inat([inat_audio(21, "val/00003_Parus/a.wav", date="?")], {21: 3})
    write(tmp_path, {"train.json": train, "annotations/val.json": val, "notes.json": '{"season": 1}'})
    sounds(tmp_path, *(f"{name}.wav" for name in ("train/00003_Parus/a", "train/00003_Parus/b", "val/00003_Parus/a")))
    sounds(tmp_path, "val/00003_Parus/extra.wav")
    collection = read(tmp_path)
    assert noted(collection, "inaturalist, because train.json") and noted(collection, "1 sound files", "extra.wav")
    assert labels(collection) == ("Parus major",), "only what occurs is a label"
    assert lineage(collection, "Parus major")["family"] == "Paridae"
    rows = by_name(collection)
    first = rows["train/00003_Parus/a.wav"]
    assert first.labels == ("Parus major",) and first.recording_id == "train/11"
    assert (first.author, first.license) == ("Ada", "CC BY-NC 4.0")
    assert (first.recorded_at, first.latitude, first.longitude) == ("2021-05-07T10:12:00+00:00", "47.5", "8.1")
    second = rows["train/00003_Parus/b.wav"]
    assert (second.status, second.recorded_at, second.latitude, second.longitude) == ("ok", "", "", "")
    assert rows["train/00003_Parus/gone.wav"].status == "missing"
    assert rows["val/00003_Parus/a.wav"].recording_id == "val/21"


def groups(collection: Collection) -> dict[str, str]:
    """The group of each row by its name."""
    return {row.name: row.group for row in with_groups(collection.recordings, [], 5)}


def test_two_splits_may_hold_the_same_id_and_are_not_joined(tmp_path: Path) -> None:
    """Nor are recordings without an id. The negative control: what one split names twice is one recording."""
    for split in ("train", "val"):
        names = {"a": 1, "b": 1, "c": 2, "d": None, "e": None}
        audio = [inat_audio(0, f"x/{name}.wav", id=number, rights_holder="") for name, number in names.items()]
        write(tmp_path, {f"{split}.json": inat(audio, {1: 3, 2: 3})})
        sounds(tmp_path, *(f"{split}/x/{name}.wav" for name in "abcde"))
    group = groups(read(tmp_path))
    assert group["train/x/a.wav"] == group["train/x/b.wav"] != group["val/x/a.wav"] == group["val/x/b.wav"]
    assert len(group) == 10 and len(set(group.values())) == 8


@pytest.mark.parametrize(
    ("holder", "count"), [("Unknown", 2), ("unknown ", 2), ("ANONYMOUS", 2), (None, 2), ("Ada", 1)]
)
def test_an_unknown_rights_holder_is_not_one_person(holder: str | None, count: int, tmp_path: Path) -> None:
    audio = [inat_audio(number, f"x/{number}.wav", rights_holder=holder) for number in (1, 2)]
    write(tmp_path, {"train.json": inat(audio, {1: 3, 2: 3})})
    sounds(tmp_path, "train/x/1.wav", "train/x/2.wav")
    collection = read(tmp_path)
    assert {row.author for row in collection.recordings} == {"" if count == 2 else "Ada"}
    assert len(set(groups(collection).values())) == count


def test_a_split_of_inaturalist_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", sounds(tmp_path / "disk", "x/a.wav")
    write(root, {"train.json": inat([inat_audio(1, "train/x/a.wav")], {1: 4})})
    (root / "train").symlink_to(disk)
    assert by_name(read(root))["train/x/a.wav"].status == "ok"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "train/../../x.wav", "", "a\0b.wav", "\ud800/.."])
def test_hostile_names_in_json_do_not_leave_the_root(name: str, tmp_path: Path) -> None:
    write(tmp_path, {"train.json": inat([inat_audio(1, name), inat_audio(2, "a.wav")], {1: 3, 2: 3})})
    sounds(tmp_path, "a.wav")
    if name == "\ud800/..":
        assert all(row.path.is_relative_to(tmp_path) for row in read(tmp_path).recordings)
    else:
        with pytest.raises(AssertionError, match=r"train.json audio\[0\]: file_name .* leaves"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"audio": [', "no JSON"),
        ('{"audio": 3}', "audio is no list"),
        ('{"audio": [3]}', r"audio\[0\] is no object"),
        ('["audio": 1]', "no JSON"),
        ('[{"audio": 1}]', "holds no JSON object"),
        ('{"audio": ' + "[" * 100_000 + "]" * 100_000 + "}", "no JSON|is no object"),
        ('{"audio": [], "annotations": [{"audio_id": 1, "category_id": 9}]}', r"annotations\[0\]: category '9'"),
        ('{"audio": ' + "9" * 5000 + "}", "no JSON"),
        (b'{"audio": "\xff"}', "no JSON"),
    ],
)
def test_json_that_is_spoilt_is_refused_in_one_line_where_the_flag_takes_it_for_a_page(
    content: str | bytes, complaint: str, tmp_path: Path
) -> None:
    write(tmp_path, {"train.json": content})
    with pytest.raises(AssertionError, match=complaint) as failure:
        read(tmp_path, "inaturalist")
    assert "train.json" in str(failure.value) and "\n" not in str(failure.value)


STRANGERS = {
    "a count": '{"recordings": 12}',
    "features": '{"features": {"audio": {}}}',
    "a labelling tool": '[{"data": {"audio": "a"}}]',
    "a playlist": '{"recordings": [{"id": 1, "title": "dawn"}]}',
    "a manifest": '{"audio": [{"path": "a.wav"}], "annotations": [], "categories": []}',
    "other linked data": '{"audio": [{"id": 1, "file_name": "a.wav"}], "annotations": [{"t": 1}], "categories": []}',
    "an empty list": '{"recordings": []}',
    "cut off": '{"numRecordings": "3", "recordings": [{"id": "1", "gen": "Boana"',
    "an answer of another": '{"error": "not found", "message": "no such page"}',
    "no text": b'{"audio": "\xff"}',
    "deep": '{"audio": ' + "[" * 100_000,
}


@pytest.mark.parametrize("content", STRANGERS.values(), ids=STRANGERS)
@pytest.mark.parametrize("folder", ["", "annotations/", "site A/"])
def test_a_stranger_among_the_recordings_is_named_and_stops_nothing(
    content: str | bytes, folder: str, tmp_path: Path
) -> None:
    write(tmp_path, {f"{folder}notes.json": content})
    sounds(tmp_path, "site A/20240501_053000.wav", "b.wav")
    collection = read(tmp_path)
    assert noted(collection, "unlabeled, because") and len(collection.recordings) == 2
    assert noted(
        collection, "1 JSON files are no pages of", "ignored: notes.json; --data.layout", "takes them for such"
    )
    assert all(row.sound for row in collection.recordings)


def test_beside_real_pages_a_stranger_is_left_out_and_what_is_no_page_at_all_is_not_mentioned(tmp_path: Path) -> None:
    write(tmp_path, {"page.json": page(xc(1, "Boana", "boans")), "notes.json": '{"recordings": 12}', "c.json": "{}"})
    sounds(tmp_path, "XC1.mp3")
    for layout in ("auto", "xeno-canto"):
        collection = read(tmp_path, layout)
        assert by_name(collection)["XC1.mp3"].labels == ("Boana boans",)
        assert noted(collection, "1 JSON files are no pages of xeno-canto as a whole, and ignored: notes.json")
        assert not noted(collection, "takes them for such"), "a count is none, whatever somebody says"
    empty = '{"numRecordings": "0", "numSpecies": "0", "page": 1, "numPages": 0, "recordings": []}'
    write(tmp_path, {"notes.json": empty})
    assert not noted(read(tmp_path), "are no pages"), "a search that found nothing is a page"


def test_beside_a_whole_page_the_flag_takes_what_has_the_lists_of_one(tmp_path: Path) -> None:
    bare = page(xc(2, "Rana", "temporaria")).replace('"sp"', '"species"')
    assert bare != page(xc(2, "Rana", "temporaria"))
    write(tmp_path, {"page1.json": page(xc(1, "Boana", "boans")), "page2.json": bare})
    sounds(tmp_path, "XC1.mp3", "XC2.mp3")
    collection = read(tmp_path)
    assert noted(collection, "ignored: page2.json; --data.layout xeno-canto takes them for such")
    assert set(by_name(collection)) == {"XC1.mp3"} or not by_name(collection)["XC2.mp3"].labels
    named = read(tmp_path, "xeno-canto")
    assert by_name(named)["XC2.mp3"].source == "xeno-canto" and not noted(named, "as a whole")


def test_the_split_of_inatsounds_that_has_no_annotations_is_a_page(tmp_path: Path) -> None:
    test = '{"audio": [{"id": 1, "file_name": "a.wav"}], "categories": []}'
    write(tmp_path, {"test.json": test})
    sounds(tmp_path, "a.wav")
    for layout in ("auto", "inaturalist"):
        collection = read(tmp_path, layout)
        assert noted(collection, "inaturalist, because") and not noted(collection, "as a whole")


def test_a_json_file_of_more_than_two_gigabytes_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, {"train.json": '{"audio": []}'})
    os.truncate(tmp_path / "train.json", 3 * 2**30)
    with pytest.raises(AssertionError, match=r"train.json has 3.0 GiB; split it"):
        read(tmp_path)


def test_saved_pages_of_xeno_canto_find_their_recordings(tmp_path: Path) -> None:
    first = page(
        xc(1, "Amazona", "ochrocephala", also=["Boana boans", "Nobody here", "Amazona ochrocephala"]),
        xc(2, "Boana", "boans", grp="frogs", q="no score", time="?", **{"file-name": "b.wav"}),
        xc(3, "Boana", "boans", grp="frogs", date="2013-05-00", q="C"),
        xc(4, "Boana", "boans", grp="frogs", file="", **{"file-name": ""}),
        xc(5, "Boana", "boans", grp="frogs", lat=None, lon="far"),
        xc(6, "Mystery", "mystery", grp=""),
    )
    write(tmp_path, {"page1.json": first, "page2.json": page(xc(1, "Amazona", "ochrocephala"))})
    sounds(tmp_path, "XC1-bird.mp3", "frogs/b.wav", "frogs/XC3 - Frog - Boana boans.flac", "XC6.ogg", "XC30.mp3")
    collection = read(tmp_path)
    assert noted(collection, "xeno-canto, because page1.json")
    assert labels(collection) == ("Amazona ochrocephala", "Boana boans")
    assert lineage(collection, "Amazona ochrocephala")["family"] == "Psittacidae"
    assert lineage(collection, "Boana boans")["class"] == "Amphibia"
    rows = {row.recording_id: row for row in collection.recordings}
    assert len(rows) == len(collection.recordings) == 5
    assert rows["XC1"].labels == ("Amazona ochrocephala", "Boana boans")
    assert noted(collection, "1 further labels", "Nobody here")
    assert (rows["XC1"].recorded_at, rows["XC1"].rating) == ("2013-05-12T07:00:00", "5")
    assert (rows["XC1"].author, rows["XC1"].site, rows["XC1"].license) == ("Ada", "Gamboa, Colón", "cc-by-nc-sa 4.0")
    assert (rows["XC1"].latitude, rows["XC1"].longitude) == ("9.12", "-79.7")
    assert (rows["XC2"].name, rows["XC2"].recorded_at, rows["XC2"].rating) == ("frogs/b.wav", "2013-05-12", "")
    assert (rows["XC3"].name, rows["XC3"].recorded_at) == ("frogs/XC3 - Frog - Boana boans.flac", "")
    assert noted(collection, "1 recordings of protected species", "XC4")
    assert (rows["XC5"].status, rows["XC5"].name, rows["XC5"].longitude) == ("missing", "XC5.mp3", "")
    assert (rows["XC6"].labels, rows["XC6"].status) == ((), "ok"), "nobody knows who it is"
    assert noted(collection, "1 sound files are not in pages", "XC30.mp3")


def test_pages_may_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, {"pages/1.json": page(xc(1, "Boana", "boans", grp="frogs"))})
    sounds(tmp_path, "sound/XC1.mp3")
    collection = read(tmp_path)
    assert noted(collection, "xeno-canto, because") and by_name(collection)["sound/XC1.mp3"].status == "ok"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\..\\etc\\passwd", "a\0b", ".", "/"])
def test_file_names_of_xeno_canto_are_only_looked_up(name: str, tmp_path: Path) -> None:
    write(tmp_path, {"p.json": page(xc(1, "Boana", "boans", **{"file-name": name}), xc(2, "Boana", "boans"))})
    sounds(tmp_path, "XC2.mp3")
    rows = by_name(read(tmp_path))
    assert set(rows) == {"XC1.mp3", "XC2.mp3"} and rows["XC1.mp3"].status == "missing"


def test_an_error_that_was_saved_as_a_page_is_said_to_be_one(tmp_path: Path) -> None:
    write(tmp_path, {"page1.json": '{"error": "client_error", "message": "Missing or invalid key"}'})
    with pytest.raises(AssertionError, match=r"page1.json .*'client_error' \(Missing or invalid key\); delete it"):
        read(tmp_path)


def test_an_id_that_is_no_number_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"p.json": page(xc("../1", "Boana", "boans"))})
    with pytest.raises(AssertionError, match=r"recordings\[0\]: id '\.\./1' is no number"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("//creativecommons.org/licenses/by-nc-sa/4.0/", "cc-by-nc-sa 4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "cc-0 1.0"),
        ("all rights reserved", "all rights reserved"),
        ("", ""),
    ],
)
def test_addresses_of_licences_become_names(address: str, name: str) -> None:
    assert license_name(address) == name
