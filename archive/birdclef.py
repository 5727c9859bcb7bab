"""BirdCLEF's layout: train.csv, taxonomy.csv, train_audio/ and soundscapes beside them."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping
from pathlib import Path

from archive.annotations import LONGEST_CELL, annotated, closed_labels
from archive.collection import SourceFolder
from archive.index import (
    NO_AUTHOR,
    Found,
    degrees,
    extra_files,
    is_plain_file,
    is_there,
    iso_time,
    listed,
    missing,
    sounds_below,
    subfolders,
)
from archive.lineages import taxonomy_rows
from archive.recordings import Recording, is_number, path_within, whole_number
from runtime.csvs import read_table
from sounds.discovery import SUFFIXES

AUDIO_FOLDERS = ("train_audio", "audio")
LISTENING_FOLDERS = ("train_soundscapes", "unlabeled")  # beside train.csv
SOUNDSCAPE_LABELS = "train_soundscapes_labels.csv"
QUOTED_LIST = re.compile(r"""\[\s*(?:(?:'[^'\\\x00-\x1f]*'|"[^"\\\x00-\x1f]*")\s*(?:,\s*|(?=\])))*\]""")
SOURCE_ID = re.compile(r"(?:XC|iNat|CSA)\d+")


def read_birdclef(source: SourceFolder) -> Found:
    """train.csv, taxonomy.csv, train_audio/; beside them soundscapes without labels, or with a table of their own."""
    root = source.root
    table, folder = root / "train.csv", audio_folder(root)
    rows, notes = taxonomy_rows(root)
    lines = read_table(table, ("primary_label", "filename"), unique="filename")
    recordings = [birdclef_row(root, folder, where, row) for where, row in lines]
    names, searched = sounds_below(folder, root)
    notes += [*searched, *extra_files(names, recordings, table.name)]
    sounds: list[str] = []
    for beside in LISTENING_FOLDERS:
        if (root / beside).is_dir():
            names, searched = sounds_below(root / beside, root)
            sounds, notes = sounds + names, notes + [f"{beside}/: {note}" for note in searched]
    notes += ignored_folders(root, folder)
    tables = [root / SOUNDSCAPE_LABELS] if (root / SOUNDSCAPE_LABELS).is_file() else []
    labelled = closed_labels(annotated(root, sounds, tables, "birdclef"), rows)
    return Found(rows, recordings + labelled.recordings, notes + labelled.notes)


def ignored_folders(root: Path, folder: Path) -> list[str]:
    """A note on every folder of sound that this layout does not look into."""
    notes: list[str] = []
    for other in subfolders(root):
        count = 0 if other == folder or other.name in LISTENING_FOLDERS else len(sounds_below(other, root)[0])
        if count:
            notes.append(
                f"{other.name}/ is ignored, with {count} sound files: beside train.csv only {folder.name}/, "
                f"{'/ and '.join(LISTENING_FOLDERS)}/ are read; give it one of these names, or name it as --data.root"
            )
    loose = [path.name for path in sorted(root.iterdir()) if path.suffix.lower() in SUFFIXES and is_plain_file(path)]
    if loose:
        notes.append(f"{len(loose)} sound files beside train.csv are ignored, not in {folder.name}/: {listed(loose)}")
    return notes


def audio_folder(root: Path) -> Path:
    folder = next((root / name for name in AUDIO_FOLDERS if (root / name).is_dir()), None)
    assert folder is not None, f"{root} has neither train_audio/ nor audio/ beside its train.csv; copy it there"
    return folder


def birdclef_row(root: Path, folder: Path, where: str, row: Mapping[str, str]) -> Recording:
    """A line of train.csv; columns beyond the two that every year has are read where they are."""
    name = Path(os.path.normpath(row["filename"])).as_posix()
    path = path_within(folder, name)
    assert path is not None, f"{where}: {row['filename']!r} leaves {folder}; paths must stay below it"
    fold = whole_number(row.get("fold", "") or "-1", "fold", where)
    assert fold >= -1, f"{where}: fold {fold} is less than 0; count folds from 0"
    author = row.get("author", "")
    recording = Recording(
        path,
        path.relative_to(root).as_posix(),
        tuple(dict.fromkeys([row["primary_label"], *parse_labels(row.get("secondary_labels", ""), where)])),
        group=row.get("group", ""),
        fold=fold,
        source=row.get("collection", "") or "birdclef",
        recording_id=birdclef_id(path.stem, row),
        author="" if author.casefold() in NO_AUTHOR else author,
        latitude=degrees(row.get("latitude", ""), 90),
        longitude=degrees(row.get("longitude", ""), 180),
        recorded_at=iso_time(row.get("date", ""), row.get("time", "")),
        rating=rating(row.get("rating", "")),
        license=row.get("license", ""),
    )
    return recording if is_there(path) else missing(recording)


def parse_labels(cell: str, where: str = "") -> list[str]:
    """BirdCLEF's lists of labels: ['a', 'b'] -> a, b; [''] and [] -> nothing."""
    if cell in ("", "[]", "['']"):
        return []
    assert len(cell) <= LONGEST_CELL and QUOTED_LIST.fullmatch(cell), (
        f"{where}: secondary labels {cell[:60]!r}; expected ['a', 'b']"
    )
    return [label.strip() for label in ast.literal_eval(cell) if label.strip()]


def birdclef_id(stem: str, row: Mapping[str, str]) -> str:
    """What the collection calls a recording: XC941297, from its name or its page."""
    own = re.match(rf"{re.escape(row.get('collection', '') or '-')}\d+", stem) or SOURCE_ID.match(stem)
    page = re.search(r"xeno-canto\.org/(?:sounds/)?(\d+)", row.get("url", ""))
    return own.group() if own else f"XC{page.group(1)}" if page else ""


def rating(cell: str) -> str:
    """1 to 5 as it was written, but with a point; 0 means that nobody rated."""
    cell = cell.replace(",", ".")
    return cell if is_number(cell) and float(cell) > 0 else ""


if __name__ == "__main__":
    print(parse_labels("['owl', 'great tit']"), birdclef_id("XC123", {}))
    assert parse_labels("['owl', 'great tit']") == ["owl", "great tit"] and rating("4,5") == "4.5"
