"""The texts that recorders write into their files beside the sound: GUANO, WAMD, comments; and how slowly it plays.

    dict(chunks(file))          # guan, wamd, comment, artist of an open file
    expansion_in(file)          # 10 where the sound was written down ten times slower than it was

Reads    the chunks of WAV files, the comments of FLAC files; never their sound

Bat detectors of the old kind record at their true rate and write a tenth of it into the header, so that people hear the
calls: TE:10 in GUANO, or in words in a comment. Who opens such a file is given the true rate, and so true seconds and
frequencies. Where files do not say so, `undo_expansion` says it for all of this process and those that it starts.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from runtime.addresses import size_of

MOST_CHUNKS, MOST_BYTES = 1_000, 2**20  # of a file, of a chunk, that are looked at
LISTED_TEXTS = {b"ICMT": "comment", b"IART": "artist"}
ASSUMED = "WILDWHISPER_TIME_EXPANSION"  # environment variable: the factor of files that say nothing
MOST_EXPANSION = 100
EXPANDED = re.compile(
    r"(?:(?:^|[\s;|])TE\s*[:=]|(?i:time[ _-]?expan(?:sion|ded)(?: factor)?)\s*[:=]?)\s*x?\s*(\d{1,3})\b"
)


def undo_expansion(factor: int) -> None:
    """Take files that say nothing of it to be so many times slower than the sound was, here and in processes begun
    from here; 1 and 0 for as quick."""
    assert 0 <= factor <= MOST_EXPANSION, f"--time_expansion {factor}: give 1 to {MOST_EXPANSION}, such as 10"
    if factor > 1:
        os.environ[ASSUMED] = str(factor)
    else:
        os.environ.pop(ASSUMED, None)


def assumed_expansion() -> int:
    """The factor of files that say nothing."""
    given = os.environ.get(ASSUMED, "")
    return int(given) if given.isascii() and given.isdecimal() and 1 <= int(given) <= MOST_EXPANSION else 1


def expansion_in(file: BinaryIO) -> int:
    """How many times slower than it was the sound of an open file is written down; what it says itself counts."""
    file.seek(0)
    for name, text in chunks(file):
        found = EXPANDED.search(plain_text(text)) if name in ("guan", "comment") else None
        if found and 1 <= int(found[1]) <= MOST_EXPANSION:
            return int(found[1])
    return assumed_expansion()


def chunks(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """The chunks of a WAV file, or blocks of a FLAC file, that say something about the recording: guan, wamd, comment,
    artist; none where it is another kind of file."""
    head = file.read(12)
    if head[:4] == b"fLaC":
        file.seek(4)
        yield from flac_blocks(file)
    elif head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:] == b"WAVE":
        size, long = size_of(file), 0
        for _ in range(MOST_CHUNKS):
            header = file.read(8)
            length, start = int.from_bytes(header[4:], "little"), file.tell()
            if len(header) < 8 or not header[:4].isascii() or start > size:
                return
            if header[:4] in (b"ds64", b"guan", b"wamd", b"LIST"):
                body = file.read(min(length, MOST_BYTES))
                long = int.from_bytes(body[8:16], "little") if header[:4] == b"ds64" else long
                yield from wav_chunk(header[:4], body)
            length = long if header[:4] == b"data" and length == 2**32 - 1 and long else length
            file.seek(min(start + length + length % 2, size))


def wav_chunk(name: bytes, body: bytes) -> Iterator[tuple[str, bytes]]:
    """What one chunk says; a list of texts has chunks of its own."""
    if name in (b"guan", b"wamd"):
        yield name.decode(), body
    offset = 4
    while name == b"LIST" and body[:4] == b"INFO" and offset + 8 <= len(body):
        length = int.from_bytes(body[offset + 4 : offset + 8], "little")
        if kind := LISTED_TEXTS.get(body[offset : offset + 4]):
            yield kind, body[offset + 8 : offset + 8 + length]
        offset += 8 + length + length % 2


def flac_blocks(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """The comments of a FLAC file, and the chunks of the WAV file it was made of, where its encoder kept them."""
    for _ in range(MOST_CHUNKS):
        header = file.read(4)
        if len(header) < 4:
            return
        kind, length, start = header[0] & 127, int.from_bytes(header[1:], "big"), file.tell()
        body = file.read(min(length, MOST_BYTES)) if kind in (2, 4) else b""
        if kind == 2 and body[:4] == b"riff":
            yield from wav_chunk(body[4:8], body[12:])
        offset = 4 + int.from_bytes(body[:4], "little") + 4  # behind the encoder's name and the number of comments
        while kind == 4 and offset + 4 <= len(body):
            size = int.from_bytes(body[offset : offset + 4], "little")
            key, _, value = body[offset + 4 : offset + 4 + size].partition(b"=")
            if named := {b"COMMENT": "comment", b"DESCRIPTION": "comment", b"ARTIST": "artist"}.get(key.upper()):
                yield named, value
            offset += 4 + size
        if header[0] & 128:  # the last one
            return
        file.seek(start + length)


def plain_text(raw: bytes) -> str:
    """A text out of a file: no zeros, nothing that steers a terminal; bytes that are no UTF-8 become a U+FFFD."""
    text = raw.decode("utf-8", "replace").replace("\0", " ").replace("\r", " ").strip()
    if text.replace("\n", "").isprintable():
        return text
    return "".join(letter if letter == "\n" or letter.isprintable() else " " for letter in text).strip()


if __name__ == "__main__":
    guano = b"GUANO|Version:1.0\nTE:10\nSamplerate:384000\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bat.wav"
        path.write_bytes(b"RIFF\0\0\0\0WAVEguan" + len(guano).to_bytes(4, "little") + guano)
        with path.open("rb") as file:
            print(dict(chunks(file)))
            assert expansion_in(file) == 10, "it says so itself"
