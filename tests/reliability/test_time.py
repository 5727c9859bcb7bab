"""Whole days, odd rates and holes: a beep is told where it was, in little memory.

Two ways lead into a recording: the predictor's stream and training's `read_window`; both must agree with the clock.
"""

import ctypes
import json
import math
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from broken import RATE, SOUNDFILE_KINDS, Sound, noise, number, ogg_pages, overwritten, put, sample, with_beep
from numpy.typing import NDArray
from pretend import read_rows, write_beep_model

from serving.analysis import score_entries
from serving.contexts import SoundSettings
from serving.inputs import Entry
from serving.journal import open_journal
from serving.progress import ScoringProgress
from serving.scorer import Scorer, open_scorer
from sounds.audio import OpenRecording, open_recording, read_window
from sounds.decoders import Decoder

HERE = Path(__file__).parents[2]
EXACT = 0.05  # seconds
BEEP = 0.1  # seconds
DAY = 24.0  # hours
PLANTED = (0.0, 12.0, 23.99)  # hours at which a beep begins, ten seconds later
RATES = {
    "pcm16.wav": (8_000, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000, 250_000, 384_000),
    "sound.flac": (8_000, 22_050, 48_000, 192_000, 384_000),
    "sound.ogg": (8_000, 22_050, 48_000, 192_000),
    "sound.opus": (8_000, 16_000, 48_000),
    "sound.mp3": (8_000, 16_000, 22_050, 44_100, 48_000),
}
ODD_RATES = (
    *(1_000, 1_001, 1_999, 3_989, 7_919, 8_001, 11_027, 15_999, 16_001, 22_049, 22_075, 22_077, 31_991, 44_099),
    *(47_999, 65_537, 96_001, 131_071, 192_001, 250_007, 384_001, 500_009, 777_777, 999_983, 1_000_000),
)
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """A model that fires on 3 kHz."""
    return open_scorer(write_beep_model(tmp_path_factory.mktemp("model") / "beep.onnx"), threads=1)


def loudest_moment(sound: Sound, rate: int = RATE) -> float:
    """Seconds to the tenth of a second that holds most of 3 kHz."""
    mixed = sound * np.exp(-2j * np.pi * 3_000 / rate * np.arange(len(sound)))
    sums = np.concatenate([[0], np.cumsum(mixed)])
    length = round(BEEP * rate)
    return int(np.argmax(np.abs(sums[length:] - sums[:-length]))) / rate


def streamed_moment(path: Path) -> float:
    """Where the stream of windows has the beep."""
    windows = list(open_recording(path, RATE).windows(5.0))
    sound = np.concatenate([window.samples[: round((window.end - window.start) * RATE)] for window in windows])
    return loudest_moment(sound)


@cache
def decoder() -> Decoder:
    """One for all tests; it ends with them."""
    return Decoder()


def told(listener: Scorer, path: Path) -> list[tuple[float, float]]:
    """Start and end of the windows in which the predictor hears a beep."""
    ((_, _, (scored,)),) = score_entries([listener], [Entry(path)], SoundSettings(), decoder())
    sure = scored.probabilities[:, 0] > 0.5
    return [pair for pair, heard in zip(zip(scored.starts, scored.ends, strict=True), sure, strict=True) if heard]


def errors(listener: Scorer, path: Path, at: float, starts: Sequence[float]) -> list[float]:
    """By how many seconds the beep is misplaced, in the stream and in windows sought; the predictor's row covers it."""
    assert any(start - EXACT <= at and at + BEEP <= end + EXACT for start, end in told(listener, path)), path
    sought = [start + loudest_moment(read_window(path, start, 5.0, RATE)) for start in starts]
    return [abs(found - at) for found in [streamed_moment(path), *sought]]


