"""Tables of annotations as Raven and people write them, with their traps."""

from pathlib import Path

import pytest
from layouts import ANIMALS, RAVEN, TAXONOMY, birdclef, by_name, labels, lineage, noted, read, sounds, write

from archive.annotations import clock_seconds, read_annotations
from archive.recordings import read_recordings, write_recordings


def test_the_annotated_soundscapes_beside_the_project_are_read() -> None:
    folder = ANIMALS / "soundscapes"
    if not folder.is_dir():
        pytest.skip("the recordings of ../shared/animals are not there")
    collection = read(folder)
    assert noted(collection, "annotations", "annotations.csv has times in it")
    wren = [row for row in collection.recordings if row.labels == ("cranioleuca_erythrops",)]
    assert wren and all(row.name == "maad_spinetail.ogg" and row.status == "ok" for row in wren)
    assert lineage(collection, "cranioleuca_erythrops")["genus"] == "Cranioleuca"
    hourly = [row for row in collection.recordings if row.name == "maad_S4A03895_20190522_040000.ogg"]
    assert {row.recorded_at for row in hourly} == {"2019-05-22T04:00:00"}
    assert noted(collection, "annotations have no label"), "the unidentified"


def test_a_selection_table_of_raven_becomes_one_row_per_selection(tmp_path: Path) -> None:
    table = (
        f"{RAVEN}\tSpecies\r\n"
        "1\tWaveform 1\t1\t3.5\t4.25\t2000\t8000\tParus major\r\n"
        "1\tSpectrogram 1\t1\t3.5\t4.25\t2000\t8000\tParus major\r\n"
        "2\tSpectrogram 1\t1\t9.0\t8.0\t2000\t8000\tStrix aluco\r\n"
        "3\tSpectrogram 1\t1\t10.0\t11.0\t2000\t8000\t\r\n"
        "4\tSpectrogram 1\t1\t12.0\t13.0\t2000\t8000\tparus MAJOR\r\n"
    )
    write(tmp_path, {"day/rec.Table.1.selections.txt": b"\xef\xbb\xbf" + table.encode()})
    sounds(tmp_path, "day/rec.WAV", "other/rec.WAV")
    collection = read(tmp_path)
    rows = [row for row in collection.recordings if row.name == "day/rec.WAV"]
    assert [(row.start, row.end, row.labels, row.status) for row in rows] == [
        (3.5, 4.25, ("Parus major",), "ok"),
        (9.0, 8.0, ("Strix aluco",), "refused"),
        (12.0, 13.0, ("Parus major",), "ok"),
    ]
    assert "line 4: it ends at 8.0, not after its start at 9.0" in rows[1].reason
    assert noted(collection, "labels are in the column species (1)") and noted(
        collection, "1 annotations have no label"
    )
    other = [row for row in collection.recordings if row.name == "other/rec.WAV"]
    assert len(other) == 1 and not other[0].labeled


def test_a_table_without_rows_says_that_nothing_was_heard(tmp_path: Path) -> None:
    write(
        tmp_path, {"a.Table.1.selections.txt": f"{RAVEN}\tSpecies\n", "b.selections.txt": f"{RAVEN}\n", "b.flac": b""}
    )
    sounds(tmp_path, "a.wav", "c.wav")
    rows = by_name(read(tmp_path))
    assert "d" not in rows, "a csv without rows speaks of no recording"
    assert [(row.listened, row.labels, row.start) for row in rows.values()] == [
        (True, (), None),
        (True, (), None),
        (False, (), None),
    ]


def test_file_offsets_count_where_a_table_runs_over_several_files(tmp_path: Path) -> None:
    table = (
        f"{RAVEN}\tBegin Path\tBegin File\tFile Offset (s)\tAnnotation\n"
        "1\tSpectrogram 1\t1\t3.0\t4.0\t0\t9\tC:\\cards\\A\\one.wav\tone.wav\t3.0\tParus major\n"
        "2\tSpectrogram 1\t1\t63.0\t64.5\t0\t9\tC:\\cards\\A\\two.wav\ttwo.wav\t3.0\tParus major\n"
        "3\tSpectrogram 1\t1\t99.0\t99.5\t0\t9\tC:\\cards\\A\\three.wav\tthree.wav\t9.0\tParus major\n"
    )
    write(tmp_path, {"all.txt": table})
    sounds(tmp_path, "A/one.wav", "A/two.wav")
    rows = by_name(read(tmp_path))
    assert (rows["A/one.wav"].start, rows["A/one.wav"].end) == (3.0, 4.0)
    assert (rows["A/two.wav"].start, rows["A/two.wav"].end) == (3.0, 4.5)
    assert rows["three.wav"].status == "missing"


