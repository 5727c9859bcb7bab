"""Sound files -> waveforms: found, decoded, mixed to mono, resampled and cut into windows, block by block.

    recordings, notes = find_recordings([Path("archive")])
    recording = open_recording(recordings[0], sample_rate=16_000)
    for window in recording.windows(window_seconds=5.0): ...
    recording.outcome                                     # ok, salvaged or unreadable, and why

Reads    wav, flac, ogg, opus, mp3, aiff through libsndfile; m4a, aac, wma and whatever libsndfile stumbles over through
         FFmpeg
Writes   nothing

The only opener of sound files, and the only room that catches: an archive of thousands has damaged files, and one of
them becomes an Outcome with a reason, never the end of a run. What was decoded is believed, what a header says is not.
Memory follows the block, never the length of a recording.
"""

from __future__ import annotations

import math
import os
import stat
import string
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import av
import numpy as np
import soundfile
import soxr
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet
from numpy.typing import NDArray

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a", ".aac", ".wma", ".aif", ".aiff"})
SYSTEM_FOLDERS = frozenset({"$RECYCLE.BIN", "System Volume Information"})
BLOCK_SECONDS, BLOCK_BYTES = 30, 2**24  # a block is as long as both allow
SMALLEST_FILE = 44  # bytes: the header of a WAV file
STUB = 1024  # bytes: a larger file without samples is worth a second look
RATES = range(1_000, 1_000_001)  # Hz
MOST_CHANNELS = 64
MOST_FRAMES = 2**40  # a header that claims more does not know
LOUDEST = 2.0**31  # a sample beyond any recorder's scale is damage, as NaN is
MISSING_SECONDS = 0.1  # a claim missed by less is the codec's rounding
HOLE_SECONDS = 0.05  # healthy timestamps jitter by 10 ms
LONGEST_HOLE_SECONDS = 60.0  # a longer jump is a damaged timestamp
MARGIN = 256  # samples of the lower rate on either side of a window, more than the resampler's filter reaches
DEMUXERS = "aac,aiff,asf,flac,matroska,mov,mp3,ogg,w64,wav"  # no playlists: a recording opens no other file
TIMELESS = frozenset({"aac", "mp3"})  # demuxers whose timestamps and lengths are guessed from the bytes
SIGNATURES = {
    b"\x89PNG": "an image", b"\xff\xd8\xff": "an image", b"GIF8": "an image", b"%PDF": "a PDF",
    b"PK\x03\x04": "an archive", b"\x1f\x8b": "an archive", b"7z\xbc\xaf": "an archive", b"Rar!": "an archive",
    b"RIFF": "a WAV header", b"RF64": "a WAV header", b"fLaC": "a FLAC header", b"OggS": "an Ogg header",
    b"FORM": "an AIFF header", b"ID3": "an MP3 header",
}
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # the bits of each byte, for Ogg's checksum

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class Outcome:
    """How reading a recording went."""

    status: Literal["ok", "salvaged", "unreadable"]
    reason: str  # empty when ok; else what was found and what to do, in one line
    seconds: float  # as decoded
    sample_rate: int  # Hz, of the file; 0 when unreadable
    channels: int  # 0 when unreadable


@dataclass(frozen=True)
class Window:
    """A piece of a recording, always of the same length."""

    start: float  # seconds; the start of window i is sample i * hop, an integer
    end: float  # seconds; of the sound itself, so never after the recording's end
    samples: Waveform  # (window_samples,) where the recording ends earlier, what is left repeats


@dataclass
class Reading:
    """What is learnt about a file while it is read."""

    sample_rate: int = 0
    channels: int = 0
    frames: int = 0  # delivered so far
    claimed: int = 0  # frames by the header, 0 where it says nothing
    strange: int = 0  # samples that were no numbers
    refusal: str = ""
    faults: list[str] = field(default_factory=list[str])

    def take(self, block: NDArray[np.float32]) -> Waveform:
        """Count a block (frames, channels) and mix it to mono (frames,), with zeros for what is no number."""
        sane = np.abs(block) <= LOUDEST
        if not sane.all():
            self.strange += block.size - int(np.count_nonzero(sane))
            block = np.where(sane, block, np.float32(0))
        self.frames += len(block)
        return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)


def open_recording(path: Path, sample_rate: int) -> OpenRecording:
    """A recording about to be read at `sample_rate` Hz; nothing is opened before its windows are asked for.

    Errors: none for what the file holds. Damage shows in the outcome, an unreadable file has no windows.
    """
    assert sample_rate in RATES, f"{sample_rate} Hz asked for; choose a rate from 1 kHz to 1 MHz"
    return OpenRecording(path, sample_rate)


