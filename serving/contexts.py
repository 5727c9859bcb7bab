"""Recordings -> the contexts that a model is given, channel by channel, and what became of each recording.

    for piece, samples in pieces(entries, scorer.audio, sound, decoder): ...

Reads    recordings, through sounds.decoders; what the journal has of one that an earlier run had begun
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from config import AudioSettings, PredictCommand, Voices
from serving.inputs import Entry
from serving.journal import Journal
from serving.scored_windows import Numbers, contexts_of
from sounds.audio import open_recording
from sounds.damage import Outcome, Reading
from sounds.decoders import Decoder
from sounds.voices import Segments, VoiceFinder, muted, seconds_in
from sounds.windows import contexts, least_sound, rows_with_sound

Waveform = np.ndarray[tuple[int], np.dtype[np.float32]]


@dataclass(frozen=True)
class SoundSettings:
    """How recordings are cut into windows, and what is made of their scores; the flags of these names say more."""

    overlap: float = PredictCommand.overlap  # seconds
    shortest: float = PredictCommand.shortest
    channel: str = PredictCommand.channel
    tta: bool = PredictCommand.tta
    smooth: bool = PredictCommand.smooth
    file_weight: bool = PredictCommand.file_weight
    batch_size: int = PredictCommand.batch_size  # contexts
    voices: Voices = PredictCommand.voices

    def __post_init__(self) -> None:
        assert self.shortest >= 0, f"--shortest {self.shortest}: give seconds, 0 or more"
        known = self.channel in ("mean", "each") or (self.channel.isdecimal() and int(self.channel) > 0)
        assert known, f"--channel {self.channel}: give mean, each, or a number from 1"
        assert self.batch_size >= 1, f"--batch_size {self.batch_size}: give 1 or more"
        assert self.voices != "skip" or not (self.tta or self.smooth), (
            "--voices skip leaves windows out, and --tta and --smooth average neighbours; take --voices mute with them"
        )


@dataclass(frozen=True)
class Speech:
    """What was found of people's voices in a channel of a recording, and what is not scored because of them."""

    segments: Segments = ()
    skipped: float = 0.0  # seconds


def common_audio(paths: Sequence[Path], sounds: Sequence[AudioSettings]) -> AudioSettings:
    """What several models are given, each of which makes its own picture of it: the band is the widest of theirs.

    Errors: models that take other samples, or answer for other windows, are refused in one line.
    """
    first = sounds[0]
    for path, other in zip(paths, sounds, strict=True):
        for name in ("sample_rate", "window_seconds", "context_seconds"):
            ours, theirs = getattr(first, name), getattr(other, name)
            assert theirs == ours, (
                f"{path} takes sound with {name} {theirs}, {paths[0]} with {ours}; take models that were trained "
                f"with the same --audio.{name}"
            )
    top = max(audio.top_hz for audio in sounds)
    highest = first.highest_hz if top == first.top_hz else top
    return replace(first, lowest_hz=min(audio.lowest_hz for audio in sounds), highest_hz=highest)


@dataclass(frozen=True)
class Piece:
    """Where the answer to a context belongs."""

    entry: Entry
    channel: int = 0
    shifted: bool = False  # half a step later, for --tta
    windows: tuple[tuple[float, float], ...] = ()  # start and end in seconds
    rows: tuple[int, ...] = ()  # of the answer that belong to them: windows without sound are left out
    outcome: Outcome | None = None  # of the recording, once all of it has been read
    speech: Mapping[int, Speech] = field(default_factory=dict[int, Speech])  # by channel, with the outcome
    share: float = 0.0  # of the recording that is read with this context, as far as its header is right
    begun: Mapping[str, Numbers] | None = None  # what an earlier run had of the recording; empty: begin anew


def context_pieces(
    entries: Iterable[Entry],
    audio: AudioSettings,
    sound: SoundSettings,
    decoder: Decoder,
    journal: Journal | None = None,
    finder: VoiceFinder | None = None,
) -> Iterator[tuple[Piece, Waveform | None]]:
    """The contexts (samples,) of all recordings, one after the other; behind each recording what became of it, without
    samples.

    Of a recording that an earlier run had begun, what the journal has of it comes first, and contexts that are answered
    there are left out: it is decoded from its beginning, so that every other context is what it would have been.
    finder   looks for voices, where these are looked for
    """
    for entry in entries:
        begun = journal.recall_begun(entry) if journal else None
        if begun is not None:
            yield Piece(entry, begun=begun), None
        outcome, count, speech = yield from contexts_behind(contexts_of(begun), entry, audio, sound, decoder, finder)
        if count < contexts_of(begun):  # it could be read further then: what is reported must be of one reading
            yield Piece(entry, begun={}), None
            outcome, _, speech = yield from contexts_behind(0, entry, audio, sound, decoder, finder)
        yield Piece(entry, outcome=outcome, speech=speech), None


