"""The folder that bench.gpu takes to a machine without network: recordings, weights, wheels; under 60 MB.

    .venv/bin/python -m bench.gpu pack

Recordings as 16 kHz mono Ogg/Opus, at most 30 s of each, in BirdCLEF's layout with their groups and folds; Whisper
base in float16; what BirdNET 2.4 makes of the recordings; wheels of the packages that a machine with torch,
transformers, torchaudio, pandas and scikit-learn may still lack. The folder is ignored by git: recordings, weights and
embeddings are no part of the project.
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from safetensors.torch import load_file, save_file

from archive.recordings import Recording
from bench.birdnet import embeddings
from bench.gpu_parts import TEACHER
from bench.teachers import write_table as write_embeddings
from config import DataSettings
from data_loader import read_labeled, read_noise
from sounds.audio import open_recording
from taxonomy import table_rows

RATE, LONGEST = 16_000, 30.0  # Hz and seconds kept of each recording
BITRATE = 32_000  # of Opus, a second
ROOM = 60_000_000  # bytes for the whole folder
BITRATES = (6_000, 256_000)  # what libsndfile makes of compression levels 1 and 0, bits a second and channel
COLUMNS = ("primary_label", "secondary_labels", "filename", "collection", "author", "license", "group", "fold")
# For CPython 3.12 on x86-64 Linux; pinned in requirements.txt where they are named there.
WHEELS = (
    *("soundfile", "soxr", "tyro", "cffi==2.1.1", "pycparser==3.12", "docstring_parser==0.18.0"),
    *("typeguard==4.6.1", "typing_extensions==4.16.0"),
)
GLIBC = ("_2_28", "_2_27", "_2_17", "2014")


def pack(animals: Path, noise: Path, weights: Path, min_recordings: int, folder: Path, whole: bool = True) -> None:
    """Make the folder, and say how big each part of it is.

    whole     with the teacher's embeddings and the wheels, which need a network
    Errors: a folder that would not fit, or in which recordings, labels, groups or folds came out otherwise, is refused.
    """
    assert weights.is_dir(), f"no weights at {weights}; run from the project's folder, with shared/ beside it"
    shutil.rmtree(folder, ignore_errors=True)
    pack_labeled(animals, min_recordings, folder / "animals")
    pack_noise(noise, folder / "noise")
    pack_weights(weights, folder / weights.name)
    if whole:
        pack_teacher(folder, min_recordings)
        pack_wheels(folder / "wheels")
    sizes = {part.name: size_of(part) for part in sorted(folder.iterdir())}
    for name, size in sizes.items():
        print(f"{name:16}{size / 1e6:8.1f} MB")
    print(f"{'together':16}{sum(sizes.values()) / 1e6:8.1f} MB in {folder}")
    assert sum(sizes.values()) < ROOM, f"{folder} is larger than {ROOM / 1e6:.0f} MB; lower BITRATE in {__file__}"


def pack_labeled(root: Path, min_recordings: int, folder: Path) -> None:
    """Labelled recordings in BirdCLEF's layout, with the groups and folds they have where they come from."""
    settings = DataSettings(root, min_recordings=min_recordings)
    with redirect_stdout(None):
        taxonomy, recordings = read_labeled(settings)
    rows: list[dict[str, str]] = [dict(zip(COLUMNS, table_row(recording), strict=True)) for recording in recordings]
    for recording, row in zip(recordings, rows, strict=True):
        write_opus(recording.path, folder / "train_audio" / row["filename"])
    write_table(folder / "train.csv", rows)
    write_table(folder / "taxonomy.csv", table_rows(taxonomy))
    with redirect_stdout(None):
        again, packed = read_labeled(replace(settings, root=folder))
    assert again.labels == taxonomy.labels and sorted(map(facts, packed)) == sorted(map(facts, recordings)), (
        f"{len(packed)} of {len(recordings)} recordings came out as they are in {root}; look at {folder}/train.csv"
    )
    print(f"{len(packed)} recordings of {len(again.labels)} species, {sum(row.seconds for row in packed) / 60:.1f} min")


def table_row(recording: Recording) -> tuple[str, ...]:
    """A line of train.csv."""
    assert recording.start is None and not recording.keep and recording.labels, f"{recording.name}: a whole recording"
    first, *others = recording.labels
    name = f"{first}/{Path(recording.name).stem}.ogg"
    return (
        first,
        str(others),
        name,
        recording.source,
        recording.author,
        recording.license,
        recording.group,
        str(recording.fold),
    )


def facts(recording: Recording) -> tuple[str, tuple[str, ...], str, int]:
    """What must be the same of a recording before and after."""
    return Path(recording.name).stem, recording.labels, recording.group, recording.fold


def pack_noise(root: Path, folder: Path) -> None:
    """Recordings without animals."""
    with redirect_stdout(None):
        recordings = read_noise(root, DataSettings(root))
    for recording in recordings:
        write_opus(recording.path, folder / f"{Path(recording.name).stem}.ogg")


def write_opus(source: Path, path: Path) -> None:
    """The first 30 s of a recording as 16 kHz mono Ogg/Opus."""
    assert not path.exists(), f"two recordings would be {path}; rename one of them"
    path.parent.mkdir(parents=True, exist_ok=True)
    window = next(open_recording(source, RATE, shortest=0.0).windows(LONGEST))  # repeated where it is shorter
    samples = window.samples[: round((window.end - window.start) * RATE)]
    lowest, highest = BITRATES
    level = (highest - BITRATE) / (highest - lowest)
    soundfile.write(path, np.clip(samples, -1, 1), RATE, "OPUS", format="OGG", compression_level=level)


def pack_weights(source: Path, folder: Path) -> None:
    """A Whisper encoder of the hub's layout in float16."""
    folder.mkdir(parents=True)
    shutil.copyfile(source / "config.json", folder / "config.json")
    tensors = {name: tensor.half().contiguous() for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")


def pack_teacher(folder: Path, min_recordings: int) -> None:
    """The embeddings of BirdNET 2.4 (CC BY-NC-SA 4.0) of the packed recordings."""
    with redirect_stdout(None):
        recordings = read_labeled(DataSettings(folder / "animals", min_recordings=min_recordings))[1]
    write_embeddings(folder / TEACHER, recordings, *embeddings(recordings))


def pack_wheels(folder: Path) -> None:
    """Wheels for CPython 3.12 on x86-64 Linux, from the registry pip is set to."""
    pins = "".join(path.read_text(encoding="utf-8") for path in Path().glob("requirements*.txt"))
    pinned = dict(re.findall(r"^(\w+)==(.+)$", pins, re.MULTILINE))
    names = [name if "=" in name else f"{name}=={pinned[name]}" for name in WHEELS]
    words = ["pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    words += ["--python-version", "3.12", "--implementation", "cp", "--dest", str(folder)]
    words += [word for version in GLIBC for word in ("--platform", f"manylinux{version}_x86_64")]
    subprocess.run([sys.executable, "-m", *words, *names], check=True)


def write_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """A csv of rows with the same columns."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def size_of(folder: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(path.stat().st_size for path in (folder, *folder.rglob("*")) if path.is_file())
