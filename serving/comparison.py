"""The sound on which a served file is compared with the trained network: windows that were held out, else noise.

    held_out = read_windows(table, facts, most=2000)
    unheard = out_of_fold(classifiers, members)
    contexts, origin = scanned_contexts(classifier, facts, held_out)

Reads    held_out_recordings.csv and training_recordings.csv beside a classifier, and the recordings that they name
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archive.recordings import Recording, read_recordings
from data_loader import recording_contexts, truth_table
from evaluation.blending import pooled
from evaluation.held_out import HELD_OUT, TRAINING
from training.checkpoint import ClassifierFacts

Segment = tuple[Path, float | None, float | None]  # of a recording: start and end, where it is labelled
OF_EACH = 4  # contexts of a training recording at most, where many recordings count
SCANNED = 32  # contexts in which outliers are looked for and the cost of each product is measured


@dataclass(frozen=True)
class ComparedWindows:
    """What the files are compared on."""

    contexts: NDArray[np.float32]  # (contexts, samples)
    rows: NDArray[np.int64]  # (windows,) which of the answers to the contexts are of new windows
    owner: NDArray[np.int64]  # (windows,) index of the recording
    truth: NDArray[np.float32]  # (recordings, species)
    groups: NDArray[np.str_]  # (recordings,) what is alike
    listed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # (recordings,) index among those
    # that were given


@dataclass(frozen=True)
class OutOfFold:
    """Recordings that were held out of one member, at least, of each group, which answers for them there.

    Members with the same network are one group, as its folds, where no recording was held out of two of them; any other
    member is a group of its own. So with a group for each member these are the recordings held out of all.
    """

    group: tuple[int, ...]  # (members,)
    rows: Sequence[Recording]
    member: NDArray[np.int64]  # (recordings, groups) index of the member that did not hear the recording

    @property
    def has_folds(self) -> bool:
        """Whether some members are folds of one network, so that each recording was heard by some of them."""
        return len(set(self.group)) < len(self.group)


def read_windows(table: Path, facts: ClassifierFacts, most: int, most_of_each: int = 0) -> ComparedWindows:
    """About `most` windows of the recordings that a table beside a classifier names, as training judged them, as far as
    they are still there; else noise, and no truth.

    most_of_each   contexts of each recording at most; 0 is all
    """
    return windows_of(present_rows(table), facts, most, most_of_each)


def windows_of(
    listed: Sequence[Recording], facts: ClassifierFacts, most: int, most_of_each: int = 0
) -> ComparedWindows:
    """The same of recordings that are there."""
    labels, audio = facts.taxonomy.labels, facts.audio
    windows = round(audio.context_seconds / audio.window_seconds)
    order: list[int] = np.random.default_rng(0).permutation(len(listed)).tolist()  # tables are often sorted by species
    contexts, rows, owner = list[NDArray[np.float32]](), list[int](), list[int]()
    used, taken = dict[int, int](), Counter[int]()  # by position in `order`: the recording's number here, its contexts
    for context in recording_contexts([listed[index] for index in order], audio):
        if len(owner) >= most:
            break
        taken[context.owner] += 1
        if most_of_each and taken[context.owner] > most_of_each:
            continue
        number = used.setdefault(context.owner, len(used))
        rows += [len(contexts) * windows + row for row in context.rows]
        owner += [number] * len(context.windows)
        contexts.append(context.samples)
    if not contexts:
        return noise_windows(facts)
    indices = [order[position] for position in used]
    groups = np.array([listed[index].group or str(listed[index].path) for index in indices])
    truth = truth_table(listed, labels, audio)[indices]
    return ComparedWindows(np.stack(contexts), np.array(rows), np.array(owner), truth, groups, np.array(indices))


def present_rows(table: Path) -> list[Recording]:
    """The recordings that a table names and that are there; none where the table is not."""
    return [row for row in read_recordings(table) if row.path.is_file()] if table.is_file() else []


def segment_of(row: Recording) -> Segment:
    """What tells a recording, or a labelled segment of one, from all others."""
    return row.path.resolve(), row.start, row.end


def out_of_fold(classifiers: Sequence[Path], networks: Sequence[object]) -> OutOfFold:
    """Which member of an ensemble answers for which recording, as the tables beside the members say.

    networks   what is equal for members that may be folds of one
    """
    tables = [{segment_of(row): row for row in present_rows(path.with_name(HELD_OUT))} for path in classifiers]
    groups, number = list[tuple[object, dict[Segment, int]]](), list[int]()
    for member, (table, network) in enumerate(zip(tables, networks, strict=True)):
        own = dict.fromkeys(table, member)
        fitting = (
            n
            for n, (kind, unheard) in enumerate(groups)
            if kind == network and unheard and unheard.keys().isdisjoint(own)
        )
        number.append(next(fitting, len(groups)) if own else len(groups))
        if number[-1] == len(groups):
            groups.append((network, own))
        else:
            groups[number[-1]][1].update(own)
    every = {segment: row for table in tables for segment, row in table.items()}
    common = [segment for segment in every if all(segment in unheard for _, unheard in groups)]
    member_of = [[unheard[segment] for _, unheard in groups] for segment in common]
    answering = np.array(member_of, np.int64).reshape(len(common), len(groups))
    return OutOfFold(tuple(number), [every[segment] for segment in common], answering)


def noise_windows(facts: ClassifierFacts) -> ComparedWindows:
    """What is compared on where there are no recordings: nothing is known to be in it."""
    audio = facts.audio
    windows, samples = (
        round(audio.context_seconds / audio.window_seconds),
        round(audio.context_seconds * audio.sample_rate),
    )
    contexts = np.random.default_rng(0).normal(0, 0.1, (SCANNED, samples)).astype(np.float32)
    rows, truth = np.arange(SCANNED * windows), np.zeros((0, len(facts.taxonomy.labels)), np.float32)
    return ComparedWindows(contexts, rows, np.zeros(len(rows), np.int64), truth, np.zeros(0, np.str_))


def scanned_contexts(
    classifier: Path, facts: ClassifierFacts, held_out: ComparedWindows
) -> tuple[NDArray[np.float32], str]:
    """Contexts (contexts, samples) on which products are judged, and what they are: of training, so that the held-out
    ones judge a file that was not fitted to them; where training's table is missing, held-out ones all the same."""
    windows = round(facts.audio.context_seconds / facts.audio.window_seconds)
    training = read_windows(classifier.with_name(TRAINING), facts, SCANNED * windows, most_of_each=1)
    if len(training.truth):
        return training.contexts[:SCANNED], "training contexts"
    source = "held-out contexts, which judge the file too" if len(held_out.truth) else "contexts of noise"
    return held_out.contexts[:SCANNED], source


