"""A folder of recordings for each class, its name the label."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from archive.annotations import NO_LABEL
from archive.collection import SourceFolder
from archive.index import Found, checked_name, plain_sounds, sound_row
from archive.lineages import Row, label_row, reference, scientific_form, shipped, taxonomy_rows, with_lineages
from archive.recordings import Recording
from taxonomy import BLANKS, checked_rows, key

NOT_LISTENED = frozenset({"unlabeled", "unlabelled"})
SITES_AND_TIMES = re.compile(  # words that begin the name of a site, a time or a heap of files, not of a species
    "april|archive|area|audio|august|autumn|backup|batch|camp|card|control|creek|data|dawn|day|december|deployment|"
    "dry|dusk|east|evening|farm|february|field|folder|forest|grid|habitat|hill|january|july|june|lake|location|lower|"
    "march|may|month|morning|new|night|north|november|october|old|park|part|plot|point|pond|raw|recorder|recordings?|"
    "river|rural|samples?|season|september|set|site|sounds?|south|spring|station|summer|test|train|transect|treatment|"
    "trip|unit|upper|urban|valid|week|west|wet|winter|woods?|year|zone"
)


def looks_like_label(folder: str, names: frozenset[str]) -> bool:
    """Whether a folder is named after a class, as far as a name can show."""
    for part in [part.strip().removeprefix("-") for part in folder.split(",")]:
        label, scientific, common = spoken_names(part)
        words = scientific.split() or [""]
        known = not names.isdisjoint({key(label), key(scientific), key(words[0])})
        binomial = re.fullmatch(r"[A-Z][a-z]{2,} (?:x |cf\. )?[a-z-]{2,}\.?(?: [a-z-]+)?", scientific)
        pair = common and (binomial or key(label) == key(common) or words[0].endswith("idae"))
        usual = part.casefold() in NO_LABEL or not SITES_AND_TIMES.fullmatch(words[0].casefold())
        if not usual or not (part.casefold() in NO_LABEL or known or binomial or pair):
            return False
    return True


def known_names(root: Path) -> frozenset[str]:
    """All names of labels and taxa in the folder's taxonomy.csv and in the lineages that come with this program."""
    table = root / "taxonomy.csv"
    own = reference(table.name, checked_rows(table)) if table.is_file() else reference("", [])
    return frozenset({*own.names, *own.taxa, *shipped().names, *shipped().taxa})


def read_folders(source: SourceFolder) -> Found:
    """A folder per class; what its name says holds for every sound below it."""
    table = source.root / "taxonomy.csv"
    rows, notes = taxonomy_rows(source.root) if table.is_file() else (list[Row](), list[str]())
    labels: dict[str, Row] = {}
    recordings: list[Recording] = []
    unlabelled: list[str] = []
    for name in source.names:
        folder, slash, _ = name.partition("/")
        parts = [part.strip() for part in folder.split(",")]
        parts = [part for part in parts if key(part.removeprefix("-")) not in BLANKS]  # a folder called - says nothing
        if not slash or not parts or folder.casefold() in NOT_LISTENED:
            unlabelled.append(name)
            continue
        present = [spoken_names(part) for part in parts if part[0] != "-" and part.casefold() not in NO_LABEL]
        denied = [spoken_names(part[1:].strip())[0] for part in parts if part.startswith("-")]
        for label, scientific, common in present:
            labels.setdefault(label, (str(source.root / folder), label_row(label, scientific, common)))
        labels_here = tuple(dict.fromkeys(label for label, _, _ in present))
        recording = sound_row(source.root, name, "folders")
        recording = replace(
            recording, labels=labels_here, absent=tuple(dict.fromkeys(denied)), listened=not labels_here
        )
        recordings.append(checked_name(recording))
    known = [reference(table.name, rows, by_label=True)] if rows else []
    done, completed = with_lineages(list(labels.values()), [*known, shipped()])
    rest, warnings = plain_sounds(source.root, unlabelled, "folders")
    return Found(done, recordings + rest, [*source.sounds[1], *notes, *completed, *warnings])


def spoken_names(written: str) -> tuple[str, str, str]:
    """Label, scientific and common name of a folder: Parus major_Great Tit, or parus_major."""
    if re.fullmatch(r"[A-Za-z][a-z]+(?:_[a-z][a-z-]+){1,2}", written) and "idae_" not in written:
        return written, scientific_form(written), ""
    scientific, _, common = (part.strip() for part in written.partition("_"))
    return (scientific, scientific, common) if scientific else (written, written, "")


if __name__ == "__main__":
    for written in ("Strix aluco_Tawny Owl", "Parus major", "plot 3"):
        print(written, "->", spoken_names(written), looks_like_label(written, frozenset()))
    assert looks_like_label("Parus major", frozenset()) and not looks_like_label("plot 3", frozenset())
