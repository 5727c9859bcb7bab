"""docs/cli.md: every command's --help, so that it can be searched and linked to.

    python docs/write_cli.py

tests/test_docs.py holds the page to what the commands say.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PAGE = HERE / "docs" / "cli.md"
COMMANDS = (
    *("data_loader", "probe", "ssl_mae", "main", "quantize", "predictor", "report"),
    *("search", "refit", "count", "pseudo_label", "publish", "experiments", "pack"),
)
PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}


def page(answers: Mapping[str, str]) -> str:
    """The whole page, of what each command says."""
    parts = [
        "# Every command and flag\n\nMade by `python docs/write_cli.py` from what the commands say with `--help`.\n",
        " · ".join(f"[{name}.py](#{name}py)" for name in COMMANDS) + "\n",
    ]
    parts += [f"## {name}.py\n\n```\n{answers[name]}\n```\n" for name in COMMANDS]
    return "\n".join(parts)


def help_of(name: str) -> str:
    """What a command says with --help."""
    command = [sys.executable, f"{name}.py", "--help"]
    done = subprocess.run(command, cwd=HERE, env=os.environ | PLAIN, capture_output=True, text=True, check=True)
    return shown(done.stdout)


def shown(said: str) -> str:
    """What is printed, without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", said).rstrip()


if __name__ == "__main__":
    written = page({name: help_of(name) for name in COMMANDS})
    PAGE.write_text(written, encoding="utf-8")
    print(f"wrote {PAGE}: {written.count('--')} flags named")
    assert written.count("```") == 2 * len(COMMANDS), "a command said nothing"
