"""Every recording's detections -> tables that other programs open; BirdCLEF's submission; embeddings. No torch.

    write_tables(folder, analysed, facts, {"csv", "raven"})             # one pass, one recording in memory at a time
    write_submission(path, read_sample(sample), scores, labels)
    write_embeddings(Path("embeddings.npz"), embedded, "classifier.int8.onnx")

Reads    sample_submission.csv
Writes   files.csv, detections.csv, events.csv; below exports/ what Raven, Audacity, Kaleidoscope and Parquet's readers
         open; submission.csv; .npz or .csv with embeddings

Every table is whole or not there. Files are written as UTF-8, whatever byte of a name is none as \\udce9. Text that a
spreadsheet would take for a formula gets an apostrophe, a path gets ./ instead and still opens.

Tables parted by tabs know no quotes: neither Raven nor Audacity would undo them. So there, and only there, a tab or a
line break in a name becomes a space, and " becomes '; commas and all else stay.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from runtime.cells import bare, no_formula, open_text, plain_path, seconds, write_line, write_row
from runtime.files import publish
from serving.detections import (
    DETECTION_COLUMNS,
    SIX,
    UNFAMILIAR,
    VOICE,
    WHERE,
    Analysed,
    Detection,
    Event,
    TableFacts,
    validation_mark,
)

KINDS = ("csv", "raven", "audacity", "kaleidoscope", "parquet")
EVENT_COLUMNS = (
    *SIX,
    *("Mean confidence", "Windows", *WHERE, "Validated"),
)
FILE_COLUMNS = (  # but for `detections`, called as the fields of Analysed
    *("file", "site", "recorded_at", "sample_rate", "channels", "seconds_claimed", "seconds_analysed"),
    *("seconds_silent", "windows", "detections", "status", "reason", "size", "mtime_ns", "latitude"),
    *("longitude", "make", "serial", "temperature"),
)
VOICE_COLUMNS = ("voice", "seconds_voice", "seconds_skipped")  # more of them, where voices were looked for
VOICE_S = "voice_s"  # its column in Parquet
DONE = {"report": "found", "skip": "skipped", "mute": "muted"}  # with the voices in a recording
KALEIDOSCOPE_COLUMNS = ("INDIR", "FOLDER", "IN FILE", "OFFSET", "DURATION", "TOP1MATCH", "TOP1DIST", "VALIDATED")
RAVEN_COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Common Name", "Species Code", "Confidence", "Begin Path", "File Offset (s)", "Validated"),
)
PARQUET_COLUMNS = (
    *("start_s", "end_s", "scientific_name", "common_name", "confidence", "file", "species_code", "site"),
    *("recorded_at", "detected_at", "channel", "model", "window_s", "overlap_s", "min_conf", "validated"),
)
PARQUET_TIMES = frozenset({"start_s", "end_s"})  # a float32 would be 4 ms off after half a day
PARQUET_NUMBERS = frozenset({"confidence", "window_s", "overlap_s", "min_conf"})
ROW_GROUP = 50_000  # rows of Parquet that are kept in memory
OUTSIDE = {"": "_root", ".": "_here", "..": "_up"}  # parts of a path that would lead out of a folder, or nowhere
INSIDE = {name: part for part, name in OUTSIDE.items()}
UNSAFE = re.compile(r'[\x00-\x1f\x7f"*:<>?\\|~]|\.txt$')  # ~ marks our digests; a folder could stand where a table goes
LONGEST_PART, MOST_PARTS = 200, 16  # bytes of a name, with room for our suffixes; folders

Rows = Callable[[Analysed, TableFacts], Iterable[Sequence[str]]]
Write = Callable[[Analysed], None]


def write_tables(
    folder: Path,
    analysed: Iterable[Analysed],
    facts: TableFacts,
    kinds: Collection[str],
    events: bool = False,
    split: bool = False,
    bom: bool = False,
) -> list[Path]:
    """files.csv and all tables asked for in one pass; returns them, for tables per recording their folder.

    kinds    csv: detections.csv; raven: one selection table and the list of recordings it counts through; audacity: a
             file of labels per recording; kaleidoscope; parquet
    events   also events.csv
    split    also a selection table per recording
    bom      a byte order mark in the csv tables, for Excel
    """
    strangers = sorted(set(kinds) - set(KINDS))
    assert not strangers, f"no tables of the kind {', '.join(strangers)}; choose from {', '.join(KINDS)}"
    exports, encoding = folder / "exports", "utf-8-sig" if bom else "utf-8"
    # one sheet for each csv table
    searched = facts.voices != "off"
    of_files, of_detections = (VOICE_COLUMNS, (VOICE,)) if searched else ((), ())
    sheets: dict[Path, tuple[Sequence[str], Rows]] = {folder / "files.csv": ((*FILE_COLUMNS, *of_files), file_rows)}
    if "csv" in kinds:
        unlike = (UNFAMILIAR,) if facts.unfamiliar else ()
        sheets[folder / "detections.csv"] = ((*DETECTION_COLUMNS, *unlike, *of_detections), detection_rows)
    if events:
        sheets[folder / "events.csv"] = (EVENT_COLUMNS, event_rows)
    if "kaleidoscope" in kinds:
        sheets[exports / "kaleidoscope.csv"] = (KALEIDOSCOPE_COLUMNS, kaleidoscope_rows)
    written = list(sheets)
    # open all tables, write each recording to all of them, commit together
    with ExitStack() as stack:
        tables: list[Write] = []
        for path, (columns, rows) in sheets.items():
            file = stack.enter_context(open_text(path, encoding))
            write_row(file, columns)
            tables.append(partial(write_sheet, file, rows, facts))
        if "raven" in kinds:
            tables.append(stack.enter_context(raven_tables(exports, facts, split)))
            written += [exports / "raven.selections.txt", exports / "raven.list.txt"]
        if "audacity" in kinds:
            tables.append(partial(write_audacity, exports / "audacity"))
        if "parquet" in kinds:
            tables.append(stack.enter_context(parquet_table(exports / "detections.parquet", facts)))
            written.append(exports / "detections.parquet")
        for recording in analysed:
            for write in tables:
                write(recording)
    return written + [exports / name for name in ("raven", "audacity") if name in kinds and (exports / name).is_dir()]


def write_ranked(path: Path, ranked: Iterable[Analysed], facts: TableFacts) -> None:
    """A detections.csv in an order of its own, whatever recording a row is of."""
    with open_text(path) as file:
        write_row(file, DETECTION_COLUMNS)
        for recording in ranked:
            write_sheet(file, detection_rows, facts, recording)


def write_sheet(file: TextIO, rows: Rows, facts: TableFacts, recording: Analysed) -> None:
    """Append the rows of one recording to a csv table."""
    for cells in rows(recording, facts):
        write_row(file, [no_formula(cell) for cell in cells])


def file_rows(recording: Analysed, facts: TableFacts) -> Iterator[list[str]]:
    """One row for every input, so that "nothing detected" and "not analysed" differ."""
    done = DONE.get(facts.voices, "") if recording.seconds_voice else ""
    cells = vars(recording) | {"file": plain_path(recording.file), "detections": len(recording.found), "voice": done}
    values = (cells[column] for column in (*FILE_COLUMNS, *(VOICE_COLUMNS if facts.voices != "off" else ())))
    yield [seconds(value) if isinstance(value, float) else str(value) for value in values]


def detection_rows(recording: Analysed, facts: TableFacts) -> Iterator[list[str]]:
    for found in recording.found:
        yield [
            *six(recording, found),
            *where(recording, found, facts),
            seconds(facts.window_seconds),
            seconds(facts.overlap),
            f"{found.threshold:g}",
            found.runners_up,
            found.validated,
            *([unfamiliar_cell(found)] if facts.unfamiliar else []),
            *([seconds(found.voice)] if facts.voices != "off" else []),
        ]


def event_rows(recording: Analysed, facts: TableFacts) -> Iterator[list[str]]:
    for event in recording.events:
        yield [
            *six(recording, event),
            f"{event.mean_confidence:.4f}",
            str(event.windows),
            *where(recording, event, facts),
            event.validated,
        ]


def where(recording: Analysed, found: Detection | Event, facts: TableFacts) -> list[str]:
    """Cells of `WHERE`."""
    return [found.label, recording.site, recording.recorded_at, found.detected_at, channel(found), facts.model]


def six(recording: Analysed, found: Detection | Event) -> list[str]:
    return [
        seconds(found.start),
        seconds(found.end),
        found.scientific_name,
        found.common_name,
        f"{found.confidence:.4f}",
        plain_path(recording.file),
    ]


def unfamiliar_cell(found: Detection) -> str:
    """How unlike training the window is, in a cell."""
    return "" if found.unfamiliar is None else f"{found.unfamiliar:.3f}"


def channel(found: Detection | Event) -> str:
    return str(found.channel or "mean")


def kaleidoscope_rows(recording: Analysed, _facts: TableFacts) -> Iterator[list[str]]:
    """INDIR / FOLDER / IN FILE open as one path; TOP1DIST is the confidence, whatever its name says."""
    path = Path(recording.file)
    where = [plain_path(str(path.parent.parent)), plain_path(path.parent.name), plain_path(path.name)]
    for found in recording.found:
        duration = seconds(found.end - found.start)
        yield [*where, seconds(found.start), duration, found.common_name, f"{found.confidence:.4f}", found.validated]


@contextmanager
def raven_tables(exports: Path, facts: TableFacts, split: bool) -> Generator[Write]:
    """raven.selections.txt over all recordings in a row, raven.list.txt to open them so, and tables per recording.

    Raven counts time through the whole list, so every recording in it moves those behind it, detections or not. One
    whose length Raven may see differently (salvaged) or whose path no line can hold has only a table of its own; one
    without any window has none, as an empty table would say that there is nothing in it.
    """
    before, count = 0.0, 0  # seconds and selections of the recordings listed so far
    with open_text(exports / "raven.selections.txt") as table, open_text(exports / "raven.list.txt") as names:
        write_line(table, RAVEN_COLUMNS)

        def write(recording: Analysed) -> None:
            nonlocal before, count
            listed = recording.status == "ok" and bare(recording.file) == recording.file
            if recording.windows and (split or not listed):
                with open_text(exports / "raven" / f"{table_name(recording.file)}.selections.txt") as own:
                    write_line(own, RAVEN_COLUMNS)
                    write_selections(own, recording, facts)
            if listed:
                names.write(plain_path(recording.file) + "\n")
                write_selections(table, recording, facts, before, count)
                before += recording.seconds_analysed + recording.seconds_silent + recording.seconds_skipped
                count += len(recording.found)

        yield write


def write_selections(
    table: TextIO, recording: Analysed, facts: TableFacts, before: float = 0.0, count: int = 0
) -> None:
    """The selections of one recording that begins `before` seconds into the sound, behind `count` others.

    Raven refuses frequencies above the recording's own limit.
    """
    highest = min(facts.highest_hz, recording.sample_rate / 2)
    for number, found in enumerate(recording.found, count + 1):
        cells = [
            str(number),
            "Spectrogram 1",
            str(found.channel or 1),
            decimal(before + found.start),
            decimal(before + found.end),
            decimal(facts.lowest_hz if facts.lowest_hz < highest else 0.0),
            decimal(highest),
            found.common_name,
            found.label,
            f"{found.confidence:.4f}",
            plain_path(recording.file),
            decimal(found.start),
            found.validated,
        ]
        write_line(table, cells)


def decimal(value: float) -> str:
    """A number with a point: readers of Raven's tables take a column of whole numbers for another type."""
    text = seconds(value)
    return text if "." in text else f"{text}.0"


