"""Soundscapes with exact answers, made of recordings and backgrounds that training never had: nearer to the field.

    make bench-soundscapes          (or: .venv/bin/python -m bench.soundscapes NAME=FOLDER ...)

Reads    ../shared/animals; FOLDER: what main.py --train.folds or bench.whisper left, a classifier for each fold
Writes   /tmp/wildwhisper/soundscapes/<fold>/: one FLAC file a minute, and answers.csv; then prints one table

Each fold has sites of its own. A site is one background (half of the recordings of noise, which no classifier of
bench.whisper was trained on, and soundscapes in which nobody annotated an animal), one room and one microphone, all
made up by its seed. Pieces of recordings of that fold, which its classifier was not trained on, are laid into them: up
to 5 s long, at -5 to 15 dB above the background while they last, several at once, with empty stretches between. A third
of each soundscape is empty, and every eighth is empty throughout. Only the backgrounds' own animals are unknown: an
answer for one of those would count as false.

Windows of 5 s are judged one by one. Intervals are over sites, differences are paired; folds take their backgrounds
from the same recordings, which the intervals do not know. A classifier's thresholds were fitted on that half of the
noise and on those recordings, so alarms and recall at them flatter it; cmAP and AUC have no part in that.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfilt

from archive.recordings import Recording
from bench.baseline import ANIMALS, MIN_RECORDINGS, REST, deal_noise
from bench.folds import FOLDS, gain
from bench.whisper import ROWS, RUNS, folder, parts
from config import SCRATCH, AudioSettings, DataSettings
from data_loader import read_labeled
from evaluation.metrics import bootstrap_interval, cmap, macro_roc_auc, weighted_cmap, weighted_macro_roc_auc
from runtime.digests import sha256
from runtime.files import publish
from serving.export import write_float
from serving.scorer import open_scorer, score
from sounds.audio import examine_header, read_samples
from sounds.discovery import find_recordings
from sounds.windows import network_input
from training.checkpoint import ClassifierFacts, load_classifier

FOLDER, RATE = SCRATCH / "soundscapes", 32_000
SITES, MINUTES = 16, 2  # of each fold; soundscapes of a minute at each site
WINDOW, SECONDS = 5, 60  # of a judged window, of a soundscape
CALLS = 6.0  # in a soundscape, on average
SNR_DB, LONGEST = (-5.0, 15.0), 5.0  # of a piece, over the background while it lasts; seconds
ENOUGH = 0.5  # seconds of a call, or half of a shorter one: from there on a window has it
SEED = 2026

Waveform = NDArray[np.float32]
Table = NDArray[np.float32]


class Call(NamedTuple):
    """A piece of a recording, and where it was laid."""

    start: float  # seconds
    end: float
    label: str
    snr_db: float
    source: str


class Site(NamedTuple):
    """What all soundscapes of one place have in common."""

    name: str
    background: Path
    room: Waveform  # an impulse response
    microphone: Waveform  # another one: bands raised and lowered by up to 6 dB


class Judged(NamedTuple):
    """A classifier's answers to every window, and what was due."""

    truth: Table  # (windows, species)
    scores: Table
    limits: Table  # (windows, species) the thresholds that its file brings along
    sites: NDArray[np.str_]  # (windows,)


def bench(classifiers: Mapping[str, Mapping[int, Path]]) -> None:
    """Build what is not there yet, score it, print one table.

    classifiers   name -> fold -> classifier.safetensors; the first is what the others are compared with
    """
    assert classifiers, "no classifier is there: `make bench-whisper` trains some, or give NAME=FOLDER"
    judged = {name: judge(name, by_fold) for name, by_fold in classifiers.items()}
    first = next(iter(judged.values()))
    hours = len(first.truth) * WINDOW / 3600
    print(f"\n{hours:.2f} h of {len(set(first.sites))} sites: {int(first.truth.sum())} answers in {len(first.truth)}")
    print("| | macro AUC | cmAP | recall at 1 false alarm an hour | at its thresholds: recall, false alarms an hour |")
    print("|---|---|---|---|---|")
    for name, found in judged.items():
        cells = [
            f"{statistic(found.truth, found.scores):.3f} [{low:.3f}, {high:.3f}]"
            for statistic, weighted in ((macro_roc_auc, weighted_macro_roc_auc), (cmap, weighted_cmap))
            for low, high in [bootstrap_interval(partial(weighted, found.truth, found.scores), found.sites)]
        ]
        recall, alarms = at_thresholds(found, hours)
        cells += [f"{recall_at_one_alarm(found, hours):.3f}", f"{recall:.3f}, {alarms:.0f}"]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for name, found in judged.items():
        if found is not first:
            assert np.array_equal(found.truth, first.truth), f"{name} was judged on other windows or other species"
            low, high = bootstrap_interval(
                partial(gain, weighted_cmap, found.truth, found.scores, first.scores), found.sites
            )
            difference = cmap(found.truth, found.scores) - cmap(found.truth, first.scores)
            print(f"{name} - {next(iter(judged))}: cmAP {difference:+.3f} [{low:+.3f}, {high:+.3f}]")


