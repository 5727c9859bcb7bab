"""Recordings decoded in a process of its own: one that crashes its decoder, hangs or eats memory costs itself alone.

    with Decoder() as decoder:
        recording = decoder.open(Path("dawn.ogg"), 16_000)      # as audio.open_recording
        for context, windows in recording.contexts(5.0, 5.0): ...
        recording.outcome                                       # salvaged or unreadable where the decoder died

Sound comes through a pipe, block by block, as fast as it is asked for; nothing is kept. No torch.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from config import AudioSettings
from sounds.audio import SHORTEST_SECONDS, OpenRecording, Outcome, Waveform, is_alive, open_recording

GUARD_SECONDS, GUARD_RATE = 60.0, 2**20  # a file is given a minute, and a second for each MiB
MOST_MEMORY = 2**33  # bytes a decoding process may take
HEAD = struct.Struct("<qIIQ")  # bytes of sound that follow (negative: of an outcome); the file's rate, channels, claim
READ = 2**20  # bytes at once
BEGINNING, DYING = 60.0, 1.0  # seconds that the beginning and the end of a process may take
READY = b"ready\n"  # what a process of ours says first
PASSING = (
    "its decoder died",
    "decoding did not",
    "cannot be read",
    "cannot be found",
    "reading broke off",
    "it changed",
)


class Decoder:
    """A process that decodes for this one; another takes its place when a recording has ended it."""

    def __init__(self) -> None:
        self.process, self.asked = start_process("from sounds import decoders; decoders.serve()"), 0

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; it is begun again when it is asked for something."""
        assert self.process.stdin and self.process.stdout, "a decoder without pipes"
        self.process.kill()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def open(self, path: Path, sample_rate: int, channel: int = 0, shortest: float = SHORTEST_SECONDS) -> OpenRecording:
        """As `audio.open_recording`, decoded over there; one recording at a time."""
        return DecodedRecording(self, path, sample_rate, channel, shortest)

    def ask(self, recording: OpenRecording) -> None:
        """Let the process begin with a recording, whose blocks are then received."""
        if self.process.poll() is not None:
            self.process, self.asked = start_process("from sounds import decoders; decoders.serve()"), 0
        if not self.asked:
            refuse_dead(self.process, self.receive(len(READY), BEGINNING))
        self.asked += 1
        assert self.process.stdin, "a decoder without pipes"
        question = json.dumps([str(recording.path), recording.sample_rate, recording.channel, recording.shortest])
        try:
            self.process.stdin.write(question.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # it dies just now; whoever wants to receive will notice
            pass

    def receive(self, count: int, limit: float) -> bytes:
        """So many bytes; fewer where the process has ended or says nothing for `limit` seconds."""
        assert self.process.stdout, "a decoder without pipes"
        told, place = bytearray(), self.process.stdout.fileno()
        while len(told) < count and select.select([place], [], [], limit)[0]:
            piece = os.read(place, min(READ, count - len(told)))
            if not piece:
                break
            told += piece
        return bytes(told)

    def is_dead(self) -> bool:
        return self.matter(0).startswith("its decoder died")

    def matter(self, limit: float) -> str:
        """Why nothing more has come: the process has ended, or says nothing for so long."""
        ends = time.monotonic() + DYING
        while self.process.poll() is None:
            if time.monotonic() > ends:
                return f"decoding did not go on within {limit:.0f} s"
            time.sleep(0.01)
        return f"its decoder died ({death(self.process.returncode)})"


class DecodedRecording(OpenRecording):
    """A recording whose blocks come from a Decoder."""

    def __init__(self, decoder: Decoder, path: Path, sample_rate: int, channel: int, shortest: float) -> None:
        super().__init__(path, sample_rate, channel, shortest)
        self.decoder = decoder

    def waveform(self) -> Iterator[Waveform]:
        decoder, limit, finished = self.decoder, guard_seconds(self.path), False
        samples, rate, channels = 0, 0, 0
        decoder.ask(self)
        again = decoder.asked > 1  # what killed it may have been an earlier recording
        try:
            while True:
                head = decoder.receive(HEAD.size, limit)
                count, rate, channels, claimed = HEAD.unpack(head) if len(head) == HEAD.size else (0, rate, channels, 0)
                if count > 0:
                    self.reading.sample_rate, self.reading.channels, self.reading.claimed = rate, channels, claimed
                body = decoder.receive(abs(count), limit)
                if (not count or len(body) < abs(count)) and again and not samples and decoder.is_dead():
                    decoder.close()
                    decoder.ask(self)
                    again = False
                    continue
                if not count or len(body) < abs(count):
                    why, seconds = decoder.matter(limit), samples / self.sample_rate
                    self.outcome = (
                        Outcome("salvaged", f"{seconds:.1f} s were read, then {why}", seconds, rate, channels, seconds)
                        if samples
                        else Outcome("unreadable", f"{why}; leave it out", 0.0, 0, 0)
                    )
                    return
                if count < 0:
                    self.outcome, finished = outcome_of(json.loads(body)), True
                    return
                block = np.frombuffer(body, np.float32)
                samples += len(block)
                yield block
        finally:
            if not finished:  # what is still in the pipe belongs to this recording
                decoder.close()


def rows_with_sound(
    samples: Waveform, windows: Sequence[tuple[float, float]], audio: AudioSettings, shortest: float
) -> tuple[int, ...]:
    """Which of the first windows of a context (samples,) hold sound; a context that is one window does."""
    length, rate = round(audio.window_seconds * audio.sample_rate), audio.sample_rate
    pieces = [samples[row * length :][: round((end - start) * rate)] for row, (start, end) in enumerate(windows)]
    return tuple(row for row, piece in enumerate(pieces) if len(windows) == 1 or is_alive(piece, rate, shortest))


def outcome_of(told: dict[str, Any]) -> Outcome:
    """An outcome as it was sent."""
    told["dead"] = tuple((start, end) for start, end in told["dead"])  # JSON knows lists alone
    return Outcome(**told)


def serve() -> None:
    """The decoding process: a recording a line, its blocks and its outcome as they come."""
    limit_memory()
    import_module("av")  # so that what is missing is said before the first recording
    out = sys.stdout.buffer
    out.write(READY)
    out.flush()
    for line in sys.stdin:
        path, sample_rate, channel, shortest = json.loads(line)
        recording = open_recording(Path(path), sample_rate, channel, shortest)
        for block in recording.waveform():
            if len(block):
                reading = recording.reading
                out.write(HEAD.pack(4 * len(block), reading.sample_rate, reading.channels, reading.claimed))
                out.write(np.ascontiguousarray(block, np.float32).data)
                out.flush()
        told = json.dumps(asdict(recording.outcome)).encode()
        out.write(HEAD.pack(-len(told), recording.outcome.sample_rate, recording.outcome.channels, 0) + told)
        out.flush()


def start_process(code: str) -> subprocess.Popen[bytes]:
    """A Python process of our own that is fed through its standard input."""
    here = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],  # nothing is imported from where the user happens to be
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # decoders speak their mind there, once for each damaged frame
        env=os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C is for whoever asked; this ends when its standard input does
    )


