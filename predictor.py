"""Stage 4: species probabilities for every 5 seconds of a recording, or of an archive. No torch.

    python predictor.py dawn.ogg
    python predictor.py season-2026/ --out results/
    python predictor.py season-2026/ --out results/ --shard 3/8      # on the third of eight machines

Reads    recordings, folders of them or a recordings.csv; classifier.int8.onnx
Writes   files.csv, detections.csv and the other tables asked for, run.json; for a single recording only where --out is
         given

What is no readable recording becomes a row in files.csv with its reason, and the others go on. A run that was cut off
goes on where it stopped when the same command is given again, in the middle of a long recording too, and ends with the
same tables.
"""

from __future__ import annotations

import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

import csv
import time
from array import array
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
from tqdm import tqdm

from config import Engine, PredictCommand
from evaluation.calibration import MARKS, judged_labels, read_thresholds
from runtime.cells import no_formula, plain_path, score_columns, write_row, write_scores
from runtime.files import publish, read_json
from runtime.runs import Run, open_run, peak_memory_mb
from runtime.terminal import launch
from serving.detections import (
    Analysed,
    Choices,
    Detection,
    Scored,
    TableFacts,
    averaged_shifts,
    clock,
    detect,
    join,
    listing,
    mark,
    smoothed,
    weighted_by_file,
)
from serving.embeddings import Embedded, write_embeddings
from serving.inputs import Entry, find_entries, in_shard, read_shard
from serving.journal import Journal, kept_settings, open_journal
from serving.scorer import Answer, Scorer, cpu_name, open_scorer, stream
from serving.submission import read_sample, write_submission
from serving.tables import write_tables
from sounds.audio import READING, Outcome
from sounds.decoders import Decoder, rows_with_sound
from taxonomy import decoded_text, match_species

MODEL = Path("runs/quantize/classifier.int8.onnx")
LISTED = 40  # detections shown on the terminal
OF_TABLES = ("rtype", "split_tables", "bom", "merge_gap", "shard", "restart", "retry_failed")
NOTHING = ("unreadable", "silent", "short")  # nothing in a recording of such a status was analysed
MIN_CONF = 0.25  # of a model that brings no thresholds
KEPT_SECONDS, MOST_TIME = 20.0, 0.05  # of work between two states of a long recording, and the share keeping may take
DOUBTFUL = {"never": "were never validated", "too few": "were validated on too few recordings"}
KINDS = {"csv": "csv", "table": "raven", "audacity": "audacity", "kaleidoscope": "kaleidoscope", "parquet": "parquet"}


Numbers = np.ndarray[tuple[int, ...], np.dtype[np.generic]]


@dataclass(frozen=True)
class Piece:
    """Where the answer to a context belongs."""

    entry: Entry
    channel: int = 0
    shifted: bool = False  # half a step later, for --tta
    windows: tuple[tuple[float, float], ...] = ()  # start and end in seconds
    rows: tuple[int, ...] = ()  # of the answer that belong to them: windows without sound are left out
    outcome: Outcome | None = None  # of the recording, once all of it has been read
    share: float = 0.0  # of the recording that is read with this context, as far as its header is right
    begun: Mapping[str, Numbers] | None = None  # what an earlier run had of the recording; empty: begin anew


@dataclass
class Windows:
    """What was answered to one channel of a recording, window by window, in as little memory as its numbers need."""

    starts: list[float] = field(default_factory=list[float])  # seconds
    ends: list[float] = field(default_factory=list[float])
    probabilities: array[float] = field(default_factory=lambda: array("f"))  # row after row
    embeddings: array[float] = field(default_factory=lambda: array("f"))
    width: int = 0  # of the embeddings
    species: int = 0

    def take(self, piece: Piece, answer: Answer, embeddings: bool) -> None:
        """Add the answer to a context, as far as it is about windows that are new and hold sound."""
        rows = list(piece.rows)
        self.species = answer.probabilities.shape[1]
        self.starts += [start for start, _ in piece.windows]
        self.ends += [end for _, end in piece.windows]
        self.probabilities.frombytes(answer.probabilities[rows].tobytes())
        if embeddings:
            self.embeddings.frombytes(answer.embeddings[rows].tobytes())
            self.width = answer.embeddings.shape[1]

    def arrays(self, rows: int) -> dict[str, Numbers]:
        """The first so many windows, as the journal keeps them."""
        return {
            "starts": np.array(self.starts[:rows], np.float64),
            "ends": np.array(self.ends[:rows], np.float64),
            "probabilities": np.array(self.probabilities[: rows * self.species], np.float32),
            "embeddings": np.array(self.embeddings[: rows * self.width], np.float32),
            "widths": np.array([self.width, self.species]),
        }