def training_windows(
    classifier: Path, facts: ClassifierFacts, most: int
) -> Iterator[tuple[NDArray[np.float32], tuple[int, ...], int]]:
    """Contexts (samples,) of the recordings that a classifier was trained on, as far as they are still there, with the
    rows of their windows and the index of their species: the species in turn, until there are `most` windows."""
    table, index = classifier.with_name(TRAINING), {label: n for n, label in enumerate(facts.taxonomy.labels)}
    rows = [row for row in present_rows(table) if row.labels and row.labels[0] in index]
    turn, order = Counter[str](), list[tuple[int, int]]()
    for number in np.random.default_rng(0).permutation(len(rows)).tolist():
        order.append((turn[rows[number].labels[0]], number))
        turn[rows[number].labels[0]] += 1
    count = 0
    for _, number in sorted(order):
        for context in islice(recording_contexts([rows[number]], facts.audio), OF_EACH):
            if count >= most:
                return
            count += len(context.rows)
            yield context.samples, context.rows, index[rows[number].labels[0]]


def pooled_answers(scores: NDArray[np.float32], held_out: ComparedWindows) -> NDArray[np.float32]:
    """(recordings, species) of the answers to all contexts."""
    return pooled(scores[held_out.rows], held_out.owner, len(held_out.truth))


if __name__ == "__main__":
    import tempfile

    import soundfile

    from archive.recordings import write_recordings
    from config import AudioSettings, HeadSettings
    from taxonomy import Taxonomy

    kin = ("Animalia", "Chordata", "Amphibia", "Anura", "Fictidae", "Rana")
    frogs = Taxonomy(("a", "b"), ("a", "b"), ("a", "b"), ((*kin, "a"), (*kin, "b")), (7, 7))
    facts = ClassifierFacts("demo", AudioSettings(), HeadSettings(), frogs, {})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        soundfile.write(root / "frog.wav", np.random.default_rng(0).normal(0, 0.1, 16_000 * 12), 16_000)
        write_recordings(root / HELD_OUT, [Recording(root / "frog.wav", "frog.wav", ("b",), seconds=12.0)])
        held_out = read_windows(root / HELD_OUT, facts, 10)
        contexts, origin = scanned_contexts(root / "classifier.safetensors", facts, held_out)
    print(f"{len(held_out.owner)} windows of {len(held_out.truth)} recording; products are judged on {origin}")
    assert held_out.truth.tolist() == [[0.0, 1.0]] and len(contexts) == len(held_out.owner) == 3
