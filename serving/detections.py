"""Scored windows -> detections: what counts as one, at which rank, and which of them belong together.

    found = detect(scored, taxonomy, choices)             # in the order of time, the surest first
    events = join(found, gap=3.0)                         # neighbouring windows of one species

No torch, and no files: serving/tables.py writes what is found here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from config import Voices
from evaluation.ranks import deepest_answers
from sounds.voices import Segments, seconds_in
from taxonomy import Taxonomy

SIX = ("Start (s)", "End (s)", "Scientific name", "Common name", "Confidence", "File")  # BirdNET's
WHERE = ("Species code", "Site", "Recorded at", "Detected at", "Channel", "Model")
DETECTION_COLUMNS = (
    *SIX,
    *WHERE,
    *("Window (s)", "Overlap (s)", "Min conf", "Runners up", "Validated"),
)
UNFAMILIAR = "Unfamiliar"  # one more column, of models that tell how unlike their training a window is
VOICE = "Voice (s)"  # one more column, where voices were looked for
KERNEL = (0.1, 0.2, 0.4, 0.2, 0.1)  # of neighbouring windows, as the winner of BirdCLEF+ 2025 smoothed
RUNNERS_UP = 2
AT_A_TIME = 512  # windows
Scores = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Scored:
    """The windows of one recording, or of one of its channels, after scoring."""

    starts: Sequence[float]  # seconds
    ends: Sequence[float]
    probabilities: Scores  # (windows, species)
    embeddings: Scores  # (windows, width)
    channel: int = 0  # 1, 2, ...; 0: the mean of all channels
    unfamiliar: Scores = field(default_factory=lambda: np.zeros(0, np.float32))  # (windows,); (0,) where none tells it
    speech: Segments = ()  # where somebody speaks, where that was asked
    skipped: float = 0.0  # seconds that were not scored because of it


@dataclass(frozen=True)
class Choices:
    """What counts as a detection."""

    thresholds: Scores  # (species,) probabilities
    wanted: NDArray[np.bool_]  # (species,) those on the user's list, or all
    top: int = 0  # at most so many species of a window, the surest; 0: all
    ranks: Mapping[str, float] = field(default_factory=dict[str, float])  # thresholds of answers above the species
    validated: Sequence[str] = ()  # (species,) whether it was: yes, too few, never; blank where the model does not say


@dataclass(frozen=True)
class Detection:
    """One species, or one taxon above it, in one window."""

    start: float  # seconds in the recording
    end: float
    label: str
    scientific_name: str
    common_name: str
    confidence: float
    threshold: float  # the one it reached
    channel: int = 0  # 1, 2, ...; 0: the mean of all channels
    detected_at: str = ""  # ISO 8601 or blank
    runners_up: str = ""  # "label 0.31, label 0.12"
    validated: str = ""  # whether the species was, on held-out recordings or verdicts: yes, too few, never
    unfamiliar: float | None = None  # how unlike training the window is: share of known windows that are less so
    voice: float = 0.0  # seconds of the window in which somebody speaks, where that was asked


@dataclass(frozen=True)
class Event:
    """Neighbouring windows of one species joined."""

    start: float
    end: float
    label: str
    scientific_name: str
    common_name: str
    confidence: float  # the maximum
    mean_confidence: float
    windows: int
    channel: int = 0
    detected_at: str = ""
    validated: str = ""


@dataclass(frozen=True)
class Analysed:
    """What became of one input."""

    file: str  # a path that opens from where the command ran
    site: str
    recorded_at: str
    sample_rate: int
    channels: int
    seconds_claimed: float
    seconds_analysed: float  # of sound
    windows: int
    status: str  # ok, salvaged, silent, short, unreadable
    reason: str
    size: int
    mtime_ns: int
    found: tuple[Detection, ...] = ()
    events: tuple[Event, ...] = ()
    latitude: str = ""  # decimal degrees
    longitude: str = ""
    make: str = ""  # of the recorder, and its model
    serial: str = ""
    temperature: str = ""  # degrees Celsius, when the recording began
    seconds_silent: float = 0.0  # of no sound: zeros, a constant, clipped throughout; not analysed
    seconds_voice: float = 0.0  # in which somebody speaks, where that was asked
    seconds_skipped: float = 0.0  # of sound that was not analysed because somebody speaks


@dataclass(frozen=True)
class TableFacts:
    """What every row of a set of tables shares."""

    model: str
    window_seconds: float
    overlap: float
    highest_hz: float  # the model's band ends there
    lowest_hz: float = 0.0  # and begins there
    unfamiliar: bool = False  # whether it tells how unlike its training a window is
    voices: Voices = "off"  # whether they were looked for, and what became of them


def detect(scored: Scored, taxonomy: Taxonomy, choices: Choices, recorded_at: str = "") -> list[Detection]:
    """Every species that reaches its threshold, in the order of time, the surest first.

    Where none does, the taxon of the deepest rank that is sure enough, if answers above the species are wanted: it is
    labelled with its rank, as "genus Rana".
    recorded_at   when the recording begins, ISO 8601; detections get a time where it has one
    """
    found: list[Detection] = []
    for first in range(0, len(scored.starts), AT_A_TIME):
        part = slice(first, first + AT_A_TIME)
        rows = scored.starts[part], scored.ends[part], scored.probabilities[part]
        more = scored.channel, scored.unfamiliar[part], scored.speech
        some = Scored(*rows, scored.embeddings[:0], *more)
        found += detect_some(some, taxonomy, choices, recorded_at)
    return found


def detect_some(scored: Scored, taxonomy: Taxonomy, choices: Choices, recorded_at: str) -> list[Detection]:
    """The detections of some windows; all of a long recording at once would be several copies of its probabilities."""
    found: list[Detection] = []
    probabilities = np.where(choices.wanted, scored.probabilities, np.float32(-1))
    above = {rank: limit for rank, limit in choices.ranks.items() if rank != "species"}  # species have their own
    answers = deepest_answers(np.clip(probabilities, 0, 1), taxonomy, above) if above else []
    times = np.array(scored.starts, np.float64), np.array(scored.ends, np.float64)
    voices: list[float] = seconds_in(scored.speech, *times).tolist()
    for row, (start, end) in enumerate(zip(scored.starts, scored.ends, strict=True)):
        order = [int(column) for column in np.argsort(-probabilities[row], kind="stable")]
        when = clock_time(recorded_at, start)
        strange = float(scored.unfamiliar[row]) if len(scored.unfamiliar) else None
        reached = [column for column in order if probabilities[row, column] >= choices.thresholds[column]]
        for column in reached[: choices.top or None]:
            others = [other for other in order if other != column][:RUNNERS_UP]
            found.append(
                Detection(
                    start,
                    end,
                    taxonomy.labels[column],
                    taxonomy.scientific_names[column],
                    taxonomy.common_names[column],
                    float(probabilities[row, column]),
                    float(choices.thresholds[column]),
                    scored.channel,
                    when,
                    labels_in_words(taxonomy, probabilities[row], others),
                    choices.validated[column] if choices.validated else "",
                    strange,
                    voices[row],
                )
            )
        answer = answers[row] if answers else None
        if answer is not None and not reached:
            name, limit = f"{answer.rank} {answer.name}", above[answer.rank]
            taxon = Detection(start, end, name, answer.name, name, answer.probability, limit, scored.channel, when)
            guesses = labels_in_words(taxonomy, probabilities[row], order[:RUNNERS_UP])
            found.append(replace(taxon, runners_up=guesses, unfamiliar=strange, voice=voices[row]))
    return found


def labels_in_words(taxonomy: Taxonomy, probabilities: Scores, columns: Sequence[int]) -> str:
    """Some labels and their probabilities: greani1 0.31, 41970 0.12."""
    listed = [column for column in columns if probabilities[column] >= 0]
    return ", ".join(f"{taxonomy.labels[column]} {probabilities[column]:.2f}" for column in listed)


def smoothed(scored: Scored, step: float) -> Scored:
    """Windows averaged with two neighbours on each side, over those that are there: a window left out is none.

    step   seconds from the beginning of a window to that of the next
    """
    total = np.zeros_like(scored.probabilities)
    weight = np.zeros((len(scored.starts), 1), np.float32)
    for steps, share in enumerate(KERNEL, -(len(KERNEL) // 2)):
        rows, others = neighbours(scored.starts, scored.starts, step, steps)
        total[rows] += np.float32(share) * scored.probabilities[others]
        weight[rows] += np.float32(share)
    return replace(scored, probabilities=total / weight if len(total) else total)


def neighbours(starts: Sequence[float], others: Sequence[float], step: float, steps: float) -> tuple[Indices, Indices]:
    """Which windows have another that begins so many steps later, whole or half ones, and which that is."""
    halves, found = (np.rint(np.asarray(each, np.float64) * 2 / step).astype(np.int64) for each in (starts, others))
    _, rows, later = np.intersect1d(halves + round(2 * steps), found, assume_unique=True, return_indices=True)
    return rows, later


def weighted_by_file(probabilities: Scores) -> Scores:
    """(windows, species) times the highest probability of each species in the recording, as in BirdCLEF's second place.

    It ranks better; what comes out is no probability any more.
    """
    highest: Scores = probabilities.max(axis=0, initial=0.0)
    return probabilities * highest


def averaged_shifts(base: Scored, shifted: Scored, step: float) -> Scored:
    """Windows averaged with those that begin half a step before and behind each, which count half as much.

    shifted   their times are counted from where the first of them begins, half a step into the recording
    """
    begins = [start + step / 2 for start in shifted.starts]
    total, weight = base.probabilities * 2, np.full((len(base.starts), 1), 2, np.float32)
    for steps in (-0.5, 0.5):
        rows, others = neighbours(base.starts, begins, step, steps)
        total[rows] += shifted.probabilities[others]
        weight[rows] += 1
    return replace(base, probabilities=total / weight)


def join(found: Sequence[Detection], gap: float) -> list[Event]:
    """Detections of window species and channel whose windows overlap, touch or lie at most `gap` seconds apart."""
    events: list[list[Detection]] = []
    open_: dict[tuple[str, int], list[Detection]] = {}
    for detection in sorted(found, key=lambda window: window.start):
        same = open_.get((detection.label, detection.channel))
        if same and detection.start - max(window.end for window in same) <= gap:
            same.append(detection)
        else:
            open_[detection.label, detection.channel] = [detection]
            events.append(open_[detection.label, detection.channel])
    return [joined_event(windows) for windows in events]


def joined_event(windows: Sequence[Detection]) -> Event:
    first, confidences = windows[0], [window.confidence for window in windows]
    return Event(
        first.start,
        max(window.end for window in windows),
        first.label,
        first.scientific_name,
        first.common_name,
        max(confidences),
        float(np.mean(confidences)),
        len(windows),
        first.channel,
        first.detected_at,
        first.validated,
    )


def clock_time(recorded_at: str, start: float) -> str:
    """When a window begins; blank where the recording's time is not known, or only its date."""
    if "T" not in recorded_at:
        return ""
    when = datetime.fromisoformat(recorded_at) + timedelta(seconds=round(start, 3))
    return when.isoformat(timespec="milliseconds" if when.microsecond else "seconds")


