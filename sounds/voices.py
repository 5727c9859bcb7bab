"""Where people speak in a recording: segments found by Silero's detector, and sound without them.

    with VoiceFinder() as finder:                          # finds the detector that requirements-voices.txt brings
        speech = finder.find(Path("dawn.ogg"))             # ((12.3, 15.1), ...) seconds
    blocks = muted(recording.waveform(), 16_000, speech)   # the same sound, silent where somebody speaks

Reads    recordings, in a process of its own; silero_vad_16k_sequence.onnx of the package silero-vad, of which no code
         is imported: that would bring torch
Writes   nothing: what is said is neither kept nor understood

The file is looked through by runtime/guard.py and run by ONNX Runtime. It takes 16 kHz: recordings of other rates are
resampled for it alone. It is asked about 16 s at a time and remembers what it needs, so memory does not grow with a
recording. No torch.
source   https://github.com/snakers4/silero-vad, MIT
"""

from __future__ import annotations

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import json
import math
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime.addresses import place
from runtime.digests import sha256
from runtime.guard import FOREIGN, bounded_options, check_graph
from sounds.audio import open_recording
from sounds.decoders import Decoder, Lost, Message, answer_questions
from sounds.windows import Waveform

RATE = 16_000  # Hz that the detector takes
FRAME = 512  # samples that an answer is about, 32 ms
AT_A_TIME = 500  # frames: 16 s
FILE = "silero_vad_16k_sequence.onnx"  # the one of the package's files that has neither loops nor branches
SERVE = "from sounds import voices; voices.serve_speech()"  # what a searching process runs
VERSION = 1  # raise it whenever other segments would be found in the same file
SPEECH, STILL = 0.5, 0.35  # a probability that begins a segment, and one that goes on with it: Silero's own
LEAST_SECONDS = 0.25  # that somebody speaks: Silero's own
JOINED_SECONDS = 0.5  # pauses between words are speech
AROUND_SECONDS = 0.2  # before and behind it, less than half a pause: the first and last consonants are faint
FADE_SECONDS = 0.01  # from sound to silence: a sudden end would be a click
FOREVER = 1e9  # seconds: longer than any recording

Segment = tuple[float, float]  # start and end in seconds
Segments = tuple[Segment, ...]  # in the order of time, none touching another


def detector_file(instead: str = "leave the flag out") -> Path:
    """Silero's network, in the package that brings it.

    instead   what can be done without it
    Errors: the package is not installed, or is another version of it: one line with the remedy.
    """
    found = find_spec("silero_vad")
    folders = [Path(folder) / "data" for folder in found.submodule_search_locations or ()] if found else []
    path = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    assert path, (
        f"--voices: Silero's detector {f'has no {FILE}' if folders else 'is not installed'} here; "
        f"`pip install --no-deps -r requirements-voices.txt` brings it without PyTorch, or {instead}"
    )
    return path