class OpenRecording:
    """A recording as a stream. It remembers how the reading went: `outcome` is final once the stream is exhausted."""

    def __init__(self, path: Path, sample_rate: int) -> None:
        self.path = path
        self.sample_rate = sample_rate
        self.outcome = Outcome("unreadable", "not read to its end; exhaust the windows first", 0.0, 0, 0)

    def windows(self, window_seconds: float, overlap_seconds: float = 0.0) -> Iterator[Window]:
        """Windows of equal length in order of time, each begun `window_seconds - overlap_seconds` after the last.

        The first window to reach the end of the recording is the last one, so every sample is heard and no window lies
        wholly within another. Where it reaches beyond, the sound it does hold repeats, be it a single sample.
        """
        length = round(window_seconds * self.sample_rate)
        hop = length - round(overlap_seconds * self.sample_rate)
        assert length >= 1, f"windows of {window_seconds} s; make them longer than a sample"
        assert 1 <= hop <= length, f"an overlap of {overlap_seconds} s; choose 0 or more, less than {window_seconds} s"
        start, held = 0, np.zeros(0, np.float32)  # held begins at sample `start`
        for block in self.waveform():
            held = np.concatenate([held, block])
            while len(held) > length:  # only more than enough shows that a window is not the last
                yield self.window(start, held, length)
                start, held = start + hop, held[hop:]
        if len(held):
            yield self.window(start, held, length)

    def window(self, start: int, held: Waveform, length: int) -> Window:
        end = start + min(len(held), length)
        return Window(start / self.sample_rate, end / self.sample_rate, fill_window(held, length))

    def waveform(self) -> Iterator[Waveform]:
        """The recording in mono at the rate asked for, in blocks (samples,) that joined equal the whole exactly."""
        reading = Reading()
        stream: soxr.ResampleStream | None = None
        for block in decoded(self.path, reading):
            if reading.sample_rate == self.sample_rate:
                yield block
                continue
            stream = stream or soxr.ResampleStream(reading.sample_rate, self.sample_rate, 1, "float32", "HQ")
            yield stream.resample_chunk(block)
        if stream:
            yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
        self.outcome = judged(self.path, reading)


def read_window(path: Path, start_seconds: float, window_seconds: float, sample_rate: int) -> Waveform:
    """One window anywhere in a recording, by seeking: the same samples as the slice of the whole recording.

    returns  (window_samples,) repeated to its full length where the recording ends earlier;
             (0,) where there is nothing to read, which the caller leaves out

    Equal to the slice exactly at the file's own rate, within 1e-6 of full scale when resampled. What libsndfile cannot
    seek in (m4a, aac, wma, damaged files) is decoded from its beginning, at about 1 ms a second of sound.
    """
    start, length = round(start_seconds * sample_rate), round(window_seconds * sample_rate)
    assert sample_rate in RATES, f"{sample_rate} Hz asked for; choose a rate from 1 kHz to 1 MHz"
    assert start >= 0 and length >= 1, f"{window_seconds} s from {start_seconds} s on; no such window"
    if refusal(path):
        return np.zeros(0, np.float32)
    samples = sought(path, start, length, sample_rate)
    if samples is None:
        samples = streamed(path, start, length, sample_rate)
    return fill_window(samples, length) if len(samples) else samples


def probe(path: Path) -> Outcome:
    """What a recording is, cheaply: its header where its last moment is where the header says, else all is decoded.

    Damage in the middle of a file with a sound end shows only when it is read.
    """
    reading = Reading(refusal=refusal(path))
    if not reading.refusal and ends_as_claimed(path, reading):
        return Outcome("ok", "", reading.claimed / reading.sample_rate, reading.sample_rate, reading.channels)
    reading = Reading()
    for _ in decoded(path, reading):
        pass
    return judged(path, reading)


def find_recordings(roots: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Every recording under the folders, in the order of their paths, and what to print about the search.

    roots    folders, searched to the bottom, and files, which are taken whatever they are called

    Suffixes count in any case. Names that begin with a dot and the folders of the system are skipped, links to folders
    are not followed, and a file reached on two ways is one recording.
    """
    found: dict[Path, Path] = {}  # by real path
    other: Counter[str] = Counter()
    hidden = linked = twice = 0
    notes: list[str] = []
    for root in roots:
        assert root.exists(), f"nothing at {root}; name recordings or a folder of them"
        taken = [] if root.is_dir() else [root]
        for folder, folders, files in os.walk(root, onerror=lambda error: notes.append(f"skipped: {error}")):
            everything = len(folders) + len(files)
            folders[:] = [name for name in folders if visible(name)]
            files = [name for name in files if visible(name)]
            hidden += everything - len(folders) - len(files)
            linked += sum(Path(folder, name).is_symlink() for name in folders)
            taken += [Path(folder, name) for name in files if Path(name).suffix.lower() in SUFFIXES]
            other.update(Path(name).suffix.lower() or "none" for name in files)
        for path in taken:
            twice += found.setdefault(path.resolve(), path) != path
    recordings = sorted(found.values())
    kinds = Counter(path.suffix.lower() or "no suffix" for path in recordings)
    ...
    return recordings, notes