@pytest.mark.parametrize(
    ("encoding", "noting"), [("utf-8", ""), ("utf-8-sig", ""), ("latin-1", "Latin-1"), ("utf-16", "UTF-16")]
)
def test_tables_of_other_encodings_are_read_and_noted(encoding: str, noting: str, tmp_path: Path) -> None:
    table = f"{RAVEN}\tSpecies\n1\tSpectrogram 1\t1\t0,5\t1,5\t0\t9\tCrécerelle\n"
    write(tmp_path, {"a.txt": table.encode(encoding)})
    sounds(tmp_path, "a.wav")
    collection = read(tmp_path)
    row = collection.recordings[0]
    assert (row.labels, row.start, row.end) == (("Crécerelle",), 0.5, 1.5)
    assert noted(collection, "not in UTF-8", noting) == bool(noting)


@pytest.mark.parametrize(
    "header",
    [
        "filename,start,end,label",
        "file,start_s,end_s,species",
        "path,onset,offset,primary_label",
        "Filename;Begin;End;Species Code",
        "file_name\tbegin\tend\tCommon Name",
        "filename,Start (s),End (s),Scientific name",
    ],
)
def test_a_csv_with_start_and_end_is_read_whatever_its_columns_are_called(header: str, tmp_path: Path) -> None:
    mark = next(mark for mark in "\t;," if mark in header)
    lines = [["sub/a.wav", "1.5", "2.5", "greti"], ["sub\\a.wav", "00:01:00", "00:01:02.5", "tawow"]]
    write(tmp_path, {"labels.csv": "\n".join([header, *(mark.join(cells) for cells in lines)])})
    sounds(tmp_path, "sub/a.wav")
    collection = read(tmp_path)
    assert [(row.start, row.end, row.labels) for row in collection.recordings] == [
        (1.5, 2.5, ("greti",)),
        (60.0, 62.5, ("tawow",)),
    ]
    assert collection.taxonomy is not None and set(collection.taxonomy.labels) == {"greti", "tawow"}


def test_with_a_taxonomy_only_its_labels_count(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "taxonomy.csv": TAXONOMY,
            "labels.csv": "filename,start,end,label\na.wav,0,1,great tit\na.wav,1,2,STRIX ALUCO\na.wav,2,3,65448\n"
            "a.wav,3,4,Dodo\na.wav,4,5,Dodo;greti\na.wav,5,6,noise\na.wav,6,7,unknown\n",
        },
    )
    sounds(tmp_path, "a.wav")
    collection = read(tmp_path)
    assert [(row.labels, row.status, row.listened) for row in collection.recordings] == [
        (("greti",), "ok", False),
        (("tawow",), "ok", False),
        (("65448",), "ok", False),
        (("Dodo",), "refused", False),
        (("greti",), "ok", False),
        ((), "ok", True),
    ]
    assert labels(collection) == ("greti", "tawow", "65448") and lineage(collection, "tawow")["order"] == "Strigiformes"
    assert noted(collection, "1 rows refused", "'Dodo' is not in the taxonomy")


def test_the_column_of_the_labels_can_be_named(tmp_path: Path) -> None:
    table = f"{RAVEN}\tMy Bird\tSpecies\n1\tSpectrogram 1\t1\t0\t1\t0\t9\tParus major\twrong\n"
    write(tmp_path, {"a.txt": table})
    sounds(tmp_path, "a.wav")
    assert labels(read(tmp_path, label_column="My Bird")) == ("Parus major",)
    assert labels(read(tmp_path)) == ("wrong",)
    with pytest.raises(AssertionError, match=r"a.txt has no column Bird, but .*my_bird"):
        read(tmp_path, label_column="Bird")
    write(tmp_path, {"a.txt": f"{RAVEN}\n1\tSpectrogram 1\t1\t0\t1\t0\t9\n"})
    with pytest.raises(AssertionError, match=r"no column for the species, but .*--data.label_column"):
        read(tmp_path)


