"""What another network makes of recordings: an ONNX file that takes waveforms, or a table of embeddings it left.

    teacher = open_teacher(Path("perch.onnx"), config.imitation, recordings)
    targets = targets_of(teacher, recordings)        # a row for each of its windows, and what it makes of it

Reads    .onnx; .npz, .parquet or .csv with file, start, end and embedding, as predictor.py and BirdNET-Analyzer write
Writes   /tmp/wildwhisper/teachers: what an ONNX teacher makes of each recording, once; may be deleted at any time

A teacher is somebody else's work: its name and licence are handed on to all that is made with its help.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from archive.cache import cache_path
from archive.index import NameIndex
from archive.licences import shortened
from archive.recordings import Recording, overlaps
from config import SCRATCH, AudioSettings, ImitationSettings, from_facts
from runtime import processes
from runtime.csvs import read_table
from runtime.files import NO_ARRAYS, json_object, read_json, refusing_damage
from runtime.terminal import show
from serving.embeddings import beside
from serving.foreign import EMBEDDINGS, ForeignFile, check_length, open_foreign, output_of
from serving.scorer import METADATA, file_digest, provenance_of, reason
from sounds.audio import OpenRecording, open_recording, reading_version
from sounds.decoders import may_pass
from sounds.windows import contexts

COLUMNS = {  # what is needed of a table, and what it is called there
    "file": ("file", "file_path", "filepath", "filename", "path", "source", "source_id", "recording"),
    "start": ("start", "start_s", "start_time", "begin", "offset", "offset_s"),
    "end": ("end", "end_s", "end_time"),
    "embedding": EMBEDDINGS,
}
TABLES = (".npz", ".parquet", ".csv")
AGAIN = "write it again"  # a table that cannot be read
ROUNDING = 0.01  # seconds
MOST_VALUES = 16_384  # of a vector: all are held in memory at once
MOST_BAD = 0.1  # share of vectors that may be damaged
VERSION = 2  # raise it whenever the same teacher would be asked differently
Times = NDArray[np.float64]  # (windows, 2) start and end in seconds
Vectors = NDArray[np.float32]  # (windows, values)


class Answers(NamedTuple):
    """What a teacher makes of the windows of one recording."""

    times: Times
    vectors: Vectors
    broken: str = ""  # why what could be read this time is not all of it


@dataclass(frozen=True)
class Teacher:
    """Somebody whose embeddings can be had."""

    path: Path
    facts: dict[str, str]  # name, license, sha256
    seconds: float  # of sound that a vector is about
    answers: Callable[[Recording], Answers | None]  # None: nothing is known of this recording
    provenance: Mapping[str, object] = field(default_factory=dict[str, object])  # of a file or table of this project
    knows: Callable[[Recording], bool] = lambda _: True  # whether it can be asked about a recording


@dataclass(frozen=True)
class Targets:
    """What is to be imitated."""

    rows: list[Recording]  # one for each window: its recording, with start and end
    vectors: Vectors  # (rows, values)


def open_teacher(
    path: Path, settings: ImitationSettings, recordings: Sequence[Recording], folder: Path | None = None
) -> Teacher:
    """A teacher, ready to be asked.

    recordings   that a table may speak of
    folder       where the answers of an ONNX teacher are kept, by default below /tmp/wildwhisper
    Errors: a file that is missing, damaged or dangerous, or of which rate, window or output are not known or said twice
    in different ways; a table without a needed column, with vectors of several lengths, or of none of these recordings.
    """
    assert path.is_file(), f"no teacher at {path}; --teacher takes an ONNX file or a table of embeddings"
    if path.suffix == ".onnx":
        return open_file_teacher(path, settings, folder or SCRATCH / "teachers")
    assert path.suffix in TABLES, f"{path}: a teacher is an .onnx file, or a table of embeddings: {', '.join(TABLES)}"
    return open_table(path, settings, recordings)


def targets_of(teacher: Teacher, recordings: Sequence[Recording]) -> Targets:
    """All windows of some recordings of which the teacher has something to say, in their order.

    Errors: when it says nothing of any, or too many of its vectors hold values that are not finite.
    """
    with processes.first_on_each_machine():
        every = asked_of_all(teacher, recordings)
    rows, vectors, damaged, unknown = list[Recording](), list[NDArray[np.float32]](), list[str](), 0
    for recording, answers in zip(recordings, every, strict=True):
        unknown += answers is None
        for (start, end), vector in zip(answers.times, answers.vectors, strict=True) if answers else ():
            if holds_sound(float(start), float(end), recording):
                sound = bool(np.isfinite(vector).all()) and bool(vector.any())
                damaged += [] if sound else [f"{recording.name} at {start:g} s"]
                rows += [replace(recording, start=float(start), end=float(end))] if sound else []
                vectors += [vector] if sound else []
    if damaged:
        show(f"{len(damaged)} vectors of {teacher.path} hold NaN or nothing and are left out: {damaged[0]}, ...")
    assert len(damaged) <= MOST_BAD * (len(rows) + len(damaged)), (
        f"{len(damaged)} of {len(rows) + len(damaged)} vectors of {teacher.path} hold NaN or nothing, such as that of "
        f"{damaged[0]}; compute them again (float16 does not suffice for quiet sound)"
    )
    assert rows, f"{teacher.path} has no vector for any of {len(recordings)} recordings; give a teacher that knows them"
    if unknown:
        show(f"{unknown} of {len(recordings)} recordings are not in {teacher.path}, and are left out")
    return Targets(rows, np.stack(vectors))


def holds_sound(start: float, end: float, recording: Recording) -> bool:
    """Whether half of a window is sound of a recording, or half of the longest sound where all is shorter; of less a
    teacher hears mostly the silence that it was filled up with."""
    sound = sum(last - first for first, last in overlaps(recording.usable, ((start, end),)))
    longest = max((last - first for first, last in recording.usable), default=0.0)
    return sound > 0 and sound >= min(end - start, longest) / 2 - ROUNDING


def asked_of_all(teacher: Teacher, recordings: Sequence[Recording]) -> list[Answers | None]:
    """What a teacher says of each recording; several are asked about at a time.

    Errors: recordings that could not be read to their end this time. What is said of the others is kept, but another
    process, or this run when it is resumed, might read more of these, and would be taught otherwise.
    """
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        work = pool.map(teacher.answers, recordings)
        bar = tqdm(work, teacher.path.name, len(recordings), unit="file", disable=processes.no_bar(), leave=False)
        every = list(bar)
    finally:  # what was answered is kept: the same command goes on from there
        pool.shutdown(cancel_futures=True)
    broken = [(row, said.broken) for row, said in zip(recordings, every, strict=True) if said and said.broken]
    assert not broken, (
        f"{len(broken)} of {len(recordings)} recordings could not be read to their end, {broken[0][0].path} for one: "
        f"{broken[0][1]}; give the same command again, which asks about these alone, or take them away"
    )
    return every


def open_file_teacher(path: Path, settings: ImitationSettings, folder: Path) -> Teacher:
    """A teacher that is an ONNX file."""
    file = open_foreign(path)
    ours = stored_facts(file.metadata, path)
    rate, window, context = geometry(file, ours, settings)
    output = output_of(file, settings.output, EMBEDDINGS, "--imitation.output")
    provenance = provenance_of(ours)
    known = repr((VERSION, reading_version(), file.sha256, rate, window, context, output))
    kept = folder / hashlib.sha256(known.encode()).hexdigest()[:24]
    ask = Network(file, output, rate, window, context, kept)
    facts = facts_of(path, file.metadata, provenance, settings, file.sha256)
    return Teacher(path, facts, window, ask, provenance)


def facts_of(
    path: Path, metadata: Mapping[str, str], provenance: Mapping[str, object], settings: ImitationSettings, sha256: str
) -> dict[str, str]:
    """Name, licence and digest of a teacher: by flags, else as its file says, or the model says that left a table.

    Where flag and file give different licences both are handed on: a flag takes no terms away.
    """
    name = settings.name or metadata.get("name") or metadata.get("model_name") or path.name
    stated = metadata.get("license") or metadata.get("licence") or provenance.get("license")
    said = stated.strip() if isinstance(stated, str) else ""
    given = (settings.license or "").strip()
    both = bool(said and given) and said.casefold() != given.casefold()
    licence = f"{given}; its file says {shortened(said)}" if both else given or said or "unknown"
    return {"name": shortened(name), "license": shortened(licence), "sha256": sha256}


@dataclass(frozen=True)
class Network:
    """An ONNX teacher, called with a recording; what it answered once it is not asked again."""

    file: ForeignFile
    output: str
    rate: int  # Hz
    window: float  # seconds
    context: float  # seconds that it takes at a time, one window or several
    folder: Path  # where answers are kept

    def __call__(self, recording: Recording) -> Answers:
        kept = cache_path(recording.path, self.rate, self.folder).with_suffix(".npz")
        found = kept_answers(kept)
        if found is None:
            sound = open_recording(recording.path, self.rate)
            found = self.computed(sound)
            if may_pass(sound.outcome.reason):
                return found._replace(broken=sound.outcome.reason)
            keep_answers(kept, found)
        return found

    def computed(self, sound: OpenRecording) -> Answers:
        """Its answers to all windows of a recording that hold sound."""
        times, vectors = list[tuple[float, float]](), list[NDArray[np.float32]]()
        count = round(self.context / self.window)
        for context, windows in contexts(sound.waveform(), self.rate, self.context, self.window):
            try:
                (answer,) = self.file.ask(context.samples, [self.output])
            except Exception as error:  # the engine's own errors share no narrower type
                raise AssertionError(f"{self.file.path} cannot be run ({reason(error)}); export it again") from error
            answer = np.atleast_2d(answer)
            assert answer.ndim == 2 and len(answer) == count and answer.shape[1] <= MOST_VALUES, (
                f"{self.file.path} answers {answer.shape} to one piece of sound, not ({count}, values) of at most "
                f"{MOST_VALUES:,} values; name another output with --imitation.output"
            )
            times += windows
            vectors += list(answer[: len(windows)])
        shape = vectors[0].shape if vectors else (0,)
        return Answers(np.array(times, np.float64).reshape(-1, 2), np.array(vectors, np.float32).reshape(-1, *shape))


def kept_answers(kept: Path) -> Answers | None:
    """What was answered before, where that is there and whole."""
    try:
        with np.load(kept) as file:
            return Answers(file["times"], file["vectors"])
    except NO_ARRAYS:
        return None


def keep_answers(kept: Path, answers: Answers) -> None:
    """Write answers for the next time, whole or not at all; a full disk keeps nobody from going on."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".part", dir=kept.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, times=answers.times, vectors=answers.vectors)
            Path(name).replace(kept)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError:
        return


