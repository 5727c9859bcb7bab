"""An archive -> a table of recordings, checked and split -> batches of windows.

    python data_loader.py --data.root recordings/                  # what is in it? writes recordings.csv, summary.png

    taxonomy, recordings = read_labeled(config.data)
    train, valid = split(recordings, config.data)
    for batch in labeled_loader(train, taxonomy, config.data, config.audio, ...): ...

Reads    a folder in any of the layouts that archive/layouts.py knows, or a recordings.csv
Writes   runs/data/: recordings.csv, duplicates.csv, taxonomy.csv, summary.png, run.json

Which window of which recording comes next is a function of (seed, epoch, index), never of a worker or of what came
before. Validation is on the very windows that predictor.py scores.
"""

from __future__ import annotations

import runtime.openmp  # pyright: ignore[reportUnusedImport] - it counts when torch is loaded
import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

from config import SurveyCommand
from runtime.terminal import answer_early

if __name__ == "__main__":
    answer_early(SurveyCommand)  # before torch is imported, which takes seconds

import csv
import hashlib
import math
import signal
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from archive.cache import fill_cache, kept_bytes, samples_of, waveform_of, window_of
from archive.duplicates import same_sounds
from archive.index import is_there, with_metadata
from archive.layouts import read_collection
from archive.recordings import SOUND, Recording, overlaps, write_recordings
from archive.splits import draw_folds, join_groups
from archive.summary import draw_summary, hours, summarise
from archive.survey import Examination, alive_in, examine, profile_of
from config import AudioSettings, CollectionSettings, DataSettings, LabelledSettings, WindowSettings
from runtime import processes
from runtime.files import publish
from runtime.runs import open_run
from runtime.terminal import command_line, launch
from sounds.audio import open_recording
from sounds.discovery import find_recordings
from sounds.windows import SHORTEST_SECONDS, contexts, fill_window, is_alive, network_input, rows_with_sound
from taxonomy import Taxonomy, select_labels, table_rows

BAD = ("unreadable", "silent", "missing")
WORST = 10  # bad recordings shown
CANDIDATES = 8  # windows between which the energy of the sound decides
QUIET_CHANCE = 0.05  # what a window in which nothing stands out still weighs
OVERLAP_SECONDS = 0.5  # a window has a label when they share this much, or half of a shorter annotation
FEW_GROUPS = 4  # for each fold: with fewer, chance would leave folds without any
BLINK = 1e-6  # seconds: rounding
JOINED = " + "  # between the licences of recordings with the same samples


class Archive(NamedTuple):
    """Everything a data root holds."""

    taxonomy: Taxonomy | None  # None: nothing is labelled
    recordings: list[Recording]  # every row, with its group and fold; those set aside have a status and a reason


class Context(NamedTuple):
    """The network's input for several windows of a recording that is evaluated."""

    owner: int  # index of the recording
    samples: NDArray[np.float32]  # (context samples,)
    rows: tuple[int, ...]  # which of its windows are asked for
    windows: tuple[tuple[float, float], ...]  # start and end in seconds of each


class Batch(NamedTuple):
    """The input of one training step."""

    waveforms: Tensor  # (batch, samples) float32
    targets: Tensor  # (batch, species) 1 for the primary label
    secondary: Tensor  # (batch, species) 1 for species that are also there, more or less audibly


def survey(config: SurveyCommand) -> int:
    """The command: look at an archive and write down what it is; returns the exit code."""
    archive = read_archive(config.data)
    with open_run("data", config.run.root, config) as run:
        print("\n".join(summarise(archive.recordings, archive.taxonomy, config.data.folds)))
        write_recordings(run.folder / "recordings.csv", archive.recordings)
        twice = duplicates_of(archive.recordings)
        if twice:
            write_recordings(run.folder / "duplicates.csv", twice)
        if archive.taxonomy:
            rows = table_rows(archive.taxonomy)
            with (
                publish(run.folder / "taxonomy.csv") as temporary,
                temporary.open("w", encoding="utf-8", newline="") as file,
            ):
                table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                table.writeheader()
                table.writerows(rows)
        draw_summary(archive.recordings, archive.taxonomy, run.folder / "summary.png")
        run.facts.update(statuses=Counter(recording.status for recording in archive.recordings))
    folder = config.run.root / "data"
    print(f"wrote {folder / 'recordings.csv'}, {folder / 'summary.png'}")
    if twice:
        print(
            f"{folder / 'duplicates.csv'} lists what was set aside as a duplicate, each behind what stays; "
            "--data.duplicates keep uses them all the same, a row in keep.csv one of them"
        )
    script = "main.py" if archive.taxonomy else "ssl_mae.py"
    print(f"next: {command_line(script, '--data.root', folder / 'recordings.csv')}")
    return 2 if any(recording.status in BAD for recording in archive.recordings) else 0


