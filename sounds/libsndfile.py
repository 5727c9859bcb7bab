"""What libsndfile reads of a sound file: all of it in blocks, a piece by seeking, its last moment.

    complete = yield from soundfile_blocks(file, reading)      # (frames, channels); what happens is noted in `reading`
    sought(path, start=16_000, length=5 * 16_000, sample_rate=16_000)

What was decoded is believed, what a header says is not: the header is mended in memory first, Ogg pages are checked.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Generator, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from runtime.addresses import place, size_of, version_of
from sounds.damage import MISSING_SECONDS, SCAN_FRAMES, Reading, are_integers, expanded, refusal, spread_starts, unfit
from sounds.headers import MOST_FRAMES, STUB, Header, mended, read_header
from sounds.ogg import OGG_SPAN, is_ended_ogg, last_page_start, ogg_fault
from sounds.windows import Waveform

BLOCK_SECONDS, BLOCK_BYTES = 30, 2**24  # a block is as long as both allow
LARGEST_TAG = 2**17  # bytes behind the sound that are worth looking at; more is no tag
FLOATS = ("FLOAT", "DOUBLE")  # libsndfile's words for them
MOST_SCANNED = 2**16  # files of which that is remembered
MARGIN = 256  # samples of the lower rate beside a window: more than the resampler's filter reaches
LONGEST_LAP = 8192  # frames: the largest block of Vorbis
SOUNDFILE_ERRORS = (soundfile.LibsndfileError, ValueError)  # a ValueError where it loses count of the frames left


def soundfile_blocks(file: BinaryIO, reading: Reading) -> Generator[NDArray[np.float32], None, bool]:
    """What libsndfile makes of a file. Returns whether that is all there is to say; if not, FFmpeg goes on."""
    file_size = size_of(file)
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
            reading.sample_rate, reading.channels, reading.kind = true_rate(sound, header), sound.channels, sound.format
            reading.claimed, reading.integers = sound.frames, is_scaled(file, sound)
            size = block_frames(reading.sample_rate, sound.channels)
            size = max(size // reading.grain, 1) * reading.grain
            while len(block := sound.read(size, dtype="float32", always_2d=True)):
                yield block
            unread = left_over(file) if sound.format in ("FLAC", "MP3") else 0  # others end in other chunks
    except SOUNDFILE_ERRORS:
        return False
    complete = reading.claimed - reading.frames <= MISSING_SECONDS * reading.sample_rate and unread <= STUB
    reading.claimed = round(reading.claimed * header.claims)
    return complete and (reading.frames > 0 or file_size <= STUB)


def true_rate(sound: soundfile.SoundFile, header: Header) -> int:
    """Hz at which the sound was recorded: more than the file states where it plays slower than it was."""
    return expanded(sound.samplerate, header.expansion)


def block_frames(sample_rate: int, channels: int) -> int:
    return min(BLOCK_SECONDS * sample_rate, BLOCK_BYTES // (4 * channels))


def left_over(file: BinaryIO) -> int:
    """Bytes that a decoder left unread, without the tags and zeros in which a file may end."""
    unread = size_of(file) - file.tell()
    if unread > LARGEST_TAG:
        return unread
    rest = file.read().rstrip(b"\0")
    rest = rest[:-128] if rest[-128:-125] == b"TAG" else rest
    if rest[-32:-24] == b"APETAGEX":
        rest = rest[: -int.from_bytes(rest[-20:-16], "little") - 32]
    return len(rest.strip(b"\0"))


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
                rate = true_rate(sound, header)
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


def is_sane(sound: soundfile.SoundFile) -> bool:
    return not unfit(sound.samplerate, sound.channels) and 0 < sound.frames <= MOST_FRAMES


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
                reading.sample_rate, reading.channels = true_rate(sound, header), sound.channels
                reading.kind = sound.format
                reading.claimed, reading.integers = sound.frames, is_scaled(file, sound)
                moment = min(sound.frames, sound.samplerate // 10)
                if not is_sane(sound):
                    return False
                sound.seek(sound.frames - moment)
                return len(sound.read(moment, dtype="float32", always_2d=True)) == moment
    except (*SOUNDFILE_ERRORS, OSError):
        return False


def is_honest(header: Header) -> bool:
    return not header.short and not header.glued and header.claims == 1


def is_scaled(file: BinaryIO, sound: soundfile.SoundFile) -> bool:
    """Whether the samples of an open file are to be divided by INTEGERS."""
    return sound.subtype in FLOATS and holds_integers(file.name, *version_of(file))


@lru_cache(MOST_SCANNED)
def holds_integers(path: str, size: int, mtime_ns: int) -> bool:  # noqa: ARG001 (another file of that name is another)
    """Whether the samples of a float file that libsndfile reads are the numbers of a 16-bit one: decided for the whole
    file, by pieces spread over it. Its size and time in ns distinguish it from another one of that name."""
    try:
        with place(Path(path)).open("rb") as file:
            header = read_header(file)
            file.seek(0)
            with soundfile.SoundFile(mended(file, header)) as sound:
                return are_integers(lambda number: pieces_of(sound, spread_starts(sound.frames, number)))
    except (*SOUNDFILE_ERRORS, OSError):
        return False


def pieces_of(sound: soundfile.SoundFile, starts: Iterable[int]) -> Iterator[NDArray[np.float32]]:
    for start in starts:
        sound.seek(start)
        yield sound.read(SCAN_FRAMES, dtype="float32", always_2d=True)


if __name__ == "__main__":
    hiss = np.random.default_rng(0).normal(0, 0.1, 70 * 16_000).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dawn.wav"
        soundfile.write(path, hiss, 16_000, subtype="FLOAT")
        reading = Reading(".wav")
        with path.open("rb") as file:
            blocks = list(soundfile_blocks(file, reading))
        piece = sought(path, 30 * 16_000, 16_000, 16_000)
    print(f"{reading.kind}: {len(blocks)} blocks, {reading.claimed / reading.sample_rate:g} s")
    assert np.array_equal(np.concatenate(blocks)[:, 0], hiss) and reading.claimed == len(hiss)
    assert piece is not None and np.array_equal(piece, hiss[30 * 16_000 : 31 * 16_000])
