"""A file's own digest, inside it: whole, damaged, or without one."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from runtime.digests import BLOCK, WORDS, ZEROS, beside, blank, name_beside, sha256, state_of, write_digest


def sealed(path: Path, before: bytes = b"", behind: bytes = b"") -> Path:
    path.write_bytes(before + blank().encode() + behind)
    write_digest(path)
    return path


def test_the_digest_is_the_sha256_of_the_file_with_zeros_in_its_place(tmp_path: Path) -> None:
    path = sealed(tmp_path / "a", b"frogs ", b" and owls")
    place = len(b"frogs " + WORDS)
    content = path.read_bytes()
    zeros = content[:place] + ZEROS + content[place + 64 :]
    assert content[place : place + 64].decode() == hashlib.sha256(zeros).hexdigest() and state_of(path) == "sound"


@pytest.mark.parametrize("before", [0, 1, BLOCK - 60, BLOCK - 20, BLOCK, 2 * BLOCK + 7])
def test_the_seal_may_stand_anywhere_and_any_flipped_bit_is_found(before: int, tmp_path: Path) -> None:
    path = sealed(tmp_path / "a", bytes(before), bytes(BLOCK // 2))
    assert state_of(path) == "sound"
    content = path.read_bytes()
    for place in map(int, np.random.default_rng(0).integers(0, len(content), 10)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        assert state_of(path) != "sound"


def test_a_file_without_a_seal_says_so_and_gets_none(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"of a hub")
    assert state_of(path) == "unsigned" and beside(path) is None
    with pytest.raises(AssertionError, match="has no place for a digest"):
        write_digest(path)


def test_the_file_beside_it_belongs_to_it(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    told = sha256(tmp_path / "weights")
    weights = (tmp_path / "weights").rename(tmp_path / name_beside("a", told))
    (tmp_path / "a").write_text(f"graph {blank(told)}")
    write_digest(tmp_path / "a")
    assert beside(tmp_path / "a") == weights and state_of(tmp_path / "a") == "sound"
    assert name_beside("a.xml", told) == "a.bin"
    weights.write_bytes(b"weighty")
    assert state_of(tmp_path / "a") == "damaged"
    weights.unlink()
    assert state_of(tmp_path / "a") == "damaged"
