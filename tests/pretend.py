"""A folder such as predictor.py leaves behind, with sound that can be heard: beeps in a hiss, one pitch per species."""

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import soundfile
from onnx import TensorProto, helper, numpy_helper

from serving.detections import DETECTION_COLUMNS as COLUMNS
from serving.scorer import FORMAT, METADATA
from taxonomy import Taxonomy, to_json

RATE, WINDOW = 16_000, 5.0
SPECIES = (  # code, scientific name, common name
    ("9000117", "Rana ficta", "pretend frog"),
    ("greti", "Parus fictus", "pretend tit"),
    ("genus Strix", "Strix", ""),  # an answer above species
)
FILE_COLUMNS = (
    *("file", "site", "recorded_at", "sample_rate", "channels", "seconds_claimed", "seconds_analysed", "windows"),
    *("detections", "status", "reason", "size", "mtime_ns"),
)


def pitch(number: int) -> float:
    """Hz, about, of the beep of a species."""
    return 1_000.0 + 1_500.0 * number


def write_recording(path: Path, windows: int, seed: int = 0) -> None:
    """A hiss with a beep about the middle of each window, of one species after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 0.01, round(windows * WINDOW * RATE)).astype(np.float32)
    beep = np.arange(RATE) / RATE
    for window in range(windows):
        start = round((window * WINDOW + rng.uniform(1, 3)) * RATE)  # so that no two recordings are taken for one
        hertz = pitch(window % 3) * rng.uniform(0.9, 1.1)
        samples[start : start + RATE] += (0.3 * np.sin(2 * np.pi * hertz * beep)).astype(np.float32)
    soundfile.write(path, samples, RATE)


def write_results(
    root: Path,
    recordings: int = 2,
    windows: int = 9,
    species: Sequence[tuple[str, str, str]] = SPECIES,
    names: Sequence[str] = (),
    rows: Mapping[str, str] | None = None,
) -> Path:
    """The folder root/results, and recordings in root/card/; the species take turns, each surer than before.

    names   of the recordings, relative to root
    rows    cells that every row of detections.csv has
    """
    folder = root / "results"
    folder.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, str]] = []
    files: list[dict[str, str]] = []
    for number in range(recordings):
        begin, site = datetime(2026, 5, 14 + number // 2, 3 + number, 30), f"site {'AB'[number % 2]}"
        name = names[number] if names else f"card/{site.replace(' ', '_')}/A1_{begin:%Y%m%d_%H%M%S}.wav"
        write_recording(root / name, windows, number)
        for window in range(windows):
            code, scientific, common = species[window % len(species)]
            share = (number * windows + window + 1) / (recordings * windows + 1)
            found.append(
                {
                    "Start (s)": f"{window * WINDOW:g}",
                    "End (s)": f"{(window + 1) * WINDOW:g}",
                    "Scientific name": scientific,
                    "Common name": common,
                    "Confidence": f"{share:.4f}",
                    "File": name,
                    "Species code": code,
                    "Site": site,
                    "Recorded at": begin.isoformat(),
                    "Detected at": (begin + timedelta(seconds=window * WINDOW)).isoformat(),
                    "Channel": "mean",
                    "Model": "pretend.onnx",
                    "Window (s)": "5",
                    "Overlap (s)": "0",
                    "Min conf": "0.01",
                    "Runners up": f"{species[(window + 1) % len(species)][0]} 0.31, other1 0.12",
                    **(rows or {}),
                }
            )
        facts = [name, site, begin.isoformat(), str(RATE), "1", *[f"{windows * WINDOW:g}"] * 2, str(windows)]
        files.append(dict(zip(FILE_COLUMNS, [*facts, str(windows), "ok", "", "1", "1"], strict=True)))
    bad = dict.fromkeys(FILE_COLUMNS, "0") | {"file": "card/site_A/notes.wav", "site": "site A", "recorded_at": ""}
    files.append(bad | {"status": "unreadable", "reason": "named .wav, is text; copy it again"})
    write_table(folder / "detections.csv", COLUMNS, found)
    write_table(folder / "files.csv", FILE_COLUMNS, files)
    facts_of_run: dict[str, Any] = {
        "model": "runs/quantize/pretend.onnx",
        "model_sha256": "ab" * 32,
        "settings": {"min_conf": 0.01, "overlap": 0.0, "inputs": ["card"]},
        "working_directory": str(root),
        "started": "2026-05-15T08:00:00+0000",
    }
    (folder / "run.json").write_text(json.dumps(facts_of_run))
    return folder


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, "", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_beep_model(
    path: Path, species: int = 1, width: int = 0, sample_rate: int = 16_000, **audio: str | float
) -> Path:
    """An ONNX file whose first species is what sounds at 3 kHz for 20 ms or longer, as far as it is loud; the others
    never call. It hears windows of 5 s.

    width   of the embeddings; 0: it has none
    audio   what else it says of the sound that it takes
    """
    frame, samples = sample_rate // 50, round(WINDOW * sample_rate)
    wave = np.exp(2j * np.pi * 3_000 * np.arange(frame) / sample_rate) * 4 / frame
    each = np.eye(1, species, dtype=np.float32)
    constants = {
        "frames": np.array([-1, samples // frame, frame], np.int64),
        "wave": np.stack([wave.real, wave.imag], axis=1).astype(np.float32),
        "last": np.array([2], np.int64),
        "middle": np.array([1], np.int64),
        "each": each,
        "zero": np.float32(0),
        "one": np.float32(1),
        "vector": np.linspace(0, 1, max(width, 1), dtype=np.float32)[None],
    }
    nodes = [
        helper.make_node("Reshape", ["waveforms", "frames"], ["framed"]),
        helper.make_node("MatMul", ["framed", "wave"], ["parts"]),
        helper.make_node("Mul", ["parts", "parts"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "last"], ["power"], keepdims=0),
        helper.make_node("ReduceMax", ["power"], ["most"], axes=[1]),
        helper.make_node("Clip", ["most", "zero", "one"], ["loud"]),
        helper.make_node("MatMul", ["loud", "each"], ["probabilities"]),
        *([helper.make_node("MatMul", ["loud", "vector"], ["embeddings"])] if width else []),
    ]
    outputs = {"probabilities": species} | ({"embeddings": width} if width else {})
    graph = helper.make_graph(
        nodes,
        "beep",
        [helper.make_tensor_value_info("waveforms", TensorProto.FLOAT, ["batch", samples])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in outputs.items()],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    labels = ("beep", *(f"mute{number}" for number in range(1, species)))
    kin = ("a", "b", "c", "d", "e", "f")
    names = Taxonomy(labels, labels, labels, tuple((*kin, label) for label in labels), (7,) * species)
    facts = {
        "format": FORMAT,
        "audio": {"sample_rate": sample_rate, "window_seconds": WINDOW, **audio},
        "taxonomy": to_json(names),
        "precision": "float32",
        "verified": True,
    }
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA: json.dumps(facts)})
    onnx.save(model, path)
    return path
