"""Tables for other programs: to the byte as they want them, whole or not there, whatever a name holds."""

import csv
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyarrow.parquet import ParquetFile

from runtime.cells import bare
from serving import tables
from serving.detections import DETECTION_COLUMNS, Analysed, Detection, Event, TableFacts
from serving.tables import (
    KINDS,
    PARQUET_COLUMNS,
    PARQUET_NUMBERS,
    PARQUET_TIMES,
    RAVEN_COLUMNS,
    table_name,
    write_tables,
)

HERE = Path(__file__).parents[2]
FACTS = TableFacts("toy.int8.onnx", 5.0, 2.5, 16_000.0)
FROG = Detection(0.0, 5.0, "126247", "Rana ficta", 'spotted "foam-nest", frog', 0.91, 0.25, 0, "", "greani1 0.31")
ANI = Detection(
    7.5, 12.25, "greani1", "Ara ficta", "great ani", 0.30004, 0.3, 2, "2026-05-14T05:30:07.5+02:00", "", "never"
)
CHORUS = Event(0.0, 12.5, "126247", "Rana ficta", "frog", 0.91, 0.5, 4, 1, "2026-05-14T05:30:00+02:00", "too few")
LOUD = Analysed(
    "siteA/20260514_053000.wav", "siteA", "2026-05-14T05:30:00+02:00", 48_000, 2, 60.0, 60.0, 23, "ok", "", 900, 17
)
SEASON = [
    replace(LOUD, found=(FROG, ANI), events=(CHORUS,)),
    Analysed("siteA/quiet.wav", "siteA", "", 48_000, 1, 30.5, 30.5, 12, "ok", "", 800, 18),
    Analysed("siteB/cut.wav", "siteB", "", 48_000, 1, 60.0, 39.0, 15, "salvaged", "ends early", 700, 19, (ANI,)),
    Analysed("siteB/text.wav", "siteB", "", 0, 0, 0.0, 0.0, 0, "unreadable", "named .wav, is text", 5, 20),
    Analysed("siteB/20260514_053000.wav", "siteB", "", 22_050, 1, 20.0, 20.0, 7, "ok", "", 600, 21, (FROG,)),
]


