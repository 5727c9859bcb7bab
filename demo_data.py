"""A pretend field season: invented species with a lineage, labelled recordings, a soundscape with known answers.

    python demo_data.py

Reads    nothing
Writes   /tmp/wildwhisper/field-season, in BirdCLEF's form:
         taxonomy.csv, train.csv, train_audio/<label>/, unlabeled/site_A/ B/ C/, train_soundscapes/, answers.csv,
         damaged/ (half a file, a text called .wav, pure silence), season.json last

Every species, site and person is invented; only the names of kingdoms, phyla, classes and orders are real. A call
follows from the lineage as in nature: relatives sound alike. The class lends the overtones, the family the pitch and
its movement, the genus the rhythm, the species the fine tuning. What distinguishes two species lies below 7.8 kHz.
The seed changes the season (individuals, weather, what sang when), never the species.
"""

import csv
import json
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

DEFAULT_ROOT = Path("/tmp/wildwhisper/field-season")
VERSION = 1  # raise it whenever the bytes of a season change
SAMPLE_RATE = 32_000  # Hz, as in BirdCLEF
COARSE = 32  # what changes slowly is drawn at 1 kHz and interpolated
FOLDS = 4
RECORDISTS = ("Ada", "Ben", "Cleo", "Dov", "Elin", "Femi", "Gus", "Hana")  # one recordist stays in one fold
DAYS = 3  # days in the field of each recordist; a recordist's day is a group and has one weather
SOUNDSCAPE = "FS1_20260514_053000.flac"
FOLDERS = ("train_audio", "unlabeled", "train_soundscapes", "damaged")
SIGN = "PRETEND.txt"  # written first: whatever lies beside it may be replaced

Waveform = NDArray[np.float32]


class Class(NamedTuple):
    phylum: str
    overtones: tuple[float, ...]  # strength of the fundamental, of twice its frequency, ...


class Family(NamedTuple):
    order: str
    class_name: str
    carrier_hz: float
    sweep: float  # octaves from the start of a syllable to its end
    bow: float  # octaves that its middle lies above its ends
    warble: float = 0.0  # octaves up and down, warble_hz times a second
    warble_hz: float = 0.0


class Genus(NamedTuple):
    family: str
    syllable_seconds: float
    gap_seconds: float
    syllables: int  # in a phrase
    pause_seconds: float  # between phrases, beyond the gap
    pulse_hz: float = 0.0  # a syllable chopped into pulses; 0 is one whole tone


class PretendSpecies(NamedTuple):
    label: str
    inat_taxon_id: str
    common_name: str
    genus: str
    epithet: str
    pitch: float  # times the family's carrier
    tempo: float  # times the genus's rhythm
    steps: tuple[float, ...]  # semitones; the melody of a phrase, repeated until the phrase is full

    @property
    def scientific_name(self) -> str:
        return f"{self.genus} {self.epithet}"


