"""What is wrong with a recording: refused before it is opened, counted while it is decoded, said in one line.

reading = Reading(".wav", sample_rate=16_000, channels=2)
mono = reading.take(block)                          # (frames, channels) -> (frames,); what is no sound is noted
reading.outcome()                                   # ok, salvaged, silent, short or unreadable, and why
"""

from __future__ import annotations

import hashlib
import math
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from sounds.discovery import OWN_SUFFIXES, SUFFIXES
from sounds.headers import Header
from sounds.windows import SHORTEST_SECONDS, SILENCE, Waveform, sounding

SMALLEST_FILE = 44  # bytes: the header of a WAV file
MOST_CHANNELS = 64
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # Hz
MISSING_SECONDS = 0.1  # a claim missed by less is the codec's rounding
QUIET, LOUD = 10**-2.5, 2.5  # loudest samples of a recording that are worth a word, below and beyond
CLIPPED, CLIPPED_SHARE, CLIPPED_PEAK = 0.99, 0.5, 0.5  # half of a second within 1 % of its peak, if that is high
INTEGERS, INTEGER_PEAK, INTEGER_SHARE = 2.0**15, 16.0, 0.1  # float files that hold the numbers of 16-bit ones
SCANS, SCAN_FRAMES = (64, 4096), 1024  # so many pieces of a file decide that, or so many more where these cannot
DEAD_SECONDS = 1.0  # the grain in which sound is distinguished from silence
LOUDEST = 2.0**31  # a sample beyond any recorder's scale is damage, as NaN is
FAINT_MEAN = 0.1  # of its channels' RMS: unrelated channels keep at least an eighth, the root of 1 / MOST_CHANNELS
SOUND_SIGNS = {
    b"RIFF": "a WAV file",
    b"RF64": "a WAV file",
    b"fLaC": "a FLAC file",
    b"OggS": "an Ogg file",
    b"FORM": "an AIFF file",
    b"caff": "a CAF file",
    b"riff": "a W64 file",
    b"RIFX": "a WAV file",
    b"BW64": "a WAV file",
    b"ID3": "an MP3 file",
    b"ftyp": "an MP4 file",
}
OTHER_SIGNS = {
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "an archive",
    b"\x1f\x8b": "an archive",
    b"7z\xbc\xaf": "an archive",
    b"Rar!": "an archive",
}
PLAIN_TEXT = bytes({*b"\t\n\f\r", *range(32, 127), *range(128, 256)})  # with UTF-8 and Latin letters


@dataclass(frozen=True)
class Outcome:
    """How reading a recording went."""

    status: Literal["ok", "salvaged", "silent", "short", "unreadable"]
    reason: str  # empty when all is well; else what was found and what to do, in one line
    seconds: float  # as decoded
    sample_rate: int  # Hz, of the file; 0 when unreadable
    channels: int  # of the file; 0 when unreadable
    claimed_seconds: float = field(default=0.0, compare=False)  # by its header, as decoded where that says nothing
    loudest: float = field(default=0.0, compare=False)  # sample of the mono mix; 0 for silence, NaN where not decoded
    dead: tuple[tuple[float, float], ...] = field(default=(), compare=False)  # start and end of what holds no sound

    @property
    def silent_seconds(self) -> float:
        """How much of it holds no sound and is not analysed."""
        return self.seconds if self.status in ("silent", "short") else sum(end - start for start, end in self.dead)


