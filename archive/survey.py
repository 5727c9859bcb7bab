"""Every recording opened once: how long it really is, what is wrong with it, and what it sounds like.

    examined = examine([Path("a.ogg"), Path("b.wav")])            # all decoded, in parallel, with a progress bar
    examined = examine([Path("a.ogg"), Path("b.wav")])            # nothing is read again: path, size, time are the same
    examined = examine([Path("bat.wav")], heard_by(SOUNDS["bat"]))                # listened to where bats call

Writes   /tmp/wildwhisper/examined.sqlite, which may be deleted at any time

Decoding happens in processes of its own: a file that hangs or kills its decoder becomes a row with a reason. No torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from archive.recordings import SOUND, Recording, overlaps
from archive.segments import sound_shared
from config import SCRATCH, AudioSettings
from runtime.addresses import place
from runtime.cluster import alive, kept_open, open_cluster
from runtime.terminal import show
from sounds.audio import open_recording
from sounds.decoders import Decoder, Lost, Message, answer_questions, may_pass
from sounds.notes import assumed_expansion, undo_expansion
from sounds.windows import SHORTEST_SECONDS

VERSION = 5  # raise it whenever an examination says something new about an unchanged file
LEDGER = SCRATCH / "examined.sqlite"
RATE = 16_000  # Hz at which recordings are listened to where birds are wanted
FRAME = 512  # samples
MOST_FRAMES = 4096  # kept of a recording: a long one in a coarser grain
BAND_EDGES = (300, 400, 550, 750, 1000, 1350, 1850, 2500, 3400, 4200, 5200, 6400, 7800)  # Hz, of birds
PRINT_BANDS, PRINT_TIMES = 8, 16  # the bands that recordings of any rate have; pieces of equal length
SHORTEST_PRINT = 1.0  # seconds: of less there is too little to compare
PROFILE_SECONDS, LONGEST_PROFILE = 0.5, 256  # grain of the profile, and the most it holds
SERVE = "from archive import survey; survey.serve_examinations()"  # what a decoding process runs
BAR: Mapping[str, Any] = {"unit": "file", "disable": None, "leave": False, "smoothing": 0.05}
MOST_OF_A_TASK = 16  # recordings that a worker of a cluster is given at a time
MARK = 5  # bytes that distinguish one sound from another: two of a million share one in a handful of archives
SAVE_SECONDS = 2.0  # at most this much work is lost when the survey is stopped


class Band(NamedTuple):
    """At which rate recordings are listened to, and between which pitches; all in Hz. What a network never gets is not
    to decide which windows it is trained on, and which recordings sound alike."""

    rate: int
    lowest: int
    highest: int


BIRDS = Band(RATE, 0, RATE // 2)


@dataclass(frozen=True)
class Examination:
    """What listening to a whole recording has shown."""

    status: str  # as that of an Outcome
    reason: str
    seconds: float  # as decoded
    sample_rate: int  # Hz, of the file
    channels: int
    digest: str  # equal where all samples of all channels are, whatever the container
    fingerprint: str  # hexadecimal int8 (PRINT_BANDS x PRINT_TIMES): much the same for one sound in two encodings
    profile: str  # hexadecimal uint8: how much stands out from the background, in pieces of equal length
    dead: str = ""  # where it holds no sound: 30-61.5;90-93 seconds


def heard_by(audio: AudioSettings) -> Band:
    """What a network of this geometry hears."""
    return Band(audio.sample_rate, round(audio.lowest_hz), round(audio.top_hz))


def examine(paths: Sequence[Path], band: Band = BIRDS, workers: int = 0, cluster: str = "") -> dict[Path, Examination]:
    """An examination of every path, taken from the ledger where path, size and time have not changed since.

    band      where fingerprints and profiles are taken; of each band the ledger has examinations of its own
    workers   processes that decode; 0: one for each core
    cluster   whose workers do it instead, if any do; what they find is noted down here
    Errors: none; whatever a file does, it becomes an examination with a reason.
    """
    with closing(open_ledger(band)) as ledger:
        stamps = {path: file_stamp(path) for path in paths}
        looked_up = {path: look_up(ledger, path, mark, band) for path, mark in stamps.items()}
        known = {path: found for path, found in looked_up.items() if found is not None}
        missing = [path for path in stamps if path not in known]
        if missing:
            fresh = dict[Path, Examination]()
            saved = time.monotonic()
            results = (
                decode_there(missing, band, cluster)
                if cluster
                else decode_all(missing, workers or os.cpu_count() or 1, band)
            )
            with closing(results):  # whoever stops listening stops the work
                try:
                    for path, examination in tqdm(results, "listening", len(missing), **BAR):
                        known[path] = fresh[path] = examination
                        if time.monotonic() - saved > SAVE_SECONDS:
                            note_down(ledger, fresh, stamps, band)
                            fresh, saved = {}, time.monotonic()
                finally:
                    note_down(ledger, fresh, stamps, band)
            assert known.keys() == stamps.keys(), f"{len(stamps.keys() - known.keys())} recordings were lost on the way"
            before = len(known) - len(missing)
            show(f"listened to {len(missing):,} recordings" + (f"; {before:,} were known before" if before else ""))
    return known


def sound_marks(paths: Sequence[Path], band: Band = BIRDS, before: Sequence[str] = ()) -> str:
    """Which sounds these are, in few letters: `sounds_marked` knows them again under any name and in any folder, for
    recorders of a network give their files the same names.

    before   what was written of others, which are added
    """
    own = {bytes.fromhex(found.digest)[:MARK] for found in examine(sorted(set(paths)), band).values() if found.digest}
    return b"".join(sorted(own.union(*map(marks_in, before)))).hex()


def sounds_marked(paths: Sequence[Path], written: str, band: Band = BIRDS) -> list[Path]:
    """The recordings with a sound that is among what `sound_marks` wrote."""
    known, examined = marks_in(written), examine(sorted(set(paths)), band) if written else {}
    return [path for path, found in examined.items() if found.digest and bytes.fromhex(found.digest)[:MARK] in known]


def marks_of(provenance: Mapping[str, object]) -> list[str]:
    """What the provenance of a file has of such marks, of an ensemble's members too: what it, or what went into it, was
    trained on."""
    members = provenance.get("members")
    every: list[object] = [provenance, *(cast(list[object], members) if isinstance(members, list) else [])]
    found = [cast(dict[str, object], one).get("trained_on") for one in every if isinstance(one, Mapping)]
    return [marks for marks in found if isinstance(marks, str) and marks]


def marks_in(written: str) -> set[bytes]:
    """The marks that `sound_marks` wrote one after the other."""
    assert re.fullmatch("[0-9a-f]*", written) and len(written) % (2 * MARK) == 0, (
        f"marks of sounds are damaged ({written[:20]!r}), with which a model says what it heard; make it again"
    )
    known = bytes.fromhex(written)
    return {known[start : start + MARK] for start in range(0, len(known), MARK)}


def alive_in(examination: Examination) -> tuple[tuple[float, float], ...]:
    """Start and end in seconds of what holds sound in a recording; nothing where that is all of it. Blinks of sound are
    left out where there is more."""
    dead = [tuple(map(float, piece.split("-"))) for piece in examination.dead.split(";") if piece]
    edges = [0.0, *(edge for piece in dead for edge in piece), examination.seconds]
    alive = [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]
    longer = [(start, end) for start, end in alive if end - start >= SHORTEST_SECONDS]
    return tuple(longer or alive) if dead else ()


def profile_of(examination: Examination) -> NDArray[np.float64]:
    """(pieces,) how much stands out from the background in each piece of the recording, 0 to 1."""
    return np.frombuffer(bytes.fromhex(examination.profile), np.uint8) / 255


def listen(path: Path, band: Band = BIRDS) -> Examination:
    """Decode all of a recording and note what it is."""
    recording, digest, spectra = open_recording(path, band.rate), hashlib.blake2b(digest_size=12), Spectra(band)
    recording.digest = digest
    for block in recording.waveform():
        spectra.add(block)
    outcome = recording.outcome
    has_sound = outcome.status in ("ok", "salvaged", "short")
    return Examination(
        outcome.status,
        outcome.reason,
        round(outcome.seconds, 6),
        outcome.sample_rate,
        outcome.channels,
        digest.hexdigest() if has_sound else "",
        sound_fingerprint(spectra.bands()).hex() if has_sound and outcome.seconds >= SHORTEST_PRINT else "",
        contrast(spectra.bands(), outcome.seconds, band).hex() if has_sound else "",
        ";".join(f"{start:.4f}-{end:.4f}" for start, end in outcome.dead) if has_sound else "",
    )


class Spectra:
    """Power in bands over time, in a grain that becomes coarser as the recording becomes longer."""

    def __init__(self, band: Band = BIRDS) -> None:
        self.edges = edge_bins(band)
        self.window = np.hanning(FRAME).astype(np.float32)
        self.held = np.zeros(0, np.float32)
        self.rows: list[NDArray[np.float32]] = []  # each (frames, bands), at `grain` frames a row
        self.grain, self.count = 1, 0

    def add(self, block: NDArray[np.float32]) -> None:
        self.held = np.concatenate([self.held, block])
        unit = FRAME * self.grain
        frames = len(self.held) // unit * self.grain
        if frames:
            pieces = self.held[: frames * FRAME].reshape(frames, FRAME) * self.window
            power = np.square(np.abs(np.fft.rfft(pieces, axis=1))).astype(np.float32)
            bands = np.add.reduceat(power, self.edges, axis=1)[:, :-1]
            self.rows.append(bands.reshape(-1, self.grain, bands.shape[1]).mean(axis=1))
            self.count += len(self.rows[-1])
            self.held = self.held[frames * FRAME :]
        while self.count > 2 * MOST_FRAMES:
            joined = self.bands()
            even = len(joined) // 2 * 2
            self.rows = [joined[:even].reshape(-1, 2, joined.shape[1]).mean(axis=1)]
            self.grain, self.count = 2 * self.grain, even // 2

    def bands(self) -> NDArray[np.float32]:
        """(frames, bands) mean power."""
        self.rows = [np.concatenate([np.zeros((0, len(BAND_EDGES) - 1), np.float32), *self.rows])]
        return self.rows[0]


def edge_bins(band: Band) -> list[int]:
    """The bins of a frame's transform at which bands begin, and the last one ends: BAND_EDGES spread over what is
    heard, each at least a bin wide."""
    low = band.lowest or min(BAND_EDGES[0], BAND_EDGES[0] / BIRDS.highest * band.highest)
    high = BAND_EDGES[-1] / BIRDS.highest * band.highest
    places = np.log(np.array(BAND_EDGES) / BAND_EDGES[0]) / np.log(BAND_EDGES[-1] / BAND_EDGES[0])
    bins = np.rint(low * (max(high, low) / low) ** places * FRAME / band.rate).astype(int)
    steps = np.arange(len(bins))
    apart = np.maximum.accumulate(bins - steps) + steps
    return [int(each) for each in np.minimum(apart, FRAME // 2 + 1 - len(bins) + steps)]


def sound_fingerprint(bands: NDArray[np.float32]) -> bytes:
    """Log power in the lower bands over sixteen pieces of the recording, each band about its mean: level and colour of
    the microphone cancel. int8; empty where nothing changes."""
    if not len(bands):
        return b""
    lower = bands[:, :PRINT_BANDS].astype(np.float64)
    sums = np.concatenate([np.zeros((1, PRINT_BANDS)), lower.cumsum(axis=0)])
    at = np.linspace(0, len(lower), PRINT_TIMES + 1)
    edges = np.empty((PRINT_TIMES + 1, PRINT_BANDS))
    for band in range(PRINT_BANDS):
        edges[:, band] = np.interp(at, np.arange(len(sums)), sums[:, band])
    power = (edges[1:] - edges[:-1]) * PRINT_TIMES / len(lower)
    log_power = np.log(power + 1e-4 * power.mean() + 1e-12)
    log_power -= log_power.mean(axis=0)
    largest = float(np.abs(log_power).max())
    return np.rint(log_power * 127 / largest).astype(np.int8).tobytes() if largest > 0 else b""


def contrast(bands: NDArray[np.float32], seconds: float, band: Band = BIRDS) -> bytes:
    """How much stands out, over pieces of equal length: per band above its median, the two that do most. uint8.

    At a higher rate a piece has more frames, of which a call fills no more than a bird's does at 16 kHz: so the loudest
    count, as many as a piece has there.
    """
    pieces = min(LONGEST_PROFILE, max(1, int(seconds / PROFILE_SECONDS)), max(1, len(bands)))
    if not len(bands):
        return bytes(pieces)
    log_power = np.log(bands + 1e-10)
    above = log_power - np.median(log_power, axis=0)
    spread = 1.48 * np.median(np.abs(above), axis=0) + 0.3
    most = np.sort(np.maximum(above / spread, 0), axis=1)[:, -2:].mean(axis=1)
    edges = np.linspace(0, len(most), pieces + 1).astype(int)
    counts = edges[1:] - edges[:-1]
    if band.rate > BIRDS.rate:
        counts = np.maximum(1, counts * BIRDS.rate // band.rate)
        pieces_of = np.repeat(np.arange(len(counts)), edges[1:] - edges[:-1])
        most = most[np.lexsort((-most, pieces_of))]  # of each piece the loudest first
        most[np.arange(len(most)) - edges[pieces_of] >= counts[pieces_of]] = 0
    levels = np.add.reduceat(most, edges[:-1]) / counts
    shares: NDArray[np.float64] = levels * 255 / max(float(levels.max()), 1e-9)
    return np.rint(shares).astype(np.uint8).tobytes()


def decode_all(paths: Sequence[Path], workers: int, band: Band = BIRDS) -> Generator[tuple[Path, Examination]]:
    """Each path with its examination, in the order in which they are done."""
    workers, rest = min(workers, -(-len(paths) // 8)), iter(paths)
    idle = SimpleQueue[Decoder]()
    with ExitStack() as stack:
        decoders = [stack.enter_context(Decoder(SERVE)) for _ in range(workers)]
        for decoder in decoders:
            idle.put(decoder)
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        waiting = {pool.submit(examine_there, idle, path, band) for path in islice(rest, 2 * workers)}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                waiting |= {pool.submit(examine_there, idle, path, band) for path in islice(rest, len(done))}
                for examined in done:
                    yield examined.result()
        finally:
            for decoder in decoders:  # whoever stops listening stops the work
                decoder.stop()


def examine_there(idle: SimpleQueue[Decoder], path: Path, band: Band) -> tuple[Path, Examination]:
    """A recording examined by a decoder that has nothing else to do."""
    decoder = idle.get()
    try:
        ((_, message),) = decoder.answer(path, [str(path), *band])
        return path, Examination(**json.loads(message))
    except Lost as lost:
        return path, Examination("unreadable", f"{lost}; leave it out", 0.0, 0, 0, "", "", "")
    finally:
        idle.put(decoder)


def decode_there(paths: Sequence[Path], band: Band, name: str) -> Generator[tuple[Path, Examination]]:
    """The same by the workers of a cluster."""
    with open_cluster(name) as cluster:
        most = max(1, min(MOST_OF_A_TASK, len(paths) // (8 * cluster.threads())))
        absolute = [path.absolute() for path in paths]
        tasks = (absolute[start : start + most] for start in range(0, len(paths), most))
        given = dict(zip(absolute, paths, strict=True))
        for task, answers in cluster.results(partial(examine_here, assumed_expansion(), band), tasks):
            for path, examination in zip(task, answers, strict=True):
                hidden = "cannot be found" in examination.reason and file_stamp(path) != (-1, -1)
                assert not hidden, (
                    f"a worker at {name} does not see {path}; recordings must lie at the same place on all machines"
                )
                yield given[path], examination


def examine_here(expansion: int, band: Band, paths: Sequence[Path]) -> list[Examination]:
    """What a worker does: recordings -> what listening to each has shown.

    expansion   how many times slower than it was the sound plays, of files that do not say so
    """
    idle = kept_open(expansion, open_decoder)
    found: list[Examination] = []
    for path in paths:
        alive()
        found.append(examine_there(idle, path, band)[1])
    return found


@contextmanager
def open_decoder(expansion: int) -> Generator[SimpleQueue[Decoder]]:
    """A worker's own process that decodes, as one that has nothing else to do."""
    undo_expansion(expansion)
    idle = SimpleQueue[Decoder]()
    with Decoder(SERVE) as decoder:
        idle.put(decoder)
        yield idle


