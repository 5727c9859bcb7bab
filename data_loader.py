"""Metadata or a folder -> a checked and split table of recordings -> batches of windows.

    taxonomy, recordings = read_labeled(config.data)               # train.csv and taxonomy.csv in BirdCLEF's layout
    train, valid = split(recordings, config.data)
    for batch in labeled_loader(train, taxonomy, ...): ...

Which window of which recording comes next is a function of (seed, epoch, index), never of a worker or of what came
before. Validation hears the very windows that predictor.py will hear.
"""

from __future__ import annotations

import ast
import re
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from audio import Outcome, Window, find_recordings, open_recording, probe, read_window
from config import AudioSettings, DataSettings
from taxonomy import Taxonomy, read_table, read_taxonomy, select_labels

AUDIO_FOLDERS = ("train_audio", "audio")
SAMPLING = 0.5  # a recording of a species with n recordings is drawn in proportion to n ** -SAMPLING
WINDOWS_PER_RECORDING = 2  # at most, per epoch of stage 1
QUOTED_LIST = re.compile(r"""\[\s*(?:(?:'[^'\\\x00-\x1f]*'|"[^"\\\x00-\x1f]*")\s*(?:,\s*|(?=\])))*\]""")


@dataclass(frozen=True)
class Recording:
    """One row of the table, whatever its source."""

    path: Path
    name: str  # relative to the data root, with forward slashes: two recordings never share it
    labels: tuple[str, ...]  # primary label first; empty where nothing is known
    group: str  # recordings of one group are never divided between training and validation
    fold: int
    seconds: float


class Batch(NamedTuple):
    """What one training step hears."""

    waveforms: Tensor  # (batch, samples) float32
    targets: Tensor  # (batch, species) 1 for the primary label
    secondary: Tensor  # (batch, species) 1 for species that are also there, more or less audibly


def read_labeled(data: DataSettings) -> tuple[Taxonomy, list[Recording]]:
    """The species with enough recordings, in the order of taxonomy.csv, and their recordings.

    Errors: a missing or malformed table is refused with the row and the remedy; recordings that are missing or cannot
    be read are counted, named and left out.
    """
    assert data.root.is_dir(), missing_root(data.root)
    taxonomy = read_taxonomy(data.root / "taxonomy.csv")
    recordings = read_recordings(data, taxonomy.labels)
    counts = Counter(recording.labels[0] for recording in recordings)
    unknown = sorted(counts.keys() - set(taxonomy.labels))
    assert not unknown, f"{data.root / 'train.csv'}: {len(unknown)} labels are not in taxonomy.csv: {unknown[:5]}"
    common = {label for label in taxonomy.labels if counts[label] >= data.min_recordings}
    assert common, f"no species has {data.min_recordings} recordings; lower --data.min_recordings"
    recordings = checked(
        [
            replace(recording, labels=tuple(label for label in recording.labels if label in common))
            for recording in recordings
            if recording.labels[0] in common
        ]
    )
    heard = {recording.labels[0] for recording in recordings}
    kept = [label for label in taxonomy.labels if label in heard]
    print(f"{len(recordings)} recordings of {len(kept)} species, {hours(recordings):.2f} h, from {data.root}")
    return select_labels(taxonomy, kept), recordings


def read_unlabeled(data: DataSettings) -> list[Recording]:
    """All recordings under a root, for stage 1: those of train.csv with their folds, or every sound file below it."""
    assert data.root.is_dir(), missing_root(data.root)
    if (data.root / "train.csv").is_file():
        recordings = read_recordings(data, ())
        extra = [folder for name in ("unlabeled", "train_soundscapes") if (folder := data.root / name).is_dir()]
    else:
        recordings, extra = [], [data.root]
    paths, notes = find_recordings(extra) if extra else ([], [])
    for note in notes:
        print(note)
    for path in paths:
        name = path.relative_to(data.root).as_posix()
        fold = zlib.crc32(name.encode()) % data.folds  # the same file is held out in every run
        recordings.append(Recording(path, name, (), name, fold, 0.0))
    recordings = checked(recordings)
    assert recordings, f"no recordings under {data.root}; point --data.root at a folder of sound files"
    print(f"{len(recordings)} recordings, {hours(recordings):.2f} h, from {data.root}")
    return recordings


