"""Pages of Ogg files: nothing that is damaged or missing goes unnoticed."""

from __future__ import annotations

import struct
from pathlib import Path

from broken import (
    noise,
    overwritten,
    with_beep,
    write,
)
from opened import beep_time, whole

from sounds.ogg import ogg_checksum


def test_one_flipped_bit_in_an_ogg_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ogg", with_beep(noise(10.0), 8.0), subtype="VORBIS")
    middle = path.stat().st_size // 2
    damaged = overwritten(path, middle, bytes([path.read_bytes()[middle] ^ 4]))
    assert "damaged in the page" in whole(damaged)[1].reason
    assert abs(beep_time(damaged) - 8.0) < 0.05


def test_the_checksum_of_ogg_follows_its_definition() -> None:
    register = 0
    for byte in b"OggS":  # bit by bit: polynomial 04c11db7, begun at 0, highest bit first
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ 0x04C11DB7 * (register >> 31)) & 0xFFFFFFFF
    assert ogg_checksum(b"OggS") == struct.pack("<I", register)