Heard = dict[tuple[int, bool], Windows]  # the windows of a recording by channel and, for --tta, whether shifted


class Progress:
    """How far the recording at work is: on the bar, and in the journal, from which a run that is cut off goes on.

    A whole number of batches is kept: which contexts share one decides the last digit of their scores.
    """

    def __init__(self, journal: Journal | None, total: int, batch_size: int) -> None:
        form = "{l_bar}{bar}| {n_fmt}/{total_fmt} {postfix} {elapsed} + {remaining}"
        self.bar: tqdm[None] = tqdm(total=total, unit="B", unit_scale=True, bar_format=form, disable=None, leave=False)
        self.journal, self.batch_size = journal, batch_size
        self.started = self.kept = time.monotonic()
        self.took = 0.0  # to keep the last state
        self.before, self.heard = 0, 0.0  # bytes and seconds of the recordings that are finished
        self.shown = 0  # bytes on the bar
        self.earlier = self.contexts = 0  # of the one at work: answered by an earlier run, and by now
        self.state: tuple[Entry, Heard, int, dict[tuple[int, bool], int]] | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.bar.__exit__(kind, *rest)
        if kind is KeyboardInterrupt:
            self.keep()

    def moved(self, piece: Piece, heard: Heard, contexts: int) -> None:
        """A context has its answer; so many of this recording have."""
        self.earlier, self.contexts = self.earlier if self.contexts else contexts - 1, contexts
        if contexts % self.batch_size == 0:  # one assignment: a signal falls before it or after it
            self.state = piece.entry, heard, contexts, {key: len(mine.starts) for key, mine in heard.items()}
        self.show(piece.entry.size * min(piece.share, 1.0), piece.windows[-1][1] if piece.windows else 0.0)
        if time.monotonic() - self.kept > max(KEPT_SECONDS, self.took / MOST_TIME):
            self.keep()

    def finished(self, entry: Entry, seconds: float) -> None:
        """A recording is done, and the journal has all of it."""
        self.state, self.kept = None, time.monotonic()
        self.before += entry.size
        self.heard += seconds * (1 - self.earlier / max(self.contexts, 1))  # what this run has scored of it
        self.earlier = self.contexts = 0
        self.show(0.0, 0.0)

    def show(self, size: float, seconds: float) -> None:
        heard, elapsed = self.heard + seconds, max(time.monotonic() - self.started, 1e-9)
        self.bar.set_postfix_str(f"{heard / 3600:.1f} h, {heard / elapsed:.0f} x real time", refresh=False)
        more = max(0, self.before + int(size) - self.shown)
        self.shown += more
        self.bar.update(more)

    def keep(self) -> None:
        """What the recording at work has so far, in the journal."""
        if self.journal and self.state:
            started = time.monotonic()
            entry, heard, contexts, rows = self.state
            self.journal.keep_begun(entry, packed(heard, contexts, rows))
            self.kept = time.monotonic()
            self.took = self.kept - started


def packed(heard: Heard, contexts: int, rows: Mapping[tuple[int, bool], int]) -> dict[str, Numbers]:
    """What was answered so far, as flat arrays."""
    arrays: dict[str, Numbers] = {"contexts": np.array([contexts])}
    for (channel, shifted), count in rows.items():
        mine = heard[channel, shifted].arrays(count)
        arrays |= {f"{channel} {int(shifted)} {name}": values for name, values in mine.items()}
    return arrays


def unpacked(arrays: Mapping[str, Numbers]) -> tuple[Heard, int]:
    """The reverse of `packed`; of nothing: nothing is heard yet."""
    heard: Heard = {}
    for name in arrays:
        if name.endswith(" starts"):
            channel, shifted, _ = name.split()
            own = {
                key: arrays[f"{channel} {shifted} {key}"] for key in ("starts", "ends", "probabilities", "embeddings")
            }
            mine = Windows(own["starts"].tolist(), own["ends"].tolist())
            mine.probabilities.frombytes(own["probabilities"].tobytes())
            mine.embeddings.frombytes(own["embeddings"].tobytes())
            mine.width, mine.species = map(int, arrays[f"{channel} {shifted} widths"])
            heard[int(channel), shifted == "1"] = mine
    return heard, contexts_of(arrays)


def contexts_of(arrays: Mapping[str, Numbers] | None) -> int:
    """How many contexts of a recording an earlier run had the answers to."""
    return int(arrays["contexts"][0]) if arrays else 0


