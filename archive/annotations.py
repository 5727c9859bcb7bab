"""Tables that say which species is when in a long recording: Raven's selection tables, csv with start and end.

    found = read_annotations(root, sounds, [], [root / "dawn.Table.1.selections.txt"])

Reads    tables parted by tabs, commas or semicolons, in UTF-8, UTF-16 or Latin-1, whatever their columns are called
Writes   nothing, and opens no sound

Names in tables are never trusted: they are looked up among the sounds that are there. A row that cannot be used stays
with its reason; a table that a model wrote is no table of annotations.
"""

from __future__ import annotations

import io
import math
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from archive.index import (
    HEAD_BYTES,
    Found,
    NameIndex,
    checked_name,
    listed,
    missing,
    plain_sounds,
    refused,
    sound_row,
    stranger,
    with_facts_of_name,
)
from archive.lineages import Row, label_row, shipped, taxonomy_rows, with_lineages
from archive.recordings import Recording, is_number, path_within
from runtime.csvs import csv_cells, decoded_text, delimiter
from taxonomy import BLANKS, key

NO_LABEL = frozenset({"noise", "other", "background", "silence"})  # folders without any species
LONGEST_CELL = 4096  # characters of a list of labels, or of the names of columns
EITHER = re.compile(r"[1-9]\d{0,2}[.,]\d{3}")  # thousands, or a fraction; of a point alone, a fraction
DECIMALS = 4  # of a second, as recordings.csv has them
START = [
    *("begin_time_s", "start", "start_s", "start_time", "start_time_s", "start_seconds"),
    *("begin", "begin_s", "begin_time", "onset", "onset_s"),
]
END = ["end_time_s", "end", "end_s", "end_time", "end_seconds", "offset", "offset_s", "stop", "stop_s"]
DURATION = ["duration", "duration_s", "duration_seconds", "delta_time_s", "length", "length_s"]
FILE = [
    *("filename", "file", "path", "file_name", "file_path", "filepath", "audio_file", "begin_path", "begin_file"),
    "in_file",  # Kaleidoscope
]
LABEL = [
    *("primary_label", "label", "labels", "species", "annotation", "annotations", "scientific_name"),
    *("species_code", "common_name", "species_name", "code", "class", "manual_id"),
]
AUDACITY = ["start", "end", "label"]  # its labels have no header
PREDICTED = frozenset({"confidence", "score", "probability"})  # columns of a model's output
RAVEN_NAME = re.compile(r"(?:\.table\.\d+)?(?:\.selections?)?(?:\.table)?\.(?:txt|tsv|csv)$", re.IGNORECASE)


def read_annotations(
    root: Path, sounds: Sequence[str], searched: Sequence[str], tables: Sequence[Path], asked: str = ""
) -> Found:
    """Tables over long recordings; with a taxonomy.csv only its labels count, without one all labels do."""
    assert tables, (
        f"no annotations below {root}; a selection table of Raven has a column Begin Time (s), a csv has the "
        "columns filename, start, end, label (--data.label_column names another)"
    )
    found = annotated(root, sounds, tables, "annotations", asked)
    notes = [*searched, *found.notes]
    if (root / "taxonomy.csv").is_file():
        rows, completed = taxonomy_rows(root)
        return closed_labels(found._replace(notes=notes + completed), rows)
    rows, completed = with_lineages(found.rows, [shipped()])
    return Found(rows, found.recordings, notes + completed)


def table_kind(path: Path, asked: str = "") -> str:
    """annotated where a table says where in a recording somebody found something, predicted where a model did, labels
    where it does not say in which recording, as Audacity's do not."""
    if path.suffix.lower() == ".txt" and (kind := labels_kind(path)):
        return kind
    columns = set(table_columns(path))
    label = plain_column(asked) in columns or first(LABEL, columns)
    if not time_columns(columns) or not ("begin_time_s" in columns or label):
        return ""
    kind = "annotated" if "begin_time_s" in columns or first(FILE, columns) else "labels"
    return "predicted" if columns & PREDICTED else kind