def stored_facts(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What a file of this project says of itself, or a table that was made with one; nothing of those of others."""
    try:
        stored: object = json.loads(metadata.get(METADATA, "{}"))
    except (ValueError, RecursionError) as error:
        raise AssertionError(f"{path}: its facts are damaged ({error}); copy it again") from None
    return cast(dict[str, Any], stored) if isinstance(stored, dict) else {}


def geometry(file: ForeignFile, ours: Mapping[str, Any], settings: ImitationSettings) -> tuple[int, float, float]:
    """Rate in Hz, seconds of a window, seconds that the network takes at a time: by its metadata, its input, or flags,
    which must not contradict each other."""
    path = file.path
    audio = from_facts(AudioSettings, ours["audio"], path) if "audio" in ours else None
    rate_said = audio.sample_rate if audio else said_number(file.metadata, "sample_rate", path)
    window_said = audio.window_seconds if audio else said_number(file.metadata, "window_seconds", path)
    rate = agreed(path, "sample_rate", "Hz", settings.sample_rate, rate_said)
    assert rate, f"{path} does not say at which rate it takes sound; add --imitation.sample_rate"
    window = agreed(path, "window_seconds", "s", settings.window_seconds, window_said) or file.samples / rate
    assert window, f"{path} does not say how much sound it takes at a time; add --imitation.window_seconds"
    context = audio.context_seconds if audio else window
    check_length(file, rate, context, "--imitation.sample_rate or --imitation.window_seconds")
    return round(rate), window, context


def agreed(path: Path, flag: str, unit: str, given: float, said: float) -> float:
    """A number that a flag gives or a file says itself, 0 where neither does."""
    assert not (given and said) or math.isclose(given, said), (
        f"{path} takes {said:g} {unit} by its metadata, and --imitation.{flag} says {given:g}; leave the flag out"
    )
    return given or said


def said_number(metadata: Mapping[str, str], key: str, path: Path) -> float:
    """A number in the metadata, 0 where there is none."""
    text = metadata.get(key, "0")
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    assert number >= 0 and math.isfinite(number), f"{path}: {key} {text[:40]!r} in its metadata is no number"
    return number


class Columns(NamedTuple):
    """A table of embeddings."""

    files: list[str]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]  # NaN where the table does not say
    vectors: Vectors
    said: Mapping[str, str]  # name and license, where it says so
    provenance: Mapping[str, object]  # of the model whose vectors these are, where that is one of this project


def open_table(path: Path, settings: ImitationSettings, recordings: Sequence[Recording]) -> Teacher:
    """A teacher of which only a table of embeddings is there."""
    table = {".npz": npz_columns, ".parquet": parquet_columns, ".csv": csv_columns}[path.suffix](path)
    rows, shape = len(table.files), table.vectors.shape
    assert rows and shape[0] == rows == len(table.starts) == len(table.ends) and len(shape) == 2 and shape[1], (
        f"{path}: {rows} files, {len(table.starts)} starts and embeddings {shape}; one vector for each row is needed"
    )
    assert np.isfinite(table.starts).all() and (table.starts >= 0).all(), f"{path}: a start is no number of seconds"
    assert shape[1] <= MOST_VALUES, f"{path}: vectors of {shape[1]:,} values; {MOST_VALUES:,} at most can be imitated"
    assert settings.window_seconds or np.isfinite(table.ends).all(), (
        f"{path} does not say where its windows end; add --imitation.window_seconds"
    )
    assert settings.sample_rate == 0 and not settings.output, (
        f"{path} is a table: --imitation.sample_rate and --imitation.output are for ONNX files; leave them out"
    )
    own = rows_of_recordings(path, table.files, recordings)
    lengths = {recording.name: recording.seconds for recording in recordings}
    seconds = window_length(path, table, own, lengths, settings.window_seconds)

    def answers(recording: Recording) -> Answers | None:
        found = own.get(recording.name)
        if found is None:
            return None
        starts = table.starts[found]
        return Answers(np.stack([starts, starts + seconds], axis=1), table.vectors[found])

    facts = facts_of(path, table.said, table.provenance, settings, file_digest([path]))
    return Teacher(path, facts, seconds, answers, table.provenance, lambda recording: recording.name in own)


def window_length(
    path: Path, table: Columns, own: Mapping[str, Sequence[int]], lengths: Mapping[str, float], given: float
) -> float:
    """Seconds of sound that each vector is about: all the same, but that those at the end of a recording may be cut
    there, or go on behind it.

    own        the rows of each recording
    lengths    of each recording, seconds
    given      --imitation.window_seconds, or 0
    Errors: windows that contradict themselves, one another, what is given, or the sound they are of.
    """
    rows = np.concatenate([own[name] for name in own])
    sound = np.concatenate([np.full(len(own[name]), lengths[name]) for name in own])
    last = np.concatenate([np.full(len(own[name]), table.ends[own[name]].max()) for name in own])
    starts, ends = table.starts[rows], table.ends[rows]
    seconds = given or float((ends - starts).max())
    firsts = [np.unique(table.starts[own[name]].round(3), return_index=True)[1] for name in own]
    again = np.concatenate(
        [np.isin(np.arange(len(own[name])), first, invert=True) for name, first in zip(own, firsts, strict=True)]
    )
    cut = (ends - starts < seconds) & (ends > last - ROUNDING) & (sound - ends < seconds)
    found = {
        "end before they begin; mend the table": ends <= starts,
        "begin where another of the same recording does; write each once": again,
        "begin long after it ends; the table is of other recordings: ask the teacher again, about these": (
            starts > sound + seconds  # two programs may differ a little in where compressed sound ends
        ),
        f"are not {seconds:g} s long: all windows of a table must be, and as --imitation.window_seconds says; leave "
        "that out, or those windows": (np.abs(ends - starts - seconds) > ROUNDING) & ~cut,
    }
    for words, wrong in found.items():
        first = rows[wrong.argmax()]
        such = f"that from {table.starts[first]:g} s of {table.files[first]}"
        assert not wrong.any(), f"{path}: {wrong.sum()} of {len(rows)} windows, such as {such}, {words}"
    return seconds


def rows_of_recordings(path: Path, files: Sequence[str], recordings: Sequence[Recording]) -> dict[str, list[int]]:
    """Name of a recording -> its rows in the table, in the order of the table."""
    index = NameIndex(recording.name for recording in recordings)
    of_others = index.contested(files, {recording.name: recording.path for recording in recordings})
    names = {file: [] if file in of_others else index.find(file) for file in dict.fromkeys(files)}
    found: dict[str, list[int]] = {}
    for row, file in enumerate(files):
        if len(names[file]) == 1:
            found.setdefault(names[file][0], []).append(row)
    strangers = [file for file, meant in names.items() if len(meant) != 1]
    remedy = "point --data.root at the recordings that the table was made of"
    assert found, (
        f"none of the {len(names)} recordings in {path} is below --data.root, {strangers[0]} for one; {remedy}"
    )
    if strangers:
        show(
            f"{len(strangers)} of {len(names)} recordings in {path} are not below --data.root, or not usable, such as "
            f"{strangers[0]}; their rows are left out"
        )
    return found


def npz_columns(path: Path) -> Columns:
    """A table of numpy's arrays; nothing in it is unpickled."""
    with refusing_damage(path, ".npz of plain arrays", AGAIN), np.load(path) as file:
        arrays: dict[str, NDArray[Any]] = {name: file[name] for name in file.files}
    named = columns_in(path, arrays)
    vectors = arrays[named["embedding"]]
    assert vectors.dtype.kind == "f" and vectors.ndim == 2, (
        f"{path}: its embeddings are {vectors.dtype} {vectors.shape}, not numbers of (rows, values)"
    )
    starts = seconds_column(path, "start", arrays[named["start"]])
    ends = seconds_column(path, "end", arrays[named["end"]]) if "end" in named else np.full(len(starts), np.nan)
    files = names_column(arrays[named["file"]].reshape(-1).tolist())
    texts = (("name", "model"), ("license", "license"), (METADATA, METADATA))
    said = {key: str(arrays[found]) for key, found in texts if found in arrays}
    return Columns(files, starts, ends, vectors.astype(np.float32), said, provenance_of(stored_facts(said, path)))


def parquet_columns(path: Path) -> Columns:
    """A Parquet table whose column of embeddings holds lists of numbers; nothing else reads Parquet here.

    Columns are read as they lie in the file, by nobody's notes of what pandas should make of them.
    """
    from pyarrow import ArrowException  # slow to import, and seldom needed
    from pyarrow.parquet import ParquetFile

    with (
        refusing_damage(path, "Parquet file", AGAIN, ArrowException),
        path.open("rb") as opened,
        ParquetFile(opened) as file,
    ):
        said = parquet_notes(path, file.schema_arrow.metadata or {})
        named = columns_in(path, file.schema_arrow.names)
        table = file.read([*named.values()])
        cells = {key: table.column(name).to_numpy() for key, name in named.items()}
    starts = seconds_column(path, "start", cells["start"])
    ends = seconds_column(path, "end", cells["end"]) if "end" in cells else np.full(len(starts), np.nan)
    files, vectors = names_column(cells["file"].tolist()), vectors_column(path, cells["embedding"].tolist())
    return Columns(files, starts, ends, vectors, said, provenance_of(stored_facts(said, path)))


def parquet_notes(path: Path, metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    """The attributes of a table of pandas: its name and its licence, where somebody noted them.

    Errors: notes that cannot be read, because a licence may stand in them, which is handed on.
    """
    notes = json_object(metadata.get(b"pandas", b"{}"), f"pandas' note in {path}", AGAIN)
    attributes: object = notes.get("attributes", {})
    assert isinstance(attributes, dict), (
        f"pandas' note in {path} is damaged: its attributes are {str(attributes)[:40]!r}, no object; {AGAIN}"
    )
    return {key: str(value) for key, value in cast(dict[str, object], attributes).items()}


def csv_columns(path: Path) -> Columns:
    """BirdNET-Analyzer's layout: the vector is one cell, its numbers parted by commas. Whose vectors they are stands in
    a file beside it, where predictor.py wrote it."""
    rows = [row for _, row in read_table(path, ())]
    named = columns_in(path, rows[0])
    starts = seconds_column(path, "start", [row[named["start"]] for row in rows])
    ends = (
        seconds_column(path, "end", [row[named["end"]] for row in rows])
        if "end" in named
        else np.full(len(rows), np.nan)
    )
    vectors = vectors_column(path, [row[named["embedding"]].strip("[]").split(",") for row in rows])
    note = beside(path)
    facts = read_json(note, "write the table again") if note.is_file() else {}
    said = {"name": str(facts["model"])} if "model" in facts else {}
    return Columns([row[named["file"]] for row in rows], starts, ends, vectors, said, provenance_of(facts))


def columns_in(path: Path, there: Iterable[object]) -> dict[str, str]:
    """What each needed column is called in a table; the end alone may be missing."""
    names = {str(name).casefold(): str(name) for name in there}
    found = {key: names[alias] for key, aliases in COLUMNS.items() for alias in reversed(aliases) if alias in names}
    lacking = [key for key in COLUMNS if key not in found and key != "end"]
    assert not lacking, (
        f"{path} has no column {lacking[0]} (one of {', '.join(COLUMNS[lacking[0]])}); it has {', '.join(names)[:120]}"
    )
    return found


def names_column(cells: Iterable[object]) -> list[str]:
    """A column of names, which some tools write as bytes."""
    return [os.fsdecode(cell) if isinstance(cell, bytes) else str(cell) for cell in cells]


def seconds_column(path: Path, column: str, cells: Any) -> NDArray[np.float64]:
    """A column of seconds: (rows,)."""
    try:
        return np.asarray(cells, np.float64).reshape(-1)
    except (ValueError, TypeError):
        raise AssertionError(f"{path}: a cell of its column {column} is no number of seconds") from None


def vectors_column(path: Path, cells: Sequence[Any]) -> Vectors:
    """A column of lists of numbers: (rows, values)."""
    assert cells, f"{path} has no rows; a teacher needs one for each window"
    lacking = [number for number, cell in enumerate(cells, 1) if not hasattr(cell, "__len__")]
    assert not lacking, (
        f"{path}: {len(lacking)} of {len(cells)} rows have no vector, such as row {lacking[0]}; take them out"
    )
    widths = sorted({len(cell) for cell in cells})
    assert len(widths) == 1 and widths[0] > 0, (
        f"{path}: vectors of {', '.join(map(str, widths[:4]))} values; all of a table must be of the same teacher"
    )
    try:
        return np.array([np.asarray(cell, np.float32) for cell in cells])
    except (ValueError, TypeError):
        raise AssertionError(f"{path}: a cell of its embeddings holds more than numbers") from None


if __name__ == "__main__":
    import onnx
    import soundfile
    from onnx import TensorProto, helper

    with tempfile.TemporaryDirectory() as folder:
        tone = np.sin(2 * np.pi * 440 * np.arange(12_000) / 4_000)
        soundfile.write(Path(folder) / "a.wav", np.concatenate([0.5 * tone[:4_000], 0.1 * tone[:4_000]]), 4_000)
        dawn = Recording(Path(folder) / "a.wav", "a.wav", seconds=2.0)
        nodes = [
            helper.make_node("ReduceL1", ["sound"], ["loudness"], axes=[1]),
            helper.make_node("Concat", ["loudness", "loudness"], ["embedding"], axis=1),
        ]
        sound = helper.make_tensor_value_info("sound", TensorProto.FLOAT, ["batch", 4_000])
        vectors = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 2])
        model = helper.make_model(
            helper.make_graph(nodes, "loudness", [sound], [vectors]),
            opset_imports=[helper.make_opsetid("", 13)],
            ir_version=8,
        )
        helper.set_model_props(model, {"sample_rate": "4000", "license": "CC0"})
        onnx.save(model, Path(folder) / "loudness.onnx")
        teacher = open_teacher(Path(folder) / "loudness.onnx", ImitationSettings(), [dawn], Path(folder))
        targets = targets_of(teacher, [dawn])
    print(teacher.facts["name"], f"({teacher.facts['license']}), windows of {teacher.seconds:g} s:")
    for row, vector in zip(targets.rows, targets.vectors, strict=True):
        print(f"{row.start:g} to {row.end:g} s: {vector.round(1).tolist()}")
    assert targets.vectors.shape == (2, 2) and abs(targets.vectors[0, 0] / targets.vectors[1, 0] - 5) < 0.01