CLASSES = {
    "Aves": Class("Chordata", (1.0, 0.08)),
    "Amphibia": Class("Chordata", (1.0, 0.3, 0.1)),
    "Insecta": Class("Arthropoda", (1.0,)),
    "Mammalia": Class("Chordata", (0.7, 1.0, 0.6, 0.3, 0.12)),
}
FAMILIES = {
    "Falsitroglidae": Family("Passeriformes", "Aves", 4200, sweep=-0.35, bow=0.0),
    "Fictiturdidae": Family("Passeriformes", "Aves", 2700, sweep=0.1, bow=0.25, warble=0.05, warble_hz=11),
    "Simulotrochilidae": Family("Apodiformes", "Aves", 6100, sweep=0.3, bow=0.0),
    "Fictranidae": Family("Anura", "Amphibia", 1100, sweep=0.06, bow=0.0),
    "Simulhylidae": Family("Anura", "Amphibia", 2150, sweep=0.25, bow=0.0),
    "Fictogryllidae": Family("Orthoptera", "Insecta", 4800, sweep=0.0, bow=0.02),
    "Mendicicadidae": Family("Hemiptera", "Insecta", 6500, sweep=0.0, bow=0.0, warble=0.1, warble_hz=160),
    "Fictocanidae": Family("Carnivora", "Mammalia", 420, sweep=-0.4, bow=0.2),
    "Simulopithecidae": Family("Primates", "Mammalia", 290, sweep=-0.15, bow=0.7),
}
GENERA = {
    "Falsitroglus": Genus("Falsitroglidae", 0.08, 0.05, syllables=8, pause_seconds=0.4),
    "Ludotroglus": Genus("Falsitroglidae", 0.42, 0.12, syllables=2, pause_seconds=0.4, pulse_hz=48),
    "Fictiturdus": Genus("Fictiturdidae", 0.30, 0.10, syllables=3, pause_seconds=0.45),
    "Simulotrochilus": Genus("Simulotrochilidae", 0.04, 0.03, syllables=18, pause_seconds=0.35),
    "Fictrana": Genus("Fictranidae", 0.40, 0.25, syllables=2, pause_seconds=0.3, pulse_hz=26),
    "Simularana": Genus("Fictranidae", 0.08, 0.12, syllables=6, pause_seconds=0.4),
    "Simulhyla": Genus("Simulhylidae", 0.16, 0.26, syllables=3, pause_seconds=0.3),
    "Fictogryllus": Genus("Fictogryllidae", 0.55, 0.20, syllables=3, pause_seconds=0.1, pulse_hz=30),
    "Mendicicada": Genus("Mendicicadidae", 0.90, 0.06, syllables=4, pause_seconds=0.1, pulse_hz=75),
    "Fictocanis": Genus("Fictocanidae", 0.17, 0.20, syllables=4, pause_seconds=0.4),
    "Simulopithecus": Genus("Simulopithecidae", 0.85, 0.25, syllables=2, pause_seconds=0.2),
}
SPECIES = (  # birds under eBird-like codes, all others under digits, in the order of their labels as text
    PretendSpecies("90000231", "90000231", "fabled cricket", "Fictogryllus", "fabulosus", 1.13, 1.25, (0,)),
    PretendSpecies("9000117", "9000117", "pretend frog", "Fictrana", "ficta", 0.80, 0.85, (0,)),
    PretendSpecies("9000118", "9000118", "fabled frog", "Fictrana", "fabulosa", 1.12, 1.30, (0,)),
    PretendSpecies("9000126", "9000126", "pretend marsh frog", "Simularana", "palustris", 1.40, 1.00, (0, 1)),
    PretendSpecies("9000140", "9000140", "pretend tree frog", "Simulhyla", "arborea", 1.00, 1.00, (0,)),
    PretendSpecies("9000230", "9000230", "pretend cricket", "Fictogryllus", "fictus", 0.90, 0.85, (0,)),
    PretendSpecies("9000255", "9000255", "pretend cicada", "Mendicicada", "ficta", 1.00, 1.00, (0,)),
    PretendSpecies("9000310", "9000310", "pretend jackal", "Fictocanis", "fictus", 0.82, 0.90, (0,)),
    PretendSpecies("9000311", "9000311", "fabled jackal", "Fictocanis", "fabulosus", 1.30, 1.25, (0,)),
    PretendSpecies("9000342", "9000342", "pretend monkey", "Simulopithecus", "fictus", 1.00, 1.00, (0,)),
    PretendSpecies("fabthr1", "9000014", "fabled thrush", "Fictiturdus", "fabulosus", 1.15, 1.15, (6, 3, 0)),
    PretendSpecies("fabwre1", "9000012", "fabled wren", "Falsitroglus", "fabulosus", 1.14, 1.20, (4, 2, 0, -2)),
    PretendSpecies("prebab1", "9000015", "pretend babbler", "Ludotroglus", "fictus", 0.95, 1.00, (0, 2)),
    PretendSpecies("prehum1", "9000016", "pretend hummingbird", "Simulotrochilus", "fictus", 1.00, 1.00, (0,)),
    PretendSpecies("prethr1", "9000013", "pretend thrush", "Fictiturdus", "fictus", 0.85, 0.90, (0, 5, 2)),
    PretendSpecies("prewre1", "9000011", "pretend wren", "Falsitroglus", "fictus", 0.86, 0.95, (0, 0, 3, 3)),
)