def split(recordings: Sequence[Recording], data: DataSettings) -> tuple[list[Recording], list[Recording]]:
    """Training and validation recordings; a group that stands on both sides is refused, never divided."""
    folds: dict[str, set[int]] = {}
    for recording in recordings:
        folds.setdefault(recording.group, set()).add(recording.fold)
    torn = sorted(group for group, found in folds.items() if len(found) > 1)
    assert not torn, f"{len(torn)} groups stand in several folds, {torn[:3]} among them: scores would be too good"
    train = [recording for recording in recordings if recording.fold != data.valid_fold]
    valid = [recording for recording in recordings if recording.fold == data.valid_fold]
    assert train and valid, (
        f"--data.valid_fold {data.valid_fold} leaves {len(train)} recordings to train on, {len(valid)} to validate on; "
        f"folds are {sorted({recording.fold for recording in recordings})}"
    )
    print(f"training on {len(train)} recordings, validating on {len(valid)} (fold {data.valid_fold})")
    return train, valid


def labeled_loader(
    recordings: Sequence[Recording], taxonomy: Taxonomy, audio: AudioSettings, batch_size: int, seed: int, workers: int
) -> DataLoader[Batch]:
    """A random window of each drawn recording; species with few recordings are drawn more often, by the square root."""
    counts = Counter(recording.labels[0] for recording in recordings)
    weights = np.array([counts[recording.labels[0]] ** -SAMPLING for recording in recordings])
    sampler = EpochSampler(np.arange(len(recordings)), weights / weights.sum(), seed)
    return window_loader(RandomWindows(recordings, taxonomy.labels, audio, seed), sampler, batch_size, workers)


