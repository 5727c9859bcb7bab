"""What recorders are known to write in the field: for each problem a file like theirs, and the right answer.

source    https://github.com/ecoacoustics/known-problems (CC BY 4.0), whose numbers the kinds have
"""

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from broken import flac_of, number, put
from numpy.typing import NDArray

from serving.inputs import find_entries
from sounds.audio import open_recording

RATE = 22_050  # Hz, of Frontier Labs' BAR
SECONDS = 60
Sound = NDArray[np.float32]


@dataclass(frozen=True)
class Problem:
    """A file as a recorder leaves it, and what has to be said of it."""

    number: str
    name: str
    content: bytes
    status: str
    seconds: float  # decoded
    silent: float  # of these, not analysed
    words: str
    windows: int
    recorded_at: str = ""


def dawn() -> Sound:
    return (0.05 * np.random.default_rng(3).standard_normal(SECONDS * RATE)).astype(np.float32)


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, dawn(), RATE, "PCM_16", format=kind)
    return file.getvalue()


def problems() -> list[Problem]:
    wav, flac = encoded("WAV"), encoded("FLAC")
    half = 44 + SECONDS * RATE
    unfinished = put(wav, 40, number(44))
    size = put(put(wav, 4, number(len(wav) + 36)), 40, number(len(wav)))
    fewer, silence = (
        "its header speaks of fewer samples than follow",
        "30.0 s of it, the first at 30.0 s, hold no sound",
    )
    random = np.random.default_rng(4).bytes(24_000 * 2 * SECONDS)
    summer, day = "2019-06-26T16:00:00+10:00", "20190626T160000+1000_REC"
    return [
        Problem("FL003", f"{day}.wav", unfinished[:half] + bytes(half - 44), "salvaged", 60, 30, silence, 6, summer),
        Problem("FL003", "nothing.wav", unfinished[:44] + bytes(2 * half - 88), "silent", 60, 60, "no sound", 0),
        Problem("FL005", f"{day}_FL005.wav", size, "ok", 60, 0, "", 12, summer),
        Problem("FL010", f"{day}.flac", flac_of(flac, 2), "salvaged", 60, 0, "of the 120.0 s it claims", 12, summer),
        Problem("FL012", "FL012.wav", put(put(wav, 4, number(36)), 40, number(0)), "salvaged", 60, 0, fewer, 12),
        Problem("WA002", "SM4_20181126_120000.wav", bytes(131_072), "unreadable", 0, 0, "begins with 4096 zeros", 0,
                "2018-11-26T12:00:00"),
        Problem("WA004", "SMM215_20231117_090800.wav", random, "unreadable", 0, 0, "is in no known format", 0,
                "2023-11-17T09:08:00"),
        Problem("OA003", "5B07FAC0.WAV", wav, "ok", 60, 0, "", 12, "2018-05-25T12:00:00+00:00"),
    ]  # fmt: skip


@pytest.mark.parametrize("problem", problems(), ids=lambda problem: f"{problem.number}-{problem.name}")
def test_a_known_problem_of_a_recorder_gets_the_right_answer(problem: Problem, tmp_path: Path) -> None:
    path = tmp_path / problem.name
    path.write_bytes(problem.content)
    recording = open_recording(path, 16_000)
    windows = list(recording.windows(5.0))
    outcome = recording.outcome
    assert (outcome.status, len(windows)) == (problem.status, problem.windows), outcome.reason
    assert outcome.seconds == pytest.approx(problem.seconds, abs=0.001)
    assert outcome.silent_seconds == pytest.approx(problem.silent, abs=0.001)
    assert problem.words in outcome.reason and bool(problem.words) == bool(outcome.reason)
    (entry,), _ = find_entries([tmp_path])
    assert entry.recorded_at == problem.recorded_at
    if windows and outcome.status != "silent":
        whole = open_recording(path, RATE)
        sound = np.concatenate(list(whole.waveform()))
        alive = round((problem.seconds - problem.silent) * RATE)
        assert np.abs(sound[:alive] - dawn()[:alive]).max() <= 1.01 / 32_768, "sample by sample"


@pytest.mark.parametrize("seed", range(6))
def test_random_bytes_of_any_kind_are_no_sound(seed: int, tmp_path: Path) -> None:
    """In a file of megabytes some bytes look like the beginning of an MP3 frame."""
    path = tmp_path / "a.wav"
    path.write_bytes(np.random.default_rng(seed).bytes(3_000_000))
    recording = open_recording(path, 16_000)
    assert not list(recording.windows(5.0)) and recording.outcome.status == "unreadable"


def test_a_plain_reader_gets_half_of_them_wrong() -> None:
    """The control: libsndfile alone returns too little, too much or nothing, and no error."""
    wrong: set[str] = set()
    for problem in problems():
        try:
            sound, rate = soundfile.read(io.BytesIO(problem.content), dtype="float32")
            wrong |= set() if len(sound) / rate == problem.seconds and not problem.silent else {problem.number}
        except (soundfile.LibsndfileError, ValueError):
            wrong |= {problem.number} if problem.status != "unreadable" else set()
    assert wrong >= {"FL003", "FL010", "FL012"}
    assert struct.unpack("<I", problems()[3 - 1].content[40:44])[0] == len(encoded("WAV")), "FL005 says too much"