@dataclass(frozen=True)
class FieldSeason:
    root: Path  # holds everything below
    soundscape: Path  # a few minutes of one site, many species, changing weather
    answers: Path  # answers.csv: filename,start,end,primary_label, in seconds; every bout planted in the soundscape


def write_field_season(
    root: Path,
    seed: int = 0,
    recordings_per_species: int = 16,
    unlabeled_recordings: int = 60,
    soundscape_seconds: float = 180.0,
) -> FieldSeason:
    """Write a field season, or return at once when root already holds exactly this one.

    recordings_per_species  at least 8, so that every fold holds two or more of each species
    soundscape_seconds      about one bout of calls every 5 s is planted; two species at least stay silent
    """
    assert recordings_per_species >= 2 * FOLDS, f"{recordings_per_species=}; give at least {2 * FOLDS}, two per fold"
    assert soundscape_seconds >= 10, f"{soundscape_seconds=}; give at least 10 s, room for two bouts"
    season = FieldSeason(root, root / "train_soundscapes" / SOUNDSCAPE, root / "answers.csv")
    parameters = json.dumps(
        {
            "version": VERSION,
            "seed": seed,
            "recordings_per_species": recordings_per_species,
            "unlabeled_recordings": unlabeled_recordings,
            "soundscape_seconds": float(soundscape_seconds),
        }
    )
    finished = root / "season.json"
    if finished.is_file() and finished.read_text() == parameters:
        return season
    clear(root)
    write_rows(root / "taxonomy.csv", pretend_taxonomy())
    with ThreadPoolExecutor() as pool:  # every recording has its own seed: who is written first does not matter
        soundscape = pool.submit(write_soundscape, season.soundscape, seed, soundscape_seconds)
        takes = enumerate(product(SPECIES, range(recordings_per_species)))
        labelled = [pool.submit(write_labelled, root, seed, i, species, take) for i, (species, take) in takes]
        unlabeled = [pool.submit(write_unlabeled, root, seed, i) for i in range(unlabeled_recordings)]
    write_rows(root / "train.csv", [recording.result() for recording in labelled])
    write_rows(season.answers, soundscape.result())
    for recording in unlabeled:
        recording.result()
    write_damaged(root / "damaged", root / "train_audio" / SPECIES[0].label / "FS100000.flac")
    finished.write_text(parameters)
    return season


def clear(root: Path) -> None:
    """Make room in root, but never in the folder of somebody's real recordings."""
    ours = [root / name for name in (*FOLDERS, "taxonomy.csv", "train.csv", "answers.csv") if (root / name).exists()]
    assert not ours or (root / SIGN).is_file(), f"{ours[0]} is not of a pretend field season; give an empty folder"
    root.mkdir(parents=True, exist_ok=True)
    (root / SIGN).write_text("A pretend field season, made by demo_data.py. Nothing here was ever alive.\n")
    (root / "season.json").unlink(missing_ok=True)
    for folder in FOLDERS:
        shutil.rmtree(root / folder, ignore_errors=True)  # not there the first time


def pretend_taxonomy() -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for species in SPECIES:
        family = GENERA[species.genus].family
        class_name = FAMILIES[family].class_name
        rows.append(
            {
                "primary_label": species.label,
                "inat_taxon_id": species.inat_taxon_id,
                "scientific_name": species.scientific_name,
                "common_name": species.common_name,
                "class_name": class_name,
                "kingdom": "Animalia",
                "phylum": CLASSES[class_name].phylum,
                "class": class_name,
                "order": FAMILIES[family].order,
                "family": family,
                "genus": species.genus,
                "species": species.scientific_name,
                "ebird_code": species.label if class_name == "Aves" else "",
                "finest_rank": "species",
            }
        )
    return rows


