"""Every window's embedding in a folder, and which windows are nearest to an example.

    write_store(folder, journal, entries, facts)          # from what the journal keeps of each recording
    store = open_store(folder)
    nearest = store.nearest(examples, unlike, most=100)   # the most alike first

Reads and writes   store.json, and beside it the arrays that it names: vectors (windows, width) float16, of length 1;
                   coarse (windows, 64) float32, the same in the directions in which they differ most; places, which
                   window of which recording; space, how an embedding becomes such a vector

A window is as near to another as the cosine between them, each value in units of its deviation over the whole index:
what all windows have in common tells none from another. The coarse vectors are all compared, and the nearest of them
once more with all their values. That is exact where there are no more windows than that; bench/search.py measures what
else is missed. No library is needed for it, and what is mapped from disk needs no memory of its own.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.digests import sha256
from runtime.files import publish, read_json, refusing_damage, scratch, write_json
from serving.detections import Scored
from serving.inputs import Entry
from serving.journal import Journal
from system import take_room

FORMAT = 1
TABLE = "store.json"
COARSE = 64  # directions that all windows are compared in
RERANKED = 4_000  # windows at least that are compared once more with all their values
SAMPLE = 20_000  # windows at most that the directions are found on
LEAST_SPREAD = 1e-4  # a value that hardly varies is not blown up beyond this
SAME = 1e-4  # cosines that differ by less are one: an example may be a counter-example too
AT_A_TIME = 16_384  # windows
PLACE = np.dtype([("recording", "<i4"), ("channel", "<i2"), ("start", "<f8"), ("end", "<f8"), ("length", "<f4")])
ARRAYS = ("vectors", "coarse", "places", "mean", "deviation", "directions")
Vectors = NDArray[np.float32]
AGAIN = "give the command `search.py index` again"


class Nearest(NamedTuple):
    """Windows like the examples, the most alike first."""

    rows: NDArray[np.intp]  # of the store
    similarity: Vectors  # to the nearest example: the cosine, 1 at most


@dataclass(frozen=True)
class Store:
    """An index, open; what is large stays on disk."""

    vectors: NDArray[np.float16]  # (windows, width)
    coarse: Vectors  # (windows, directions)
    places: NDArray[np.void]  # (windows,) of PLACE; length: of the standardised embedding, before it was made 1
    mean: Vectors  # (width,)
    deviation: Vectors
    directions: Vectors  # (width, directions)
    facts: Mapping[str, Any]  # what the index is of

    def unit(self, embeddings: Vectors) -> Vectors:
        """(rows, width) embeddings -> vectors as they stand in the store."""
        standard = (embeddings - self.mean) / self.deviation
        found: Vectors = standard / np.maximum(np.linalg.norm(standard, axis=1, keepdims=True), LEAST_SPREAD)
        return found

    def standard(self, rows: NDArray[np.intp]) -> Vectors:
        """(rows, width) embeddings of some windows, each value in units of its deviation."""
        found: Vectors = self.vectors[rows].astype(np.float32) * self.places["length"][rows, None]
        return found

    def nearest(self, examples: Vectors, unlike: Vectors, most: int) -> Nearest:
        """The windows that are like one of the examples; without those that are more like a counter-example.

        examples, unlike   (rows, width) embeddings
        """
        wanted, unwanted = self.unit(examples), self.unit(unlike)
        count = min(len(self.vectors), max(RERANKED, 4 * most))
        near = [top_rows(self.coarse @ (self.directions.T @ vector), count) for vector in wanted]
        rows = np.unique(np.concatenate(near))
        similarity, against = similarities(self.vectors, rows, wanted), similarities(self.vectors, rows, unwanted)
        kept = np.flatnonzero(similarity > against + SAME)
        order = kept[np.argsort(-similarity[kept], kind="stable")][:most]
        return Nearest(rows[order], similarity[order])


def top_rows(scores: Vectors, count: int) -> NDArray[np.intp]:
    """The rows with the highest scores, in no order."""
    return np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))


def similarities(vectors: NDArray[np.float16], rows: NDArray[np.intp], examples: Vectors) -> Vectors:
    """(rows,) the cosine to the nearest of some unit vectors; -2 where there are none."""
    highest = np.full(len(rows), -2, np.float32)
    for first in range(0, len(rows), AT_A_TIME):
        some = slice(first, first + AT_A_TIME)
        cosines = vectors[rows[some]].astype(np.float32) @ examples.T
        highest[some] = cosines.max(axis=1, initial=-2)
    return highest


def write_store(folder: Path, journal: Journal, entries: Sequence[Entry], facts: Mapping[str, object]) -> int:
    """The store of all recordings that are done, in their order; returns how many windows there are.

    facts    what store.json says beside it; what is made of the same recordings has the same bytes
    Errors   no window at all, embeddings of different widths, or no room for it
    """
    counts = [int(journal.read_facts(entry)["windows"]) for entry in entries if journal.is_done(entry)]
    total, positions = sum(counts), {entry.path: number for number, entry in enumerate(entries)}
    assert total, f"none of the {len(entries)} recordings has a window to be found; files.csv says why"
    mean, deviation, directions = space_of(scored_windows(journal, entries), max(1, total // SAMPLE))
    large: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        "vectors": (np.dtype(np.float16), (total, len(mean))),
        "coarse": (np.dtype(np.float32), (total, directions.shape[1])),
        "places": (PLACE, (total,)),
    }
    size = sum(kind.itemsize * math.prod(shape) for kind, shape in large.values())
    names: dict[str, str] = {}
    with publish(folder / TABLE, size) as table, scratch(folder, "store") as temporary_folder:
        maps = {name: array_on_disk(temporary_folder / name, kind, shape) for name, (kind, shape) in large.items()}
        row = 0
        for entry, part in scored_windows(journal, entries):
            for some in blocks_of(part):
                standard = (part.embeddings[some].astype(np.float32) - mean) / deviation
                rows = slice(row, row + len(standard))
                length = np.maximum(np.linalg.norm(standard, axis=1), LEAST_SPREAD)
                unit = (standard / length[:, None]).astype(np.float16)
                maps["vectors"][rows], maps["coarse"][rows] = unit, unit.astype(np.float32) @ directions
                columns = (positions[entry.path], part.channel, part.starts[some], part.ends[some], length)
                for name, values in zip(PLACE.names or (), columns, strict=True):
                    maps["places"][name][rows] = values
                row = rows.stop
        assert row == total, f"{row} windows where {total} were counted; {AGAIN}"
        for array in maps.values():
            array.flush()
        for name, values in {"mean": mean, "deviation": deviation, "directions": directions}.items():
            with (temporary_folder / name).open("wb") as file:
                np.save(file, values, allow_pickle=False)
        for name in ARRAYS:  # each under a name of its own, so that the old store is whole until the new one is
            names[name] = f"{name}-{sha256(temporary_folder / name)[:16]}.npy"
            with publish(folder / names[name]) as temporary:
                (temporary_folder / name).replace(temporary)
        sizes = {name: (folder / file).stat().st_size for name, file in names.items()}
        known = {"format": FORMAT, "windows": total, "recordings": len(entries), "width": len(mean)}
        write_json(table, {**known, "arrays": names, "bytes": sizes, **facts})
    for old in folder.glob("*-*.npy"):
        if old.name.rpartition("-")[0] in ARRAYS and old.name not in names.values():
            old.unlink()
    return total


def array_on_disk(path: Path, kind: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A new array on disk whose room is taken before anything is written into it: where what is mapped finds the disk
    full, the process ends without a word (SIGBUS).

    Errors: OSError of a full disk.
    """
    array = np.lib.format.open_memmap(path, "w+", kind, shape)
    take_room(path)
    return array


