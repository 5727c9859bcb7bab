# ruff: noqa: E501 - a table of kinds: one kind, one line
"""Every kind of path that was ever handed to a reader of recordings, and the one outcome each should have.

    kinds = write_whole_zoo(folder)    # some 290 paths: whole, damaged, misnamed, and no recordings at all

Eight seconds of changing noise with a short loud call between 5.5 and 6.7 s, other ones in each file so that no two
sound the same: a reader that finds the call in the window from 5 s on has kept time. The kinds of `broken.py` are among
them.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import soundfile
import soxr
from broken import (
    FFMPEG_KINDS,
    RATE,
    SOUNDFILE_KINDS,
    Expected,
    Kind,
    Sound,
    flac_of,
    noise,
    number,
    ogg_pages,
    put,
    sample,
    write,
)
from broken import write_zoo as write_damage
from numpy.typing import NDArray

from sounds.ogg import ogg_checksum

SECONDS, CALL_AT, CALL_SECONDS = 8.0, 6.0, 0.2
BASE_RATE = 8_000  # Hz: nothing in a call that any recorder would lose
WHOLE, NONE, ANY = (SECONDS - 0.1, SECONDS + 0.15), (0.0, 0.0), (0.05, 100.0)
HERE = (5.0,)  # where the window with the call begins
TWICE = (5.0, 10.0)  # the same of two recordings one behind the other: calls about 6 and 14 s
BLOCK = 32_768  # samples of a FLAC frame in a bomb
EVERY_RATE = (8_000, 11_025, 22_050, 32_000, 44_100, 96_000, 192_000, 250_000, 384_000, 500_000)
ODD_RATES = (22_075, 22_077, 44_099, 47_999, 384_001, 1_000_000)
LAYER_3 = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 4_000, 1, 0, 12, 1, 2, 144, 1, 0)  # MP3, as a WAV file says it


def write_whole_zoo(folder: Path) -> list[Kind]:
    """Every kind in a folder of its family; names are relative to the zoo."""
    families = {
        "damage": damage,
        "healthy": healthy,
        "cut": cut_short,
        "inside": damaged_inside,
        "other": other_content,
        "suffix": wrong_suffix,
        "tags": mp3_tags,
        "header": wav_headers,
        "lies": length_lies,
        "glued": glued,
        "samples": strange_samples,
        "rates": rates,
        "encodings": encodings,
        "channels": several_channels,
        "names": names,
        "files": no_files,
        "bombs": bombs,
    }
    kinds: list[Kind] = []
    for family, written in families.items():
        (folder / family).mkdir(parents=True)
        kinds += [relative(kind, family) for kind in written(folder / family)]
    assert len({kind.name for kind in kinds}) == len(kinds), "two kinds of one name"
    return kinds


def relative(kind: Kind, family: str) -> Kind:
    return replace(kind, name=f"{family}/{kind.name}", what=f"{family}: {kind.what}")


def put_kind(
    folder: Path,
    name: str,
    what: str,
    content: bytes | None,
    status: Expected = "ok",
    words: str = "",
    seconds: tuple[float, float] | None = None,
    calls: tuple[float, ...] | None = None,
    predicted: str = "",
    surveyed: str = "",
) -> Kind:
    """A kind whose content is written here, or was written before where it is None."""
    if content is not None:
        (folder / name).write_bytes(content)
    least, most = seconds or (NONE if status == "unreadable" else WHOLE)
    if calls is None and status == "ok":
        calls = HERE
    return Kind(name, what, status, least, most, words, calls, predicted, surveyed)


# ---- sounds -------------------------------------------------------------------------------------------------------


def calling(seed: int, rate: int = RATE, channels: int = 1, seconds: float = SECONDS) -> Sound:
    """Faint noise with a loud burst, below 4 kHz whatever the rate; (samples,) or (samples, channels)."""
    rng = np.random.default_rng(seed + 1_000)
    weather = np.repeat(np.exp(rng.uniform(np.log(0.001), np.log(0.08), 32)), round(seconds * BASE_RATE) // 32 + 1)
    sound = (weather * rng.normal(0, 1, len(weather)))[: round(seconds * BASE_RATE)].astype(np.float32)
    start, length = round((CALL_AT + rng.uniform(-0.5, 0.5)) * BASE_RATE), round(CALL_SECONDS * BASE_RATE)
    if start + length <= len(sound):
        sound[start : start + length] = 0.7 * np.sign(rng.normal(0, 1, length))
    if rate != BASE_RATE:
        sound = np.clip(soxr.resample(sound, BASE_RATE, rate), -0.99, 0.99)
    return sound if channels == 1 else np.repeat(sound[:, None], channels, axis=1)


def wav_bytes(sound: Sound, rate: int = RATE, subtype: str = "PCM_16", format: str = "WAV") -> bytes:  # noqa: A002
    file = io.BytesIO()
    soundfile.write(file, sound, rate, subtype, format=format)
    return file.getvalue()


def big_endian(sound: Sound) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound, RATE, "PCM_16", endian="BIG", format="WAV")
    return file.getvalue()


def in_format(folder: Path, name: str, seed: int, rate: int = RATE, channels: int = 1) -> bytes:
    """A call as broken.py writes a format; the file is taken away again."""
    place = folder / ".making"
    place.mkdir(exist_ok=True)
    content = sample(place, name, calling(seed, rate, channels), rate).read_bytes()
    shutil.rmtree(place)
    return content


def pcm(sound: Sound) -> bytes:
    return np.rint(np.clip(sound, -1, 1) * 32_767).astype("<i2").tobytes()


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + number(len(body) if size is None else size) + body + bytes(len(body) % 2)


def form(tag: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16) -> bytes:
    """The format chunk of a WAV file."""
    width = max(1, channels * bits // 8)
    return chunk(
        b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, min(rate * width, 2**32 - 1), min(width, 65_535), bits)
    )


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + number(len(body) if size is None else size) + body


def encoded(path: Path, container: str, codec: Literal["mp3"], sound: Sound, rate: int) -> bytes:
    """As FFmpeg writes it."""
    with av.open(path, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(
            np.rint(sound * 32_767).astype(np.int16).reshape(1, -1), format="s16", layout="mono"
        )
        frame.sample_rate = rate
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    content = path.read_bytes()
    path.unlink()
    return content


def silent_flac(seconds: float, rate: int, channels: int) -> bytes:
    """Digital silence as FLAC keeps it: some fifteen bytes for four seconds."""
    blocks = round(seconds * rate) // BLOCK
    packed = rate << 44 | (channels - 1) << 41 | 15 << 36 | blocks * BLOCK
    info = struct.pack(">HH6x", BLOCK, BLOCK) + packed.to_bytes(8, "big") + bytes(16)
    frames = [b"fLaC\x80\x00\x00\x22" + info]
    for place in range(blocks):
        head = bytes((0xFF, 0xF8, 0xF0, (channels - 1) << 4)) + as_utf8(place)
        head += bytes([crc(head, 8, 0x07)])
        body = head + bytes(3 * channels)
        frames.append(body + crc(body, 16, 0x8005).to_bytes(2, "big"))
    return b"".join(frames)


def as_utf8(value: int) -> bytes:
    """A frame's number; FLAC takes the code of characters for it, to 31 bits."""
    if value < 0x80:
        return bytes([value])
    count = 2 if value < 0x800 else 3 if value < 0x10000 else 4
    tail = [0x80 | value >> 6 * place & 0x3F for place in range(count - 1)]
    first = (0xF00 >> count & 0xFF) | value >> 6 * (count - 1)
    return bytes([first, *reversed(tail)])


