"""What commands say to some words, each in a process of its own, forked from one that has imported their settings.

    python tests/asking.py ANSWERS.json COMMAND ... -- WORD ...    # each command is given each of the words

test_requirements.py runs it where little can be imported: what is forked there can import no more.
"""

import json
import os
import runpy
import sys
import tempfile
from pathlib import Path

from leaving import leaving

HERE = Path(__file__).resolve().parents[1]


def asked(command: str, word: str, folder: Path) -> tuple[int, str, str]:
    """A command's exit code, and what it printed."""
    names = [folder / name for name in ("out", "err")]
    child = os.fork()
    if not child:
        be(command, word, *names)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out, problems = (name.read_text(encoding="utf-8") for name in names)
    return code, out, problems


def be(command: str, word: str, *names: Path) -> None:
    """In the child: be the command, as in the folder where it lies."""
    with leaving():
        for number, name in zip((1, 2), names, strict=True):
            os.dup2(os.open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
        os.chdir(HERE)
        sys.argv = [f"{command}.py", word]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    answers, *named = sys.argv[1:]
    end = named.index("--")
    sys.path[0] = str(HERE)
    import config  # of all commands
    import runtime.terminal

    assert config and runtime.terminal
    with tempfile.TemporaryDirectory() as place:
        told = {
            command: {word: asked(command, word, Path(place)) for word in named[end + 1 :]} for command in named[:end]
        }
    Path(answers).write_text(json.dumps(told), encoding="utf-8")