def labels_kind(path: Path) -> str:
    """labels where a file has Audacity's: two times and a text in every line; predicted where a confidence follows."""
    lines = [line.split("\t") for line in head_of(path).split("\n")[:-1] or [head_of(path)]]
    lines = [cells for cells in lines if any(cells) and cells[0] != "\\"]  # which begins a line of frequencies
    if not lines or not all(is_label(cells) for cells in lines) or not any(len(cells) > 2 for cells in lines):
        return ""
    return "predicted" if all(len(cells) > 3 and is_number(cells[3]) for cells in lines) else "labels"


def is_label(cells: Sequence[str]) -> bool:
    """Whether a line is one of Audacity's: start, end, and a text that is no number."""
    times = [clock_seconds(cell) for cell in cells[:2]]
    return len(times) == 2 and None not in times and not any(is_number(cell) for cell in cells[2:3])


def time_columns(columns: Iterable[str]) -> tuple[str, str, str]:
    """The columns of start, end and duration as far as a table has them; none where that does not make a segment."""
    there = set(columns)
    start, end, duration = (first(names, there) for names in (START, END, DURATION))
    if not start and duration and "offset" in there:  # Kaleidoscope
        start, end = "offset", ""
    return (start, end, "" if end else duration) if start and (end or duration) else ("", "", "")


def annotated(root: Path, sounds: Sequence[str], tables: Sequence[Path], source: str, asked: str = "") -> Found:
    """One row per annotation, and one for each sound that no table speaks of; labels as the tables have them.

    A table without rows says that somebody listened to all of its recording and found nothing.
    """
    index, places = NameIndex(sounds), {name: root / name for name in sounds}
    recordings: list[Recording] = []
    labels: dict[str, Row] = {}  # by the label's key
    columns: Counter[str] = Counter()
    notes: list[str] = []
    nameless = 0
    elsewhere: list[str] = []
    for table in tables:
        # what kind of table it is: its columns, how it writes numbers, which column has the species
        lines, encoding = read_annotation_table(table)
        header = lines[0][1] if lines else START + END
        assert any(time_columns(header)), (
            f"{table} has no columns start and end, but {listed(header, 12)}; name them so"
        )
        decimal = decimal_sign([line[name] for _, line in lines for name in time_columns(header) if name], table)
        through = counts_through(lines, decimal, index)
        of_others = index.contested((named_file(line, index) for _, line in lines), places)
        notes += [f"{table.relative_to(root)} is not in UTF-8, read as {encoding}"] if encoding else []
        column = label_column(table, lines, asked)
        columns[column] += 1
        if not lines and "begin_time_s" in table_columns(table):
            recordings.append(replace(annotated_sound(root, "", table, index, source), listened=True))
        for where, line in deduplicated(lines, column):
            # when and in which recording
            start, end, fault = segment_times(line, decimal)
            fault = fault or (through if offset_of(line, decimal) is None else "")
            written = named_file(line, index)
            recording = annotated_sound(root, written, table, index, source, written in of_others)
            if recording.sound and recording.path.parent != table.parent and not first(FILE, line):
                elsewhere.append(recording.name)
            # which species; a word such as noise says that there is none
            words = [word.strip() for word in line.get(column, "").split(";")]
            spoken = [word for word in words if key(word) not in BLANKS and word.casefold() not in NO_LABEL]
            if not spoken and not any(word.casefold() in NO_LABEL for word in words):
                nameless += 1
                continue
            names = (line.get("scientific_name", ""), line.get("common_name", "")) if len(spoken) == 1 else ("", "")
            for word in spoken:
                labels.setdefault(key(word), (where, label_row(word, *names)))
            present = tuple(dict.fromkeys(labels[key(word)][1]["primary_label"] for word in spoken))
            recording = replace(recording, labels=present, listened=not present, start=start, end=end)
            recordings.append(refused(recording, f"{where}: {fault}") if fault else recording)
            if (last := line.get("end_path", "") or line.get("end_file", "")) and present:
                other = annotated_sound(root, last, table, index, source)
                if other.name != recording.name:
                    crossing = f"{where}: begins in {recording.name} and ends here; make two selections of it"
                    recordings.append(refused(replace(other, labels=present), crossing))
    # what to say, and the recordings that no table speaks of
    notes += notes_on_tables(columns, nameless, elsewhere) if tables else []
    mentioned = {recording.name for recording in recordings}
    rest, warnings = plain_sounds(root, [name for name in sounds if name not in mentioned], source)
    return Found(list(labels.values()), recordings + rest, notes + warnings)


