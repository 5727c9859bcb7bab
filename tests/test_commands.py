"""The commands end to end, each as a process, as a user would call them from an empty folder.

What is over after a line is forked from the process of the tests, which has the libraries; test_stopping.py and
test_requirements.py start every command from nothing.
"""

import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from conftest import Answer

from demo_data import FieldSeason

HERE = Path(__file__).parents[1]


def run(place: Path, script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(HERE / script), *map(str, arguments)]
    return subprocess.run(words, cwd=place, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_defaults_chain_from_recordings_to_detections(season: FieldSeason, tmp_path: Path) -> None:
    table = tmp_path / "runs" / "data" / "recordings.csv"
    line = ""
    shared = ("--preset", "demo", "--train.epochs", "1", "--data.root", table, "--data.cache", tmp_path / "cache")
    for script, flags in (
        ("data_loader.py", ("--data.root", season.root)),
        ("ssl_mae.py", shared),
        ("main.py", shared),
        ("quantize.py", ("--gate.min_agreement", "0.5")),
        ("predictor.py", (season.soundscape, season.root / "damaged", "--min_conf", "0.05")),
    ):
        done = run(tmp_path, script, *flags)
        expected = 2 if script == "predictor.py" else 0  # the damaged folder holds a text file named .wav
        assert done.returncode == expected, done.stderr
        assert "Traceback" not in done.stderr and "Warning" not in done.stderr, done.stderr
        if script != "predictor.py":  # what it says is next can be copied, and is what comes next here
            line = done.stdout.strip().splitlines()[-1].rpartition(": ")[2]
            _, program, *words = shlex.split(line)
            following = {"data_loader.py": "main.py", "ssl_mae.py": "main.py", "main.py": "quantize.py"}
            assert Path(program) == HERE / following.get(script, "predictor.py"), line
            assert all((tmp_path / word).exists() for word in words if "/" in word), line
    copied = subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert copied.returncode == 0 and "x real time" in copied.stdout, copied.stderr
    runs = tmp_path / "runs"
    place = f"predict/{season.soundscape.name}-and-1-more"
    for name in ("data", "mae", "finetune", "quantize", place):
        assert (runs / name).is_symlink() == (name != place)  # the same input again goes on in the same folder
        assert json.loads((runs / name / "run.json").read_text())["status"] == "finished"
    with (runs / place / "detections.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) > 0


@pytest.mark.parametrize(
    ("script", "remedy"),
    [("main.py", "python ssl_mae.py"), ("quantize.py", "python main.py"), ("predictor.py", "python quantize.py")],
)
def test_a_missing_input_names_the_command_that_makes_it(
    script: str, remedy: str, season: FieldSeason, tmp_path: Path
) -> None:
    given: dict[str, list[str | Path]] = {
        "predictor.py": [season.soundscape],
        "main.py": ["--data.root", season.root, "--encoder.weights", "runs/mae/encoder.safetensors"],
    }
    arguments = given.get(script, [])
    preset = ["--preset", "demo"] if script == "main.py" else []
    done = forked.run(tmp_path, script, *preset, *arguments)
    assert done.returncode == 1 and remedy in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("script", ["data_loader.py", "ssl_mae.py", "probe.py"])
def test_missing_recordings_name_the_flag_that_brings_them(script: str, tmp_path: Path) -> None:
    preset = [] if script == "data_loader.py" else ["--preset", "demo"]
    done = forked.run(tmp_path, script, *preset, "--data.root", tmp_path / "nothing")
    assert done.returncode == 1 and "--data.root" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "script",
    [
        "data_loader.py",
        "ssl_mae.py",
        "main.py",
        "quantize.py",
        "predictor.py",
        "probe.py",
        "search.py",
        "refit.py",
        "pack.py",
        "publish.py",
    ],
)
def test_help_teaches(script: str, answers: dict[str, dict[str, Answer]]) -> None:
    done = answers[Path(script).stem]["--help"]
    assert done.code == 0 and f"python {script}" in done.out
