"""Headers of sound files that lie: what a WAV, RF64, W64, AIFF, CAF or MP4 file leaves out, and how much it makes up.

    header = read_header(file)
    mended(file, header)                # reads as the file would have been if its recorder had come to finish it

Reads    the chunks of an open file; nothing else is believed of them but their names and sizes
Writes   nothing: a file is mended in memory while it is read

A recorder that loses its power leaves the sizes it wrote last, so samples follow the end that the header names. What
follows there and is no chunk is sound, up to the chunks in which the file ends.
"""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

from runtime.addresses import size_of
from runtime.files import Positioned
from sounds.notes import expansion_in

MOST_CHUNKS = 10_000  # of a file that are looked at
STUB = 1024  # bytes behind the sound that may be anything; more, and no chunk, is sound
MOST_BYTES = 2**31 - 2**16  # a size that recorders write before they know the true one; so in the 32 bits of WAV, AIFF
MOST_FRAMES = 2**40  # the same where sizes have 64 bits
LAST_BYTES = 2**20  # within so many from its end the chunks in which a file ends begin
LARGEST_WAV = 2**32 - 2**16  # bytes of sound that a WAV header can speak of
TO_THE_END = 8, 0  # sizes of the whole and of the sound by which libsndfile takes a WAV file for one to be read whole
GLUED_SIGNS = frozenset({b"RIFF", b"RF64", b"data", b"fLaC", b"OggS", b"FORM"})  # behind the samples of a WAV file
LAST_NAMES = {  # of chunks that are written behind the sound
    "little": (b"LIST", b"guan", b"GUAN", b"id3 ", b"ID3 ", b"bext", b"iXML", b"wamd", b"cue ", b"_PMX", b"JUNK"),
    "big": (b"NAME", b"AUTH", b"(c) ", b"ANNO", b"COMT", b"MARK", b"INST", b"ID3 ", b"APPL", b"info", b"free", b"strg"),
}  # fmt: skip
W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
PLAIN_AIFC = (b"NONE", b"sowt", b"twos")  # samples of as many bits as the header says
AIFC_PACKETS = {  # of one channel: bytes, and how many frames the header counts in it, or one where it counts packets
    **dict.fromkeys((b"raw ", b"ulaw", b"ULAW", b"alaw", b"ALAW"), (1, 1)),
    **dict.fromkeys((b"in32", b"fl32", b"FL32"), (4, 1)),
    **dict.fromkeys((b"fl64", b"FL64"), (8, 1)),
    b"in24": (3, 1),
    b"ima4": (34, 1),
    b"GSM ": (33, 160),
}


@dataclass(frozen=True)
class Header:
    """How far the header of a file can be believed."""

    patches: tuple[tuple[int, bytes], ...] = ()  # what it should say, and at which byte
    end: int = 0  # bytes of the file, without what belongs to no chunk of it
    claims: float = 1.0  # how many times as many samples as there are it speaks of, where it is wrong
    short: bool = False  # it speaks of fewer samples than follow
    glued: bool = False  # a second recording follows
    expansion: int = 1  # how many times lower a sample rate it states than the sound was recorded at

    @property
    def mendable(self) -> bool:
        return bool(self.patches)


@dataclass(frozen=True)
class Shape:
    """How the chunks of a kind of file are written."""

    first: int  # byte of the first chunk
    name_bytes: int  # 4, or 16 where names are long numbers
    size_bytes: int  # 4 or 8
    order: Literal["little", "big"]
    padded: int  # chunks begin at multiples of so many bytes
    inclusive: bool  # the size of a chunk counts its name and itself
    sound: bytes  # name of the chunk with the samples
    lead: int  # bytes in that chunk before the samples

    @property
    def head(self) -> int:
        return self.name_bytes + self.size_bytes


WAV = Shape(12, 4, 4, "little", 2, False, b"data", 0)
SHAPES = {
    b"RIFF": WAV,
    b"RIFX": Shape(12, 4, 4, "big", 2, False, b"data", 0),
    b"RF64": WAV,
    b"BW64": WAV,
    b"riff": Shape(40, 16, 8, "little", 8, True, W64_DATA, 0),
    b"FORM": Shape(12, 4, 4, "big", 2, False, b"SSND", 8),
    b"caff": Shape(8, 4, 8, "big", 1, False, b"data", 4),
}


@dataclass(frozen=True)
class Chunk:
    """A part of a file: where its content begins, and how long that is said to be."""

    name: bytes
    start: int
    size: int
    stated: int  # as its own size says, before a chunk in front of it is believed instead


def read_header(file: BinaryIO) -> Header:
    """What a file leaves out or makes up; of MP4 files only whether a second one follows.

    Errors: none; of a file without such a header nothing is said.
    """
    return replace(header_in(file), expansion=expansion_in(file))


