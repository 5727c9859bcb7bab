"""A file's own digest, inside it: what was damaged is found before anything parses it. No torch.

    temporary.write_bytes(... blank() ...)      # somewhere in the file: in a header, in metadata, in a JSON string
    seal(temporary)                             # now it holds its digest
    state_of(path)                              # "sound", "damaged", or "unsigned" where there is no digest

The digest is the sha256 of the whole file with 64 zeros where it stands. So one file stays one file, that one rename
makes or not, and those who know nothing of the digest read it as ever. A second file beside it, as a large ONNX graph
has for its weights, is named after its own digest, which stands in the text around the first one's.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path
from typing import BinaryIO, Literal

WORDS = b"sha256 of this file with zeros in its place: "
ZEROS = b"0" * 64
BESIDE = re.compile(rb"; beside it: ([0-9a-f]{64})")
BLOCK = 2**20

State = Literal["sound", "damaged", "unsigned"]


def blank(beside: str = "") -> str:
    """The text that `write_digest` completes.

    beside   sha256 of the file beside it, where there is one
    """
    return (WORDS + ZEROS).decode() + (f"; beside it: {beside}" if beside else "")


def write_digest(path: Path) -> None:
    """Put its digest into a file that holds the blank."""
    with path.open("r+b") as file:
        position = position_of(file)
        assert position is not None, f"{path} has no place for a digest"
        digest = digest_of(file, position)
        file.seek(position)
        file.write(digest)


def state_of(path: Path) -> State:
    """Whether a file, and the one that it names beside itself, is what was written."""
    return inspect(path)[0]


def inspect(path: Path) -> tuple[State, Path | None]:
    """The state of a file, and the one that it names beside itself."""
    with path.open("rb") as file:
        position = position_of(file)
        if position is None:
            return "unsigned", None
        sound = digest_of(file, position) == read_at(file, position, len(ZEROS))
        expected = digest_beside(file, position)
    weights = path.with_name(name_beside(path.name, expected)) if expected else None
    sound = sound and (weights is None or (weights.is_file() and sha256(weights) == expected))
    return "sound" if sound else "damaged", weights


def beside(path: Path) -> Path | None:
    """The file that a signed one names beside itself."""
    with path.open("rb") as file:
        position = position_of(file)
        expected = "" if position is None else digest_beside(file, position)
    return path.with_name(name_beside(path.name, expected)) if expected else None


def name_beside(name: str, digest: str) -> str:
    """classifier.onnx -> classifier.onnx.0123456789abcdef.data: a new one never takes the place of an old one. Of
    OpenVINO's classifier.xml it is classifier.bin, for which its own tools look."""
    return f"{name[:-4]}.bin" if name.endswith(".xml") else f"{name}.{digest[:16]}.data"


def digest_beside(file: BinaryIO, position: int) -> str:
    """The digest of the file beside it, as the text at this position has it; "" where there is none."""
    found = BESIDE.match(read_at(file, position + len(ZEROS), 100))
    return found[1].decode() if found else ""


def position_of(file: BinaryIO) -> int | None:
    """Where the digest stands."""
    file.seek(0)
    start, kept = 0, b""
    while block := file.read(BLOCK):
        across = (kept + block[: len(WORDS)]).find(WORDS)  # where two blocks meet
        found = block.find(WORDS) if across < 0 else across - len(kept)
        if across >= 0 or found >= 0:
            return start + found + len(WORDS)
        start += len(block)
        kept = block[-len(WORDS) :]
    return None


def digest_of(file: BinaryIO, position: int) -> bytes:
    """sha256 in hex, the digest itself read as zeros."""
    sha = hashlib.sha256()
    file.seek(0)
    for length in [BLOCK] * (position // BLOCK) + [position % BLOCK]:  # not all of a large file at a time
        sha.update(file.read(length))
    sha.update(ZEROS)
    file.seek(position + len(ZEROS))
    while block := file.read(BLOCK):
        sha.update(block)
    return sha.hexdigest().encode()


def sha256(path: Path) -> str:
    """Of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_at(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frog.json"
        path.write_text(f'{{"seal": "{blank()}", "species": "Rana ficta", "confidence": 0.91}}')
        write_digest(path)
        print(path.read_text())
        assert state_of(path) == "sound"
        path.write_bytes(path.read_bytes().replace(b"0.91", b"0.97"))
        print("after a change of one letter:", state_of(path))
        assert state_of(path) == "damaged"
