"""Ogg files, page by page: what is damaged, missing or unended in them, which libsndfile passes over without a word.

    ogg_fault(file)                     # nothing, or: damaged in the page at byte 81920

Reads    the pages of an open file, never its sound
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from pathlib import Path
from typing import BinaryIO

from runtime.addresses import size_of

OGG_SPAN = 2**17  # bytes: two of the largest pages
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte with its bits the other way round


def ogg_fault(file: BinaryIO, first: int = 0, last: int | None = None) -> str:
    """What is wrong with the pages of an Ogg file, or nothing; libsndfile leaves out a damaged page without a word.

    first, last  bytes between which to look, `first` from the end where it is negative
    """
    file.seek(0)
    if file.read(4) != b"OggS":
        return ""
    size = size_of(file)
    file.seek(max(0, size + first if first < 0 else first))
    start = file.tell() + max(0, file.read(OGG_SPAN).find(b"OggS"))
    file.seek(start)
    sounding = start > 0  # past the pages that open a stream
    due: dict[bytes, int] = {}  # the number of the next page, by stream
    reached: dict[bytes, int] = {}  # the sample that a stream has come to
    # page by page: whole, undamaged, the next of its stream, not back in time
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
    file.seek(-min(2**17, size_of(file)), os.SEEK_END)
    tail = file.read()
    return bool(tail[tail.rfind(b"OggS") + 5] & 4)


def last_page_start(file: BinaryIO) -> int:
    """The frame at which the last page of an Ogg file begins, 0 when that is not known.

    Within that page libsndfile's seek is off by the padding that ends a Vorbis stream (libsndfile issue 885).
    """
    file.seek(0)
    if file.read(4) != b"OggS":
        return 0
    file.seek(-min(2**17, size_of(file)), os.SEEK_END)
    positions = [int.from_bytes(page[2:10], "little", signed=True) for page in file.read().split(b"OggS")[1:]]
    ends = [position for position in positions if position >= 0]  # of each page, -1 where no packet ends
    return ends[-2] if len(ends) > 1 else 0


if __name__ == "__main__":
    pages = b""
    for number, kind, body in ((0, 2, b"head"), (1, 0, b"sound"), (2, 4, b"end")):
        page = struct.pack("<4sBBqIIIBB", b"OggS", 0, kind, 100 * number, 7, number, 0, 1, len(body)) + body
        pages += page[:22] + ogg_checksum(page) + page[26:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "owl.ogg"
        faults: list[str] = []
        for content in (pages, pages.replace(b"sound", b"sOund"), pages[:33] + pages[66:], pages[:-1]):
            path.write_bytes(content)
            with path.open("rb") as file:
                faults.append(ogg_fault(file))
    print(*faults[1:], sep="\n")
    due = ["", "damaged in the page at byte 32", "pages are missing before byte", "breaks off within a page"]
    assert faults[0] == "" and all(fault.startswith(words) for fault, words in zip(faults, due, strict=True))