@dataclass
class Reading:
    """What is learnt about a file while it is decoded."""

    suffix: str = ""  # of its name
    channel: int = 0  # to be read alone, counted from 1; 0 for the mean of all
    shortest: float = SHORTEST_SECONDS  # of sound that is worth a window
    kind: str = ""  # what libsndfile or FFmpeg took it for
    sample_rate: int = 0
    channels: int = 0
    frames: int = 0  # decoded so far
    taken: int = 0  # frames of these that were counted and mixed
    claimed: int = 0  # frames its header speaks of, 0 where it does not
    strange: int = 0  # samples that were no numbers
    broken: int = 0  # packets that could not be decoded
    silenced: int = 0  # frames lost in between, replaced by silence
    unended: bool = False  # an Ogg file without the mark that ends one
    header: Header = field(default_factory=Header)  # how far that can be believed
    loudest: float = 0.0  # sample of the mono mix
    digest: hashlib.blake2b | None = None  # of all samples as they are, where somebody wants one
    integers: bool | None = None  # its samples are those of a 16-bit file; None: not yet known
    dead: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])  # first frame and end of no sound
    last: dict[int, tuple[int, bool]] = field(default_factory=dict[int, tuple[int, bool]])  # its end, whether clipped
    clipped: int = 0  # frames of these that are clipped throughout
    sounding: int = 0  # frames of tenths of a second of the mono mix in which something moves
    dead_channels: list[int] = field(default_factory=list[int])  # frames without sound in each of several channels
    power: float = 0.0  # sum of the squares of all samples, where there are several channels
    mixed_power: float = 0.0  # the same of their mean, times the number of channels
    refusal: str = ""
    faults: list[str] = field(default_factory=list[str])

    @property
    def grain(self) -> int:
        """Frames in which sound is distinguished from silence, counted from the beginning of the recording."""
        return round(DEAD_SECONDS * self.sample_rate)

    def take(self, block: NDArray[np.float32]) -> Waveform:
        """Count a block (frames, channels) and mix it to mono (frames,), with zeros for what is no number and for what
        is clipped throughout. It begins with a second of the recording, and ends with one or with the recording."""
        if self.digest:
            self.digest.update(b"" if self.taken else f"{self.sample_rate} {block.shape[1]} ".encode())
            self.digest.update(np.ascontiguousarray(block).data)
        if not (block.min() >= -LOUDEST and block.max() <= LOUDEST):  # so too where one of them is NaN
            sane = np.abs(block) <= LOUDEST
            self.strange += block.size - int(np.count_nonzero(sane))
            block = np.where(sane, block, np.float32(0))
        if self.integers:
            block = block / np.float32(INTEGERS)
        mixed = self.mix(block[:, [self.channel - 1]] if self.channel else block)
        self.silence_clipped(mixed)
        self.sounding += sounding(mixed, self.sample_rate)
        self.loudest = max(self.loudest, float(mixed.max()), -float(mixed.min()))
        self.taken += len(block)
        return mixed

    def mix(self, block: NDArray[np.float32]) -> Waveform:
        """The mean (frames,) of all channels of a block (frames, channels); of several it is noted which hold no sound,
        and whether they cancel each other."""
        channels = block.shape[1]
        mixed = block[:, 0].copy()
        for channel in block.T[1:]:  # ten times as fast as a mean over short rows
            mixed += channel
        if channels > 1:
            mixed /= np.float32(channels)
            samples = block.ravel("K")
            self.power += float(samples @ samples)
            self.mixed_power += float(mixed @ mixed) * channels
            self.dead_channels = self.dead_channels or [0] * channels
            for number, channel in enumerate(block.T, 1):
                self.dead_channels[number - 1] += sum(end - start for start, end, _ in self.lifeless(channel, number))
        return mixed

    def silence_clipped(self, mixed: Waveform) -> None:
        """Note the seconds of a mono block (frames,) that hold no sound; those clipped throughout become zeros."""
        for start, end, clipped in list(self.lifeless(mixed)):
            if clipped:
                mixed[start:end] = 0
                self.clipped += end - start
            begin = self.taken + start
            if self.dead and self.dead[-1][1] == begin:
                begin = self.dead.pop()[0]
            self.dead.append((begin, self.taken + end))

    def lifeless(self, sound: Waveform, number: int = 0) -> Iterator[tuple[int, int, bool]]:
        """The seconds of a block (frames,) in which nothing moves or all is clipped: first, end, whether clipped. A
        rest that is shorter is too short to say, and is left out only behind such a second and if it is so itself.

        number   of a channel, 0 for the mean of all
        """
        grain = self.grain
        for start in range(0, len(sound), grain):
            piece = sound[start : start + grain]
            low, high = float(piece.min()), float(piece.max())
            peak = max(high, -low)
            still = high - low < SILENCE
            loud = peak >= CLIPPED_PEAK and not still
            clipped = loud and bool(np.mean(np.abs(piece) >= CLIPPED * peak) > CLIPPED_SHARE)
            at = self.taken + start
            behind, also_clipped = self.last.get(number, (0, False))
            rest = len(piece) < grain and at > 0
            if (still or clipped) and (not rest or behind == at):
                self.last[number] = at + len(piece), clipped or (rest and also_clipped)
                yield start, start + len(piece), self.last[number][1]

    def outcome(self) -> Outcome:
        """How the recording went, once it has been read to its end."""
        if not self.frames:
            return Outcome("unreadable", self.refusal, 0.0, 0, 0)
        rate, seconds = self.sample_rate, self.frames / self.sample_rate
        dead = sum(end - start for start, end in self.dead)
        short = self.frames < self.shortest * rate
        few = self.shortest * rate
        still = self.taken > 0 and self.sounding < few  # not known of a file of which only the header was read
        silent = not short and ((dead > 0 and self.frames - dead <= few) or still)
        faults = self.all_faults()
        notes = ["all else was used, look for a better copy"] if faults and not (silent or short) else []
        if short:
            notes.append(f"{seconds:.2f} s are too short to analyse, at least {self.shortest:g} s are needed")
        notes += self.dead_notes(dead, silent) if not short else []
        notes += self.channel_notes(dead) if not silent else []
        if self.loudest < QUIET and not (silent or short):
            decibels = -20 * math.log10(max(self.loudest, 1e-9))
            notes.append(
                f"very quiet, its loudest sample {decibels:.0f} dB below full scale; raised before it is analysed"
            )
        return Outcome(
            "silent" if silent else "short" if short else "salvaged" if faults else "ok",
            "; ".join([*faults, *notes, *self.other_notes()]),
            seconds,
            rate,
            self.channels,
            self.claimed / rate or seconds,
            self.loudest,
            tuple((start / rate, end / rate) for start, end in self.dead),
        )

    def all_faults(self) -> list[str]:
        """What is damaged or missing."""
        faults, rate = list(self.faults), self.sample_rate
        beyond = self.frames - self.claimed if self.claimed else 0
        if self.header.short or beyond > MISSING_SECONDS * rate:
            faults.append("its header speaks of fewer samples than follow")
        if -beyond > MISSING_SECONDS * rate:
            faults.append(f"{self.frames / rate:.1f} s of the {self.claimed / rate:.1f} s it claims could be read")
        if self.silenced:
            faults.append(f"{self.silenced / rate:.1f} s were lost in between and are silent here")
        if self.broken:
            faults.append(f"damaged packets left out: {self.broken}")
        if self.strange:
            faults.append(f"{self.strange} samples are no numbers and silent here")
        return faults

    def dead_notes(self, dead: int, silent: bool) -> list[str]:
        """Where it holds no sound: frames of that in all, and whether that is as good as all of it."""
        clipped = self.clipped > dead / 2
        if silent and clipped:
            return ["is clipped throughout; the recorder or its microphone failed, leave it out"]
        if silent:
            return ["holds no sound (zeros or a constant); the recorder or its microphone failed, leave it out"]
        if dead - self.silenced < DEAD_SECONDS * self.sample_rate:
            return []
        lost, at = dead / self.sample_rate, self.dead[0][0] / self.sample_rate
        if clipped:
            return [f"{lost:.1f} s of it, the first at {at:.1f} s, are clipped throughout and are left out"]
        return [f"{lost:.1f} s of it, the first at {at:.1f} s, hold no sound (zeros or a constant) and are left out"]

    def channel_notes(self, dead: int) -> list[str]:
        """Which of several channels hold no sound for a second beyond the frames in which none does."""
        longest = dead + DEAD_SECONDS * self.sample_rate
        mute = [number for number, frames in enumerate(self.dead_channels, 1) if frames >= longest]
        return [f"no sound for a while in channel {', '.join(map(str, mute))}, use another one"] if mute else []

    def other_notes(self) -> list[str]:
        """What is strange about its level, its samples, its end and its name."""
        notes: list[str] = []
        if self.loudest > LOUD:
            notes.append(f"louder than full scale ({self.loudest:.3g}), its samples were scaled by something")
        if self.integers:
            notes.append("its float samples are those of 16-bit integers, divided by 32768 here")
        if self.mixed_power < FAINT_MEAN**2 * self.power:
            notes.append("its channels cancel each other in the mean (antiphase), use one channel")
        if self.unended:
            notes.append("has no mark of its end and may have been cut, compare it with the original")
        own = OWN_SUFFIXES.get(self.kind, (self.suffix,))
        if self.suffix in SUFFIXES and self.suffix not in own:
            notes.append(f"is a {own[0]} file named {self.suffix}, read all the same")
        return notes


