"""Sound in whatever layout it lies there -> one row per recording, or per labelled segment of it, and one taxonomy.

    collection = read_collection(DataSettings(Path("recordings")))
    collection.taxonomy, collection.recordings, collection.notes

Reads    a recordings.csv of our own, or a folder in one of these layouts:
         birdclef      train.csv, taxonomy.csv, train_audio/; train_soundscapes/ and unlabeled/ beside them
         inaturalist   the JSON files of iNatSounds
         xeno-canto    saved pages of its API v3, beside the recordings
         annotations   Raven selection tables, or a csv with start and end, over long recordings
         folders       a folder per class, as BirdNET-Analyzer has them
         unlabeled     any folder of sound
         or several of them side by side, each in a folder of its own; keep.csv says what may be used of a recording
Writes   nothing, and opens no sound

A row that cannot be used stays in the table with its reason. Names in tables are never trusted: they are looked up
among the files that are there, or refused where they leave their folder.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

from archive.annotations import clock_seconds, decimal_sign, read_annotations, table_columns
from archive.birdclef import read_birdclef
from archive.collection import Collection, SourceFolder
from archive.folders import known_names, looks_like_label, read_folders
from archive.index import (
    Found,
    NameIndex,
    checked_name,
    is_plain_file,
    is_text,
    is_there,
    listed,
    missing,
    plain_sounds,
    refused,
    stranger,
    subfolders,
)
from archive.lineages import UPPER, Row, merged
from archive.portals import find_pages, read_inaturalist, read_xeno_canto, strange_pages
from archive.recordings import Recording, read_recordings
from config import CollectionSettings
from runtime.addresses import Address
from runtime.csvs import read_table
from sounds.discovery import SUFFIXES
from taxonomy import CLASS, FAMILY, Taxonomy, build_taxonomy, key

SIDE_BY_SIDE = "side by side"  # chosen by auto alone


def read_collection(data: CollectionSettings) -> Collection:
    """Every recording below `data.root`, or in that recordings.csv, with all that its collection says of it.

    Errors: an unreadable table, a path that leaves its folder, a root in which nothing can be used: one line that names
    what was found and the remedy.
    """
    root = data.root
    if isinstance(root, Address):
        return collection_at(root, data)
    if root.is_file():
        return final_rows(root, read_own_table(root))
    assert root.is_dir(), f"no folder {root}; point --data.root at your recordings (`python demo_data.py` makes some)"
    assert is_text(root.absolute()), f"the path of {str(root)!a} is not UTF-8; rename the folder"
    source = SourceFolder(root, data.label_column, data.layout != "auto")
    layout, why = choose_layout(source) if data.layout == "auto" else (data.layout, "--data.layout says so")
    found = read_layout(source, layout)
    others = "" if data.layout != "auto" else f"; --data.layout chooses another ({', '.join(READERS)})"
    strange = strange_pages([root, *subfolders(root)], "" if data.layout == "auto" else layout)
    return final_rows(root, found._replace(notes=[f"{root}: {layout}, because {why}{others}", *strange, *found.notes]))


def collection_at(root: Address, data: CollectionSettings) -> Collection:
    """Recordings at a server, of which nothing but their names is asked; no table there is looked for."""
    assert data.layout in ("auto", "unlabeled"), (
        f"--data.layout {data.layout}: at {root} no tables are read; copy them here, with a recordings.csv whose "
        "column root is that address"
    )
    assert root.is_dir(), f"no folder {root}; point --data.root at your recordings"
    return final_rows(root, READERS["unlabeled"](SourceFolder(root, named=True)))


def choose_layout(source: SourceFolder, nested: bool = False) -> tuple[str, str]:
    """The layout of a folder, and what speaks for it.

    nested   the folder lies beside others, so it holds no collections side by side itself
    """
    layout, why = marked_layout(source)
    if layout:
        return layout, why
    marks = (
        {}
        if nested
        else {child: marked_layout(SourceFolder(child, source.label_column))[0] for child in subfolders(source.root)}
    )
    marks = {child: mark for child, mark in marks.items() if mark not in ("", "annotations")}
    if marks and all(mark == "xeno-canto" and not SourceFolder(child).names for child, mark in marks.items()):
        return "xeno-canto", f"there are pages of it in {listed(child.name for child in marks)}"
    if marks:
        return SIDE_BY_SIDE, ", ".join(f"{child.name}/ is {mark}" for child, mark in marks.items())
    if source.tables:
        return "annotations", f"{source.tables[0].relative_to(source.root)} has times in it"
    folders = sorted({name.split("/")[0] for name in source.names if "/" in name})
    known = known_names(source.root) if folders else frozenset[str]()
    likely = [folder for folder in folders if looks_like_label(folder, known)]
    if len(folders) >= 2 and 2 * len(likely) >= len(folders):
        return "folders", f"{len(likely)} of {len(folders)} folders are named like species: {listed(likely, 3)}"
    if folders:
        why = f"{len(folders) - len(likely)} of {len(folders)} folders are not named like species"
        return "unlabeled", f"there is no table and {why} (--data.layout folders takes folders for labels)"
    return "unlabeled", "there is no table in it"


def marked_layout(source: SourceFolder) -> tuple[str, str]:
    """The layout that a file in the folder itself gives away, and which file; blanks where there is none."""
    if (source.root / "train.csv").is_file():
        return "birdclef", "train.csv is there"
    for layout in ("inaturalist", "xeno-canto"):
        if pages := find_pages(source.root, layout):
            return layout, f"{pages[0].name} is of that kind"
    here = [path for path in sorted(source.root.iterdir()) if path.suffix.lower() in {".txt", ".csv", ".tsv"}]
    table = next((path for path in here if is_plain_file(path) and source.is_annotated(path)), None)
    return ("annotations", f"{table.name} has times in it") if table else ("", "")


def read_layout(source: SourceFolder, layout: str) -> Found:
    """Everything in a folder, by the reader of its layout, with the segments of its keep.csv."""
    found = read_side_by_side(source) if layout == SIDE_BY_SIDE else READERS[layout](source)
    if source.predictions:
        found.notes.append(
            f"{len(source.predictions)} tables have a confidence, so a model wrote them, and they are no annotations: "
            f"{listed(sorted(source.predictions))}; take that column out of those that somebody checked"
        )
    if source.orphans:
        found.notes.append(
            f"{len(source.orphans)} tables of times do not say of which recording, and none is called so: "
            f"{listed(sorted(source.orphans))}; give each the name of its recording, or a column filename"
        )
    return with_keep(source.root, found)


def read_own_table(path: Path) -> Found:
    """A recordings.csv, with the taxonomy.csv beside it; what is on disk now counts, not what was there then."""
    assert path.suffix.lower() == ".csv", f"{path} is a file; point --data.root at a folder or at a recordings.csv"
    columns = table_columns(path)
    assert {"root", "path"} <= set(columns), (
        f"{path} has the columns {listed(columns)}, not root and path; point --data.root at the folder it is in, or at "
        "a recordings.csv that data_loader.py wrote"
    )
    recordings = [present(recording) for recording in read_recordings(path)]
    assert not any(recording.scores for recording in recordings), (
        f"{path} holds a classifier's labels, by which nothing can be judged; give it as --data.pseudo, and recordings "
        "that people labelled as --data.root"
    )
    if len({recording.name for recording in recordings}) < len({recording.path for recording in recordings}):
        common = Path(os.path.commonpath([recording.path for recording in recordings]))  # joined from several tables
        recordings = [replace(row, name=row.path.relative_to(common).as_posix()) for row in recordings]
    beside = path.with_name("taxonomy.csv")
    labelled = [recording.name for recording in recordings if recording.labels]
    assert beside.is_file() or not labelled, (
        f"{path} has {len(labelled)} labelled rows, and there is no taxonomy.csv beside it; copy it there too"
    )
    rows = read_table(beside, ("primary_label", "scientific_name"), unique="primary_label") if beside.is_file() else []
    return Found(rows, recordings, [f"{path}: {len(recordings)} rows"])


def present(recording: Recording) -> Recording:
    """A row of an older table, missing or not as the disk has it today."""
    if not is_there(recording.path):
        return missing(recording) if recording.sound else recording
    there = replace(recording, status="ok", reason="") if recording.status == "missing" else recording
    return checked_name(there) if there.sound else there


def read_plain_folder(source: SourceFolder) -> Found:
    """Every sound below the root."""
    recordings, warnings = plain_sounds(source.root, source.names, "unlabeled")
    return Found([], recordings, source.sounds[1] + warnings)


def read_side_by_side(source: SourceFolder) -> Found:
    """Each folder by its own layout; labels with the same scientific name become one, that of the first folder."""
    loose = [path.name for path in source.root.iterdir() if path.suffix.lower() in SUFFIXES and is_plain_file(path)]
    recordings, warnings = plain_sounds(source.root, sorted(loose), "unlabeled")
    parts = [(".", Found([], recordings, warnings))]
    for child in subfolders(source.root):
        inner = SourceFolder(child, source.label_column)
        layout, why = choose_layout(inner, nested=True)
        if layout != "unlabeled" or inner.names:
            found = read_layout(inner, layout)
            parts.append((child.name, found._replace(notes=[f"{layout}, because {why}", *found.notes])))
    return unified(parts)


def unified(parts: Sequence[tuple[str, Found]]) -> Found:
    """Several collections as one: names get their folder in front, labels that mean one species become one.

    A name that several labels of one collection share (BirdCLEF's sonotypes) says too little to join labels by.
    """
    rows: dict[str, Row] = {}
    label_of: dict[str, str] = {}  # by scientific name; blank where several labels have it
    renamed: list[dict[str, str]] = []
    notes: list[str] = []
    for folder, found in parts:
        count = Counter(key(row["scientific_name"]) for _, row in found.rows)
        new_label: dict[str, str] = {}
        for where, row in found.rows:
            name, label = key(row["scientific_name"]), row["primary_label"]
            if count[name] == 1 and label_of.get(name):
                label = label_of[name]
            elif label in rows and key(rows[label][1]["scientific_name"]) != name:
                label = row["scientific_name"]
                assert label not in rows, f"{where}: {row['primary_label']} means another species elsewhere; rename it"
            new_label[row["primary_label"]] = label
            row = row | {"primary_label": label}
            rows[label] = (rows[label][0], merged(rows[label][1], row)) if label in rows else (where, row)
            label_of.setdefault(name, label if count[name] == 1 else "")
        changed = [f"{old} = {new}" for old, new in new_label.items() if old != new]
        notes += [f"{folder}/: {note}" for note in found.notes]
        notes += [f"{folder}/: {len(changed)} labels under the names of other folders: {listed(changed)}"] * bool(
            changed
        )
        renamed.append(new_label)
    recordings: list[Recording] = []
    for (folder, found), new_label in zip(parts, renamed, strict=True):
        for recording in found.recordings:
            labels = tuple(dict.fromkeys(new_label.get(x) or label_of.get(key(x)) or x for x in recording.labels))
            denied = tuple(dict.fromkeys(new_label.get(x) or label_of.get(key(x)) or x for x in recording.absent))
            name = f"{folder}/{recording.name}".removeprefix("./")
            recordings.append(replace(recording, name=name, labels=labels, absent=denied))
    return Found(list(rows.values()), recordings, notes)


READERS: dict[str, Callable[[SourceFolder], Found]] = {
    "birdclef": read_birdclef,
    "folders": read_folders,
    "inaturalist": lambda source: read_inaturalist(source.root, *source.sounds, source.named),
    "xeno-canto": lambda source: read_xeno_canto(source.root, *source.sounds, source.named),
    "annotations": lambda source: read_annotations(source.root, *source.sounds, source.tables, source.label_column),
    "unlabeled": read_plain_folder,
}


def with_keep(root: Path, found: Found) -> Found:
    """The segments of keep.csv, if there is one, on the rows of the recordings it names."""
    path = root / "keep.csv"
    if not path.is_file():
        return found
    index = NameIndex({recording.name for recording in found.recordings})
    kept: dict[str, set[tuple[float, float]]] = {}
    strangers: list[str] = []
    rows = read_table(path, ("filename", "start", "end"))
    decimal = decimal_sign([row[name] for _, row in rows for name in ("start", "end")], path)
    of_others = index.contested((row["filename"] for _, row in rows), {row.name: row.path for row in found.recordings})
    for where, row in rows:
        start, end = clock_seconds(row["start"], decimal), clock_seconds(row["end"], decimal)
        assert start is not None and end is not None and start < end, (
            f"{where}: {row['start']!r} to {row['end']!r} is no segment; write two times in seconds, the smaller first"
        )
        names = [] if row["filename"] in of_others else index.find(row["filename"])
        if len(names) == 1:
            kept.setdefault(names[0], set()).add((start, end))
        else:
            strangers.append(row["filename"])
    notes = [f"keep.csv: only segments of {len(kept)} recordings are used"]
    if strangers:
        notes.append(f"keep.csv: {len(strangers)} rows name no recording, or several: {listed(strangers)}")
    recordings = [
        replace(row, keep=tuple(sorted({*row.keep, *kept[row.name]}))) if row.name in kept else row
        for row in found.recordings
    ]
    return Found(found.rows, recordings, found.notes + notes)


def final_rows(root: Path, found: Found) -> Collection:
    """The rows in their order, each label one of the taxonomy's, with a count of what could not be used."""
    assert found.recordings, f"no recordings in {root}; {'; '.join(found.notes)}"
    rows = [(where, with_rank(row)) for where, row in found.rows]
    odd = [row["primary_label"] for _, row in rows if ";" in row["primary_label"]]
    assert not odd, f"{root}: labels {odd[:3]} have a semicolon in them, which parts labels; rename them"
    known = {row["primary_label"] for _, row in rows}
    written, respelt = with_known_spelling(found.recordings, known)
    settled, notes = with_known_labels(written, known)
    notes = respelt + notes
    settled, of_the_same = joined_rows(settled)
    notes += of_the_same
    recordings = sorted(settled, key=row_order)
    labelled = [recording for recording in recordings if recording.labels]
    useless = bool(labelled) and all(recording.status == "refused" for recording in labelled)
    useless = useless or not any(recording.sound for recording in recordings)
    worst = next((recording for recording in labelled or recordings if not recording.sound), recordings[0])
    assert not useless, (
        f"{root}: none of {len(labelled or recordings)} rows can be used; the first is {worst.status}, {worst.name}: "
        f"{worst.reason}"
    )
    taxonomy = build_taxonomy(rows) if rows else None
    return Collection(taxonomy, recordings, found.notes + notes + open_ranks(taxonomy) + counts(recordings))


def joined_rows(rows: Sequence[Recording]) -> tuple[list[Recording], list[str]]:
    """One row for each stretch of a recording, in their order: of several rows for the same one the first, with what
    all of them say is heard there. Two examples of the same sound with different labels would deny each other."""
    first: dict[tuple[object, ...], Recording] = {}
    again, joined, contradicted = 0, list[str](), list[str]()
    for row in rows:
        stretch = (row.name, row.start, row.end, row.reason if row.status == "refused" else "")
        if stretch not in first:
            first[stretch] = row
            continue
        known = first[stretch]
        labels = tuple(dict.fromkeys((*known.labels, *row.labels)))
        denied = tuple(dict.fromkeys((*known.absent, *row.absent)))
        absent = tuple(label for label in denied if label not in labels)
        if len(absent) < len(denied):
            contradicted.append(f"{row.name}: {', '.join(label for label in denied if label in labels)}")
        if (labels, absent) == (known.labels, known.absent) == (row.labels, row.absent):
            again += 1
        else:
            joined.append(row.name)
        first[stretch] = replace(known, labels=labels, absent=absent, listened=known.listened or row.listened)
    notes = [f"{again} rows stood there twice"] if again else []
    if joined:
        notes.append(f"{len(joined)} rows speak of a stretch of which another row speaks: joined, {listed(joined)}")
    if contradicted:
        notes.append(
            f"{len(contradicted)} rows deny a label that is given there; what is given counts: {listed(contradicted)}"
        )
    return list(first.values()), notes


def with_rank(row: dict[str, str]) -> dict[str, str]:
    """A label of which nothing but a name is known that is no scientific one: a species for all we know."""
    known_rank = row.get("finest_rank") or row.get("class") or any(row.get(rank) for rank in UPPER)
    scientific = re.match(r"[A-Z][a-z]+(?:$| [a-z])", row["scientific_name"])
    return row if known_rank or scientific else row | {"finest_rank": "species"}


def with_known_spelling(recordings: Sequence[Recording], known: set[str]) -> tuple[list[Recording], list[str]]:
    """Labels as the taxonomy writes them where only blanks or the way an accent is stored differ, counted."""
    usual = {" ".join(normalize("NFC", label).split()): label for label in known}
    changed: Counter[str] = Counter()

    def spelt(label: str) -> str:
        own = label if label in known else usual.get(" ".join(normalize("NFC", label).split()), label)
        changed[own] += own != label
        return own

    done = [
        replace(row, labels=tuple(map(spelt, row.labels)), absent=tuple(map(spelt, row.absent))) for row in recordings
    ]
    if not changed.total():
        return done, []
    names = listed(label for label, count in changed.items() if count)
    return done, [f"{changed.total()} labels are written in another way than in the taxonomy, and taken for {names}"]


def with_known_labels(recordings: Sequence[Recording], known: set[str]) -> tuple[list[Recording], list[str]]:
    """Rows of another first label refused, other labels outside `known` dropped and counted."""
    settled: list[Recording] = []
    dropped: Counter[str] = Counter()
    for recording in recordings:
        strangers = [label for label in (*recording.labels, *recording.absent) if label not in known]
        if strangers and recording.status != "refused":
            if recording.labels and recording.labels[0] not in known:
                recording = refused(recording, stranger(recording.labels[0]))
            else:
                dropped.update(strangers)
                recording = replace(
                    recording,
                    labels=tuple(label for label in recording.labels if label in known),
                    absent=tuple(label for label in recording.absent if label in known),
                )
        settled.append(recording)
    if not dropped:
        return settled, []
    most = listed(label for label, _ in dropped.most_common())
    return settled, [f"{dropped.total()} further labels are of species that are no label here, and dropped: {most}"]


def row_order(recording: Recording) -> tuple[object, ...]:
    start, end = (-1.0 if time is None else time for time in (recording.start, recording.end))
    return recording.name, start, end, recording.labels, recording.absent


def open_ranks(taxonomy: Taxonomy | None) -> list[str]:
    """A note on labels that have no class, order or family, so that they are equally far from all others."""
    if taxonomy is None:
        return []
    lacking = [
        label
        for label, lineage, finest in zip(taxonomy.labels, taxonomy.lineages, taxonomy.finest, strict=True)
        if any(name.startswith("?") for name in lineage[CLASS : min(finest, FAMILY + 1)])
    ]
    if not lacking:
        return []
    remedy = "a taxonomy.csv with class_name, order and family says how far they are from the others"
    return [f"{len(lacking)} of {len(taxonomy.labels)} labels have open ranks: {listed(lacking)}; {remedy}"]


def counts(recordings: Sequence[Recording]) -> list[str]:
    """How many rows there are, how many of each kind can be used, and why the others cannot."""
    usable = [recording for recording in recordings if recording.sound]
    labelled = sum(bool(recording.labels) for recording in usable)
    empty = sum(recording.listened and not recording.labels for recording in usable)
    kinds = f"{labelled} labelled, {empty} listened to without a species, {len(usable) - labelled - empty} unlabelled"
    notes = [f"{len(recordings)} rows read, {len(usable)} kept: {kinds}"]
    for status in sorted({recording.status for recording in recordings if not recording.sound}):
        affected = [recording for recording in recordings if recording.status == status]
        named = listed(dict.fromkeys(f"{recording.name} ({recording.reason})" for recording in affected))
        notes.append(f"{len(affected)} rows {status}: {named}")
    return notes


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("Strix aluco_Tawny Owl/a.wav", "Parus major_Great Tit/b.wav", "noise/rain.wav"):
            (root / name).parent.mkdir()
            (root / name).touch()
        collection = read_collection(CollectionSettings(root))
    print("\n".join(collection.notes))
    for row in collection.recordings:
        print(f"  {row.name:30} {row.labels} {row.listened} {row.status} {row.reason}")
    assert {row.labels for row in collection.recordings} == {("Strix aluco",), ("Parus major",), ()}