def crc(content: bytes, bits: int, polynomial: int) -> int:
    register, top, mask = 0, 1 << (bits - 1), (1 << bits) - 1
    for byte in content:
        register ^= byte << (bits - 8)
        for _ in range(8):
            register = (register << 1 ^ (polynomial if register & top else 0)) & mask
    return register


# ---- families -----------------------------------------------------------------------------------------------------


def damage(folder: Path) -> list[Kind]:
    """The kinds of broken.py; how the commands see what only a reader can be given by name."""
    kinds = write_damage(folder)
    shutil.rmtree(folder / "whole")
    if "locked.wav" not in {kind.name for kind in kinds}:  # to root nothing is locked
        (folder / "locked.wav").unlink()
    known: dict[str, dict[str, Any]] = {
        "data": {"surveyed": "skipped"},  # has no suffix, but predictor.py is given it by name
        "folder.wav": {"predicted": "skipped", "surveyed": "skipped"},
        "none.wav": {"surveyed": "skipped"},
        os.fsdecode(b"owl\xff\xfe.wav"): {"surveyed": "refused"},
    }
    return [replace(kind, **known.get(kind.name, {})) for kind in kinds]


def healthy(folder: Path) -> list[Kind]:
    files = {name: in_format(folder, name, 100 + i) for i, name in enumerate((*SOUNDFILE_KINDS, *FFMPEG_KINDS))}
    files["constant.mp3"] = mp3_bytes(calling(150), "CONSTANT")
    files["variable.mp3"] = mp3_bytes(calling(151), "VARIABLE")
    files["other_encoder.mp3"] = encoded(folder / "x.mp3", "mp3", "mp3", calling(152), RATE)
    long = calling(153, 48_000)
    files["field.wav"], files["field.flac"] = wav_bytes(long, 48_000), wav_bytes(long[::-1], 48_000, format="FLAC")
    kinds = [
        put_kind(folder, name, f"{name} as it should be", content)
        for name, content in files.items()
        if name != "field.flac"
    ]
    kinds.append(put_kind(folder, "field.flac", "flac at 48 kHz, reversed", files["field.flac"], calls=(0.0,)))
    return kinds