def serve_examinations() -> None:
    """The decoding process: of each recording its examination."""
    answer_questions(examination_messages)


def examination_messages(path: str, *band: int) -> Iterator[Message]:
    yield True, json.dumps(asdict(listen(place(Path(path)), Band(*band)))).encode()


def open_ledger(band: Band = BIRDS) -> sqlite3.Connection:
    """The ledger of what was examined before; a damaged one is set aside."""
    LEDGER.parent.mkdir(parents=True, exist_ok=True)
    tables = (
        f"CREATE TABLE IF NOT EXISTS {examined_table(band)} "
        "(path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, examination TEXT) WITHOUT ROWID;"
        f"CREATE TABLE IF NOT EXISTS {compared_table(band)} "
        "(one TEXT, other TEXT, same INTEGER, PRIMARY KEY (one, other)) WITHOUT ROWID;"
        "CREATE TABLE IF NOT EXISTS spoken (path BLOB, detector TEXT, size INTEGER, mtime INTEGER, segments TEXT, "
        "PRIMARY KEY (path, detector)) WITHOUT ROWID"
    )
    try:
        ledger = sqlite3.connect(LEDGER, timeout=60)
        ledger.executescript(tables)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            show(f"{LEDGER}: {error}; nothing is remembered this time, make room or look at its permissions")
            ledger = sqlite3.connect(":memory:")
            ledger.executescript(tables)
            return ledger
        with suppress(FileNotFoundError):  # another process was quicker
            LEDGER.replace(LEDGER.with_suffix(".damaged"))
        show(f"{LEDGER} was damaged: set aside, everything is listened to again")
        ledger = sqlite3.connect(LEDGER, timeout=60)
        ledger.executescript(tables)
    return ledger


