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
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from audio import OpenRecording, Outcome, Waveform, open_recording

GUARD_SECONDS, GUARD_RATE = 60.0, 2**20  # a file is given a minute, and a second for each MiB
MOST_MEMORY = 2**33  # bytes a decoding process may take
HEAD = struct.Struct("<qII")  # bytes of sound that follow (negative: of an outcome), the file's rate and channels
READ = 2**20  # bytes at once


class Decoder:
    """A process that decodes for this one; another takes its place when a recording has ended it."""

    def __init__(self) -> None:
        self.process = start_process("import decoders; decoders.serve()")

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

    def open(self, path: Path, sample_rate: int, channel: int = 0) -> OpenRecording:
        """As `audio.open_recording`, decoded over there; one recording at a time."""
        return DecodedRecording(self, path, sample_rate, channel)

    def ask(self, recording: OpenRecording) -> None:
        """Let the process begin with a recording, whose blocks are then received."""
        if self.process.poll() is not None:
            self.process = start_process("import decoders; decoders.serve()")
        assert self.process.stdin, "a decoder without pipes"
        question = json.dumps([str(recording.path), recording.sample_rate, recording.channel])
        self.process.stdin.write(question.encode() + b"\n")
        self.process.stdin.flush()

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

    def matter(self, limit: float) -> str:
        """Why nothing more has come for so long."""
        assert self.process.stdout, "a decoder without pipes"
        if not select.select([self.process.stdout], [], [], 0)[0]:
            return f"decoding did not go on within {limit:.0f} s"
        return f"its decoder died ({death(self.process.wait())})"


class DecodedRecording(OpenRecording):
    """A recording whose blocks come from a Decoder."""

    def __init__(self, decoder: Decoder, path: Path, sample_rate: int, channel: int) -> None:
        super().__init__(path, sample_rate, channel)
        self.decoder = decoder

    def waveform(self) -> Iterator[Waveform]:
        decoder, limit, finished = self.decoder, guard_seconds(self.path), False
        samples, rate, channels = 0, 0, 0
        decoder.ask(self)
        try:
            while True:
                head = decoder.receive(HEAD.size, limit)
                count, rate, channels = HEAD.unpack(head) if len(head) == HEAD.size else (0, rate, channels)
                body = decoder.receive(abs(count), limit)
                if not count or len(body) < abs(count):
                    why, seconds = decoder.matter(limit), samples / self.sample_rate
                    self.outcome = (
                        Outcome("salvaged", f"{seconds:.1f} s were read, then {why}", seconds, rate, channels, seconds)
                        if samples
                        else Outcome("unreadable", f"{why}; leave it out", 0.0, 0, 0)
                    )
                    return
                if count < 0:
                    self.outcome, finished = Outcome(**json.loads(body)), True
                    return
                block = np.frombuffer(body, np.float32)
                samples += len(block)
                yield block
        finally:
            if not finished:  # what is still in the pipe belongs to this recording
                decoder.close()


def serve() -> None:
    """The decoding process: a recording a line, its blocks and its outcome as they come."""
    limit_memory()
    out = sys.stdout.buffer
    for line in sys.stdin:
        path, sample_rate, channel = json.loads(line)
        recording = open_recording(Path(path), sample_rate, channel)
        for block in recording.waveform():
            if len(block):
                out.write(HEAD.pack(4 * len(block), recording.reading.sample_rate, recording.reading.channels))
                out.write(np.ascontiguousarray(block, np.float32).data)
                out.flush()
        told = json.dumps(asdict(recording.outcome)).encode()
        out.write(HEAD.pack(-len(told), recording.outcome.sample_rate, recording.outcome.channels) + told)
        out.flush()


def start_process(code: str) -> subprocess.Popen[bytes]:
    """A Python process of our own that is fed through its standard input."""
    here = str(Path(__file__).resolve().parent)
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],  # nothing is imported from where the user happens to be
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # decoders speak their mind there, once for each damaged frame
        env=os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C is for whoever asked; this ends when its standard input does
    )


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))


def guard_seconds(path: Path) -> float:
    """How long a recording may keep its decoder busy without a word."""
    return GUARD_SECONDS + (path.stat().st_size / GUARD_RATE if path.is_file() else 0)


def death(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


if __name__ == "__main__":
    import soundfile

    with tempfile.TemporaryDirectory() as place, Decoder() as decoder:
        path = Path(place) / "dawn.wav"
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 32_000 * 12), 32_000)
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
        assert cut.outcome.status == "salvaged" and len(list(decoder.open(path, 16_000).windows(5.0))) == 3
