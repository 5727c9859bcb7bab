"""What FFmpeg reads of a sound file: m4a, aac, wma, and what libsndfile stumbles over, one try per packet.

for block in ffmpeg_blocks(file, reading): ...      # (frames, channels); what happens is noted in `reading`
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sounds.damage import Reading, are_integers, expanded, spread_starts, unfit
from sounds.headers import SHAPES, Header, mended

if TYPE_CHECKING:  # FFmpeg is slow to import, and only asked where libsndfile knows no answer
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

HOLE_SECONDS, LONGEST_HOLE_SECONDS = 0.05, 60.0  # smaller jumps in time are jitter, longer ones damaged timestamps
DEMUXERS = "aac,aiff,asf,caf,flac,matroska,mov,mp3,ogg,w64,wav"  # no playlists: a recording opens no other file
TIMELESS = frozenset({"aac", "mp3"})  # demuxers that guess times and lengths from the bytes
SAMPLE_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}  # FFmpeg's words, numpy's


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
            return are_integers(lambda number: ffmpeg_pieces_of(container, stream, spread_starts(frames, number)))
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

    position = 0
    try:
        with ffmpeg_opened(file, reading.header) as (container, stream):
            if stream is None:
                return
            names = container.format.name.split(",")
            timed, reading.kind = TIMELESS.isdisjoint(names), names[0].upper()
            for piece in stream_pieces(container, stream, timed, reading):
                yield piece
                position += len(piece)
            if reading.broken and not timed:
                reading.faults.append("times after the damage may be early")
    except (FFmpegError, ValueError) as error:  # a ValueError for a frame shorter than it says
        if position or reading.frames:
            words = error.strerror if isinstance(error, FFmpegError) else str(error)
            reading.faults.append(f"decoding broke off ({words})")


def stream_pieces(
    container: InputContainer, stream: AudioStream, timed: bool, reading: Reading
) -> Iterator[NDArray[np.float32]]:
    """The pieces of one stream, up to where its rate or its channels change.

    timed   whether its timestamps are worth looking at
    """
    position, origin = 0, None  # origin: the timestamp of position 0
    for frame in (frame for packet in container.demux(stream) for frame in packet_frames(packet, reading)):
        piece, stated = frame_samples(frame), frame.sample_rate
        rate = expanded(stated, reading.header.expansion)
        # the first frame says what it is, and whether that can be read
        if not position and not reading.frames:
            reading.refusal = unfit(stated, piece.shape[1], reading.channel)
            reading.sample_rate, reading.channels = rate, piece.shape[1]
            if timed and not reading.claimed and stream.duration and stream.time_base:
                reading.claimed = int(stream.duration * stream.time_base * stated)
        if (rate, piece.shape[1]) != (reading.sample_rate, reading.channels):
            reading.faults.append(f"turns into {piece.shape[1]} channels at {stated} Hz on the way")
            return
        if reading.refusal:
            return
        # silence for what was lost in between
        if timed and frame.pts is not None and frame.time_base:
            stamp = round(frame.pts * frame.time_base * stated)
            origin = stamp - position if origin is None else origin
            hole = stamp - origin - position
            if HOLE_SECONDS * stated < hole <= LONGEST_HOLE_SECONDS * stated:
                yield np.zeros((hole, piece.shape[1]), np.float32)
                position, reading.silenced = position + hole, reading.silenced + hole
        yield piece
        position += len(piece)


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


if __name__ == "__main__":
    import soundfile

    hiss = np.random.default_rng(0).normal(0, 0.1, (48_000, 2)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dawn.flac"
        soundfile.write(path, hiss, 16_000)
        due = soundfile.read(path, dtype="float32")[0]
        reading = Reading(".flac")
        with path.open("rb") as file:
            sound = np.concatenate(list(ffmpeg_blocks(file, reading)))
    print(f"{reading.kind}: {len(sound)} frames of {reading.channels} channels at {reading.sample_rate} Hz")
    assert np.array_equal(sound, due) and reading.kind == "FLAC" and not reading.faults