def unlabeled_loader(
    recordings: Sequence[Recording], audio: AudioSettings, batch_size: int, seed: int, workers: int
) -> DataLoader[Batch]:
    """A random window of each recording, two of a long one, in random order."""
    windows = [min(WINDOWS_PER_RECORDING, max(1, int(r.seconds // audio.window_seconds))) for r in recordings]
    sampler = EpochSampler(np.repeat(np.arange(len(recordings)), windows), None, seed)
    return window_loader(RandomWindows(recordings, (), audio, seed), sampler, batch_size, workers)


def recording_windows(recordings: Sequence[Recording], audio: AudioSettings) -> Iterator[tuple[int, Window]]:
    """Every window of every recording, as predictor.py hears them, each with the index of its recording."""
    for index, recording in enumerate(recordings):
        for window in open_recording(recording.path, audio.sample_rate).windows(audio.window_seconds):
            yield index, window


def truth_table(recordings: Sequence[Recording], labels: Sequence[str]) -> NDArray[np.float32]:
    """(recordings, species): 1 where a recording is labelled with the species, first or among others."""
    column = {label: index for index, label in enumerate(labels)}
    truth = np.zeros((len(recordings), len(labels)), np.float32)
    for row, recording in enumerate(recordings):
        truth[row, [column[label] for label in recording.labels if label in column]] = 1.0
    return truth


class RandomWindows(Dataset[tuple[NDArray[np.float32], NDArray[np.float32]]]):
    """Key (epoch, number of the draw, index) -> a window of that recording at random, and its labels (2, species)."""

    def __init__(self, recordings: Sequence[Recording], labels: Sequence[str], audio: AudioSettings, seed: int) -> None:
        self.recordings = list(recordings)
        self.column = {label: index for index, label in enumerate(labels)}
        self.audio = audio
        self.seed = seed

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        epoch, draw, index = key
        recording = self.recordings[index]
        room = max(0.0, recording.seconds - self.audio.window_seconds)
        start = room * float(np.random.default_rng((self.seed, epoch, draw)).random())
        samples = read_window(recording.path, start, self.audio.window_seconds, self.audio.sample_rate)
        labels = np.zeros((2, len(self.column)), np.float32)
        for place, label in enumerate(recording.labels):
            if label in self.column:
                labels[min(place, 1), self.column[label]] = 1.0
        return samples, labels


class EpochSampler(Sampler[tuple[int, int, int]]):
    """The keys of one epoch, (epoch, number of the draw, index); set `epoch` before each.

    choices  indices to draw from
    weights  probability of each choice, drawn with replacement; None: all of them once, in random order
    """

    def __init__(self, choices: NDArray[np.int64], weights: NDArray[np.float64] | None, seed: int) -> None:
        self.choices, self.weights, self.seed, self.epoch = choices, weights, seed, 0

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            drawn = rng.permutation(self.choices)
        else:
            drawn = rng.choice(self.choices, len(self.choices), p=self.weights)
        for number, index in enumerate(drawn.tolist()):
            yield self.epoch, number, index

    def __len__(self) -> int:
        return len(self.choices)


def window_loader(dataset: RandomWindows, sampler: EpochSampler, batch_size: int, workers: int) -> DataLoader[Batch]:
    """Batches in the sampler's order, decoded in this process or ahead of it in others."""
    return DataLoader[Any](
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        multiprocessing_context="forkserver" if workers else None,
    )


def set_epoch(loader: DataLoader[Batch], epoch: int) -> None:
    """Tell a loader which epoch comes next."""
    assert isinstance(loader.sampler, EpochSampler), "this loader was not made by data_loader.py"
    loader.sampler.epoch = epoch


def collate(items: list[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> Batch:
    """Windows and labels side by side; windows that could not be read are left out."""
    read = [(samples, labels) for samples, labels in items if len(samples)]
    assert read, "none of a batch's recordings can be read any more; is the data root still there?"
    waveforms = torch.from_numpy(np.stack([samples for samples, _ in read]))
    labels = torch.from_numpy(np.stack([labels for _, labels in read]))
    return Batch(waveforms, labels[:, 0], labels[:, 1])


def read_recordings(data: DataSettings, known: Iterable[str]) -> list[Recording]:
    """Every row of train.csv as a recording with its fold; secondary labels outside `known` are dropped.

    Folds are drawn over all rows, whatever is left out later, so that both stages hold out the same recordings.
    """
    path = data.root / "train.csv"
    folder = next((data.root / name for name in AUDIO_FOLDERS if (data.root / name).is_dir()), None)
    assert folder is not None, f"{data.root} has neither train_audio/ nor audio/ beside its train.csv"
    labels, recordings = set(known), list[Recording]()
    for where, row in read_table(path, ("primary_label", "filename"), unique="filename"):
        sound = folder / row["filename"]
        inside = sound.resolve().is_relative_to(folder.resolve())
        assert inside, f"{where}: {row['filename']!r} leaves {folder}"
        secondary = [label for label in parse_labels(row.get("secondary_labels", ""), where) if label in labels]
        mine = tuple(dict.fromkeys([row["primary_label"], *secondary]))
        fold = row.get("fold", "")
        assert fold == "" or fold.isdecimal(), f"{where}: fold {fold!r} is no number"
        name = sound.relative_to(data.root).as_posix()
        recordings.append(Recording(sound, name, mine, group_of(row), int(fold) if fold else -1, 0.0))
    return with_folds(recordings, data)


def parse_labels(cell: str, where: str = "") -> list[str]:
    """BirdCLEF's lists of labels: ['a', 'b'] -> a, b; [''] and [] -> nothing."""
    if cell in ("", "[]", "['']"):
        return []
    assert len(cell) <= 4096 and QUOTED_LIST.fullmatch(cell), (
        f"{where}: secondary labels {cell[:60]!r}; expected ['a', 'b']"
    )
    return [label.strip() for label in ast.literal_eval(cell) if label.strip()]


def group_of(row: dict[str, str]) -> str:
    """What must stay together: the table's own group, or else all recordings of one person."""
    author = row.get("author", "")
    known = author and author.lower() not in ("unknown", "anonymous")
    return row.get("group", "") or (f"by {author}" if known else f"file {row['filename']}")


def with_folds(recordings: list[Recording], data: DataSettings) -> list[Recording]:
    """Recordings with the table's folds, or with folds drawn so that groups stay whole and species are spread.

    A species that one group alone has recorded cannot be validated without being lost for training: its group gets a
    fold of its own, the last one, which is never held out.
    """
    if all(recording.fold >= 0 for recording in recordings):
        return recordings
    assert all(recording.fold < 0 for recording in recordings), "some rows of train.csv have a fold and some have none"
    groups_of: dict[str, set[str]] = {}
    for recording in recordings:
        groups_of.setdefault(recording.labels[0], set()).add(recording.group)
    indispensable = {next(iter(groups)) for groups in groups_of.values() if len(groups) == 1}
    free = [index for index, recording in enumerate(recordings) if recording.group not in indispensable]
    labels = [recordings[index].labels[0] for index in free]
    groups = [recordings[index].group for index in free]
    most = max(Counter(labels).values(), default=0)
    assert len(set(groups)) >= data.folds and most >= data.folds, (
        f"{len(set(groups))} groups of recordings cannot be divided into {data.folds} folds; lower --data.folds, "
        "or give train.csv a column fold"
    )
    folds = np.full(len(recordings), data.folds, np.int64)
    splitter = StratifiedGroupKFold(data.folds, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a rare species is not in every fold is said later, by name
        for number, (_, held_out) in enumerate(splitter.split(labels, labels, groups)):
            folds[np.array(free)[held_out]] = number
    return [replace(recording, fold=int(fold)) for recording, fold in zip(recordings, folds, strict=True)]


def checked(recordings: Sequence[Recording]) -> list[Recording]:
    """Recordings that can be opened, with their length; the others are counted and the first few named."""
    with ThreadPoolExecutor() as pool:
        work = pool.map(probe, [recording.path for recording in recordings])
        outcomes: list[Outcome] = list(tqdm(work, "checking", len(recordings), unit="file", disable=None, leave=False))
    sound: list[Recording] = []
    bad: list[str] = []
    for recording, outcome in zip(recordings, outcomes, strict=True):
        if outcome.status == "unreadable":
            bad.append(f"{recording.name}: {outcome.reason}")
        else:
            sound.append(replace(recording, seconds=outcome.seconds))
    if bad:
        print(f"left out {len(bad)} of {len(recordings)} recordings:")
        for line in bad[:5]:
            print(f"  {line}")
    assert sound or not recordings, f"none of {len(recordings)} recordings can be read; the first: {bad[0]}"
    return sound


def hours(recordings: Sequence[Recording]) -> float:
    """Length of all recordings together."""
    return sum(recording.seconds for recording in recordings) / 3600


def missing_root(root: Path) -> str:
    """One line for a data root that is not there."""
    return f"no folder {root}; point --data.root at your recordings (`python demo_data.py` makes some to play with)"


if __name__ == "__main__":
    from demo_data import write_field_season

    with tempfile.TemporaryDirectory() as place:
        season = write_field_season(
            Path(place), recordings_per_species=8, unlabeled_recordings=2, soundscape_seconds=20
        )
        data, audio = DataSettings(season.root), AudioSettings()
        taxonomy, recordings = read_labeled(data)
        train, valid = split(recordings, data)
        loader = labeled_loader(train, taxonomy, audio, batch_size=8, seed=0, workers=0)
        first = next(iter(loader))
        species = [taxonomy.labels[int(column)] for column in first.targets.argmax(1)]
        print("a batch", tuple(first.waveforms.shape), "of", species)
        again = next(iter(loader))
        assert torch.equal(first.waveforms, again.waveforms), "the same epoch must give the same windows"
        assert first.targets.sum(dim=1).tolist() == [1.0] * 8
