"""A classifier's scores become labels as the limits say, and a table that cannot be trained on is named."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from archive.layouts import read_collection
from archive.pseudo_labels import (
    apart_from,
    labelled_with,
    labelling_models,
    read_limits,
    read_pseudo_labels,
    site_of,
    sites_of,
)
from archive.recordings import COLUMNS, Recording, read_recordings, write_recordings
from config import DataSettings

SPECIES = ("frog", "owl", "newt")


def labels_of(*scores: float, table: Path | None = None) -> tuple[tuple[str, ...], tuple[float, ...]]:
    return read_limits(table, SPECIES, 0.1, 0.9, 0.5).labels_of(np.array(scores, np.float32))


def say(table: Path, **facts: object) -> None:
    """What run.json beside a table is to say in place of the usual."""
    usual: dict[str, object] = {"status": "finished", "teachers": [{"model": "an owl's"}]}
    (table.parent / "run.json").write_text(json.dumps(usual | facts))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two windows of 12 s of noise, labelled by somebody."""
    noise = np.random.default_rng(0).normal(0, 0.1, 12 * 16_000)
    (tmp_path / "pond").mkdir()
    soundfile.write(tmp_path / "pond" / "dawn.wav", noise, 16_000)
    row = Recording(tmp_path / "pond" / "dawn.wav", "pond/dawn.wav", seconds=12.0, site="pond")
    first = replace(row, labels=("frog", "owl"), scores=(0.9, 0.3), start=0.0, end=5.0)
    write_recordings(
        tmp_path / "recordings.csv", [first, replace(first, labels=("owl",), scores=(0.6,), start=10.0, end=12.0)]
    )
    say(tmp_path / "recordings.csv")
    return tmp_path / "recordings.csv"


def test_what_is_below_the_lowest_counts_as_nothing_and_nothing_is_above_the_highest() -> None:
    assert labels_of(0.3, 0.97, 0.09) == (("owl", "frog"), (0.9, 0.3))
    assert labels_of(0.1, 0.5, 0.0999) == (("owl", "frog"), (0.5, 0.1)), "the limits themselves are within"
    assert labels_of(0.95, 0.99, 0.97) == (("owl", "newt", "frog"), (0.9, 0.9, 0.9)), "in the order of the scores"


def test_a_window_in_which_no_species_is_sure_has_no_label() -> None:
    assert labels_of(0.49, 0.49, 0.49) == ((), ())
    assert labels_of(0.51, 0.49, 0.49)[0] == SPECIES


def test_a_species_may_have_limits_of_its_own(tmp_path: Path) -> None:
    table = tmp_path / "limits.csv"
    table.write_text("label,lowest,highest\nowl,0.7,\nnewt,,0.6\n")
    assert labels_of(0.95, 0.69, 0.8, table=table) == (("frog", "newt"), (0.9, 0.6))
    assert labels_of(0.95, 0.71, 0.8, table=table) == (("frog", "newt", "owl"), (0.9, 0.6, 0.71))
    assert labels_of(0.95, 0.69, 0.8) == (("frog", "newt", "owl"), (0.9, 0.8, 0.69)), "without it"


def test_a_species_that_its_limits_take_away_keeps_no_window(tmp_path: Path) -> None:
    table = tmp_path / "limits.csv"
    for taken in ("frog,1,1", "frog,0,0", "frog,,0"):
        table.write_text(f"label,lowest,highest\n{taken}\n")
        assert labels_of(0.99, 0.12, 0.3, table=table) == ((), ()), "nothing that is left is sure"
        assert labels_of(0.99, 0.12, 0.6, table=table) == (("newt", "owl"), (0.6, 0.12))
    assert labels_of(0.99, 0.12, 0.3)[0] == ("frog", "newt", "owl"), "without it"


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("toad,0.1,0.9", "line 2: 'toad' is no species of the classifier"),
        ("owl,1.2,", "line 2: lowest '1.2'; give a score from 0 to 1"),
        ("owl,nan,", "line 2: lowest 'nan'; give a score"),
        ("owl,0.95,", "line 2: lowest 0.95 is above highest 0.9"),
        ("owl,0.2,\nfrog,0.3,\nowl,0.4,", r"line 4: label owl stands at .* line 2 already; keep one row"),
    ],
)
def test_a_limit_that_cannot_be_is_named(row: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "limits.csv").write_text(f"label,lowest,highest\n{row}\n")
    with pytest.raises(AssertionError, match=complaint):
        labels_of(0.9, 0.9, 0.9, table=tmp_path / "limits.csv")