@pytest.mark.parametrize("times", ["x,2", "-1,2", "1,nan", "1,1e999", "1:2:3:4,9", ","])
def test_times_that_are_none_are_refused_rows(times: str, tmp_path: Path) -> None:
    write(tmp_path, {"l.csv": f"filename,start,end,label\na.wav,{times},greti\na.wav,3,4,greti\n"})
    sounds(tmp_path, "a.wav")
    bad, good = read(tmp_path).recordings
    assert bad.status == "refused" and "l.csv line 2" in bad.reason and good.status == "ok"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "C:\\x\\..\\gone.wav", "..", "a\0b.wav", "x" * 5000]
)
def test_names_in_annotations_are_only_looked_up(name: str, tmp_path: Path) -> None:
    write(tmp_path, {"l.csv": f"filename,start,end,label\n{name},0,1,greti\na.wav,3,4,greti\n"})
    sounds(tmp_path, "a.wav")
    collection = read(tmp_path)
    assert {row.status for row in collection.recordings} == {"ok", "missing"}
    assert all(row.path.resolve().is_relative_to(tmp_path) for row in collection.recordings if "\0" not in row.name)
    write_recordings(tmp_path / "recordings.csv", collection.recordings)
    assert len(read_recordings(tmp_path / "recordings.csv")) == 2


def test_recordings_of_one_name_in_two_folders_are_not_confused(tmp_path: Path) -> None:
    write(tmp_path, {"l.csv": "filename,start,end,label\nA/x.wav,0,1,greti\nx.wav,1,2,greti\nC/x.wav,2,3,greti\n"})
    sounds(tmp_path, "A/x.wav", "B/x.wav")
    collection = read(tmp_path)
    known = [row for row in collection.recordings if row.labels]
    assert [(row.name, row.start, row.status) for row in known] == [
        ("A/x.wav", 0.0, "ok"),
        ("C/x.wav", 2.0, "missing"),
        ("x.wav", 1.0, "refused"),
    ]
    assert "several recordings have that name: A/x.wav, B/x.wav" in known[2].reason


def test_a_table_of_all_sites_labels_no_recording_of_this_one_with_what_another_site_has(tmp_path: Path) -> None:
    root = tmp_path / "siteA"
    root.mkdir()
    (root / "0500.wav").touch()
    (root / "all.csv").write_text("filename,start,end,label\nsiteA/0500.wav,0,5,frog\nsiteB/0500.wav,5,8,owl\n")
    found = read_annotations(root, ["0500.wav"], [], [root / "all.csv"])
    assert [(row.name, row.labels, row.status) for row in found.recordings] == [
        ("0500.wav", ("frog",), "ok"), ("siteB/0500.wav", ("owl",), "missing"),
    ]  # fmt: skip
    (root / "all.csv").write_text("filename,start,end,label\nsiteA/0500.wav,0,5,frog\n0500.wav,5,8,owl\n")
    found = read_annotations(root, ["0500.wav"], [], [root / "all.csv"])
    assert [row.status for row in found.recordings] == ["ok", "ok"], "no other folder is named"


def test_what_a_model_predicted_is_no_annotation(tmp_path: Path) -> None:
    table = f"{RAVEN}\tSpecies\tConfidence\n1\tSpectrogram 1\t1\t0\t1\t0\t9\tParus major\t0.9\n"
    write(tmp_path, {"a.BirdNET.selection.table.txt": table})
    sounds(tmp_path, "a.wav")
    collection = read(tmp_path)
    assert collection.taxonomy is None and noted(collection, "1 tables have a confidence", "a.BirdNET")


