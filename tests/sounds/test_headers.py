"""Headers that lie: whatever follows the samples they speak of and is no chunk is sound, and it is all read."""

import io
import os
import struct
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
from broken import RATE, noise, number, put
from numpy.typing import NDArray

from sounds.audio import examine_header, open_recording, read_samples
from sounds.damage import Outcome
from sounds.headers import SHAPES, chunks_of, mended, read_header

SECONDS = 20
KINDS = [
    *((kind, code, None) for kind in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF") for code in ("PCM_16", "PCM_24")),
    *((kind, "FLOAT", None) for kind in ("WAV", "RF64", "W64", "AIFF", "CAF")),
    *(("WAV", code, None) for code in ("PCM_U8", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610")),
    *(("AIFF", code, None) for code in ("ULAW", "IMA_ADPCM")),
    ("WAV", "PCM_16", "BIG"),
    ("AIFF", "PCM_16", "LITTLE"),
]
LAST = {
    "WAV": b"guan" + number(40) + b"GUANO|Version: 1.0\nMake: Song Meter Mini\n"[:40],
    "RF64": b"LIST" + number(4) + b"INFO",
    "AIFF": b"NAME" + struct.pack(">I", 4) + b"owl ",
    "CAF": b"info" + struct.pack(">Q", 4) + bytes(4),
}


def file_of(kind: str, code: str = "PCM_16", endian: str | None = None, seconds: int = SECONDS) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(seconds), RATE, code, endian=endian, format=kind)
    return file.getvalue()


def lying(content: bytes, share: float) -> bytes:
    """The same bytes, as if the header had been written last when so much of the sound was there."""
    file, before, kind = io.BytesIO(content), dict[bytes, int](), content[:4]
    shape = SHAPES[kind]
    for chunk in chunks_of(file, kind, shape, len(content)):
        before[chunk.name] = chunk.start
        if chunk.name != shape.sound:
            continue
        size = int((chunk.size - shape.lead) * share) // 12 * 12 + shape.lead
        if kind == b"RF64":
            return put(content, before[b"ds64"] + 8, struct.pack("<QQ", size, int(SECONDS * RATE * share)))
        if kind == b"FORM":
            frames = int.from_bytes(content[before[b"COMM"] + 2 :][:4], "big")
            content = put(content, before[b"COMM"] + 2, int(frames * share).to_bytes(4, "big"))
        stated = size + (shape.head if shape.inclusive else 0)
        return put(content, chunk.start - shape.size_bytes, stated.to_bytes(shape.size_bytes, shape.order))
    raise AssertionError("no samples")


def whole(path: Path) -> tuple[NDArray[np.float32], Outcome]:
    recording = open_recording(path, RATE)
    return np.concatenate([np.zeros(0, np.float32), *recording.waveform()]), recording.outcome


@pytest.mark.parametrize(("kind", "code", "endian"), KINDS, ids=lambda value: str(value))
def test_all_samples_behind_a_header_that_speaks_of_fewer_are_read(
    kind: str, code: str, endian: str | None, tmp_path: Path
) -> None:
    path, content = tmp_path / "owl.wav", file_of(kind, code, endian)
    path.write_bytes(content)
    due, honest = whole(path)
    assert honest.status == "ok" and len(due) >= SECONDS * RATE
    for share in (0.0, 0.4, 0.6, 0.9):
        path.write_bytes(lying(content, share))
        sound, outcome = whole(path)
        count = min(len(sound), len(due))  # a block of some codes may be added
        assert count >= SECONDS * RATE and np.array_equal(sound[:count], due[:count]), share
        assert outcome.status == "salvaged" and outcome.reason.startswith("its header speaks of fewer samples"), share
        assert share == 0 or outcome.claimed_seconds == pytest.approx(share * SECONDS, abs=0.1)
        assert np.array_equal(read_samples(path, 19 * RATE, RATE, RATE), due[19 * RATE : 20 * RATE])
        assert examine_header(path).seconds == outcome.seconds


CODES = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM")


@pytest.mark.parametrize(("code", "channels"), [*((code, count) for code in CODES for count in (1, 2)), ("GSM610", 1)])
def test_whatever_size_an_aiff_file_gives_its_samples_all_are_read(code: str, channels: int, tmp_path: Path) -> None:
    """Whatever count of frames it gives, the true one among them."""
    file, path = io.BytesIO(), tmp_path / "owl.aif"
    soundfile.write(file, np.stack([noise(1)] * channels, axis=1), RATE, code, format="AIFF")
    content = file.getvalue()
    path.write_bytes(content)
    due, honest = whole(path)
    assert honest.status == "ok" and RATE <= len(due) < RATE + 160
    form, sound = content.index(b"COMM") + 8, content.index(b"SSND") + 8
    frames = int.from_bytes(content[form + 2 : form + 6], "big")
    for size in (*range(21), 2**32 - 1):
        for counted in (frames, 0 if size % 2 else 2**32 - 1):
            stale = put(content, form + 2, counted.to_bytes(4, "big"))
            path.write_bytes(put(stale, sound - 4, size.to_bytes(4, "big")))
            read, outcome = whole(path)
            assert np.array_equal(read, due), (size, counted)
            assert outcome.status == ("ok" if size == 2**32 - 1 else "salvaged"), (size, counted)
            assert "could be read" not in outcome.reason, "nothing is missed"


def test_the_samples_of_a_code_with_a_size_of_its_own_are_counted_by_that(tmp_path: Path) -> None:
    """QuickTime says 16 bits of u-law and of packets; of a code that is not known nothing is made up."""
    for code, per_second in (("ULAW", 1), ("ALAW", 1), ("IMA_ADPCM", 1 / 64), ("GSM610", 1)):
        content = file_of("AIFF", code, seconds=3)
        form, sound = content.index(b"COMM") + 8, content.index(b"SSND") + 8
        path, sixteen = tmp_path / "owl.aif", put(content, form + 6, struct.pack(">H", 16))
        for size in (0, 8, 9):
            path.write_bytes(put(sixteen, sound - 4, struct.pack(">I", size)))
            with path.open("rb") as file:
                frames = mended(file, read_header(file)).read()[form + 2 : form + 6]
            assert int.from_bytes(frames, "big") == pytest.approx(3 * RATE * per_second, abs=160), (code, size)
    unknown = put(content, form + 18, b"XXXX")
    for size, counted in ((0, 48_000), (9, 48_000), (2_008, 2**32 - 1), (5_008, 24_000)):
        stale = put(put(unknown, form + 2, struct.pack(">I", counted)), sound - 4, struct.pack(">I", size))
        path.write_bytes(stale)
        with path.open("rb") as file:
            frames = mended(file, read_header(file)).read()[form + 2 : form + 6]
        length = len(content) - sound - 8
        due = counted if size < 1_024 else min(2**32 - 1, counted * length // (size - 8))
        assert int.from_bytes(frames, "big") == due
        outcome = whole(path)[1]
        assert (outcome.status, outcome.reason.count("\n")) == ("unreadable", 0)
        assert outcome.reason.startswith("begins like an AIFF file, but no sound in it can be decoded")


def unknown_size(content: bytes, size: int) -> bytes:
    """The same bytes, as if their length had not been known when the header was written."""
    kind = content[:4]
    if kind == b"RF64":
        sizes = content.index(b"ds64") + 8
        return put(content, sizes, struct.pack("<QQQ", size, size, size))
    place = content.index(SHAPES[kind].sound) + SHAPES[kind].name_bytes
    return put(content, place, size.to_bytes(8, SHAPES[kind].order))


UNKNOWN = [2**64 - 1, 2**64 - 2, 2**63, 2**63 - 1]  # -1 and -2, the least and the largest with a sign


@pytest.mark.parametrize("size", UNKNOWN)
@pytest.mark.parametrize(
    ("kind", "code"), [*product(("RF64", "CAF", "W64"), ("PCM_16", "PCM_24", "FLOAT", "ULAW")), ("CAF", "ALAC_16")]
)
def test_sound_of_unknown_length_is_read_to_the_end_of_the_file(
    kind: str, code: str, size: int, tmp_path: Path
) -> None:
    content, path = file_of(kind, code), tmp_path / "owl.wav"
    path.write_bytes(content)
    due, honest = whole(path)
    assert (len(due), honest.status) == (SECONDS * RATE, "ok")
    path.write_bytes(unknown_size(content, size))
    sound, outcome = whole(path)
    assert np.array_equal(sound, due) and outcome == honest and outcome.claimed_seconds == SECONDS
    assert np.array_equal(read_samples(path, 19 * RATE, 2 * RATE, RATE), due[19 * RATE :])
    assert examine_header(path).seconds == SECONDS
    if kind == "RF64":  # others end with their samples
        path.write_bytes(unknown_size(content, size) + LAST[kind])
        assert np.array_equal(whole(path)[0], due)


@pytest.mark.parametrize("size", [0, *UNKNOWN])
def test_zeros_alone_are_as_long_as_they_are_and_no_chunk_is_sound(size: int, tmp_path: Path) -> None:
    file, path = io.BytesIO(), tmp_path / "owl.wav"
    soundfile.write(file, np.zeros(SECONDS * RATE, np.float32), RATE, "PCM_16", format="RF64")
    for rest in (b"", LAST["RF64"]):
        path.write_bytes(unknown_size(file.getvalue(), size) + rest)
        sound, outcome = whole(path)
        assert len(sound) == SECONDS * RATE and not sound.any() and outcome.status == "silent"


def test_a_code_that_cannot_be_read_without_its_table_says_so(tmp_path: Path) -> None:
    content, path = file_of("CAF", "ALAC_16"), tmp_path / "owl.caf"
    table = content.index(b"pakt")
    bare = content[:table] + content[content.index(b"data") :]
    why = "begins like a CAF file, its header was never finished and nothing can be decoded without it"
    for stale in (lying(content, 0.0), lying(bare, 0.0), *(unknown_size(bare, size) for size in UNKNOWN)):
        path.write_bytes(stale)
        sound, outcome = whole(path)
        assert not len(sound) and outcome.status == "unreadable"
        assert outcome.reason == f"{why}; copy it again"


def test_a_plain_reader_loses_what_the_header_does_not_speak_of() -> None:
    sound, _ = soundfile.read(io.BytesIO(lying(file_of("WAV"), 0.6)), dtype="float32")
    assert len(sound) == 0.6 * SECONDS * RATE


@pytest.mark.parametrize("kind", LAST)
def test_the_chunks_in_which_a_file_ends_are_no_sound(kind: str, tmp_path: Path) -> None:
    path, content = tmp_path / "owl.wav", file_of(kind)
    path.write_bytes(content + LAST[kind])
    due, honest = whole(path)
    assert (honest.status, len(due)) == ("ok", SECONDS * RATE)
    path.write_bytes(lying(content, 0.6) + LAST[kind])
    sound, outcome = whole(path)
    assert outcome.status == "salvaged" and np.array_equal(sound, due)


def test_long_notes_space_set_aside_and_a_little_rest_are_no_sound(tmp_path: Path) -> None:
    content, path = file_of("WAV"), tmp_path / "owl.wav"
    notes = b"LIST" + number(200_000) + b"INFO".ljust(200_000, b"x")
    for rest in (notes, bytes(100_000), b"\1" * 1_000, b"JUNK" + number(10) + bytes(10) + notes, notes + b"\1" * 5_000):
        path.write_bytes(content + rest)
        assert (whole(path)[1].status, whole(path)[1].seconds) == ("ok", SECONDS), rest[:8]
    path.write_bytes(content + b"\1" * 5_000)  # the control: a rest that is none of these
    assert whole(path)[1].seconds == SECONDS + 2_500 / RATE


def test_a_chunk_without_its_padding_is_a_chunk(tmp_path: Path) -> None:
    file, path = io.BytesIO(), tmp_path / "owl.wav"
    soundfile.write(file, noise(5)[:-1], RATE, "PCM_U8", format="WAV")
    content = file.getvalue()[: 44 + 5 * RATE - 1]
    for padding in (b"", b"\0"):
        path.write_bytes(content + padding + b"guan" + number(5_000) + b"GUANO" * 1_000)
        assert (whole(path)[1].status, whole(path)[1].seconds) == ("ok", 5 - 1 / RATE)


@pytest.mark.parametrize("rest", [b"", LAST["WAV"]], ids=["sound alone", "a chunk behind it"])
@pytest.mark.parametrize("size", [5 * 10**9, 9 * 10**9])
def test_of_too_much_sound_for_a_wav_header_every_second_is_found_at_once(
    size: int, rest: bytes, tmp_path: Path
) -> None:
    """A night of ultrasound of a recorder that writes on; sizes have 32 bits, of which the highest are lost."""
    path, content = tmp_path / "owl.wav", file_of("WAV", seconds=1)
    for stated in ((size - 44) % 2**32, 2**32 - 1, 0):
        path.write_bytes(put(content, 40, number(stated)))
        os.truncate(path, size - 4_000)  # a hole, no disk is filled
        with path.open("ab") as file:
            file.write(b"\1" * 4_000 + rest)
        with path.open("rb") as file:
            header = read_header(file)
            assert header.mendable
            with soundfile.SoundFile(mended(file, header)) as sound:
                assert sound.frames == (size - 44) // 2, stated
        found = read_samples(path, (size - 44) // 2 - 3_000, RATE, RATE)
        assert np.array_equal(found, np.r_[np.zeros(1_000), np.full(2_000, 257 / 32_768)].astype(np.float32)), stated


def test_sound_that_a_wav_header_cannot_speak_of_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sounds.headers.LARGEST_WAV", 100_000)  # as if that were all of 32 bits
    path, content = tmp_path / "owl.wav", file_of("WAV")
    path.write_bytes(content)
    due = soundfile.read(path, dtype="float32")[0]
    path.write_bytes(lying(content, 0.1) + LAST["WAV"])
    read, outcome = whole(path)
    assert np.array_equal(read, due) and outcome.status == "salvaged"
    assert "its header speaks of fewer samples than follow" in outcome.reason


def test_a_mended_file_can_be_searched_like_any_other(tmp_path: Path) -> None:
    path, content = tmp_path / "owl.wav", file_of("WAV")
    path.write_bytes(lying(content, 0.5))
    with path.open("rb") as file:
        whole_file = mended(file, read_header(file))
        assert whole_file.read() == content and whole_file.seek(-10, os.SEEK_END) == len(content) - 10
        assert whole_file.read() == content[-10:] and whole_file.tell() == len(content)
        whole_file.seek(41)
        assert whole_file.read(2) == content[41:43]
    path.write_bytes(content)
    with path.open("rb") as file:
        assert mended(file, read_header(file)) is file