def header_in(file: BinaryIO) -> Header:
    """The same, but for the texts in the file."""
    size = size_of(file)
    file.seek(0)
    kind = file.read(4)
    if kind not in SHAPES:
        return Header(end=size, glued=is_second_movie(file))
    shape, before = SHAPES[kind], list[Chunk]()
    for chunk in chunks_of(file, kind, shape, size):
        if chunk.name == shape.sound:
            return header_of(file, kind, shape, before, chunk, size)
        before.append(chunk)
    return Header(end=size)


def chunks_of(file: BinaryIO, kind: bytes, shape: Shape, size: int) -> Iterator[Chunk]:
    """The chunks of a file, as far as one follows the other."""
    offset, long_data = shape.first, 0
    for _ in range(MOST_CHUNKS):
        file.seek(offset)
        head = file.read(shape.head)
        if not is_chunk(head, shape):
            return
        stated = size_in(head, shape)
        if head[:4] == b"ds64":
            file.seek(offset + 16)
            long_data = int.from_bytes(file.read(8), "little")
        length = long_data if kind in (b"RF64", b"BW64") and head[:4] == b"data" and stated == 2**32 - 1 else stated
        name, start = head[: shape.name_bytes], offset + shape.head
        yield Chunk(name, start, length, stated)
        offset = -(-(start + min(length, size)) // shape.padded) * shape.padded


def size_in(head: bytes, shape: Shape) -> int:
    """What the head of a chunk says of the length of its content; that of CAF may be -1, which is as long as it can."""
    size = int.from_bytes(head[shape.name_bytes :], shape.order)
    return max(0, size - shape.head) if shape.inclusive else size


def is_chunk(head: bytes, shape: Shape = WAV) -> bool:
    """Whether a chunk begins with these bytes: its name begins with four plain letters."""
    return len(head) == shape.head and head[:4].isascii() and head[:4].decode("ascii").isprintable()


def header_of(file: BinaryIO, kind: bytes, shape: Shape, before: list[Chunk], sound: Chunk, size: int) -> Header:
    """What follows the samples that the header speaks of."""
    wide = shape.size_bytes == 8 or (kind in (b"RF64", b"BW64") and sound.stated == 2**32 - 1)
    there, unknown = size - sound.start, sound.size >= (MOST_FRAMES if wide else MOST_BYTES)
    claims = max(1.0, sound.size / there) if there > 0 and not unknown else 1.0
    stated_end = sound.start + sound.size
    # as a recorder that cannot come back leaves it: not every decoder reads that
    if unknown and (wide or stated_end > size):
        end = end_of_sound(file, shape, sound.start, size)
        known = tuple(patches(file, kind, shape, before, sound, end))
        if known or wide:
            return Header(known, last_byte(sound, end, size), claims, not known)
    file.seek(min(stated_end, size))
    glued = file.read(4) in GLUED_SIGNS
    if stated_end >= size or glued or goes_on(file, shape, stated_end, size):
        return Header((), size, claims, False, glued)
    end = end_of_sound(file, shape, stated_end, size)
    # else never finished, whatever follows: a microphone's zeros, say
    begun = sound.size > STUB or size - stated_end <= STUB
    if end - stated_end <= STUB or (begun and is_blank(file, stated_end, end)):
        return Header((), size, claims, False, glued)
    claims = max(0, sound.size - shape.lead) / (end - sound.start - shape.lead)
    return Header(tuple(patches(file, kind, shape, before, sound, end)), last_byte(sound, end, size), claims, True)


def last_byte(sound: Chunk, end: int, size: int) -> int:
    """Where a mended file ends: with its samples, where only that says how many there are."""
    return end if end - sound.start > LARGEST_WAV else size


def goes_on(file: BinaryIO, shape: Shape, offset: int, size: int) -> bool:
    """Whether a chunk follows there, and the rest of the file is chunks: what lies behind them is no longer sound."""
    for start in (-(-offset // shape.padded) * shape.padded, offset):  # some leave the padding out
        file.seek(start)
        head = file.read(shape.head)
        if is_chunk(head, shape) and start + shape.head + size_in(head, shape) <= size + 1:
            return True
    return False


def end_of_sound(file: BinaryIO, shape: Shape, stated_end: int, size: int) -> int:
    """Where the samples end that follow the end which the header states: before the chunks in which the file ends."""
    first = max(stated_end, size - LAST_BYTES)
    file.seek(first)
    tail = file.read()
    ends = [
        first + offset
        for name in LAST_NAMES[shape.order]
        for offset in every(tail, name)
        if chain_ends(tail[offset:], shape)
    ]
    return min(ends, default=size)


def is_blank(file: BinaryIO, start: int, end: int) -> bool:
    """Whether there are only zeros, which nobody wrote, between two positions; in blocks, from the end."""
    while end > start:
        offset = max(start, end - LAST_BYTES)
        file.seek(offset)
        if file.read(end - offset).strip(b"\0"):
            return False
        end = offset
    return True


def every(content: bytes, piece: bytes) -> Iterator[int]:
    """All offsets at which a piece begins."""
    offset = content.find(piece)
    while offset >= 0:
        yield offset
        offset = content.find(piece, offset + 1)


def chain_ends(tail: bytes, shape: Shape) -> bool:
    """Whether a file ends here in chunks, one behind the other, and in nothing else."""
    offset = 0
    while is_chunk(tail[offset : offset + shape.head], shape):
        offset += shape.head + size_in(tail[offset : offset + shape.head], shape)
        if offset >= len(tail):
            return offset <= len(tail) + 1
        offset += offset % shape.padded if not tail[offset : offset + 1].strip(b"\0") else 0
    return False


def patches(
    file: BinaryIO, kind: bytes, shape: Shape, before: list[Chunk], sound: Chunk, end: int
) -> Iterator[tuple[int, bytes]]:
    """What the header of a file should say if its samples end there; nothing where it has no room for that."""
    length, chunks = end - sound.start, {chunk.name: chunk for chunk in before}
    wide = kind in (b"RF64", b"BW64") and b"ds64" in chunks
    if shape.size_bytes == 4 and length > LARGEST_WAV and not wide:
        if kind == b"RIFF":
            yield 4, struct.pack("<I", TO_THE_END[0])
            yield sound.start - 4, struct.pack("<I", TO_THE_END[1])
        return
    listed = b"pakt" in chunks and sound.size >= MOST_FRAMES  # the table was finished, the size never meant to be
    if kind == b"caff" and not listed and not is_plain_caf(file, chunks.get(b"desc")):
        return
    size_offset = sound.start - shape.size_bytes
    stated = length + (shape.head if shape.inclusive else 0)
    if wide:
        yield chunks[b"ds64"].start + 8, struct.pack("<Q", length)
        stated = 2**32 - 1
    yield size_offset, stated.to_bytes(shape.size_bytes, shape.order)
    if kind == b"FORM" and b"COMM" in chunks:
        frames = aiff_frames(file, chunks[b"COMM"], sound, length - shape.lead)
        yield chunks[b"COMM"].start + 2, frames.to_bytes(4, "big")


def is_plain_caf(file: BinaryIO, form: Chunk | None) -> bool:
    """Whether a CAF file says how many bytes a packet has: others have a table of packets, which ends where it ends."""
    if form is None:
        return False
    file.seek(form.start)
    return bool(any(file.read(20)[16:]))


def aiff_frames(file: BinaryIO, form: Chunk, sound: Chunk, length: int) -> int:
    """How many frames so many bytes of an AIFF file hold, as its header counts them."""
    file.seek(form.start)
    channels, frames, bits = (int(number) for number in struct.unpack(">HIH", file.read(8)))
    file.seek(form.start + 18)
    code = file.read(4) if form.size > 18 else b"NONE"
    size, counted = (-(-bits // 8), 1) if code in PLAIN_AIFC else AIFC_PACKETS.get(code, (0, 0))
    if size and channels:
        return length // (size * channels) * counted
    spoken = sound.size - 8  # bytes of an unknown code that the frames belong to; of a few of them nothing follows
    return min(2**32 - 1, frames * length // spoken) if spoken > STUB else frames


def is_second_movie(file: BinaryIO) -> bool:
    """Whether an MP4 file is followed by another one."""
    offset = begun = 0
    for _ in range(MOST_CHUNKS):
        file.seek(offset)
        header = file.read(16)
        length = int.from_bytes(header[8:] if header[:4] == b"\0\0\0\1" else header[:4], "big")
        begun += header[4:8] == b"ftyp"
        if not begun or length < 8:
            break
        offset += min(length, MOST_FRAMES)
    return begun > 1


def mended(file: BinaryIO, header: Header) -> BinaryIO:
    """The file itself, or where its header lies one that reads like it with the header as it should be."""
    return io.BufferedReader(Mended(file, header)) if header.mendable else file


class Mended(Positioned):
    """An open file of which some bytes read differently."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self.file, self.header, self.size = file, header, header.end

    def fileno(self) -> int:
        return self.file.fileno()

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        self.file.seek(self.position)
        content = bytearray(self.file.read(max(0, min(len(view), self.size - self.position))))
        for start, piece in self.header.patches:
            low, high = max(start, self.position), min(start + len(piece), self.position + len(content))
            if low < high:
                content[low - self.position : high - self.position] = piece[low - start : high - start]
        view[: len(content)] = content
        self.position += len(content)
        return len(content)


if __name__ == "__main__":
    samples = bytes(range(1, 251)) * 400
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", 60_036, b"WAVE") + form + struct.pack("<4sI", b"data", 60_000)
    notes = struct.pack("<4sI", b"guan", 20) + b"GUANO|Version: 1.0\n\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "owl.wav"
        path.write_bytes(head + samples + notes)
        with path.open("rb") as file:
            header = read_header(file)
            content = mended(file, header).read()
        path.write_bytes(head.replace(struct.pack("<I", 60_000), struct.pack("<I", 100_000)) + samples + notes)
        with path.open("rb") as file:
            whole = read_header(file)
    size = int.from_bytes(content[40:44], "little")
    print(f"the header speaks of 60000 bytes of sound, {size} bytes follow")
    assert header.short and size == len(samples) and content[44:] == samples + notes and not whole.short