def test_scores_survive_the_way_to_disk_and_other_tables_have_no_such_column(table: Path, tmp_path: Path) -> None:
    rows = read_recordings(table)
    assert [(row.labels, row.scores) for row in rows] == [(("frog", "owl"), (0.9, 0.3)), (("owl",), (0.6,))]
    assert table.read_text().splitlines()[0] == ",".join((*COLUMNS, "scores"))
    write_recordings(tmp_path / "others.csv", [replace(row, scores=()) for row in rows])
    assert (tmp_path / "others.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_a_whole_table_is_read_with_the_true_length_of_its_files(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_pseudo_labels(table, SPECIES)
    assert [(row.start, row.end, row.seconds, row.status) for row in rows] == [(0, 5, 12, "ok"), (10, 12, 12, "ok")]
    assert "2 windows of 1 recordings of 1 sites with pseudo-labels (sum 2)" in capsys.readouterr().out


def cell(old: str, new: str) -> Callable[[Path], object]:
    """A table with another cell in its first row."""

    def write(table: Path) -> None:
        table.write_text(table.read_text().replace(old, new, 1))

    return write


def without_sound(table: Path) -> None:
    (table.parent / "pond" / "dawn.wav").unlink()


def with_damaged_sound(table: Path) -> None:
    (table.parent / "pond" / "dawn.wav").write_text("rain")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (Path.unlink, r"no table .*recordings\.csv; `python pseudo_label\.py"),
        (
            cell("frog;owl", "owl;owl"),
            r"1 windows name a label more than once, such as .* from 0 s \(owl, owl\); keep one",
        ),
        (cell("frog;owl", "toad;owl"), r"has 1 labels that are no species of this training, \['toad'\]"),
        (cell("0.9;0.3", "nan;0.3"), r"line 2: scores 'nan' is no number"),
        (cell("0.9;0.3", "1.9;0.3"), r"line 2: scores '1\.9;0\.3' of the labels 'frog;owl'; give each a score from 0"),
        (cell("0.9;0.3", "0.9;-0.3"), r"line 2: scores '0\.9;-0\.3' of the labels"),
        (cell("0.9;0.3", "0.9"), r"line 2: scores '0\.9' of the labels 'frog;owl'"),
        (cell("0.9;0.3", ""), r"1 of 2 labelled rows are windows with scores; give --data\.pseudo the table that"),
        (cell("10,12", "10,13"), r"the window from 10 to 13 s of pond/dawn\.wav does not lie within its 12 s"),
        (cell("10,12", "12,10"), r"the window from 12 to 10 s of pond/dawn\.wav does not lie"),
        (cell("10,12", "0,5"), r"1 windows stand there more than once, such as dawn\.wav from 0 to 5 s; keep one row"),
        (without_sound, r"1 of 1 recordings are not there, such as .*dawn"),
        (with_damaged_sound, "does not lie within its 0 s"),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_named(
    spoil: Callable[[Path], object], complaint: str, table: Path
) -> None:
    spoil(table)
    with pytest.raises(AssertionError, match=complaint) as caught:
        read_pseudo_labels(table, SPECIES)
    assert "\n" not in str(caught.value)


def test_nothing_of_a_site_that_is_held_out_and_nothing_that_people_labelled_is_learnt_from(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_pseudo_labels(table, SPECIES)
    other = Recording(Path("/else/a.wav"), "a.wav", ("frog",), site="ridge")
    assert apart_from(rows, [other], [other]) == rows
    assert apart_from(rows, [replace(other, path=rows[0].path)], [other]) == []
    assert apart_from(rows, [replace(other, site="pond")], [other]) == rows, "a site that trains may be learnt from"
    assert apart_from(rows, [other], [replace(other, site="pond")]) == []
    said = capsys.readouterr().out
    assert said.count("2 of 2 windows with pseudo-labels are left out") == 2 and "site is held out (pond)" in said
    assert said.count("no window with pseudo-labels is left: training goes on without any") == 2
    assert "says where it was made" not in said


def test_the_folder_of_what_is_held_out_is_its_site_unless_it_is_that_of_a_species(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_pseudo_labels(table, SPECIES)
    noon = Recording(Path("/else/pond/noon.wav"), "pond/noon.wav", ("frog",), source="annotations")
    assert apart_from(rows, [], [noon]) == []
    assert "none of" not in capsys.readouterr().out
    assert apart_from(rows, [], [replace(noon, source="folders")]) == rows
    assert "none of 1 held-out recordings says where it was made" in capsys.readouterr().out
    named = replace(noon, path=Path("/else/pond/H21_20230510_051500.wav"), source="folders")
    assert sites_of([noon, named, replace(noon, site="ridge")]) == {"pond", "H21", "ridge"}


def test_a_site_is_the_same_for_what_is_labelled_and_what_is_held_out(table: Path) -> None:
    pattern = re.compile("/(S[0-9])_")
    assert site_of(Path("season/S1_x/20260510_051500.wav"), "S1_x", pattern) == "S1"
    assert site_of(Path("season/S1_x/20260510_051500.wav"), "S1_x", None) == "S1_x"
    assert site_of(Path("season/card/H21_20260510_051500.wav"), "card", pattern) == "H21"
    assert site_of(Path("season/card/H21_20260510_051500.wav"), "ridge", None) == "ridge", "as a table says"
    assert site_of(Path("season/owl/a.wav"), "", None, folders=False) == ""
    assert labelled_with(table) == {}
    say(table, settings={"site_regex": "/po(n)d/"})
    rows = [replace(row, site="n") for row in read_pseudo_labels(table, SPECIES)]
    noon = Recording(Path("/else/pond/noon.wav"), "pond/noon.wav", ("frog",), source="annotations")
    assert apart_from(rows, [], [noon]) == rows, "without the pattern its site is another one"
    assert apart_from(rows, [], [noon], labelled_with(table)["site_regex"]) == []


def test_a_copy_of_what_is_held_out_is_not_learnt_from(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, dawn = read_pseudo_labels(table, SPECIES), table.parent / "pond" / "dawn.wav"
    elsewhere = table.parent / "people"
    elsewhere.mkdir()
    samples = soundfile.read(dawn, dtype="float32")[0]
    for name, sound in (("copy.flac", samples), ("other.flac", samples[::-1])):
        soundfile.write(elsewhere / name, sound, 16_000)
    held_out = Recording(elsewhere / "copy.flac", "copy.flac", ("frog",), site="ridge")
    assert apart_from(rows, [], [replace(held_out, path=elsewhere / "other.flac")]) == rows
    assert "left out" not in capsys.readouterr().out
    assert apart_from(rows, [], [held_out]) == []
    assert "copies of held-out ones (1)" in capsys.readouterr().out


def test_a_table_that_was_labelled_at_another_speed_is_refused(table: Path) -> None:
    say(table, settings={"time_expansion": 10})
    with pytest.raises(AssertionError, match=r"with --time_expansion 10, and is read with --data\.time_expansion 1"):
        read_pseudo_labels(table, SPECIES)


def test_it_is_no_data_root(table: Path) -> None:
    with pytest.raises(AssertionError, match=r"holds a classifier's labels, .* give it as --data\.pseudo"):
        read_collection(DataSettings(table))


def test_who_labelled_a_table_stands_beside_it(table: Path) -> None:
    say(table, teachers=[{"run": "finetune-001", "seed": 0}, 7])
    assert labelling_models(table) == [{"run": "finetune-001", "seed": 0}]


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ({"teachers": []}, r"run\.json does not name the classifiers that labelled recordings\.csv; label again"),
        ({"teachers": "an owl"}, "does not name the classifiers"),
        ({"status": "interrupted"}, r"the last labelling was not finished \(interrupted\), so recordings\.csv may"),
        ({"status": "running", "teachers": []}, r"not finished \(running\)"),
        ({"status": None}, r"not finished \(None\)"),
    ],
)
def test_a_table_of_which_nobody_says_who_labelled_it_is_not_learnt_from(
    facts: dict[str, object], complaint: str, table: Path
) -> None:
    say(table, **facts)
    with pytest.raises(AssertionError, match=complaint):
        read_pseudo_labels(table, SPECIES)


def test_a_table_that_was_copied_without_its_run_is_not_learnt_from(table: Path) -> None:
    (table.parent / "run.json").unlink()
    with pytest.raises(AssertionError, match=r"no .*run\.json says who labelled recordings\.csv, on what terms"):
        read_pseudo_labels(table, SPECIES)