def refusal(path: Path) -> str:
    """Why a path is not worth opening, or nothing. It comes before any opening: a pipe would wait for ever."""
    try:
        facts = path.stat()
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        return f"cannot be found ({error}); check the path"
    if stat.S_ISDIR(facts.st_mode):
        return "is a folder; name the recordings in it"
    if not stat.S_ISREG(facts.st_mode):
        return "is a pipe or a device, not a file; leave it out"
    if facts.st_size < SMALLEST_FILE:
        return f"has {facts.st_size} bytes, no room for sound; leave it out or copy it again"
    return ""


def unfit(sample_rate: int, channels: int, channel: int = 0) -> str:
    """Why sound of this shape is refused, or nothing; asked before anything is allocated for it.

    channel   that is to be read
    """
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        return f"claims a sample rate of {sample_rate} Hz, outside 1 kHz to 1 MHz; its header is damaged, copy it again"
    if not 1 <= channels <= MOST_CHANNELS:
        return f"claims {channels} channels, at most {MOST_CHANNELS} are read; its header is damaged, or split it"
    if channel > channels:
        return f"has {channels} channels, channel {channel} was asked for; choose another --channel"
    return ""


def expanded(sample_rate: int, expansion: int) -> int:
    """Hz at which sound was recorded that plays so many times slower; a rate that no recorder has is not believed."""
    return sample_rate * expansion if sample_rate * expansion <= HIGHEST_RATE else sample_rate