def contexts_behind(
    answered: int,
    entry: Entry,
    audio: AudioSettings,
    sound: SoundSettings,
    decoder: Decoder,
    finder: VoiceFinder | None,
) -> Generator[tuple[Piece, Waveform | None], None, tuple[Outcome, int, dict[int, Speech]]]:
    """The contexts of a recording without the first `answered`; returns what became of it, how many there were, and
    what was found of voices in each channel."""
    count = passed = 0  # contexts so far, and times that the recording has been read
    outcome: Outcome | None = None
    silent: dict[int, Outcome] = {}
    speech: dict[int, Speech] = {}
    shortest = least_sound(sound.shortest, audio.window_seconds)
    shifts = (0.0, (audio.window_seconds - sound.overlap) / 2) if sound.tta else (0.0,)
    remaining = [1] if sound.channel == "each" else channels(sound)
    while remaining:
        channel = remaining.pop(0)
        spoken = finder.find(entry.path, channel) if finder else ()
        every, kept = list[tuple[float, float]](), list[tuple[float, float]]()  # windows with sound, and those scored
        for shift in shifts:
            recording = open_recording(entry.path, audio.sample_rate, channel, shortest)
            geometry = audio.sample_rate, audio.context_seconds, audio.window_seconds, sound.overlap, shift
            blocks = decoder.waveform(recording)
            blocks = muted(blocks, audio.sample_rate, spoken) if sound.voices == "mute" else blocks
            for context, windows in contexts(blocks, *geometry, shortest):
                if beyond_band(recording.reading.sample_rate, audio):
                    continue
                rows = rows_with_sound(context.samples, windows, audio, shortest)
                if sound.voices == "skip":
                    every += [windows[row] for row in rows]
                    rows = rows_without_speech(rows, windows, spoken)
                    kept += [windows[row] for row in rows]
                    if not rows:
                        continue
                count += 1
                if count > answered:
                    passes = len(shifts) * (recording.reading.channels if sound.channel == "each" else 1)
                    share = (passed + share_read(recording.reading, context.end)) / max(passes, 1)
                    times = tuple(windows[row] for row in rows)
                    yield Piece(entry, channel, shift > 0, times, rows, share=share), context.samples
            if recording.outcome.status != "unreadable" and beyond_band(recording.outcome.sample_rate, audio):
                rate, found = recording.outcome.sample_rate, recording.outcome.channels
                why = f"was recorded at {rate} Hz; {all_above(audio)}"
                return Outcome("unreadable", why, 0.0, rate, found), count, {}
            # only now is it known how many channels there are
            if outcome is None and not silent:
                remaining += [other for other in channels(sound, recording.outcome) if other > channel]
            passed += 1
            muted_seconds = spoken_seconds(spoken, recording.outcome.seconds) if sound.voices == "mute" else 0.0
            speech[channel] = Speech(spoken, muted_seconds + covered_seconds(every) - covered_seconds(kept))
            if recording.outcome.status == "silent":
                silent[channel] = recording.outcome
            else:
                outcome = worse(outcome, recording.outcome)
    assert outcome or silent, f"--channel {sound.channel} names no channel"
    return with_silent_channels(outcome, silent), count, speech


def rows_without_speech(
    rows: tuple[int, ...], windows: Sequence[tuple[float, float]], spoken: Segments
) -> tuple[int, ...]:
    """Those of some windows of a context in which nobody speaks."""
    starts, ends = np.array(windows, np.float64).reshape(-1, 2).T
    found = seconds_in(spoken, starts, ends)
    return tuple(row for row in rows if not found[row])


def spoken_seconds(spoken: Segments, end: float) -> float:
    """Seconds of speech in a recording of `end` seconds."""
    return float(seconds_in(spoken, np.zeros(1), np.array([end]))[0])


def covered_seconds(windows: Iterable[tuple[float, float]]) -> float:
    """How many seconds lie in at least one of some windows."""
    total = reached = 0.0
    for start, end in sorted(windows):
        total, reached = total + max(0.0, end - max(start, reached)), max(reached, end)
    return total


def beyond_band(sample_rate: int, audio: AudioSettings) -> bool:
    """Whether a recording at this rate holds nothing of the band that a model gets."""
    return sample_rate <= 2 * audio.lowest_hz


def all_above(audio: AudioSettings) -> str:
    """What a model gets, and what it needs for that."""
    return f"all that the model gets lies above {audio.lowest_hz:g} Hz, give it recordings of a higher sample rate"


def share_read(reading: Reading, end: float) -> float:
    """How much of a recording has been read once a context ends at `end` seconds; 0 where its header does not say."""
    return min(end * reading.sample_rate / reading.claimed, 1.0) if reading.claimed else 0.0


def channels(sound: SoundSettings, outcome: Outcome | None = None) -> list[int]:
    """The channels of a recording that are analysed, counted from 1; 0 is the mean of all."""
    if sound.channel == "each":
        return list(range(1, 1 + (outcome.channels if outcome else 1)))
    return [0 if sound.channel == "mean" else int(sound.channel)]


def with_silent_channels(outcome: Outcome | None, silent: Mapping[int, Outcome]) -> Outcome:
    """How a recording went of which some channels hold no sound, or all."""
    if outcome is None:
        return next(iter(silent.values()))
    numbers = ", ".join(map(str, silent))
    remark = f"no sound for a while in channel {numbers}, use another one"
    return replace(outcome, reason="; ".join(filter(None, [outcome.reason, remark]))) if silent else outcome


def worse(before: Outcome | None, now: Outcome) -> Outcome:
    """How a recording went that was read several times: what was missing once is missing in its rows."""
    if before is None or (now.status == "ok" and now.seconds >= before.seconds):
        return before or now
    if before.status != "ok" and now.seconds >= before.seconds:
        return before
    seconds = min(before.seconds, now.seconds)
    return replace(before, status="salvaged", seconds=seconds, reason=f"read again: {now.reason}")


if __name__ == "__main__":
    import soundfile

    with tempfile.TemporaryDirectory() as folder, Decoder() as decoder:
        path = Path(folder) / "dawn.wav"
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (16_000 * 12, 2)), 16_000)
        sound = SoundSettings(channel="each")
        found = [piece for piece, _ in context_pieces([Entry(path)], AudioSettings(), sound, decoder)]
    for piece in found:
        print(f"channel {piece.channel}: {piece.windows}, {piece.share:.0%}" if piece.windows else piece.outcome)
    assert [piece.channel for piece in found] == [1, 1, 1, 2, 2, 2, 0] and found[-2].windows == ((10.0, 12.0),)
