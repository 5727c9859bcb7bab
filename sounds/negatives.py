"""Made-up sound without any animal, for whoever has no recordings of it: rain, wind, water, engines, hum, handling,
clicks, clipping, faint hiss, an offset, and babble like speech.

    sound = negative("rain", seconds=10.0, rate=16_000, rng=np.random.default_rng(0))
    folder = negatives_folder(16_000)      # FLAC files of every kind, made once, from fixed seeds

Writes   /tmp/wildwhisper/negatives/<rate>-<version>/

Each is drawn anew: level, colour, gusts, pitches, rates. The noise has random phases under a spectrum, so nothing in it
repeats, and no recording of anybody's is in it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from config import SCRATCH
from runtime.files import publish
from sounds.audio import write_flac

Sound = NDArray[np.float64]
Draw = np.random.Generator
VERSION = 1  # of the sound: raise it when a kind changes
EACH, SECONDS = 12, 10.0  # files of a kind, and of each
LEAST_RATE = 32_000  # of the files: slower networks share them
LEVELS = -45.0, -8.0  # dB below full scale of the loudest moment
FORMANTS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
)  # Hz, of vowels
SOFTEST = 1e-12
MOST_CLIPPED = 0.4  # of any half second


def negatives_place() -> Path:
    """Below it are the folders of every rate."""
    return SCRATCH / "negatives"


def negatives_folder(rate: int) -> Path:
    """The folder of made-up negatives for networks of a sample rate; made where it is not there, half a minute."""
    rate = max(rate, LEAST_RATE)
    folder = negatives_place() / f"{rate}-{VERSION}"
    wanted = [(number, kind, take) for number, kind in enumerate(KINDS) for take in range(EACH)]
    missing = [one for one in wanted if not (folder / name_of(*one[1:])).is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    for number, kind, take in tqdm(missing, "made-up noise", unit="file", disable=None, leave=False):
        sound = negative(kind, SECONDS, rate, np.random.default_rng([VERSION, number, take]))
        with publish(folder / name_of(kind, take)) as temporary:
            write_flac(temporary, sound, rate, "TE:1")  # true seconds, whatever --data.time_expansion says
    return folder


def name_of(kind: str, take: int) -> str:
    return f"{kind}-{take:02}.flac"


def negative(kind: str, seconds: float, rate: int, rng: Draw) -> NDArray[np.float32]:
    """(samples,) of a kind of KINDS, at a random level below full scale."""
    assert kind in KINDS, f"{kind!r} is none of {', '.join(KINDS)}"
    sound = KINDS[kind](round(seconds * rate), rate, rng)
    if kind not in UNSCALED:
        sound = scaled(sound, rng.uniform(*LEVELS))
    return sound.clip(-1, 1).astype(np.float32)


def scaled(sound: Sound, decibels: float) -> Sound:
    """The same with its loudest moment at a level below full scale."""
    peak = float(np.abs(sound).max())
    return sound * (10 ** (decibels / 20) / max(peak, SOFTEST))


# --- building blocks ------------------------------------------------------------------------------------------------


def noise(samples: int, rate: int, rng: Draw, gain: Callable[[Sound], Sound]) -> Sound:
    """Gaussian noise under a spectrum; gain takes frequencies in Hz. Mean square 1."""
    spectrum = np.fft.rfft(rng.normal(size=samples)) * gain(np.asarray(np.fft.rfftfreq(samples, 1 / rate), np.float64))
    sound = np.fft.irfft(spectrum, samples)
    return np.asarray(sound / max(float(sound.std()), SOFTEST), np.float64)


def slope(power: float, lowest: float = 20.0, highest: float = np.inf) -> Callable[[Sound], Sound]:
    """A spectrum that falls with frequency to this power, within a band whose edges are an octave wide."""

    def gain(hertz: Sound) -> Sound:
        inside = 1 / (1 + (lowest / np.maximum(hertz, 1)) ** 4) / (1 + (hertz / highest) ** 4)
        return np.asarray(np.maximum(hertz, 1) ** -power * inside, np.float64)

    return gain


def wandering(samples: int, rate: int, rng: Draw, hertz: float, low: float, high: float) -> Sound:
    """A curve that goes up and down so many times a second, between two values."""
    points = rng.normal(size=2 + int(np.ceil(2 * hertz * samples / rate)))
    curve = np.interp(np.linspace(0, len(points) - 1, samples), np.arange(len(points)), points)
    return np.asarray(low + (high - low) / (1 + np.exp(-1.5 * curve)), np.float64)


def phase(frequency: Sound, rate: int) -> Sound:
    """Radians of a tone with this frequency at each sample."""
    return np.asarray(2 * np.pi * np.cumsum(frequency) / rate, np.float64)


def scattered(samples: int, rate: int, rng: Draw, per_second: float, event: Callable[[], Sound]) -> Sound:
    """Events at random moments, added up."""
    sound = np.zeros(samples)
    for start in rng.integers(0, samples, rng.poisson(per_second * samples / rate)).tolist():
        piece = event()[: samples - start]
        sound[start : start + len(piece)] += piece
    return sound


def fading(seconds: float, rate: int) -> Sound:
    """A quick rise, then an exponential fall to a thousandth."""
    count = max(8, round(seconds * rate))
    curve = np.exp(-np.linspace(0, 7, count))
    curve[: count // 20 + 1] *= np.linspace(0, 1, count // 20 + 1)
    return curve


# --- the kinds ------------------------------------------------------------------------------------------------------


def rain(samples: int, rate: int, rng: Draw) -> Sound:
    """Hiss of many drops, and single ones on leaves or the box."""
    hiss = noise(samples, rate, rng, slope(rng.uniform(0, 0.8), rng.uniform(300, 2000), rng.uniform(3000, rate / 2)))
    heavy = wandering(samples, rate, rng, rng.uniform(0.1, 1), rng.uniform(0.2, 0.9), 1)

    def drop() -> Sound:
        seconds, hertz = rng.uniform(0.002, 0.03), rng.uniform(500, min(7000, rate / 2.5))
        envelope = fading(seconds, rate)
        time = np.arange(len(envelope)) / rate
        ring = np.sin(2 * np.pi * hertz * time) * rng.uniform(0, 1) + rng.normal(size=len(time)) * rng.uniform(0, 1)
        return np.asarray(rng.exponential(3) * envelope * ring, np.float64)

    return hiss * heavy + scattered(samples, rate, rng, rng.uniform(1, 80), drop)


def wind(samples: int, rate: int, rng: Draw) -> Sound:
    """Gusts on the microphone, low; and leaves, high."""
    low = noise(samples, rate, rng, slope(rng.uniform(1, 2), 10, rng.uniform(80, 600)))
    leaves = noise(samples, rate, rng, slope(rng.uniform(0, 1), rng.uniform(500, 1500), rng.uniform(2000, rate / 2)))
    gusts = wandering(samples, rate, rng, rng.uniform(0.2, 2), 0.02, 1)
    return low * gusts**2 + rng.uniform(0, 0.3) * leaves * gusts


def water(samples: int, rate: int, rng: Draw) -> Sound:
    """A stream or surf: noise that comes and goes, and bubbles whose pitch rises."""
    flow = noise(samples, rate, rng, slope(rng.uniform(0.3, 1.2), rng.uniform(50, 400), rng.uniform(1500, rate / 2)))
    surf = wandering(samples, rate, rng, rng.uniform(0.05, 3), rng.uniform(0.1, 0.9), 1)

    def bubble() -> Sound:
        envelope, start = fading(rng.uniform(0.01, 0.08), rate), rng.uniform(400, 2500)
        rising = start * np.linspace(1, rng.uniform(1.0, 1.4), len(envelope))
        return np.asarray(rng.exponential(1) * envelope * np.sin(phase(rising, rate)), np.float64)

    return flow * surf + scattered(samples, rate, rng, rng.uniform(0, 40), bubble)


def engine(samples: int, rate: int, rng: Draw) -> Sound:
    """A motor, near, passing or far: harmonics of a slow pitch, and broad noise."""
    pitch = wandering(samples, rate, rng, rng.uniform(0.05, 0.6), *sorted(rng.uniform(15, 220, 2)))
    turning, sound = phase(pitch, rate), np.zeros(samples)
    fall = rng.uniform(0.3, 1.5)
    for number in range(1, 40):
        if number * float(pitch.max()) < rate / 2.2:
            sound += number**-fall * rng.uniform(0.2, 1) * np.sin(number * turning + rng.uniform(0, 6))
    broad = noise(samples, rate, rng, slope(rng.uniform(0.5, 1.5), 30, rng.uniform(500, rate / 2)))
    passing = np.exp(-(((np.arange(samples) / samples - rng.uniform(0, 1)) / rng.uniform(0.2, 3)) ** 2))
    return (sound / max(float(sound.std()), SOFTEST) + rng.uniform(0.1, 1.5) * broad) * passing


def hum(samples: int, rate: int, rng: Draw) -> Sound:
    """Mains, and what electronics whine: steady tones."""
    mains, sound = (50.0, 60.0)[int(rng.integers(2))], np.zeros(samples)
    time = np.arange(samples) / rate
    for number in range(1, int(rng.integers(2, 20))):
        if number * mains < rate / 2.2:
            sound += rng.exponential() * number**-0.7 * np.sin(2 * np.pi * number * mains * time + rng.uniform(0, 6))
    for _ in range(int(rng.integers(0, 4))):
        sound += float(rng.exponential(0.3)) * np.sin(2 * np.pi * rng.uniform(300, rate / 2.2) * time)
    return sound + 10 ** rng.uniform(-2, 0) * noise(samples, rate, rng, slope(rng.uniform(0, 1)))


def handling(samples: int, rate: int, rng: Draw) -> Sound:
    """Somebody at the recorder: knocks and rustling."""

    def knock() -> Sound:
        envelope = fading(rng.uniform(0.05, 0.5), rate)
        body = noise(len(envelope), rate, rng, slope(1.5, 20, rng.uniform(100, 1500)))
        return rng.exponential(2) * envelope * body

    def rustle() -> Sound:
        count = round(rng.uniform(0.05, 0.8) * rate)
        rough = noise(count, rate, rng, slope(rng.uniform(0, 0.8), rng.uniform(300, 1500), rng.uniform(2000, rate / 2)))
        return np.asarray(rng.exponential(1) * rough * np.hanning(count) * rng.random(count) ** 2, np.float64)

    both = scattered(samples, rate, rng, rng.uniform(0.3, 3), knock)
    both = both + scattered(samples, rate, rng, rng.uniform(0.5, 6), rustle)
    return both + 10 ** rng.uniform(-3, -1) * noise(samples, rate, rng, slope(0.8))


def clicks(samples: int, rate: int, rng: Draw) -> Sound:
    """Electric clicks, ticks at an even pace, crackle."""
    sound, click = np.zeros(samples), rng.normal(size=int(rng.integers(1, 12)))
    pace = rng.uniform(0.05, 1.0) * rate
    for start in np.arange(rng.uniform(0, pace), samples - len(click), pace).astype(int).tolist():
        sound[start : start + len(click)] += click
    crackle = scattered(
        samples, rate, rng, 10 ** rng.uniform(0, 2.5), lambda: rng.exponential(1, 1) * rng.choice([-1, 1])
    )
    return sound * rng.integers(0, 2) + crackle + 10 ** rng.uniform(-2.5, -1) * noise(samples, rate, rng, slope(0.5))


def clipping(samples: int, rate: int, rng: Draw) -> Sound:
    """Wind, an engine or knocks, far too loud."""
    made = (wind, engine, handling, rain)[int(rng.integers(4))](samples, rate, rng)
    level, drive = 10 ** (rng.uniform(-6, 0) / 20), rng.uniform(6, 24)
    while True:  # a second of which half is clipped would be taken for a broken recorder (sounds/damage.py)
        clipped = np.clip(scaled(made, drive), -1, 1)
        seconds = np.array_split(np.abs(clipped) > 0.98, max(1, 2 * samples // rate))
        if max(float(second.mean()) for second in seconds) < MOST_CLIPPED:
            return clipped * level
        drive -= 2


def hiss(samples: int, rate: int, rng: Draw) -> Sound:
    """Nothing but what a quiet recorder adds by itself, -80 to -45 dB."""
    return 10 ** (rng.uniform(-80, -45) / 20) * noise(samples, rate, rng, slope(rng.uniform(-0.2, 0.6)))


def offset(samples: int, rate: int, rng: Draw) -> Sound:
    """Faint noise off centre, with steps and drifts of the offset."""
    steps = np.repeat(rng.normal(0, 0.2, 8), -(-samples // 8))[:samples] * rng.integers(0, 2)
    start, end = rng.normal(0, 0.2, 2).tolist()
    drift = start + (end - start) * np.arange(samples) / samples
    return np.asarray(steps + drift, np.float64) + 10 ** rng.uniform(-3, -1.5) * noise(
        samples, rate, rng, slope(rng.uniform(0, 1))
    )


def babble(samples: int, rate: int, rng: Draw) -> Sound:
    """One to four voices that say nothing: pulses through the formants of vowels, in syllables, with pauses."""
    sound = np.zeros(samples)
    for _ in range(int(rng.integers(1, 5))):
        pitch = wandering(samples, rate, rng, 2, *sorted(rng.uniform(80, 280, 2)))
        turning = phase(pitch, rate)
        pulses = np.diff(np.floor(turning / (2 * np.pi)), prepend=0.0) + 0.02 * rng.normal(size=samples)
        pace = round(rate / rng.uniform(3, 6))
        for start in range(0, samples - pace, pace):
            if rng.random() < 0.75:
                piece = pulses[start : start + pace] * np.hanning(pace) * rng.uniform(0.3, 1)
                sound[start : start + pace] += spoken(piece, rate, FORMANTS[int(rng.integers(len(FORMANTS)))])
    return sound + 10 ** rng.uniform(-3.5, -2) * noise(samples, rate, rng, slope(0.7))


def spoken(pulses: Sound, rate: int, formants: tuple[int, ...]) -> Sound:
    """Pulses as a mouth shapes them: resonances an eighth of their frequency wide.

    source   formants of vowels: Peterson and Barney 1952, https://doi.org/10.1121/1.1906875
    """
    hertz = np.fft.rfftfreq(len(pulses), 1 / rate)
    shape = sum(
        1 / (1 + ((hertz - middle) / (middle / 8)) ** 2) / (number + 1) for number, middle in enumerate(formants)
    )
    return np.asarray(np.fft.irfft(np.fft.rfft(pulses) * shape, len(pulses)), np.float64)


EVERY = (rain, wind, water, engine, hum, handling, clicks, clipping, hiss, offset, babble)
KINDS: Mapping[str, Callable[[int, int, Draw], Sound]] = {kind.__name__: kind for kind in EVERY}
UNSCALED = ("clipping", "hiss", "offset")  # kinds whose level is what they are


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rain.flac"
        for kind in KINDS:
            sound = negative(kind, 1.0, 16_000, np.random.default_rng(0))
            spectrum = np.abs(np.fft.rfft(sound))
            middle = float((spectrum * np.arange(len(spectrum))).sum() / spectrum.sum())
            print(f"{kind:9} loudest {np.abs(sound).max():.3f}, spectral centroid {middle:5.0f} Hz")
            assert np.isfinite(sound).all() and 0 < np.abs(sound).max() <= 1
