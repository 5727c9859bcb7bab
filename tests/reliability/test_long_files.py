"""Within a long recording: the bar moves, and what is stopped or killed in its middle goes on there."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from test_scorer import toy

from config import PredictCommand
from predictor import predict
from serving import progress
from serving.analysis import score_entries
from serving.contexts import SoundSettings
from serving.inputs import Entry
from serving.journal import Journal, open_journal
from serving.progress import ScoringProgress
from serving.scored_windows import Windows, packed
from serving.scorer import open_scorer
from sounds.decoders import Decoder

HERE = Path(__file__).parents[2]
CONTEXTS = 40  # of the long recording
Moved = tuple[int, int]  # contexts that have an answer, and bytes on the bar


class Killed(Exception):
    """In place of SIGKILL: nothing is kept because of it."""


@pytest.fixture
def season(tmp_path: Path) -> Path:
    folder = tmp_path / "season"
    folder.mkdir()
    for name, contexts in (("long.flac", CONTEXTS), ("short.wav", 2)):
        sound = np.random.default_rng(contexts).normal(0, 0.1, contexts * 80_000 - 10_000)
        soundfile.write(folder / name, sound, 16_000)
    toy(tmp_path / "m.onnx", "Sigmoid")
    return folder


def command(season: Path, out: str, **settings: Any) -> PredictCommand:
    model = season.parent / "m.onnx"
    more: dict[str, Any] = {"scores": True, "rtype": ("csv", "table"), "threads": 1} | settings
    return PredictCommand((season,), model=(model,), out=season.parent / out, runs=season.parent / "runs", **more)


def tables(season: Path, out: str) -> dict[str, bytes]:
    paths = [path for path in (season.parent / out).rglob("*") if path.is_file() and ".parts" not in path.parts]
    return {path.name: path.read_bytes() for path in paths if path.name != "run.json"}


def watched(monkeypatch: pytest.MonkeyPatch, after: int = 0, error: type[BaseException] = Killed) -> list[Moved]:
    """Count the contexts that are answered, and end the run after so many."""
    moved, count = ScoringProgress.moved, list[Moved]()

    def counting(self: ScoringProgress, piece: Any, heard: Any, contexts: int) -> None:
        moved(self, piece, heard, contexts)
        count.append((contexts, self.shown))
        if len(count) == after:
            raise error

    monkeypatch.setattr(ScoringProgress, "moved", counting)
    return count


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({}, Killed),
        ({"channel": "each", "tta": True, "overlap": 2.5}, Killed),
        ({"embeddings": Path("vectors.csv"), "channel": "each"}, KeyboardInterrupt),
    ],
    ids=["plain", "channels and shifts", "embeddings"],
)
def test_a_run_that_ends_within_a_file_goes_on_there_and_ends_with_the_same_bytes(
    season: Path, settings: dict[str, Any], error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "embeddings" in settings:
        settings = {"embeddings": season.parent / "vectors.csv"}
    with monkeypatch.context() as patch:
        count = watched(patch)
        assert predict(command(season, "whole", **settings)) == 0
        whole = len(count)
    every = 0.0 if error is Killed else 1e9  # by the clock, or because it is stopped
    monkeypatch.setattr(progress, "SAVED_SECONDS", every)
    monkeypatch.setattr(progress, "MOST_TIME", 1e9)
    answered = 0
    for after in (25, 10):  # twice
        with monkeypatch.context() as patch:
            count = watched(patch, after, error)
            with pytest.raises(error):
                predict(command(season, "stopped", **settings))
            answered += len(count)
    with monkeypatch.context() as patch:
        count = watched(patch)
        assert predict(command(season, "stopped", **settings)) == 0
    assert answered + len(count) == whole, "no context is scored twice"
    assert tables(season, "stopped") == tables(season, "whole")
    assert not list((season.parent / "stopped").rglob("*.begun"))


def test_without_what_was_kept_a_file_begins_anew(season: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control, and damage: what does not match its digest is not used."""
    for harm in ("remove", "damage"):
        with monkeypatch.context() as patch:
            watched(patch, 25, KeyboardInterrupt)
            with pytest.raises(KeyboardInterrupt):
                predict(command(season, harm))
        (kept,) = (season.parent / harm).rglob("*.begun")
        content = bytearray(kept.read_bytes())
        content[len(content) // 2] ^= 1
        kept.unlink() if harm == "remove" else kept.write_bytes(content)
        with monkeypatch.context() as patch:
            count = watched(patch)
            assert predict(command(season, harm)) == 0
        assert len(count) == CONTEXTS + 2, harm


def test_batches_stay_together_so_that_no_digit_changes(season: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(season.parent / "m.onnx", "Sigmoid", facts={"precision": "float32"})
    with monkeypatch.context() as patch:
        watched(patch, 25, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            predict(command(season, "out", batch_size=4))
    with monkeypatch.context() as patch:
        count = watched(patch)
        assert predict(command(season, "out", batch_size=4)) == 0
    assert count[0][0] == 25, "24 contexts are six batches; the 25th is scored again with its neighbours"


def test_a_file_that_changed_begins_anew(season: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        watched(patch, 25, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            predict(command(season, "out"))
    soundfile.write(season / "long.flac", 0.1 * np.random.default_rng(1).standard_normal(30 * 80_000), 16_000)
    with monkeypatch.context() as patch:
        count = watched(patch)
        assert predict(command(season, "out")) == 0
    assert len(count) == 30 + 2


def test_what_reads_shorter_than_before_is_scored_as_it_reads_now(tmp_path: Path) -> None:
    """A decoder that dies in another place: windows of the earlier reading do not stay behind its end."""
    scorer = open_scorer(toy(tmp_path / "m.onnx", "Sigmoid"), threads=1)
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 10 * 80_000), 16_000)
    entry = Entry(tmp_path / "a.wav", size=1)
    long = Windows([5.0 * k for k in range(20)], [5.0 * k + 5 for k in range(20)], species=1)
    long.probabilities.extend([0.5] * 20)
    with open_journal(tmp_path / "out", {}, arrays=False) as journal, Decoder() as decoder:
        journal.save_begun(entry, packed({(0, False): long}, 20, {(0, False): 20}))
        with ScoringProgress(journal, 1, 1) as state:
            ((_, outcome, (scored,)),) = score_entries([scorer], [entry], SoundSettings(), decoder, state)
    assert outcome.seconds == 50.0 and scored.ends[-1] == 50.0 and len(scored.probabilities) == 10


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_what_was_begun_with_other_arrays_is_not_gone_on_with(kept: bool, arrays: bool, tmp_path: Path) -> None:
    entry, some = Entry(tmp_path / "a.wav"), {"contexts": np.array([3])}
    with open_journal(tmp_path, {}, arrays=kept) as journal:
        journal.save_begun(entry, some)
        found = Journal(journal.parts, arrays).recall_begun(entry)
        assert (found is None) == (kept != arrays) and (found is None or found == some)
        assert journal.recall_begun(Entry(tmp_path / "b.wav")) is None


@pytest.mark.parametrize("first", [True, False])
def test_a_long_file_that_was_begun_with_scores_ends_without_them_and_the_other_way_round(
    first: bool, season: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        watched(patch, 25, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            predict(command(season, "out", scores=first))
    assert predict(command(season, "out", scores=not first)) == 0
    assert predict(command(season, "whole", scores=not first)) == 0
    assert tables(season, "out") == tables(season, "whole")


@pytest.mark.parametrize("suffix", [".flac", ".wav", ".mp3", ".ogg"])
def test_the_bar_moves_within_a_file(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    season = tmp_path / "season"
    season.mkdir()
    soundfile.write(season / f"long{suffix}", np.random.default_rng(0).normal(0, 0.1, 20 * 80_000), 16_000)
    toy(tmp_path / "m.onnx", "Sigmoid")
    count = watched(monkeypatch)
    assert predict(command(season, "out")) == 0
    size = (season / f"long{suffix}").stat().st_size
    shares = [place / size for _, place in count]
    np.testing.assert_allclose(shares, np.arange(1, 21) / 20, atol=0.02)


def test_ctrl_c_within_a_file_leaves_at_once_with_a_line_and_the_same_command_goes_on(season: Path) -> None:
    out = season.parent / "out"
    program = (
        "import sys, time, predictor; from config import PredictCommand; from runtime.terminal import launch\n"
        "from serving.progress import ScoringProgress\n"
        "moved = ScoringProgress.moved\n"
        "def slowly(*told):\n    moved(*told); print('moved', flush=True); time.sleep(0.05)\n"
        "ScoringProgress.moved = slowly\n"
        "launch(predictor.predict, PredictCommand)"
    )
    words: Sequence[str] = ("--model", str(season.parent / "m.onnx"), "--out", str(out), "--threads", "1")
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(season), *words],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout and child.stderr
    for line in child.stdout:
        if line == "moved\n":
            break
    sent = time.monotonic()
    os.kill(child.pid, signal.SIGINT)
    rest, said = child.communicate(timeout=60)
    assert time.monotonic() - sent < 10 and child.returncode == 130, said
    lines = [line for line in said.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("stopped; ") and "the same command goes on" in lines[0], said
    assert "Traceback" not in rest and len(list(out.rglob("*.begun"))) == 1 and not list(out.rglob("*.part"))
    again = subprocess.run(
        [sys.executable, "predictor.py", str(season), *words], cwd=HERE, capture_output=True, text=True, check=True
    )
    assert f"resuming in the middle of {season / 'long.flac'}" in again.stdout


@pytest.mark.slow
def test_twenty_minutes_at_384_khz_take_no_more_memory_than_two(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    peaks = {minutes: peak_at_384_khz(tmp_path, minutes) for minutes in (2, 20)}
    record_property("R11", f"384 kHz, a bat's own windows: {peaks} MB by minutes")
    assert max(peaks.values()) < 500 and peaks[20] - peaks[2] < 20, f"{peaks} MB, of 92 and 922 MB of sound"


def peak_at_384_khz(place: Path, minutes: float) -> int:
    """Largest memory in MB of predictor.py and its decoder over so many minutes of hiss, written second by second, in
    windows of a third of a second at 256 kHz."""
    band = {"hop_seconds": 0.0005, "fft": 512, "lowest_hz": 10_000, "highest_hz": 120_000}
    audio = {"sample_rate": 256_000, "window_seconds": 0.3125, "context_seconds": 0.3125, **band}
    toy(place / "bat.onnx", "Sigmoid", facts={"audio": audio})
    path, out, hiss = place / "night.wav", place / f"{minutes:g}", np.random.default_rng(0).normal(0, 3_000, 384_000)
    with soundfile.SoundFile(path, "w", 384_000, 1, "PCM_16", format="RF64") as file:
        for second in range(round(60 * minutes)):
            file.write(np.roll(hiss, 977 * second).astype(np.int16))
    words = [sys.executable, "predictor.py", str(path), "--model", str(place / "bat.onnx"), "--out", str(out)]
    subprocess.run(words, cwd=HERE, check=True, capture_output=True)
    path.unlink()
    facts = json.loads((out / "run.json").read_text())
    with (out / "files.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["status"] == "ok" and int(row["windows"]) == round(60 * minutes / 0.3125), row
    return int(facts["peak_memory_mb"]) + int(facts["decoder_peak_memory_mb"])
