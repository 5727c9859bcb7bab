"""An archive -> a table of recordings, checked and split -> batches of windows.

    python data_loader.py --data.root recordings/                  # what is in it? writes recordings.csv, summary.png
    python data_loader.py --data.root recordings/ --cluster local:8      # the same by the workers of a cluster
    python data_loader.py --data.root nights/ --sound bat          # listened to where bats call

    taxonomy, recordings = read_labeled(config.data, heard_by(config.audio))
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

import hashlib
import math
import os
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
from archive.draws import counted_windows, expected_draws, no_call_draws, pseudo_draws, with_neighbours
from archive.duplicates import beside_twins, considered_again, duplicates_of, without_duplicates
from archive.index import with_metadata
from archive.layouts import read_collection
from archive.narrators import with_voices
from archive.recordings import Recording, write_recordings
from archive.segments import draw_segment, evaluated_windows, length_of, shares
from archive.splits import with_folds, with_groups
from archive.summary import draw_summary, hours, summarise
from archive.survey import BIRDS, Band, examine, heard_by, profile_of, with_outcome
from config import (
    SOUNDS,
    AudioSettings,
    CollectionSettings,
    DataSettings,
    LabelledSettings,
    WindowSettings,
    sound_words,
)
from runtime import processes
from runtime.addresses import place
from runtime.cells import write_sheet
from runtime.cluster import read_cluster
from runtime.runs import open_run
from runtime.terminal import command_line, launch, show
from sounds.audio import open_recording
from sounds.discovery import find_recordings
from sounds.negatives import KINDS, negatives_folder, negatives_place
from sounds.negatives import SECONDS as NEGATIVE_SECONDS
from sounds.notes import undo_expansion
from sounds.windows import (
    SHORTEST_SECONDS,
    contexts,
    fill_window,
    holds_sound,
    least_sound,
    network_input,
    rows_with_sound,
)
from taxonomy import Taxonomy, select_labels, table_rows

BAD = ("unreadable", "silent", "missing")
WORST = 10  # bad recordings shown
MOST_ROWS = 2**24  # of segments, whose numbers a float32 still holds exactly
FEW_GROUPS = 4  # for each fold: with fewer, chance would leave folds without any


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
    targets: Tensor  # (batch, species) 1 for the primary label; of pseudo-labels the scores
    secondary: Tensor  # (batch, species) 1 for species that are also there, more or less audibly


def survey(config: SurveyCommand) -> int:
    """The command: look at an archive and write down what it is; returns the exit code."""
    if config.cluster:
        read_cluster(config.cluster)
    archive = read_archive(config.data, heard_by(SOUNDS[config.sound]), config.cluster)
    with open_run("data", config.run.root, config) as run:
        show("\n".join(summarise(archive.recordings, archive.taxonomy, config.data.folds)))
        write_recordings(run.folder / "recordings.csv", archive.recordings)
        twice = duplicates_of(archive.recordings)
        if twice:
            write_recordings(run.folder / "duplicates.csv", twice)
        if archive.taxonomy:
            rows = table_rows(archive.taxonomy)
            write_sheet(run.folder / "taxonomy.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
        draw_summary(archive.recordings, archive.taxonomy, run.folder / "summary.png")
        run.facts.update(statuses=Counter(recording.status for recording in archive.recordings))
    folder = config.run.root / "data"
    show(f"wrote {folder / 'recordings.csv'}, {folder / 'summary.png'}")
    if twice:
        show(
            f"{folder / 'duplicates.csv'} lists what was set aside as a duplicate, each behind what stays; "
            "--data.duplicates keep uses them all the same, a row in keep.csv one of them"
        )
    script = "main.py" if archive.taxonomy else "ssl_mae.py"
    words: list[str | Path] = ["--data.root", folder / "recordings.csv", *sound_words(config.sound)]
    show(f"next: {command_line(script, *words)}")
    return 2 if any(recording.status in BAD for recording in archive.recordings) else 0


def read_archive(data: CollectionSettings, band: Band = BIRDS, cluster: str = "") -> Archive:
    """All rows of a data root: every file listened to once, duplicates set aside, groups and folds drawn.

    band      that the network hears
    cluster   whose workers listen, if any do
    Errors: a missing or malformed table is refused with its line and the remedy; so is an archive of which more than
    --data.max_bad cannot be used. Single recordings that cannot be used stay in the table with a reason.
    """
    data = replace(data, root=place(data.root))
    assert data.root.exists(), missing_root(data.root)
    undo_expansion(data.time_expansion)
    collection = read_collection(data)
    rows, doubtful = with_metadata(collection.recordings)
    rows, aside = considered_again(rows)
    for note in (*collection.notes, *doubtful):
        show(note)
    own_times = {row.path for row in rows if row.start is not None or (row.keep and not row.voices)}
    with processes.first_on_each_machine():
        examined = examine(sorted({row.path for row in rows if row.sound}), band, cluster=cluster)
    rows = [with_outcome(row, examined[row.path]) if row.sound else row for row in rows]
    refuse_too_bad(rows, data.max_bad)
    with processes.first_on_each_machine():
        rows, pairs = without_duplicates(rows, examined, own_times, data.duplicates == "keep", band)
    rows = with_groups(beside_twins(rows, pairs, aside), pairs, data.folds)
    if data.voices != "off":
        with processes.first_on_each_machine():
            rows = with_voices(rows, cut=data.voices == "skip")
    assert [row.path for row in rows] == [row.path for row in collection.recordings], (
        f"of {len(collection.recordings)} rows {len(rows)} are left; each should be here once"
    )
    return Archive(collection.taxonomy, with_folds(rows, data))


def read_labeled(data: LabelledSettings, band: Band = BIRDS) -> tuple[Taxonomy, list[Recording]]:
    """The species with enough recordings, in the order of the taxonomy, and their usable recordings. What somebody has
    checked and found without a species is among these, without labels."""
    taxonomy, rows = read_archive(data, band)
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
    show(f"{len(rows)} recordings of {len(kept)} species, {hours(rows):.2f} h, from {data.root}")
    if isinstance(data, DataSettings) and data.no_call:
        rows += read_noise(data.no_call, data, tuple(sorted({row.fold for row in rows})), band)
    return select_labels(taxonomy, kept), rows


def read_noise(folder: Path, data: DataSettings, folds: tuple[int, ...] = (0,), band: Band = BIRDS) -> list[Recording]:
    """Every recording below a folder that can be used, as one in which somebody found none of the species.

    folds   what they are dealt out to, group by group (a site's day, say): by its name, and thus where it is when
            others come or go; few groups evenly, the fold that is held out last, so that one alone is learnt from
    """
    archive = read_archive(replace(data, root=folder, layout="unlabeled", voices="off"), band)  # they are no animals
    rows = [row for row in archive.recordings if row.sound]
    assert rows, f"no recordings under {folder} can be used; point --data.no_call and --data.noise at sound files"
    show(f"{len(rows)} recordings without a species, {hours(rows):.2f} h, from {folder}")
    order = {row.group: zlib.crc32(row.group.encode()) for row in rows}
    if len(order) < FEW_GROUPS * len(folds):
        folds = tuple(sorted(folds, key=lambda fold: fold == data.valid_fold))
        order = {group: rank for rank, group in enumerate(sorted(order, key=lambda group: (order[group], group)))}
    return [
        replace(row, listened=True, group=f"no call {row.group}", fold=folds[order[row.group] % len(folds)])
        for row in rows
    ]


def synthetic_noise(recordings: Sequence[Recording], audio: AudioSettings) -> list[Recording]:
    """Made-up recordings without any animal, dealt out to the folds of others. A fold holds out whole kinds: a network
    that was trained on some rain is never wrong about more of it, which would say nothing of other noise."""
    with processes.first_on_each_machine():
        folder = negatives_folder(audio.sample_rate)
    folds = sorted({row.fold for row in recordings})
    rows = [
        Recording(
            path,
            f"{folder.name}/{path.name}",
            listened=True,
            group=f"made up {path.stem}",
            fold=folds[list(KINDS).index(path.stem.partition("-")[0]) % len(folds)],
            seconds=NEGATIVE_SECONDS,
        )
        for path in sorted(folder.glob("*.flac"))
    ]
    show(f"{len(rows)} recordings of made-up noise, {hours(rows):.2f} h, from {folder}")
    return rows


def is_synthetic(row: Recording) -> bool:
    """Whether a recording is made-up noise."""
    return not row.labels and row.path.parent.parent == negatives_place()


def read_unlabeled(data: CollectionSettings, band: Band = BIRDS) -> list[Recording]:
    """Everything under a root that can be used, labelled or not, for stage 1; each file once."""
    found = read_archive(data, band).recordings
    once = {row.path: replace(row, start=None, end=None) for row in found if row.sound}
    rows = list(once.values())
    assert rows, f"no recordings under {data.root} can be used; point --data.root at a folder of sound files"
    show(f"{len(rows)} recordings, {hours(rows):.2f} h, from {data.root}")
    return rows


def within_band(recordings: Sequence[Recording], audio: AudioSettings) -> list[Recording]:
    """Those that were recorded at a rate at which there can be anything in the band that the network gets."""
    kept = [row for row in recordings if not row.sample_rate or row.sample_rate > 2 * audio.lowest_hz]
    highest = max((row.sample_rate for row in recordings), default=0)
    assert kept or not recordings, (
        f"none of {len(recordings)} recordings holds anything above {audio.lowest_hz:g} Hz, where the network begins: "
        f"the highest sample rate is {highest} Hz; choose another --sound, or lower --audio.lowest_hz"
    )
    if len(kept) < len(recordings):
        show(
            f"left out {len(recordings) - len(kept)} of {len(recordings)} recordings with sample rates of at most "
            f"{2 * audio.lowest_hz:g} Hz, in which nothing is above --audio.lowest_hz {audio.lowest_hz:g}"
        )
    return kept


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
    show(f"training on {len(train)} recordings, validating on {len(valid)} (fold {data.valid_fold})")
    return train, valid


def labeled_loader(
    recordings: Sequence[Recording],
    taxonomy: Taxonomy,
    data: DataSettings,
    audio: AudioSettings,
    batch_size: int,
    seed: int,
    pseudo: Sequence[Recording] = (),
) -> DataLoader[Batch]:
    """Random windows of recordings in proportion to their length, of rare species more, of common ones less; windows of
    recordings without a species are a share of their own, and so are those whose labels are a classifier's.

    `len` of it is the number of batches in an epoch, the same in every epoch and process.
    """
    windows = np.array([counted_windows(row, audio, data.most_windows) for row in recordings])
    species = np.array([bool(row.labels) for row in recordings])
    made_up = np.array([is_synthetic(row) for row in recordings])
    real = ~species & ~made_up
    expected = np.zeros(len(recordings))
    classes = [row.labels[:1] for row in recordings if row.labels]
    expected[species] = expected_draws(classes, data.balance, data.most_draws, windows[species])
    animals = expected.sum()
    for rows, share in ((real, data.no_call_share), (made_up, data.made_up)):
        expected[rows] = no_call_draws(windows[rows], animals, share, data.most_draws)
    for rows, words in (
        (real, "without a species (--data.no_call_share)"),
        (made_up, "made-up noise (--data.synthetic_noise)"),
    ):
        if rows.any():
            show(f"{expected[rows].sum() / expected.sum():.1%} of the training windows are {words}")
    if pseudo:
        length = expected.sum()
        expected = np.concatenate([expected, expected_pseudo(pseudo, recordings, expected, data, audio)])
        expected *= length / expected.sum() if data.pseudo_place == "taken" else 1.0
    dataset = RandomWindows([*recordings, *pseudo], taxonomy.labels, data, audio, seed)
    return window_loader(dataset, EpochBatches(expected, batch_size, seed), data.workers)


def expected_pseudo(
    pseudo: Sequence[Recording],
    recordings: Sequence[Recording],
    expected: NDArray[np.float64],
    data: DataSettings,
    audio: AudioSettings,
) -> NDArray[np.float64]:
    """How often each window with pseudo-labels is drawn in an epoch, beside recordings with their own `expected`."""
    real: Counter[str] = Counter()
    for row, count in zip(recordings, expected.tolist(), strict=True):
        real.update(dict.fromkeys(row.labels[:1], count))
    draws = pseudo_draws(
        with_neighbours(pseudo, audio.context_seconds),
        real,
        share=data.pseudo_share,
        sites=data.pseudo_sites,
        most=data.most_draws,
        mass=data.pseudo_mass,
        others=float(expected.sum()),
    )
    share = draws.sum() / (draws.sum() + expected.sum())
    held = ", held down by --data.pseudo_mass or --data.most_draws" if share < data.pseudo_share - 0.005 else ""
    show(f"{share:.1%} of the training windows have pseudo-labels (--data.pseudo_share{held})")
    return draws


def unlabeled_loader(
    recordings: Sequence[Recording], data: WindowSettings, audio: AudioSettings, batch_size: int, seed: int
) -> DataLoader[Batch]:
    """Random windows of recordings in proportion to their length; `len` as above."""
    windows = np.array([counted_windows(row, audio, data.most_windows) for row in recordings])
    dataset = RandomWindows(recordings, (), data, audio, seed)
    return window_loader(dataset, EpochBatches(windows, batch_size, seed), data.workers)


def segment_loader(
    rows: Sequence[Recording], data: WindowSettings, audio: AudioSettings, batch_size: int, seed: int
) -> DataLoader[Batch]:
    """Windows around labelled segments, each row once an epoch, but of no recording more than --data.most_windows;
    `len` as above. A batch's targets are (batch, 2): the row's index, the second at which its segment begins.
    """
    assert len(rows) <= MOST_ROWS, f"{len(rows)} segments, and no more than {MOST_ROWS} can be told apart; give fewer"
    many = Counter(row.path for row in rows)
    expected = np.array([min(1.0, data.most_windows / many[row.path]) for row in rows])
    dataset = SegmentWindows(rows, data, audio, seed)
    return window_loader(dataset, EpochBatches(expected, batch_size, seed), data.workers)


def noise_bank(
    folder: Path, audio: AudioSettings, most: int = 400, seed: int = 0, only: Collection[Path] | None = None
) -> Tensor:
    """Windows of all recordings below a folder, to be put under others: (count, samples), 128 MB for 400 of 5 s.

    most   windows, one of each recording in turn; of a long recording any of its first `most`
    only   resolved paths: no other recordings are taken

    Errors: what cannot be read is left out and counted; a folder of nothing else is refused.
    """
    rng, (paths, notes) = np.random.default_rng(seed), find_recordings([folder])
    paths = [path for path in paths if only is None or path.resolve() in only]
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
        show(f"left out {len(bad)} of {len(paths)} recordings below {folder} that cannot be read; {bad[0]}")
    bank = torch.from_numpy(np.stack([samples for windows in kept for samples in windows]))
    show(f"{len(bank)} windows of {len(kept)} recordings to put under others, from {folder}")
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
        for start, end in evaluated_windows(recording, audio):
            if audio.context_seconds == audio.window_seconds:
                first, begin, length = 0, start, length_of(start, end, recording, audio.context_seconds)
            else:  # as much context before as behind, where there is any
                half = round(audio.context_seconds / audio.window_seconds) // 2
                first = min(half, int(start // audio.window_seconds))
                begin, length = start - first * audio.window_seconds, audio.context_seconds
            rate = audio.sample_rate
            samples = samples_of(recording.path, kept, begin, length, rate)
            window = samples[round((start - begin) * rate) :][: round((end - start) * rate)]
            if holds_sound(window, rate, least_sound(worth_a_window(end - start), audio.window_seconds)):
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
        [(row.path, start) for start, _ in evaluated_windows(row, audio)] if row.start is not None else []
        for row in recordings
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
    """What is learnt from and judged by, in a word: the same for the same recordings, segments, labels and scores in
    the same order, in the same parts, with species of the same lineage."""
    facts = [
        [
            (row.name, row.labels, row.seconds, row.start, row.end, row.keep, *row.alive)
            + ((row.site, row.scores) if row.scores else ())  # the site of these decides how often they are drawn
            for row in part
        ]
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
    scores: tuple[float, ...]  # 1 for what somebody labelled


class RandomWindows(Dataset[tuple[NDArray[np.float32], NDArray[np.float32]]]):
    """Key (epoch, number of the draw, index) -> a window of that recording, and its labels (2, species): 1 or, where
    they are a classifier's, its scores.

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
            examined = examine(sorted({recording.path for recording in self.recordings}), heard_by(audio))
            self.profiles = {path: profile_of(examination) for path, examination in examined.items()}
        self.annotations: dict[Path, list[Annotation]] = {}
        for row in self.recordings:
            if row.start is not None and row.end is not None:
                scores = row.scores or (1.0,) * len(row.labels)
                self.annotations.setdefault(row.path, []).append(Annotation(row.start, row.end, row.labels, scores))

    def drawn(self, key: tuple[int, int, int]) -> tuple[Recording, float, float, NDArray[np.float32]]:
        """The recording, start and end in seconds of the window, and its samples, none where it cannot be read."""
        epoch, draw, index = key
        recording, audio = self.recordings[index], self.audio
        rng = np.random.default_rng((self.seed, epoch, draw))
        start, end = draw_segment(recording, audio.context_seconds, self.profiles.get(recording.path), rng)
        seconds = length_of(start, end, recording, audio.context_seconds)
        samples = window_of(recording.path, self.kept, start, seconds, audio.sample_rate)
        if len(samples):
            samples = fill_window(samples, round(audio.context_seconds * audio.sample_rate))
        return recording, start, end, samples

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        recording, start, end, samples = self.drawn(key)
        labels = np.zeros((2, len(self.column)), np.float32)
        for rank, label in enumerate(recording.labels if not recording.scores else ()):
            if label in self.column:
                labels[min(rank, 1), self.column[label]] = 1.0
        for annotation in self.annotations.get(recording.path, []):
            if shares(start, end, annotation.start, annotation.end):
                for label, score in zip(annotation.labels, annotation.scores, strict=True):
                    if label in self.column:
                        labels[0, self.column[label]] = max(labels[0, self.column[label]], score)
        labels[1] *= 1 - labels[0]
        return samples, labels


class SegmentWindows(RandomWindows):
    """Key (epoch, number of the draw, index) -> a window with the segment of that row in it, and in place of labels
    (2, 2) the index and the second of the window at which the segment begins, 0 and that at which its sound ends."""

    def __init__(self, rows: Sequence[Recording], data: WindowSettings, audio: AudioSettings, seed: int) -> None:
        super().__init__(rows, ("index", "begin"), data, audio, seed)
        self.annotations = {}  # of these rows nobody asks for labels

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        row, start, end, samples = self.drawn(key)
        begin, stop = max(0.0, (row.start or 0.0) - start), min(end, row.end or end) - start
        return samples, np.array([[key[2], begin], [0.0, stop]], np.float32)


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


def window_loader(
    dataset: RandomWindows, batches: EpochBatches, workers: int, start_method: str = "forkserver"
) -> DataLoader[Batch]:
    """Batches in their order, read in this process or ahead of it in others, no more than there are cores for."""
    workers = min(workers, len(os.sched_getaffinity(0)))
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
        # of its own: a loader begun in mid-epoch must draw nothing from ours
        generator=torch.Generator().manual_seed(0),
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


def refuse_too_bad(rows: Sequence[Recording], max_bad: float) -> None:
    """Say what cannot be used; stop where it is too much."""
    bad = list({row.path: row for row in rows if row.status in BAD}.values())
    files = len({row.path for row in rows})
    aside = [*bad, *{row.path: row for row in rows if row.status == "short"}.values()]  # a stub is no damage
    if aside:
        show(f"set aside {len(aside):,} of {files:,} recordings:")
        for row in aside[:WORST]:
            show(f"  {row.name}: {row.status}, {row.reason}")
        if len(aside) > WORST:
            show(f"  ... and {len(aside) - WORST:,} more; recordings.csv has them all")
    assert len(aside) < max(files, 1) or not files, (
        f"none of {files} recordings can be used; the first: {aside[0].reason}"
    )
    assert len(bad) <= max_bad * files, (
        f"{len(bad)} of {files} recordings ({len(bad) / files:.0%}) cannot be used, more than --data.max_bad "
        f"{max_bad:g}; mend or remove them, or raise --data.max_bad"
    )


def missing_root(root: Path) -> str:
    """One line for a data root that is not there."""
    return f"no folder {root}; point --data.root at your recordings (`python demo_data.py` makes some to play with)"


if __name__ == "__main__":
    launch(survey, SurveyCommand)