def written(place: Path, *recordings: Analysed, split: bool = False) -> dict[str, str]:
    """Every file below a folder after all tables were written there, line ends as they are."""
    write_tables(place, recordings, FACTS, KINDS, events=True, split=split)
    files = [path for path in place.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    return {path.relative_to(place).as_posix(): path.read_bytes().decode() for path in files}


def test_detections_are_written_to_the_letter(tmp_path: Path) -> None:
    assert written(tmp_path, *SEASON)["detections.csv"] == (
        "Start (s),End (s),Scientific name,Common name,Confidence,File,Species code,Site,Recorded at,Detected at,"
        "Channel,Model,Window (s),Overlap (s),Min conf,Runners up,Validated\n"
        '0,5,Rana ficta,"spotted ""foam-nest"", frog",0.9100,siteA/20260514_053000.wav,126247,siteA,'
        "2026-05-14T05:30:00+02:00,,mean,toy.int8.onnx,5,2.5,0.25,greani1 0.31,\n"
        "7.5,12.25,Ara ficta,great ani,0.3000,siteA/20260514_053000.wav,greani1,siteA,"
        "2026-05-14T05:30:00+02:00,2026-05-14T05:30:07.5+02:00,2,toy.int8.onnx,5,2.5,0.3,,never\n"
        "7.5,12.25,Ara ficta,great ani,0.3000,siteB/cut.wav,greani1,siteB,"
        ",2026-05-14T05:30:07.5+02:00,2,toy.int8.onnx,5,2.5,0.3,,never\n"
        '0,5,Rana ficta,"spotted ""foam-nest"", frog",0.9100,siteB/20260514_053000.wav,126247,siteB,'
        ",,mean,toy.int8.onnx,5,2.5,0.25,greani1 0.31,\n"
    )


def test_every_input_has_a_row_in_files(tmp_path: Path) -> None:
    assert written(tmp_path, *SEASON)["files.csv"] == (
        "file,site,recorded_at,sample_rate,channels,seconds_claimed,seconds_analysed,seconds_silent,windows,detections,status,reason,"
        "size,mtime_ns,latitude,longitude,make,serial,temperature\n"
        "siteA/20260514_053000.wav,siteA,2026-05-14T05:30:00+02:00,48000,2,60,60,0,23,2,ok,,900,17,,,,,\n"
        "siteA/quiet.wav,siteA,,48000,1,30.5,30.5,0,12,0,ok,,800,18,,,,,\n"
        "siteB/cut.wav,siteB,,48000,1,60,39,0,15,1,salvaged,ends early,700,19,,,,,\n"
        'siteB/text.wav,siteB,,0,0,0,0,0,0,0,unreadable,"named .wav, is text",5,20,,,,,\n'
        "siteB/20260514_053000.wav,siteB,,22050,1,20,20,0,7,1,ok,,600,21,,,,,\n"
    )


def test_files_tell_where_and_by_which_recorder_they_were_made(tmp_path: Path) -> None:
    moth = replace(LOUD, latitude="-37.5", longitude="8.25", make="=Moth", serial="24E1", temperature="-3.5", found=())
    assert written(tmp_path, moth)["files.csv"].splitlines()[1].endswith(",-37.5,8.25,'=Moth,24E1,-3.5")


def test_events_are_written_to_the_letter(tmp_path: Path) -> None:
    assert written(tmp_path, *SEASON)["events.csv"] == (
        "Start (s),End (s),Scientific name,Common name,Confidence,File,Mean confidence,Windows,Species code,Site,"
        "Recorded at,Detected at,Channel,Model,Validated\n"
        "0,12.5,Rana ficta,frog,0.9100,siteA/20260514_053000.wav,0.5000,4,126247,siteA,"
        "2026-05-14T05:30:00+02:00,2026-05-14T05:30:00+02:00,1,toy.int8.onnx,too few\n"
    )


def test_kaleidoscope_is_written_to_the_letter(tmp_path: Path) -> None:
    far = replace(LOUD, file="/mnt/card/siteC/a.wav", found=(ANI,))
    here = replace(LOUD, file="a.wav", found=(ANI,))
    assert written(tmp_path, *SEASON, far, here)["exports/kaleidoscope.csv"] == (
        "INDIR,FOLDER,IN FILE,OFFSET,DURATION,TOP1MATCH,TOP1DIST,VALIDATED\n"
        '.,siteA,20260514_053000.wav,0,5,"spotted ""foam-nest"", frog",0.9100,\n'
        ".,siteA,20260514_053000.wav,7.5,4.75,great ani,0.3000,never\n"
        ".,siteB,cut.wav,7.5,4.75,great ani,0.3000,never\n"
        '.,siteB,20260514_053000.wav,0,5,"spotted ""foam-nest"", frog",0.9100,\n'
        "/mnt/card,siteC,a.wav,7.5,4.75,great ani,0.3000,never\n"
        ".,,a.wav,7.5,4.75,great ani,0.3000,never\n"
    )


RAVEN_HEADER = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tCommon Name\tSpecies Code\t"
    "Confidence\tBegin Path\tFile Offset (s)\tValidated\n"
)


def test_raven_counts_time_through_silent_recordings_and_past_damaged_ones(tmp_path: Path) -> None:
    found = written(tmp_path, *SEASON)
    assert found["exports/raven.selections.txt"] == (
        RAVEN_HEADER
        + "1\tSpectrogram 1\t1\t0.0\t5.0\t0.0\t16000.0\tspotted 'foam-nest', frog\t126247\t0.9100\t"
        + "siteA/20260514_053000.wav\t0.0\t\n"
        + "2\tSpectrogram 1\t2\t7.5\t12.25\t0.0\t16000.0\tgreat ani\tgreani1\t0.3000\t"
        + "siteA/20260514_053000.wav\t7.5\tnever\n"
        + "3\tSpectrogram 1\t1\t90.5\t95.5\t0.0\t11025.0\tspotted 'foam-nest', frog\t126247\t0.9100\t"
        + "siteB/20260514_053000.wav\t0.0\t\n"
    )
    assert found["exports/raven.list.txt"] == (
        "siteA/20260514_053000.wav\nsiteA/quiet.wav\nsiteB/20260514_053000.wav\n"
    )


def test_begin_times_move_with_the_length_of_a_silent_recording_before_them(tmp_path: Path) -> None:
    begins: list[str] = []
    for length in (30.5, 31.5):
        quiet = replace(SEASON[1], seconds_analysed=length)
        table = written(tmp_path / str(length), quiet, SEASON[4])["exports/raven.selections.txt"]
        begins.append(table.splitlines()[1].split("\t")[3])
    assert begins == ["30.5", "31.5"]