def predict(config: PredictCommand) -> int:
    """The whole of stage 4; returns the exit code: 0 all analysed, 1 nothing, 2 some inputs could not be read."""
    assert config.inputs, "no recordings given; for example: python predictor.py dawn.ogg (or a folder)"
    absent = [str(path) for path in config.inputs if not path.exists()]
    assert not absent, f"not found: {', '.join(absent[:5])}"
    with Decoder() as decoder:  # its imports take as long as opening a model does
        scorers = open_models(config)
        check(config, scorers[0])
        choices = choose(config, scorers)
        entries, notes = find_entries(config.inputs, config.site_regex, config.timezone)
        print("\n".join(notes))
        assert entries or config.submission, f"no recordings in {', '.join(map(str, config.inputs))}"
        single = len(entries) == 1 and entries[0].path in config.inputs
        if single and config.out is None and not wants_arrays(config):
            return predict_one(config, scorers, choices, entries[0], decoder)
        return predict_archive(config, scorers, choices, entries, decoder)


def predict_one(
    config: PredictCommand, scorers: Sequence[Scorer], choices: Choices, entry: Entry, decoder: Decoder
) -> int:
    """What is heard in one recording, on the terminal alone."""
    usual = PredictCommand()
    idle = [name for name in OF_TABLES if getattr(config, name) != getattr(usual, name)]
    assert not idle, f"--{idle[0]} is about tables, and one recording is told on the terminal alone: add --out FOLDER"
    started = time.time()
    with Progress(None, entry.size, config.batch_size) as progress:
        ((_, outcome, scored),) = score_entries(scorers, [entry], config, decoder, progress)
    assert outcome.status not in NOTHING, f"{entry.path}: {outcome.reason}"
    analysed = analyse(entry, outcome, scored, scorers[0], choices)
    print("\n".join(listing(analysed.found, LISTED)) or "nothing reaches its threshold")
    if outcome.status != "ok":
        print(f"{outcome.status}: {outcome.reason}")
    print(pace(outcome.seconds, time.time() - started))
    return 0


def predict_archive(
    config: PredictCommand,
    scorers: Sequence[Scorer],
    choices: Choices,
    entries: Sequence[Entry],
    decoder: Decoder,
) -> int:
    """Score what is not yet done, then write the tables of everything."""
    folder = results_folder(config)
    refuse_strangers(config, folder)
    shard, shards = read_shard(config.shard)
    mine = [entry for entry in entries if in_shard(entry.path, shard, shards)]
    arrays = wants_arrays(config)
    facts = settings(config, scorers, choices)
    label = f"{shard}/{shards}" if shards > 1 else ""
    with (  # the journal first: what it refuses must not touch the run.json of the results that are there
        open_journal(folder, facts, arrays, label, config.restart) as journal,
        open_run(
            "predict", config.runs, config, folder, kept="what is scored is kept: the same command goes on"
        ) as run,
    ):
        run.facts.update(model=str(scorers[0].path.resolve()), model_sha256=model_hash(scorers))
        run.facts.update(models=[str(scorer.path) for scorer in scorers], working_directory=str(Path.cwd()))
        run.facts.update(inputs=[str(path.resolve()) for path in config.inputs])
        run.facts.update(engines=[scorer.engine for scorer in scorers])
        run.facts.update(cpu=cpu_name(), int8_known_answers=[scorer.known_answer for scorer in scorers])
        waiting = [entry for entry in mine if not journal.is_done(entry)]
        if config.retry_failed:
            waiting += [entry for entry in mine if journal.is_done(entry) and not journal.is_settled(entry)]
        if len(waiting) < len(mine):
            print(f"resuming: {len(mine) - len(waiting)} of {len(mine)} recordings are done already")
        for entry in (entry for entry in waiting if journal.has_begun(entry)):
            print(f"resuming in the middle of {entry.path}")
        print(f"results go to {folder}; if this is stopped, the same command goes on where it was")
        score_waiting(config, scorers, choices, waiting, journal, decoder)
        run.facts.update(decoder_peak_memory_mb=peak_memory_mb(decoder.process.pid))
        if shards > 1:
            statuses = Counter(one.status for one in journal.recall(mine))
            assert statuses.total() == len(mine), (
                f"{len(mine) - statuses.total()} of the {len(mine)} recordings of this shard are not in {folder}; was "
                "something removed from its folder .parts meanwhile? the same command once more mends that"
            )
            told = ", ".join(f"{number} {status}" for status, number in statuses.items())
            print(f"shard {label}: {len(mine)} of {len(entries)} recordings are done ({told or 'none is its own'});")
            print("when all shards are, the same command without --shard writes the tables")
            return 2 if statuses["unreadable"] + statuses["silent"] else 0
        return write_results(config, scorers[0], entries, journal, run)


