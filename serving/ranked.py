"""Windows of an index, the first the most wanted -> the tables that predictor.py writes, for report.py and all others.

    written = write_ranked_tables(folder, Path("season.index"), store, nearest.rows, nearest.similarity, like, kinds)

Reads    files.csv of the index
Writes   detections.csv in the order given, files.csv, and below exports/ what else is asked for
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runtime.digests import sha256
from serving.detections import Analysed, Detection, TableFacts, clock_time
from serving.results import rows_of
from serving.tables import write_ranked, write_tables
from serving.vectors import AGAIN, PLACE, Store

FILES = "files.csv"
NUMBERS: Mapping[str, type[int] | type[float]] = {"int": int, "float": float}


class Like(NamedTuple):
    """What windows are called in the tables."""

    label: str
    scientific_name: str
    common_name: str


def write_ranked_tables(
    folder: Path,
    index: Path,
    store: Store,
    rows: NDArray[np.intp],
    confidence: NDArray[np.float32],
    likes: list[Like],
    kinds: Collection[str],
) -> list[Path]:
    """All tables; returns them.

    rows         of the store, in the order of the table
    confidence   (rows,) from 0 to 1, what is outside counts as the end
    likes        (rows,) what each is called
    kinds        as of write_tables
    """
    recordings = indexed_recordings(index, store)
    found: dict[int, list[Detection]] = {}
    ranked: list[Analysed] = []
    for place, score, like in zip(store.places[rows], confidence.clip(0, 1).tolist(), likes, strict=True):
        start, number = float(place["start"]), int(place["recording"])
        when, channel = clock_time(recordings[number].recorded_at, start), int(place["channel"])
        hit = Detection(start, float(place["end"]), *like, score, 0.0, channel, when)
        ranked.append(replace(recordings[number], found=(hit,)))
        found.setdefault(number, []).append(hit)
    said = store.facts
    facts = TableFacts(said["model_name"], said["window_seconds"], said["overlap"], said["top_hz"], said["lowest_hz"])
    by_time = (
        replace(recording, found=tuple(sorted(found.get(number, []), key=lambda hit: hit.start)))
        for number, recording in enumerate(recordings)
    )
    written = write_tables(folder, by_time, facts, set(kinds) - {"csv"})
    if "csv" in kinds:
        write_ranked(folder / "detections.csv", ranked, facts)
        written.insert(0, folder / "detections.csv")
    return written


def indexed_recordings(index: Path, store: Store) -> list[Analysed]:
    """The recordings of an index, as its files.csv has them."""
    path = index / FILES
    assert path.is_file(), f"{path} is missing; {AGAIN}"
    known_digest = store.facts.get("files_sha256")  # not of earlier versions
    assert known_digest in (None, sha256(path)), f"{path} is not the table that the index was made with; {AGAIN}"
    wanted = {field.name: str(field.type) for field in fields(Analysed)}
    recordings: list[Analysed] = []
    for _, row in rows_of(path, ("file", "size")):
        known: dict[str, Any] = {
            name: NUMBERS[wanted[name]](cell) if wanted[name] in NUMBERS else cell
            for name, cell in row.items()
            if name in wanted
        }
        recordings.append(Analysed(**known))
    assert len(recordings) == store.facts["recordings"], (
        f"{path} has {len(recordings)} recordings, the index {store.facts['recordings']}; {AGAIN}"
    )
    return recordings


if __name__ == "__main__":
    pond = Analysed("pond/dawn.wav", "pond", "2026-05-14T05:30:00", 16_000, 1, 15.0, 15.0, 3, "ok", "", 0, 0)
    ridge = replace(pond, file="ridge/dawn.wav", site="ridge")
    places = np.array([(0, 0, 0, 5, 1), (0, 0, 5, 10, 1), (1, 0, 0, 5, 1)], PLACE)
    facts = {"model_name": "toy.onnx", "window_seconds": 5.0, "overlap": 0.0, "top_hz": 8_000.0, "lowest_hz": 0.0}
    nothing = np.zeros((3, 0), np.float32)
    halves = nothing.astype(np.float16)
    store = Store(halves, nothing, places, nothing, nothing, nothing, {**facts, "recordings": 2})
    with tempfile.TemporaryDirectory() as directory:
        index, out = Path(directory), Path(directory) / "like-call"
        write_tables(index, [pond, ridge], TableFacts("toy.onnx", 5.0, 0.0, 8_000.0), ())
        names = [Like("call", "", "like call")] * 2
        write_ranked_tables(out, index, store, np.array([2, 1]), np.array([0.9, 0.8], np.float32), names, {"csv"})
        lines = (out / "detections.csv").read_text(encoding="utf-8").splitlines()
    print("\n".join(lines))
    assert [line.split(",")[5] for line in lines[1:]] == ["ridge/dawn.wav", "pond/dawn.wav"]