def notes_on_tables(columns: Mapping[str, int], nameless: int, elsewhere: Iterable[str]) -> list[str]:
    """What to say of all tables together.

    columns    with the labels, and in how many tables; blank where a table has no rows
    """
    used = ", ".join(f"{column} ({count})" for column, count in sorted(columns.items()) if column)
    notes = [f"{sum(columns.values())} tables of annotations; labels are in the column {used or 'of none of them'}"]
    if nameless:
        notes.append(f"{nameless} annotations have no label and were left out")
    if elsewhere:
        notes.append(f"found in another folder than the table of their name: {listed(dict.fromkeys(elsewhere))}")
    return notes


def closed_labels(found: Found, rows: Sequence[Row]) -> Found:
    """Annotations whose labels are names in a taxonomy, under the taxonomy's labels; the others are refused."""
    label_of: dict[str, str] = {}
    for column in ("primary_label", "scientific_name", "common_name"):
        for _, row in rows:
            label_of.setdefault(key(row[column]), row["primary_label"])
    settled: list[Recording] = []
    for recording in found.recordings:
        present = tuple(dict.fromkeys(label_of[key(label)] for label in recording.labels if key(label) in label_of))
        if present or not recording.labels:
            settled.append(replace(recording, labels=present))
        else:
            settled.append(refused(recording, stranger(recording.labels[0])))
    return Found(list(rows), settled, found.notes)


def read_annotation_table(path: Path) -> tuple[list[Row], str]:
    """The rows of a table of annotations, columns by their plain names, and its encoding where that is not UTF-8."""
    content, encoding = decoded_text(path.read_bytes())
    rows: list[Row] = []
    columns = AUDACITY if labels_kind(path) else list[str]()
    headless = bool(columns)
    for number, cells in cells_of(path, content, "\t" if headless else parted_by(content)):
        line = [cell.strip() for cell in (cells[:3] if headless else cells)]
        if headless and line[0] == "\\":  # frequencies
            continue
        columns = columns or [plain_column(cell) for cell in line]
        assert not any(line[len(columns) :]), (
            f"{path} line {number}: {len(line)} cells, not {len(columns)}; take out the superfluous ones"
        )
        if any(line):
            rows.append((f"{path} line {number}", dict(zip(columns, line + [""] * len(columns), strict=False))))
    return rows if headless else rows[1:], encoding


def label_column(table: Path, lines: Sequence[Row], asked: str) -> str:
    """The column of a table that holds the species, by its plain name; blank where the table has no rows."""
    columns = list(lines[0][1]) if lines else []
    column = plain_column(asked) if asked else first(LABEL, columns)
    assert not lines or column in columns, (
        f"{table} has no column {asked or 'for the species'}, but {listed(columns, 12)}; name it by --data.label_column"
    )
    return column if lines else ""


def deduplicated(lines: Sequence[Row], column: str) -> list[Row]:
    """Raven writes a selection once per view: of these the spectrogram's row, or the first with a label."""
    chosen: dict[tuple[str, ...], Row] = {}
    for where, line in lines:
        number = line.get("selection", "")
        times = tuple(line[name] for name in time_columns(line) if name)
        identity = (number, *(line.get(name, "") for name in ("begin_path", "begin_file")), *times)
        identity = identity if number and "view" in line else (where,)
        other = chosen.setdefault(identity, (where, line))[1]
        if (bool(line.get(column)), is_spectrogram(line)) > (bool(other.get(column)), is_spectrogram(other)):
            chosen[identity] = (where, line)
    return list(chosen.values())


