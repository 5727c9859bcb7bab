"""Which files are recordings: all below some folders with the suffix of a sound file, without this program's results.

    recordings, notes = find_recordings([Path("archive")])

Reads    names, and the run.json of folders that may be ours; opens no sound
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from runtime.addresses import Address, files_below

OWN_SUFFIXES = {  # by what libsndfile and FFmpeg call a format
    "WAV": (".wav",),
    "WAVEX": (".wav",),
    "RF64": (".wav", ".rf64"),
    "W64": (".wav", ".w64"),
    "CAF": (".caf",),
    "FLAC": (".flac",),
    "OGG": (".ogg", ".opus"),
    "MP3": (".mp3",),
    "MOV": (".m4a",),
    "AAC": (".aac",),
    "ASF": (".wma",),
    "AIFF": (".aif", ".aiff", ".aifc"),
}
SUFFIXES = frozenset(suffix for suffixes in OWN_SUFFIXES.values() for suffix in suffixes)
OURS = ".wild-whisper"  # a folder with a file of that name in it is not searched
LARGEST_RUN = 2**24  # bytes of a run.json
SYSTEM_FOLDERS = frozenset({"$RECYCLE.BIN", "System Volume Information"})


def find_recordings(roots: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Every recording below some folders, sorted by path, and what to print about the search.

    roots    folders, searched to the bottom, and files, which are taken whatever their names

    Suffixes count in any case. Names that begin with a dot and the system's own folders are skipped, links to folders
    are not followed, and a file that is reached twice is one recording. Nor is a folder below the roots searched that
    holds a run of this program: the clips of a report are no recordings.
    """
    found: dict[str, Path] = {}  # by real path
    ignored: Counter[str] = Counter()
    suffixes: Counter[str] = Counter()
    notes: list[str] = []
    for root in roots:
        assert root.exists(), f"there is nothing at {root}; name recordings or a folder of them"
        taken = [] if root.is_dir() else [root]
        local = root.is_dir() and not isinstance(root, Address)
        tree = os.walk(root, onerror=lambda error: notes.append(f"could not search: {error}")) if local else ()
        if isinstance(root, Address) and root.is_dir():
            taken += recordings_at(root, ignored, suffixes, notes)
        for folder, folders, files in tree:  # which may change `folders`, to have fewer of them searched
            if folder != str(root) and holds_our_run(Path(folder)):
                ignored["folders of this program's results (name one to search it)"] += 1
                folders.clear()
                continue
            shown = [name for name in files if not is_hidden(name)]
            recordings = [name for name in shown if Path(name).suffix.lower() in SUFFIXES]
            ignored["hidden"] += len(files) - len(shown) + sum(is_hidden(name) for name in folders)
            ignored["other"] += len(shown) - len(recordings)
            suffixes.update(Path(name).suffix.lower() or "none" for name in shown)
            folders[:] = [name for name in folders if not is_hidden(name)]
            ignored["links to folders"] += sum(Path(folder, name).is_symlink() for name in folders)
            taken += [Path(folder, name) for name in recordings]
        # under its real path each of them once
        for path in sorted(taken):
            real = str(path) if isinstance(path, Address) else os.path.realpath(path)  # Path.resolve fails on a loop
            ignored["named twice"] += real in found
            found.setdefault(real, path)
    paths = sorted(found.values())
    kinds = Counter(path.suffix.lower() or "none" for path in paths)
    note = f"found {len(paths)} audio files ({counts_listed(kinds)})" if paths else "found no audio files"
    if any(ignored.values()):
        note += "; ignored " + ", ".join(f"{count} {kind}" for kind, count in ignored.items() if count)
    if not paths:
        note += (
            f"; the suffixes there are: {counts_listed(suffixes) or 'none'}; readable are {' '.join(sorted(SUFFIXES))}"
        )
    return paths, [note, *notes]


def recordings_at(root: Address, ignored: Counter[str], suffixes: Counter[str], notes: list[str]) -> Iterator[Path]:
    """The recordings below an address, as they are listed; what is not taken is counted as of a folder here."""
    refused: list[str] = []
    for path in files_below(root, refused):
        hidden = any(is_hidden(part) for part in path.relative_to(root).parts)
        suffix = path.suffix.lower()
        ignored["hidden"] += hidden
        ignored["other"] += not hidden and suffix not in SUFFIXES
        suffixes[suffix or "none"] += not hidden
        if not hidden and suffix in SUFFIXES:
            yield path
    if refused:
        notes.append(f"{root}: names that lead out of it or cannot be written down are left out: {', '.join(refused)}")


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def holds_our_run(folder: Path) -> bool:
    """Whether a folder holds a run of this program, or clips that it has cut, and no recordings that it was given."""
    run = folder / "run.json"
    if os.path.isfile(folder / OURS):  # noqa: PTH113 (Path.is_file fails where a folder is closed to us)
        return True
    try:
        content: object = json.loads(run.read_bytes()) if 0 < os.path.getsize(run) <= LARGEST_RUN else None  # noqa: PTH202
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(content, dict) or not {"name", "status", "command", "settings", "versions"} <= set(
        cast(Any, content)
    ):
        return False
    facts = cast(dict[str, Any], content)
    settings = cast(dict[str, Any], facts["settings"]) if isinstance(facts["settings"], dict) else dict[str, Any]()
    within = str(settings.get("out", "")) in map(str, settings.get("inputs") or [])
    return not within and str(folder.resolve()) not in map(str, facts.get("inputs") or [])  # results among recordings


def counts_listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        card = Path(folder)
        for name in (
            "dawn.WAV",
            "site/dusk.flac",
            "site/._dusk.flac",
            "notes.txt",
            "report/clip.mp3",
            f"report/{OURS}",
        ):
            (card / name).parent.mkdir(exist_ok=True)
            (card / name).touch()
        paths, notes = find_recordings([card])
        print(*notes)
        assert [path.name for path in paths] == ["dawn.WAV", "dusk.flac"]