def examined_table(band: Band = BIRDS) -> str:
    """The ledger's table of examinations; another one where files are taken to play slower than the sound was."""
    expansion = assumed_expansion()
    return f"examined_{VERSION}" + (f"_slowed_{expansion}" if expansion > 1 else "") + band_words(band)


def compared_table(band: Band) -> str:
    """The ledger's table of recordings whose waveforms were compared."""
    return f"compared_{VERSION}" + band_words(band)


def band_words(band: Band) -> str:
    return "" if band == BIRDS else "_{}_{}_{}".format(*band)


def look_up(ledger: sqlite3.Connection, path: Path, mark: tuple[int, int], band: Band = BIRDS) -> Examination | None:
    """What is known of a file, if it is still the same file."""
    query = f"SELECT size, mtime, examination FROM {examined_table(band)} WHERE path = ?"
    row = ledger.execute(query, (os.fsencode(path.resolve()),)).fetchone() if mark != (-1, -1) else None
    return Examination(**json.loads(row[2])) if row and row[:2] == mark else None


def note_down(
    ledger: sqlite3.Connection,
    fresh: Mapping[Path, Examination],
    stamps: Mapping[Path, tuple[int, int]],
    band: Band = BIRDS,
) -> None:
    """Examinations of files that are there, for the next time; one transaction."""
    rows = [
        (os.fsencode(path.resolve()), *stamps[path], json.dumps(asdict(examination)))
        for path, examination in fresh.items()
        if stamps[path] != (-1, -1) and not may_pass(examination.reason)
    ]
    remember(ledger, f"INSERT OR REPLACE INTO {examined_table(band)} VALUES (?, ?, ?, ?)", rows)