def mp3_bytes(sound: Sound, mode: str, level: float = 0.0, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound, rate, "MPEG_LAYER_III", format="MP3", bitrate_mode=mode, compression_level=level)
    return file.getvalue()


def cut_short(folder: Path) -> list[Kind]:
    wav, flac, ogg, mp3 = (
        in_format(folder, name, 200 + i) for i, name in enumerate(("pcm16.wav", "sound.flac", "sound.ogg", "sound.mp3"))
    )
    empty = [
        put_kind(folder, f"empty{suffix}", f"0 bytes named {suffix}", b"", "unreadable", "has 0 bytes")
        for suffix in (".mp3", ".ogg", ".flac", ".m4a")
    ]
    return [
        *empty,
        put_kind(folder, "one.wav", "a single byte", b"R", "unreadable", "has 1 bytes"),
        put_kind(folder, "head.flac", "30 bytes of flac", flac[:30], "unreadable", "has 30 bytes"),
        put_kind(folder, "head.ogg", "60 bytes of ogg", ogg[:60], "unreadable", "begins like an Ogg file"),
        put_kind(folder, "head.mp3", "100 bytes of mp3", mp3[:100], "unreadable", "no known format"),
        put_kind(folder, "one_sample.wav", "cut behind the first sample", wav[:46], "short", "claims", (0, 0.001)),
        put_kind(folder, "odd.wav", "cut within a sample", wav[:-3], "ok"),
        put_kind(
            folder, "last.ogg", "its last page lost", b"".join(ogg_pages(ogg)[:-1]), "ok", "no mark of its end", ANY
        ),
    ]