def refuse_strangers(config: PredictCommand, folder: Path) -> None:
    """Two archives that are called the same must not overwrite each other's results where nobody named a folder."""
    if config.out is not None or not (folder / "run.json").is_file():
        return
    told = read_json(folder / "run.json", "give another --out").get("inputs")
    mine = [str(path.resolve()) for path in config.inputs]
    assert told in (None, mine), (
        f"{folder} holds the results of {', '.join(map(str, told or [])) or 'other recordings'}; give --out a folder "
        "for these"
    )


def wants_arrays(config: PredictCommand) -> bool:
    """Whether more than detections is asked for."""
    return bool(config.scores or config.submission or config.embeddings)


def score_waiting(
    config: PredictCommand,
    scorers: Sequence[Scorer],
    choices: Choices,
    waiting: Sequence[Entry],
    journal: Journal,
    decoder: Decoder,
) -> None:
    """Score recordings and keep what is found, with a bar that knows by their sizes how long the rest will take."""
    started = time.time()
    with Progress(journal, sum(entry.size for entry in waiting), config.batch_size) as progress:
        for entry, outcome, scored in score_entries(scorers, waiting, config, decoder, progress):
            journal.keep(entry, analyse(entry, outcome, scored, scorers[0], choices), scored if journal.arrays else [])
            progress.finished(entry, outcome.seconds)
            assert not (config.fail_fast and outcome.status == "unreadable"), f"{entry.path}: {outcome.reason}"
    if waiting:
        print(pace(progress.heard, time.time() - started))


def score_entries(
    scorers: Sequence[Scorer],
    entries: Iterable[Entry],
    config: PredictCommand,
    decoder: Decoder,
    progress: Progress | None = None,
) -> Iterator[tuple[Entry, Outcome, list[Scored]]]:
    """The windows of every recording and channel, scored. Recordings are read while others are being scored.

    progress   where it is shown and kept how far the recording at work is; what its journal has is not scored again
    """
    heard: Heard = {}
    contexts = 0
    journal = progress.journal if progress else None
    for piece, answer in stream(scorers, pieces(entries, scorers[0], config, decoder, journal), config.batch_size):
        if piece.begun is not None:
            heard, contexts = unpacked(piece.begun)
        if answer is not None:
            mine = heard.setdefault((piece.channel, piece.shifted), Windows())
            mine.take(piece, answer, wants_arrays(config))
            contexts += 1
            if progress:
                progress.moved(piece, heard, contexts)
        if piece.outcome is not None:
            yield (
                piece.entry,
                piece.outcome,
                [finished(heard, channel, scorers[0], config) for channel in channels(config, piece.outcome)],
            )
            heard, contexts = {}, 0


def pieces(
    entries: Iterable[Entry],
    scorer: Scorer,
    config: PredictCommand,
    decoder: Decoder,
    journal: Journal | None = None,
) -> Iterator[tuple[Piece, np.ndarray[tuple[int], np.dtype[np.float32]] | None]]:
    """The contexts of all recordings, one after the other; behind each recording what became of it, without a sound.

    Of a recording that an earlier run had begun, what the journal has of it comes first, and contexts that are answered
    there are left out: it is decoded from its beginning, so that every other context is what it would have been.
    """
    for entry in entries:
        begun = journal.recall_begun(entry) if journal else None
        if begun is not None:
            yield Piece(entry, begun=begun), None
        outcome, count = yield from contexts_behind(contexts_of(begun), entry, scorer, config, decoder)
        if count < contexts_of(begun):  # it could be read further then: what is told must be of one reading
            yield Piece(entry, begun={}), None
            outcome, _ = yield from contexts_behind(0, entry, scorer, config, decoder)
        yield Piece(entry, outcome=outcome), None


def with_silent_channels(outcome: Outcome | None, silent: Mapping[int, Outcome]) -> Outcome:
    """How a recording went of which some channels hold no sound, or all."""
    if outcome is None:
        return next(iter(silent.values()))
    numbers = ", ".join(map(str, silent))
    told = f"no sound for a while in channel {numbers}, use another one"
    return replace(outcome, reason="; ".join(filter(None, [outcome.reason, told]))) if silent else outcome