def read_archive(data: CollectionSettings) -> Archive:
    """All rows of a data root: every file listened to once, duplicates set aside, groups and folds drawn.

    Errors: a missing or malformed table is refused with its line and the remedy; so is an archive of which more than
    --data.max_bad cannot be used. Single recordings that cannot be used stay in the table with a reason.
    """
    assert data.root.exists(), missing_root(data.root)
    collection = read_collection(data)
    rows, doubtful = with_metadata(collection.recordings)
    rows, aside = considered_again(rows)
    for note in (*collection.notes, *doubtful):
        print(note)
    own_times = {row.path for row in rows if row.start is not None or row.keep}
    with processes.first_on_each_machine():
        examined = examine(sorted({row.path for row in rows if row.sound}))
    rows = [with_outcome(row, examined[row.path]) if row.sound else row for row in rows]
    refuse_too_bad(rows, data.max_bad)
    with processes.first_on_each_machine():
        rows, pairs = without_duplicates(rows, examined, own_times, data.duplicates == "keep")
    rows = with_groups(beside_twins(rows, pairs, aside), pairs, data.folds)
    assert [row.path for row in rows] == [row.path for row in collection.recordings], (
        f"of {len(collection.recordings)} rows {len(rows)} are left; each should be here once"
    )
    return Archive(collection.taxonomy, with_folds(rows, data))


def read_labeled(data: LabelledSettings) -> tuple[Taxonomy, list[Recording]]:
    """The species with enough recordings, in the order of the taxonomy, and their usable recordings. What somebody has
    checked and found without a species is among these, without labels."""
    taxonomy, rows = read_archive(data)
    assert taxonomy is not None, (
        f"nothing under {data.root} is labelled; if its folders are named after species, add --data.layout folders"
    )
    rows = [row for row in rows if row.labeled and row.sound]
    counts = Counter(row.labels[0] for row in rows if row.labels)
    kept = [label for label in taxonomy.labels if counts[label] >= max(data.min_recordings, 1)]
    assert kept, f"no species has {data.min_recordings} recordings; lower --data.min_recordings"
    common = set(kept)
    rows = [
        replace(row, labels=tuple(label for label in row.labels if label in common))
        for row in rows
        if not row.labels or row.labels[0] in common
    ]
    print(f"{len(rows)} recordings of {len(kept)} species, {hours(rows):.2f} h, from {data.root}")
    if isinstance(data, DataSettings) and data.no_call:
        rows += read_noise(data.no_call, data, tuple(sorted({row.fold for row in rows})))
    return select_labels(taxonomy, kept), rows


def read_noise(folder: Path, data: DataSettings, folds: tuple[int, ...] = (0,)) -> list[Recording]:
    """Every recording below a folder that can be used, as one in which somebody found none of the species.

    folds   what they are dealt out to, group by group (a site's day, say): by its name, and thus where it is when
            others come or go; few groups evenly, the fold that is held out last, so that one alone is learnt from
    """
    archive = read_archive(replace(data, root=folder, layout="unlabeled"))
    rows = [row for row in archive.recordings if row.sound]
    assert rows, f"no recordings under {folder} can be used; point --data.no_call and --data.noise at sound files"
    print(f"{len(rows)} recordings without a species, {hours(rows):.2f} h, from {folder}")
    order = {row.group: zlib.crc32(row.group.encode()) for row in rows}
    if len(order) < FEW_GROUPS * len(folds):
        folds = tuple(sorted(folds, key=lambda fold: fold == data.valid_fold))
        order = {group: rank for rank, group in enumerate(sorted(order, key=lambda group: (order[group], group)))}
    return [
        replace(row, listened=True, group=f"no call {row.group}", fold=folds[order[row.group] % len(folds)])
        for row in rows
    ]


def read_unlabeled(data: CollectionSettings) -> list[Recording]:
    """Everything under a root that can be used, labelled or not, for stage 1; each file once."""
    once = {row.path: replace(row, start=None, end=None) for row in read_archive(data).recordings if row.sound}
    rows = list(once.values())
    assert rows, f"no recordings under {data.root} can be used; point --data.root at a folder of sound files"
    print(f"{len(rows)} recordings, {hours(rows):.2f} h, from {data.root}")
    return rows


def split(recordings: Sequence[Recording], data: WindowSettings) -> tuple[list[Recording], list[Recording]]:
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
        f"folds are {sorted({recording.fold for recording in recordings})}; choose another, or lower --data.folds"
    )
    print(f"training on {len(train)} recordings, validating on {len(valid)} (fold {data.valid_fold})")
    return train, valid