def test_a_salvaged_recording_always_has_its_own_raven_table_and_the_others_on_request(tmp_path: Path) -> None:
    together = written(tmp_path / "together", *SEASON)
    apart = written(tmp_path / "apart", *SEASON, split=True)
    own = {name: text for name, text in apart.items() if name.startswith("exports/raven/")}
    assert [name for name in together if name.startswith("exports/raven/")] == [
        "exports/raven/siteB/cut.wav.selections.txt"
    ]
    assert sorted(own) == [
        "exports/raven/siteA/20260514_053000.wav.selections.txt",
        "exports/raven/siteA/quiet.wav.selections.txt",
        "exports/raven/siteB/20260514_053000.wav.selections.txt",
        "exports/raven/siteB/cut.wav.selections.txt",
    ]
    assert own["exports/raven/siteA/quiet.wav.selections.txt"] == RAVEN_HEADER
    assert own["exports/raven/siteB/20260514_053000.wav.selections.txt"] == (
        RAVEN_HEADER
        + "1\tSpectrogram 1\t1\t0.0\t5.0\t0.0\t11025.0\tspotted 'foam-nest', frog\t126247\t0.9100\t"
        + "siteB/20260514_053000.wav\t0.0\t\n"
    )
    assert {name: text for name, text in apart.items() if name not in own} == {
        name: text for name, text in together.items() if name not in own
    }


def test_audacity_has_labels_per_recording(tmp_path: Path) -> None:
    found = written(tmp_path, *SEASON)
    labels = {name: text for name, text in found.items() if name.startswith("exports/audacity/")}
    assert labels == {
        "exports/audacity/siteA/20260514_053000.wav.txt": (
            "0\t5\tRana ficta, spotted 'foam-nest', frog\t0.9100\n"
            "7.5\t12.25\tAra ficta, great ani (never validated)\t0.3000\n"
        ),
        "exports/audacity/siteA/quiet.wav.txt": "",
        "exports/audacity/siteB/cut.wav.txt": "7.5\t12.25\tAra ficta, great ani (never validated)\t0.3000\n",
        "exports/audacity/siteB/20260514_053000.wav.txt": "0\t5\tRana ficta, spotted 'foam-nest', frog\t0.9100\n",
    }


def test_parquet_reads_back_with_its_types(tmp_path: Path) -> None:
    written(tmp_path, *SEASON)
    table = pd.read_parquet(tmp_path / "exports/detections.parquet")
    assert tuple(table.columns) == PARQUET_COLUMNS and len(table) == 4
    assert {name for name in table if table[name].dtype == np.float32} == PARQUET_NUMBERS
    assert {name for name in table if table[name].dtype == np.float64} == PARQUET_TIMES
    assert table.loc[1].to_dict() == {
        "start_s": 7.5,
        "end_s": 12.25,
        "scientific_name": "Ara ficta",
        "common_name": "great ani",
        "confidence": np.float32(0.30004),
        "file": "siteA/20260514_053000.wav",
        "species_code": "greani1",
        "site": "siteA",
        "recorded_at": "2026-05-14T05:30:00+02:00",
        "detected_at": "2026-05-14T05:30:07.5+02:00",
        "channel": "2",
        "model": "toy.int8.onnx",
        "window_s": 5.0,
        "overlap_s": 2.5,
        "min_conf": np.float32(0.3),
        "validated": "never",
    }


def test_parquet_grows_by_groups_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "exports/detections.parquet"
    write_tables(tmp_path, SEASON, FACTS, ["parquet"])
    assert ParquetFile(path).num_row_groups == 1
    monkeypatch.setattr(tables, "ROW_GROUP", 2)
    write_tables(tmp_path, [*SEASON, *SEASON], FACTS, ["parquet"])
    assert ParquetFile(path).num_row_groups == 4 and len(pd.read_parquet(path)) == 8
    write_tables(tmp_path, SEASON[1:2], FACTS, ["parquet"])
    assert ParquetFile(path).num_row_groups == 0 and list(pd.read_parquet(path)) == list(PARQUET_COLUMNS)


def test_parquet_needs_neither_pandas_nor_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from serving.tables import *; "
        "write_tables(Path(sys.argv[1]), [], TableFacts('m', 5, 0, 8000), ['parquet']); "
        "print([name for name in ('pandas', 'torch', 'pyarrow') if name in sys.modules])"
    )
    run = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(run, cwd=HERE, capture_output=True, text=True, check=True).stdout == "['pyarrow']\n"