def detection_lines(found: Sequence[Detection], limit: int) -> list[str]:
    """Detections as lines for a terminal, at most `limit` of them."""
    lines: list[str] = []
    for detection in found[:limit]:
        when = f"{clock_text(detection.start):>9} - {clock_text(detection.end):<9}"
        channel = f" channel {detection.channel}" if detection.channel else ""
        name, mark = detection.common_name, validation_mark(detection.validated)
        name += f" ({detection.scientific_name})" if name != detection.label else ""
        voice = f" ({detection.voice:.1f} s of voices)" if detection.voice else ""
        lines.append(f"{when}{channel} {detection.confidence:5.2f}  {name}{mark}{voice}")
    return lines + ([f"... and {len(found) - limit} more"] if len(found) > limit else [])


def validation_mark(validated: str) -> str:
    """What stands behind the name of a species that nobody knows to be right, or too few recordings do."""
    return {"never": " (never validated)", "too few": " (hardly validated)"}.get(validated, "")


def clock_text(value: float) -> str:
    """Seconds as people read them: 75 -> 1:15.0."""
    tenths = round(value * 10)
    hours, minutes = tenths // 36_000, tenths // 600 % 60
    tail = f"{tenths % 600 / 10:04.1f}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


if __name__ == "__main__":
    kin = ("Animalia", "Chordata", "Amphibia", "Anura", "Fictidae", "Rana")
    frogs = Taxonomy(("41", "42"), ("Rana ficta", "Rana falsa"), ("frog", "toad"), ((*kin, "a"), (*kin, "b")), (7, 7))
    scores = np.array([[0.9, 0.1], [0.6, 0.2], [0.4, 0.45], [0.1, 0.1]], np.float32)
    scored = Scored([0.0, 5.0, 10.0, 15.0], [5.0, 10.0, 15.0, 20.0], scores, np.zeros((4, 0), np.float32))
    choices = Choices(np.array([0.5, 0.5], np.float32), np.array([True, True]), ranks={"genus": 0.6})
    found = detect(scored, frogs, choices, "2026-05-14T05:30:00")
    print("\n".join(detection_lines(found, limit=10)))
    (frog, rana) = join(found, gap=0.0)
    print(f"{frog.common_name}: {frog.windows} windows from {frog.detected_at}, at best {frog.confidence:.2f}")
    assert (frog.start, frog.end, rana.label) == (0.0, 10.0, "genus Rana"), "neither species alone, but their genus"