def labeled_loader(
    recordings: Sequence[Recording],
    taxonomy: Taxonomy,
    data: DataSettings,
    audio: AudioSettings,
    batch_size: int,
    seed: int,
) -> DataLoader[Batch]:
    """Random windows of recordings in proportion to their length, of rare species more, of common ones less; windows of
    recordings without a species are a share of their own.

    `len` of it is the number of batches in an epoch, the same in every epoch and process.
    """
    windows = np.array([counted_windows(row, audio, data.most_windows) for row in recordings])
    species = np.array([bool(row.labels) for row in recordings])
    expected = np.zeros(len(recordings))
    classes = [row.labels[:1] for row in recordings if row.labels]
    expected[species] = expected_draws(classes, data.balance, data.most_draws, windows[species])
    expected[~species] = no_call_draws(windows[~species], expected.sum(), data.no_call_share, data.most_draws)
    if not species.all():
        share = expected[~species].sum() / expected.sum()
        print(f"{share:.1%} of the training windows are without a species (--data.no_call_share)")
    dataset = RandomWindows(recordings, taxonomy.labels, data, audio, seed)
    return window_loader(dataset, EpochBatches(expected, batch_size, seed), data.workers)


def unlabeled_loader(
    recordings: Sequence[Recording], data: WindowSettings, audio: AudioSettings, batch_size: int, seed: int
) -> DataLoader[Batch]:
    """Random windows of recordings in proportion to their length; `len` as above."""
    windows = np.array([counted_windows(row, audio, data.most_windows) for row in recordings])
    dataset = RandomWindows(recordings, (), data, audio, seed)
    return window_loader(dataset, EpochBatches(windows, batch_size, seed), data.workers)


def noise_bank(folder: Path, audio: AudioSettings, most: int = 400, seed: int = 0) -> Tensor:
    """Windows of all recordings below a folder, to be put under others: (count, samples), 128 MB for 400 of 5 s.

    most   windows, one of each recording in turn; of a long recording any of its first `most`

    Errors: what cannot be read is left out and counted; a folder of nothing else is refused.
    """
    rng, (paths, notes) = np.random.default_rng(seed), find_recordings([folder])
    kept, bad = list[list[NDArray[np.float32]]](), list[str]()  # windows of each recording
    for index in rng.permutation(len(paths)):
        recording = open_recording(paths[int(index)], audio.sample_rate)
        windows = [window.samples for window in islice(recording.windows(audio.context_seconds), most)]
        if not windows:
            bad.append(f"{recording.path.name}: {recording.outcome.reason}")
            continue
        kept.append([windows[int(number)] for number in rng.permutation(len(windows))])
        while sum(map(len, kept)) > most:
            max(kept, key=len).pop()
        if len(kept) == most:  # the others would never have their turn
            break
    assert kept, (
        f"nothing to put under the windows below {folder}: {bad[0] if bad else notes[0]}; "
        "point --augment.background at a folder of sound without animals"
    )
    if bad:
        print(f"left out {len(bad)} of {len(paths)} recordings below {folder} that cannot be read; {bad[0]}")
    bank = torch.from_numpy(np.stack([samples for windows in kept for samples in windows]))
    print(f"{len(bank)} windows of {len(kept)} recordings to put under others, from {folder}")
    return bank


