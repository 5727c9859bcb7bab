"""What this program is started from: a folder, or one zip application with all that scoring needs, a model perhaps.

    own_file("report.html").read_text()         # a file that comes with the program, out of either
    own_path("serving/cards/perch-v2.json")     # the same as a path
    bundled_model()                            # the model inside of predictor.pyz, put where an engine can open it
    begin()                                    # what predictor.pyz does: python predictor.pyz [report.py] ...

`pack.py` writes such an application. Python imports out of it, in processes that decode too; an engine does not, so the
model inside is put below /tmp/wildwhisper/packed once, under its digest.
"""

from __future__ import annotations

import hashlib
import runpy
import sys
import zipfile
from importlib.resources.abc import Traversable
from pathlib import Path

from config import SCRATCH
from runtime.digests import sha256
from runtime.files import publish

HERE = Path(__file__).absolute().parents[1]  # the folder, or the zip file
COMMANDS = ("predictor", "report", "search", "count")  # that an application holds; the first unless another is named
MODELS = "models/"  # in front of a model's digest and name
DIGITS = 16  # of the digest


def is_packed() -> bool:
    return HERE.is_file()


def own_file(name: str) -> Traversable:
    """A file or folder that comes with this program."""
    return zipfile.Path(HERE) / name if is_packed() else HERE / name


def own_path(name: str, scratch: Path = SCRATCH) -> Path:
    """The same under a path that anything opens: out of an application a copy of it, put below /tmp once."""
    if not is_packed():
        return HERE / name
    content = own_file(name).read_bytes()
    return put_down(content, hashlib.sha256(content).hexdigest()[:DIGITS], Path(name).name, scratch)


def put_down(content: bytes, digest: str, name: str, scratch: Path) -> Path:
    """A file of an application under its digest."""
    path = scratch / "packed" / digest / name
    if not (path.is_file() and sha256(path)[:DIGITS] == digest):
        path.parent.mkdir(parents=True, exist_ok=True)
        with publish(path, len(content)) as temporary:
            temporary.write_bytes(content)
    return path


def bundled_model(scratch: Path = SCRATCH) -> Path | None:
    """The model that is inside of the application, as a file; None where there is none.

    Errors: an application that is damaged.
    """
    if not is_packed():
        return None
    with zipfile.ZipFile(HERE) as archive:
        inside = next((name for name in archive.namelist() if name.startswith(MODELS)), "")
        if not inside:
            return None
        digest, name = inside.removeprefix(MODELS).split("/")
        path = scratch / "packed" / digest / name
        if not (path.is_file() and sha256(path)[:DIGITS] == digest):
            content = archive.read(inside)
            assert hashlib.sha256(content).hexdigest()[:DIGITS] == digest, f"{HERE} is damaged; copy it again"
            put_down(content, digest, name, scratch)
    return path


def named_inside(model: Path) -> str:
    """Under which name a model lies in an application."""
    return f"{MODELS}{sha256(model)[:DIGITS]}/{model.name}"


def begin() -> None:
    """Run the command whose script is named first, as in `python predictor.pyz report.py results/`, or the first."""
    scripts = [f"{name}.py" for name in COMMANDS]
    script = scripts[0]
    if sys.argv[1:2] and sys.argv[1] in scripts:
        script = sys.argv.pop(1)
        sys.argv[0] += f" {script}"  # as --help says how to call it
    runpy.run_module(script.removesuffix(".py"), run_name="__main__")


if __name__ == "__main__":
    page = own_file("report.html").read_text(encoding="utf-8")
    print(f"{'one file' if is_packed() else 'a folder'}; a page of {len(page)} characters comes with it")
    assert "<html" in page and bundled_model() is None
