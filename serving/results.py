"""What predictor.py left in a folder, read back: detections, files, facts of the run; and the sound they speak of.

    results = read_results(Path("results"))
    find = sound_finder(results, audio=None)
    find(results.detections[0].file)                   # the recording, or None where it is not there

Reads    detections.csv; files.csv and run.json where there are any. Columns that an older table, or BirdNET's, does not
         have are blank
Writes   nothing, and opens no sound

What the tables say is not trusted: a name is a name, never a path outside of the folder that the user gave.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from archive.index import NameIndex, is_there, sounds_below
from archive.recordings import is_number, path_within
from config import HIGHEST_RATE
from runtime.csvs import ESCAPED, csv_rows, delimiter
from runtime.files import read_json
from serving.detections import DETECTION_COLUMNS, UNFAMILIAR, VOICE
from sounds.notes import MOST_EXPANSION

COLUMNS = (*DETECTION_COLUMNS, UNFAMILIAR)
INDEX = {name: index for index, name in enumerate(COLUMNS)}
NEEDED = ("Start (s)", "End (s)", "Confidence", "File")
TELLING = ("site", "reason", "latitude", "longitude", "serial")  # columns of files.csv that could name a place
FILE, CODE, SITE, MODEL = (INDEX[name] for name in ("File", "Species code", "Site", "Model"))


@dataclass(frozen=True, slots=True)
class Detected:
    """A row of detections.csv: something was detected in a window."""

    cells: tuple[str, ...]  # as they stand there, in the order of COLUMNS
    start: float  # seconds
    end: float
    confidence: float
    voice: float = 0.0  # seconds in which somebody speaks, where the table says so

    def cell(self, column: str) -> str:
        return self.cells[INDEX[column]]

    @property
    def file(self) -> str:
        return self.cells[FILE]

    @property
    def label(self) -> str:
        """Its species code, or its name where there is none."""
        return self.cells[CODE]

    @property
    def window(self) -> tuple[str, float, float, str]:
        """What all detections of one window share."""
        return self.file, self.start, self.end, self.cell("Channel")


@dataclass(frozen=True)
class Results:
    """Everything that one run of the predictor left."""

    folder: Path
    detections: tuple[Detected, ...]
    files: tuple[Mapping[str, str], ...]  # rows of files.csv
    facts: Mapping[str, Any]  # run.json
    digest: str  # of detections.csv
    searched: bool = False  # whether voices were looked for

    @property
    def model(self) -> str:
        """The sha256 of the model's file, or what else the table calls it."""
        digest = self.facts.get("model_sha256")
        return digest if isinstance(digest, str) and digest else next((d.cell("Model") for d in self.detections), "")

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of its cells: how unfamiliar a window is only where the table says so."""
        return COLUMNS[: len(self.detections[0].cells)]

    @property
    def time_expansion(self) -> int:
        """The --time_expansion of the run, within bounds; 1 where nobody says."""
        settings: object = self.facts.get("settings")
        given = cast(dict[str, object], settings).get("time_expansion") if isinstance(settings, dict) else 1
        return given if isinstance(given, int) and 1 <= given <= MOST_EXPANSION else 1

    @property
    def card(self) -> dict[str, str]:
        """Of somebody else's model: its name, licence, citation and card; nothing where the run says nothing."""
        cards: object = self.facts.get("model_cards")
        first: object = cast(list[object], cards)[0] if isinstance(cards, list) and cards else None
        said = cast(dict[str, object], first).items() if isinstance(first, dict) else ()
        found = {name: value for name, value in said if isinstance(value, str)}
        return found if found.get("card") else {}

    @property
    def licences(self) -> tuple[str, ...]:
        """On what terms the models may be used, a line for each that says so; nothing where the run says nothing."""
        said: object = self.facts.get("licences")
        lines = cast(list[object], said) if isinstance(said, list) else []
        return tuple(line for line in lines if isinstance(line, str))

    @property
    def index(self) -> str:
        """The index whose windows these are, chosen by likeness or doubt: then a confidence is a cosine, or the answer
        of a head that no file had at that time. Blank where all windows were scored by a model."""
        index = self.facts.get("index")
        return index if isinstance(index, str) else ""

    @property
    def muted(self) -> bool:
        """Whether voices were silenced before anything was scored."""
        settings: object = self.facts.get("settings")
        return isinstance(settings, dict) and cast(dict[str, object], settings).get("voices") == "mute"

    @property
    def top_hz(self) -> float:
        """Where the model's band ends; 0 where nobody says."""
        return top_of(self.facts.get("band_hz"))


def top_of(band: object) -> float:
    """Where a band ends, as run.json has it: [lowest, highest] in Hz; 0 where it is none."""
    highest = cast(list[object], band)[-1] if isinstance(band, list) and band else 0
    return float(highest) if isinstance(highest, int | float) and 0 < highest <= HIGHEST_RATE else 0.0


