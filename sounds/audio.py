"""Sound files -> waveforms: decoded, mixed to mono, resampled and cut into windows, block by block.

    recording = open_recording(Path("dawn.flac"), sample_rate=16_000)
    for window in recording.windows(window_seconds=5.0): ...
    recording.outcome                                     # ok, salvaged or unreadable, and why

Reads    wav, w64, flac, ogg, opus, mp3, aiff, caf with libsndfile; m4a, aac, wma and what it stumbles over with FFmpeg
Writes   nothing; `as_mp3` hands out a piece of sound for a browser to play

An archive of thousands has damaged files: each of them becomes an Outcome with a reason, never the end of a run. Memory
follows the block, never the length of a recording.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from runtime.addresses import Address, version_of
from sounds.damage import HIGHEST_RATE, LOWEST_RATE, Outcome, Reading, refusal, what_instead
from sounds.ffmpeg import ffmpeg_blocks, ffmpeg_integers
from sounds.libsndfile import block_frames, ends_as_claimed, sought, soundfile_blocks
from sounds.notes import assumed_expansion
from sounds.windows import SHORTEST_SECONDS, Waveform, Window, contexts, network_input

READING = 5  # raise it whenever the same file would be decoded differently
MP3_COMPRESSION = 0.8  # beyond it what lies above 7 kHz is lost: 0.9 is a sixth smaller


def reading_version() -> str:
    """What decides, beside a file, what is read of it: this code, and what files that say nothing are taken for."""
    expansion = assumed_expansion()
    return f"{READING}" if expansion == 1 else f"{READING}, {expansion} times slower"


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
        """Windows of equal length, each begun `window_seconds - overlap_seconds` after the one before."""
        geometry = (window_seconds, window_seconds, overlap_seconds)
        for window, _ in contexts(self.waveform(), self.sample_rate, *geometry, shortest=self.shortest):
            yield window

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


def examine_header(path: Path) -> Outcome:
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


def write_flac(path: Path, samples: Waveform, sample_rate: int, comment: str) -> None:
    """A waveform as a FLAC file of 16 bits that says something of itself."""
    with soundfile.SoundFile(path, "w", sample_rate, 1, "PCM_16", format="FLAC") as file:
        file.comment = comment
        file.write(samples)


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
            before = version_of(file)
            complete = yield from soundfile_blocks(file, reading)
            if not complete:
                if reading.integers is None:
                    reading.integers = ffmpeg_integers(file, reading.header)
                yield from ffmpeg_blocks(file, reading)
            if not reading.frames:
                reading.refusal = reading.refusal or what_instead(file, reading.suffix, reading.header)
            after = version_of(file)
    except OSError as error:
        where = "the server" if isinstance(path, Address) else "the disk"
        reading.refusal = f"cannot be read ({error.strerror}); check {where} and the permissions"
        reading.faults.append(f"reading broke off ({error.strerror})")
        return
    if before != after:
        reading.faults.append("it changed while it was read, read it again")


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


if __name__ == "__main__":
    meadow = np.random.default_rng(0).normal(0, 0.01, 12 * 32_000).astype(np.float32)
    meadow[7 * 32_000 : 7 * 32_000 + 3_200] += np.sin(2 * np.pi * 3_000 * np.arange(3_200) / 32_000)  # a call at 7 s
    statuses: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        card = Path(folder)
        soundfile.write(card / "meadow.FLAC", meadow, 32_000)
        (card / "half.flac").write_bytes((card / "meadow.FLAC").read_bytes()[:300_000])
        (card / "notes.wav").write_text("The owl called twice, then it rained and I went home.\n")
        for path in sorted(card.iterdir()):
            recording = open_recording(path, 16_000)
            peaks = [float(np.abs(window.samples).max()) for window in recording.windows(5.0)]
            statuses[path.name] = recording.outcome.status
            print(f"{path.name:12} {recording.outcome.status} {recording.outcome.reason}", np.round(peaks, 2).tolist())
        called = read_window(card / "meadow.FLAC", 6.9, 0.3, 16_000)
    assert statuses == {"half.flac": "salvaged", "meadow.FLAC": "ok", "notes.wav": "unreadable"}
    assert np.abs(called).max() > 0.4