def refuse_dead(process: subprocess.Popen[bytes], said: bytes) -> None:
    """A process that does not even begin says nothing about a recording."""
    if said != READY:
        process.kill()
    assert said == READY, (
        f"the process that decodes does not start ({death(process.wait())}); too little memory may be free or allowed "
        "(ulimit -v), or a library is missing: python -m sounds.decoders says more"
    )


def limit_memory() -> None:
    """No more than MOST_MEMORY for this process, or what its owner may have where that is less."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(
        resource.RLIMIT_AS, (MOST_MEMORY if hard == resource.RLIM_INFINITY else min(MOST_MEMORY, hard), hard)
    )


def guard_seconds(path: Path) -> float:
    """How long a recording may keep its decoder busy without a word."""
    try:
        size = path.stat().st_size
    except (OSError, ValueError):  # whoever reads it will say why
        size = 0
    return GUARD_SECONDS + size / GUARD_RATE


def may_pass(reason: str) -> bool:
    """Whether a recording could be read another time: what went wrong is not in it, or not for certain."""
    return any(words in reason for words in PASSING)


def death(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


if __name__ == "__main__":
    import soundfile

    with tempfile.TemporaryDirectory() as place, Decoder() as decoder:
        path = Path(place) / "dawn.wav"
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16_000 * 40), 16_000)
        here, there = open_recording(path, 16_000), decoder.open(path, 16_000)
        assert np.array_equal(np.concatenate(list(here.waveform())), np.concatenate(list(there.waveform())))
        assert here.outcome == there.outcome
        print(
            f"{path.name}: {there.outcome.status}, {there.outcome.seconds} s, decoded in process {decoder.process.pid}"
        )
        cut = decoder.open(path, 16_000)
        blocks = cut.waveform()
        next(blocks)
        os.kill(decoder.process.pid, signal.SIGSEGV)
        list(blocks)
        print(f"{cut.outcome.status}: {cut.outcome.reason}")
        assert cut.outcome.status == "salvaged" and len(list(decoder.open(path, 16_000).windows(5.0))) == 8
