"""Recordings decoded in a process of its own: one that crashes its decoder, hangs or eats memory costs itself alone.

    with Decoder() as decoder:
        recording = open_recording(Path("dawn.ogg"), 16_000)
        for block in decoder.waveform(recording): ...           # as recording.waveform(), decoded over there
        recording.outcome                                       # salvaged or unreadable where the decoder died

Writes   nothing: sound comes through a pipe, block by block, as fast as it is asked for

The same process may answer other questions about a recording, in its own messages: `answer_questions` over there,
`Decoder.answer` here. archive/survey.py has whole recordings examined so. No torch.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from runtime.addresses import place
from sounds.audio import OpenRecording, open_recording
from sounds.damage import Outcome
from sounds.windows import Waveform
from system import APART, limit_memory, readable

DECODE = "from sounds import decoders; decoders.serve_blocks()"  # what a decoding process runs
GUARD_SECONDS, GUARD_RATE = 60.0, 2**20  # a file is given a minute, and a second for each MiB
MOST_MEMORY = 2**33  # bytes a decoding process may take
HEAD = struct.Struct("<?q")  # in front of a message: whether it is the last of its answer, and its bytes
FACTS = struct.Struct("<IIQ")  # in front of a block: the file's sample rate, channels and claim
READ = 2**20  # bytes at once
BEGINNING, DYING = 60.0, 1.0  # seconds that the beginning and the end of a process may take
READY = b"ready\n"  # what a process of ours says first
PASSING = (
    *("its decoder died", "decoding did not", "cannot be read", "cannot be found", "reading broke off"),
    "it changed",
)

Message = tuple[bool, bytes]  # whether it is the last of its answer, and its content


class Lost(Exception):
    """An answer that does not come, and in one line why: the process died, or says nothing."""


class Decoder:
    """A process that decodes for this one; another takes its place when a recording has ended it.

    code   what it runs, which calls `answer_questions`
    """

    def __init__(self, code: str = DECODE) -> None:
        self.code, self.stopped = code, False
        self.process, self.asked = start_process(code), 0

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

    def stop(self) -> None:
        """End the process for good, out of another thread than the one that waits for its answer."""
        self.stopped = True
        self.process.kill()

    def waveform(self, recording: OpenRecording) -> Iterator[Waveform]:
        """What `recording.waveform` yields, decoded over there, one recording at a time; its outcome is final then."""
        reading, samples = recording.reading, 0
        question = [str(recording.path), recording.sample_rate, recording.channel, recording.shortest]
        try:
            for last, message in self.answer(recording.path, question):
                if last:
                    recording.outcome = outcome_of(json.loads(message))
                    return
                reading.sample_rate, reading.channels, reading.claimed = FACTS.unpack_from(message)
                block = np.frombuffer(message, np.float32, offset=FACTS.size)
                samples += len(block)
                yield block
        except Lost as lost:
            seconds, rate, channels = samples / recording.sample_rate, reading.sample_rate, reading.channels
            recording.outcome = (
                Outcome("salvaged", f"{seconds:.1f} s were read, then {lost}", seconds, rate, channels, seconds)
                if samples
                else Outcome("unreadable", f"{lost}; leave it out", 0.0, 0, 0)
            )

    def answer(self, path: Path, question: Sequence[object]) -> Iterator[Message]:
        """The messages that answer a question about a recording, the last of which says so.

        Errors: Lost, where the process dies or says nothing for as long as the file is given; asked once more before
        the first message, since what killed the process may have been an earlier recording.
        """
        limit, begun, finished = guard_seconds(path), False, False
        self.ask(question)
        again = self.asked > 1
        try:
            while not finished:
                head = self.receive(HEAD.size, limit)
                last, count = HEAD.unpack(head) if len(head) == HEAD.size else (False, -1)
                message = self.receive(count, limit)
                if len(message) == count:
                    begun, finished = True, last
                    yield last, message
                elif again and not begun and not self.stopped and self.process_ended():
                    self.close()
                    self.ask(question)
                    again = False
                else:
                    raise Lost(self.why_silent(limit))
        finally:
            if not finished:  # what is still in the pipe belongs to this recording
                self.close()

    def ask(self, question: Sequence[object]) -> None:
        """Let the process begin with an answer, whose messages are then received."""
        if self.process.poll() is not None:
            self.process, self.asked = start_process(self.code), 0
        if self.stopped:
            self.process.kill()
            raise Lost("it was stopped")
        if not self.asked:
            refuse_dead(self.process, self.receive(len(READY), BEGINNING))
        self.asked += 1
        assert self.process.stdin, "a decoder without pipes"
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # it dies just now; whoever wants to receive will notice
            pass

    def receive(self, count: int, limit: float) -> bytes:
        """So many bytes; fewer where the process has ended or says nothing for `limit` seconds."""
        assert self.process.stdout, "a decoder without pipes"
        received, pipe = bytearray(), self.process.stdout.fileno()
        while len(received) < count and readable(pipe, limit):
            piece = os.read(pipe, min(READ, count - len(received)))
            if not piece:
                break
            received += piece
        return bytes(received)

    def process_ended(self) -> bool:
        """Whether the process has ended, or does within DYING seconds."""
        ends = time.monotonic() + DYING
        while self.process.poll() is None and time.monotonic() < ends:
            time.sleep(0.01)
        return self.process.returncode is not None

    def why_silent(self, limit: float) -> str:
        """Why nothing more has come: the process has ended, or says nothing for `limit` seconds."""
        if self.process_ended():
            return f"its decoder died ({death(self.process.returncode)})"
        return f"decoding did not go on within {limit:.0f} s"


def serve_blocks() -> None:
    """The decoding process: of each recording its blocks and its outcome, as they come."""
    answer_questions(decoded_messages)


def decoded_messages(path: str, sample_rate: int, channel: int, shortest: float) -> Iterator[Message]:
    """A recording's blocks, each behind what is known of the file by then, and its outcome."""
    recording = open_recording(place(Path(path)), sample_rate, channel, shortest)
    for block in recording.waveform():
        if len(block):
            reading = recording.reading
            facts = FACTS.pack(reading.sample_rate, reading.channels, reading.claimed)
            yield False, facts + block.tobytes()
    yield True, json.dumps(asdict(recording.outcome)).encode()