def test_without_pyarrow_one_line_says_so_before_any_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_name: str) -> None:
        return None

    monkeypatch.setattr(tables, "find_spec", absent)
    season = iter(SEASON)
    with pytest.raises(AssertionError, match=r"^[^\n]*pip install pyarrow[^\n]*$"):
        write_tables(tmp_path, season, FACTS, ["csv", "parquet"])
    assert next(season) is SEASON[0] and files_below(tmp_path) == []
    assert write_tables(tmp_path, SEASON, FACTS, ["csv"])


def test_only_the_tables_asked_for_are_written(tmp_path: Path) -> None:
    assert write_tables(tmp_path / "a", SEASON, FACTS, []) == [tmp_path / "a/files.csv"]
    assert files_below(tmp_path / "a") == ["files.csv"]
    paths = write_tables(tmp_path / "b", SEASON, FACTS, ["csv", "raven", "audacity"])
    assert {path.relative_to(tmp_path / "b").as_posix() for path in paths} == {
        *("files.csv", "detections.csv", "exports/raven.selections.txt", "exports/raven.list.txt"),
        *("exports/raven", "exports/audacity"),
    }
    assert all(path.exists() for path in paths)
    with pytest.raises(AssertionError, match="no tables of the kind excel; choose from csv, raven"):
        write_tables(tmp_path / "c", SEASON, FACTS, ["csv", "excel"])


def test_a_byte_order_mark_stands_in_csv_tables_and_only_on_request(tmp_path: Path) -> None:
    write_tables(tmp_path, SEASON, FACTS, KINDS, events=True, bom=True)
    marked = {path.name for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes()[:3] == b"\xef\xbb\xbf"}
    assert marked == {"detections.csv", "events.csv", "files.csv", "kaleidoscope.csv"}
    assert (tmp_path / "files.csv").read_bytes().count(b"\xef\xbb\xbf") == 1
    assert not any("\ufeff" in text for text in written(tmp_path, *SEASON).values())


HOSTILE = [
    "a, b.wav",
    '"open.wav',
    'in"side.wav',
    "two\nlines.wav",
    "two\rlines.wav",
    "a\ttab.wav",
    "\ttab first.wav",
    "\rreturn first.wav",
    "=1+1.wav",
    "+1.wav",
    "-x.wav",
    "@sum.wav",
    "Größe 蛙.wav",
    "line\u2028separator.wav",
    "../up.wav",
    "/mnt/card/far.wav",
    "C:\\cards\\far.wav",
    "it's; one.wav",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_spoils_no_table(tmp_path: Path, name: str) -> None:
    """In tables parted by commas it is read back as it is, in those parted by tabs it stays one cell of one row."""
    found = replace(FROG, scientific_name=name, common_name=name, label=name, runners_up=f"{name} 0.31")
    odd = replace(LOUD, file=name, site=name, recorded_at=name, reason=name, found=(found,))
    texts = written(tmp_path, SEASON[0], odd, SEASON[4], split=True)
    formula = name[0] in "=+-@\t\r"
    path, text = (f"./{name}", f"'{name}") if formula else (name, name)
    rows = pd.read_csv(tmp_path / "detections.csv", dtype=str, keep_default_na=False)
    assert list(rows["File"]) == [*["siteA/20260514_053000.wav"] * 2, path, "siteB/20260514_053000.wav"]
    assert set(rows.loc[2, ["Scientific name", "Common name", "Species code", "Site", "Recorded at"]]) == {text}
    assert rows.loc[2, "Runners up"] == f"{text} 0.31"
    files = pd.read_csv(tmp_path / "files.csv", dtype=str, keep_default_na=False)
    assert list(files["file"])[1] == path and list(files["reason"])[1] == text and len(files) == 3
    parquet = pd.read_parquet(tmp_path / "exports/detections.parquet")
    assert list(parquet["file"])[2] == path and list(parquet["common_name"])[2] == name

    for table in ("raven.selections.txt", f"raven/{table_name(name)}.selections.txt"):
        raven = pd.read_csv(tmp_path / "exports" / table, sep="\t", dtype=str, keep_default_na=False)
        assert tuple(raven.columns) == RAVEN_COLUMNS and set(raven["View"]) == {"Spectrogram 1"}
        assert len(texts[f"exports/{table}"].splitlines()) == len(raven) + 1
    assert list(raven["Common Name"]) == [bare(text)] and list(raven["Begin Path"]) == [bare(path)]
    labels = texts[f"exports/audacity/{table_name(name)}.txt"]
    assert labels == f"0\t5\t{bare(f'{text}, {name}')}\t0.9100\n"

    listed = texts["exports/raven.list.txt"].splitlines()
    holds = bare(name) == name
    assert listed == ["siteA/20260514_053000.wav", *([path] if holds else []), "siteB/20260514_053000.wav"]
    last = pd.read_csv(tmp_path / "exports/raven.selections.txt", sep="\t")["Begin Time (s)"].iloc[-1]
    assert last == (120 if holds else 60)


def test_without_care_these_names_would_spoil_tables(tmp_path: Path) -> None:
    """The control: written without care, a line break, a tab and an open quote each change what is read."""
    path = tmp_path / "careless.txt"
    for name in ("two\nlines", "two\rlines", "a\ttab", '"open'):
        path.write_bytes(f"name\tnumber\n{name}\t1\nnext\t2\n".encode())
        try:
            read = pd.read_csv(path, sep="\t").to_numpy().tolist()
        except pd.errors.ParserError:
            continue
        assert read != [[name, 1], ["next", 2]], name
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["name", "number"], ["two\rlines", "1"]])
    spoilt = sys.version_info < (3, 13)  # where Python's own writer leaves a carriage return unquoted
    assert (len(pd.read_csv(path)) == 2) == spoilt