def contexts_behind(
    answered: int, entry: Entry, scorer: Scorer, config: PredictCommand, decoder: Decoder
) -> Generator[tuple[Piece, np.ndarray[tuple[int], np.dtype[np.float32]] | None], None, tuple[Outcome, int]]:
    """The contexts of a recording without the first `answered`; returns what became of it, and how many there were."""
    audio, count, number = scorer.audio, 0, 0
    outcome: Outcome | None = None
    silent: dict[int, Outcome] = {}
    begins = (0.0, (audio.window_seconds - config.overlap) / 2) if config.tta else (0.0,)
    remaining = [1] if config.channel == "each" else channels(config)
    while remaining:
        channel = remaining.pop(0)
        for begin in begins:
            recording = decoder.open(entry.path, audio.sample_rate, channel, config.shortest)
            geometry = (audio.context_seconds, audio.window_seconds, config.overlap, begin)
            for heard, windows in recording.contexts(*geometry):
                count += 1
                if count > answered:
                    reading = recording.reading
                    passes = len(begins) * (reading.channels if config.channel == "each" else 1)
                    share = heard.end * reading.sample_rate / reading.claimed if reading.claimed else 0.0
                    share = (number + min(share, 1.0)) / max(passes, 1)
                    rows = rows_with_sound(heard.samples, windows, audio, config.shortest)
                    mine = tuple(windows[row] for row in rows)
                    yield Piece(entry, channel, begin > 0, mine, rows, share=share), heard.samples
            if outcome is None and not silent:
                remaining += [other for other in channels(config, recording.outcome) if other > channel]
            number += 1
            if recording.outcome.status == "silent":
                silent[channel] = recording.outcome
            else:
                outcome = worse(outcome, recording.outcome)
    assert outcome or silent, f"--channel {config.channel} names no channel"
    return with_silent_channels(outcome, silent), count


def worse(before: Outcome | None, now: Outcome) -> Outcome:
    """How a recording went that was read several times: what was missing once is missing in its rows."""
    if before is None or (now.status == "ok" and now.seconds >= before.seconds):
        return before or now
    if before.status != "ok" and now.seconds >= before.seconds:
        return before
    seconds = min(before.seconds, now.seconds)
    return replace(before, status="salvaged", seconds=seconds, reason=f"read again: {now.reason}")


def channels(config: PredictCommand, outcome: Outcome | None = None) -> list[int]:
    """The channels to be heard of a recording, counted from 1; 0 is the mean of all."""
    if config.channel == "each":
        return list(range(1, 1 + (outcome.channels if outcome else 1)))
    return [0 if config.channel == "mean" else int(config.channel)]


def finished(
    heard: Heard,
    channel: int,
    scorer: Scorer,
    config: PredictCommand,
) -> Scored:
    """One channel of a recording: its windows in order, averaged and weighted as asked."""
    scored = in_order(heard.get((channel, False), Windows()), channel, scorer)
    if config.tta:
        scored = averaged_shifts(scored, in_order(heard.get((channel, True), Windows()), channel, scorer))
    if config.smooth:
        scored = replace(scored, probabilities=smoothed(scored.probabilities))
    if config.file_weight:
        scored = replace(scored, probabilities=weighted_by_file(scored.probabilities))
    return scored


def in_order(heard: Windows, channel: int, scorer: Scorer) -> Scored:
    """Windows in the order of time; those of contexts that take turns are not."""
    shape = len(heard.starts), len(scorer.taxonomy.labels)
    probabilities = np.frombuffer(heard.probabilities, np.float32).reshape(shape)
    embeddings = np.frombuffer(heard.embeddings, np.float32).reshape(shape[0], heard.width)
    order = sorted(range(shape[0]), key=heard.starts.__getitem__)
    if order == list(range(shape[0])):  # what is in order need not be copied
        return Scored(heard.starts, heard.ends, probabilities, embeddings, channel)
    starts, ends = ([times[row] for row in order] for times in (heard.starts, heard.ends))
    return Scored(starts, ends, probabilities[order], embeddings[order], channel)


def analyse(entry: Entry, outcome: Outcome, scored: Sequence[Scored], scorer: Scorer, choices: Choices) -> Analysed:
    """What the tables will say of a recording."""
    found = [one for part in scored for one in detect(part, scorer.taxonomy, choices, entry.recorded_at)]
    return Analysed(
        str(entry.path),
        entry.site,
        entry.recorded_at,
        outcome.sample_rate,
        outcome.channels,
        outcome.claimed_seconds,
        outcome.seconds - outcome.silent_seconds,
        sum(len(part.starts) for part in scored),
        outcome.status,
        outcome.reason,
        entry.size,
        entry.mtime_ns,
        tuple(sorted(found, key=lambda one: one.start)),
        latitude=entry.latitude,
        longitude=entry.longitude,
        make=entry.make,
        serial=entry.serial,
        temperature=entry.temperature,
        seconds_silent=outcome.silent_seconds,
    )


