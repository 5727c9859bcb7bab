"""What lies in a folder of sound: the recordings below it, found again by whatever a table calls them, as rows.

    sounds, notes = sounds_below(root, root)
    recordings, notes = plain_sounds(root, sounds, "unlabeled")

Reads    folders and names, what recorders wrote into files; decodes no sound

A recording that is not there, or whose name cannot be written down or leads out of its folder, is a row all the same:
missing or refused, with a reason.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from archive.lineages import Row
from archive.metadata import Facts, combined, doubts, read_metadata
from archive.recorders import read_name
from archive.recordings import Recording, is_number, path_within
from runtime.addresses import Address
from sounds.discovery import SUFFIXES, find_recordings, holds_our_run, is_hidden

NO_AUTHOR = ("unknown", "anonymous")
HEAD_BYTES = 2**18  # enough to see what a table or a page of JSON is


class Found(NamedTuple):
    """What a reader makes of its layout; labels are settled when all layouts have been read."""

    rows: list[Row]  # of the taxonomy
    recordings: list[Recording]
    notes: list[str]


def sounds_below(folder: Path, root: Path) -> tuple[list[str], list[str]]:
    """Names of the sound files below a folder, relative to the root, sorted, and notes on the search."""
    paths, notes = find_recordings([folder])
    return sorted(path.relative_to(root).as_posix() for path in paths), notes


def other_files(root: Path, suffixes: set[str]) -> list[Path]:
    """Other files below a folder, sorted, searched for as sound files are."""
    found: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not is_hidden(name) and not holds_our_run(Path(folder, name))]
        found += [Path(folder, name) for name in files if Path(name).suffix.lower() in suffixes]
    return sorted(path for path in found if is_plain_file(path))


def subfolders(root: Path) -> list[Path]:
    """Folders that may be looked into; lost+found may not, and what this program wrote is no collection."""
    folders = [path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name) and is_text(path)]
    return sorted(path for path in folders if os.access(path, os.R_OK | os.X_OK) and not holds_our_run(path))


def plain_sounds(root: Path, names: Iterable[str], source: str) -> tuple[list[Recording], list[str]]:
    """Rows for sounds of which nothing but their names is known, and what is strange about them."""
    dated = [with_facts_of_name(sound_row(root, name, source)) for name in names]
    warnings = [f"{recording.name}: {warning}" for recording, warning in dated if warning]
    note = f"{len(warnings)} file names have no sensible time: {listed(warnings)}"
    return [checked_name(recording) for recording, _ in dated], [note] if warnings else []


def sound_row(root: Path, name: str, source: str) -> Recording:
    return Recording(root / name, name, source=source)


def with_facts_of_name(recording: Recording) -> tuple[Recording, str]:
    """Time and coordinates from the file's name, and a warning where that is strange."""
    facts = read_name(printable_name(recording.name))
    dated = replace(
        recording,
        recorded_at=recording.recorded_at or facts.recorded_at,
        site=recording.site or facts.site,
        latitude=recording.latitude or facts.latitude,
        longitude=recording.longitude or facts.longitude,
    )
    return dated, facts.warning


def with_metadata(recordings: Sequence[Recording]) -> tuple[list[Recording], list[str]]:
    """Rows with what recorders wrote into the files, and what is doubtful about it.

    What a table says counts more than what stands in a file, and that more than a file's name.
    """
    written = {row.path: Facts() for row in recordings}
    written |= {row.path: read_metadata(row.path) for row in recordings if row.sound}
    done: list[Recording] = []
    said: dict[str, None] = {}
    for row in recordings:
        in_file = written[row.path]
        if in_file != Facts():
            named = read_name(printable_name(row.name))
            facts, odd = combined(named, in_file)
            said |= dict.fromkeys(f"{row.name}: {words}" for words in odd)
            by_table = row.recorded_at not in ("", named.recorded_at), row.latitude not in ("", named.latitude)
            row = replace(
                row,
                recorded_at=row.recorded_at if by_table[0] else facts.recorded_at,
                latitude=row.latitude if by_table[1] else facts.latitude,
                longitude=row.longitude if by_table[1] else facts.longitude,
                make=row.make or facts.make,
                serial=row.serial or facts.serial,
                temperature=row.temperature or facts.temperature,
            )
        done.append(row)
    return done, doubts(list(said))


def checked_name(recording: Recording) -> Recording:
    """The row of a file that was found, refused where its name cannot be written down or is a link to elsewhere."""
    name = printable_name(recording.name)
    root = Path(str(recording.path).removesuffix(recording.name))
    if name != recording.name:
        return refused(replace(recording, name=name, path=root / name), "its name is not UTF-8; rename it")
    if recording.path.is_symlink() and is_there(recording.path) and path_within(root, name) is None:
        return refused(recording, f"it is a link out of {root}; copy the file there")
    return recording


def missing(recording: Recording) -> Recording:
    return replace(recording, status="missing", reason="it is not there; copy it, or take its row out")


def refused(recording: Recording, reason: str) -> Recording:
    return replace(recording, status="refused", reason=reason)


def stranger(label: str) -> str:
    return f"its label {label!r} is not in the taxonomy; mend it, or add it to taxonomy.csv"


def extra_files(names: Iterable[str], recordings: Iterable[Recording], table: str) -> list[str]:
    """A note on sound files that no row speaks of."""
    extra = sorted(set(names) - {recording.name for recording in recordings})
    return [f"{len(extra)} sound files are not in {table}, and left out: {listed(extra)}"] if extra else []