def recording_contexts(
    recordings: Sequence[Recording], audio: AudioSettings, kept: Mapping[Path, Path] | None = None
) -> Iterator[Context]:
    """Every window of every recording, as predictor.py reads them, in contexts of several; of a labelled segment those
    that share enough with it, of kept segments what lies within them. Windows without sound are left out, as there.

    kept   where the waveforms of some recordings are kept (`kept_beside`): the same windows within a step of int16,
           without decoding; by default all is decoded, as predictor.py does
    """
    kept = kept or {}
    for index, recording in enumerate(recordings):
        if recording.start is None and not recording.keep:
            shortest = worth_a_window(recording.seconds)
            blocks = waveform_of(recording.path, kept, audio.sample_rate)
            geometry = (audio.sample_rate, audio.context_seconds, audio.window_seconds)
            for context, windows in contexts(blocks, *geometry, shortest=shortest):
                rows = rows_with_sound(context.samples, windows, audio, shortest)
                if rows:
                    yield Context(index, context.samples, rows, tuple(windows[row] for row in rows))
            continue
        for start, end in pieces(recording, audio):
            if audio.context_seconds == audio.window_seconds:
                first, begin, length = 0, start, length_of(start, end, recording, audio.context_seconds)
            else:  # as much context before as behind, where there is any
                half = round(audio.context_seconds / audio.window_seconds) // 2
                first = min(half, int(start // audio.window_seconds))
                begin, length = start - first * audio.window_seconds, audio.context_seconds
            rate = audio.sample_rate
            samples = samples_of(recording.path, kept, begin, length, rate)
            window = samples[round((start - begin) * rate) :][: round((end - start) * rate)]
            if is_alive(window, rate, worth_a_window(end - start)):
                filled = fill_window(network_input(samples, round(length * rate)), round(audio.context_seconds * rate))
                yield Context(index, filled, (first,), ((start, end),))


def worth_a_window(seconds: float) -> float:
    """Seconds of sound without which a recording or segment gets no window: as in predictor.py; in what is shorter
    itself any sound will do, because somebody chose it."""
    return SHORTEST_SECONDS if seconds >= SHORTEST_SECONDS else 0.0


def kept_beside(
    loader: DataLoader[Batch], recordings: Sequence[Recording], audio: AudioSettings, data: DataSettings
) -> dict[Path, Path]:
    """Where the waveforms of held-out recordings are kept, in the room that those of a loader have left."""
    assert isinstance(loader.dataset, RandomWindows), "this loader was not made by data_loader.py"
    room = data.cache_gb - kept_bytes(loader.dataset.kept) / 1e9
    with processes.first_on_each_machine():
        return fill_cache(recordings, audio.sample_rate, data.cache, room)


def truth_table(recordings: Sequence[Recording], labels: Sequence[str], audio: AudioSettings) -> NDArray[np.float32]:
    """(recordings, species): 1 where a recording is labelled with the species, first or among others; a labelled
    segment has the labels of all annotations that share enough with any of its windows, as in training."""
    column = {label: index for index, label in enumerate(labels)}
    windows = [
        [(row.path, start) for start, _ in pieces(row, audio)] if row.start is not None else [] for row in recordings
    ]
    labels_in: dict[tuple[Path, float], set[str]] = {}  # in each window
    for row, own in zip(recordings, windows, strict=True):
        for window in own:
            labels_in.setdefault(window, set()).update(row.labels)
    truth = np.zeros((len(recordings), len(labels)), np.float32)
    for index, (row, own) in enumerate(zip(recordings, windows, strict=True)):
        present = set(row.labels).union(*(labels_in[window] for window in own))
        truth[index, [column[label] for label in present if label in column]] = 1.0
    return truth


def set_epoch(loader: DataLoader[Batch], epoch: int, done: int = 0) -> None:
    """Let a loader know which epoch comes next, and how many of its batches are done already."""
    batches = batches_of(loader)
    batches.epoch, batches.done = epoch, done


def recordings_of(loader: DataLoader[Batch], step: int, batches: int = 1) -> list[str]:
    """The recordings in a batch of this epoch, counted from 1, and in some before it."""
    epoch, first = batches_of(loader), max(1, step - batches + 1)
    assert isinstance(loader.dataset, RandomWindows), "this loader was not made by data_loader.py"
    keys = islice(epoch.keys(), (first - 1) * epoch.size, step * epoch.size)
    return sorted({loader.dataset.recordings[index].name for _, _, index in keys})


def batches_of(loader: DataLoader[Batch]) -> EpochBatches:
    """What decides which windows come next."""
    found = cast(object, loader.batch_sampler)
    assert isinstance(found, EpochBatches), "this loader was not made by data_loader.py"
    return found


def fingerprint(*parts: Sequence[Recording], taxonomy: Taxonomy | None = None) -> str:
    """What is learnt from and judged by, in a word: the same for the same recordings, segments and labels in the same
    order, in the same parts, with species of the same lineage."""
    facts = [
        [(row.name, row.labels, row.seconds, row.start, row.end, row.keep, *row.alive) for row in part]
        for part in parts
    ]
    kin = (taxonomy.labels, taxonomy.lineages, taxonomy.finest) if taxonomy else ()
    return hashlib.sha256(repr((facts, kin)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True)
class Annotation:
    """Which species are in a segment of a recording."""

    start: float
    end: float
    labels: tuple[str, ...]


class RandomWindows(Dataset[tuple[NDArray[np.float32], NDArray[np.float32]]]):
    """Key (epoch, number of the draw, index) -> a window of that recording, and its labels (2, species).

    Everything is decided by (seed, epoch, number of the draw). A labelled segment lies within its window, or the window
    within it; all annotations of the recording that share enough with the window count.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        labels: Sequence[str],
        data: WindowSettings,
        audio: AudioSettings,
        seed: int,
    ) -> None:
        self.recordings = list(recordings)
        self.column = {label: index for index, label in enumerate(labels)}
        self.audio = audio
        self.seed = seed
        with processes.first_on_each_machine():
            self.kept = fill_cache(self.recordings, audio.sample_rate, data.cache, data.cache_gb)
        self.profiles: dict[Path, NDArray[np.float64]] = {}
        if data.window == "energy":
            examined = examine(sorted({recording.path for recording in self.recordings}))
            self.profiles = {path: profile_of(examination) for path, examination in examined.items()}
        self.annotations: dict[Path, list[Annotation]] = {}
        for row in self.recordings:
            if row.start is not None and row.end is not None:
                self.annotations.setdefault(row.path, []).append(Annotation(row.start, row.end, row.labels))

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        epoch, draw, index = key
        recording, audio = self.recordings[index], self.audio
        rng = np.random.default_rng((self.seed, epoch, draw))
        start, end = draw_segment(recording, audio.context_seconds, self.profiles.get(recording.path), rng)
        seconds = length_of(start, end, recording, audio.context_seconds)
        samples = window_of(recording.path, self.kept, start, seconds, audio.sample_rate)
        if len(samples):
            samples = fill_window(samples, round(audio.context_seconds * audio.sample_rate))
        labels = np.zeros((2, len(self.column)), np.float32)
        for rank, label in enumerate(recording.labels):
            if label in self.column:
                labels[min(rank, 1), self.column[label]] = 1.0
        for annotation in self.annotations.get(recording.path, []):
            if shares(start, end, annotation.start, annotation.end):
                labels[0, [self.column[label] for label in annotation.labels if label in self.column]] = 1.0
        labels[1] *= 1 - labels[0]
        return samples, labels


class EpochBatches(Sampler[list[tuple[int, int, int]]]):
    """The batches of one epoch in random order without the first `done` of them: keys (epoch, number of the draw,
    index). Of several processes each has its part of every batch.

    expected  (recordings,) how often each is drawn in an epoch, on average; in every epoch it is drawn that often
              rounded up or down, and all together as often as the sum says
    size      keys in a batch, of all processes together
    """

    def __init__(self, expected: NDArray[np.float64], size: int, seed: int) -> None:
        self.expected, self.size, self.seed, self.epoch, self.done = expected, size, seed, 0, 0

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        keys = islice(self.keys(), self.done * self.size, None)
        while batch := list(islice(keys, self.size)):
            yield batch[processes.span(len(batch))]

    def keys(self) -> Iterator[tuple[int, int, int]]:
        """All of the epoch, of all processes, whatever is done already."""
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.expected))
        reached = np.cumsum(self.expected[order])
        ticks = (rng.random() + np.arange(self.draws)) * (reached[-1] / self.draws)  # systematic sampling
        drawn = order[np.searchsorted(reached, ticks, "right").clip(max=len(order) - 1)]
        for number, index in enumerate(rng.permutation(drawn).tolist()):
            yield self.epoch, number, index

    @property
    def draws(self) -> int:
        """Keys in an epoch."""
        return max(1, round(float(self.expected.sum())))

    def __len__(self) -> int:
        return math.ceil(self.draws / self.size)


def counted_windows(recording: Recording, audio: AudioSettings, most: int) -> float:
    """How many windows a recording counts for in an epoch: as many as what is used of it is long, from 1 to `most`.

    Of a labelled segment that is its length, of kept segments the sum of theirs, without what holds no sound. Windows
    of one recording are alike (one animal, one site, one microphone): beyond some, more of them teach nothing new, and
    the longer a recording that is labelled as a whole, the more of its windows hold none of the animal.
    """
    seconds = sum(end - start for start, end in recording.usable)
    return min(max(1.0, seconds / audio.context_seconds), float(most))


def expected_draws(
    classes: Sequence[tuple[str, ...]], balance: float, most: float, windows: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """How often each recording is drawn in an epoch of as many draws as the recordings have windows.

    classes  per recording what it is to be balanced over
    balance  0: each window once; 1: each class equally often; between: in proportion to (windows of class) ** -balance
    most     no window more often than this; what is cut off goes to the others
    windows  (recordings,) that each counts for; by default one
    """
    counted = np.ones(len(classes)) if windows is None else windows
    sums: dict[tuple[str, ...], float] = {}
    for name, count in zip(classes, counted.tolist(), strict=True):
        sums[name] = sums.get(name, 0.0) + count
    expected: NDArray[np.float64] = counted * np.array([sums[name] ** -balance for name in classes])
    expected *= counted.sum() / expected.sum()
    limit = most * counted
    while (expected > limit + 1e-9).any():
        expected = np.minimum(expected, limit)
        below = expected < limit
        expected[below] *= (counted.sum() - limit[~below].sum()) / expected[below].sum()
    return expected


def no_call_draws(windows: NDArray[np.float64], others: float, share: float, most: float) -> NDArray[np.float64]:
    """How often each recording without a species is drawn in an epoch, in proportion to its windows.

    windows  (recordings,) that each counts for
    others   draws of recordings with species
    share    of all draws, or less where a window would be drawn more than `most` times
    """
    draws: NDArray[np.float64] = windows * min(most, share / (1 - share) * others / max(float(windows.sum()), 1.0))
    return draws


def draw_segment(
    recording: Recording, window_seconds: float, profile: NDArray[np.float64] | None, rng: np.random.Generator
) -> tuple[float, float]:
    """Start and end in seconds of a window of a recording, shorter where the recording or its kept segment is, or what
    holds sound in it.

    profile   (pieces,) how much stands out; of several windows drawn at random one is taken, rather one that stands out
    """
    ranges: list[tuple[float, float, float]] = []  # earliest and latest start, and where it must end
    if recording.start is not None and recording.end is not None:
        for low, high in sound_shared(recording) or ((0.0, recording.seconds),):
            bounds = max(recording.start, low), min(recording.end, high) - window_seconds
            room = max(low, high - window_seconds)
            earliest, latest = (min(max(low, start), room) for start in sorted(bounds))
            ranges.append((earliest, latest, high))
    else:
        for start, end in recording.usable or ((0.0, recording.seconds),):
            ranges.append((start, max(start, end - window_seconds), end))
    weights = np.array([latest - earliest + window_seconds for earliest, latest, _ in ranges])
    count = 1 if profile is None else CANDIDATES
    chosen: list[int] = rng.choice(len(ranges), count, p=weights / weights.sum()).tolist()
    drawn = [(ranges[which], float(rng.random())) for which in chosen]
    starts = [earliest + share * (latest - earliest) for (earliest, latest, _), share in drawn]
    ends = [min(start + window_seconds, limit) for start, ((_, _, limit), _) in zip(starts, drawn, strict=True)]
    which = 0
    if profile is not None and recording.seconds > 0:
        scale = len(profile) / recording.seconds
        stands_out = [
            profile[int(start * scale) : max(int(start * scale) + 1, int(np.ceil(end * scale)))].max(initial=0.0)
            for start, end in zip(starts, ends, strict=True)
        ]
        chances = np.square(np.array(stands_out, np.float64)) + QUIET_CHANCE
        which = int(rng.choice(count, p=chances / chances.sum()))
    return starts[which], max(ends[which], starts[which] + BLINK)


def sound_shared(recording: Recording) -> tuple[tuple[float, float], ...]:
    """What holds sound in a recording, of that what shares enough with its labelled segment."""
    assert recording.start is not None and recording.end is not None, f"{recording.name} has no labelled segment"
    return tuple(part for part in recording.alive if shares(*part, recording.start, recording.end))


def length_of(start: float, end: float, recording: Recording, window_seconds: float) -> float:
    """Seconds to be read for a segment: a whole window where it ends with the recording, so that what is shorter is
    filled once, as the predictor fills it, and not by way of a rounded length."""
    return window_seconds if end >= recording.seconds - BLINK else end - start


def shares(start: float, end: float, first: float, last: float) -> bool:
    """Whether a window and an annotation share enough: half a second, or half of a shorter annotation."""
    return min(end, last) - max(start, first) >= min(OVERLAP_SECONDS, (last - first) / 2) - BLINK


def pieces(recording: Recording, audio: AudioSettings) -> list[tuple[float, float]]:
    """The windows of a labelled segment or of kept segments, start and end in seconds, in the order of time."""
    step, found = audio.window_seconds, list[tuple[float, float]]()
    if recording.start is not None and recording.end is not None:
        for number in range(int(recording.start // step), int(recording.end // step) + 1):
            start, end = number * step, min((number + 1) * step, recording.seconds)
            if start < end and shares(start, end, recording.start, recording.end):
                found.append((start, end))
        return found
    for first, last in overlaps(recording.keep, ((0.0, recording.seconds),)):
        count = max(1, math.ceil((last - first - OVERLAP_SECONDS) / step))
        found += [(first + n * step, min(first + (n + 1) * step, last)) for n in range(count)]
    return [(start, end) for start, end in found if end > start]


def window_loader(
    dataset: RandomWindows, batches: EpochBatches, workers: int, start_method: str = "forkserver"
) -> DataLoader[Batch]:
    """Batches in their order, read in this process or ahead of it in others."""
    samples = round(dataset.audio.context_seconds * dataset.audio.sample_rate)
    return DataLoader[Any](
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=partial(collate, samples=samples, species=len(dataset.column)),
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),  # copied to a GPU while it computes
        multiprocessing_context=start_method if workers else None,
        worker_init_fn=leave_signals_to_the_parent,
        generator=torch.Generator().manual_seed(
            0
        ),  # of its own: a loader begun in mid-epoch must draw nothing from ours
    )


def leave_signals_to_the_parent(_worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the one that trains decides what to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def collate(items: list[tuple[NDArray[np.float32], NDArray[np.float32]]], samples: int, species: int) -> Batch:
    """Windows and labels side by side; windows that could not be read are left out, perhaps all of them."""
    read = [(samples, labels) for samples, labels in items if len(samples)]
    if not read:
        return Batch(torch.zeros(0, samples), torch.zeros(0, species), torch.zeros(0, species))
    waveforms = torch.from_numpy(np.stack([waveform for waveform, _ in read]))
    labels = torch.from_numpy(np.stack([labels for _, labels in read]))
    return Batch(waveforms, labels[:, 0], labels[:, 1])


def of_all(batch: Batch, device: torch.device) -> Batch:
    """The whole batch of which each process has read its part, on the device."""
    whole = Batch(*(processes.gathered(rows.to(device, non_blocking=True)) for rows in batch))
    assert len(whole.waveforms), "none of a batch's recordings can be read any more; is the data root still there?"
    return whole


def considered_again(rows: Sequence[Recording]) -> tuple[list[Recording], set[Path]]:
    """The rows of a table, and the files that it sets aside as duplicates and that are there: whether they still are
    duplicates is for what is asked for today, and for the other rows, to say."""
    aside = {row.path for row in rows if row.status == "duplicate" and is_there(row.path)}
    return [replace(row, status="ok", reason="") if row.path in aside else row for row in rows], aside


def with_outcome(row: Recording, examination: Examination) -> Recording:
    """A row with what listening to its file has shown."""
    seconds, status, reason = examination.seconds, examination.status, examination.reason
    if status == "short" and (row.labels or row.listened) and row.start is None:
        status, reason = "ok", ""  # cut out by somebody, and no stub that a recorder left
    if status in SOUND and row.start is not None and row.start >= seconds:
        status, reason = "refused", f"begins at {row.start:g} s of {seconds:.1f} s; mend the table"
    if status in SOUND and row.keep and not overlaps(row.keep, ((0.0, seconds),)):
        status, reason = "refused", f"keeps nothing of its {seconds:.1f} s; mend keep.csv"
    found = replace(
        row,
        seconds=seconds,
        sample_rate=examination.sample_rate,
        channels=examination.channels,
        alive=alive_in(examination),
        end=min(row.end, seconds) if row.end is not None and status != "refused" else row.end,
    )
    if found.alive and status in SOUND:  # nothing is learnt from a dead microphone
        labelled = found.start is not None and found.end is not None
        if not (sound_shared(found) if labelled else found.usable):
            dead = "holds no sound where it is labelled" if labelled else "holds no sound where it is kept"
            status, reason = "refused" if labelled else "silent", f"{dead}; {reason}"
    return replace(found, status=status, reason=reason)


def refuse_too_bad(rows: Sequence[Recording], max_bad: float) -> None:
    """Say what cannot be used; stop where it is too much."""
    bad = list({row.path: row for row in rows if row.status in BAD}.values())
    files = len({row.path for row in rows})
    aside = [*bad, *{row.path: row for row in rows if row.status == "short"}.values()]  # a stub is no damage
    if aside:
        print(f"set aside {len(aside):,} of {files:,} recordings:")
        for row in aside[:WORST]:
            print(f"  {row.name}: {row.status}, {row.reason}")
        if len(aside) > WORST:
            print(f"  ... and {len(aside) - WORST:,} more; recordings.csv has them all")
    assert len(aside) < max(files, 1) or not files, (
        f"none of {files} recordings can be used; the first: {aside[0].reason}"
    )
    assert len(bad) <= max_bad * files, (
        f"{len(bad)} of {files} recordings ({len(bad) / files:.0%}) cannot be used, more than --data.max_bad "
        f"{max_bad:g}; mend or remove them, or raise --data.max_bad"
    )


def without_duplicates(
    rows: Sequence[Recording],
    examined: Mapping[Path, Examination],
    own_times: Collection[Path] = (),
    keep_all: bool = False,
) -> tuple[list[Recording], list[tuple[Path, Path]]]:
    """One sound, one recording: of several files with the same sound one stays, the labelled before the unlabelled.

    Only equal samples join the labels of several species. Of a sound in two encodings, one is set aside where both have
    the same labels, or it has none; else both stay.

    own_times   files with labelled segments or kept segments, which all stay: their times are their own
    keep_all    all of them stay
    returns     the rows, and the pairs of files that stay though they hold the same sound; no split may part them
    """
    order = {row.path: row for row in sorted(rows, key=lambda row: (not row.labels, not row.labeled, row.name))}
    paths = [path for path, row in order.items() if row.sound]
    pairs = same_sounds(paths, examined)
    settled = set(own_times)  # what is not set aside, or is already
    stays_for: dict[Path, Path] = {}  # what is set aside -> what stays
    for first, second, likeness in sorted(pairs, key=lambda pair: pair.likeness != "equal"):
        stays, goes = paths[first], paths[second]
        if keep_all or likeness == "low" or not settled.isdisjoint((stays, goes)):
            continue
        one, other = order[stays], order[goes]
        if likeness == "same" and other.labels and set(one.labels) != set(other.labels):
            continue
        labels = tuple(dict.fromkeys([*one.labels, *other.labels]))
        licenses = JOINED.join(dict.fromkeys(part for row in (one, other) for part in licenses_of(row)))
        reason = f"the same samples as {one.name}" if likeness == "equal" else f"the same sound as {one.name}"
        if (labels, licenses) != (one.labels, one.license):
            order[stays] = replace(one, labels=labels, license=licenses)
        order[goes] = replace(other, status="duplicate", reason=reason)
        stays_for[goes] = stays
        settled.add(goes)
    for goes, stays in stays_for.items():  # what stays may have been set aside itself, behind another encoding
        while stays in stays_for:
            stays = stays_for[stays]
        if stays != stays_for[goes]:
            order[goes] = replace(order[goes], reason=f"the same sound as {order[stays].name}")
            stays_for[goes] = stays
    count = len(stays_for)
    if count:
        print(f"{count:,} recordings are duplicates of others: set aside")
    changed = {path: order[path] for path in {*stays_for, *stays_for.values()}}
    ends = [[stays_for.get(path, path) for path in (paths[one], paths[other])] for one, other, _ in pairs]
    left = [(one, other) for one, other in ends if one != other]
    return [changed.get(row.path, row) for row in rows], left


def licenses_of(row: Recording) -> list[str]:
    """The licences of a recording, and of its duplicates that an earlier run has set aside."""
    return row.license.split(JOINED) if row.license else []


def beside_twins(
    rows: Sequence[Recording], pairs: Sequence[tuple[Path, Path]], aside: Collection[Path]
) -> list[Recording]:
    """What a table had set aside and is used after all has the group and the fold of what it sounds like, in place of
    the ones in its row, which were of no use before."""
    used = {path for pair in pairs for path in pair if path in aside}
    return [replace(row, group=f"file {row.name}", fold=-1) if row.path in used else row for row in rows]


def duplicates_of(rows: Sequence[Recording]) -> list[Recording]:
    """The rows of recordings that stay, each followed by its duplicates."""
    twins: dict[str, list[Recording]] = {}
    for row in rows:
        if row.status == "duplicate":
            twins.setdefault(row.reason.partition(" as ")[2], []).append(row)
    return [one for row in rows if row.name in twins for one in (row, *twins[row.name])]


def with_groups(rows: Sequence[Recording], pairs: Sequence[tuple[Path, Path]], folds: int) -> list[Recording]:
    """What must stay on one side: one file, one sound, one recording of a collection, one person's day.

    A group that the table gives is taken as it is. Of a person without dates all recordings are one group. Recordings
    that nobody signed go by their site, or by the days of a site where there are too few sites to split.
    """
    sites = {row.site for row in rows if row.site and not row.author}
    by_day = len(sites) < 2 * folds
    same: dict[Path, set[str]] = {}
    for number, (one, other) in enumerate(pairs):
        same.setdefault(one, set()).add(f"~ same sound {number}")
        same.setdefault(other, set()).add(f"~ same sound {number}")
    keys: list[set[str]] = []
    for row in rows:
        if row.group:
            keys.append({row.group, *same.get(row.path, ())})
            continue
        keys_of_row = {f"file {row.name}", *same.get(row.path, ())}
        if row.recording_id:
            keys_of_row.add(f"id {row.recording_id}")
        if row.author:
            keys_of_row.add(f"by {row.author} {row.day}".rstrip())
        elif row.site and (row.day or not by_day):
            keys_of_row.add(f"at {row.site} {row.day if by_day else ''}".rstrip())
        keys.append(keys_of_row)
    return [replace(row, group=group) for row, group in zip(rows, join_groups(keys), strict=True)]


def with_folds(rows: Sequence[Recording], data: CollectionSettings) -> list[Recording]:
    """Every row with a fold: the table's own, or drawn so that groups stay whole and species are spread. One fold for
    all recordings divides nothing, and is no fold.

    Drawn over all labelled recordings that can be used, whatever is left out later, so both stages hold out the same.
    What is not labelled follows its group, or is held out by its group's name.
    """
    labelled = [index for index, row in enumerate(rows) if row.labels and row.sound]
    fold_of = {row.group: row.fold for row in (rows[index] for index in labelled) if row.fold >= 0}
    rows = [replace(row, fold=fold_of.get(row.group, -1)) if row.fold < 0 else row for row in rows]
    given = sum(rows[index].fold >= 0 for index in labelled)
    assert given in (0, len(labelled)), (
        f"{given} of {len(labelled)} labelled recordings have a fold; give all of them one, or none"
    )
    folds_given = {rows[index].fold for index in labelled}
    if given and len(folds_given) == 1:
        print(
            f"all {given} labelled recordings are in fold {folds_given.pop()}, so none could be held out: the column "
            f"fold is not used, {data.folds} folds are drawn"
        )
        rows, given = [replace(row, fold=-1) for row in rows], 0
    fold_of = {row.group: row.fold for row in rows if row.fold >= 0}
    fold_of |= {rows[index].group: rows[index].fold for index in labelled}
    if labelled and not given:
        labels = [rows[index].labels[0] for index in labelled]
        groups = [rows[index].group for index in labelled]
        fold_of = dict(zip(groups, draw_folds(labels, groups, data.folds).tolist(), strict=True))
        if set(fold_of.values()) == {data.folds}:
            print(
                f"{len(fold_of)} groups of labelled recordings cannot be divided into {data.folds} folds, so none can "
                "be held out; lower --data.folds, or give the table a column fold"
            )
    folds = [
        row.fold if row.fold >= 0 else fold_of.get(row.group, zlib.crc32(row.group.encode()) % data.folds)
        for row in rows
    ]
    return [replace(row, fold=fold) for row, fold in zip(rows, folds, strict=True)]


def missing_root(root: Path) -> str:
    """One line for a data root that is not there."""
    return f"no folder {root}; point --data.root at your recordings (`python demo_data.py` makes some to play with)"


if __name__ == "__main__":
    launch(survey, SurveyCommand)