def write_results(config: PredictCommand, scorer: Scorer, entries: Sequence[Entry], journal: Journal, run: Run) -> int:
    """All tables, and what they say in short."""
    statuses: Counter[str] = Counter()
    heard: dict[str, Tally] = {}
    troubles: list[str] = []
    hours, silent, count = 0.0, 0.0, 0

    def watched() -> Iterator[Analysed]:
        nonlocal hours, silent, count
        for one in journal.recall(entries):
            statuses[one.status] += 1
            hours += one.seconds_analysed / 3600
            silent += one.seconds_silent / 3600
            count += len(one.found)
            tally(heard, one)
            if one.status != "ok" and len(troubles) < LISTED:
                troubles.append(f"{one.file}: {one.status}, {one.reason}")
            yield one if config.merge_gap is None else replace(one, events=tuple(join(one.found, config.merge_gap)))

    highest = scorer.audio.sample_rate / 2
    facts = TableFacts(scorer.path.name, scorer.audio.window_seconds, config.overlap, highest)
    kinds = [KINDS[kind] for kind in config.rtype]
    events = config.merge_gap is not None
    written = write_tables(run.folder, watched(), facts, kinds, events, config.split_tables, config.bom)
    check_ledger(run.folder / "files.csv", entries)
    written += write_arrays(config, scorer, entries, journal, run.folder)
    print("\n".join(species_table(heard)) or "nothing reaches its threshold")
    print("\n".join(troubles))
    told = ", ".join(f"{number} {status}" for status, number in statuses.items())
    unheard = f" and {silent:.2f} h without sound" if silent >= 0.005 else ""
    print(f"{len(entries)} recordings ({told or 'none'}), {hours:.2f} h{unheard}, {count} detections")
    run.facts.update(recordings=statuses, hours=hours, detections=count)
    print(f"wrote {', '.join(map(str, written))}")
    lost = sum(statuses[status] for status in NOTHING)
    assert not entries or lost < len(entries), (
        f"none of the {len(entries)} recordings could be analysed; files.csv says why"
    )
    return 2 if statuses["unreadable"] + statuses["silent"] else 0


def check_ledger(files: Path, entries: Sequence[Entry]) -> None:
    """Refuse to end unless files.csv has one row for every recording, in their order: none is lost, none twice."""
    with files.open(encoding="utf-8-sig", newline="") as file:
        told = (row["file"] for row in csv.DictReader(file))
        last: Path | None = None
        for entry, name in zip_longest(entries, told):
            due = (
                no_formula(plain_path(str(entry.path))).encode("utf-8", "backslashreplace").decode() if entry else None
            )
            assert entry and due == name and (last is None or last < entry.path), (
                f"{files} should name {due or 'nothing more'} where it names {name or 'nothing'}; was something "
                "removed from its folder .parts meanwhile? the same command once more mends that"
            )
            last = entry.path


