"""What is done already in a folder of results, so that a run that was cut off goes on where it stopped.

    with open_journal(folder, settings, shard="") as journal:
        if not journal.is_done(entry): journal.save(entry, analysed, scored)
        for analysed in journal.recall(entries): ...

One part per recording, named after its path, size and time of change, written whole or not at all: a part that is there
is a recording that is done. Tables are made of parts, in the order of the recordings, so a run that was cut off ends
with the same bytes as one that was not. Of a long recording that is not done yet, what is answered so far is kept now
and then. Parts of different settings never meet in a folder. Every part holds its own digest: the recording of a
damaged one is analysed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from runtime.digests import blank, sha256, state_of, write_digest
from runtime.files import publish
from runtime.terminal import show
from serving.detections import Analysed, Detection, Scored, clock_time
from serving.inputs import Entry
from sounds.decoders import may_pass
from system import locked

PARTS = ".parts"
PIECE = 2**18  # bytes that are written at a time
DIGEST = 32  # bytes before what is kept of a recording that is not done yet
EARLIER = {"engine": "onnxruntime", "prior": "", "voices": "off", "card": ""}  # what earlier versions did not ask
Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
KNOWN = ("site", "recorded_at", "latitude", "longitude", "make", "serial", "temperature")  # before any sound is read


@dataclass(frozen=True)
class Journal:
    """The parts of a folder of results."""

    parts: Path
    arrays: bool  # whether probabilities and embeddings are kept too

    def is_done(self, entry: Entry) -> bool:
        part, arrays = self.path(entry, "json"), self.path(entry, "npz")
        if not part.is_file() or (self.arrays and not arrays.is_file()):
            return False
        sound = state_of(part) == "sound"
        if sound and self.arrays:
            digest = json.loads(part.read_text(encoding="utf-8"))["arrays"]
            if not digest:  # kept when nobody asked for them; what lies here is of a run that was cut off
                return False
            sound = sha256(arrays) == digest
        if not sound:
            name = os.fsencode(entry.path).decode("utf-8", "backslashreplace")
            show(f"{name}: what was kept of it is damaged, or of an earlier version; it is analysed again")
        return sound

    def save(self, entry: Entry, analysed: Analysed, scored: Sequence[Scored]) -> None:
        """Write the part of a recording; from then on it is done."""
        self.path(entry, "json").parent.mkdir(exist_ok=True)
        digest = ""
        if self.arrays:
            columns = {
                f"{field.name}{number}": np.asarray(getattr(one, field.name))
                for number, one in enumerate(replace(each, speech=(), skipped=0.0) for each in scored)
                for field in fields(one)
            }
            with publish(self.path(entry, "npz")) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **columns)
            digest = sha256(self.path(entry, "npz"))
        write_signed(self.path(entry, "json"), {"arrays": digest, "analysed": asdict(replace(analysed, events=()))})
        self.path(entry, "begun").unlink(missing_ok=True)

    def save_begun(self, entry: Entry, arrays: Mapping[str, Array]) -> None:
        """Write what there is of a recording that is not done yet; behind its digest, so that damage shows."""
        path = self.path(entry, "begun")
        path.parent.mkdir(exist_ok=True)
        with publish(path) as temporary, temporary.open("w+b") as file:  # never all of a day in memory once more
            file.write(bytes(DIGEST))
            save_in_pieces(file, {"kept": np.array([self.arrays]), **arrays})
            file.seek(DIGEST)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            file.write(digest)

    def recall_begun(self, entry: Entry) -> dict[str, Array] | None:
        """What `save_begun` wrote; None where there is nothing, or it is damaged, or was kept with other arrays."""
        if not self.has_begun(entry):
            return None
        with self.path(entry, "begun").open("rb") as file:
            digest = file.read(DIGEST)
            if hashlib.file_digest(file, "sha256").digest() != digest:
                return None
            file.seek(DIGEST)
            with np.load(file, allow_pickle=False) as columns:
                arrays: dict[str, Array] = {name: columns[name] for name in columns.files}
        return arrays if bool(arrays.pop("kept")[0]) == self.arrays else None

    def has_begun(self, entry: Entry) -> bool:
        return self.path(entry, "begun").is_file()

    def recall(self, entries: Iterable[Entry]) -> Iterator[Analysed]:
        """The recordings that are done, one after the other."""
        for entry in entries:
            if self.is_done(entry):
                facts = self.read_facts(entry)
                found = [Detection(**detection) for detection in facts.pop("found")]
                if facts["recorded_at"] != entry.recorded_at:  # a table may have been corrected meanwhile
                    found = [replace(d, detected_at=clock_time(entry.recorded_at, d.start)) for d in found]
                facts |= {name: getattr(entry, name) for name in KNOWN}
                facts |= {"found": tuple(found), "events": ()}
                yield Analysed(**facts)

    def recall_arrays(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, list[Scored]]]:
        """Windows, probabilities and embeddings of the recordings that are done, where they are kept."""
        for entry in entries:
            if self.is_done(entry):
                with np.load(self.path(entry, "npz"), allow_pickle=False) as columns:
                    count = sum(name.startswith("starts") for name in columns.files)
                    yield entry, [scored_of(columns, number) for number in range(count)]

    def is_settled(self, entry: Entry) -> bool:
        """Whether a recording that is done would be read no better another time."""
        facts = self.read_facts(entry)
        return bool(facts["status"] != "unreadable" and not may_pass(facts["reason"]))

    def read_facts(self, entry: Entry) -> dict[str, Any]:
        """What is written of a recording that is done."""
        content: dict[str, Any] = json.loads(self.path(entry, "json").read_text(encoding="utf-8"))["analysed"]
        return content

    def path(self, entry: Entry, kind: str) -> Path:
        return self.parts / entry.key[:2] / f"{entry.key}.{kind}"


def save_in_pieces(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Arrays of one dimension or more, as numpy.savez writes them, which holds 16 MiB of each once more."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            whole = np.ascontiguousarray(array)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, np.lib.format.header_data_from_array_1_0(whole))
                numbers = whole.reshape(-1).view(np.uint8)
                for start in range(0, len(numbers), PIECE):
                    member.write(numbers[start : start + PIECE].data)


@contextmanager
def open_journal(
    folder: Path,
    settings: Mapping[str, object],
    arrays: bool,
    shard: str = "",
    restart: bool = False,
    command: str = "predictor.py",
    flag: str = "--out",
) -> Generator[Journal]:
    """The journal of a folder of results, for this process alone.

    settings  all that changes what is found; a folder with parts of other settings is refused
    shard     several processes may share a folder if each has a shard of its own
    restart   forget what was done before
    command   that writes the parts, and its flag for the folder, for messages
    """
    assert not (restart and shard), "--restart would forget what other shards have done; give it once without --shard"
    assert not folder.exists() or folder.is_dir(), f"{folder} is a file; give a folder"
    parts = folder / PARTS
    parts.mkdir(parents=True, exist_ok=True)
    with locked(parts / f"lock{shard.replace('/', '-of-')}") as is_ours:
        assert is_ours, f"another {command} is at work in {folder}; wait for it, or give another {flag}"
        if restart:  # only now: what another process is at work on stays
            for other in parts.glob("lock*"):
                refuse_busy(other, folder)
            for old in parts.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            (parts / "settings.json").unlink(missing_ok=True)
        wanted: dict[str, Any] = json.loads(json.dumps(EARLIER | dict(settings)))
        kept = kept_settings(folder, flag)
        if kept:
            differ = [name for name in sorted({*wanted, *kept}) if wanted.get(name) != kept.get(name)]
            changes = "; ".join(change_in_words(name, kept.get(name), wanted.get(name)) for name in differ)
            assert not differ, (
                f"{folder} holds results of other settings ({changes}); give another {flag}, "
                "or --restart to forget them"
            )
        else:
            write_signed(parts / "settings.json", {"settings": wanted})
        yield Journal(parts, arrays)


def kept_settings(folder: Path, flag: str = "--out") -> dict[str, Any]:
    """What the parts in a folder of results were made with; nothing where there are none."""
    path = folder / PARTS / "settings.json"
    if not path.is_file():
        return {}
    assert state_of(path) == "sound", (
        f"{path} is damaged, or of an earlier version; give another {flag}, or --restart to analyse all again"
    )
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
    return EARLIER | kept


def refuse_parts(folder: Path) -> None:
    """A folder in which recordings are kept is no place for what another command writes: tables have the same names."""
    assert not (folder / PARTS).exists(), (
        f"--out {folder} holds an index, or the results of predictor.py or pseudo_label.py; give another folder"
    )


def refuse_busy(lock: Path, folder: Path) -> None:
    """Refuse to go on while a shard is at work in a folder."""
    if lock.name == "lock":  # ours
        return
    with locked(lock) as free:
        assert free, f"shard {lock.name[4:]} is at work in {folder}; wait for it, or end it"


def write_signed(path: Path, content: Mapping[str, object]) -> None:
    """A JSON file that shows when it is damaged."""
    with publish(path) as temporary:
        temporary.write_text(json.dumps({"seal": blank(), **content}), encoding="utf-8")
        write_digest(temporary)


def change_in_words(name: str, was: Any, now: Any) -> str:
    """What differs between two settings, in few words."""
    values = f"{name} was {str(was)[:40]!r}, is {str(now)[:40]!r}"
    if isinstance(was, dict) and isinstance(now, dict):
        before, after = cast(dict[str, Any], was), cast(dict[str, Any], now)
        differ = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        return f"{name}, for {differ[0]} and {len(differ) - 1} more" if len(differ) > 1 else f"{name} of {differ[0]}"
    return values


def scored_of(columns: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]], number: int) -> Scored:
    starts, ends = ([float(value) for value in columns[f"{name}{number}"]] for name in ("starts", "ends"))
    vectors, channel = columns[f"embeddings{number}"], int(columns[f"channel{number}"])
    found = Scored(starts, ends, columns[f"probabilities{number}"], vectors, channel)
    unfamiliar = columns.get(f"unfamiliar{number}")  # None of an earlier version
    return found if unfamiliar is None else replace(found, unfamiliar=unfamiliar)


if __name__ == "__main__":
    entry = Entry(Path("pond/dawn.wav"), "pond", "2026-05-14T05:30:00", 1_000, 17)
    frog = Detection(0.0, 5.0, "41", "Rana ficta", "frog", 0.9, 0.5, detected_at=entry.recorded_at)
    dawn = Analysed("pond/dawn.wav", "pond", entry.recorded_at, 32_000, 1, 60.0, 60.0, 12, "ok", "", 1_000, 17, (frog,))
    with tempfile.TemporaryDirectory() as folder:
        with open_journal(Path(folder), {"min_conf": 0.5}, arrays=False) as journal:
            journal.save(entry, dawn, [])
        with open_journal(Path(folder), {"min_conf": 0.5}, arrays=False) as journal:
            print("done already:", list(journal.recall([entry])))
            assert list(journal.recall([entry])) == [dawn] and not journal.is_done(replace(entry, size=2_000))
        try:
            with open_journal(Path(folder), {"min_conf": 0.9}, arrays=False):
                raise SystemExit("settings were mixed")
        except AssertionError as refusal:
            print(refusal)
