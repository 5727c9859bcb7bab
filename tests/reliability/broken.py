"""Sound files, whole and broken: what an archive holds after low batteries, full cards and careless copies.

    zoo = write_zoo(folder)            # one file for every kind of damage, each with what a reader should make of it
    path = sample(folder, "sound.ogg", noise(20.0))
    damaged = overwritten(path, 1_000, b"garbage")

What recorders do wrong is collected at https://github.com/ecoacoustics/known-problems; the rest are careless copies.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16_000
SECONDS = 20.0  # of every sound in the zoo
Sound = NDArray[np.float32]
Expected = Literal["ok", "salvaged", "unreadable", "silent", "short"]

SOUNDFILE_KINDS = {
    "pcm8.wav": {"subtype": "PCM_U8"},
    "pcm16.wav": {"subtype": "PCM_16"},
    "pcm24.wav": {"subtype": "PCM_24"},
    "pcm32.wav": {"subtype": "PCM_32"},
    "float.wav": {"subtype": "FLOAT"},
    "double.wav": {"subtype": "DOUBLE"},
    "alaw.wav": {"subtype": "ALAW"},
    "ulaw.wav": {"subtype": "ULAW"},
    "adpcm.wav": {"subtype": "IMA_ADPCM"},
    "extensible.wav": {"subtype": "PCM_16", "format": "WAVEX"},
    "rf64.wav": {"subtype": "PCM_16", "format": "RF64"},
    "w64.wav": {"subtype": "PCM_16", "format": "W64"},
    "pcm16.aiff": {"subtype": "PCM_16"},
    "pcm24.aif": {"subtype": "PCM_24", "format": "AIFF"},
    "sound.flac": {"subtype": "PCM_16"},
    "pcm24.flac": {"subtype": "PCM_24"},
    "sound.ogg": {"subtype": "VORBIS"},
    "sound.mp3": {"subtype": "MPEG_LAYER_III"},
    "sound.opus": {"subtype": "OPUS", "format": "OGG"},
}
FFMPEG_KINDS = {"sound.m4a": "aac", "lossless.m4a": "alac", "sound.aac": "aac", "sound.wma": "wmav2"}


@dataclass(frozen=True)
class Kind:
    """A file of the zoo, and what reading it should come to."""

    name: str  # below the folder of the zoo
    what: str
    status: Expected
    least_seconds: float
    most_seconds: float
    words: str  # a regular expression that the reason matches; "" where there is no reason
    calls: tuple[float, ...] | None = None  # where windows with a call begin, in seconds; None: nobody asks
    predicted: str = ""  # its status in predictor.py's files.csv where that is another; skipped: it has no row
    surveyed: str = ""  # the same in data_loader.py's recordings.csv


def write_zoo(folder: Path) -> list[Kind]:
    """One file for each kind of damage, made from the same 20 seconds."""
    sound = noise(SECONDS)
    whole = folder / "whole"
    whole.mkdir()
    wav, rf64, w64, aiff, flac, ogg, mp3, opus, m4a, alac, aac, wma = (
        sample(whole, name, sound).read_bytes()
        for name in (
            *("pcm16.wav", "rf64.wav", "w64.wav", "pcm16.aiff", "sound.flac", "sound.ogg", "sound.mp3", "sound.opus"),
            *FFMPEG_KINDS,
        )
    )
    noted = wav + b"guan" + struct.pack("<I", 9_000) + b"GUANO|no|" * 1_000
    zeros = write(whole / "zeros.wav", np.zeros_like(sound)).read_bytes()
    quiet = write(whole / "zeros.flac", np.zeros_like(sound)).read_bytes()
    no_numbers = sound.copy()
    no_numbers[5_000:5_005] = (np.nan, np.inf, -np.inf, 1e30, -1e30)
    strange = write(whole / "strange.wav", no_numbers, subtype="FLOAT").read_bytes()
    against = write(whole / "against.wav", np.stack([sound, -sound], axis=1)).read_bytes()
    crowd = write(whole / "crowd.wav", np.zeros((1_000, 65), np.float32)).read_bytes()
    size_at, pages = wav.index(b"data") + 4, ogg_pages(ogg)
    opens = sum(page[5] & 2 > 0 or page[28:34] == b"vorbis" for page in pages)
    assert opens < len(pages) // 2
    randomness = np.random.default_rng(1).bytes(len(wav))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("sound.wav", wav)

    half, all_of_it = (8.5, 11.0), (SECONDS - 0.1, SECONDS + 0.1)
    none = (0.0, 0.0)
    contents: list[tuple[str, str, bytes, Expected, tuple[float, float], str]] = [
        # what the recorder wrote: low battery, lost power, full card
        ("empty.wav", "0 bytes", b"", "unreadable", none, "has 0 bytes"),
        ("tiny.wav", "20 bytes", wav[:20], "unreadable", none, "has 20 bytes"),
        ("stub.wav", "wav, header alone", wav[:44], "unreadable", none, "begins like a WAV file"),
        ("stub.flac", "flac, header alone, 153 bytes", flac[:153], "unreadable", none, "begins like a FLAC file"),
        ("zeros.wav", "128 kB of zero bytes", bytes(128_000), "unreadable", none, "begins with 4096 zeros"),
        ("random.wav", "random bytes", randomness[:50_000], "unreadable", none, "no known format"),
        ("headless.wav", "full size, random, no header", randomness, "unreadable", none, "no known format"),
        ("beheaded.wav", "wav, its beginning lost", wav[1_000:], "unreadable", none, "no known format"),
        ("size_0.wav", "wav, data size 0", put(wav, size_at, bytes(4)), "salvaged", all_of_it, "fewer samples"),
        ("size_44.wav", "wav, data size 44", put(wav, size_at, number(44)), "salvaged", all_of_it, "fewer samples"),
        ("size_4gb.wav", "wav, claims 4 GB", put(wav, size_at, number(2**32 - 1)), "ok", all_of_it, ""),
        ("size_+44.wav", "wav, claims 44 bytes too much", grown(wav, size_at, 44), "ok", all_of_it, ""),
        ("size_rf64.wav", "rf64, 32-bit sizes -1", rf64_of(wav), "ok", all_of_it, ""),
        ("lost_rf64.wav", "rf64, true sizes 0", put(rf64, 20, bytes(24)), "salvaged", all_of_it, "fewer samples"),
        ("tail.wav", "wav, space set aside", put(wav, -160_000, bytes(160_000)), "ok", all_of_it, "5.0 s .* no sound"),
        (
            "size_0_tail.wav",
            "wav, data size 0 and a zero tail",
            put(put(wav, size_at, bytes(4)), -160_000, bytes(160_000)),
            "salvaged",
            all_of_it,
            "fewer samples",
        ),
        ("silent.wav", "wav, digital silence", zeros, "silent", all_of_it, "holds no sound"),
        ("silent.flac", "flac, digital silence", quiet, "silent", all_of_it, "holds no sound"),
        ("strange.wav", "wav, NaN and Inf", strange, "salvaged", all_of_it, "^5 samples are no numbers"),
        ("against.wav", "wav, channels in antiphase", against, "ok", all_of_it, "cancel each other .*antiphase"),
        ("rate.wav", "wav, absurd rate", put(wav, 24, number(2**31 - 1)), "unreadable", none, "2147483647 Hz"),
        ("rate_0.wav", "wav, rate 0", put(wav, 24, number(0)), "unreadable", none, "0 Hz|begins like a WAV"),
        ("crowd.wav", "wav, absurd channels", crowd, "unreadable", none, "65 channels"),
        ("channels_0.wav", "wav, no channels", put(wav, 22, bytes(2)), "unreadable", none, "begins like a WAV file"),
        ("bits.wav", "wav, samples of 0 bits", put(wav, 34, bytes(2)), "unreadable", none, "begins like a WAV file"),
        ("guano.wav", "wav, notes behind the sound, whole", noted, "ok", all_of_it, ""),
        ("streamed.flac", "flac, length 0", flac_of(flac, 0), "ok", all_of_it, ""),
        ("doubled.flac", "flac, length doubled", flac_of(flac, 2), "salvaged", all_of_it, "20.0 s of the 40.0 s"),
        ("data", "flac, partial, named data", flac[: len(flac) // 2], "salvaged", half, "of the 20.0 s"),
        # cut: a copy that stopped half way
        ("cut.wav", "wav, cut", halved(wav), "salvaged", half, "10.0 s of the 20.0 s"),
        ("cut_rf64.wav", "rf64, cut", halved(rf64), "salvaged", half, "10.0 s of the 20.0 s"),
        ("cut_w64.wav", "w64, cut", halved(w64), "salvaged", half, "10.0 s of the 20.0 s"),
        ("cut.aiff", "aiff, cut", halved(aiff), "salvaged", half, "10.0 s of the 20.0 s"),
        ("cut.flac", "flac, cut", halved(flac), "salvaged", half, "of the 20.0 s"),
        ("cut.ogg", "ogg, cut", halved(ogg), "salvaged", half, "breaks off"),
        (
            "cut_clean.ogg",
            "ogg, cut between pages",
            b"".join(pages[: len(pages) // 2]),
            "ok",
            half,
            "no mark of its end",
        ),
        ("cut.opus", "opus, cut", halved(opus), "salvaged", half, "breaks off"),
        ("cut.mp3", "mp3, cut", halved(mp3), "salvaged", half, "of the 20.0 s"),
        ("cut.aac", "aac, cut", halved(aac), "salvaged", half, "packets left out: 1"),
        ("cut.m4a", "m4a, cut, index lost", halved(m4a), "unreadable", none, "begins like an MP4 file"),
        ("cut.wma", "wma, cut", halved(wma), "salvaged", half, "s it claims could be read"),
        # garbage: 4 kB overwritten in the middle, or never written
        ("garbage.wav", "wav, garbage inside", garbled(wav), "ok", all_of_it, ""),
        ("garbage.flac", "flac, garbage inside", garbled(flac, 16_384), "salvaged", all_of_it, "lost in between"),
        ("garbage.ogg", "ogg, garbage inside", garbled(ogg), "salvaged", all_of_it, "lost in between"),
        ("garbage.opus", "opus, garbage inside", garbled(opus), "salvaged", all_of_it, "lost in between"),
        ("garbage.mp3", "mp3, garbage inside", garbled(mp3), "salvaged", (17.0, 20.1), "of the 20.0 s"),
        ("garbage.aac", "aac, garbage inside", garbled(aac), "salvaged", (18.0, 20.2), "times"),
        ("garbage.m4a", "m4a, garbage inside", garbled(m4a), "salvaged", (19.9, 20.2), "lost in between"),
        ("garbage_alac.m4a", "alac, garbage inside", garbled(alac), "salvaged", all_of_it, "lost in between"),
        ("garbage.wma", "wma, garbage inside", garbled(wma), "salvaged", all_of_it, "lost in between"),
        ("unwritten.flac", "flac, second half zero bytes", unwritten(flac), "salvaged", half, "of the 20.0 s"),
        ("unwritten.ogg", "ogg, second half zero bytes", unwritten(ogg), "salvaged", half, "damaged in the page"),
        ("unwritten.mp3", "mp3, second half zero bytes", unwritten(mp3), "salvaged", half, "of the 20.0 s"),
        ("page.ogg", "ogg, page lost", b"".join(pages[:9] + pages[10:]), "salvaged", all_of_it, "lost in between"),
        ("beheaded.ogg", "ogg, first pages lost", b"".join(pages[opens:]), "unreadable", none, "an Ogg file"),
        ("beheaded.mp3", "mp3, first half lost", mp3[len(mp3) // 2 :], "ok", half, ""),
        ("beheaded.flac", "flac, first half lost", flac[len(flac) // 2 :], "unreadable", none, "no known format"),
        # glued and misnamed: careless copies
        ("glued.wav", "two wav glued", 2 * wav, "salvaged", all_of_it, "second recording"),
        ("glued.flac", "two flac glued", 2 * flac, "salvaged", (39.9, 40.1), "fewer samples"),
        ("glued.ogg", "two ogg glued", 2 * ogg, "salvaged", (39.0, 41.0), "glued together"),
        ("glued.mp3", "four mp3 glued", 4 * mp3, "salvaged", (79.9, 80.5), "fewer samples"),
        ("ogg.wav", "ogg named .wav", ogg, "ok", all_of_it, "is a .ogg file named .wav"),
        ("mp3.wav", "mp3 named .wav", mp3, "ok", all_of_it, "is a .mp3 file named .wav"),
        ("wav.mp3", "wav named .mp3", wav, "ok", all_of_it, "is a .wav file named .mp3"),
        ("m4a.mp3", "m4a named .mp3", m4a, "ok", (19.9, 20.2), "is a .m4a file named .mp3"),
        ("text.wav", "text named .wav", b"An owl, twice.\n" * 99, "unreadable", none, "named .wav, is text"),
        ("html.mp3", "html named .mp3", b"<!doctype html><html>\n" * 99, "unreadable", none, "is an HTML page"),
        ("image.wav", "image named .wav", b"\x89PNG\r\n\x1a\n" + randomness[:9_000], "unreadable", none, "an image"),
        ("zip.wav", "zip named .wav", archive.getvalue(), "unreadable", none, "is an archive"),
        (os.fsdecode(b"owl\xff\xfe.wav"), "name that is no UTF-8", wav, "ok", all_of_it, ""),
    ]
    zoo: list[Kind] = []
    for name, kind, content, status, (least, most), words in contents:
        (folder / name).write_bytes(content)
        zoo.append(Kind(name, kind, status, least, most, words))
    return zoo + write_no_files(folder)


def write_no_files(folder: Path) -> list[Kind]:
    """What a folder lists like a recording and nobody can open."""
    (folder / "folder.wav").mkdir()
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    os.mkfifo(folder / "pipe.wav")
    zoo = [
        Kind("folder.wav", "folder named .wav", "unreadable", 0.0, 0.0, "is a folder"),
        Kind("dangling.wav", "link to nothing", "unreadable", 0.0, 0.0, "cannot be found"),
        Kind("loop.wav", "link to itself", "unreadable", 0.0, 0.0, "cannot be found"),
        Kind("pipe.wav", "pipe", "unreadable", 0.0, 0.0, "is a pipe"),
        Kind("none.wav", "nothing there", "unreadable", 0.0, 0.0, "cannot be found"),
    ]
    locked = write(folder / "locked.wav", noise(SECONDS))
    locked.chmod(0)
    if not os.access(locked, os.R_OK):  # to root nothing is locked
        zoo.append(Kind(locked.name, "no permission to read", "unreadable", 0.0, 0.0, "check the disk"))
    return zoo


# ---- whole files --------------------------------------------------------------------------------------------------


def noise(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> Sound:
    shape = (round(seconds * rate), channels) if channels > 1 else (round(seconds * rate),)
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def with_beep(sound: Sound, at_seconds: float, rate: int = RATE) -> Sound:
    """A loud tenth of a second of 3 kHz on top of a quiet sound."""
    beep = 0.8 * np.sin(2 * np.pi * 3_000 * np.arange(rate // 10) / rate)
    planted = 0.1 * sound
    start = round(at_seconds * rate)
    planted[start : start + len(beep)] += beep.astype(np.float32)
    return planted


def write(
    path: Path,
    sound: Sound,
    rate: int = RATE,
    subtype: str | None = "PCM_16",
    format: str | None = None,  # noqa: A002 - soundfile calls it so
) -> Path:
    """A few seconds at a time: Vorbis has no room for more."""
    channels = 1 if sound.ndim == 1 else sound.shape[1]
    with soundfile.SoundFile(path, "w", rate, channels, subtype, format=format) as file:
        for start in range(0, len(sound), 2 * rate):
            file.write(sound[start : start + 2 * rate])
    return path


def encode(path: Path, codec: str, sound: Sound, rate: int = RATE) -> Path:
    """What only FFmpeg writes."""
    kind = {".m4a": "mp4", ".aac": "adts", ".wma": "asf"}[path.suffix]
    channels = 1 if sound.ndim == 1 else sound.shape[1]
    layout = {1: "mono", 2: "stereo", 4: "4.0", 6: "5.1", 8: "7.1(wide)" if codec == "alac" else "7.1"}[channels]
    with av.open(path, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        if codec != "alac":
            stream.bit_rate = 64_000 * channels
        pcm = np.round(sound * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def sample(folder: Path, name: str, sound: Sound, rate: int = RATE) -> Path:
    if name in FFMPEG_KINDS:
        return encode(folder / name, FFMPEG_KINDS[name], sound, rate)
    return write(folder / name, sound, rate, **SOUNDFILE_KINDS[name])


# ---- damage -------------------------------------------------------------------------------------------------------


def cut(path: Path, share: float = 0.5) -> Path:
    half = path.with_name("cut_" + path.name)
    half.write_bytes(halved(path.read_bytes(), share))
    return half


def overwritten(path: Path, start: int, garbage: bytes) -> Path:
    damaged = path.with_name("damaged_" + path.name)
    damaged.write_bytes(put(path.read_bytes(), start, garbage))
    return damaged


def halved(content: bytes, share: float = 0.5) -> bytes:
    return content[: int(len(content) * share)]


def put(content: bytes, start: int, piece: bytes) -> bytes:
    """Content with a piece of it overwritten, its size the same."""
    start %= len(content)
    assert start + len(piece) <= len(content)
    return content[:start] + piece + content[start + len(piece) :]


def number(value: int) -> bytes:
    return struct.pack("<I", value)


def grown(wav: bytes, at: int, more: int) -> bytes:
    """A size in a WAV header, larger than it should be."""
    return put(wav, at, number(int.from_bytes(wav[at : at + 4], "little") + more))


def garbled(content: bytes, size: int = 4_096) -> bytes:
    return put(content, len(content) // 3, np.random.default_rng(1).bytes(size))


def unwritten(content: bytes) -> bytes:
    return put(content, len(content) // 2, bytes(len(content) - len(content) // 2))


def rf64_of(wav: bytes) -> bytes:
    """A WAV file as RF64: the sizes in their old places are -1, the true ones stand in a chunk of their own."""
    data = wav.index(b"data")
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, len(wav) + 28, len(wav) - data - 8, 0, 0)
    return b"RF64" + b"\xff" * 4 + b"WAVE" + sizes + wav[12:data] + b"data" + b"\xff" * 4 + wav[data + 8 :]


def flac_of(flac: bytes, times: int) -> bytes:
    """A FLAC file whose header speaks of its samples so many times; 0 stands for an unknown number."""
    packed = int.from_bytes(flac[18:26], "big")  # the last 36 bits are the number of samples
    samples = packed % 2**36
    return put(flac, 18, (packed - samples + times * samples).to_bytes(8, "big"))


def ogg_pages(ogg: bytes) -> list[bytes]:
    starts = [match.start() for match in re.finditer(b"OggS\0", ogg)]
    lengths = [27 + ogg[start + 26] + sum(ogg[start + 27 : start + 27 + ogg[start + 26]]) for start in starts]
    assert list(accumulate(lengths, initial=0))[:-1] == starts
    return [ogg[start : start + length] for start, length in zip(starts, lengths, strict=True)]
