"""What the encoder makes of each window, as .npz or csv, and whose encoder that is."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archive.licences import as_facts
from runtime.cells import open_text, plain_path, seconds, write_row
from runtime.files import publish, write_json


@dataclass(frozen=True)
class Embedded:
    """What the encoder makes of the windows of one recording."""

    file: str
    starts: Sequence[float]  # seconds
    ends: Sequence[float]
    vectors: NDArray[np.float32]  # (windows, width)
    channel: int = 0  # 1, 2, ...; 0: the mean of all


def write_vectors(
    path: Path,
    embedded: Iterable[Embedded],
    model: str,
    by_channel: bool = False,
    provenance: Mapping[str, object] | None = None,
) -> int:
    """The vectors of all windows; returns how many there are.

    .npz   embedding (windows, width) float32, file, start, end; model, the file they are of, and what that says of its
           provenance, as JSON. Nothing in it is pickled.
    .csv   BirdNET-Analyzer's layout: file_path, start, end, and the vector as one cell of numbers parted by commas;
           written recording by recording; model and provenance in a .csv.json beside it
    by_channel   a channel too, counted from 1, before the vector: for windows of each channel by itself
    """
    assert path.suffix in (".npz", ".csv"), f"embeddings are written as .npz or .csv, not to {path.name}"
    if path.suffix == ".csv":
        return vectors_csv(path, embedded, model, by_channel, provenance or {})
    return vectors_npz(path, embedded, model, by_channel, provenance or {})


def beside(table: Path) -> Path:
    """The file beside a csv table that says whose vectors they are, for which its layout has no place."""
    return table.with_name(f"{table.name}.json")


def vectors_csv(
    path: Path, embedded: Iterable[Embedded], model: str, by_channel: bool, provenance: Mapping[str, object]
) -> int:
    count = 0
    with open_text(path) as file:
        write_row(file, ("file_path", "start", "end", *(["channel"] if by_channel else []), "embedding"))
        for recording in embedded:
            own = [str(recording.channel)] if by_channel else []
            for start, end, vector in zip(recording.starts, recording.ends, recording.vectors, strict=True):
                numbers = ",".join(f"{value:.9g}" for value in vector)
                write_row(file, [plain_path(recording.file), seconds(start), seconds(end), *own, numbers])
                count += 1
        write_json(beside(path), {"model": model, "provenance": provenance})  # before there is a table without it
    return count


def vectors_npz(
    path: Path, embedded: Iterable[Embedded], model: str, by_channel: bool, provenance: Mapping[str, object]
) -> int:
    files: list[str] = []
    channels: list[int] = []
    times: list[tuple[float, float]] = []
    vectors: list[NDArray[np.float32]] = []
    for recording in embedded:
        times += zip(recording.starts, recording.ends, strict=True)
        files += [plain_path(recording.file)] * len(recording.vectors)
        channels += [recording.channel] * len(recording.vectors)
        vectors.append(recording.vectors)
    start, end = np.array(times, np.float64).reshape(-1, 2).T
    embedding = np.concatenate(vectors).astype(np.float32) if vectors else np.zeros((0, 0), np.float32)
    assert len(files) == len(times), f"{len(files)} vectors for {len(times)} windows"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"embedding": embedding, "file": np.array(files, np.str_), "start": start, "end": end}
    columns |= {"channel": np.array(channels, np.int64)} if by_channel else {}
    columns |= {name: np.array(text) for name, text in {"model": model, **as_facts(provenance)}.items()}
    with publish(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:  # np.savez takes no array named file
        for name, values in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
    return len(files)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        dawn = Embedded("pond/dawn.wav", [0.0, 5.0], [5.0, 10.0], np.ones((2, 3), np.float32))
        print(write_vectors(Path(folder) / "vectors.npz", [dawn], "toy.onnx"), "windows")
        with np.load(Path(folder) / "vectors.npz") as vectors:
            print({name: vectors[name].shape for name in vectors.files})
            assert any(vectors[name].shape == (2, 3) for name in vectors.files)
