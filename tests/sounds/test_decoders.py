"""A decoder that crashes or hangs costs one recording; what it decodes is what `audio` decodes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from broken import write_zoo
from pretend import read_rows, write_beep_model

from config import PredictCommand
from predictor import predict
from sounds import decoders
from sounds.audio import open_recording
from sounds.damage import Outcome
from sounds.decoders import Decoder, death, may_pass
from sounds.windows import Waveform

HERE = Path(__file__).parents[2]
RATE = 16_000
LONG = 75  # seconds: three blocks, more than a pipe holds
AS_EVER = decoders.start_process  # before the fixtures of all tests


@pytest.fixture(scope="module", autouse=True)
def begun_as_ever() -> Iterator[None]:
    """Here the processes are what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoders, "start_process", AS_EVER)
        yield


def sound(path: Path, seconds: float = LONG, rate: int = RATE) -> Path:
    soundfile.write(path, np.random.default_rng(len(path.name)).normal(0, 0.1, int(seconds * rate)), rate)
    return path


def heard(blocks: Iterator[Waveform]) -> bytes:
    return b"".join(block.tobytes() for block in blocks)


def decoded(decoder: Decoder, path: Path) -> tuple[bytes, Outcome]:
    """All sound of a recording by way of a decoder, and how that went."""
    recording = open_recording(path, RATE)
    return heard(decoder.waveform(recording)), recording.outcome


@pytest.mark.parametrize("channel", [0, 2])
def test_what_comes_through_the_pipe_is_what_audio_decodes(tmp_path: Path, channel: int) -> None:
    """Sound, outcome and all, of every kind of damaged and sound file."""
    told, kinds = 0, write_zoo(tmp_path)
    with Decoder() as decoder:
        first = decoder.process.pid
        for kind in kinds:
            path = tmp_path / kind.name
            here, there = (open_recording(path, RATE, channel) for _ in range(2))
            assert heard(here.waveform()) == heard(decoder.waveform(there)), kind.what
            assert repr(here.outcome) == repr(there.outcome), kind.what
            told += here.outcome.status != "ok"
        decoded(decoder, tmp_path / kinds[0].name)
        assert decoder.process.pid == first, "none of them ended it"
    assert told > 20 and death(-11) == "SIGSEGV" and death(3) == "exit code 3"


DEADLY = """
import os, time
from sounds import audio
from sounds import decoders
waveform = audio.OpenRecording.waveform
def deadly(self):
    for number, block in enumerate(waveform(self)):
        if number == {block} and self.path.name == "victim.wav": {deed}
        yield block
audio.OpenRecording.waveform = deadly
decoders.serve_blocks()
"""


def let_it(monkeypatch: pytest.MonkeyPatch, deed: str, block: int) -> None:
    """Let the decoding process do something at a block of victim.wav."""
    let_run(monkeypatch, DEADLY.format(deed=deed, block=block))