@dataclass(frozen=True)
class Detector:
    """An open network of Silero's; may be asked by several threads at a time."""

    path: Path
    session: ort.InferenceSession
    width: int  # samples that it takes for a frame: some of the frame before stand in front
    state: tuple[int, ...]  # what it remembers

    def probabilities(self, blocks: Iterable[Waveform]) -> Iterator[NDArray[np.float32]]:
        """Of every frame that somebody speaks in it, AT_A_TIME of them together; the last one is filled with silence.

        blocks   (samples,) each, of one recording at RATE, however they are cut
        """
        lead = self.width - FRAME
        held, whole = np.zeros(lead, np.float32), AT_A_TIME * FRAME
        memory = np.zeros(self.state, np.float32), np.zeros(self.state, np.float32)
        for block in blocks:
            held = np.concatenate([held, block])
            while len(held) >= lead + whole:
                answer, memory = self.asked(held[: lead + whole], memory)
                yield answer
                held = held[whole:]
        if rest := len(held) - lead:
            yield self.asked(np.pad(held, (0, -rest % FRAME)), memory)[0]

    def asked(
        self, samples: Waveform, memory: tuple[NDArray[np.float32], NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """The answers to whole frames and what is remembered behind them."""
        frames = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(samples, self.width)[::FRAME])
        try:
            given, hidden, cell = self.session.run(None, {"input": frames, "h": memory[0], "c": memory[1]})
        except Exception as error:  # the engine's own errors share no narrower type
            raise AssertionError(f"{self.path} cannot be run ({str(error)[:200]}); install it again") from error
        assert given.size == len(frames) and np.isfinite(given).all(), (
            f"{self.path} answers {given.shape} to {len(frames)} frames; install it again"
        )
        return given.reshape(-1), (hidden, cell)

    def speech(self, samples: Waveform) -> Segments:
        """Where somebody speaks in a piece of sound (samples,) at RATE."""
        return tuple(segment for _, ended in searched(self.probabilities([samples])) for segment in ended)


def open_detector(path: Path) -> Detector:
    """Silero's network from its file; nothing of it is trusted unchecked.

    Errors: a dangerous or damaged file, or one of another shape, is refused in one line.
    """
    check_graph(path, None, FOREIGN)
    try:
        session = ort.InferenceSession(str(path), bounded_options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise AssertionError(f"{path} is damaged or no ONNX file ({str(error)[:200]}); install it again") from error
    shapes = {entry.name: list(entry.shape) for entry in session.get_inputs()}
    outputs = len(session.get_outputs())
    width, state = (shapes.get("input") or [0])[-1], shapes.get("h") or [""]
    sizes = [size for size in state if isinstance(size, int)]
    fits = shapes.keys() == {"input", "h", "c"} and outputs == 3 and len(sizes) == len(state) == len(shapes["c"])
    assert fits and isinstance(width, int) and width >= FRAME, (
        f"{path} takes {shapes} and gives {outputs} outputs, not what Silero 6 takes; install requirements-voices.txt"
    )
    return Detector(path, session, width, tuple(sizes))


def detector_digest(path: Path) -> str:
    """What decides which segments are found: this code and the detector, in a few letters."""
    return f"{VERSION}-{sha256(path)[:12]}"


def searched(answers: Iterable[NDArray[np.float32]]) -> Iterator[tuple[float, list[Segment]]]:
    """After each answer up to where, in seconds, all is known, and the segments that are known by then.

    answers   (frames,) probabilities, one after the other

    Where somebody is speaking, all is known only up to where that began.
    """
    open_ = list[float]()  # start and end so far of what may go on
    spoken = 0.0  # seconds of speech in it, pauses left out
    count = 0  # frames
    for answer in answers:
        known = list[Segment]()
        for probability in answer.tolist():
            start, end = count * FRAME / RATE, (count + 1) * FRAME / RATE
            count += 1
            close = bool(open_) and start - open_[1] <= JOINED_SECONDS
            if open_ and not close:
                known += widened(open_, spoken)
                open_, spoken = [], 0.0
            running = close and start - open_[1] < FRAME / RATE / 2
            if probability >= SPEECH or (running and probability >= STILL):
                open_, spoken = [open_[0] if open_ else start, end], spoken + FRAME / RATE
        reached = count * FRAME / RATE
        yield min(reached, max(open_[0] - AROUND_SECONDS, 0.0)) if open_ else reached, known
    yield count * FRAME / RATE, widened(open_, spoken)


def widened(segment: Sequence[float], spoken: float) -> list[Segment]:
    """A segment with what lies around it; none where too little is spoken in it."""
    if spoken < LEAST_SECONDS:
        return []
    start, end = segment
    return [(max(start - AROUND_SECONDS, 0.0), end + AROUND_SECONDS)]


class VoiceFinder:
    """Searches recordings in a process of its own, which a damaged one may crash; also a context manager."""

    def __init__(self) -> None:
        self.path = detector_file()
        open_detector(self.path)  # what is wrong with it is said here
        self.digest = detector_digest(self.path)
        self.decoder = Decoder(SERVE)

    def __enter__(self) -> VoiceFinder:
        return self

    def __exit__(self, *_: object) -> None:
        self.decoder.close()

    def find(self, path: Path, channel: int = 0) -> Segments:
        """Where somebody speaks in a recording. What could not be searched, because its decoder died or hung, counts as
        speech to its end, with what was being said just then.

        channel   counted from 1; 0 for the mean of all
        """
        found, reached = list[Segment](), 0.0
        try:
            for _, message in self.decoder.answer(path, [str(path), channel, str(self.path)]):
                reached, known = json.loads(message)
                found += [(start, end) for start, end in known]
        except Lost:
            found.append((max(reached, found[-1][1] if found else 0.0), math.inf))
        return tuple(found)


def serve_speech() -> None:
    """The searching process: of each recording what is known of it, as the search goes on."""
    answer_questions(speech_messages)


def speech_messages(path: str, channel: int, detector: str) -> Iterator[Message]:
    """Up to where all is known, and the segments that have ended by then."""
    blocks = open_recording(place(Path(path)), RATE, channel).waveform()
    for reached, known in searched(open_detector(Path(detector)).probabilities(blocks)):
        yield False, json.dumps([reached, known]).encode()
    yield True, json.dumps([0.0, []]).encode()


def seconds_in(speech: Segments, starts: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """(windows,) seconds of speech in each window, by its start and end."""
    if not speech:
        return np.zeros(len(starts))
    edges = np.minimum(np.array(speech).reshape(-1), FOREVER)
    lengths = np.diff(edges)[::2]
    spoken = np.cumsum(np.stack([np.zeros(len(lengths)), lengths], axis=1).reshape(-1))  # up to each edge
    found: NDArray[np.float64] = np.interp(ends, edges, spoken) - np.interp(starts, edges, spoken)
    return found


def outside(speech: Iterable[Segment], end: float) -> Segments:
    """What is left of a recording of `end` seconds without speech."""
    edges = [0.0, *(min(edge, end) for segment in speech for edge in segment), end]
    return tuple((first, last) for first, last in zip(edges[::2], edges[1::2], strict=True) if first < last)


def muted(blocks: Iterable[Waveform], sample_rate: int, speech: Segments) -> Iterator[Waveform]:
    """The same blocks (samples,), one after the other, silent where somebody speaks."""
    position, firsts, lasts = 0, [first for first, _ in speech], [last for _, last in speech]
    for block in blocks:
        start, end = position / sample_rate, (position + len(block)) / sample_rate
        here = speech[bisect_left(lasts, start - FADE_SECONDS) : bisect_right(firsts, end + FADE_SECONDS)]
        yield block * gain_around(position, len(block), sample_rate, here) if here else block
        position += len(block)


def gain_around(position: int, count: int, sample_rate: int, speech: Sequence[Segment]) -> Waveform:
    """(count,) 0 where somebody speaks, 1 elsewhere, from one to the other within FADE_SECONDS outside of speech."""
    times = np.arange(position, position + count) / sample_rate
    gain = np.ones(count)
    for first, last in speech:
        away = np.maximum(first - times, times - last)  # seconds outside of the segment, negative within
        gain = np.minimum(gain, np.clip(away / FADE_SECONDS, 0, 1))
    return gain.astype(np.float32)


if __name__ == "__main__":
    talk = np.concatenate([np.zeros(100), np.full(50, 0.9), np.zeros(10), np.full(40, 0.9), np.zeros(100)])
    blink = np.concatenate([talk, np.full(5, 0.9), np.zeros(100)]).astype(np.float32)  # 160 ms are no speech
    speech = tuple(segment for _, known in searched([blink[:130], blink[130:]]) for segment in known)
    with tempfile.TemporaryDirectory() as folder:
        import soundfile

        path = Path(folder) / "dawn.wav"
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, len(blink) * FRAME), RATE)
        still = np.concatenate(list(muted(open_recording(path, RATE).waveform(), RATE, speech)))
    for start, end in speech:
        print(f"somebody speaks from {start:.2f} to {end:.2f} s; left: {outside(speech, 12.96)}")
    assert len(speech) == 1 and abs(speech[0][0] - 3.0) < 1e-6 and abs(speech[0][1] - 6.6) < 1e-6
    assert not still[round(3.0 * RATE) : round(6.6 * RATE)].any() and np.abs(still).max() > 0.3
