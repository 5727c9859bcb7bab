"""Which file format gives back a random window fastest? The waveform cache was chosen by this table.

    python -m bench.cache_formats          (h5py is not one of the project's requirements: install it to have its rows)

Reads    ../shared/animals
Writes   /tmp/wildwhisper/cache-formats/, and prints a table: ms per window with a warm disk, in rounds; the median
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from bench.baseline import ANIMALS
from config import SCRATCH
from sounds.audio import open_recording, read_window

FOLDER = SCRATCH / "cache-formats"
RATE, SECONDS, ROUNDS, DRAWS = 16_000, 5.0, 5, 400
LENGTH = round(RATE * SECONDS)
Read = Callable[[int, int], NDArray[Any]]


def bench() -> None:
    """Write the recordings once in every format, then draw the same windows from each in turn."""
    assert ANIMALS.is_dir(), f"no recordings at {ANIMALS}; run from the project's folder, with shared/ beside it"
    shutil.rmtree(FOLDER, ignore_errors=True)  # not there the first time
    FOLDER.mkdir(parents=True)
    sources = sorted(ANIMALS.glob("soundscapes/*.ogg"))
    sounds = [np.concatenate(list(open_recording(path, RATE).waveform())) for path in sources]
    kept = [index for index, sound in enumerate(sounds) if len(sound) > 2 * LENGTH]
    sources, sounds = [sources[index] for index in kept], [sounds[index] for index in kept]
    hours = sum(map(len, sounds)) / RATE / 3600
    readers: dict[str, Read] = {"decode and resample": lambda n, at: read_window(sources[n], at / RATE, SECONDS, RATE)}
    write_all(sounds, readers)
    rng = np.random.default_rng(0)
    draws = [(n := int(rng.integers(len(sounds))), int(rng.integers(len(sounds[n]) - LENGTH))) for _ in range(DRAWS)]
    rounds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name, read in readers.items():
            started = time.perf_counter()
            for n, at in draws:
                window = read(n, at)
                assert window.shape == (LENGTH,), f"{name} gave {window.shape}"
            rounds[name].append(1000 * (time.perf_counter() - started) / DRAWS)
    print(f"{len(sounds)} recordings, {hours:.2f} h; {DRAWS} windows of {SECONDS:g} s, {ROUNDS} rounds, medians")
    print(f"{'format':28}{'ms a window':>12}{'MB an hour':>12}")
    for name, values in rounds.items():
        size = sum(path.stat().st_size for path in FOLDER.glob(f"{name.split()[0]}-*"))
        print(f"{name:28}{statistics.median(values):12.3f}{size / hours / 1e6:12.0f}")


def write_all(sounds: list[NDArray[np.float32]], readers: dict[str, Read]) -> None:
    """The same int16 samples as npy, wav, flac, HDF5, and all of them in one raw file; a reader for each."""
    whole = [np.rint(np.clip(sound, -1, 1) * 32767).astype(np.int16) for sound in sounds]
    starts = np.cumsum([0, *map(len, whole)])
    for n, samples in enumerate(whole):
        np.save(FOLDER / f"npy-{n}.npy", samples)
        np.save(FOLDER / f"float32-{n}.npy", samples / np.float32(32767))
        soundfile.write(FOLDER / f"wav-{n}.wav", samples, RATE)
        soundfile.write(FOLDER / f"flac-{n}.flac", samples, RATE)
    np.concatenate(whole).tofile(FOLDER / "raw-0.bin")
    one_file = np.memmap(FOLDER / "raw-0.bin", np.int16, "r")

    def npy(n: int, at: int) -> NDArray[Any]:
        return np.array(np.load(FOLDER / f"npy-{n}.npy", mmap_mode="r")[at : at + LENGTH])

    def npy_read(n: int, at: int) -> NDArray[Any]:
        return np.fromfile(FOLDER / f"npy-{n}.npy", np.int16, LENGTH, offset=128 + 2 * at)

    def float32(n: int, at: int) -> NDArray[Any]:
        return np.fromfile(FOLDER / f"float32-{n}.npy", np.float32, LENGTH, offset=128 + 4 * at)

    def sounded(suffix: str) -> Read:
        def read(n: int, at: int) -> NDArray[Any]:
            with soundfile.SoundFile(FOLDER / f"{suffix}-{n}.{suffix}") as file:
                file.seek(at)
                return file.read(LENGTH, dtype="float32")

        return read

    readers["npy int16, memory-mapped"] = npy
    readers["npy int16, read at offset"] = npy_read
    readers["float32 npy, read at offset"] = float32
    readers["raw int16, one file for all"] = lambda n, at: np.array(one_file[starts[n] + at : starts[n] + at + LENGTH])
    readers["wav int16, libsndfile"] = sounded("wav")
    readers["flac 16 bit, libsndfile"] = sounded("flac")
    if find_spec("h5py"):
        h5py: Any = import_module("h5py")
        for n, samples in enumerate(whole):
            with h5py.File(FOLDER / f"hdf5-{n}.h5", "w") as file:
                file["au"] = samples

        def hdf5(n: int, at: int) -> NDArray[Any]:
            with h5py.File(FOLDER / f"hdf5-{n}.h5", "r") as file:
                return np.asarray(file["au"][at : at + LENGTH])

        readers["hdf5 int16, h5py"] = hdf5
    else:
        print("h5py is not installed: its row is left out")


if __name__ == "__main__":
    bench()