def read_results(folder: Path) -> Results:
    """The tables of a folder, or of the newest of several below it.

    Errors: no detections.csv, a column that is needed and missing, a time that is no number: one line with the remedy.
    """
    below = [] if (folder / "detections.csv").is_file() else list(folder.glob("*/detections.csv"))
    table = max(below, key=lambda path: path.stat().st_mtime, default=folder / "detections.csv")
    folder = table.parent
    assert table.is_file(), f"no {table}; name the folder that predictor.py wrote: python report.py results/"
    searched = False

    def read() -> Iterator[Detected]:
        nonlocal searched
        for where, row in rows_of(table, NEEDED):
            searched = VOICE in row
            yield detected(where, row)

    detections = tuple(read())  # may be a million
    assert detections, f"{table} has no detections, so there is nothing to listen to; lower --min_conf of predictor.py"
    files, run = folder / "files.csv", folder / "run.json"
    facts = read_json(run, "take it away") if run.is_file() else dict[str, Any]()
    rows = tuple(row for _, row in rows_of(files, ("file",))) if files.is_file() else ()
    with table.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Results(folder, detections, rows, facts, digest, searched)


def rows_of(path: Path, needed: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each row of a table stands, and its cells by column, untrimmed: a file's name may begin with a blank."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header = file.readline()
        assert not ESCAPED.search(header), f"{path} line 1 is not in UTF-8; save the table as UTF-8"
        mark = delimiter(header)
        file.seek(0)
        for where, row in csv_rows(path, file, mark, needed):
            assert not any(map(ESCAPED.search, row.values())), f"{where} is not in UTF-8; save the table as UTF-8"
            yield where, row


def detected(where: str, row: Mapping[str, str]) -> Detected:
    """One row; BirdNET's has no code for a species, so its name is one."""
    cells = [row.get(column, "") for column in (COLUMNS if UNFAMILIAR in row else DETECTION_COLUMNS)]
    cells[CODE] = cells[CODE] or row.get("Scientific name", "") or row.get("Common name", "")
    times = [row[column] for column in ("Start (s)", "End (s)", "Confidence")]
    assert all(is_number(time) for time in times), f"{where}: {times} are not all numbers; mend the row or remove it"
    start, end, confidence = map(float, times)
    assert 0 <= start < end and 0 <= confidence <= 1, f"{where}: {times} are no window and share; mend the row"
    voice = float(row[VOICE]) if is_number(row.get(VOICE, "")) else 0.0
    return Detected(tuple(map(sys.intern, cells)), start, end, confidence, voice)


def sound_finder(results: Results, audio: Path | None) -> Callable[[str], Path | None]:
    """A function from what a table calls a recording to where it is, None where it is not.

    audio   a folder to which the recordings were moved: then nothing outside of it is ever opened. Without it they are
            where they were when the predictor ran
    """
    if audio is None:
        directory = results.facts.get("working_directory")
        base = Path(directory) if isinstance(directory, str) else Path()
        return lambda name: base / name if is_there(base / name) else None
    assert audio.is_dir(), f"no folder {audio}; point --audio at the recordings"
    there = sounds_below(audio, audio)[0]
    index = NameIndex(there)
    every = [*(d.file for d in results.detections), *(row["file"] for row in results.files)]
    of_others = index.contested(every, {name: audio / name for name in there})

    def find(name: str) -> Path | None:
        names = [] if name in of_others else index.find(name)
        return path_within(audio, names[0]) if len(names) == 1 else None

    return find


def hidden(results: Results) -> Results:
    """The same, with a number for each recording and each site, and without what else could name them."""
    names = dict.fromkeys([*(d.file for d in results.detections), *(row["file"] for row in results.files)])
    sites = dict.fromkeys(d.cells[SITE] for d in results.detections if d.cells[SITE])
    number_of = {name: f"recording {number}" for number, name in enumerate(names, 1)}
    site_of = {"": ""} | {name: f"site {number}" for number, name in enumerate(sites, 1)}
    detections: list[Detected] = []
    for d in results.detections:
        cells = list(d.cells)
        cells[FILE], cells[SITE] = number_of[d.file], site_of[d.cells[SITE]]
        cells[MODEL] = re.split(r"[/\\]", cells[MODEL])[-1]
        detections.append(replace(d, cells=tuple(cells)))
    blank = dict.fromkeys(TELLING, "")
    files = tuple({**row, **blank, "file": number_of[row["file"]]} for row in results.files)
    return replace(results, detections=tuple(detections), files=files)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / "siteA").mkdir()
        (folder / "siteA" / "dawn.wav").touch()
        (folder / "detections.csv").write_text(
            "Start (s),End (s),Scientific name,Common name,Confidence,File\n"
            "0,5,Strix aluco,Tawny Owl,0.91,/card/siteA/dawn.wav\n"
            "5,10,Strix aluco,Tawny Owl,0.45,../../etc/passwd\n"
        )
        results = read_results(folder)
        find = sound_finder(results, folder)
        for d in results.detections:
            print(f"{d.start:4} {d.label:12} {d.confidence:.2f} {d.file:22} {find(d.file) or 'is not there'}")
        assert [find(d.file) for d in results.detections] == [folder / "siteA" / "dawn.wav", None]
        assert [d.file for d in hidden(results).detections] == ["recording 1", "recording 2"]
