"""Layouts as they are found in the wild, with their traps: every row is used, or stays with its reason."""

import json
from pathlib import Path
from typing import Any

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
    sounds,
    write,
    xc,
)

from archive.layouts import joined_rows
from archive.recordings import Recording
from demo_data import FieldSeason

# birdclef


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


# folders


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
    write(tmp_path, {"keep.csv": f"filename,start,end\n{tmp_path}/Parus major/a.wav,0,7\nb/Parus major/a.wav,9,12\n"})
    assert noted(read(tmp_path), "keep.csv: 1 rows name no recording", "b/Parus major/a.wav")
    write(tmp_path, {"keep.csv": "filename,start,end\na.wav,9,3\n"})
    with pytest.raises(AssertionError, match=r"keep.csv line 2: '9' to '3' is no segment"):
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


def test_rows_of_the_same_stretch_become_one_that_says_what_all_of_them_say() -> None:
    first = row("a.wav", ("owl",), absent=("wren",))
    other = row("a.wav", ("wren", "owl"), absent=("robin",))
    (one,), notes = joined_rows([first, other])
    assert (one.labels, one.absent) == (("owl", "wren"), ("robin",))
    assert notes == [
        "1 rows speak of a stretch of which another row speaks: joined, a.wav",
        "1 rows deny a label that is given there; what is given counts: a.wav: wren",
    ]
    (heard,), _ = joined_rows([row("a.wav", (), absent=("wren",)), row("a.wav", (), listened=True)])
    assert heard.labeled and heard.absent == ("wren",), "somebody listened, whichever row says so"
    assert joined_rows([first, first]) == ([first], ["1 rows stood there twice"])


def test_rows_of_other_stretches_and_each_refused_one_stay_apart() -> None:
    rows = [
        row("a.wav", ("owl",)),
        row("a.wav", ("wren",), start=0.0, end=5.0),
        row("a.wav", ("wren",), start=1.0, end=6.0),
        row("a.wav", ("robin",), status="refused", reason="line 2: no time"),
        row("a.wav", ("wren",), status="refused", reason="line 3: no time"),
        row("b.wav", ("wren",)),
    ]
    assert joined_rows(rows) == (rows, [])


def row(name: str, labels: tuple[str, ...], **more: Any) -> Recording:
    return Recording(Path(name), name, labels, **more)