def write_audacity(folder: Path, recording: Analysed) -> None:
    """The labels of one recording, an empty file where nothing was detected, none where nothing was analysed."""
    if recording.windows:
        with open_text(folder / f"{table_name(recording.file)}.txt") as labels:
            for found in recording.found:
                name = f"{found.scientific_name}, {found.common_name}{validation_mark(found.validated)}"
                write_line(labels, [seconds(found.start), seconds(found.end), name, f"{found.confidence:.4f}"])


def table_name(file: str) -> str:
    """A name below some folder for the table of a recording: its path, and never that of another recording.

    A path that is not below the working folder keeps its parts: /mnt/a.wav -> _root/mnt/a.wav, ../a.wav -> _up/a.wav.
    What cannot be a name everywhere is replaced or cut; if the path cannot be read off the name then, a digest of it
    stands behind a ~, which no other name has.
    """
    parts = [OUTSIDE.get(part) or nameable(part) for part in file.split("/")][-MOST_PARTS:]
    reversible = "/".join(INSIDE.get(part, part) for part in parts) == file
    digest = hashlib.sha256(file.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return "/".join(parts) if reversible else f"{'/'.join(parts)}~{digest}"


def nameable(part: str) -> str:
    """A part of a path as every file system takes it."""
    return UNSAFE.sub("_", part.encode("utf-8", "replace")[:LONGEST_PART].decode("utf-8", "ignore"))


@contextmanager
def parquet_table(path: Path, facts: TableFacts) -> Generator[Write]:
    """Times as float64, other numbers as float32, all else as text; columns as of detections.csv, in plain names."""
    assert find_spec("pyarrow"), "Parquet needs pyarrow: pip install pyarrow (requirements.txt has the version)"
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    types = dict.fromkeys(PARQUET_TIMES, pyarrow.float64()) | dict.fromkeys(PARQUET_NUMBERS, pyarrow.float32())
    types |= dict.fromkeys((UNFAMILIAR.lower(), VOICE_S), pyarrow.float32())
    more = (*((UNFAMILIAR.lower(),) if facts.unfamiliar else ()), *((VOICE_S,) if facts.voices != "off" else ()))
    columns = (*PARQUET_COLUMNS, *more)
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in columns])
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    with publish(path) as temporary, ParquetWriter(temporary, schema) as table:

        def write(recording: Analysed) -> None:
            rows.extend(parquet_rows(recording, facts))
            if len(rows) >= ROW_GROUP:
                table.write_table(pyarrow.Table.from_pylist(rows, schema))
                rows.clear()

        yield write
        if rows:
            table.write_table(pyarrow.Table.from_pylist(rows, schema))