def write_labelled(root: Path, seed: int, index: int, species: PretendSpecies, take: int) -> dict[str, str]:
    """Write one focal recording, 3 to 9 s with the species calling nearly throughout; return its row of train.csv."""
    rng = default_rng([seed, 1, index])
    fold = take % FOLDS
    recordist = fold + FOLDS * int(rng.integers(len(RECORDISTS) // FOLDS))
    day = int(rng.integers(DAYS))
    sky = default_rng([seed, 2, recordist, day]).uniform(0, 1, (1, 3))  # a group shares its weather: a leak if split
    noise = weather(int(rng.integers(12, 37)) * SAMPLE_RATE // 4, sky, rng)
    mixture = noise.copy()
    start, rest = rng.uniform(0, 0.6, 2) * SAMPLE_RATE
    snr_db = float(rng.uniform(6, 30))
    plant(mixture, noise, sing(species, len(noise) - int(start + rest), rng), int(start), species, snr_db)
    others: list[str] = [""]
    if rng.random() < 0.12:
        other = SPECIES[(SPECIES.index(species) + int(rng.integers(1, len(SPECIES)))) % len(SPECIES)]
        others = [other.label]
        plant_somewhere(mixture, noise, other, float(rng.uniform(4, 10)), rng)
    filename = f"{species.label}/FS{100_000 + index}.flac"
    write_sound(root / "train_audio" / filename, mixture, peak=float(rng.uniform(0.1, 0.8)))
    latitude, longitude = rng.uniform(-0.1, 0.1, 2)  # on the open sea, where the equator meets Greenwich's meridian
    return {
        "primary_label": species.label,
        "secondary_labels": str(others),
        "type": "['call']" if species.label.isdigit() else "['song']",
        "filename": filename,
        "collection": "FS",
        "rating": f"{round(2 * (1 + 4 * snr_db / 30)) / 2:.1f}",
        "url": f"https://example.org/pretend/FS{100_000 + index}",
        "latitude": f"{latitude:.4f}",
        "longitude": f"{longitude:.4f}",
        "scientific_name": species.scientific_name,
        "common_name": species.common_name,
        "author": f"{RECORDISTS[recordist]} Pretend",
        "license": "cc-0",
        "group": f"{RECORDISTS[recordist].lower()}-2026-05-{3 + DAYS * recordist + day:02d}",
        "fold": str(fold),
    }


def write_unlabeled(root: Path, seed: int, index: int) -> None:
    """Write one recording of an unattended recorder: 5 to 9 s, none to three species, any weather."""
    rng = default_rng([seed, 3, index])
    noise = weather(int(rng.integers(20, 37)) * SAMPLE_RATE // 4, rng.uniform(0, 1, (3, 3)), rng)
    mixture = noise.copy()
    number = int(rng.choice([0, 1, 1, 2, 3]))
    for species in shuffled(SPECIES, rng)[:number]:
        plant_somewhere(mixture, noise, species, float(rng.uniform(5, 25)), rng)
    site, day, hour, minute = "ABC"[index % 3], 1 + index // 72 % 28, index // 3 % 24, index // 2016 % 60
    name = f"{site}1_202605{day:02d}_{hour:02d}{minute:02d}00.flac"
    write_sound(root / "unlabeled" / f"site_{site}" / name, mixture, peak=float(rng.uniform(0.1, 0.8)))


def write_soundscape(path: Path, seed: int, seconds: float) -> list[dict[str, str]]:
    """Write the soundscape; return the rows of answers.csv, the bouts in order of their start."""
    rng = default_rng([seed, 4])
    noise = weather(round(seconds * SAMPLE_RATE), rng.uniform(0, 1, (2 + int(seconds / 15), 3)), rng)
    mixture = noise.copy()
    present = shuffled(SPECIES, rng)[:-2]
    half = len(present) // 2
    rows: list[dict[str, str]] = []
    for bout in range(int(seconds / 5)):
        if bout % len(present) == 0:  # a new round in another order; by halves, so that nobody sings twice running
            present = shuffled(present[:half], rng) + shuffled(present[half:], rng)
        species = present[bout % len(present)]
        song = sing(species, int(rng.uniform(3.4, 4.5) * SAMPLE_RATE), rng)
        start = int((bout * 5 + rng.uniform(0, 3)) * SAMPLE_RATE)  # may reach into the next bout: two at once
        start = min(start, len(noise) - len(song))
        plant(mixture, noise, song, start, species, float(rng.uniform(9, 20)))
        rows.append(
            {
                "filename": path.name,
                "start": f"{start / SAMPLE_RATE:.3f}",
                "end": f"{(start + len(song)) / SAMPLE_RATE:.3f}",
                "primary_label": species.label,
            }
        )
    write_sound(path, mixture, peak=0.8)
    return sorted(rows, key=lambda row: float(row["start"]))


def shuffled(species: Sequence[PretendSpecies], rng: Generator) -> list[PretendSpecies]:
    order: list[int] = rng.permutation(len(species)).tolist()
    return [species[number] for number in order]


def write_damaged(folder: Path, recording: Path) -> None:
    """Three files a predictor must survive: half a FLAC, a text named .wav, and silence."""
    write_sound(folder / "silent.flac", np.zeros(6 * SAMPLE_RATE, np.float32), peak=0.0)
    whole = recording.read_bytes()
    (folder / "cut_in_half.flac").write_bytes(whole[: len(whole) // 2])
    (folder / "text_not_sound.wav").write_text("This is a note, whatever its name says.\n")


def plant_somewhere(mixture: Waveform, noise: Waveform, species: PretendSpecies, snr_db: float, rng: Generator) -> None:
    song = sing(species, min(len(noise), int(rng.uniform(3.4, 4.5) * SAMPLE_RATE)), rng)
    plant(mixture, noise, song, int(rng.integers(len(noise) - len(song) + 1)), species, snr_db)


def plant(
    mixture: Waveform, noise: Waveform, song: Waveform, start: int, species: PretendSpecies, snr_db: float
) -> None:
    """Add a song to the mixture so that it stands snr_db above the noise around it, within the species' own band.

    mixture, noise  (samples,)  the recording so far, changed in place; its weather alone
    song            (sung,)     as sing gives it, of RMS 1 while it sounds
    """
    bout = slice(start, start + len(song))
    mixture[bout] += np.float32(10 ** (snr_db / 20) * band_rms(noise[bout], *band_hz(species))) * song


def sing(species: PretendSpecies, samples: int, rng: Generator) -> Waveform:
    """One individual, a little off its species' pitch (2 %) and tempo (8 %), calling for at most that many samples.

    returns  (sung,)  begins with its first syllable, ends with the last whole one; RMS 1 while it sounds
    """
    genus = GENERA[species.genus]
    pitch, tempo = rng.uniform(0.98, 1.02), species.tempo * rng.uniform(0.92, 1.08)
    phrase = [syllable(species, step, pitch, tempo) for step in species.steps]
    length = len(phrase[0])
    beat = length + int(genus.gap_seconds / tempo * SAMPLE_RATE)
    assert samples >= length, f"{samples} samples are too few for one syllable of the {species.common_name}: {length}"
    song = np.zeros(samples, np.float32)
    onset = sung = note = 0
    while onset + length <= samples:
        sung = onset + length
        song[onset:sung] = rng.uniform(0.7, 1.0) * phrase[note % len(phrase)]
        onset, note = onset + beat, note + 1
        if note == genus.syllables:
            onset, note = onset + int(rng.uniform(0.6, 1.5) * genus.pause_seconds / tempo * SAMPLE_RATE), 0
    song = song[:sung]
    return song / np.float32(np.sqrt(np.mean(np.square(song[song != 0]))))


def syllable(species: PretendSpecies, step: float, pitch: float, tempo: float) -> Waveform:
    """The sound all species are made of: a tone that glides, with overtones, swelling once and perhaps pulsed.

    step     semitones above the species' pitch
    pitch    the individual's, times the species'
    tempo    times the genus's; pulses follow it too
    returns  (samples,)  at most 1 + the overtones, silent at both ends
    """
    genus = GENERA[species.genus]
    family = FAMILIES[genus.family]
    seconds = np.arange(int(genus.syllable_seconds / tempo * SAMPLE_RATE)) / SAMPLE_RATE
    done = np.linspace(0, 1, len(seconds))
    octaves = step / 12 + family.sweep * (done - 0.5) + family.bow * np.sin(np.pi * done)
    octaves += family.warble * np.sin(2 * np.pi * family.warble_hz * seconds)
    phase = 2 * np.pi * np.cumsum(family.carrier_hz * species.pitch * pitch * 2**octaves) / SAMPLE_RATE
    tone = np.zeros_like(phase)
    for overtone, strength in enumerate(CLASSES[family.class_name].overtones, start=1):
        tone += strength * np.sin(overtone * phase)
    pulses = np.sin(np.pi * genus.pulse_hz * tempo * seconds) ** 4 if genus.pulse_hz else 1.0
    return np.asarray(tone * pulses * np.sqrt(np.sin(np.pi * done).clip(0)), np.float32)


def band_hz(species: PretendSpecies) -> tuple[float, float]:
    """The lowest and highest frequency in Hz of the strong part of a species' call, individuals included."""
    family = FAMILIES[GENERA[species.genus].family]
    strong = [k for k, strength in enumerate(CLASSES[family.class_name].overtones, start=1) if strength >= 0.5]
    glide = abs(family.sweep) / 2 + family.warble
    centre = family.carrier_hz * species.pitch
    lowest = centre * 2 ** (min(species.steps) / 12 - glide) * min(strong)
    highest = centre * 2 ** (max(species.steps) / 12 + glide + family.bow) * max(strong)
    return 0.95 * lowest, 1.05 * highest


def weather(samples: int, levels: NDArray[np.float64], rng: Generator) -> Waveform:
    """Noise of the open air: a soft hiss always; rain with drops, wind in gusts and a mains hum as given.

    levels   (moments, 3)  of rain, wind and hum, 0 to 1, evenly spread in time and interpolated between
    returns  (samples,)    RMS 0.03 to 0.2
    """
    coarse = np.linspace(0, len(levels) - 1, samples // COARSE + 2)
    moments = np.arange(len(levels))
    rain, wind, hum = (to_full_rate(np.interp(coarse, moments, levels[:, kind] ** 2), samples) for kind in range(3))
    white = rng.standard_normal(samples + 1, np.float32)
    noise = (0.02 + 0.04 * rain) * (white[1:] + white[:-1])  # the mean of neighbours: softer towards 16 kHz
    noise += 0.05 * rain * drops(samples, rng)
    noise += 0.10 * wind * gusts(samples, rng)
    noise += 0.01 * hum * mains(samples, rng)
    return noise.astype(np.float32, copy=False)


def drops(samples: int, rng: Generator) -> Waveform:
    """Twenty raindrops a second, each a click that rings for a few milliseconds."""
    ring = np.arange(SAMPLE_RATE // 100) / SAMPLE_RATE
    starts = rng.integers(0, samples - len(ring), 20 * samples // SAMPLE_RATE)
    pitches, strengths = rng.uniform(1500, 6000, (len(starts), 1)), rng.exponential(3.0, (len(starts), 1))
    patter = np.zeros(samples, np.float32)
    clicks = strengths * np.exp(-600 * ring) * np.sin(2 * np.pi * pitches * ring)
    np.add.at(patter, starts[:, None] + np.arange(len(ring)), clicks.astype(np.float32))
    return patter


def gusts(samples: int, rng: Generator) -> Waveform:
    """Wind: a rumble below 500 Hz that swells and dies within seconds, RMS near 1."""
    coarse = samples // COARSE + 2
    hertz = np.fft.rfftfreq(coarse, COARSE / SAMPLE_RATE)
    spectrum = rng.standard_normal((2, len(hertz))) / np.maximum(hertz, 30)
    rumble = np.fft.irfft(spectrum[0] + 1j * spectrum[1], coarse)
    swell = rng.uniform(0.2, 1.5, coarse // 700 + 2)
    rumble *= np.interp(np.arange(coarse) / 700, np.arange(len(swell)), swell) / rumble.std()
    return to_full_rate(rumble, samples)


def to_full_rate(coarse: NDArray[np.float64], samples: int) -> Waveform:
    """Values at 1 kHz (samples // 32 + 2,) -> (samples,) at 32 kHz, on straight lines between them."""
    ramp = np.arange(COARSE, dtype=np.float32) / COARSE
    values = coarse.astype(np.float32)[:, None]
    return (values[:-1] + (values[1:] - values[:-1]) * ramp).astype(np.float32, copy=False).reshape(-1)[:samples]


def mains(samples: int, rng: Generator) -> Waveform:
    """A hum near 100 Hz, twice the mains, and three overtones."""
    cycle = 2 * np.pi * np.linspace(0, 1, int(rng.integers(317, 324)), endpoint=False)
    hum = np.sin(cycle) + np.sin(2 * cycle) / 2 + np.sin(3 * cycle) / 3 + np.sin(4 * cycle) / 4
    return np.resize(hum.astype(np.float32), samples)


def band_rms(waveform: Waveform, low_hz: float, high_hz: float) -> float:
    """Root mean square of what a waveform (samples,), at least 0.13 s of it, holds between two frequencies in Hz."""
    frame = 4096
    window = np.hanning(frame).astype(np.float32)
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame) * window
    low, high = (round(hertz * frame / SAMPLE_RATE) for hertz in (low_hz, high_hz))
    power = np.square(np.abs(np.fft.rfft(frames)[:, low : high + 1])).sum()
    return float(np.sqrt(2 * power / frame / len(frames) / np.square(window).sum()))


def write_sound(path: Path, waveform: Waveform, peak: float) -> None:
    """Write a waveform (samples,) as 16-bit mono, scaled to the given peak, a few seconds at a time.

    In pieces because one huge write can exhaust an encoder's stack (libsndfile's Vorbis does).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    loudest = float(np.abs(waveform).max())
    pcm = np.round(waveform * (32_767 * peak / loudest if loudest else 0.0)).astype(np.int16)
    with soundfile.SoundFile(path, "w", samplerate=SAMPLE_RATE, channels=1, subtype="PCM_16") as file:
        for start in range(0, len(pcm), 4 * SAMPLE_RATE):
            file.write(pcm[start : start + 4 * SAMPLE_RATE])


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    if sys.argv[1:]:  # it takes none: somebody wants to know what it is
        print(__doc__)
        sys.exit()
    began = time.perf_counter()
    season = write_field_season(DEFAULT_ROOT)
    print(f"field season   {season.root}  ({time.perf_counter() - began:.1f} s)")
    print(f"species        {len(SPECIES)}, from the {SPECIES[0].common_name} to the {SPECIES[-1].common_name}")
    for part in FOLDERS[:3]:
        seconds = [soundfile.info(path).duration for path in (season.root / part).rglob("*.flac")]
        print(f"{part:<18} {len(seconds):>4} recordings {sum(seconds) / 60:6.1f} min")
    print(f"answers        {season.answers}")
    with season.answers.open(newline="") as file:
        present = {bout["primary_label"] for bout in csv.DictReader(file)}
    assert 12 <= len(present) < len(SPECIES), "of the species some are silent in the soundscape"
