"""What is to be analysed: recordings, where and when they were made, and which of several machines takes them.

    entries, notes = find_entries([Path("season-2026")], timezone="America/Bogota")
    own = [entry for entry in entries if in_shard(entry.path, 3, 8)]

Reads    names of files, what recorders wrote into them, recordings.csv; decodes no sound
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from archive.metadata import Facts, doubts, facts_in
from archive.recordings import Recording, read_recordings
from runtime.addresses import Address
from sounds.discovery import find_recordings


@dataclass(frozen=True, slots=True)
class Entry:
    """A recording to be analysed."""

    where: Path | str  # as text, a third of what a Path takes of a million; an Address knows more and stays one
    site: str = ""
    recorded_at: str = ""  # ISO 8601
    size: int = 0  # bytes
    mtime_ns: int = 0
    latitude: str = ""  # decimal degrees
    longitude: str = ""
    make: str = ""  # of the recorder, and its model
    serial: str = ""
    temperature: str = ""  # degrees Celsius

    def __post_init__(self) -> None:
        if not isinstance(self.where, Address):
            object.__setattr__(self, "where", str(self.where))

    @property
    def path(self) -> Path:
        return self.where if isinstance(self.where, Path) else Path(self.where)

    @property
    def key(self) -> str:
        """Of this file in this state."""
        text = f"{self.where}\0{self.size}\0{self.mtime_ns}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def find_entries(inputs: Sequence[Path], site_regex: str = "", timezone: str = "") -> tuple[list[Entry], list[str]]:
    """The recordings of all inputs with their site and time, and what to say about the search.

    inputs       recordings, folders, recordings.csv
    site_regex   its group is the name of the site in a path; without it the folder's name counts
    timezone     of clocks that do not say theirs: America/Bogota
    """
    rows, notes = rows_of_tables(inputs)
    gone = [path for path in rows if not is_present(path)]  # named all the same: files.csv has a row for every input
    roots = [path for path in inputs if not is_table(path)] + [path for path in rows if is_present(path)]
    paths, search = find_recordings(roots)
    zone, pattern = time_zone(timezone), site_pattern(site_regex)
    entries: list[Entry] = []
    doubtful = unclear = 0
    strange: list[str] = []
    waiting = sorted([*paths, *gone], reverse=True)
    paths.clear()
    while waiting:  # and no path outlives its entry
        path = waiting.pop()
        row = rows.get(path)
        facts, odd = facts_in(path)
        strange += [f"{path.name}: {said}" for said in odd]
        # what a table says of the time counts, else what the recorder wrote
        written = row.recorded_at if row else ""
        unclear += not is_moment(written)
        when = (written if is_moment(written) else "") or facts.recorded_at
        if zone and "T" in when and datetime.fromisoformat(when).tzinfo is None:
            local = datetime.fromisoformat(when).replace(tzinfo=zone)
            doubtful += local.utcoffset() != local.replace(fold=1).utcoffset()
            when = local.isoformat()
        entries.append(entry_of(path, when, site_of(path, row, pattern), row or Recording(path, path.name), facts))
    notes += doubts(strange)
    if unclear:
        notes.append(f"{unclear} rows have a recorded_at that is no time as 2026-05-14T05:30:00; it is left out")
    if doubtful:
        notes.append(f"{doubtful} recordings begin when the clocks were changed; the earlier of two times is taken")
    return entries, [*search, *notes]


def site_of(path: Path, row: Recording | None, pattern: re.Pattern[str] | None) -> str:
    """Where a recording was made: by the pattern, else by the table, else by the name of its folder."""
    if pattern:
        match = pattern.search(str(path))
        return (match[1] or "") if match else ""
    folder = path.parent if isinstance(path, Address) else Path(os.path.realpath(path)).parent
    return (row.site if row else "") or folder.name


def entry_of(path: Path, when: str, site: str, row: Recording, facts: Facts) -> Entry:
    """A recording with all that is known of it; what its row in a table says counts before what its file does."""
    state = path.stat() if is_present(path) else None
    placed = row if row.latitude else facts
    return Entry(
        path,
        sys.intern(site),  # one word for all recordings of a site: there may be a million
        when,
        state.st_size if state else 0,
        state.st_mtime_ns if state else 0,
        placed.latitude,
        placed.longitude,
        sys.intern(row.make or facts.make),
        sys.intern(row.serial or facts.serial),
        row.temperature or facts.temperature,
    )


def is_table(path: Path) -> bool:
    return not isinstance(path, Address) and path.is_file() and path.suffix.lower() == ".csv"


def is_present(path: Path) -> bool:
    if isinstance(path, Address):
        return path.exists()
    return os.path.exists(path)  # noqa: PTH110 (Path.exists fails on long names, and in folders that are closed to us)


def rows_of_tables(inputs: Sequence[Path]) -> tuple[dict[Path, Recording], list[str]]:
    """Rows with sound of every recordings.csv among the inputs, by path, and a note on files that are gone."""
    rows = {row.path: row for path in inputs if is_table(path) for row in read_recordings(path) if row.sound}
    gone = [str(path) for path in rows if not is_present(path)]
    note = f"{len(gone)} recordings of the table are no longer there: {', '.join(gone[:5])}"
    return rows, [note] if gone else []


def time_zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise AssertionError(f"--timezone {name}: no such zone; write one as America/Bogota or UTC") from None


def is_moment(text: str) -> bool:
    """Whether a table's word is a date or a time in ISO 8601, or none at all."""
    try:
        return not text or bool(datetime.fromisoformat(text))
    except ValueError:
        return False


def site_pattern(text: str) -> re.Pattern[str] | None:
    try:
        pattern = re.compile(text) if text else None
    except re.error as error:
        raise AssertionError(f"--site_regex {text}: {error}") from None
    assert pattern is None or pattern.groups == 1, f"--site_regex {text}: put the site, and only that, in parentheses"
    return pattern


def read_shard(text: str) -> tuple[int, int]:
    """3/8 -> (3, 8); slurm -> the position of this task in its array."""
    if text == "slurm":
        names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")
        values = [os.environ.get(name, "") for name in names]
        assert all(value.isdecimal() for value in values), (
            f"--shard slurm: {', '.join(names)} are not set; use sbatch --array 1-8, for eight shards"
        )
        number, first, count = map(int, values)
        last = os.environ.get("SLURM_ARRAY_TASK_MAX", str(count))
        assert first == 1 and last == str(count) and number <= count, (
            f"--shard slurm: this is task {number} of an array of {count} from {first} to {last}, so nobody knows how "
            f"many shards there are; use sbatch --array 1-8 for eight of them, or --shard {number}/8 to do one again"
        )
        text = f"{number}/{count}"
    part = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    assert part and 1 <= int(part[1]) <= int(part[2]), f"--shard {text}: write 3/8 for the third of eight, or slurm"
    return int(part[1]), int(part[2])


def in_shard(path: Path, shard: int, shards: int) -> bool:
    """Whether a recording belongs to a shard, counted from 1: by a hash of its path, the same on every machine."""
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % shards == shard - 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name in ("pond/20260514_053000.wav", "pond/20261101_013000.wav", "ridge/noon.flac"):
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.touch()
        entries, notes = find_entries([Path(folder)], timezone="America/New_York")
        for entry in entries:
            print(f"{entry.path.name:24} {entry.site:8} {entry.recorded_at or 'no time'}")
        shards = [[entry.path.name for entry in entries if in_shard(entry.path, part, 2)] for part in (1, 2)]
    print(*notes, sep="\n")
    assert entries[0].recorded_at == "2026-05-14T05:30:00-04:00" and sum(map(len, shards)) == 3
