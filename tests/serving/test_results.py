"""What the predictor left: read as it stands there, older tables too, and no name leads out of the user's folder."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from pretend import read_rows, write_results

from serving.detections import DETECTION_COLUMNS as COLUMNS
from serving.detections import VOICE
from serving.results import FILE, hidden, read_results, sound_finder


def test_every_cell_is_read_as_it_stands_there(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path))
    rows = read_rows(tmp_path / "results" / "detections.csv")
    assert [list(d.cells) for d in results.detections] == [[row[name] for name in COLUMNS] for row in rows]
    assert (results.detections[1].start, results.detections[1].end, results.detections[1].label) == (5.0, 10.0, "greti")
    assert len(results.files) == 3 and results.facts["started"].startswith("2026")


def test_the_licences_of_the_models_are_read_whatever_stands_there(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path))
    said = ["licence of m.onnx: cc-by-4.0", 3, "m.onnx. NON-COMMERCIAL: made with the help of BirdNET"]
    assert replace(results, facts={"licences": said}).licences == (said[0], said[2])
    for nothing in ({}, {"licences": "MIT"}, {"licences": None}):
        assert replace(results, facts=nothing).licences == ()


def test_of_several_folders_the_newest_is_taken(tmp_path: Path) -> None:
    for number, name in enumerate(("b", "a")):
        folder = write_results(tmp_path / name)
        os.utime(folder / "detections.csv", (number, number))
    (tmp_path / "all").mkdir()
    for name in ("a", "b"):
        (tmp_path / name / "results").rename(tmp_path / "all" / name)
    assert read_results(tmp_path / "all").folder == tmp_path / "all" / "a"


def test_birdnets_six_columns_are_enough_and_the_rest_is_blank(tmp_path: Path) -> None:
    (tmp_path / "detections.csv").write_text(
        "Start (s),End (s),Scientific name,Common name,Confidence,File\n3,6,Strix aluco,Tawny Owl,0.91,dawn.wav\n"
    )
    results = read_results(tmp_path)
    assert results.detections[0].label == "Strix aluco" and results.detections[0].cell("Site") == ""
    assert results.files == () and results.facts == {} and results.model == ""


def test_a_file_name_keeps_its_blanks_and_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "detections.csv").write_text(
        'Start (s),End (s),Confidence,File,Species code\n0,5,0.5," a\nb.wav ",x\n', newline=""
    )
    assert read_results(tmp_path).detections[0].file == " a\nb.wav "


def test_a_replacement_character_is_part_of_a_name_and_a_byte_that_is_no_utf_8_is_damage(tmp_path: Path) -> None:
    table, head = tmp_path / "detections.csv", b"Start (s),End (s),Confidence,File,Species code\n"
    table.write_bytes(head + "0,5,0.5,a\ufffd.wav,x\n".encode())
    assert read_results(tmp_path).detections[0].file == "a\ufffd.wav"
    table.write_bytes(head + b"0,5,0.5,a\xe9.wav,x\n")
    with pytest.raises(AssertionError, match="line 2 is not in UTF-8"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("zero,5,0.5,a.wav", "not all numbers"),
        ("5,5,0.5,a.wav", "no window"),
        ("0,5,1.5,a.wav", "no window"),
        ("nan,5,0.5,a.wav", "not all numbers"),
    ],
)
def test_a_row_that_cannot_be_is_named_by_its_line(tmp_path: Path, row: str, said: str) -> None:
    (tmp_path / "detections.csv").write_text(f"Start (s),End (s),Confidence,File\n0,5,0.5,a.wav\n{row}\n")
    with pytest.raises(AssertionError, match=f"line 3.*{said}"):
        read_results(tmp_path)


def test_what_is_missing_is_said_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="name the folder that"):
        read_results(tmp_path)
    (tmp_path / "detections.csv").write_text("Start (s),End (s),Confidence\n0,5,0.5\n")
    with pytest.raises(AssertionError, match="'File'"):
        read_results(tmp_path)
    (tmp_path / "detections.csv").write_text("Start (s),End (s),Confidence,File\n")
    with pytest.raises(AssertionError, match="nothing to listen to"):
        read_results(tmp_path)


def test_the_model_is_known_by_its_hash_or_by_the_table(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    assert read_results(folder).model == "ab" * 32
    (folder / "run.json").unlink()
    assert read_results(folder).model == "pretend.onnx"


def test_a_relative_path_opens_from_where_the_predictor_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = read_results(write_results(tmp_path))
    name = results.detections[0].file
    assert sound_finder(results, None)(name) == tmp_path / name
    (results.folder / "run.json").write_text("{}")
    elsewhere = read_results(results.folder)
    assert sound_finder(elsewhere, None)(name) is None
    monkeypatch.chdir(tmp_path)
    assert sound_finder(elsewhere, None)(name) == Path(name)


def test_moved_recordings_are_found_by_as_much_of_their_path_as_is_left(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path))
    name = results.detections[0].file  # card/site_A/...
    (tmp_path / "card").rename(tmp_path / "disk")
    assert sound_finder(results, None)(name) is None
    find = sound_finder(results, tmp_path / "disk")
    assert find(name) == tmp_path / "disk" / "site_A" / Path(name).name
    assert find("E:\\season\\" + name.replace("/", "\\")) == find(name), "a path of another computer"
    assert find(f"site_A\\{Path(name).name}") == find(name)
    assert find("card/site_C/" + Path(name).name) is None, "another site's recording of that name"


def test_two_recordings_of_one_name_are_none(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path))
    for site in "AB":
        (tmp_path / "card" / f"site_{site}" / "0500.wav").touch()
    find = sound_finder(results, tmp_path / "card")
    assert find("0500.wav") is None and find("site_B/0500.wav") == tmp_path / "card" / "site_B" / "0500.wav"


def test_a_recording_of_another_site_is_never_played_for_one_of_the_same_name(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path))
    detections = [
        replace(d, cells=(*d.cells[:FILE], f"season/site_{site}/0500.wav", *d.cells[FILE + 1 :]))
        for d, site in zip(results.detections, "AB", strict=False)
    ]
    for folder in ("site_A", "backup"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0500.wav").touch()
    both = replace(results, detections=tuple(detections), files=())
    of_a, of_b = (d.file for d in detections)
    find = sound_finder(both, tmp_path / "site_A")
    assert find(of_a) == tmp_path / "site_A" / "0500.wav" and find(of_b) is None
    find = sound_finder(both, tmp_path / "backup")
    assert find(of_a) is None and find(of_b) is None, "nobody can say whose it is"
    find = sound_finder(replace(both, detections=both.detections[:1]), tmp_path / "backup")
    assert find(of_a) == tmp_path / "backup" / "0500.wav", "of one there is no doubt"


def test_nothing_outside_of_the_users_folder_is_found(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path))
    secret = tmp_path / "secret.wav"
    secret.touch()
    inside = tmp_path / "card"
    find = sound_finder(results, inside)
    for name in ("../secret.wav", str(secret), "../../etc/passwd", "site_A/../../secret.wav", "", "\0", "."):
        assert find(name) is None, name
    assert sound_finder(results, tmp_path)("secret.wav") == secret, "there it would have been found"
    (inside / "link.wav").symlink_to(secret)
    assert sound_finder(results, inside)("link.wav") is None


def test_hidden_results_name_no_recording_no_site_and_no_reason(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path))
    secret = hidden(results)
    told = json.dumps([[d.cells for d in secret.detections], [dict(row) for row in secret.files]])
    plain = json.dumps([[d.cells for d in results.detections], [dict(row) for row in results.files]])
    for word in ("card", "site_A", "site A", "A1_2026", ".wav", "is text"):
        assert word in plain and word not in told, word
    assert {d.file for d in secret.detections} == {"recording 1", "recording 2"}
    assert [d.confidence for d in secret.detections] == [d.confidence for d in results.detections]


def test_hidden_results_name_no_position_and_no_recorder(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path))
    known = [{**row, "latitude": "47.5", "longitude": "8.25", "serial": "S4U0", "make": "m"} for row in results.files]
    secret = hidden(replace(results, files=tuple(known)))
    assert {(row["latitude"], row["longitude"], row["serial"]) for row in secret.files} == {("", "", "")}


def test_seconds_of_voices_are_read_where_a_table_has_them(tmp_path: Path) -> None:
    head = "Start (s),End (s),Scientific name,Common name,Confidence,File"
    rows = [f"{5 * n},{5 * n + 5},Strix aluco,Tawny Owl,0.9,dawn.wav" for n in range(3)]
    told = ("1.25", "0", "=cmd()")
    table = tmp_path / "detections.csv"
    table.write_text("\n".join([f"{head},{VOICE}", *(f"{row},{cell}" for row, cell in zip(rows, told, strict=True))]))
    results = read_results(tmp_path)
    assert results.searched and [d.voice for d in results.detections] == [1.25, 0.0, 0.0]
    table.write_text("\n".join([head, *rows]))
    results = read_results(tmp_path)
    assert not results.searched and [d.voice for d in results.detections] == [0.0] * 3
    runs: list[tuple[object, bool]] = [({"voices": "mute"}, True), ({"voices": "skip"}, False), ([], False)]
    for told_by_run, muted in runs:
        (tmp_path / "run.json").write_text(json.dumps({"settings": told_by_run}))
        assert read_results(tmp_path).muted == muted