def is_spectrogram(line: Mapping[str, str]) -> bool:
    return line.get("view", "").casefold().startswith("spectrogram")


def segment_times(line: Mapping[str, str], decimal: str = "") -> tuple[float | None, float | None, str]:
    """Start and end in seconds from the beginning of the file, or what is wrong with them.

    Raven's Begin Time runs on over several files; File Offset is the time within one.
    """
    columns = [name for name in time_columns(line) if name]
    first_cell, last_cell = (line[name] for name in columns)
    start, end = clock_seconds(first_cell, decimal), clock_seconds(last_cell, decimal)
    if start is None or end is None:
        unclear = [cell for cell in (first_cell, last_cell) if EITHER.fullmatch(cell)]
        if unclear:
            return None, None, f"{unclear[0]!r} may be thousands or a fraction; write a point, or no comma"
        return None, None, f"{first_cell!r} to {last_cell!r} are no times; write seconds, or hours:minutes:seconds"
    if time_columns(line)[2]:
        end = round(start + end, DECIMALS)
    if end <= start:
        return start, end, f"it ends at {last_cell}, not after its start at {first_cell}; mend the times"
    offset = offset_of(line, decimal)
    return (start, end, "") if offset is None else (offset, round(offset + end - start, DECIMALS), "")


def offset_of(line: Mapping[str, str], decimal: str) -> float | None:
    """Raven's File Offset, where it says of which file."""
    return clock_seconds(line.get("file_offset_s", ""), decimal) if first(("begin_path", "begin_file"), line) else None


def counts_through(lines: Sequence[Row], decimal: str, index: NameIndex) -> str:
    """Why the times of a table are none within a recording: Raven counts through all that are open, one after the
    other, and File Offset is missing. Recordings whose times overlap each count from their own beginning."""
    reach: dict[str, list[float]] = {}
    for _, line in lines:
        start, end, _ = segment_times(line, decimal)
        if "begin_time_s" in line and first(("begin_path", "begin_file"), line) and offset_of(line, decimal) is None:
            reach.setdefault(named_file(line, index), []).extend(time for time in (start, end) if time is not None)
    spans = sorted((min(times), max(times)) for times in reach.values() if times)
    if len(spans) < 2 or any(before[1] > after[0] for before, after in pairwise(spans)):
        return ""
    return (
        f"its times run on over {len(spans)} recordings, and it has no column File Offset (s); add that in Raven, and "
        "save it again (where every recording counts from its own beginning, it is the same as Begin Time)"
    )


def named_file(line: Mapping[str, str], index: NameIndex) -> str:
    """What a row of annotations calls its recording: of several columns the first that names one that is there."""
    written = [line[column] for column in FILE if line.get(column)]
    return next((name for name in written if index.find(name)), written[0] if written else "")


def annotated_sound(
    root: Path, written: str, table: Path, index: NameIndex, source: str, of_others: bool = False
) -> Recording:
    """The recording that a row names, or whose name the table bears; missing or refused where that is none, or several.

    written     the row's name for it, perhaps a path of another computer; blank where it has none
    of_others   whether what is found by that name is another recording
    """
    own = table.relative_to(root).parent.as_posix()
    names = [] if of_others else index.find(written or RAVEN_NAME.sub("", table.name), own)
    name = names[0] if names else ""
    if len(names) == 1:
        return checked_name(with_facts_of_name(sound_row(root, name, source))[0])
    stem, slashed = RAVEN_NAME.sub("", table.name), written.replace("\\", "/")
    titles = [os.path.normpath(slashed) if ":" not in slashed else "", slashed.rpartition("/")[2], stem]
    title = next((title for title in titles if title != "." and path_within(root / own, title)), "unnamed")
    recording = sound_row(root, Path(own, title).as_posix(), source)
    if not names:
        return missing(recording)
    return refused(recording, f"several recordings have that name: {listed(names)}; write the folder too")


def table_columns(path: Path) -> list[str]:
    """The plain names of the columns of a table of any encoding; none where its first line is too long for that."""
    header = head_of(path).partition("\n")[0]
    return (
        [plain_column(cell) for _, cells in cells_of(path, header, parted_by(header), strict=False) for cell in cells]
        if len(header) < LONGEST_CELL
        else []
    )