def test_a_table_that_is_broken_is_refused_in_one_line(tmp_path: Path) -> None:
    sounds(tmp_path, "a.wav")
    write(tmp_path, {"l.csv": "filename,start,end,label\na.wav,0,1,greti,more\n"})
    with pytest.raises(AssertionError, match=r"l.csv line 2: 5 cells, not 4"):
        read(tmp_path)
    write(tmp_path, {"l.csv": 'filename,start,end,label\na.wav,0,1,"' + "x" * 200_000})
    with pytest.raises(
        AssertionError, match=r"l.csv line 2: field larger than .*; mend the row, perhaps a quote is left"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        *(("75", 75.0), ("75,5", 75.5), ("1:15", 75.0), ("0:01:15.5", 75.5), ("1e-05", 0.0), ("", None), ("-1", None)),
        *(
            ("1,234.5", 1234.5),
            ("1.234,5", 1234.5),
            ("1,234,567", 1234567.0),
            ("1 234,5", 1234.5),
            ("1\u202f234", 1234.0),
        ),
        *(("1.234", 1.234), ("0,500", 0.5), ("1:15,250", 75.25), ("1,2,3", None), ("1,234", None)),
    ],
)
def test_a_time_is_seconds_or_hours_minutes_seconds(cell: str, seconds: float | None) -> None:
    assert clock_seconds(cell) == seconds


def test_soundscape_labels_without_times_are_refused(tmp_path: Path) -> None:
    birdclef(tmp_path, "greti,a.ogg", header="primary_label,filename")
    sounds(tmp_path, "train_audio/a.ogg", "train_soundscapes/x.ogg")
    write(tmp_path, {"train_soundscapes_labels.csv": "filename,begins,end,primary_label\nx.ogg,0,5,greti\n"})
    with pytest.raises(AssertionError, match=r"no columns start and end, but filename, begins, end"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("header", "rows", "stretches"),
    [
        ("filename,start,end,label", ['a.wav,"1,234","1,239",x'], [(1234, 1239)]),
        ("filename,start,end,label", ['a.wav,"1,234.5","1,239",x', "a.wav,12,13,x"], [(12, 13), (1234.5, 1239)]),
        ("filename;start;end;label", ["a.wav;1,234;1,5;x"], [(1.234, 1.5)]),
        ("filename;start;end;label", ["a.wav;1,234;1,239;x"], [(1.234, 1.239)]),
        ("filename;start;end;label", ["a.wav;1.234,5;1.240;x"], [(1234.5, 1240)]),
        ("filename\tstart\tend\tlabel", ["a.wav\t1,234\t1,239\tx", "a.wav\t2,5\t3\tx"], [(1.234, 1.239), (2.5, 3)]),
        ("filename\tstart\tend\tlabel", ["a.wav\t1,234\t1,239.5\tx"], [(1234, 1239.5)]),
        ("filename,start,duration,label", ["a.wav,3,2,x"], [(3, 5)]),
        ("filename,Start (s),Duration (s),label", ["a.wav,0:01:03,2.5,x"], [(63, 65.5)]),
        ("INDIR,FOLDER,IN FILE,OFFSET,DURATION,MANUAL ID", [",.,a.wav,5,2,x"], [(5, 7)]),
    ],
)
def test_times_are_read_as_their_table_writes_them(
    header: str, rows: list[str], stretches: list[tuple[float, float]], tmp_path: Path
) -> None:
    write(tmp_path, {"labels.csv": "\n".join([header, *rows])})
    sounds(tmp_path, "a.wav")
    collection = read(tmp_path)
    assert [(row.start, row.end) for row in collection.recordings] == stretches
    assert all(row.labels == ("x",) and row.status == "ok" for row in collection.recordings)


def test_a_time_that_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"l.tsv": "filename\tstart\tend\tlabel\na.wav\t1,234\t1,239\tx\nb.wav\t3\t4\tx\n"})
    sounds(tmp_path, "a.wav", "b.wav")
    rows = by_name(read(tmp_path))
    assert rows["b.wav"].status == "ok" and rows["a.wav"].status == "refused"
    assert "line 2: '1,234' may be thousands or a fraction; write" in rows["a.wav"].reason