def test_bytes_that_are_no_text_are_shown_and_stop_nothing(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    texts = written(tmp_path, replace(LOUD, file=name, found=(FROG,)), SEASON[4])
    assert pd.read_csv(tmp_path / "detections.csv")["File"][0] == "caf\\udce9.wav"
    assert pd.read_parquet(tmp_path / "exports/detections.parquet")["file"][0] == "caf\\udce9.wav"
    assert texts["exports/raven.list.txt"] == "siteB/20260514_053000.wav\n"
    assert len(texts) == 9  # with a table of its own for Raven and one for Audacity


def test_tables_of_recordings_have_names_of_their_own_below_the_folder(tmp_path: Path) -> None:
    """Each of these once made two recordings share a table, or left the folder, or could not be a name."""
    families = [
        ["siteA/a.wav", "siteB/a.wav", "a.wav", "siteA_a.wav"],
        ["/a.wav", "../a.wav", "./a.wav", "../../a.wav", "_root/a.wav", "_up/a.wav", "_here/a.wav", "b/../a.wav"],
        ["C:\\a.wav", "C:/a.wav", "C_/a.wav", "C__a.wav", "c?.wav", "c*.wav", "c_.wav"],
        ["x" * 255, "x" * 254 + "y", "x" * 200, "蛙" * 85, "蛙" * 84 + "a"],
        ["/".join("d" * depth) + "/a.wav" for depth in (15, 40, 41, 400)],
        ["a.wav.txt/b.wav", "a.wav.selections.txt/b.wav", "a\tb.wav", "a\nb.wav", "a b.wav"],
        [os.fsdecode(b"caf\xe9.wav"), os.fsdecode(b"caf\xea.wav"), "caf?.wav", "caf\\udce9.wav", "\udce9"],
    ]
    files = [file for family in families for file in family]
    files += [table_name(file) for file in files if "~" in table_name(file)]  # as if somebody wanted them to meet
    write_tables(tmp_path, [replace(LOUD, file=file) for file in files], FACTS, ["raven", "audacity"], split=True)
    for folder in ("raven", "audacity"):
        assert len([path for path in (tmp_path / "exports" / folder).rglob("*") if path.is_file()]) == len(files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exports", "files.csv"]
    assert not any(set(table_name(file).split("/")) & {"", ".", ".."} for file in files)
    assert len({Path(file).stem for file in files}) < len(files) and Path("/x", files[4]) == Path(files[4])  # control


def test_a_plain_path_is_its_tables_name() -> None:
    assert table_name("siteA/2026 05/Größe 蛙.WAV") == "siteA/2026 05/Größe 蛙.WAV"
    assert table_name("/mnt/card/a.wav") == "_root/mnt/card/a.wav"
    assert table_name("../card/a.wav") == "_up/card/a.wav"


def test_a_crash_in_the_middle_leaves_the_tables_of_before_and_no_halves(tmp_path: Path) -> None:
    def dying() -> Iterator[Analysed]:
        yield from SEASON[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tables(tmp_path, dying(), FACTS, KINDS, events=True)
    per_recording = [
        "exports/audacity/siteA/20260514_053000.wav.txt",
        "exports/audacity/siteA/quiet.wav.txt",
        "exports/audacity/siteB/cut.wav.txt",
        "exports/raven/siteB/cut.wav.selections.txt",
    ]
    assert files_below(tmp_path) == per_recording, "what is done of single recordings is whole and stays"
    before = written(tmp_path, *SEASON[:1])
    parquet = (tmp_path / "exports/detections.parquet").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_tables(tmp_path, dying(), FACTS, KINDS, events=True)
    assert {name: (tmp_path / name).read_bytes().decode() for name in before} == before
    assert (tmp_path / "exports/detections.parquet").read_bytes() == parquet
    assert not [name for name in files_below(tmp_path) if name.endswith(".part")]


def test_one_recording_at_a_time_is_held(tmp_path: Path) -> None:
    alive: list[weakref.ref[Analysed]] = []
    most = 0

    def season() -> Iterator[Analysed]:
        nonlocal most
        for number in range(200):
            recording = replace(LOUD, file=f"{number}.wav", found=(FROG,) * 3)
            alive.append(weakref.ref(recording))
            most = max(most, sum(reference() is not None for reference in alive))
            yield recording

    write_tables(tmp_path, season(), FACTS, set(KINDS) - {"audacity"}, events=True)
    assert most <= 2 and len(pd.read_csv(tmp_path / "detections.csv")) == 600


def test_columns_for_birdnettools_are_told_apart_by_its_words() -> None:
    """It finds columns by these words and takes one only where it is the only one."""
    words = ("start", "end", "scientific", "common", "confidence", "file")
    for word in words:
        assert sum(word in column.lower() for column in DETECTION_COLUMNS) == 1, word
    assert not any(word in column.lower() for column in DETECTION_COLUMNS for word in ("label", "path", "score"))


# --- BirdCLEF's submission -------------------------------------------------------------------------------------------


# --- embeddings ------------------------------------------------------------------------------------------------------


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_ravens_selections_span_the_models_band_as_far_as_the_recording_has_it(tmp_path: Path) -> None:
    bat = Detection(0.5, 1.0, "pip", "Pipistrellus", "bat", 0.9, 0.25)
    season = [
        Analysed(f"{rate}.wav", "", "", rate, 1, 5.0, 5.0, 10, "ok", "", 1, 1, (bat,)) for rate in (384_000, 44_100)
    ]
    facts = TableFacts("bat.onnx", 0.5, 0.0, 120_000.0, 10_000.0)
    write_tables(tmp_path, iter(season), facts, ("raven",))
    lines = (tmp_path / "exports" / "raven.selections.txt").read_text().splitlines()[1:]
    assert [line.split("\t")[5:7] for line in lines] == [["10000.0", "120000.0"], ["10000.0", "22050.0"]]


def test_a_column_tells_how_unfamiliar_a_window_is_where_the_model_does_and_changes_nothing_else(
    tmp_path: Path,
) -> None:
    before = written(tmp_path / "before", *SEASON)
    strange = [replace(one, found=tuple(replace(d, unfamiliar=0.9734) for d in one.found)) for one in SEASON]
    assert written(tmp_path / "silent", *strange) == before, "a model that does not tell leaves every byte as it is"
    write_tables(tmp_path / "told", strange, replace(FACTS, unfamiliar=True), KINDS, events=True)
    lines = (tmp_path / "told" / "detections.csv").read_text().splitlines()
    assert lines == [
        f"{line},{'0.973' if number else 'Unfamiliar'}"
        for number, line in enumerate(before["detections.csv"].splitlines())
    ]
    for name in ("events.csv", "files.csv", "exports/raven.selections.txt", "exports/kaleidoscope.csv"):
        assert (tmp_path / "told" / name).read_text() == before[name]
    table = pd.read_parquet(tmp_path / "told" / "exports" / "detections.parquet")
    assert table["unfamiliar"].tolist() == [float(np.float32(0.9734))] * 4
    assert list(table.columns) == [*PARQUET_COLUMNS, "unfamiliar"]
