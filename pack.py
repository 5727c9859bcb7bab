"""Scoring in one file: the commands that need no training, and a model if you like, as a zip application.

    python pack.py                                                  # predictor.pyz
    python pack.py --bundle runs/quantize/classifier.int8.onnx      # the model inside: python predictor.pyz dawn.ogg
    python predictor.pyz report.py results/                         # report.py, search.py and count.py are inside too

Reads    the files of this program that scoring imports; the model
Writes   predictor.pyz, which runs wherever requirements-score.txt is installed; the same files give the same bytes

Whatever scoring imports is found in the text of the files, from the commands down, so nothing else gets in. Each file
lies inside as it is, and compiled for this version of Python, else every start would compile it.
"""

from __future__ import annotations

import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

import ast
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from config import PackCommand
from runtime.application import COMMANDS, HERE, named_inside
from runtime.digests import inspect
from runtime.files import publish
from runtime.terminal import command_line, launch, show

MAIN = "import runtime.stopping\nfrom runtime.application import begin\n\nbegin()\n"
SHIPPED = ("report.html", "lineages/*.csv", "serving/cards/*.json", "LICENSE", "requirements-score.txt")  # no code
SHEBANG = b"#!/usr/bin/env python3\n"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # of a zip file: when a file was changed says nothing


def pack(config: PackCommand) -> int:
    """The command; returns the exit code."""
    if config.bundle:
        refuse_unfit(config.bundle)
    content = contents()
    if config.bundle:
        content[named_inside(config.bundle)] = config.bundle.read_bytes()
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with publish(config.out) as temporary:
        write_application(temporary, content)
    megabytes = config.out.stat().st_size / 1e6
    show(f"wrote {config.out}: {len(content)} files, {megabytes:.1f} MB; it runs where these are installed:")
    show("  python -m pip install -r requirements-score.txt")
    show(f"and then: python {config.out} dawn.ogg{'' if config.bundle else ' --model classifier.int8.onnx'}")
    return 0


def refuse_unfit(model: Path) -> None:
    """Refuse a model that is no whole file by itself."""
    assert model.is_file(), f"no model at {model}; {command_line('quantize.py')} writes one"
    assert model.suffix == ".onnx", f"{model} is no ONNX file; --bundle takes classifier.int8.onnx of quantize.py"
    state, beside = inspect(model)
    assert state == "sound", f"{model} is damaged, or no file of quantize.py's; make it again"
    assert beside is None, f"the weights of {model} lie in {beside} beside it; give the INT8 file, which is one"


def contents() -> dict[str, bytes]:
    """All that goes into an application, by name."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder)
        for path in [*needed(COMMANDS), *(path for pattern in SHIPPED for path in HERE.glob(pattern))]:
            copy = program / path.relative_to(HERE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        compile_below(program)
        (program / "__main__.py").write_text(MAIN, encoding="utf-8")
        return {
            path.relative_to(program).as_posix(): path.read_bytes() for path in program.rglob("*") if path.is_file()
        }


def needed(rooms: Sequence[str], here: Path = HERE) -> list[Path]:
    """The files of some rooms and of all that they import, at the top or inside a function, demos left out."""
    found, waiting = set[Path](), [here / f"{room.replace('.', '/')}.py" for room in rooms]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        wing = path.with_name("__init__.py")
        waiting += [wing] if path.parent != here else []
        waiting += [here / f"{name.replace('.', '/')}.py" for name in imports(path)]
    return sorted(found)


def imports(path: Path) -> Iterator[str]:
    """What a file imports, its demo left out: `json`, `sounds.audio`, and of `from a import b` both a and a.b."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = [node for node in tree.body if not (isinstance(node, ast.If) and "__name__" in ast.unparse(node.test))]
    for node in ast.walk(ast.Module(body, [])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def compile_below(folder: Path) -> None:
    """Beside each file of a folder the same as this Python compiles it; another Python takes the text. In a process of
    its own, since what is written depends a little on all that is loaded in the one that writes it."""
    words = ["-m", "compileall", "-q", "-b", "-s", str(folder), "--invalidation-mode", "unchecked-hash", str(folder)]
    subprocess.run([sys.executable, "-I", *words], check=True)


def write_application(path: Path, content: dict[str, bytes]) -> None:
    """A zip file behind the line by which a shell knows what to start it with; the models are not made smaller, which
    would not help."""
    with path.open("wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "w") as archive:
            for name in sorted(content):
                about = zipfile.ZipInfo(name, EARLIEST)
                about.external_attr = 0o644 << 16
                about.compress_type = zipfile.ZIP_STORED if name.endswith(".onnx") else zipfile.ZIP_DEFLATED
                archive.writestr(about, content[name])
    path.chmod(0o755)


if __name__ == "__main__":
    launch(pack, PackCommand)