def let_run(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let decoding processes run other code."""
    real = decoders.start_process

    def start(_code: str) -> subprocess.Popen[bytes]:
        return real(code)

    monkeypatch.setattr("sounds.decoders.start_process", start)


@pytest.mark.parametrize(
    ("deed", "why"),
    [
        ("os.kill(os.getpid(), 11)", "its decoder died (SIGSEGV)"),
        ("os._exit(3)", "its decoder died (exit code 3)"),
        ("raise MemoryError", "its decoder died (exit code 1)"),
        ("time.sleep(600)", "decoding did not go on within 3 s"),
    ],
    ids=["crashes", "leaves", "raises", "hangs"],
)
@pytest.mark.parametrize("block", [0, 1])
def test_a_decoder_that_dies_or_hangs_takes_one_recording_with_it(
    deed: str, why: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_it(monkeypatch, deed, block)
    monkeypatch.setattr("sounds.decoders.GUARD_SECONDS", 0.5)
    with Decoder() as decoder:
        before, victim, after = (
            open_recording(sound(tmp_path / name), RATE) for name in ("a.wav", "victim.wav", "z.wav")
        )
        assert len(heard(decoder.waveform(before))) == 4 * LONG * RATE
        got = len(heard(decoder.waveform(victim))) / 4 / RATE
        started = time.monotonic()
        assert len(heard(decoder.waveform(after))) == 4 * LONG * RATE and time.monotonic() - started < 20
    assert before.outcome.status == after.outcome.status == "ok"
    if block:
        assert victim.outcome.status == "salvaged" and 0 < got < LONG
        assert victim.outcome.reason == f"{got:.1f} s were read, then {why}"
        assert (victim.outcome.seconds, victim.outcome.sample_rate, victim.outcome.channels) == (got, RATE, 1)
    else:
        assert victim.outcome.status == "unreadable" and victim.outcome.reason == f"{why}; leave it out" and not got


def test_a_path_that_nobody_can_look_at_is_a_row_and_no_end(tmp_path: Path) -> None:
    with Decoder() as decoder:
        received, outcome = decoded(decoder, tmp_path / ("long" * 100 + ".wav"))
        assert not received
    assert outcome.status == "unreadable" and "cannot be found" in outcome.reason
    assert may_pass(outcome.reason) and not may_pass("its header speaks of fewer samples than follow")


def test_less_memory_than_a_decoder_would_take_is_enough(tmp_path: Path) -> None:
    """What a cluster's ulimit -v leaves; a process may only lower its limit."""
    path = sound(tmp_path / "one.wav")
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\n"
        "from pathlib import Path\nfrom sounds.audio import open_recording\nfrom sounds.decoders import Decoder\n"
        f"with Decoder() as decoder:\n    recording = open_recording(Path({str(path)!r}), {RATE})\n"
        "    print(sum(map(len, decoder.waveform(recording))), recording.outcome.status)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(LONG * RATE), "ok"]


def test_a_decoder_that_does_not_even_start_says_nothing_about_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_run(monkeypatch, "raise SystemExit(3)")
    with (
        Decoder() as decoder,
        pytest.raises(AssertionError, match=r"does not start .*python -m sounds\.decoders says more"),
    ):
        decoded(decoder, sound(tmp_path / "one.wav"))


def test_what_an_earlier_recording_did_to_its_decoder_is_not_held_against_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heap that was spoilt before: the decoder dies at its second recording, whichever that is."""
    code = (
        "import os; from sounds import audio, decoders\nwaveform, asked = audio.OpenRecording.waveform, []\n"
        "def spoilt(self):\n    asked.append(1)\n    if len(asked) == 2: os.kill(os.getpid(), 11)\n"
        "    return waveform(self)\naudio.OpenRecording.waveform = spoilt\ndecoders.serve_blocks()"
    )
    let_run(monkeypatch, code)
    with Decoder() as decoder:
        for name in ("a.wav", "b.wav", "c.wav"):
            received, outcome = decoded(decoder, sound(tmp_path / name))
            assert len(received) == 4 * LONG * RATE and outcome.status == "ok"


def test_a_recording_that_is_not_heard_to_its_end_does_not_spill_into_the_next(tmp_path: Path) -> None:
    one, other = sound(tmp_path / "one.wav"), sound(tmp_path / "another.wav")
    with Decoder() as decoder:
        blocks = decoder.waveform(open_recording(one, RATE))
        next(blocks)
        assert isinstance(blocks, Generator)
        blocks.close()
        assert decoded(decoder, other)[0] == heard(open_recording(other, RATE).waveform())


def test_a_decoder_that_died_unasked_is_replaced(tmp_path: Path) -> None:
    path = sound(tmp_path / "one.wav")
    with Decoder() as decoder:
        os.kill(decoder.process.pid, signal.SIGKILL)
        while decoder.process.poll() is None:
            time.sleep(0.01)
        assert len(decoded(decoder, path)[0]) == 4 * LONG * RATE


def test_no_decoder_outlives_its_owner_or_imports_from_where_the_user_is(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("open('imported', 'w')")
    path = sound(tmp_path / "one.wav")
    code = (
        f"import os, sys; sys.path.insert(0, {str(HERE)!r}); from pathlib import Path; "
        f"from sounds.audio import open_recording; from sounds.decoders import Decoder; decoder = Decoder(); "
        f"blocks = decoder.waveform(open_recording(Path({str(path)!r}), 16000)); next(blocks); "
        "print(decoder.process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    python = [sys.executable, "-P", "-c", code]
    done = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, check=False)
    pid, deadline = int(done.stdout), time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() and not (tmp_path / "imported").exists()


def test_the_predictor_goes_on_behind_a_recording_that_kills_its_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_it(monkeypatch, "os.kill(os.getpid(), 11)", 1)
    archive = tmp_path / "archive"
    archive.mkdir()
    for name in ("a.wav", "victim.wav", "z.wav"):
        sound(archive / name)
    write_beep_model(tmp_path / "beep.onnx")
    out = tmp_path / "results"
    config = PredictCommand((archive,), model=(tmp_path / "beep.onnx",), runs=tmp_path / "runs", out=out)
    assert predict(config) == 0
    rows = {Path(row["file"]).name: row for row in read_rows(out / "files.csv")}
    assert [rows[name]["status"] for name in ("a.wav", "victim.wav", "z.wav")] == ["ok", "salvaged", "ok"]
    assert "then its decoder died (SIGSEGV)" in rows["victim.wav"]["reason"]
    assert json.loads((out / "run.json").read_text())["status"] == "finished"


def test_a_process_that_decodes_loads_no_settings_nor_an_engine() -> None:
    """The settings alone would make every start a tenth of a second longer."""
    for room, loaded in (("sounds.decoders", "[]"), ("serving.scorer", "['config', 'onnxruntime']")):  # the control
        code = f"import {room}, sys; print([name for name in ('config', 'onnxruntime') if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == loaded