@pytest.mark.parametrize("name", RATES)
def test_a_beep_is_where_it_was_at_every_rate(
    name: str, listener: Scorer, tmp_path: Path, record_property: Record
) -> None:
    worst = 0.0
    for rate in RATES[name]:
        path = sample(tmp_path, name, with_beep(noise(8.0, rate), 6.0, rate), rate)
        worst = max(worst, *errors(listener, path, 6.0, (1.2, 2.0, 2.9)))
    assert worst <= EXACT
    record_property("R14", f"{name}, {len(RATES[name])} rates to {max(RATES[name]):,} Hz: {1000 * worst:.1f} ms off")


@pytest.mark.parametrize("name", ["sound.flac", "sound.ogg", "sound.opus"])
@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_a_beep_behind_a_hole_is_where_it_was(
    name: str, rate: int, listener: Scorer, tmp_path: Path, record_property: Record
) -> None:
    path = sample(tmp_path, name, with_beep(noise(18.0, rate), 11.0, rate), rate)
    damaged = [overwritten(path, path.stat().st_size // 3, np.random.default_rng(1).bytes(4096))]
    if name == "sound.ogg":
        pages = ogg_pages(path.read_bytes())
        damaged.append(tmp_path / "page_lost.ogg")
        damaged[1].write_bytes(b"".join(pages[: len(pages) // 3] + pages[len(pages) // 3 + 1 :]))
    worst = max(error for one in damaged for error in errors(listener, one, 11.0, (6.1, 7.0, 8.0, 10.8)))
    assert worst <= EXACT
    closed = 0.0
    if name == "sound.ogg":  # negative control: libsndfile closes the gap without a word
        frames, own = soundfile.read(damaged[1], dtype="float32")
        closed = abs(loudest_moment(frames, own) - 11.0)
        assert closed > EXACT
    record_property(
        "R14",
        f"{name} at {rate} Hz, {len(damaged)} kinds of holes: {1000 * worst:.1f} ms off"
        + (f", plain soundfile {1000 * closed:.0f} ms" if closed else ""),
    )


def test_a_window_across_a_hole_is_that_of_the_stream(tmp_path: Path) -> None:
    """Wherever it begins, before the hole, in it or behind it."""
    path = sample(tmp_path, "sound.ogg", noise(16.0, 8_000), 8_000)
    damaged = overwritten(path, path.stat().st_size // 3, np.random.default_rng(1).bytes(4096))
    whole = np.concatenate(list(open_recording(damaged, RATE).waveform()))
    for start in np.arange(0.0, 10.6, 0.9):
        sought, first = read_window(damaged, float(start), 5.0, RATE), round(start * RATE)
        assert np.corrcoef(sought, whole[first : first + len(sought)])[0, 1] > 0.95, start


@pytest.mark.parametrize("name", ["pcm16.wav", "sound.flac", "sound.ogg", "sound.opus", "sound.mp3"])
def test_no_size_of_the_blocks_changes_a_sample(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rate in (8_000, 48_000):
        path = sample(tmp_path, name, with_beep(noise(7.0, rate), 6.0, rate), rate)
        whole = np.concatenate(list(open_recording(path, RATE).waveform()))
        for size in (4 * 997, 4 * 4_096, 4 * 65_537):
            monkeypatch.setattr("sounds.libsndfile.BLOCK_BYTES", size)
            blocks = np.concatenate(list(open_recording(path, RATE).waveform()))
            end = len(whole) - RATE // 100 * (name == "sound.opus")  # libsndfile ends Opus by the size of its reads
            assert len(blocks) == len(whole) and np.abs(blocks - whole)[:end].max() < 1e-6, (rate, size)
        monkeypatch.undo()


def sparse_day(path: Path, rate: int) -> Path:
    """24 h of silence with beeps as RF64, in 16 bits: a hole in the disk with a few kB in it."""
    size = 2 * round(DAY * 3600) * rate
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, 72 + size, size, size // 2, 0)
    shape = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    head = b"RF64" + b"\xff" * 4 + b"WAVE" + sizes + shape + b"data" + b"\xff" * 4
    with path.open("wb") as file:
        file.write(head)
        for hour in PLANTED:
            file.seek(len(head) + 2 * round((hour * 3600 + 10) * rate))
            file.write(beep(rate).tobytes())
        file.truncate(len(head) + size)
    return path


def beep(rate: int) -> NDArray[np.int16]:
    wave = np.sin(2 * np.pi * 3_000 / rate * np.arange(round(BEEP * rate)))
    samples: NDArray[np.int16] = np.rint(16_000 * wave).astype(np.int16)
    return samples


@pytest.mark.parametrize("rate", [8_000, 48_000, 384_000])
def test_training_hears_the_beeps_of_a_day_where_they_are(rate: int, tmp_path: Path, record_property: Record) -> None:
    path = sparse_day(tmp_path / "day.wav", rate)
    worst = 0.0
    for hour in PLANTED:
        for early in (0.2, 4.5):
            start = hour * 3600 + 10 - early
            worst = max(worst, abs(loudest_moment(read_window(path, start, 5.0, RATE)) - early))
    assert worst <= EXACT
    record_property("R14", f"sought at hours {PLANTED} of a day at {rate} Hz: {1000 * worst:.1f} ms off")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rate"),
    [("sound.flac", 8_000), ("sound.flac", 48_000), ("sound.ogg", 8_000), ("sound.opus", 8_000), ("sound.mp3", 8_000)],
)
def test_the_predictor_tells_the_beeps_of_a_day_where_they_are(
    name: str, rate: int, listener: Scorer, tmp_path: Path, record_property: Record
) -> None:
    begun = time.monotonic()
    path = write_day(tmp_path / name, rate, DAY, hum=True)  # in silence so short a beep is no sound to ask about
    moments = [hour * 3600 + 10 for hour in PLANTED]
    rows = told(listener, path)
    assert [start for start, _ in rows] == [moment - moment % 5 for moment in moments], rows
    found = list(beeps(open_recording(path, RATE)))
    sought = [moment - 3 + loudest_moment(read_window(path, moment - 3, 5.0, RATE)) for moment in moments]
    worst = max(abs(one - moment) for some in (found, sought) for one, moment in zip(some, moments, strict=True))
    assert worst <= EXACT
    record_property(
        "R14",
        f"24 h of {name} at {rate} Hz: {len(rows)} beeps in the predictor's rows, {1000 * worst:.1f} "
        f"ms off streamed and sought; {time.monotonic() - begun:.0f} s",
    )


def beeps(recording: OpenRecording) -> Iterator[float]:
    """Seconds to the beep in every window that has one."""
    for window in recording.windows(5.0):
        if np.abs(window.samples).max() > 0.2:
            yield window.start + loudest_moment(window.samples)


def write_day(path: Path, rate: int, hours: float, hum: bool = False) -> Path:
    """Silence, or a hum, with beeps ten seconds into some hours, written minute by minute."""
    tone = 3_000 * hum * np.sin(2 * np.pi * 100 * np.arange(10 * rate) / rate)
    silence, planted = tone.astype(np.int16), {round(hour * 3600) + 10 for hour in PLANTED}
    sounding = silence.copy()
    moments = {moment - moment % 10: moment % 10 for moment in planted}
    with soundfile.SoundFile(path, "w", rate, 1, **SOUNDFILE_KINDS[path.name]) as file:
        for second in range(0, round(hours * 3600), 10):
            if second in moments:
                first = moments[second] * rate
                sounding[:] = silence
                sounding[first : first + len(beep(rate))] = beep(rate)
            block = sounding if second in moments else silence
            for start in range(0, len(block), 2 * rate):
                file.write(block[start : start + 2 * rate])
    return path


@pytest.mark.slow
def test_a_day_of_sound_takes_hardly_more_memory_than_an_hour(tmp_path: Path, record_property: Record) -> None:
    peaks: dict[tuple[float, int], int] = {}
    begun = time.monotonic()
    for hours, rate in ((1.0, 48_000), (DAY, 48_000), (1.0, 192_000), (1 / 6, 384_000)):
        peaks[hours, rate] = peak_megabytes(tmp_path, hours, rate)
    growth = peaks[DAY, 48_000] - peaks[1.0, 48_000]
    assert max(peaks.values()) < 500 and growth < 20, peaks
    listed = ", ".join(f"{hours:.3g} h at {rate // 1000} kHz {peak} MB" for (hours, rate), peak in peaks.items())
    record_property("R11", f"{listed}; {growth} MB from hour 1 to 24; {time.monotonic() - begun:.0f} s")


def peak_megabytes(place: Path, hours: float, rate: int) -> int:
    """Largest memory of predictor.py and its decoder over so many hours, 206 species and embeddings nobody asks for."""
    folder = place / f"{hours:g}-{rate}"
    folder.mkdir()
    path = write_day(folder / "sound.flac", rate, hours, hum=True)  # silence is left out, and costs nothing
    model = write_beep_model(folder / "m.onnx", species=206, width=384)
    words = [sys.executable, "predictor.py", str(path), "--model", str(model), "--out", str(folder / "out")]
    subprocess.run(words, cwd=HERE, check=True, capture_output=True)
    assert read_rows(folder / "out" / "files.csv")[0]["windows"] == str(math.ceil(720 * hours))
    path.unlink()
    facts = json.loads((folder / "out" / "run.json").read_text())
    return int(facts["peak_memory_mb"]) + int(facts["decoder_peak_memory_mb"])


def test_memory_follows_the_windows_and_not_the_embeddings(tmp_path: Path) -> None:
    """What a long recording leaves behind in the predictor is its probabilities, once."""
    path = sample(tmp_path, "pcm16.wav", noise(60.0))
    wide = open_scorer(write_beep_model(tmp_path / "wide.onnx", species=5, width=64), threads=1)
    for arrays, width in ((False, 0), (True, 64)):
        with open_journal(tmp_path / str(width), {}, arrays) as journal, ScoringProgress(journal, 1, 1) as progress:
            ((_, _, (scored,)),) = score_entries([wide], [Entry(path)], SoundSettings(), decoder(), progress)
        assert scored.probabilities.shape == (12, 5) and scored.embeddings.shape == (12, width)
        assert not scored.probabilities.flags.owndata  # what was gathered itself, no copy


def test_every_odd_rate_is_heard_in_a_second_and_200_megabytes(tmp_path: Path, record_property: Record) -> None:
    slowest, largest = 0.0, 0.0
    for rate in ODD_RATES:
        soundfile.write(tmp_path / "odd.wav", noise(5.0, rate), rate, "PCM_16")
        for read in (streamed_whole, sought_whole):
            before, begun = fresh_peak(), time.process_time()
            sound = read(tmp_path / "odd.wav")
            slowest, largest = max(slowest, time.process_time() - begun), max(largest, memory("VmHWM") - before)
            assert abs(len(sound) - 5 * RATE) <= 1, rate
    assert slowest < 1.0 and largest < 200
    content = (tmp_path / "odd.wav").read_bytes()
    refused = 0
    for rate in (0, 1, 999, 1_000_001, 2**31 - 1):
        (tmp_path / "odd.wav").write_bytes(put(content, 24, number(rate)))
        recording = open_recording(tmp_path / "odd.wav", RATE)
        assert not list(recording.windows(5.0)) and recording.outcome.status == "unreadable"
        assert "\n" not in recording.outcome.reason and len(recording.outcome.reason) > 20
        refused += 1
    record_property(
        "R13",
        f"{len(ODD_RATES)} rates from {min(ODD_RATES):,} to {max(ODD_RATES):,} Hz: 5 s of sound in {slowest:.2f} s and "
        f"{largest:.0f} MB at most; {refused} rates outside refused",
    )


def streamed_whole(path: Path) -> Sound:
    return np.concatenate(list(open_recording(path, RATE).waveform()))


def sought_whole(path: Path) -> Sound:
    return read_window(path, 0.0, 5.0, RATE)


def fresh_peak() -> float:
    """Forget how much memory this process had at most, give back what it holds for later; MB that it has."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name)) / 1024