def write_arrays(
    config: PredictCommand, scorer: Scorer, entries: Sequence[Entry], journal: Journal, folder: Path
) -> list[Path]:
    """scores.csv, submission.csv and embeddings, where they are asked for."""
    written: list[Path] = []
    by_channel = config.channel == "each"  # else all windows are of one, or of the mean
    if config.scores:
        with publish(folder / "scores.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            write_row(file, score_columns(scorer.taxonomy.labels, by_channel))
            for entry, scored in journal.recall_arrays(entries):
                for one in scored:
                    channel = one.channel if by_channel else None
                    write_scores(file, str(entry.path), one.starts, one.ends, one.probabilities, channel)
        written.append(folder / "scores.csv")
    if config.submission:
        rows = (
            (str(entry.path), scored[0].probabilities) for entry, scored in journal.recall_arrays(entries) if scored
        )
        labels = scorer.taxonomy.labels
        report = write_submission(folder / "submission.csv", read_sample(config.submission), rows, labels)
        print(
            f"submission: {report.rows} rows; {report.filled_rows} of them nobody scored, {len(report.filled_labels)} "
        )
        print(f"labels the model lacks, {len(report.unasked)} windows nobody asked for")
        written.append(folder / "submission.csv")
    if config.embeddings:
        kept = ((entry, one) for entry, scored in journal.recall_arrays(entries) for one in scored if len(one.starts))
        vectors = (Embedded(str(entry.path), one.starts, one.ends, one.embeddings, one.channel) for entry, one in kept)
        write_embeddings(config.embeddings, vectors, scorer.path.name, by_channel)
        written.append(config.embeddings)
    return written


def open_models(config: PredictCommand) -> list[Scorer]:
    """The models, which must agree in what they hear and name."""
    engine = chosen_engine(config)
    scorers = [open_scorer(path, config.threads, engine) for path in config.model or [MODEL]]
    for scorer in scorers:
        print(
            f"model {scorer.path} ({f'{scorer.encoder}, ' if scorer.encoder else ''}{scorer.precision}, "
            f"{len(scorer.taxonomy.labels)} species, "
            f"sha256 {scorer.sha256[:12]}, {scorer.threads} threads, {scorer.engine})"
        )
        if not scorer.verified:
            print("unverified: this model was not compared with the trained network on enough held-out windows")
        same = scorer.taxonomy == scorers[0].taxonomy and scorer.audio == scorers[0].audio
        assert same, (
            f"{scorer.path} and {scorers[0].path} differ in their species or windows; average models that agree"
        )
    return scorers


def chosen_engine(config: PredictCommand) -> Engine:
    """What --engine asks for; `auto` goes on with the engine of the results that are there, which must not be mixed."""
    kept = {} if config.engine != "auto" or config.restart else kept_settings(results_folder(config))
    if not kept:
        return config.engine
    return "openvino" if str(kept["engine"]).startswith("openvino") else "onnxruntime"


def check(config: PredictCommand, scorer: Scorer) -> None:
    """Refuse flags that make no sense, by name."""
    window = scorer.audio.window_seconds
    assert 0 <= config.overlap < window, f"--overlap {config.overlap}: give 0 to less than {window:g} seconds"
    assert config.min_conf is None or 0 <= config.min_conf <= 1, f"--min_conf {config.min_conf}: give 0 to 1"
    assert config.shortest >= 0, f"--shortest {config.shortest}: give seconds, 0 or more"
    assert config.top_n >= 0, f"--top_n {config.top_n}: give a number of species"
    assert config.merge_gap is None or config.merge_gap >= 0, f"--merge_gap {config.merge_gap}: give seconds"
    known = config.channel in ("mean", "each") or (config.channel.isdecimal() and int(config.channel) > 0)
    assert known, f"--channel {config.channel}: give mean, each, or a number from 1"
    assert config.batch_size >= 1, f"--batch_size {config.batch_size}: give 1 or more"
    assert config.batch_size == 1 or scorer.precision != "int8", (
        f"--batch_size {config.batch_size}: INT8 takes one at a time, else scores depend on their neighbours"
    )
    assert not config.strict or config.slist, "--strict is about the lines of --slist; add that, or leave it out"
    assert not config.split_tables or "table" in config.rtype, "--split_tables parts Raven's: add table to --rtype"
    assert not config.submission or (window == 5 and config.overlap == 0 and config.channel != "each"), (
        "--submission wants windows of 5 s without overlap, of one channel or the mean"
    )


def choose(config: PredictCommand, scorers: Sequence[Scorer]) -> Choices:
    """What counts as a detection, from the flags and from what the models bring."""
    taxonomy = scorers[0].taxonomy
    thresholds = np.full(len(taxonomy.labels), MIN_CONF if config.min_conf is None else config.min_conf, np.float32)
    if config.min_conf is None and all(scorer.thresholds.species for scorer in scorers):
        every = [[threshold.applied for threshold in scorer.thresholds.species] for scorer in scorers]
        thresholds = np.array(every).mean(axis=0).astype(np.float32)
        thresholds[thresholds >= 1] = np.inf  # a rounded 1 does not reach what nothing is to reach
    if config.top_n and config.min_conf is None:
        thresholds[:] = 0.0
    validated = validated_species(scorers)
    if config.thresholds:
        for label, threshold in read_thresholds(config.thresholds, model_hash(scorers), taxonomy.labels).items():
            thresholds[taxonomy.labels.index(label)] = threshold if threshold < 1 else np.inf
        for label in judged_labels(config.thresholds).intersection(taxonomy.labels):
            validated[taxonomy.labels.index(label)] = "yes"
    wanted = np.ones(len(taxonomy.labels), np.bool_)
    if config.slist:
        assert config.slist.is_file(), f"--slist {config.slist}: no such file"
        meant, strange = match_species(species_list(config.slist), taxonomy)
        wanted[[column for column in range(len(wanted)) if column not in meant]] = False
        print(
            f"{config.slist}: {len(meant)} species of the model"
            + (f"; not in it: {', '.join(strange)}" if strange else "")
        )
        assert not (strange and config.strict), (
            f"--strict: {len(strange)} lines of {config.slist} are no species of the model"
        )
        assert meant, f"no line of {config.slist} is a species of the model"
    shown = [validated[column] for column in np.flatnonzero(wanted)]
    if doubtful := [f"{shown.count(word)} {said}" for word, said in DOUBTFUL.items() if word in shown]:
        strict = "" if config.min_conf is not None or config.top_n else ", and have strict thresholds"
        print(f"of {len(shown)} species {' and '.join(doubtful)}: they are marked in every table{strict}")
    return Choices(thresholds, wanted, config.top_n, scorers[0].thresholds.ranks if config.ranks else {}, validated)


def validated_species(scorers: Sequence[Scorer]) -> list[str]:
    """(species,) whether each was validated; of several models the worst counts, and blank where one of them does not
    say."""
    unsaid = [""] * len(scorers[0].taxonomy.labels)
    told = [[limit.validated for limit in scorer.thresholds.species] or unsaid for scorer in scorers]
    return [max(each, key=MARKS.index) if all(each) else "" for each in zip(*told, strict=True)]


def species_list(path: Path) -> list[str]:
    """The lines of a list that people write in any editor."""
    lines, encoding = decoded_text(path.read_bytes())
    if encoding:
        print(f"{path} is not in UTF-8, read as {encoding}")
    return lines.splitlines()


def settings(config: PredictCommand, scorers: Sequence[Scorer], choices: Choices) -> dict[str, object]:
    """All that changes what is found; formats, threads and verbosity do not."""
    names = (
        "overlap",
        "shortest",
        "channel",
        "tta",
        "smooth",
        "file_weight",
        "top_n",
        "ranks",
        "site_regex",
        "timezone",
        "batch_size",
    )
    taxonomy = scorers[0].taxonomy
    found: dict[str, object] = {name: getattr(config, name) for name in names}
    return found | {
        "reading": READING,
        "model": model_hash(scorers)[:16],
        "engine": " + ".join(dict.fromkeys(scorer.engine for scorer in scorers)),
        "thresholds": {label: f"{limit:.6g}" for label, limit in zip(taxonomy.labels, choices.thresholds, strict=True)},
        "species": [label for label, wanted in zip(taxonomy.labels, choices.wanted, strict=True) if wanted],
    }


def model_hash(scorers: Sequence[Scorer]) -> str:
    """sha256 of the model, of several all of them."""
    return "+".join(scorer.sha256 for scorer in scorers)


def results_folder(config: PredictCommand) -> Path:
    return config.out or config.runs / "predict" / place_name(config.inputs)


def place_name(inputs: Sequence[Path]) -> str:
    """What a folder of results is called after."""
    name = inputs[0].resolve().name or "root"
    return name if len(inputs) == 1 else f"{name}-and-{len(inputs) - 1}-more"


def pace(seconds: float, elapsed: float) -> str:
    return f"{seconds / 3600:.2f} h in {elapsed:.1f} s: {seconds / max(elapsed, 1e-9):.0f} x real time"


@dataclass
class Tally:
    """What is remembered of a species over a whole archive."""

    name: str
    windows: int
    best: float
    first: str  # where it was heard first
    validated: str = ""


def tally(heard: dict[str, Tally], analysed: Analysed) -> None:
    """Add the detections of one recording."""
    for one in analysed.found:
        mine = heard.setdefault(
            one.label, Tally(one.common_name, 0, 0.0, first_heard(one, analysed.file), one.validated)
        )
        mine.windows += 1
        mine.best = max(mine.best, one.confidence)


def first_heard(one: Detection, file: str) -> str:
    return one.detected_at or f"{Path(file).name} {clock(one.start)}"


def species_table(heard: Mapping[str, Tally]) -> list[str]:
    """What was heard in an archive, the species heard most first."""
    if not heard:
        return []
    lines = [f"{'species':40}{'windows':>9}{'best':>7}  first heard"]
    for mine in sorted(heard.values(), key=lambda species: species.windows, reverse=True)[:LISTED]:
        lines.append(f"{mine.name[:39]:40}{mine.windows:9}{mine.best:7.2f}  {mine.first}{mark(mine.validated)}")
    return lines + ([f"... and {len(heard) - LISTED} more"] if len(heard) > LISTED else [])


if __name__ == "__main__":
    launch(predict, PredictCommand)
