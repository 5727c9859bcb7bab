"""The table of recordings: one row per recording, or per segment of it that someone labelled, whatever its source.

    recordings = read_recordings(Path("runs/data/recordings.csv"))
    write_recordings(Path("recordings.csv"), recordings)

Reads    recordings.csv
Writes   recordings.csv: opens in pandas and in any spreadsheet; several of them can be joined, rows can be taken out

Lists in a cell are separated by semicolons, segments are written 0.9-7.3. No torch, no pandas.
"""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runtime.addresses import place
from runtime.cells import seconds
from runtime.csvs import read_table
from runtime.files import publish

TEXTS = (  # columns that are text as it stands, called as the fields of a Recording are
    *("source", "recording_id", "author", "site", "latitude", "longitude", "recorded_at", "make", "serial"),
    *("temperature", "rating", "license", "group"),
)
COLUMNS = (
    *("root", "path", "start", "end", "labels", "listened", "absent", "keep", "alive"),
    *TEXTS,
    *("fold", "seconds", "sample_rate", "channels", "status", "reason"),
)
SCORES = "scores"  # one more column, of a table whose labels are a classifier's
VOICES = "voices"  # and one of a table of recordings in which voices were found
SOUND = ("ok", "salvaged")  # a row of another status is kept for the record and is never used
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # what a spreadsheet would take for more than text


@dataclass(frozen=True)
class Recording:
    """One row of the table."""

    path: Path  # where the file is
    name: str  # relative to the data root, with forward slashes: two recordings never share it
    labels: tuple[str, ...] = ()  # primary label first; empty where nothing is known, or nothing was found
    group: str = ""  # recordings of one group are never divided between training and validation
    fold: int = -1  # -1: not yet drawn
    seconds: float = 0.0  # of sound, as decoded
    start: float | None = None  # seconds: the labelled segment, where it is not the whole recording
    end: float | None = None
    listened: bool = False  # somebody listened: without labels, none of the species is in it
    absent: tuple[str, ...] = ()  # labels that somebody said are not in it
    keep: tuple[tuple[float, float], ...] = ()  # what the user keeps, start and end in seconds, as written; none: all
    alive: tuple[tuple[float, float], ...] = ()  # what the survey found to hold sound, where that is not all of it
    source: str = ""  # the layout it came in, or the collection that layout names: XC, iNat, CSA
    recording_id: str = ""  # what its collection calls it: XC941297
    author: str = ""
    site: str = ""
    latitude: str = ""
    longitude: str = ""
    recorded_at: str = ""  # ISO 8601, with an offset where that is known; a date alone where the time is not
    make: str = ""  # of the recorder, and its model
    serial: str = ""
    temperature: str = ""  # degrees Celsius, when the recording began
    rating: str = ""
    license: str = ""
    sample_rate: int = 0  # Hz, of the file
    channels: int = 0
    status: str = "ok"  # ok, salvaged; else why it is set aside: unreadable, silent, short, missing, duplicate, refused
    reason: str = ""
    scores: tuple[float, ...] = ()  # of its labels, 0 to 1, where they are a classifier's; none: they are somebody's
    voices: tuple[tuple[float, float], ...] = ()  # where somebody speaks, start and end in seconds, as far as known

    @property
    def day(self) -> str:
        """The date it was made, where that is known."""
        return self.recorded_at[:10]

    @property
    def sound(self) -> bool:
        """Whether it can be used."""
        return self.status in SOUND

    @property
    def labeled(self) -> bool:
        """Whether it can teach or test a classifier."""
        return bool(self.labels) or self.listened

    @property
    def usable(self) -> tuple[tuple[float, float], ...]:
        """What training windows are drawn from, start and end in seconds: the labelled segment, else what is kept, else
        all of it, and of that what holds sound."""
        whole = ((0.0, self.seconds),)
        if self.start is not None and self.end is not None:
            return overlaps(((self.start, self.end),), self.alive) if self.alive else ((self.start, self.end),)
        return overlaps(overlaps(self.keep, whole) if self.keep else whole, self.alive or whole)


def read_recordings(path: Path) -> list[Recording]:
    """The rows of a recordings.csv.

    Errors: a missing column, a number that is none, a path that leaves its root: one line names file, line, remedy.
    """
    return [read_row(where, row) for where, row in read_table(path, ("root", "path"))]


def write_recordings(path: Path, recordings: Sequence[Recording]) -> None:
    """All rows in their order, whole or not at all."""
    more = {SCORES: any(row.scores for row in recordings), VOICES: any(row.voices for row in recordings)}
    extra = [name for name, there in more.items() if there]
    with publish(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow((*COLUMNS, *extra))
        for recording in recordings:
            scores, voices = ";".join(map(seconds_text, recording.scores)), segments_text(recording.voices)
            row = [*cells(recording), *({SCORES: scores, VOICES: voices}[name] for name in extra)]
            table.writerow([harmless(cell) for cell in row])


def overlaps(
    some: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]
) -> tuple[tuple[float, float], ...]:
    """What lies in both of two lists of segments, in the order of time."""
    both = [(max(one[0], other[0]), min(one[1], other[1])) for one in some for other in others]
    return tuple(sorted((start, end) for start, end in both if start < end))