# --- building -------------------------------------------------------------------------------------------------------


def build(fold: int, recordings: Sequence[Recording], backgrounds: Sequence[Path]) -> Path:
    """The folder of a fold's soundscapes; made where it is not there. The same fold and seed give the same samples."""
    place = FOLDER / str(fold)
    if (place / "answers.csv").is_file():
        return place
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([SEED, fold])
    order: list[int] = rng.permutation(len(backgrounds)).tolist()
    sites = [make_site(f"{fold}-{number:02}", backgrounds[order[number % len(order)]], rng) for number in range(SITES)]
    write_soundscapes(place, sites, MINUTES, recordings, rng)
    return place


def write_soundscapes(
    place: Path, sites: Sequence[Site], minutes: int, recordings: Sequence[Recording], rng: np.random.Generator
) -> None:
    """So many minutes of each site as files, and answers.csv."""
    rows: list[tuple[str, Call]] = []
    for site in sites:
        for minute in range(minutes):
            empty = rng.random() < 1 / 8
            sound, calls = make_soundscape(site, [] if empty else recordings, rng)
            name = f"{site.name}-{minute}.flac"
            soundfile.write(place / name, sound, RATE, subtype="PCM_16")
            rows += [(name, call) for call in calls]
    with publish(place / "answers.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", *Call._fields))
        writer.writerows((name, *call) for name, call in rows)


def make_site(name: str, background: Path, rng: np.random.Generator) -> Site:
    """A room with .1 to .8 s of reverberation, and a microphone that is not flat."""
    seconds = rng.uniform(0.1, 0.8)
    tail = rng.normal(0, 1, round(seconds * RATE)) * 10 ** (-3 * np.arange(round(seconds * RATE)) / (seconds * RATE))
    tail = sosfilt(butter(1, rng.uniform(2_000, 8_000), fs=RATE, output="sos"), tail)
    room = np.concatenate([[1.0], 10 ** (-rng.uniform(3, 12) / 20) * tail / np.sqrt((tail**2).sum())])
    frequencies = np.geomspace(100, RATE / 2, 6)
    decibels = np.interp(np.fft.rfftfreq(1024, 1 / RATE), frequencies, rng.uniform(-6, 6, 6))
    microphone = np.roll(np.fft.irfft(10 ** (decibels / 20)), 512) * np.hanning(1024)
    return Site(name, background, room.astype(np.float32), microphone.astype(np.float32))


def make_soundscape(
    site: Site, recordings: Sequence[Recording], rng: np.random.Generator
) -> tuple[Waveform, list[Call]]:
    """A minute of a site, and what was laid into it: nothing within one stretch of a third of it.

    recordings   what to lay into it, all species equally often; none: an empty soundscape
    """
    mixture = background_of(site, rng)
    quiet = rng.uniform(0, SECONDS * 2 / 3)  # nothing begins or ends in the 20 s from here on
    by_label: dict[str, list[Recording]] = {}
    for recording in recordings:
        by_label.setdefault(recording.labels[0], []).append(recording)
    floor, calls = loudness(mixture), list[Call]()
    for _ in range(rng.poisson(CALLS) if by_label else 0):
        label = sorted(by_label)[rng.integers(len(by_label))]
        recording = by_label[label][rng.integers(len(by_label[label]))]
        dry = piece_of(recording, rng)
        piece = fftconvolve(dry, site.room)
        at = int(rng.integers(len(mixture) - len(piece)))
        if at / RATE < quiet + SECONDS / 3 and (at + len(piece)) / RATE > quiet:
            continue
        snr_db = rng.uniform(*SNR_DB)
        strength = np.sqrt(floor[at : at + len(piece)].mean() / max(1e-12, float(loudness(piece).mean())))
        mixture[at : at + len(piece)] += (piece * strength * 10 ** (snr_db / 20)).astype(np.float32)
        calls.append(Call(at / RATE, (at + len(dry)) / RATE, label, float(snr_db), recording.name))
    mixture = fftconvolve(mixture, site.microphone, "same")
    level = 10 ** (rng.uniform(-20, -3) / 20) / max(1e-9, float(np.abs(mixture).max()))
    return (mixture * level).astype(np.float32), sorted(calls)