def scored_windows(journal: Journal, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Scored]]:
    """Every channel of every recording that has windows."""
    return ((entry, part) for entry, parts in journal.recall_arrays(entries) for part in parts if len(part.starts))


def blocks_of(part: Scored) -> Iterator[slice]:
    """The windows of a recording, so many at a time: of a bat's day there are 172,800."""
    return (slice(first, first + AT_A_TIME) for first in range(0, len(part.starts), AT_A_TIME))


def space_of(parts: Iterable[tuple[Entry, Scored]], step: int) -> tuple[Vectors, Vectors, Vectors]:
    """Mean and deviation of each value (width,), and the directions (width, 64 at most) in which windows differ most.

    step   every so many windows one is taken for the directions
    """
    sums, squares, count = np.zeros(0), np.zeros(0), 0
    sample: list[Vectors] = []
    for vectors in (part.embeddings[some].astype(np.float64) for _, part in parts for some in blocks_of(part)):
        assert vectors.shape[1], "this file gives no embeddings; make it anew with quantize.py"
        if not count:
            sums, squares = np.zeros(vectors.shape[1]), np.zeros(vectors.shape[1])
        sums, squares = sums + vectors.sum(axis=0), squares + np.square(vectors).sum(axis=0)
        sample.append(vectors[-count % step :: step].astype(np.float32))
        count += len(vectors)
    mean = sums / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, LEAST_SPREAD**2))
    standard = (np.concatenate(sample) - mean) / deviation
    standard /= np.maximum(np.linalg.norm(standard, axis=1, keepdims=True), LEAST_SPREAD)
    directions = np.linalg.eigh(standard.T @ standard)[1][:, : -COARSE - 1 : -1]
    return mean.astype(np.float32), deviation.astype(np.float32), np.ascontiguousarray(directions, np.float32)