def parquet_rows(recording: Analysed, facts: TableFacts) -> Iterator[dict[str, object]]:
    for found in recording.found:
        cells = (
            found.start,
            found.end,
            found.scientific_name,
            found.common_name,
            found.confidence,
            plain_path(recording.file),
            *where(recording, found, facts),
            facts.window_seconds,
            facts.overlap,
            found.threshold,
            found.validated,
        )
        texts = (cell.encode("utf-8", "backslashreplace").decode() if isinstance(cell, str) else cell for cell in cells)
        more: dict[str, object] = {UNFAMILIAR.lower(): found.unfamiliar} if facts.unfamiliar else {}
        more |= {VOICE_S: found.voice} if facts.voices != "off" else {}
        yield dict(zip(PARQUET_COLUMNS, texts, strict=True)) | more


if __name__ == "__main__":
    frog = Detection(5.0, 10.0, "41", "Rana ficta", 'the "pretend", frog', 0.91, 0.25)
    season = [
        Analysed("pond/dawn.wav", "pond", "", 48_000, 1, 60.0, 60.0, 12, "ok", "", 5_760_044, 1, (frog,)),
        Analysed("pond/noon.wav", "pond", "", 48_000, 1, 60.0, 60.0, 12, "ok", "", 5_760_044, 1),
        Analysed("pond/dusk.wav", "pond", "", 48_000, 1, 60.0, 60.0, 12, "ok", "", 5_760_044, 1, (frog,)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for path in write_tables(Path(folder), iter(season), TableFacts("toy.onnx", 5.0, 0.0, 16_000.0), KINDS):
            print(path.relative_to(folder))
        selections = (Path(folder) / "exports/raven.selections.txt").read_text(encoding="utf-8")
    print(selections)
    begins = [line.split("\t")[3] for line in selections.splitlines()[1:]]
    assert begins == ["5.0", "125.0"], "noon is silent, and dusk begins after it"