class NameIndex:
    """Names of recordings, found again from what a table calls them."""

    def __init__(self, names: Iterable[str]) -> None:
        self.by_name: dict[str, list[str]] = {}
        self.by_stem: dict[str, list[str]] = {}
        for name in names:
            base = name.rpartition("/")[2].casefold()
            self.by_name.setdefault(base, []).append(name)
            self.by_stem.setdefault(without_suffix(base), []).append(name)

    def find(self, written: str, folder: str = "") -> list[str]:
        """The recordings meant: one, none, or several that are meant equally well.

        written   a name with or without suffix and folders, of this computer or of another, in any case. Folders must
                  agree as far as both sides have them: siteB/0500.wav is not siteA/0500.wav
        folder    where the table lies: of several, the ones in the same folder are meant
        """
        wanted = parted(written)
        if not wanted:
            return []
        base = wanted[-1].casefold()
        found = self.by_name.get(base) or self.by_stem.get(without_suffix(base)) or self.by_stem.get(base) or []
        found = [name for name in found if agree(wanted[:-1], name.split("/")[:-1])]
        for better in (
            [name for name in found if name.split("/")[-len(wanted) :] == wanted],
            [name for name in found if name.rpartition("/")[2] == wanted[-1]],
            [name for name in found if (name.rpartition("/")[0] or ".") == folder],
        ):
            found = better if better and len(found) > 1 else found
        return found

    def contested(self, written: Iterable[str], places: Mapping[str, Path]) -> set[str]:
        """Those names of a table that mean a recording which another one, in other folders, means as well or better.

        A table of more folders than are here has siteA/0500.wav and siteB/0500.wav, and 0500.wav here can be one of
        them alone: the one whose folders are those of the recording furthest up, and none where several are.
        places   where each recording is
        """
        names_of: dict[str, list[str]] = {}
        for name in dict.fromkeys(written):
            found = self.find(name)
            if len(found) == 1:
                names_of.setdefault(found[0], []).append(name)
        lost: set[str] = set()
        for recording, names in names_of.items():
            above = places[recording].absolute().parts[:-1]
            folders = {name: parted(name)[:-1] for name in names}
            highest = max(height(own, above) for own in folders.values())
            best = [own for own in folders.values() if height(own, above) == highest]
            lost |= {name for name, own in folders.items() if not all(agree(own, other) for other in best)}
        return lost


def parted(written: str) -> list[str]:
    """The folders of a path of any computer, and its file."""
    return [part for part in written.replace("\\", "/").split("/") if part not in ("", ".")]


def agree(folders: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two paths to a file are the same, as far up as both go."""
    return height(folders, others) == min(len(folders), len(others))


def height(folders: Sequence[str], others: Sequence[str]) -> int:
    """How many folders above a file are the same on two paths to it."""
    pairs = zip(reversed(folders), reversed(others), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0].casefold() == pair[1].casefold(), pairs))


def without_suffix(base: str) -> str:
    stem, dot, suffix = base.rpartition(".")
    return stem if f"{dot}{suffix}" in SUFFIXES else base


def degrees(cell: str, most: int) -> str:
    """A latitude or longitude as it was written, but with a point; blank where it is none."""
    cell = cell.replace(",", ".")
    return cell if is_number(cell) and abs(float(cell)) <= most else ""


def iso_time(date: str, time: str = "") -> str:
    """ISO 8601 of a date and a time of day, of the date alone where the time is not known, else blank."""
    hour = re.fullmatch(r"(\d{1,2}):(\d\d)(?::(\d\d))?", time)
    clocked = [f"{date}T{int(hour[1]):02}:{hour[2]}:{hour[3] or '00'}"] if hour else []
    for attempt in (*clocked, date):
        try:
            found = datetime.fromisoformat(attempt)
        except ValueError:
            continue
        return found.isoformat() if len(attempt) > 10 else found.date().isoformat()
    return ""


def is_plain_file(path: Path) -> bool:
    return not is_hidden(path.name) and path.is_file() and is_text(path) and os.access(path, os.R_OK)


def is_there(path: Path) -> bool:
    if isinstance(path, Address):
        return path.is_file()
    return os.path.isfile(path)  # noqa: PTH113 (Path.is_file fails on names that are too long for any file)


def is_text(path: Path) -> bool:
    return printable_name(str(path)) == str(path)


def printable_name(name: str) -> str:
    """A file name that can be printed and written: bytes that are not UTF-8 as \\xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first few of several names."""
    names_shown = [printable_name(name) for name in names]
    return ", ".join(names_shown[:most]) + (f" and {len(names_shown) - most} more" if len(names_shown) > most else "")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("siteA/20240501_053000.wav", "siteB/20240501_053000.wav", "siteB/dusk.flac", ".trash/old.wav"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).touch()
        sounds, _ = sounds_below(root, root)
        recordings, _ = plain_sounds(root, sounds, "unlabeled")
    for row in recordings:
        print(f"{row.name:30} {row.recorded_at or 'no time'}")
    index = NameIndex(sounds)
    written = ("dusk.wav", "C:\\cards\\siteB\\20240501_053000", "20240501_053000.wav", "siteC/dusk.flac")
    for name in written:
        print(f"{name:30} is {listed(index.find(name)) or 'not there'}")
    assert [len(index.find(name)) for name in written] == [1, 1, 2, 0], "folders must agree as far as both have them"