def what_instead(file: BinaryIO, suffix: str, header: Header) -> str:
    """What a file is from which not one sample could be decoded."""
    file.seek(0)
    head = file.read(4096)
    name = f"named {suffix}" if suffix else "named without a suffix"
    kind = next((kind for sign, kind in OTHER_SIGNS.items() if head.startswith(sign)), "")
    if not head.translate(None, PLAIN_TEXT):
        kind = "an HTML page" if b"<html" in head.lower() else "text"
    if kind:
        return f"{name}, is {kind}; copy the recording again or leave it out"
    if not head.strip(b"\0"):
        return f"{name}, begins with {len(head)} zeros; the recorder wrote no sound, leave it out"
    if sound := next((kind for sign, kind in SOUND_SIGNS.items() if sign in (head[: len(sign)], head[4:8])), ""):
        if header.short and not header.mendable:
            return (
                f"begins like {sound}, its header was never finished and nothing can be decoded without it; "
                "copy it again"
            )
        return f"begins like {sound}, but no sound in it can be decoded; copy it again or leave it out"
    return f"{name}, is in no known format; copy it again or leave it out"


def are_integers(pieces: Callable[[int], Iterator[NDArray[np.float32]]]) -> bool:
    """Whether the samples of a file are the numbers of a 16-bit one: many of those that are not 0 lie beyond full
    scale, and one lies far beyond it or all are whole.

    pieces   gives so many pieces of the file; NaN and what is beyond any scale do not count
    """
    for number in SCANS:
        beyond, count, loudest, whole = 0, 0, 0.0, True
        for piece in pieces(number):
            levels = np.abs(piece)
            levels = levels[(levels > 0) & (levels <= LOUDEST)]
            beyond, count = beyond + int(np.count_nonzero(levels > 1)), count + len(levels)
            loudest = max(loudest, float(levels.max(initial=0)))
            whole = whole and bool((levels == np.rint(levels)).all())
        if beyond <= INTEGER_SHARE * count or loudest > INTEGER_PEAK or whole:
            return beyond > INTEGER_SHARE * count
    return False


def spread_starts(frames: int, number: int) -> list[int]:
    """Where pieces of SCAN_FRAMES begin that are spread over a recording: so many, fewer where they would overlap."""
    number = max(1, min(number, -(-frames // SCAN_FRAMES)))
    return [int(start) for start in np.linspace(0, max(0, frames - SCAN_FRAMES), number)]


if __name__ == "__main__":
    hiss = np.random.default_rng(0).normal(0, 0.1, (12_000, 2)).astype(np.float32)
    hiss[4_000:6_000] = 0  # both microphones are dead for 2 s
    hiss[8_000:, 1] = 0  # then one of them
    hiss[100, 0] = np.nan
    reading = Reading(".mp3", kind="WAV", sample_rate=1_000, channels=2, frames=len(hiss), claimed=15_000)
    mono = reading.take(hiss)
    outcome = reading.outcome()
    print(f"{outcome.status}: {outcome.reason}")
    assert outcome.status == "salvaged" and outcome.dead == ((4.0, 6.0),) and mono[100] == hiss[100, 1] / 2
    for words in (
        "12.0 s of the 15.0 s it claims",
        "1 samples are no numbers",
        "in channel 2",
        "a .wav file named .mp3",
    ):
        assert words in outcome.reason