def damaged_inside(folder: Path) -> list[Kind]:
    flac, ogg, mp3, wav = (
        in_format(folder, name, 300 + i) for i, name in enumerate(("sound.flac", "sound.ogg", "sound.mp3", "pcm16.wav"))
    )
    flipped = bytearray(ogg)
    flipped[len(ogg) // 2] ^= 1
    peppered = bytearray(ogg)
    for place in range(997 * 4, len(ogg), 997):
        peppered[place] ^= 16
    hole = put(flac, len(flac) // 3, bytes(32_768))
    return [
        put_kind(folder, "bit.ogg", "one bit in a page", bytes(flipped), "salvaged", "damaged in the page"),
        put_kind(folder, "bits.ogg", "a bit in every 997th byte", bytes(peppered), "unreadable", "an Ogg file"),
        put_kind(folder, "hole.flac", "32 KB of zeros inside", hole, "salvaged", "lost in between", WHOLE, HERE),
        put_kind(
            folder,
            "hole.mp3",
            "8 KB of zeros inside",
            put(mp3, len(mp3) // 3, bytes(8_192)),
            "salvaged",
            "claims",
            (4.0, 8.1),
        ),
        put_kind(folder, "hole.wav", "32 KB of zeros inside: sound for all we know", put(wav, 40_000, bytes(32_768))),
        put_kind(
            folder,
            "end.flac",
            "the last 9 KB random",
            put(flac, -9_000, np.random.default_rng(3).bytes(9_000)),
            "salvaged",
            "s it claims",
            (6.0, 8.1),
            HERE,
        ),
        put_kind(
            folder,
            "head.flac",
            "the first frame random",
            put(flac, 86, np.random.default_rng(4).bytes(2_048)),
            "salvaged",
            "packets left out",
            (6.0, 8.1),
        ),
    ]


def other_content(folder: Path) -> list[Kind]:
    page = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found</body></html>\n" * 9
    random = np.random.default_rng(5).bytes(60_000)
    ogg = in_format(folder, "sound.ogg", 400)
    contents = [
        ("page.wav", "HTML named .wav", page, "is an HTML page"),
        ("page.flac", "HTML named .flac", page, "is an HTML page"),
        ("answer.wav", "JSON named .wav", b'{"error": "rate limit exceeded"}\n' * 9, "is text"),
        ("table.wav", "csv named .wav", b"file,label\na.wav,owl\n" * 9, "is text"),
        ("text.ogg", "text named .ogg", b"moved to another server\n" * 9, "is text"),
        ("accents.flac", "text with accents", "Gr\u00fc\u00dfe aus Bogot\u00e1\n".encode() * 9, "is text"),
        ("photo.mp3", "PNG named .mp3", b"\x89PNG\r\n\x1a\n" + random, "is an image"),
        ("photo.ogg", "JPEG named .ogg", b"\xff\xd8\xff\xe0" + random, "is an image"),
        ("moving.wav", "GIF named .wav", b"GIF89a" + random, "is an image"),
        ("paper.wav", "PDF named .wav", b"%PDF-1.7\n" + random, "is a PDF"),
        ("packed.ogg", "gzipped ogg", gzip.compress(ogg), "is an archive"),
        ("packed.flac", "7z named .flac", b"7z\xbc\xaf\x27\x1c" + random, "is an archive"),
        ("packed.mp3", "rar named .mp3", b"Rar!\x1a\x07" + random, "is an archive"),
        ("random.ogg", "random bytes named .ogg", random, "no known format"),
        ("random.flac", "random bytes named .flac", random, "no known format"),
        ("random.m4a", "random bytes named .m4a", random, "no known format"),
        ("random.mp3", "random bytes named .mp3", b"\xff\xe4" + random, "no known format"),
        ("zeros.mp3", "zeros named .mp3", bytes(60_000), "begins with 4096 zeros"),
        ("zeros.flac", "zeros named .flac", bytes(128_000), "begins with 4096 zeros"),
        ("list.mp3", "a playlist that names /etc/passwd", b"#EXTM3U\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n" * 3, "is text"),
        ("list.wav", "an ffconcat script", b"ffconcat version 1.0\nfile /etc/passwd\n" * 3, "is text"),
    ]  # fmt: skip
    return [put_kind(folder, name, what, content, "unreadable", words) for name, what, content, words in contents]


def wrong_suffix(folder: Path) -> list[Kind]:
    cases = [
        ("flac.ogg", "sound.flac", "is a .flac file named .ogg"),
        ("mp3.ogg", "sound.mp3", "is a .mp3 file named .ogg"),
        ("flac.wav", "sound.flac", "is a .flac file named .wav"),
        ("aiff.wav", "pcm16.aiff", "is a .aif file named .wav"),
        ("wav.flac", "pcm16.wav", "is a .wav file named .flac"),
        ("wma.mp3", "sound.wma", "is a .wma file named .mp3"),
        ("aac.m4a", "sound.aac", "is a .aac file named .m4a"),
        ("opus.mp3", "sound.opus", "is a .ogg file named .mp3"),
    ]
    kinds = [
        put_kind(folder, name, f"{source} named {name}", in_format(folder, source, 500 + i), "ok", words)
        for i, (name, source, words) in enumerate(cases)
    ]
    hidden = put_kind(
        folder, "._owl.wav", "AppleDouble", bytes.fromhex("00051607") + bytes(4_092), "unreadable", "no known format",
        predicted="skipped", surveyed="skipped",
    )  # fmt: skip
    return [*kinds, hidden]


def mp3_tags(folder: Path) -> list[Kind]:
    mp3 = in_format(folder, "sound.mp3", 600)
    other = in_format(folder, "sound.mp3", 601)
    tag = b"ID3\x04\x00\x00" + bytes((0, 0, 15, 118)) + bytes(2_038)  # 7 bits a byte: 2,038
    huge = b"ID3\x04\x00\x00" + bytes((127, 127, 127, 127))
    garbage = np.random.default_rng(6).bytes(30_000)
    first_version = b"TAG" + b"an owl".ljust(125, b"\0")
    return [
        put_kind(folder, "tagged.mp3", "a tag before, one behind", tag + mp3 + first_version),
        put_kind(folder, "garbage.mp3", "a tag, then garbage", tag + garbage, "unreadable", "begins like an MP3 file"),
        put_kind(folder, "huge.mp3", "a tag that claims 256 MB", huge + other, "unreadable", "begins like an MP3 file"),
        put_kind(folder, "page.mp3", "the old kind of tag, then HTML", first_version + b"<html>" * 99, "unreadable", "no known format"),
        put_kind(folder, "alone.mp3", "nothing but a tag", tag, "unreadable", "begins like an MP3 file"),
    ]  # fmt: skip


def wav_headers(folder: Path) -> list[Kind]:
    sounds = iter(pcm(calling(700 + place)) for place in range(40))

    def wav(*before: bytes, fmt: bytes | None = None, size: int | None = None, total: int | None = None) -> bytes:
        return riff(fmt or form(), *before, chunk(b"data", next(sounds), size), size=total)

    junk = b"".join(chunk(b"JUNK", b"") for _ in range(50_000))
    two = riff(form(), chunk(b"data", next(sounds)), chunk(b"data", next(sounds)))
    mp3 = in_format(folder, "sound.mp3", 790)
    length = len(next(sounds))
    contents: list[tuple[str, str, bytes, Expected, str]] = [
        ("empty.wav", "no samples", riff(form(), chunk(b"data", b"")), "unreadable", "begins like a WAV file"),
        ("hour.wav", "no samples, claims an hour", riff(form(), chunk(b"data", b"", 115_200_000)), "unreadable", "begins like a WAV file"),
        ("size_0.wav", "sizes 0 and 0, with samples", wav(size=0, total=0), "salvaged", "fewer samples"),
        ("size_36.wav", "sizes 36 and 0, with samples", wav(size=0, total=36), "salvaged", "fewer samples"),
        ("ten.wav", "claims ten times as much", wav(size=10 * length), "salvaged", "8.0 s of the 80.0 s"),
        ("tenth.wav", "claims a tenth", wav(size=length // 10), "salvaged", "fewer samples"),
        ("odd.wav", "an odd size", wav(size=length - 1), "ok", ""),
        ("stub.wav", "AudioMoth's stub: 488 zeros", bytes(488), "unreadable", "begins with 488 zeros"),
        ("late.wav", "488 zeros before the samples", riff(form(), chunk(b"JUNK", bytes(488)), chunk(b"data", next(sounds))), "ok", ""),
        ("rate_1.wav", "1 Hz", wav(fmt=form(rate=1)), "unreadable", "1 Hz, outside"),
        ("rate_most.wav", "4294967295 Hz", wav(fmt=form(rate=2**32 - 1)), "unreadable", "Hz, outside|begins like a WAV"),
        ("crowd.wav", "1024 channels", wav(fmt=form(channels=1_024)), "unreadable", "1024 channels"),
        ("crowds.wav", "65535 channels", wav(fmt=form(channels=65_535)), "unreadable", "65535 channels|begins like"),
        ("bits.wav", "samples of 13 bits", wav(fmt=form(bits=13)), "ok", ""),
        ("unknown.wav", "an unknown code of samples", wav(fmt=form(tag=0x1234)), "unreadable", "begins like a WAV file"),
        ("mp3_inside.wav", "mp3 in a WAV file", riff(chunk(b"fmt ", LAYER_3), chunk(b"fact", number(round(SECONDS * RATE))), chunk(b"data", mp3)), "ok", ""),
        ("list_0.wav", "LIST of 0 bytes", wav(chunk(b"LIST", b"")), "ok", ""),
        ("list_4gb.wav", "LIST that claims 4 GB", wav(chunk(b"LIST", b"", 2**32 - 9)), "unreadable", "begins like a WAV file"),
        ("junk.wav", "50,000 empty chunks", wav(junk), "ok", ""),
        ("rifx.wav", "big-endian", big_endian(calling(791)), "ok", ""),
        ("two.wav", "two chunks of samples", two, "salvaged", "second recording glued"),
        ("no_fmt.wav", "no format", riff(chunk(b"data", next(sounds))), "unreadable", "begins like a WAV file"),
        ("no_data.wav", "no samples at all", riff(form(), chunk(b"LIST", bytes(2_000))), "unreadable", "begins like a WAV file"),
        ("data_first.wav", "samples before the format", riff(chunk(b"data", next(sounds)), form()), "ok", ""),
        ("bext.wav", "a broadcast chunk, iXML, GUANO", wav(chunk(b"bext", bytes(602)), chunk(b"iXML", b"<a/>"), chunk(b"guan", b"GUANO|Version: 1.0\n")), "ok", ""),
        ("width.wav", "a frame of 0 bytes", wav(fmt=chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 0, 0, 16))), "ok", ""),
    ]  # fmt: skip
    return [put_kind(folder, name, what, content, status, words) for name, what, content, status, words in contents]


def length_lies(folder: Path) -> list[Kind]:
    flacs = [in_format(folder, "sound.flac", 800 + place) for place in range(3)]
    head = int.from_bytes(flacs[1][18:26], "big") >> 36 << 36
    half = put(flacs[0], 18, (int.from_bytes(flacs[0][18:26], "big") - round(SECONDS * RATE / 2)).to_bytes(8, "big"))
    ogg, right = in_format(folder, "sound.ogg", 810), in_format(folder, "sound.ogg", 811)
    early, start = in_format(folder, "sound.ogg", 814), in_format(folder, "sound.ogg", 815)
    mp3, more = in_format(folder, "sound.mp3", 816), in_format(folder, "sound.mp3", 817)
    frames = mp3.index(b"Xing") + 8
    aiff = in_format(folder, "pcm16.aiff", 812)
    huge = put(put(aiff, 4, b"\x7f\xff\xff\xf0"), aiff.index(b"SSND") + 4, b"\x7f\xff\xff\x00")
    au = io.BytesIO()
    soundfile.write(au, calling(813), RATE, "PCM_16", format="AU")
    return [
        put_kind(folder, "half.flac", "half the samples", half, "salvaged", "fewer samples", WHOLE, HERE),
        put_kind(folder, "most.flac", "68 billion samples", put(flacs[1], 18, (head | 2**36 - 1).to_bytes(8, "big")), "salvaged", "s it claims", WHOLE, HERE),
        put_kind(folder, "none.flac", "an unknown number", flac_of(flacs[2], 0)),
        put_kind(folder, "end.ogg", "ends at 2^50, its checksum wrong", last_position(ogg, 2**50, mend=False), "salvaged", "damaged in the page", (6.5, 8.1)),
        put_kind(folder, "early.ogg", "ends half way", last_position(early, 64_000, mend=True), "salvaged", "goes back in time", WHOLE, HERE),
        put_kind(folder, "start.ogg", "ends at its beginning", last_position(start, 0, mend=True), "salvaged", "goes back in time", WHOLE, HERE),
        put_kind(folder, "half.mp3", "half the frames", put(mp3, frames, number_of(mp3, frames, 0.5)), "salvaged", "fewer samples", WHOLE, HERE),
        put_kind(folder, "double.mp3", "twice the frames", put(more, frames, number_of(more, frames, 2)), "salvaged", "s it claims", WHOLE, HERE),
        put_kind(folder, "end_right.ogg", "ends at 2^50, its checksum right", last_position(right, 2**50, mend=True), "salvaged", "s it claims", ANY),
        put_kind(folder, "huge.aiff", "an AIFF file of 2 GB", huge, "ok"),
        put_kind(folder, "unknown.wav", "an AU file of unknown length", put(au.getvalue(), 8, b"\xff" * 4), "ok", ""),
    ]  # fmt: skip


def number_of(mp3: bytes, at: int, times: float) -> bytes:
    """The number of frames in an MP3 file's first frame, so many times as large."""
    return round(times * int.from_bytes(mp3[at : at + 4], "big")).to_bytes(4, "big")


def last_position(ogg: bytes, position: int, mend: bool) -> bytes:
    """An Ogg file whose last page claims to end elsewhere."""
    pages = ogg_pages(ogg)
    last = put(pages[-1], 6, position.to_bytes(8, "little"))
    if mend:
        last = put(last, 22, ogg_checksum(put(last, 22, bytes(4))))
    return b"".join([*pages[:-1], last])


def glued(folder: Path) -> list[Kind]:
    ogg = [in_format(folder, "sound.ogg", 900 + place) for place in range(3)]
    rate, both = in_format(folder, "sound.ogg", 910, 32_000), in_format(folder, "sound.ogg", 911, channels=2)
    mp3 = [in_format(folder, "sound.mp3", 920 + place) for place in range(2)]
    fast, second = in_format(folder, "sound.mp3", 930, 32_000), "second recording glued"
    seeds = iter(range(950, 990))

    def pair(name: str) -> bytes:
        return in_format(folder, name, next(seeds)) + in_format(folder, name, next(seeds))

    return [
        put_kind(folder, "rate.ogg", "two ogg, the second at another rate", ogg[0] + rate, "salvaged", "glued together", (7.9, 16.2)),
        put_kind(folder, "channels.ogg", "two ogg, the second in stereo", ogg[1] + both, "salvaged", "glued together", (7.9, 16.2)),
        put_kind(folder, "rate.mp3", "two mp3, the second at another rate", mp3[0] + fast, "salvaged", "channels at 32000 Hz on the way", (7.9, 8.3)),
        put_kind(folder, "flac.wav", "a wav, then a flac", wav_bytes(calling(940)) + wav_bytes(calling(941), format="FLAC"), "salvaged", second, WHOLE, HERE),
        put_kind(folder, "two.aiff", "two aiff", pair("pcm16.aiff"), "salvaged", second, WHOLE, HERE),
        put_kind(folder, "two.m4a", "two m4a", pair("sound.m4a"), "salvaged", second, WHOLE, HERE),
        put_kind(folder, "lossless.m4a", "two lossless m4a", pair("lossless.m4a"), "salvaged", second, WHOLE, HERE),
        put_kind(folder, "two.flac", "two short flac", pair("sound.flac"), "salvaged", "fewer samples", (15.8, 16.3), TWICE),
        put_kind(folder, "two.mp3", "two short mp3", pair("sound.mp3"), "salvaged", "fewer samples", (15.8, 16.3), TWICE),
        put_kind(folder, "two.opus", "two opus", pair("sound.opus"), "salvaged", "glued together", (15.8, 16.3), TWICE),
        put_kind(folder, "two.aac", "two aac: one stream, as it was made for", pair("sound.aac"), "ok", "", (15.8, 16.4), TWICE),
        put_kind(folder, "two.wma", "two wma", pair("sound.wma"), "salvaged", "s it claims", WHOLE, HERE),
        put_kind(folder, "text.ogg", "an ogg, then text", ogg[2] + b"and then it rained\n" * 400, "salvaged", "damaged at byte"),
    ]  # fmt: skip


def strange_samples(folder: Path) -> list[Kind]:
    def changed(seed: int, start: int, values: object, subtype: str = "FLOAT") -> bytes:
        sound = calling(seed).astype(np.float64)
        piece = np.atleast_1d(np.asarray(values, np.float64))
        sound[start : start + len(piece)] = piece
        file = io.BytesIO()
        with np.errstate(over="ignore"):
            soundfile.write(
                file, sound if subtype == "DOUBLE" else sound.astype(np.float32), RATE, subtype, format="WAV"
            )
        return file.getvalue()

    def made(sound: NDArray[np.floating[Any]], subtype: str = "FLOAT") -> bytes:
        return wav_bytes(sound.astype(np.float32), subtype=subtype)

    length = round(SECONDS * RATE)
    rng = np.random.default_rng(7)
    steps = rng.integers(-1, 2, length).astype(np.float32) / 32_768
    dead = calling(1_000)
    dead[length // 2 :] = 0
    tone = 0.5 + 0.2 * np.sin(2 * np.pi * 440 * np.arange(length) / RATE)
    return [
        put_kind(folder, "nan.wav", "one NaN", changed(1_001, 100, np.nan), "salvaged", "^1 samples are no numbers", WHOLE, HERE),
        put_kind(folder, "all_nan.wav", "nothing but NaN", made(np.full(length, np.nan)), "silent", "128000 samples are no numbers.*holds no sound", WHOLE, ()),
        put_kind(folder, "inf.wav", "+Inf and -Inf", changed(1_002, 9, [np.inf, -np.inf]), "salvaged", "^2 samples are no numbers", WHOLE, HERE),
        put_kind(folder, "large.wav", "1e30", changed(1_003, 9, 1e30), "salvaged", "^1 samples are no numbers", WHOLE, HERE),
        put_kind(folder, "double.wav", "float64 1e300", changed(1_004, 9, 1e300, "DOUBLE"), "salvaged", "^1 samples are no numbers", WHOLE, HERE),
        put_kind(folder, "denormal.wav", "denormals", made(np.full(length, 1e-42)), "silent", "holds no sound", WHOLE, ()),
        put_kind(folder, "loud.wav", "four times full scale", made(4 * calling(1_005)), "ok", "louder than full scale", calls=(0.0, 5.0)),
        put_kind(folder, "offset.wav", "a tone on an offset of .5", made(tone), calls=()),
        put_kind(folder, "constant.wav", "a constant", made(np.full(length, 0.99), "PCM_16"), "silent", "holds no sound", WHOLE, ()),
        put_kind(folder, "clipped.wav", "clipped", made(np.clip(20 * calling(1_006), -1, 1), "PCM_16"), calls=(0.0, 5.0)),
        put_kind(folder, "one.wav", "one sample", made(calling(1_007)[:1], "PCM_16"), "short", "too short", (0, 0.001), ()),
        put_kind(folder, "ten.wav", "ten samples", made(calling(1_008)[:10], "PCM_16"), "short", "too short", (0, 0.001), ()),
        put_kind(folder, "steps.wav", "noise of one step of 16 bits", made(steps, "PCM_16"), "ok", "very quiet", calls=()),
        put_kind(folder, "click.wav", "one click in quiet", changed(1_009, 16_000, 0.99), calls=(0.0, 5.0)),
        put_kind(folder, "dead.wav", "a microphone that died half way", made(dead, "PCM_16"), "ok", "4.0 s of it, the first at 4.0 s, hold no sound", calls=()),
        put_kind(folder, "nan.flac", "FLAC cannot hold NaN", wav_bytes(np.nan_to_num(calling(1_010)), format="FLAC")),
    ]  # fmt: skip


def rates(folder: Path) -> list[Kind]:
    kinds = [
        put_kind(folder, f"{rate}.wav", f"{rate} Hz", wav_bytes(calling(1_100 + place, rate), rate))
        for place, rate in enumerate((*EVERY_RATE, *ODD_RATES))
    ]
    slow = soxr.resample(noise(SECONDS, 1_000, seed=8), 1_000, 1_000)
    return [*kinds, put_kind(folder, "1000.wav", "1000 Hz", wav_bytes(slow, 1_000), calls=())]


def encodings(folder: Path) -> list[Kind]:
    cases = [
        ("ms.wav", "MS_ADPCM", "WAV", RATE),
        ("gsm.wav", "GSM610", "WAV", 8_000),
        ("float.aiff", "FLOAT", "AIFF", RATE),
        ("ulaw.aiff", "ULAW", "AIFF", RATE),
        ("float.w64.wav", "FLOAT", "W64", RATE),
        ("float.rf64.wav", "FLOAT", "RF64", RATE),
        ("pcm8.flac", "PCM_S8", "FLAC", RATE),
        ("g721.wav", "G721_32", "WAV", 8_000),
        ("extensible.wav", "FLOAT", "WAVEX", RATE),
        ("alac.caf", "ALAC_16", "CAF", RATE),
    ]
    return [
        put_kind(folder, name, f"{subtype} in {container}", wav_bytes(calling(1_200 + place, rate), rate, subtype, container))
        for place, (name, subtype, container, rate) in enumerate(cases)
    ]  # fmt: skip


def several_channels(folder: Path) -> list[Kind]:
    kinds = [
        put_kind(folder, f"{count}.wav", f"{count} channels", wav_bytes(calling(1_300 + count, channels=count)))
        for count in (2, 4, 8, 32, 64)
    ]
    left = calling(1_310, channels=2)
    left[:, 0] = 0
    opposite = calling(1_311, channels=2) * np.array([1, -1], np.float32)
    nearly = calling(1_312, channels=2) * np.array([1, -0.99], np.float32)
    flac = wav_bytes(calling(1_313, channels=8), format="FLAC")
    return [
        *kinds,
        put_kind(folder, "8.flac", "8 channels of flac", flac),
        put_kind(folder, "left.wav", "left silent", wav_bytes(left), "ok", "no sound for a while in channel 1,", calls=()),
        put_kind(folder, "against.wav", "antiphase", wav_bytes(opposite), "ok", "cancel each other", calls=()),
        put_kind(folder, "nearly.wav", "nearly antiphase", wav_bytes(nearly), "ok", "cancel each other", calls=()),
    ]  # fmt: skip


def names(folder: Path) -> list[Kind]:
    cases = [
        (" owl.wav", "a blank first"),
        ("owl one.wav", "a blank within"),
        ("\u9ce5\u306e\u58f0\U0001f989.wav", "CJK and an emoji"),
        ("o'w\"l.wav", "quotes"),
        ("o\nwl.wav", "a line break"),
        ("o\twl.wav", "a tab"),
        ("-rf.wav", "a dash first"),
        ("owl; $(touch x) `id`.wav", "a shell's words"),
        ("=1+1.wav", "a formula"),
        ("@SUM(A1).wav", "another formula"),
        ("<img src=x onerror=alert(1)>.wav", "an HTML tag"),
        ("w" * 250 + ".wav", "254 letters"),
        ("%2e%2e%2fpasswd.wav", "an escaped path"),
        ("owl[1-2]*?.wav", "a pattern"),
        ("OWL.WAV", "capitals"),
        ("a,b;c.wav", "commas and semicolons"),
        ("e\u0301.wav", "an accent of its own"),
        ("\u00e9.wav", "the same in one letter"),
        ("back\\slash.wav", "a backslash"),
        ("C:.wav", "a drive's letter"),
        ("{0} %s.wav", "a template"),
    ]
    kinds = [
        put_kind(folder, name, what, wav_bytes(calling(1_400 + place))) for place, (name, what) in enumerate(cases)
    ]
    skipped = [
        put_kind(folder, name, what, wav_bytes(calling(1_450)), predicted="skipped", surveyed="skipped")
        for name, what in (("owl.wav.", "a dot last"), ("owl", "no suffix"), ("owl.wav.part", "a copy under way"))
    ]
    return [*kinds, *skipped]


def no_files(folder: Path) -> list[Kind]:
    outside = folder.parent.with_name(folder.parent.name + "-outside")
    outside.mkdir()
    (outside / "owl.wav").write_bytes(wav_bytes(calling(1_500)))
    (folder / "first.wav").write_bytes(wav_bytes(calling(1_501)))
    (folder / "second.wav").hardlink_to(folder / "first.wav")
    links = {
        "zero.wav": "/dev/zero",
        "null.wav": "/dev/null",
        "out.wav": str(outside / "owl.wav"),
        "twice.wav": "first.wav",
        "up": "..",
        "proc.wav": "/proc/self/mem",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.flac")
    none = put_kind(
        folder,
        "up",
        "a link to its own folder",
        None,
        "unreadable",
        "is a folder",
        predicted="skipped",
        surveyed="skipped",
    )
    return [
        none,
        put_kind(folder, "first.wav", "a file with two names", None),
        put_kind(folder, "second.wav", "its second name", None, surveyed="duplicate"),
        put_kind(folder, "twice.wav", "a link to it", None, predicted="skipped", surveyed="skipped"),
        put_kind(folder, "out.wav", "a link out of the zoo", None, surveyed="refused"),
        put_kind(folder, "zero.wav", "a link to /dev/zero", None, "unreadable", "a pipe or a device"),
        put_kind(folder, "null.wav", "a link to /dev/null", None, "unreadable", "a pipe or a device"),
        put_kind(folder, "proc.wav", "a link to a process's memory", None, "unreadable", "has 0 bytes", surveyed="refused"),
        put_kind(folder, "pipe.flac", "a pipe", None, "unreadable", "a pipe or a device"),
    ]  # fmt: skip


def bombs(folder: Path) -> list[Kind]:
    """Small files that are hours: a reader that takes them whole runs out of memory, one that takes blocks does not."""
    quiet = np.zeros(300 * 8_000, np.float32)
    opus, ogg = (
        write(folder / f"quiet.{name}", quiet, 8_000, subtype, "OGG").read_bytes()
        for name, subtype in (("opus", "OPUS"), ("ogg", "VORBIS"))
    )
    return [
        put_kind(folder, "mono.flac", "an hour of silence in flac", silent_flac(3_600, 8_000, 1), "silent", "holds no sound", (3_590, 3_601)),
        put_kind(folder, "eight.flac", "10 min in 8 channels", silent_flac(600, 8_000, 8), "silent", "holds no sound", (590, 601)),
        put_kind(folder, "quiet.opus", "5 min of silence in opus", opus, "silent", "holds no sound", (299, 301)),
        put_kind(folder, "quiet.ogg", "5 min of silence in ogg", ogg, "silent", "holds no sound", (299, 301)),
        put_kind(folder, "quiet.mp3", "5 min of silence in mp3", mp3_bytes(quiet, "CONSTANT", 0.99, 8_000), "silent", "holds no sound", (299, 301)),
    ]  # fmt: skip
