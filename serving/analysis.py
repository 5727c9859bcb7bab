"""Recordings -> their windows scored, channel by channel, and what the tables will say of each recording.

    for entry, outcome, scored in score_entries(scorers, entries, sound, decoder): ...
    analysed = analyse(entry, outcome, scored, taxonomy, choices)

Recordings are read while others are being scored. No torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from config import AudioSettings
from evaluation.calibration import Thresholds
from serving.contexts import SoundSettings, Speech, channels, context_pieces, spoken_seconds
from serving.detections import Analysed, Choices, Scored, averaged_shifts, detect, smoothed, weighted_by_file
from serving.inputs import Entry
from serving.priors import Prior
from serving.progress import ScoringProgress
from serving.scored_windows import ByChannel, Windows, unpacked
from serving.scorer import Scorer, stream
from sounds.damage import Outcome
from sounds.decoders import Decoder
from sounds.voices import VoiceFinder
from taxonomy import Taxonomy

NOTHING = ("unreadable", "silent", "short")  # nothing in a recording of such a status was analysed


def score_entries(
    scorers: Sequence[Scorer],
    entries: Iterable[Entry],
    sound: SoundSettings,
    decoder: Decoder,
    progress: ScoringProgress | None = None,
    prior: Prior | None = None,
    finder: VoiceFinder | None = None,
    embeddings: bool = False,
) -> Iterator[tuple[Entry, Outcome, list[Scored]]]:
    """The windows of every recording and channel, scored; with embeddings where the journal wants arrays.

    embeddings  also without a journal
    prior      what is likely where and when, which the scores are moved by
    progress   where it is shown and saved how far the recording at work is; what its journal has is not scored again
    finder     looks for voices, where `sound` asks for that
    """
    answered: ByChannel = {}
    contexts = 0
    audio, species = scorers[0].audio, len(scorers[0].taxonomy.labels)
    step = audio.window_seconds - sound.overlap
    journal = progress.journal if progress else None
    embeddings = embeddings or (journal is not None and journal.arrays)
    pieces = context_pieces(entries, audio, sound, decoder, journal, finder)
    for piece, answer in stream(scorers, pieces, sound.batch_size):
        if piece.begun is not None:
            answered, contexts = unpacked(piece.begun)
        if answer is not None:
            windows = answered.setdefault((piece.channel, piece.shifted), Windows())
            windows.take(piece.windows, piece.rows, answer, embeddings)
            contexts += 1
            if progress:
                progress.moved(piece, answered, contexts)
        if piece.outcome is not None:
            numbers = channels(sound, piece.outcome)
            scored = [scored_channel(answered, channel, species, sound, step) for channel in numbers]
            spoken = [piece.speech.get(channel, Speech()) for channel in numbers]
            scored = [
                replace(one, speech=its.segments, skipped=its.skipped) for one, its in zip(scored, spoken, strict=True)
            ]
            if prior:
                scored = [replace(one, probabilities=prior.applied(one.probabilities, piece.entry)) for one in scored]
            yield piece.entry, piece.outcome, scored
            answered, contexts = {}, 0


def scored_channel(
    answered: Mapping[tuple[int, bool], Windows], channel: int, species: int, sound: SoundSettings, step: float
) -> Scored:
    """One channel of a recording: its windows in order, averaged and weighted as asked.

    step   seconds from the beginning of a window to that of the next
    """
    scored = answered.get((channel, False), Windows()).scored(channel, species)
    if sound.tta:
        scored = averaged_shifts(scored, answered.get((channel, True), Windows()).scored(channel, species), step)
    if sound.smooth:
        scored = smoothed(scored, step)
    if sound.file_weight:
        scored = replace(scored, probabilities=weighted_by_file(scored.probabilities))
    return scored


def analyse(entry: Entry, outcome: Outcome, scored: Sequence[Scored], taxonomy: Taxonomy, choices: Choices) -> Analysed:
    """What the tables will say of a recording."""
    found = [detection for part in scored for detection in detect(part, taxonomy, choices, entry.recorded_at)]
    skipped = sum(part.skipped for part in scored) / max(len(scored), 1)  # as seconds of one channel
    spoken = max((spoken_seconds(part.speech, outcome.seconds) for part in scored), default=0.0)
    return Analysed(
        str(entry.path),
        entry.site,
        entry.recorded_at,
        outcome.sample_rate,
        outcome.channels,
        outcome.claimed_seconds,
        max(outcome.seconds - outcome.silent_seconds - skipped, 0.0),
        sum(len(part.starts) for part in scored),
        outcome.status,
        outcome.reason,
        entry.size,
        entry.mtime_ns,
        tuple(sorted(found, key=lambda detection: detection.start)),
        latitude=entry.latitude,
        longitude=entry.longitude,
        make=entry.make,
        serial=entry.serial,
        temperature=entry.temperature,
        seconds_silent=outcome.silent_seconds,
        seconds_voice=spoken,
        seconds_skipped=min(skipped, outcome.seconds - outcome.silent_seconds),
    )


if __name__ == "__main__":
    import soundfile

    def loudness(contexts: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> dict[str, np.ndarray]:
        """A "network" of one species, which is present as far as it is loud."""
        return {"probabilities": np.tanh(np.abs(contexts).mean(axis=1, keepdims=True) * 10)}

    names = Taxonomy(("41",), ("Rana ficta",), ("frog",), (("a", "b", "c", "d", "e", "f", "g"),), (7,))
    scorer = Scorer(loudness, Path("toy"), AudioSettings(), names, "float32", False, "", Thresholds(), 1, "not asked")
    sound = np.random.default_rng(0).normal(0, 0.01, 16_000 * 15)
    sound[16_000 * 5 : 16_000 * 10] *= 20
    with tempfile.TemporaryDirectory() as folder, Decoder() as decoder:
        path = Path(folder) / "dawn.wav"
        soundfile.write(path, sound, 16_000)
        ((entry, outcome, scored),) = score_entries([scorer], [Entry(path)], SoundSettings(), decoder)
    choices = Choices(np.array([0.5], np.float32), np.array([True]))
    dawn = analyse(entry, outcome, scored, names, choices)
    for detection in dawn.found:
        print(f"{detection.start:g} to {detection.end:g} s: {detection.common_name} {detection.confidence:.2f}")
    assert dawn.windows == 3 and [detection.start for detection in dawn.found] == [5.0]