def test_labels_of_audacity_belong_to_the_recording_of_their_name(tmp_path: Path) -> None:
    labels_ = (
        "1.000000\t3.000000\tStrix aluco\n\\\t200.0\t900.0\n4,500000\t5,250000\tParus major\n6.0\t6.0\tx\n7\t8\t\n"
    )
    write(tmp_path, {"day/dawn.txt": labels_, "day/Label Track.txt": "1.0\t2.0\tStrix aluco\n"})
    write(tmp_path, {"day/gps.txt": "47.1\t8.2\n47.2\t8.3\n", "day/dusk.txt": "1\t2\tStrix aluco\t0.9100\n"})
    sounds(tmp_path, "day/dawn.wav", "other/dawn.wav", "day/dusk.wav", "day/gps.wav")
    collection = read(tmp_path)
    rows = [row for row in collection.recordings if row.name == "day/dawn.wav"]
    assert [(row.start, row.end, row.labels, row.status) for row in rows] == [
        (1.0, 3.0, ("Strix aluco",), "ok"),
        (4.5, 5.25, ("Parus major",), "ok"),
        (6.0, 6.0, ("x",), "refused"),
    ]
    assert noted(collection, "annotations, because day/dawn.txt has times in it")
    assert noted(collection, "1 annotations have no label") and noted(
        collection, "1 tables have a confidence", "dusk.txt"
    )
    assert noted(
        collection, "1 tables of times do not say of which recording", "day/Label Track.txt", "column filename"
    )
    assert not any(row.labeled for row in collection.recordings if row.name != "day/dawn.wav")


def test_a_raven_table_that_counts_through_several_recordings_without_file_offset_is_refused(tmp_path: Path) -> None:
    head = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin File\tSpecies\n"
    first, second = "1\tSpectrogram 1\t5\t6\tshort.wav\tx\n", "2\tSpectrogram 1\t30\t31\ttall.wav\tx\n"
    write(
        tmp_path,
        {
            "both.Table.1.selections.txt": head + first + second,
            "one.Table.1.selections.txt": head.replace("Begin File\t", "") + "1\tSpectrogram 1\t1\t2\tx\n",
        },
    )
    sounds(tmp_path, "short.wav", "tall.wav", "one.wav")
    rows = by_name(read(tmp_path))
    assert rows["one.wav"].status == "ok"
    for name in ("short.wav", "tall.wav"):
        assert rows[name].status == "refused" and "run on over 2 recordings" in rows[name].reason
        assert "no column File Offset (s); add that in Raven" in rows[name].reason
    each = second.replace("30\t31", "5.5\t6.5")  # they overlap, so every recording counts from its own beginning
    write(tmp_path, {"both.Table.1.selections.txt": head + first + each})
    assert {row.status for row in read(tmp_path).recordings} == {"ok"}
    write(tmp_path, {"both.Table.1.selections.txt": head + first})
    assert by_name(read(tmp_path))["short.wav"].start == 5.0, "one recording alone"


def test_the_rest_of_a_selection_that_ends_in_the_next_recording_is_named(tmp_path: Path) -> None:
    table = (
        "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin File\tEnd File\tFile Offset (s)\tSpecies\n"
        "1\tSpectrogram 1\t18\t24\tone.wav\ttwo.wav\t18\tStrix aluco\n"
        "2\tSpectrogram 1\t25\t26\ttwo.wav\ttwo.wav\t5\tStrix aluco\n"
    )
    write(tmp_path, {"both.Table.1.selections.txt": table})
    sounds(tmp_path, "one.wav", "two.wav")
    one, *two = read(tmp_path).recordings
    assert (one.name, one.start, one.end, one.status) == ("one.wav", 18.0, 24.0, "ok"), (
        "cut at its end when it is heard"
    )
    assert [(row.name, row.start, row.end, row.status) for row in two] == [
        ("two.wav", None, None, "refused"),
        ("two.wav", 5.0, 6.0, "ok"),
    ]
    assert "line 2: begins in one.wav and ends here; make two selections of it" in two[0].reason


def test_a_csv_without_file_names_belongs_to_the_recording_of_its_name(tmp_path: Path) -> None:
    write(tmp_path, {"dawn.csv": "start,end,label\n1,2,x\n", "plan.csv": "start,end,label\n2024-05-01,2024-06-01,y\n"})
    sounds(tmp_path, "dawn.wav", "dusk.wav")
    collection = read(tmp_path)
    assert [(row.name, row.start, row.labels) for row in collection.recordings if row.labels] == [
        ("dawn.wav", 1.0, ("x",))
    ]
    assert noted(collection, "1 tables of times do not say of which recording", "plan.csv")
