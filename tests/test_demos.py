"""Every demo runs as a process of its own, from another folder: a demo that nobody runs is a comment."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
COMMANDS = (  # have tests of their own
    *("data_loader", "ssl_mae", "main", "quantize", "predictor", "report", "demo", "experiments"),
)
ROOMS = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in COMMANDS)


@pytest.mark.parametrize("room", ROOMS)
def test_the_demo_runs_and_says_something(room: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / f"{room}.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("room", ROOMS)
def test_the_demo_ends_in_an_assert(room: str) -> None:
    text = (HERE / f"{room}.py").read_text(encoding="utf-8")
    assert "assert " in text.split('if __name__ == "__main__":')[1]
