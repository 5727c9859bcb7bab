"""Ctrl-C in every command: one line at once, exit code 130, no half file, and what is computed is kept."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probe
from config import SIZES, AudioSettings, EncoderSettings, FinetuneCommand, LossSettings, parse
from data_loader import Context, labeled_loader, read_labeled, recording_contexts
from demo_data import FieldSeason
from model import BirdClefClassifier, Encoder
from training import frozen, objective
from training.checkpoint import load_encoder
from training.frozen import Features, computed_features
from training.objective import prepare_loss_inputs

HERE = Path(__file__).parents[2]
CPU = torch.device("cpu")
COMMANDS = (
    *("data_loader", "ssl_mae", "main", "quantize", "predictor", "report", "probe", "experiments", "demo"),
    *("pseudo_label", "search", "refit", "pack", "publish"),
)


def catches(process: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    told = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    caught = next(line.split()[1] for line in told.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_still_being_loaded_leaves_with_a_line(command: str, number: int, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, str(HERE / f"{command}.py"), "--data.root", "nowhere"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while child.poll() is None and not catches(child.pid, signal.SIGTERM):
        time.sleep(0.001)
    sent = time.monotonic()
    child.send_signal(number)
    out, said = child.communicate(timeout=60)
    assert child.returncode == 130, (out, said)
    assert said.startswith("stopped; ") and len(said.strip().splitlines()) == 1 and time.monotonic() - sent < 5
    assert not out and not list(tmp_path.iterdir())


def test_without_the_first_import_there_is_a_traceback(tmp_path: Path) -> None:
    """Negative control."""
    program = "import time, signal; signal.signal(signal.SIGINT, signal.default_int_handler); print('up', flush=True); "
    program += "time.sleep(30)"
    child = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout and child.stdout.readline() == "up\n"
    child.send_signal(signal.SIGINT)
    assert "Traceback" in child.communicate(timeout=60)[1]


def test_whoever_imports_a_command_keeps_his_own_signals() -> None:
    program = "import signal; before = signal.getsignal(signal.SIGINT); import runtime.stopping, predictor; "
    program += "assert signal.getsignal(signal.SIGINT) is before"
    subprocess.run([sys.executable, "-c", program], cwd=HERE, check=True)


@pytest.fixture
def archive(season: FieldSeason, tmp_path: Path) -> Any:
    """A classifier to be, on 24 recordings, in batches of 4."""
    flags = ["--preset", "demo", "--data.root", str(season.root), "--data.cache", str(tmp_path / "cache")]
    config = parse(FinetuneCommand, [*flags, "--data.most_windows", "1", "--train.head_passes", "2"])
    taxonomy, rows = read_labeled(config.data)
    rows = rows[::4][:24]
    loader = labeled_loader(rows, taxonomy, config.data, AudioSettings(), 4, seed=0)
    torch.manual_seed(0)
    model = BirdClefClassifier(Encoder(SIZES["demo"]), AudioSettings(), len(taxonomy.labels), config.head)
    return model, loader, prepare_loss_inputs(taxonomy, rows, LossSettings(), None, CPU), config, CPU


def features_of(archive: Any, begun: Path | None = None) -> Features:
    model, loader, inputs, config, device = archive
    return computed_features(model, loader, inputs, config, device, begun)


def stopped_after(count: int, original: Any, seen: list[int]) -> Any:
    """A function that is interrupted when it is called for the last of so many times; 0: never."""

    def called(*told: Any) -> Any:
        seen.append(1)
        if len(seen) == count:
            raise KeyboardInterrupt
        return original(*told)

    return called


def test_features_of_the_frozen_encoder_go_on_where_they_were_stopped_and_are_the_same(
    archive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, begun = objective.augmented, tmp_path / "features" / "x.begun"
    seen = list[int]()
    monkeypatch.setattr(frozen, "augmented", stopped_after(0, original, seen))
    whole, calls = features_of(archive), len(seen)
    counts = list[int]()
    for stop in (3, calls - 4):  # within the first pass, within the second
        seen = list[int]()
        monkeypatch.setattr(frozen, "augmented", stopped_after(stop, original, seen))
        with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
            features_of(archive, begun)
        counts.append(len(seen) - 1)
    seen = list[int]()
    monkeypatch.setattr(frozen, "augmented", stopped_after(0, original, seen))
    again = features_of(archive, begun)
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
    assert sum(counts) + len(seen) == calls and counts[0] == 2 and not begun.exists()
    assert "windows from a run that was stopped" in capsys.readouterr().out


def test_damaged_features_are_computed_again(archive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = tmp_path / "x.begun"
    begun.write_bytes(b"no features")
    seen = list[int]()
    monkeypatch.setattr(frozen, "augmented", stopped_after(0, objective.augmented, seen))
    features = features_of(archive, begun)
    assert len(seen) == 2 * len(archive[1]) and len(features.targets) == 4 * len(seen)


def test_the_probe_keeps_the_features_that_it_has_when_it_is_stopped(
    season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rows = read_labeled(parse(FinetuneCommand, ["--preset", "demo", "--data.root", str(season.root)]).data)
    rows, audio, begun = rows[:40], AudioSettings(), tmp_path / "features" / "probe-x.safetensors"
    encoder = load_encoder(EncoderSettings("demo", "random"), audio).eval()
    means, counts = probe.pooled_features(encoder, rows, audio, 12, CPU)
    original, heard = recording_contexts, list[str]()

    def interrupted(some: Any, settings: Any) -> Iterator[Context]:
        heard.append(some[0].name)
        if len(heard) == 30:
            raise KeyboardInterrupt
        return original(some, settings)

    monkeypatch.setattr(probe, "recording_contexts", interrupted)
    with pytest.raises(KeyboardInterrupt, match="of 40 recordings are kept: the same command goes on"):
        probe.pooled_features(encoder, rows, audio, 12, CPU, begun)
    before = len(heard)
    again, windows = probe.pooled_features(encoder, rows, audio, 12, CPU, begun)
    assert windows.tolist() == counts.tolist()
    np.testing.assert_allclose(again.astype(np.float32), means.astype(np.float32), atol=2e-3)
    assert before < len(heard) < before + 40 and not begun.exists(), "those that were kept are not looked at again"


def test_the_demo_lets_the_command_at_work_end_as_it_wants_to(tmp_path: Path) -> None:
    """It is told by us alone, not by a terminal: it tells the command, which says what it keeps."""
    child_program = tmp_path / "child.py"
    child_program.write_text(
        "import signal, time\n"
        "def end(*_):\n    print('keeping', flush=True); time.sleep(1)\n"
        "    print('kept', flush=True); raise SystemExit(130)\n"
        "signal.signal(signal.SIGINT, end)\nprint('up', flush=True)\ntime.sleep(60)\n"
    )
    program = (
        "import signal, demo; from runtime.terminal import interrupt; from pathlib import Path\n"
        f"demo.HERE = Path({str(tmp_path)!r}); signal.signal(signal.SIGINT, interrupt)\n"
        "demo.command('child.py')"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout
    for line in parent.stdout:
        if line == "up\n":
            break
    os.kill(parent.pid, signal.SIGINT)
    out, said = parent.communicate(timeout=60)
    assert parent.returncode == 130 and out == "keeping\nkept\n" and not said, (out, said)