def background_of(site: Site, rng: np.random.Generator) -> Waveform:
    """A minute of it from a random moment on; a short one goes on with itself, faded over half a second."""
    sound = read_samples(site.background, 0, round(examine_header(site.background).seconds * RATE), RATE)
    fade = min(RATE // 2, len(sound) // 4)
    ramp = np.sqrt(np.linspace(0, 1, fade, dtype=np.float32))
    minute = np.roll(sound, -int(rng.integers(len(sound))))
    while len(minute) < SECONDS * RATE:
        following = np.roll(sound, -int(rng.integers(len(sound))))
        seam = minute[-fade:] * ramp[::-1] + following[:fade] * ramp
        minute = np.concatenate([minute[:-fade], seam, following[fade:]])
    return np.array(minute[: SECONDS * RATE], np.float32)


def piece_of(recording: Recording, rng: np.random.Generator) -> Waveform:
    """Up to 5 s of a recording, around what is loud in it, faded in and out over 50 ms."""
    sound = read_samples(recording.path, 0, round(min(recording.seconds, 60) * RATE), RATE)
    length = min(len(sound), round(rng.uniform(1, LONGEST) * RATE))
    total = np.concatenate([[0.0], np.cumsum(loudness(sound))])
    power = total[length:] - total[:-length]
    loud = np.flatnonzero(power >= np.quantile(power, 0.75))
    at = int(loud[rng.integers(len(loud))])
    piece = sound[at : at + length].copy()
    fade = min(RATE // 20, len(piece) // 4)
    piece[:fade] *= np.linspace(0, 1, fade, dtype=np.float32)
    piece[len(piece) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return piece


def loudness(sound: Waveform) -> NDArray[np.float64]:
    """(samples,) power above 150 Hz, where wind and handling do not count."""
    return np.asarray(sosfilt(butter(2, 150, "highpass", fs=RATE, output="sos"), sound), np.float64) ** 2


# --- judging --------------------------------------------------------------------------------------------------------


def judge(name: str, classifiers: Mapping[int, Path]) -> Judged:
    """A classifier of each fold on that fold's soundscapes."""
    deal_noise()
    with redirect_stdout(None):
        rows = read_labeled(DataSettings(ANIMALS, min_recordings=MIN_RECORDINGS))[1]
    backgrounds = quiet_recordings()
    found = list[Judged]()
    for fold, path in sorted(classifiers.items()):
        held = load_classifier(path)[1].provenance.get("held_out_fold")
        assert held == fold, f"{path} held fold {held} out: it was trained on calls of the soundscapes of fold {fold}"
        place = build(fold, [row for row in rows if row.fold == fold], backgrounds)
        found.append(answers(path, place, FOLDER / "models" / f"{name}-{fold}.onnx"))
        print(f"{name}, fold {fold}: {len(found[-1].truth)} windows", flush=True)
    return Judged(*(np.concatenate(part) for part in zip(*found, strict=True)))


def quiet_recordings() -> list[Path]:
    """Half of the noise, and soundscapes in which nobody annotated an animal."""
    with (ANIMALS / "soundscapes" / "annotations.csv").open(encoding="utf-8", newline="") as file:
        annotated = {Path(row["filename"]).name for row in csv.DictReader(file)}
    season = [path for path in find_recordings([ANIMALS / "soundscapes"])[0] if path.name not in annotated]
    days = [path for path in season if path.name.startswith("maad_S4A")]  # one recorder: a few of its hours are enough
    others = [path for path in season if path not in days and examine_header(path).seconds >= 10]
    return [*find_recordings([REST])[0], *others, *days[::6]]


def answers(classifier: Path, place: Path, model: Path) -> Judged:
    """What the float32 file of a classifier, written to `model`, says of every window of a fold."""
    network, facts = load_classifier(classifier)
    model.parent.mkdir(parents=True, exist_ok=True)
    with redirect_stdout(None):
        write_float(network, facts, model, True)
    return answers_of_file(model, facts, place)


def kept_answers(run: Path, fold: int) -> Table:
    """The scores of a run's classifier on the soundscapes of a fold, kept beside the run for as long as both are the
    same."""
    classifier, place, kept = run / "classifier.safetensors", FOLDER / str(fold), run.parent / "soundscapes.npz"
    of_both = np.array([sha256(classifier), sha256(place / "answers.csv")])
    if kept.is_file():
        with np.load(kept) as found:
            if np.array_equal(found["of"], of_both):
                scores: Table = found["scores"]
                return scores
    scores = answers(classifier, place, run.parent / "soundscapes.onnx").scores
    with publish(kept) as temporary, temporary.open("wb") as file:
        np.savez(file, of=of_both, scores=scores)
    return scores


def answers_of_file(model: Path, facts: ClassifierFacts, place: Path) -> Judged:
    """The same of an ONNX file of that classifier, float32 or INT8."""
    scorer, labels = open_scorer(model), facts.taxonomy.labels
    files = [path.name for path in sorted(place.glob("*.flac"))]
    due = truth_of(place / "answers.csv", files, labels)
    scores = score(scorer, windows_of(place, facts.audio))
    limits = np.broadcast_to(facts.thresholds.applied, scores.shape)
    return Judged(due, scores, np.array(limits), sites_of(files))


def windows_of(place: Path, audio: AudioSettings) -> Iterator[Waveform]:
    """A fold's soundscapes as a network gets them, a context after the other."""
    context, rate = audio.context_seconds, audio.sample_rate
    assert SECONDS % context == 0 and audio.window_seconds == WINDOW, f"windows of {WINDOW} s, not in {context} s"
    samples = round(context * rate)
    for path in sorted(place.glob("*.flac")):
        for at in range(round(SECONDS / context)):
            yield network_input(read_samples(path, at * samples, samples, rate), samples)


def sites_of(files: Sequence[str]) -> NDArray[np.str_]:
    """(windows,) of each window of some files."""
    return np.repeat([Path(name).stem.rpartition("-")[0] for name in files], SECONDS // WINDOW)


def truth_of(table: Path, files: Sequence[str], labels: Sequence[str]) -> Table:
    """(windows, species) what each window of each file has in it."""
    each = SECONDS // WINDOW
    truth = np.zeros((len(files) * each, len(labels)), np.float32)
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            start, end = float(row["start"]), float(row["end"])
            for window in range(each):
                overlap = min(end, (window + 1) * WINDOW) - max(start, window * WINDOW)
                if overlap >= min(ENOUGH, (end - start) / 2):
                    truth[files.index(row["file"]) * each + window, labels.index(row["label"])] = 1
    return truth


def at_thresholds(found: Judged, hours: float) -> tuple[float, float]:
    """Mean recall of the species that occur, and windows an hour with a species that is not there."""
    reported, there = found.scores >= found.limits, found.truth == 1
    return recall_of(reported, there), float((reported & ~there).any(axis=1).sum() / hours)


def recall_at_one_alarm(found: Judged, hours: float) -> float:
    """Mean recall where one threshold for all species lets no more than one window an hour have a species that is not
    there."""
    absent = np.sort(np.where(found.truth == 1, 0, found.scores).max(axis=1))[::-1]
    return recall_of(found.scores > absent[int(hours)], found.truth == 1)


def recall_of(reported: NDArray[np.bool_], there: NDArray[np.bool_]) -> float:
    occurring = there.any(axis=0)
    return float(((reported & there).sum(axis=0)[occurring] / there.sum(axis=0)[occurring]).mean())


def trained(words: Sequence[str]) -> dict[str, dict[int, Path]]:
    """Name -> fold -> classifier: of NAME=FOLDER, or every row of bench.whisper that is there, seed 0."""
    given = {name: [Path(place)] for name, place in (word.split("=", 1) for word in words)}
    ours = {
        row.letter: [folder(row, 0, part) / "finetune" for part in parts()] for row in ROWS if row.flags is not None
    }
    found = dict[str, dict[int, Path]]()
    for name, places in (given or ours).items():
        paths = [path for place in places for path in sorted(place.rglob("classifier.safetensors"))]
        by_fold = {int(path.parent.name.removeprefix("fold-")): path for path in paths if "fold-" in path.parent.name}
        assert not given or by_fold, f"{places[0]} has no fold-0/classifier.safetensors; train with --train.folds"
        if set(by_fold) >= set(FOLDS) or (given and by_fold):
            found[name] = by_fold
    return found


if __name__ == "__main__":
    print(f"classifiers of {RUNS}" if len(sys.argv) == 1 else " ".join(sys.argv[1:]))
    bench(trained(sys.argv[1:]))