def answer_questions(messages: Callable[..., Iterable[Message]]) -> None:
    """What a process of a Decoder does until its standard input ends: a question a line, its messages as they come."""
    limit_memory("RLIMIT_AS", MOST_MEMORY)
    import_module("av")  # so that what is missing is said before the first recording
    out = sys.stdout.buffer
    out.write(READY)
    out.flush()
    for line in sys.stdin:
        for last, message in messages(*json.loads(line)):
            out.write(HEAD.pack(last, len(message)))
            out.write(message)
            out.flush()


def outcome_of(fields: dict[str, Any]) -> Outcome:
    """An outcome as it was sent."""
    fields["dead"] = tuple((start, end) for start, end in fields["dead"])  # JSON knows lists alone
    return Outcome(**fields)


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
        creationflags=APART,  # the same on Windows
    )


def refuse_dead(process: subprocess.Popen[bytes], said: bytes) -> None:
    """A process that does not even begin says nothing about a recording."""
    if said != READY:
        process.kill()
    assert said == READY, (
        f"the process that decodes does not start ({death(process.wait())}); too little memory may be free or allowed "
        "(ulimit -v), or a library is missing: python -m sounds.decoders says more"
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

    with tempfile.TemporaryDirectory() as folder, Decoder() as decoder:
        path = Path(folder) / "dawn.wav"
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16_000 * 40), 16_000)
        here, there, cut = (open_recording(path, 16_000) for _ in range(3))
        assert np.array_equal(np.concatenate(list(here.waveform())), np.concatenate(list(decoder.waveform(there))))
        assert here.outcome == there.outcome
        print(f"{path.name}: {there.outcome.status}, {there.outcome.seconds} s, decoded by {decoder.process.pid}")
        blocks = decoder.waveform(cut)
        next(blocks)
        os.kill(decoder.process.pid, signal.SIGSEGV)
        list(blocks)
        print(f"{cut.outcome.status}: {cut.outcome.reason}")
        assert cut.outcome.status == "salvaged" and "SIGSEGV" in cut.outcome.reason
        assert len(list(decoder.waveform(there))) == 2, "another process took its place"
