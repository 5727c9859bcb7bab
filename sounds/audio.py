"""Sound files -> waveforms: found, decoded, mixed to mono, resampled and cut into windows, block by block.

    recordings, notes = find_recordings([Path("archive")])
    recording = open_recording(recordings[0], sample_rate=16_000)
    for window in recording.windows(window_seconds=5.0): ...
    recording.outcome                                     # ok, salvaged or unreadable, and why

Reads    wav, w64, flac, ogg, opus, mp3, aiff, caf with libsndfile; m4a, aac, wma and what it stumbles over with FFmpeg
Writes   nothing; `as_mp3` hands out a piece of sound for a browser to play

The only opener of sound files, and the only room that catches: an archive of thousands has damaged files, and each of
them becomes an Outcome with a reason, never the end of a run. What was decoded is believed, what a header says is not.
Memory follows the block, never the length of a recording.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from sounds.headers import MOST_FRAMES, SHAPES, STUB, Header, mended, read_header

if TYPE_CHECKING:  # FFmpeg is slow to import, and only asked where libsndfile knows no answer
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

OWN_SUFFIXES = {  # by what libsndfile and FFmpeg call a format
    "WAV": (".wav",),
    "WAVEX": (".wav",),
    "RF64": (".wav", ".rf64"),
    "W64": (".wav", ".w64"),
    "CAF": (".caf",),
    "FLAC": (".flac",),
    "OGG": (".ogg", ".opus"),
    "MP3": (".mp3",),
    "MOV": (".m4a",),
    "AAC": (".aac",),
    "ASF": (".wma",),
    "AIFF": (".aif", ".aiff", ".aifc"),
}
SUFFIXES = frozenset(suffix for suffixes in OWN_SUFFIXES.values() for suffix in suffixes)
OURS = ".wild-whisper"  # a folder with a file of that name in it is not searched
LARGEST_RUN = 2**24  # bytes of a run.json
SYSTEM_FOLDERS = frozenset({"$RECYCLE.BIN", "System Volume Information"})
READING = 3  # raise it whenever the same file would be decoded differently
BLOCK_SECONDS, BLOCK_BYTES = 30, 2**24  # a block is as long as both allow
SMALLEST_FILE = 44  # bytes: the header of a WAV file
LARGEST_TAG = 2**17  # bytes behind the sound that are worth looking at; more is no tag
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # Hz
SEAM = 0.01  # of a window, 50 ms of 5 s: how long a repeated piece and its next copy sound together
SHORTEST_SECONDS = 0.3  # of sound: less of it, repeated, is taken for an animal all too often (LOG.md)
TAIL_SECONDS = 0.5  # what is left behind the last full window and is shorter gets no window of its own
MOST_CHANNELS = 64
FAINTEST = 10**-2.5  # RMS, -50 dB: what is fainter is raised to it before a network gets it (LOG.md)
QUIET, LOUD = 10**-2.5, 2.5  # loudest samples of a recording that are worth a word, below and beyond
SILENCE = 1e-5  # of full scale: what moves less, over a whole second, is no sound
CLIPPED, CLIPPED_SHARE, CLIPPED_PEAK = 0.99, 0.5, 0.5  # half of a second within 1 % of its peak, if that is high
INTEGERS, INTEGER_PEAK, INTEGER_SHARE = 2.0**15, 16.0, 0.1  # float files that hold the numbers of 16-bit ones
FLOATS = ("FLOAT", "DOUBLE")  # libsndfile's words for them
SCANS, SCAN_FRAMES = (64, 4096), 1024  # so many pieces of a file decide that, or so many more where these cannot
MOST_SCANNED = 2**16  # files of which that is remembered
DEAD_SECONDS = 1.0  # the grain in which sound is told apart from silence
LOUDEST = 2.0**31  # a sample beyond any recorder's scale is damage, as NaN is
MISSING_SECONDS = 0.1  # a claim missed by less is the codec's rounding
HOLE_SECONDS, LONGEST_HOLE_SECONDS = 0.05, 60.0  # smaller jumps in time are jitter, longer ones damaged timestamps
FAINT_MEAN = 0.1  # of its channels' RMS: unrelated channels keep at least an eighth, the root of 1 / MOST_CHANNELS
MP3_COMPRESSION = 0.8  # beyond it what lies above 7 kHz is lost: 0.9 is a sixth smaller
MARGIN = 256  # samples of the lower rate beside a window: more than the resampler's filter reaches
LONGEST_LAP = 8192  # frames: the largest block of Vorbis
OGG_SPAN = 2**17  # bytes: two of the largest pages
DEMUXERS = "aac,aiff,asf,caf,flac,matroska,mov,mp3,ogg,w64,wav"  # no playlists: a recording opens no other file
SOUNDFILE_ERRORS = (soundfile.LibsndfileError, ValueError)  # a ValueError where it loses count of the frames left
TIMELESS = frozenset({"aac", "mp3"})  # demuxers that guess times and lengths from the bytes
SOUND_SIGNS = {
    b"RIFF": "a WAV file",
    b"RF64": "a WAV file",
    b"fLaC": "a FLAC file",
    b"OggS": "an Ogg file",
    b"FORM": "an AIFF file",
    b"caff": "a CAF file",
    b"riff": "a W64 file",
    b"RIFX": "a WAV file",
    b"BW64": "a WAV file",
    b"ID3": "an MP3 file",
    b"ftyp": "an MP4 file",
}
OTHER_SIGNS = {
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "an archive",
    b"\x1f\x8b": "an archive",
    b"7z\xbc\xaf": "an archive",
    b"Rar!": "an archive",
}
PLAIN_TEXT = bytes({*b"\t\n\f\r", *range(32, 127), *range(128, 256)})  # with UTF-8 and Latin letters
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte with its bits the other way round
SAMPLE_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}  # FFmpeg's words, numpy's

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class Outcome:
    """How reading a recording went."""

    status: Literal["ok", "salvaged", "silent", "short", "unreadable"]
    reason: str  # empty when all is well; else what was found and what to do, in one line
    seconds: float  # as decoded
    sample_rate: int  # Hz, of the file; 0 when unreadable
    channels: int  # of the file; 0 when unreadable
    claimed_seconds: float = field(default=0.0, compare=False)  # by its header, as decoded where that says nothing
    loudest: float = field(default=0.0, compare=False)  # sample of the mono mix; 0 for silence, NaN where not decoded
    zero_tail_seconds: float = field(default=0.0, compare=False)  # of nothing but zeros, at the end
    dead: tuple[tuple[float, float], ...] = field(default=(), compare=False)  # start and end of what holds no sound

    @property
    def silent_seconds(self) -> float:
        """How much of it holds no sound and is not analysed."""
        return self.seconds if self.status in ("silent", "short") else sum(end - start for start, end in self.dead)


@dataclass(frozen=True)
class Window:
    """A piece of a recording, as long as every other."""

    start: float  # seconds; a whole number of samples
    end: float  # seconds; of the sound itself, so never after the recording's end
    samples: Waveform  # (window_samples,), the sound repeated where it is shorter


@dataclass
class Reading:
    """What is learnt about a file while it is decoded."""

    suffix: str = ""  # of its name
    channel: int = 0  # to be read alone, counted from 1; 0 for the mean of all
    shortest: float = SHORTEST_SECONDS  # of sound that is worth a window
    kind: str = ""  # what libsndfile or FFmpeg took it for
    sample_rate: int = 0
    channels: int = 0
    frames: int = 0  # decoded so far
    taken: int = 0  # frames of these that were counted and mixed
    claimed: int = 0  # frames its header speaks of, 0 where it does not
    strange: int = 0  # samples that were no numbers
    broken: int = 0  # packets that could not be decoded
    silenced: int = 0  # frames lost in between, replaced by silence
    unended: bool = False  # an Ogg file without the mark that ends one
    header: Header = field(default_factory=Header)  # how far that can be believed
    loudest: float = 0.0  # sample of the mono mix
    zero_tail: int = 0  # frames of nothing but zeros, at the end
    digest: hashlib.blake2b | None = None  # of all samples as they are, where somebody wants one
    integers: bool | None = None  # its samples are those of a 16-bit file; None: not yet known
    dead: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])  # first frame and end of no sound
    last: dict[int, tuple[int, bool]] = field(default_factory=dict[int, tuple[int, bool]])  # its end, whether clipped
    clipped: int = 0  # frames of these that are clipped throughout
    dead_channels: list[int] = field(default_factory=list[int])  # frames without sound in each of several channels
    power: float = 0.0  # sum of the squares of all samples, where there are several channels
    mixed_power: float = 0.0  # the same of their mean, times the number of channels
    refusal: str = ""
    faults: list[str] = field(default_factory=list[str])

    @property
    def grain(self) -> int:
        """Frames in which sound is told apart from silence, counted from the beginning of the recording."""
        return round(DEAD_SECONDS * self.sample_rate)

    def take(self, block: NDArray[np.float32]) -> Waveform:
        """Count a block (frames, channels) and mix it to mono (frames,), with zeros for what is no number and for what
        is clipped throughout. It begins with a second of the recording, and ends with one or with the recording."""
        if self.digest:
            self.digest.update(b"" if self.taken else f"{self.sample_rate} {block.shape[1]} ".encode())
            self.digest.update(np.ascontiguousarray(block).data)
        if not (block.min() >= -LOUDEST and block.max() <= LOUDEST):  # so too where one of them is NaN
            sane = np.abs(block) <= LOUDEST
            self.strange += block.size - int(np.count_nonzero(sane))
            block = np.where(sane, block, np.float32(0))
        if self.integers:
            block = block / np.float32(INTEGERS)
        first = self.taken
        channels = block.shape[1]
        if self.channel:
            block, channels = block[:, [self.channel - 1]], 1
        mixed = block[:, 0].copy()
        for channel in block.T[1:]:  # ten times as fast as a mean over short rows
            mixed += channel
        if channels > 1:
            mixed /= np.float32(channels)
            samples = block.ravel("K")
            self.power += float(samples @ samples)
            self.mixed_power += float(mixed @ mixed) * channels
            self.dead_channels = self.dead_channels or [0] * channels
            for number, channel in enumerate(block.T, 1):
                self.dead_channels[number - 1] += sum(end - start for start, end, _ in self.lifeless(channel, number))
        for start, end, clipped in list(self.lifeless(mixed)):
            if clipped:
                mixed[start:end] = 0
                self.clipped += end - start
            begin = first + start
            if self.dead and self.dead[-1][1] == begin:
                begin = self.dead.pop()[0]
            self.dead.append((begin, first + end))
        peak = max(float(mixed.max()), -float(mixed.min()))
        self.loudest = max(self.loudest, peak)
        if not peak:
            self.zero_tail += len(mixed)
        else:
            self.zero_tail = 0 if mixed[-1] else int(np.argmax(mixed[::-1] != 0))
        self.taken += len(block)
        return mixed

    def lifeless(self, sound: Waveform, number: int = 0) -> Iterator[tuple[int, int, bool]]:
        """The seconds of a block (frames,) in which nothing moves or all is clipped: first, end, whether clipped. A
        rest that is shorter is too short to say, and is left out only behind such a second and if it is so itself.

        number   of a channel, 0 for the mean of all
        """
        grain = self.grain
        for start in range(0, len(sound), grain):
            piece = sound[start : start + grain]
            low, high = float(piece.min()), float(piece.max())
            peak = max(high, -low)
            still = high - low < SILENCE
            loud = peak >= CLIPPED_PEAK and not still
            clipped = loud and bool(np.mean(np.abs(piece) >= CLIPPED * peak) > CLIPPED_SHARE)
            at = self.taken + start
            behind, also_clipped = self.last.get(number, (0, False))
            rest = len(piece) < grain and at > 0
            if (still or clipped) and (not rest or behind == at):
                self.last[number] = at + len(piece), clipped or (rest and also_clipped)
                yield start, start + len(piece), self.last[number][1]

    def outcome(self) -> Outcome:
        if not self.frames:
            return Outcome("unreadable", self.refusal, 0.0, 0, 0)
        seconds, faults = self.frames / self.sample_rate, list(self.faults)
        beyond = self.frames - self.claimed if self.claimed else 0
        if self.header.short or beyond > MISSING_SECONDS * self.sample_rate:
            faults.append("its header speaks of fewer samples than follow")
        if -beyond > MISSING_SECONDS * self.sample_rate:
            faults.append(f"{seconds:.1f} s of the {self.claimed / self.sample_rate:.1f} s it claims could be read")
        if self.silenced:
            faults.append(f"{self.silenced / self.sample_rate:.1f} s were lost in between and are silent here")
        if self.broken:
            faults.append(f"damaged packets left out: {self.broken}")
        if self.strange:
            faults.append(f"{self.strange} samples are no numbers and silent here")
        dead = sum(end - start for start, end in self.dead)
        short = self.frames < self.shortest * self.sample_rate
        silent = not short and dead > 0 and self.frames - dead <= self.shortest * self.sample_rate
        notes = ["all else was used, look for a better copy"] if faults and not (silent or short) else []
        rate = self.sample_rate
        clipped = self.clipped > dead / 2
        if silent and clipped:
            notes.append("is clipped throughout; the recorder or its microphone failed, leave it out")
        elif silent:
            notes.append("holds no sound (zeros or a constant); the recorder or its microphone failed, leave it out")
        elif short:
            notes.append(f"{seconds:.2f} s are too short to analyse, at least {self.shortest:g} s are needed")
        elif dead - self.silenced >= DEAD_SECONDS * rate:
            lost, at = dead / rate, self.dead[0][0] / rate
            some = f"{lost:.1f} s of it, the first at {at:.1f} s, hold no sound (zeros or a constant) and are left out"
            notes.append(
                f"{lost:.1f} s of it, the first at {at:.1f} s, are clipped throughout and are left out"
                if clipped
                else some
            )
        mute = [number for number, frames in enumerate(self.dead_channels, 1) if frames - dead >= DEAD_SECONDS * rate]
        if mute and not silent:
            numbers = ", ".join(map(str, mute))
            notes.append(f"no sound for a while in channel {numbers}, use another one")
        if self.loudest < QUIET and not (silent or short):
            decibels = -20 * math.log10(max(self.loudest, 1e-9))
            notes.append(
                f"very quiet, its loudest sample {decibels:.0f} dB below full scale; raised before it is heard"
            )
        if self.loudest > LOUD:
            notes.append(f"louder than full scale ({self.loudest:.3g}), its samples were scaled by something")
        if self.integers:
            notes.append("its float samples are those of 16-bit integers, divided by 32768 here")
        if self.mixed_power < FAINT_MEAN**2 * self.power:
            notes.append("its channels cancel each other in the mean (antiphase), use one channel")
        if self.unended:
            notes.append("has no mark of its end and may have been cut, compare it with the original")
        own = OWN_SUFFIXES.get(self.kind, (self.suffix,))
        if self.suffix in SUFFIXES and self.suffix not in own:
            notes.append(f"is a {own[0]} file named {self.suffix}, read all the same")
        return Outcome(
            "silent" if silent else "short" if short else "salvaged" if faults else "ok",
            "; ".join([*faults, *notes]),
            seconds,
            self.sample_rate,
            self.channels,
            self.claimed / self.sample_rate or seconds,
            self.loudest,
            self.zero_tail / self.sample_rate,
            tuple((start / rate, end / rate) for start, end in self.dead),
        )


def open_recording(path: Path, sample_rate: int, channel: int = 0, shortest: float = SHORTEST_SECONDS) -> OpenRecording:
    """A recording to be read at `sample_rate` Hz; nothing is opened before its windows are asked for.

    channel    counted from 1; 0 for the mean of all
    shortest   seconds of sound without which there is no window

    Errors: none, whatever the file holds. Damage shows in the outcome; what is unreadable has no windows.
    """
    return OpenRecording(path, sample_rate, channel, shortest)


class OpenRecording:
    """A recording as a stream that remembers how it went: `outcome` is final once its windows are exhausted."""

    def __init__(self, path: Path, sample_rate: int, channel: int = 0, shortest: float = SHORTEST_SECONDS) -> None:
        assert LOWEST_RATE <= sample_rate <= HIGHEST_RATE, f"{sample_rate} Hz asked for; choose 1 kHz to 1 MHz"
        self.path = path
        self.sample_rate = sample_rate
        self.channel, self.shortest = channel, shortest
        self.digest: hashlib.blake2b | None = None  # to be fed with all samples as they are, where somebody wants one
        self.reading = Reading(path.suffix.lower(), channel, shortest)
        self.outcome = Outcome("unreadable", "was not read to its end; exhaust its windows", 0.0, 0, 0)

    def windows(self, window_seconds: float, overlap_seconds: float = 0.0) -> Iterator[Window]:
        """Windows of equal length, each begun `window_seconds - overlap_seconds` after the one before.

        The first window that reaches the end of the recording is the last, and no window lies wholly within another.
        What it holds is repeated to its full length; behind a full window less than TAIL_SECONDS is left out, because
        a blink of sound repeated for seconds is a buzz that nobody recorded. For that reason a window with less than
        `shortest` of sound in it is left out too: zeros and constants are none. The mean of each is removed.
        """
        for window, _ in self.contexts(window_seconds, window_seconds, overlap_seconds):
            yield window

    def contexts(
        self, context_seconds: float, window_seconds: float, overlap_seconds: float = 0.0, begin_seconds: float = 0.0
    ) -> Iterator[tuple[Window, list[tuple[float, float]]]]:
        """Segments long enough for a network that answers for several windows at a time, with the windows in each.

        returns   each context, its sound repeated where it is shorter, and start and end in seconds of its first
                  windows, which are those that `windows` gives; its other windows hold only repeated sound
        Contexts do not overlap; with an overlap of windows there are several rows of them, each begun a step later, so
        the windows of different contexts take turns.

        begin_seconds   from which on the recording is read, and times are counted
        """
        length, window = (round(seconds * self.sample_rate) for seconds in (context_seconds, window_seconds))
        hop = window - round(overlap_seconds * self.sample_rate)
        assert 1 <= hop <= window, (
            f"windows of {window_seconds} s overlap by {overlap_seconds} s; let them overlap by 0 s or more, not wholly"
        )
        assert length == window or (window % hop == 0 and length % window == 0), (
            f"a context of {context_seconds} s and windows of {window_seconds} s that overlap by {overlap_seconds} s: "
            "give an overlap that leaves a whole part of the window, such as 0 or half of it"
        )
        starts = (
            hop * number if length == window else length * (number // rows) + hop * (number % rows)
            for rows in [window // hop]
            for number in count()
        )
        skipped = round(begin_seconds * self.sample_rate)
        start, held, begin = next(starts), np.zeros(0, np.float32), -skipped  # held begins at sample `begin`
        for block in self.waveform():
            held = np.concatenate([held, block])
            if begin < 0:
                held, begin = held[-begin:], min(0, begin + len(held))
            while begin + len(held) > start + length:  # only more than enough shows that a context is not the last
                samples = held[start - begin : start - begin + length].copy()
                if is_alive(samples, self.sample_rate, self.shortest):
                    yield self.context(start, samples, length, window, hop)
                start = next(starts)
                if start > begin:
                    held, begin = held[start - begin :], start
        while start < begin + len(held):
            samples = held[start - begin :]
            context = self.context(start, samples, length, window, hop)
            if context[1] and is_alive(samples, self.sample_rate, self.shortest):
                yield context
            start = next(starts)

    def context(
        self, start: int, samples: Waveform, length: int, window: int, hop: int
    ) -> tuple[Window, list[tuple[float, float]]]:
        """A context that begins at a sample, and which of its windows are new: not within the one a hop before."""
        end, rate = start + len(samples), self.sample_rate
        new = [
            (first / rate, min(first + window, end) / rate)
            for first in range(start, end, window)
            if first == 0 or first + window <= end or end - (first - hop + window) >= TAIL_SECONDS * rate
        ]
        return Window(start / rate, end / rate, network_input(samples, length)), new

    def waveform(self) -> Iterator[Waveform]:
        """The recording in mono at the rate asked for, in blocks (samples,); joined, they equal the whole exactly."""
        self.reading = reading = Reading(self.path.suffix.lower(), self.channel, self.shortest, digest=self.digest)
        stream: soxr.ResampleStream | None = None
        for block in decoded(self.path, reading):
            if reading.sample_rate == self.sample_rate:
                yield block
            else:
                stream = stream or soxr.ResampleStream(reading.sample_rate, self.sample_rate, 1, "float32", "HQ")
                yield stream.resample_chunk(block)
        if stream:
            yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
        self.outcome = reading.outcome()


def read_window(path: Path, start_seconds: float, window_seconds: float, sample_rate: int) -> Waveform:
    """One window anywhere in a recording, by seeking: what `windows` gives of the segment that begins there.

    returns  (window_samples,) repeated to its full length where the recording ends earlier, its mean removed;
             (0,) where there is nothing to read, for the caller to leave out
    """
    start, length = round(start_seconds * sample_rate), round(window_seconds * sample_rate)
    assert start >= 0 and length >= 1, f"no window of {window_seconds} s begins at {start_seconds} s"
    samples = read_samples(path, start, length, sample_rate)
    return network_input(samples, length) if len(samples) else samples


def read_samples(path: Path, start: int, length: int, sample_rate: int) -> Waveform:
    """Samples start to start + length of a recording in mono at `sample_rate`, fewer at its end, by seeking.

    Equal to the slice of the whole exactly at the file's own rate, within 1e-6 when resampled. Where libsndfile cannot
    seek (m4a, aac, wma, some damage) the recording is decoded from its beginning, some 3 ms per second of sound.
    """
    samples = sought(path, start, length, sample_rate)
    return streamed(path, start, length, sample_rate) if samples is None else samples


def probe(path: Path) -> Outcome:
    """What a recording is: by its header, if its last moment lies where that says; else all of it is decoded.

    Damage before the last moment shows only to those who read the recording.
    """
    reading = Reading(path.suffix.lower())
    if ends_as_claimed(path, reading):
        reading.frames, reading.loudest = reading.claimed, math.nan
        return reading.outcome()
    reading = Reading(path.suffix.lower())
    for _ in decoded(path, reading):
        pass
    return reading.outcome()


def as_mp3(samples: Waveform, sample_rate: int) -> bytes:
    """A piece of sound (samples,) as an MP3 file in mono, which every browser plays; at 24 kHz some 4 kB a second.

    sample_rate   one of those MP3 has: 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000 Hz
    """
    file = BytesIO()
    layer = "MPEG_LAYER_III"
    soundfile.write(
        file, samples, sample_rate, layer, None, "MP3", compression_level=MP3_COMPRESSION, bitrate_mode="VARIABLE"
    )
    return file.getvalue()


def find_recordings(roots: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Every recording below some folders, sorted by path, and what to print about the search.

    roots    folders, searched to the bottom, and files, which are taken whatever their names

    Suffixes count in any case. Names that begin with a dot and the system's own folders are skipped, links to folders
    are not followed, and a file that is reached twice is one recording. Nor is a folder below the roots searched that
    holds a run of this program: the clips of a report are no recordings.
    """
    found: dict[str, Path] = {}  # by real path
    ignored: Counter[str] = Counter()
    suffixes: Counter[str] = Counter()
    notes: list[str] = []
    for root in roots:
        assert root.exists(), f"there is nothing at {root}; name recordings or a folder of them"
        taken = [] if root.is_dir() else [root]
        tree = os.walk(root, onerror=lambda error: notes.append(f"could not search: {error}")) if root.is_dir() else ()
        for folder, folders, files in tree:
            if folder != str(root) and is_ours(Path(folder)):
                ignored["folders of this program's results (name one to search it)"] += 1
                folders.clear()
                continue
            shown = [name for name in files if not is_hidden(name)]
            recordings = [name for name in shown if Path(name).suffix.lower() in SUFFIXES]
            ignored["hidden"] += len(files) - len(shown) + sum(is_hidden(name) for name in folders)
            ignored["other"] += len(shown) - len(recordings)
            suffixes.update(Path(name).suffix.lower() or "none" for name in shown)
            folders[:] = [name for name in folders if not is_hidden(name)]
            ignored["links to folders"] += sum(Path(folder, name).is_symlink() for name in folders)
            taken += [Path(folder, name) for name in recordings]
        for path in sorted(taken):
            real = os.path.realpath(path)  # Path.resolve fails on a link to itself
            ignored["named twice"] += real in found
            found.setdefault(real, path)
    paths = sorted(found.values())
    kinds = Counter(path.suffix.lower() or "none" for path in paths)
    note = f"found {len(paths)} audio files ({listing(kinds)})" if paths else "found no audio files"
    if any(ignored.values()):
        note += "; ignored " + ", ".join(f"{count} {kind}" for kind, count in ignored.items() if count)
    if not paths:
        note += f"; the suffixes there are: {listing(suffixes) or 'none'}; readable are {' '.join(sorted(SUFFIXES))}"
    return paths, [note, *notes]