def remember(ledger: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    """One transaction; a ledger that cannot be written to costs time the next time, and nothing else."""
    try:
        with ledger:
            ledger.executemany(statement, rows)
    except sqlite3.OperationalError as error:
        show(f"{LEDGER}: {error}; what was found out now is not remembered, make room or look at its permissions")


def file_stamp(path: Path) -> tuple[int, int]:
    """Size and time of change; (-1, -1) for what is not there."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return -1, -1
    return facts.st_size, facts.st_mtime_ns


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


if __name__ == "__main__":
    import soundfile

    rng = np.random.default_rng(0)
    owl = np.repeat(rng.uniform(0, 0.3, 40), 1600) * rng.normal(0, 1, 64_000)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("owl.wav", "rain.flac", "dead.wav", "notes.wav")]
        soundfile.write(paths[0], owl, 16_000)
        soundfile.write(paths[1], rng.normal(0, 0.1, 64_000), 16_000)
        soundfile.write(paths[2], np.zeros(64_000), 16_000)
        paths[3].write_text("The owl called twice, then it rained and I went home.\n")
        examined = examine(paths)
        for path in paths:
            print(f"{path.name:10} {examined[path].status:10} {examined[path].seconds:4.1f} s  {examined[path].reason}")
        again = examine(paths)
    assert [examined[path].status for path in paths] == ["ok", "ok", "silent", "unreadable"]
    assert again == examined