def head_of(path: Path) -> str:
    """The first lines of a table, whole ones where it has more than fit."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return decoded_text(head if len(head) < HEAD_BYTES else head[: head.rfind(b"\n") + 1])[0]


def parted_by(content: str) -> str:
    """What parts the cells of a table: a tab, a semicolon or a comma."""
    return "\t" if "\t" in content.partition("\n")[0] else delimiter(content)


def cells_of(path: Path, content: str, mark: str, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of a table parted by tabs (never quoted, as Raven writes them), semicolons or commas."""
    if mark == "\t":
        return ((number, line.split("\t")) for number, line in enumerate(content.split("\n"), 1))
    return csv_cells(path, io.StringIO(content, newline=""), mark, strict)


def plain_column(column: str) -> str:
    """Begin Time (s) -> begin_time_s."""
    return re.sub(r"[\W_]+", "_", column.casefold()).strip("_")


def first(names: Iterable[str], columns: Iterable[str]) -> str:
    """The first of several names that a column has, or nothing."""
    there = set(columns)
    return next((name for name in names if name in there), "")


def decimal_sign(cells: Iterable[str], table: Path) -> str:
    """What parts seconds from their fractions in all times of a table, blank where its cells do not agree.

    1,5 has a fraction, 1,234.5 thousands; 1,234 alone is either. Where commas part cells, it is thousands; where
    semicolons do, a fraction: Excel writes so where people write 1,5.
    """
    signs: set[str] = set()
    unclear: set[str] = set()
    for cell in cells:
        marks = re.findall("[.,]", cell)
        if EITHER.fullmatch(cell):
            unclear |= set(marks)
        elif marks:
            signs.add({".": ",", ",": "."}[marks[0]] if len(marks) > 1 and len(set(marks)) == 1 else marks[-1])
    if len(signs) == 1:
        return signs.pop()
    mark = parted_by(head_of(table)) if unclear == {","} and not signs else ""
    return {",": ".", ";": ","}.get(mark, "")


def clock_seconds(cell: str, decimal: str = "") -> float | None:
    """Seconds: 75, 75.5, 75,5, 1:15, 0:01:15.5, 1,234.5; None for anything else.

    decimal   the sign before a fraction; blank where the cell has to say it itself, and 1,234 is no time then
    """
    cell = re.sub(r"(?<=\d)[ '\u2019\xa0\u202f](?=\d{3})", "", cell)
    if not decimal:
        if "," in cell and EITHER.fullmatch(cell):
            return None
        decimal = "," if cell.rfind(",") > cell.rfind(".") else "."
        decimal = {".": ",", ",": "."}[decimal] if cell.count(decimal) > 1 else decimal
    whole, sign, fraction = cell.partition(decimal)
    whole = re.sub(r"(?<=\d)[.,](?=\d{3}(?:[.,]|$))", "", whole)
    parts = f"{whole}{sign and '.'}{fraction}".split(":")
    if len(parts) > 3 or not all(is_number(part) and float(part) >= 0 for part in parts):
        return None
    seconds = sum(float(part) * 60.0**power for power, part in enumerate(reversed(parts)))
    return round(seconds, DECIMALS) if math.isfinite(seconds) else None


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "dawn.wav").touch()
        table = root / "dawn.Table.1.selections.txt"
        table.write_text(
            "Selection\tView\tBegin Time (s)\tEnd Time (s)\tSpecies\n"
            "1\tWaveform 1\t3.5\t4.25\tparus major\n1\tSpectrogram 1\t3.5\t4.25\tparus major\n"
            "2\tSpectrogram 1\t9.0\t8.0\tStrix aluco\n"
        )
        found = read_annotations(root, ["dawn.wav"], [], [table])
    for row in found.recordings:
        print(f"  {row.name:10} {row.start} {row.end} {row.labels} {row.status} {row.reason}")
    assert [row.status for row in found.recordings] == ["ok", "refused"], "the second selection ends too early"