def fill_window(samples: Waveform, length: int) -> Waveform:
    """A piece (samples,) repeated, or cut, to (length,); zeros for an empty one.

    Where one copy ends and the next begins both sound, at equal power, for SEAM of the window or a quarter of a shorter
    piece: end to end, the seam was the strongest onset in a third of real short clips (LOG.md).
    """
    if len(samples) == length:
        return samples
    count = len(samples)
    overlap = min(round(SEAM * length), count // 4) if count < length else 0
    if not overlap:
        return np.resize(samples, length)
    angle = np.pi / 2 * (np.arange(overlap, dtype=np.float32) + np.float32(0.5)) / np.float32(overlap)
    repeated = samples[: count - overlap].copy()
    repeated[:overlap] *= np.sin(angle)
    repeated[:overlap] += samples[count - overlap :] * np.cos(angle)
    filled = np.resize(repeated, length)
    filled[:overlap] = samples[:overlap]  # before the first copy is nothing
    return filled


def network_input(samples: Waveform, length: int) -> Waveform:
    """What a network is given of a piece (samples,), in training and in service alike: repeated to (length,), its mean
    removed, raised to FAINTEST where it is fainter.

    Cheap microphones add a constant to all they record. At a fifth of full scale it is stronger than any animal, and
    raises the floor of Whisper's log-mel spectrogram, which lies a fixed distance below its maximum. Levels are learnt
    down to where training has windows; 20 dB below, half of what is known is lost (LOG.md).
    """
    filled = fill_window(samples, length)
    centred = filled - np.float32(filled.mean(dtype=np.float64))
    level = math.sqrt(float(centred @ centred) / max(length, 1))
    return centred * np.float32(FAINTEST / level) if SILENCE / 10 < level < FAINTEST else centred


def is_alive(samples: Waveform, sample_rate: int, shortest: float = SHORTEST_SECONDS) -> bool:
    """Whether a piece (samples,) holds as much sound as a network should be asked about, in seconds."""
    grain, alive = max(1, sample_rate // 10), 0
    for start in range(0, len(samples), grain):
        piece = samples[start : start + grain]
        alive += len(piece) if float(piece.max() - piece.min()) >= SILENCE else 0
        if alive and alive >= shortest * sample_rate:
            return True
    return False


@lru_cache(MOST_SCANNED)
def holds_integers(path: str, size: int, mtime_ns: int) -> bool:  # noqa: ARG001 (another file of that name is another)
    """Whether the samples of a float file that libsndfile reads are the numbers of a 16-bit one: decided for the whole
    file, by pieces spread over it. Its size and time in ns distinguish it from another one of that name."""
    try:
        with Path(path).open("rb") as file:
            header = read_header(file)
            file.seek(0)
            with soundfile.SoundFile(mended(file, header)) as sound:
                return are_integers(lambda number: pieces_of(sound, spread(sound.frames, number)))
    except (*SOUNDFILE_ERRORS, OSError):
        return False


def pieces_of(sound: soundfile.SoundFile, starts: Iterable[int]) -> Iterator[NDArray[np.float32]]:
    for start in starts:
        sound.seek(start)
        yield sound.read(SCAN_FRAMES, dtype="float32", always_2d=True)


def spread(frames: int, number: int) -> list[int]:
    """Where pieces of SCAN_FRAMES begin that are spread over a recording: so many, fewer where they would overlap."""
    number = max(1, min(number, -(-frames // SCAN_FRAMES)))
    return [int(start) for start in np.linspace(0, max(0, frames - SCAN_FRAMES), number)]


def are_integers(pieces: Callable[[int], Iterator[NDArray[np.float32]]]) -> bool:
    """Whether the samples of a file are the numbers of a 16-bit one: many of those that are not 0 lie beyond full
    scale, and one lies far beyond it or all are whole.

    pieces   gives so many pieces of the file; NaN and what is beyond any scale do not count
    """
    for number in SCANS:
        beyond, count, loudest, whole = 0, 0, 0.0, True
        for piece in pieces(number):
            levels = np.abs(piece)
            levels = levels[(levels > 0) & (levels <= LOUDEST)]
            beyond, count = beyond + int(np.count_nonzero(levels > 1)), count + len(levels)
            loudest = max(loudest, float(levels.max(initial=0)))
            whole = whole and bool((levels == np.rint(levels)).all())
        if beyond <= INTEGER_SHARE * count or loudest > INTEGER_PEAK or whole:
            return beyond > INTEGER_SHARE * count
    return False


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def is_ours(folder: Path) -> bool:
    """Whether a folder holds a run of this program, or clips that it has cut, and no recordings that it was given."""
    run = folder / "run.json"
    if os.path.isfile(folder / OURS):  # noqa: PTH113 (Path.is_file fails where a folder is closed to us)
        return True
    try:
        content: object = json.loads(run.read_bytes()) if 0 < os.path.getsize(run) <= LARGEST_RUN else None  # noqa: PTH202
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(content, dict) or not {"name", "status", "command", "settings", "versions"} <= set(
        cast(Any, content)
    ):
        return False
    facts = cast(dict[str, Any], content)
    settings = cast(dict[str, Any], facts["settings"]) if isinstance(facts["settings"], dict) else dict[str, Any]()
    within = str(settings.get("out", "")) in map(str, settings.get("inputs") or [])
    return not within and str(folder.resolve()) not in map(str, facts.get("inputs") or [])  # results among recordings


def listing(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def decoded(path: Path, reading: Reading) -> Iterator[Waveform]:
    """A recording in mono at its own rate, in blocks (frames,); what happens on the way is noted in `reading`.

    Whatever the decoders hand out, blocks are whole seconds, all but the last.
    """
    held, waiting = list[NDArray[np.float32]](), 0
    for block in decoded_blocks(path, reading):
        reading.frames += len(block)
        if not held and len(block) % reading.grain == 0:  # as libsndfile's are: not a copy of them is made
            yield reading.take(block)
            continue
        held.append(block)
        waiting += len(block)
        if waiting >= max(block_frames(reading.sample_rate, reading.channels), reading.grain):
            joined, whole = np.concatenate(held), waiting // reading.grain * reading.grain
            yield reading.take(joined[:whole])
            held, waiting = [joined[whole:].copy()] if waiting > whole else [], waiting - whole
    if waiting:
        yield reading.take(np.concatenate(held))


def decoded_blocks(path: Path, reading: Reading) -> Iterator[NDArray[np.float32]]:
    """A recording in blocks (frames, channels), each counted in `reading` by whoever asks for the next."""
    reading.refusal = refusal(path)
    if reading.refusal:
        return
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            complete = yield from soundfile_blocks(file, reading)
            if not complete:
                if reading.integers is None:
                    reading.integers = ffmpeg_integers(file, reading.header)
                yield from ffmpeg_blocks(file, reading)
            if not reading.frames:
                reading.refusal = reading.refusal or what_instead(file, reading.suffix, reading.header)
            after = os.fstat(file.fileno())
    except OSError as error:
        reading.refusal = f"cannot be read ({error.strerror}); check the disk and the permissions"
        reading.faults.append(f"reading broke off ({error.strerror})")
        return
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        reading.faults.append("it changed while it was read, read it again")


def refusal(path: Path) -> str:
    """Why a path is not worth opening, or nothing. It comes before any opening: a pipe would wait for ever."""
    try:
        facts = path.stat()
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        return f"cannot be found ({error}); check the path"
    if stat.S_ISDIR(facts.st_mode):
        return "is a folder; name the recordings in it"
    if not stat.S_ISREG(facts.st_mode):
        return "is a pipe or a device, not a file; leave it out"
    if facts.st_size < SMALLEST_FILE:
        return f"has {facts.st_size} bytes, no room for sound; leave it out or copy it again"
    return ""


def unfit(sample_rate: int, channels: int, channel: int = 0) -> str:
    """Why sound of this shape is refused, or nothing; asked before anything is allocated for it.

    channel   that is to be read
    """
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        return f"claims a sample rate of {sample_rate} Hz, outside 1 kHz to 1 MHz; its header is damaged, copy it again"
    if not 1 <= channels <= MOST_CHANNELS:
        return f"claims {channels} channels, at most {MOST_CHANNELS} are read; its header is damaged, or split it"
    if channel > channels:
        return f"has {channels} channels, channel {channel} was asked for; choose another --channel"
    return ""


def block_frames(sample_rate: int, channels: int) -> int:
    return min(BLOCK_SECONDS * sample_rate, BLOCK_BYTES // (4 * channels))


def soundfile_blocks(file: BinaryIO, reading: Reading) -> Generator[NDArray[np.float32], None, bool]:
    """What libsndfile makes of a file. Returns whether that is all there is to say; if not, FFmpeg goes on."""
    file_size = os.fstat(file.fileno()).st_size
    reading.header = header = read_header(file)
    page_fault = ogg_fault(file)
    reading.faults += [page_fault] if page_fault else []
    reading.faults += ["a second recording glued behind it was not read"] if header.glued else []
    if page_fault or (header.short and not header.mendable):
        return False
    reading.unended = not is_ended_ogg(file)
    try:
        file.seek(0)
        with soundfile.SoundFile(mended(file, header)) as sound:
            reading.refusal = unfit(sound.samplerate, sound.channels, reading.channel)
            if reading.refusal:
                return True
            if sound.frames > MOST_FRAMES:
                return False
            reading.sample_rate, reading.channels, reading.kind = sound.samplerate, sound.channels, sound.format
            reading.claimed, reading.integers = sound.frames, is_scaled(file, sound)
            size = block_frames(sound.samplerate, sound.channels)
            size = max(size // reading.grain, 1) * reading.grain
            while len(block := sound.read(size, dtype="float32", always_2d=True)):
                yield block
            unread = left_over(file) if sound.format in ("FLAC", "MP3") else 0  # others end in other chunks
    except SOUNDFILE_ERRORS:
        return False
    complete = reading.claimed - reading.frames <= MISSING_SECONDS * reading.sample_rate and unread <= STUB
    reading.claimed = round(reading.claimed * header.claims)
    return complete and (reading.frames > 0 or file_size <= STUB)


def left_over(file: BinaryIO) -> int:
    """Bytes that a decoder left unread, without the tags and zeros in which a file may end."""
    unread = os.fstat(file.fileno()).st_size - file.tell()
    if unread > LARGEST_TAG:
        return unread
    rest = file.read().rstrip(b"\0")
    rest = rest[:-128] if rest[-128:-125] == b"TAG" else rest
    if rest[-32:-24] == b"APETAGEX":
        rest = rest[: -int.from_bytes(rest[-20:-16], "little") - 32]
    return len(rest.strip(b"\0"))


def is_scaled(file: BinaryIO, sound: soundfile.SoundFile) -> bool:
    """Whether the samples of an open file are to be divided by INTEGERS."""
    facts = os.fstat(file.fileno())
    return sound.subtype in FLOATS and holds_integers(file.name, facts.st_size, facts.st_mtime_ns)


def ffmpeg_integers(file: BinaryIO, header: Header) -> bool:
    """Whether the samples of a float file that FFmpeg alone reads are those of a 16-bit one, decided as
    `holds_integers` decides it."""
    from av.error import FFmpegError

    file.seek(0)
    if file.read(4) not in SHAPES:  # no file of plain samples
        return False
    try:
        with ffmpeg_opened(file, header) as (container, stream):
            if stream is None or not stream.codec_context.name.startswith("pcm_f"):
                return False
            frames = header.end // (stream.codec_context.format.bytes * stream.codec_context.channels)
            return are_integers(lambda number: ffmpeg_pieces_of(container, stream, spread(frames, number)))
    except (FFmpegError, ValueError):
        return False


def ffmpeg_pieces_of(
    container: InputContainer, stream: AudioStream, starts: Iterable[int]
) -> Iterator[NDArray[np.float32]]:
    for start in starts:
        container.seek(int(start / (stream.rate * (stream.time_base or 1))), stream=stream)
        frames = (frame for packet in container.demux(stream) for frame in packet.decode())
        if frame := next(frames, None):
            yield frame_samples(frame)


def ffmpeg_blocks(file: BinaryIO, reading: Reading) -> Iterator[NDArray[np.float32]]:
    """What FFmpeg makes of a file, from its beginning on, without the frames that were delivered before."""
    delivered, position = reading.frames, 0
    for piece in ffmpeg_pieces(file, reading):
        if position + len(piece) > delivered:
            yield piece[max(0, delivered - position) :]
        position += len(piece)


@contextmanager
def ffmpeg_opened(file: BinaryIO, header: Header) -> Generator[tuple[InputContainer, AudioStream | None]]:
    """A file as FFmpeg sees it, and the sound in it that it has a decoder for."""
    import av

    beyond = header.short and not header.mendable
    options = {"format_whitelist": DEMUXERS} | ({"ignore_length": "1"} if beyond else {})
    whole = mended(file, header)  # nameless for FFmpeg, which would trust a suffix over bytes

    def seek(offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return whole.seek(offset, whence)
        except (OSError, ValueError):  # a position that no file has, out of a size that is none
            return -1

    nameless = SimpleNamespace(read=whole.read, seek=seek, tell=whole.tell)
    whole.seek(0)
    with av.open(nameless, "r", options=options, metadata_errors="replace") as container:
        stream = next((stream for stream in container.streams.audio if stream.codec_context), None)
        if stream:
            stream.codec_context.thread_count = 1  # FFmpeg's own threads and a forked worker would wait for each other
        yield container, stream


def ffmpeg_pieces(file: BinaryIO, reading: Reading) -> Iterator[NDArray[np.float32]]:
    """A file in small pieces (frames, channels), one try per packet, and silence where timestamps leave a hole."""
    from av.error import FFmpegError

    position, origin = 0, None  # origin: the timestamp of position 0
    try:
        with ffmpeg_opened(file, reading.header) as (container, stream):
            if stream is None:
                return
            names = container.format.name.split(",")
            timed, reading.kind = TIMELESS.isdisjoint(names), names[0].upper()
            for packet in container.demux(stream):
                for frame in packet_frames(packet, reading):
                    piece, rate = frame_samples(frame), frame.sample_rate
                    if not position and not reading.frames:
                        reading.refusal = unfit(rate, piece.shape[1], reading.channel)
                        reading.sample_rate, reading.channels = rate, piece.shape[1]
                        if timed and not reading.claimed and stream.duration and stream.time_base:
                            reading.claimed = int(stream.duration * stream.time_base * rate)
                    if (rate, piece.shape[1]) != (reading.sample_rate, reading.channels):
                        reading.faults.append(f"turns into {piece.shape[1]} channels at {rate} Hz on the way")
                        return
                    if reading.refusal:
                        return
                    if timed and frame.pts is not None and frame.time_base:
                        stamp = round(frame.pts * frame.time_base * rate)
                        origin = stamp - position if origin is None else origin
                        hole = stamp - origin - position
                        if HOLE_SECONDS * rate < hole <= LONGEST_HOLE_SECONDS * rate:
                            yield np.zeros((hole, piece.shape[1]), np.float32)
                            position, reading.silenced = position + hole, reading.silenced + hole
                    yield piece
                    position += len(piece)
            if reading.broken and not timed:
                reading.faults.append("times after the damage may be early")
    except (FFmpegError, ValueError) as error:  # a ValueError for a frame shorter than it says
        if position or reading.frames:
            words = error.strerror if isinstance(error, FFmpegError) else str(error)
            reading.faults.append(f"decoding broke off ({words})")


def packet_frames(packet: Packet[AudioStream], reading: Reading) -> list[AudioFrame]:
    """The frames of one packet, none where it is damaged: the packets after it may be whole."""
    from av.error import FFmpegError

    try:
        return packet.decode()
    except FFmpegError:
        reading.broken += 1
        return []


def frame_samples(frame: AudioFrame) -> NDArray[np.float32]:
    """(frames, channels) at full scale 1, whatever numbers the decoder hands out."""
    channels, planar = frame.layout.nb_channels, frame.format.is_planar
    kind, count = SAMPLE_TYPES[frame.format.name.removesuffix("p")], frame.samples * (1 if planar else channels)
    planes = frame.planes[: channels if planar else 1]  # PyAV itself sees a ninth where there are eight, and crashes
    values = np.stack([np.frombuffer(memoryview(plane), kind, count) for plane in planes])
    values = values.T if planar else values.reshape(-1, channels)
    if values.dtype.kind == "u":
        return (values.astype(np.float32) - 128) / np.float32(128)
    if values.dtype.kind == "i":
        return values.astype(np.float32) * np.float32(2.0 ** (1 - 8 * values.dtype.itemsize))
    with np.errstate(over="ignore"):  # a double beyond every float becomes Inf, and is counted as no number
        return values.astype(np.float32, copy=False)


def ogg_fault(file: BinaryIO, first: int = 0, last: int | None = None) -> str:
    """What is wrong with the pages of an Ogg file, or nothing; libsndfile leaves out a damaged page without a word.

    first, last  bytes between which to look, `first` from the end where it is negative
    """
    file.seek(0)
    if file.read(4) != b"OggS":
        return ""
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size + first if first < 0 else first))
    start = file.tell() + max(0, file.read(OGG_SPAN).find(b"OggS"))
    file.seek(start)
    sounding = start > 0  # past the pages that open a stream
    due: dict[bytes, int] = {}  # the number of the next page, by stream
    reached: dict[bytes, int] = {}  # the sample that a stream has come to
    while (last is None or file.tell() < last) and (header := file.read(27)):
        lengths = file.read(header[-1])
        body = file.read(sum(lengths))
        if header[:4] != b"OggS"[: len(header)]:
            return f"damaged at byte {file.tell() - len(body) - len(lengths) - len(header)}"
        if len(header) < 27 or len(lengths) < header[26] or len(body) < sum(lengths):
            return "breaks off within a page"
        blanked = header[:22] + bytes(4) + header[26:] + lengths + body
        if ogg_checksum(blanked) != header[22:26]:
            return f"damaged in the page at byte {file.tell() - len(blanked)}"
        position = int.from_bytes(header[6:14], "little", signed=True)  # -1 where no packet ends
        opens, stream, page = bool(header[5] & 2), header[14:18], int.from_bytes(header[18:22], "little")
        if opens and sounding:
            return "several recordings are glued together in it"
        if page != due.get(stream, page):
            return f"pages are missing before byte {file.tell() - len(blanked)}"
        if 0 <= position < reached.get(stream, 0):
            return f"goes back in time in the page at byte {file.tell() - len(blanked)}"
        sounding, due[stream] = sounding or not opens, page + 1
        reached[stream] = max(position, reached.get(stream, 0))
    return ""


def ogg_checksum(page: bytes) -> bytes:
    """Ogg's CRC-32, as stored: zlib's with the bits of all bytes reversed, begun at 0 and not inverted."""
    reversed_bits = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return reversed_bits.to_bytes(4, "big").translate(REVERSED)


def is_ended_ogg(file: BinaryIO) -> bool:
    """Whether the last page of an Ogg file says so; True of any other file."""
    file.seek(0)
    if file.read(4) != b"OggS":
        return True
    file.seek(-min(2**17, os.fstat(file.fileno()).st_size), os.SEEK_END)
    tail = file.read()
    return bool(tail[tail.rfind(b"OggS") + 5] & 4)


def last_page_start(file: BinaryIO) -> int:
    """The frame at which the last page of an Ogg file begins, 0 when that is not known.

    Within that page libsndfile's seek is off by the padding that ends a Vorbis stream (libsndfile issue 885).
    """
    file.seek(0)
    if file.read(4) != b"OggS":
        return 0
    file.seek(-min(2**17, os.fstat(file.fileno()).st_size), os.SEEK_END)
    positions = [int.from_bytes(page[2:10], "little", signed=True) for page in file.read().split(b"OggS")[1:]]
    ends = [position for position in positions if position >= 0]  # of each page, -1 where no packet ends
    return ends[-2] if len(ends) > 1 else 0


def what_instead(file: BinaryIO, suffix: str, header: Header) -> str:
    """What a file is from which not one sample could be decoded."""
    file.seek(0)
    head = file.read(4096)
    name = f"named {suffix}" if suffix else "named without a suffix"
    kind = next((kind for sign, kind in OTHER_SIGNS.items() if head.startswith(sign)), "")
    if not head.translate(None, PLAIN_TEXT):
        kind = "an HTML page" if b"<html" in head.lower() else "text"
    if kind:
        return f"{name}, is {kind}; copy the recording again or leave it out"
    if not head.strip(b"\0"):
        return f"{name}, begins with {len(head)} zeros; the recorder wrote no sound, leave it out"
    if sound := next((kind for sign, kind in SOUND_SIGNS.items() if sign in (head[: len(sign)], head[4:8])), ""):
        if header.short and not header.mendable:
            return (
                f"begins like {sound}, its header was never finished and nothing can be decoded without it; "
                "copy it again"
            )
        return f"begins like {sound}, but no sound in it can be decoded; copy it again or leave it out"
    return f"{name}, is in no known format; copy it again or leave it out"


def sought(path: Path, start: int, length: int, sample_rate: int) -> Waveform | None:
    """Samples start to start + length at `sample_rate`, fewer at the recording's end; None where seeking fails.

    A piece to be resampled begins where a sample of the file and one of ours coincide, a margin early. Whole seconds
    are read: whether one is clipped throughout is a question about all of it.
    """
    if refusal(path):
        return np.zeros(0, np.float32)
    try:
        with path.open("rb") as file:
            header = read_header(file)
            if header.short and not header.mendable:
                return None
            last_page = last_page_start(file)
            file.seek(0)
            with soundfile.SoundFile(mended(file, header)) as sound:
                if not is_sane(sound):
                    return None
                rate = sound.samplerate
                first, last = start, start + length
                if rate != sample_rate:
                    margin = math.ceil(MARGIN * max(1.0, rate / sample_rate))
                    step = rate // math.gcd(rate, sample_rate)
                    first = max(0, start * rate // sample_rate - margin) // step * step
                    last = -(-last * rate // sample_rate) + margin
                last = min(last, sound.frames)
                if last <= first:
                    return np.zeros(0, np.float32)
                reading = Reading(sample_rate=rate, integers=is_scaled(file, sound))
                begin, end = whole_seconds(first, last, sound.frames, reading.grain)
                landing = min(begin, max(0, last_page - LONGEST_LAP)) if sound.subtype == "VORBIS" else begin
                sound.seek(landing)
                begun = file.tell() - OGG_SPAN
                block = sound.read(end - landing, dtype="float32", always_2d=True)[begin - landing :]
            if ogg_fault(file, max(0, begun), file.tell()):  # a hole that libsndfile has closed
                return None
    except (*SOUNDFILE_ERRORS, OSError):
        return None
    if len(block) < end - begin:
        return None
    samples = reading.take(block)[first - begin : last - begin]
    if rate != sample_rate:
        samples = soxr.resample(samples, rate, sample_rate, "HQ")
    lead = start - first * sample_rate // rate
    return samples[lead : lead + length]


def whole_seconds(first: int, last: int, frames: int, grain: int) -> tuple[int, int]:
    """The seconds that a segment of a recording touches, first frame and end, as the stream counts them: a rest at the
    end of the recording belongs to the second before it.

    frames  of the recording
    grain   frames of a second
    """
    final = max(0, frames // grain - 1) * grain
    end = -(-last // grain) * grain
    return min(first // grain * grain, final), frames if end > final else end


def streamed(path: Path, start: int, length: int, sample_rate: int) -> Waveform:
    """The same samples, by decoding the recording from its beginning."""
    position = 0
    pieces = [np.zeros(0, np.float32)]
    for block in OpenRecording(path, sample_rate).waveform():
        pieces.append(block[max(0, start - position) : max(0, start + length - position)])
        position += len(block)
        if position >= start + length:
            break
    return np.concatenate(pieces)


def is_sane(sound: soundfile.SoundFile) -> bool:
    return not unfit(sound.samplerate, sound.channels) and 0 < sound.frames <= MOST_FRAMES


def is_honest(header: Header) -> bool:
    return not header.short and not header.glued and header.claims == 1


def ends_as_claimed(path: Path, reading: Reading) -> bool:
    """Whether the last moment of a recording is where its header says; the header is noted in `reading`."""
    if refusal(path):
        return False
    try:
        with path.open("rb") as file:
            header = read_header(file)
            if not is_honest(header) or ogg_fault(file, -OGG_SPAN) or not is_ended_ogg(file):
                return False
            file.seek(0)
            with soundfile.SoundFile(mended(file, header)) as sound:
                reading.sample_rate, reading.channels, reading.kind = sound.samplerate, sound.channels, sound.format
                reading.claimed, reading.integers = sound.frames, is_scaled(file, sound)
                moment = min(sound.frames, sound.samplerate // 10)
                if not is_sane(sound):
                    return False
                sound.seek(sound.frames - moment)
                return len(sound.read(moment, dtype="float32", always_2d=True)) == moment
    except (*SOUNDFILE_ERRORS, OSError):
        return False


if __name__ == "__main__":
    beep = (0.5 * np.sin(2 * np.pi * 3_000 * np.arange(3_200) / 32_000)).astype(np.float32)
    meadow = np.random.default_rng(0).normal(0, 0.01, 12 * 32_000).astype(np.float32)
    meadow[7 * 32_000 : 7 * 32_000 + len(beep)] += beep  # something calls at 7.0 s
    with tempfile.TemporaryDirectory() as folder:
        card = Path(folder)
        soundfile.write(card / "meadow.FLAC", meadow, 32_000)
        (card / "half.flac").write_bytes((card / "meadow.FLAC").read_bytes()[:300_000])
        (card / "notes.wav").write_text("The owl called twice, then it rained and I went home.\n")
        (card / "._meadow.wav").write_bytes(bytes(4096))
        paths, notes = find_recordings([card])
        print(*notes)
        loudest: dict[str, float] = {}
        statuses: dict[str, str] = {}
        for path in paths:
            recording = open_recording(path, 16_000)
            for window in recording.windows(5.0):
                peak = int(np.argmax(np.abs(window.samples)))
                if np.abs(window.samples[peak]) > 0.3:
                    loudest[path.name] = window.start + peak / 16_000
            outcome = recording.outcome
            statuses[path.name] = outcome.status
            print(f"{path.name:12} {outcome.seconds:5.1f} s  {outcome.status} {outcome.reason}")
        called = read_window(card / "meadow.FLAC", 6.9, 0.3, 16_000)
    print(f"the call was found at {loudest['meadow.FLAC']:.2f} s")

    assert statuses == {"half.flac": "salvaged", "meadow.FLAC": "ok", "notes.wav": "unreadable"}
    assert 7.0 <= loudest["meadow.FLAC"] <= 7.1
    assert np.abs(called).max() > 0.4