def path_within(root: Path, name: str) -> Path | None:
    """`root / name`, or None where that is not below `root`, whatever dots and links are on the way."""
    if not name or "\0" in name:
        return None
    path = root / name
    try:
        return path if path.resolve().is_relative_to(root.resolve()) else None
    except (OSError, RuntimeError):  # a link that leads to itself
        return None


def cells(recording: Recording) -> list[str]:
    """A row as text, in the order of COLUMNS."""
    root = str(recording.path).removesuffix(recording.name).rstrip("/")
    return [
        root or "/",
        recording.name,
        seconds_text(recording.start),
        seconds_text(recording.end),
        ";".join(recording.labels),
        "yes" if recording.listened else "",
        ";".join(recording.absent),
        segments_text(recording.keep),
        segments_text(recording.alive),
        *(getattr(recording, name) for name in TEXTS),
        str(recording.fold) if recording.fold >= 0 else "",
        seconds_text(recording.seconds),
        str(recording.sample_rate),
        str(recording.channels),
        recording.status,
        recording.reason,
    ]


def read_row(where: str, row: dict[str, str]) -> Recording:
    """One row; columns that are not there are left at their defaults."""
    cell = {name: literal(value) for name, value in row.items()}
    root, name = place(Path(cell["root"])), cell["path"]
    below = name and "\0" not in name and not name.startswith("/") and ".." not in Path(name).parts
    assert below, f"{where}: {name!r} leaves {root}; paths must stay below their root"  # the root may hold links
    labels = parts(cell.get("labels", ""))
    scores = tuple(real(part, SCORES, where) for part in parts(cell.get(SCORES, "")))
    assert not scores or (len(scores) == len(labels) and min(scores) >= 0 and max(scores) <= 1), (
        f"{where}: scores {cell[SCORES]!r} of the labels {cell.get('labels', '')!r}; give each a score from 0 to 1"
    )
    found = Recording(
        root / name,
        name,
        labels=labels,
        fold=whole_number(cell.get("fold", "") or "-1", "fold", where),
        seconds=real(cell.get("seconds", "") or "0", "seconds", where),
        start=real(cell["start"], "start", where) if cell.get("start") else None,
        end=real(cell["end"], "end", where) if cell.get("end") else None,
        listened=cell.get("listened", "") == "yes",
        absent=parts(cell.get("absent", "")),
        keep=tuple(segment(part, "keep", where) for part in parts(cell.get("keep", ""))),
        alive=tuple(segment(part, "alive", where) for part in parts(cell.get("alive", ""))),
        sample_rate=whole_number(cell.get("sample_rate", "") or "0", "sample_rate", where),
        channels=whole_number(cell.get("channels", "") or "0", "channels", where),
        status=cell.get("status", "") or "ok",
        reason=cell.get("reason", ""),
        scores=scores,
        voices=tuple(segment(part, VOICES, where) for part in parts(cell.get(VOICES, ""))),
    )
    texts: dict[str, Any] = {column: cell.get(column, "") for column in TEXTS}
    return replace(found, **texts)


def harmless(cell: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe before what could be one, but not before a number."""
    return f"'{cell}" if cell.startswith(FORMULA) and not is_number(cell) else cell


def literal(cell: str) -> str:
    """What `harmless` was given."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def seconds_text(value: float | None) -> str:
    """Seconds to at most four decimals, nothing for nothing."""
    return "" if value is None else seconds(value)


def segments_text(segments: Iterable[tuple[float, float]]) -> str:
    """0.9-7.3;9-12."""
    return ";".join(f"{seconds_text(start)}-{seconds_text(end)}" for start, end in segments)


def parts(cell: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split(";") if part.strip())


def segment(text: str, column: str, where: str) -> tuple[float, float]:
    """0.9-7.3 as two numbers."""
    start, _, end = text.partition("-")
    return real(start, column, where), real(end, column, where)


def real(text: str, column: str, where: str) -> float:
    assert is_number(text), f"{where}: {column} {text!r} is no number; write one with a point"
    return float(text)


def whole_number(text: str, column: str, where: str) -> int:
    """A whole number; 2.0 is one too: pandas writes a column so that has a gap."""
    digits = re.fullmatch(r"(-?\d{1,18})(?:\.0*)?", text, re.ASCII)
    assert digits, f"{where}: {column} {text!r} is no whole number; write one"
    return int(digits[1])


def is_number(text: str) -> bool:
    """Whether a finite number is written here; Python alone reads 0_5 as 5."""
    try:
        return "_" not in text and abs(float(text)) < float("inf")
    except ValueError:
        return False


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        owl = Recording(root / "owl.ogg", "owl.ogg", ("tawow", "greti"), "by Ada", 2, 61.5, latitude="-4.5")
        pond = Recording(root / "=pond.wav", "=pond.wav", keep=((0.9, 7.3),), listened=True, status="silent")
        rows = [owl, pond]
        write_recordings(root / "recordings.csv", rows)
        print((root / "recordings.csv").read_text())
        assert read_recordings(root / "recordings.csv") == rows
