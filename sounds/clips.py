"""A segment of a recording -> a picture of it and an MP3, small enough to have hundreds of them in one page.

    clip = cut_clip(Path("dawn.wav"), start=5.0, end=10.0)
    clip.png, clip.mp3                                 # of 3 to 12 s, as far as there is sound

Reads    recordings, through audio
Writes   nothing

The picture is a spectrogram in sixteen greys, dark where it is loud, from 0 Hz to half the recording's rate or to
16 kHz; the sound is made as loud as it can be without clipping, and its true level is reported. What people cannot hear
is played slower, or faster, and cut and drawn as if it had been recorded so. Where voices are searched, they can be
silenced in both.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sounds.audio import as_mp3, examine_header, read_samples
from sounds.damage import Outcome
from sounds.voices import RATE as VOICE_RATE
from sounds.voices import Detector, Segments, gain_around, seconds_in
from sounds.windows import Waveform

AROUND_SECONDS = 2.0  # before and after the window
LEAD_SECONDS, TAIL_SECONDS = 3.0, 1.0  # before and after the clip, in which a voice is searched that reaches into it
PICTURE_RATE, SOUND_RATE = 32_000, 24_000  # Hz, at most
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000)  # of those at most SOUND_RATE
ROWS, COLUMNS_PER_SECOND = 128, 62.5  # of the picture
FRAME_SECONDS = 0.032
AUDIBLE_HZ, DEEP_HZ = 16_000.0, 1_500.0  # a band that ends above the one is played slower, below the other faster
SLOWER, FASTER = (2, 4, 5, 8, 10, 20, 40), 8  # the first that brings it below half of SOUND_RATE
RANGE_DB = 45.0  # from white to black, at most
FAINT_DB = 25.0  # at least: noise alone stays pale
GREYS = 16
LOUDEST = 0.891  # full scale less 1 dB


@dataclass(frozen=True)
class Clip:
    """What is shown and played of a window and of what lies around it."""

    png: bytes
    mp3: bytes
    lead: float  # seconds from the beginning of the clip to that of the window
    seconds: float  # of the clip
    top_hz: int  # upper edge of the picture
    peak_db: float | None  # of the clip in the recording, dB below full scale; None for silence
    slowed: float = 1.0  # how many times slower it is played than it was recorded
    voice: float = 0.0  # seconds of the window in which somebody speaks, where that was searched


def cut_clip(
    path: Path,
    start: float,
    end: float,
    known: Outcome | None = None,
    top_hz: float = 0.0,
    detector: Detector | None = None,
    mute: bool = False,
) -> Clip | str:
    """A window of a recording, start and end in seconds, with AROUND_SECONDS before and after it as they are played.

    known     what `audio.examine_header` said of the recording, where somebody has asked already
    top_hz    where the band ends that is to be seen and heard; 0: at PICTURE_RATE
    detector  searches voices in it
    mute      silence them
    returns   the clip, or in one line why there is none
    """
    outcome = known or examine_header(path)
    if outcome.status == "unreadable":
        return outcome.reason
    # as slow as ears need it, with what lies around it
    slowed = slowness(min(top_hz, outcome.sample_rate / 2))
    around = AROUND_SECONDS / max(slowed, 1.0)
    first, last = max(0.0, start - around), min(end + around, outcome.seconds)
    if start >= outcome.seconds:
        return f"has {outcome.seconds:.1f} s that can be read, the window begins at {start:g} s"
    picture_rate = min(outcome.sample_rate, PICTURE_RATE if slowed == 1 else round(2 * top_hz))
    rate = next(rate for rate in MP3_RATES if rate >= min(outcome.sample_rate / slowed, SOUND_RATE))
    shown, played = (
        read_samples(path, round(first * each), round((last - first) * each), each)
        for each in (picture_rate, round(rate * slowed))
    )
    if not len(shown) or not len(played):
        return f"cannot be read at {first:g} s"
    # without what people say
    speech = speech_around(path, first, last, detector) if detector else ()
    if mute and speech:
        shown = silenced(shown, first, picture_rate, speech)
        played = silenced(played, first, round(rate * slowed), speech)
    peak = float(np.abs(played).max())
    return Clip(
        png(greys(spectrogram(shown, round(picture_rate / slowed)))),
        as_mp3(played * np.float32(LOUDEST / peak if peak else 1.0), rate),
        lead=start - first,
        seconds=last - first,
        top_hz=picture_rate // 2,
        peak_db=20 * float(np.log10(peak)) if peak else None,
        slowed=slowed,
        voice=float(seconds_in(speech, np.array([start]), np.array([end]))[0]),
    )


def speech_around(path: Path, first: float, last: float, detector: Detector) -> Segments:
    """Where somebody speaks about a clip, start and end in seconds of the recording."""
    begin = round(max(0.0, first - LEAD_SECONDS) * VOICE_RATE)
    samples = read_samples(path, begin, round((last + TAIL_SECONDS) * VOICE_RATE) - begin, VOICE_RATE)
    return tuple((begin / VOICE_RATE + start, begin / VOICE_RATE + end) for start, end in detector.speech(samples))


def silenced(samples: Waveform, first: float, sample_rate: int, speech: Segments) -> Waveform:
    """A piece of a recording that begins `first` seconds in it (samples,), without what somebody says."""
    return samples * gain_around(round(first * sample_rate), len(samples), sample_rate, speech)


def slowness(top_hz: float) -> float:
    """How many times slower a band is played that ends there: 1 where people hear it; less than 1 is faster."""
    if 0 < top_hz < DEEP_HZ:
        return 1 / FASTER
    if top_hz <= AUDIBLE_HZ:
        return 1.0
    return float(next((factor for factor in SLOWER if top_hz / factor <= SOUND_RATE / 2), SLOWER[-1]))


def spectrogram(samples: Waveform, sample_rate: int) -> NDArray[np.float64]:
    """Power in dB, (ROWS, columns), the lowest frequency last; frames overlap by half, bins are averaged into rows."""
    bins = max(1, round(sample_rate * FRAME_SECONDS / 2 / ROWS))  # per row
    frame = 2 * bins * ROWS
    columns = max(2, int(len(samples) / sample_rate * COLUMNS_PER_SECOND) // 2 * 2)  # even: two pixels are one byte
    padded = np.pad(samples, frame // 2)
    centres = ((np.arange(columns) + 0.5) * len(samples) / columns).astype(np.int64)
    frames = padded[centres[:, None] + np.arange(frame)] * np.hanning(frame)
    power = np.abs(np.fft.rfft(frames)[:, 1:]) ** 2
    rows: NDArray[np.float64] = power.reshape(columns, ROWS, bins).mean(axis=2).T[::-1]
    return 10 * np.log10(rows / frame + 1e-12)


def greys(decibels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """0 (black, the loudest) to 15 (white): what most of the picture holds is pale, however loud the recording is."""
    middle, loudest = float(np.median(decibels)), float(np.percentile(decibels, 99.8))
    top = max(loudest, middle + FAINT_DB)
    low = max(middle, top - RANGE_DB)
    share = ((decibels - low) / (top - low)).clip(0, 1)
    return ((1 - share) * (GREYS - 1) + 0.5).astype(np.uint8)


def png(picture: NDArray[np.uint8]) -> bytes:
    """A PNG of 16 greys (rows, columns), columns even; https://www.w3.org/TR/png-3/."""
    rows, columns = picture.shape
    packed = picture[:, ::2] << 4 | picture[:, 1::2]
    lines = np.pad(packed, ((0, 0), (1, 0))).tobytes()  # each line begins with its filter: none
    header = struct.pack(">IIBBBBB", columns, rows, 4, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


if __name__ == "__main__":
    from demo_data import SAMPLE_RATE, SPECIES, plant, sing, weather, write_sound

    generator = np.random.default_rng(0)
    noise = weather(12 * SAMPLE_RATE, np.full((2, 3), 0.3), generator)
    meadow, thrush = noise.copy(), next(species for species in SPECIES if species.label == "fabthr1")
    plant(meadow, noise, sing(thrush, 4 * SAMPLE_RATE, generator), 5 * SAMPLE_RATE, thrush, snr_db=25.0)
    with tempfile.TemporaryDirectory() as folder:
        write_sound(Path(folder) / "meadow.wav", meadow, peak=0.5)
        clip = cut_clip(Path(folder) / "meadow.wav", 5.0, 10.0)
    assert isinstance(clip, Clip) and clip.lead == 2.0 and clip.seconds == 9.0 and clip.top_hz == 16_000
    print(f"{clip.seconds:g} s: picture {len(clip.png) / 1000:.1f} kB, sound {len(clip.mp3) / 1000:.1f} kB")
    dark = greys(spectrogram(meadow[3 * SAMPLE_RATE :], SAMPLE_RATE))[64:, :560].min(axis=0) < 2  # up to 8 kHz
    assert not dark[:120].any() and dark[125:375].mean() > 0.3, "the thrush sings in the window, from 2 s on"