def open_store(folder: Path) -> Store:
    """The store in a folder.

    Errors: no index there, one of a later version, or arrays that are missing or not as long as they were written.
    """
    path = folder / TABLE
    assert path.is_file(), f"no index in {folder}; `python search.py index RECORDINGS --index {folder}` makes one"
    facts = read_json(path, AGAIN)
    assert facts.get("format") == FORMAT, f"{path} has the format {facts.get('format')!r}, not {FORMAT}; {AGAIN}"
    arrays: dict[str, Any] = {}
    for name in ARRAYS:
        file = folder / Path(str(facts["arrays"][name])).name
        whole = file.is_file() and file.stat().st_size == facts["bytes"][name]
        assert whole, f"{file} is missing or damaged; {AGAIN}"
        with refusing_damage(file, "array", AGAIN):
            arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
    assert len(arrays["places"]) == len(arrays["vectors"]) == facts["windows"], f"{path} is damaged; {AGAIN}"
    return Store(**arrays, facts=facts)


if __name__ == "__main__":
    from serving.detections import Analysed
    from serving.journal import open_journal

    rng = np.random.default_rng(0)
    species = rng.normal(3, 1, (5, 96))  # what five animals sound like, on top of what all windows share
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        entries = [Entry(folder / f"{number}.wav") for number in range(20)]
        with open_journal(folder, {}, arrays=True) as journal:
            for number, entry in enumerate(entries):
                sound = (species[number % 5] + rng.normal(0, 0.3, (12, 96))).astype(np.float32)
                times = [5.0 * window for window in range(12)]
                scored = Scored(times, [time + 5 for time in times], np.zeros((12, 0), np.float32), sound)
                journal.save(entry, Analysed(str(entry.path), "", "", 16_000, 1, 60, 60, 12, "ok", "", 0, 0), [scored])
            print(write_store(folder, journal, entries, {}), "windows")
        store = open_store(folder)
        nearest = store.nearest(species[2:3].astype(np.float32), species[:0].astype(np.float32), most=48)
        found = np.unique(store.places["recording"][nearest.rows])
        print("like animal 2:", found.tolist(), f"at {nearest.similarity.min():.2f} and above")
    assert found.tolist() == [2, 7, 12, 17]
