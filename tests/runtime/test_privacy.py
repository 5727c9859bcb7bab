"""What is used where is told to nobody: neither engine leaves the number by which its makers would know a machine."""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from house import HERE, program

ENGINES = ("onnxruntime", "openvino")


def left_by(program: str, home: Path) -> list[str]:
    """The files that a program leaves in an empty home folder."""
    home.mkdir()
    plain = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", program], cwd=HERE, env=plain | {"HOME": str(home)}, check=True)
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize("room", ["serving.scorer", "runtime.guard", "serving.speed", "predictor"])
def test_loading_an_engine_leaves_nothing_in_the_home_folder(room: str, tmp_path: Path) -> None:
    program = f"import {room}; from serving import scorer; assert scorer.int8_fault() == ''"
    if find_spec("openvino"):
        program += "; import sys, openvino; assert not sys.modules['openvino_telemetry']"
    assert left_by(program, tmp_path / "home") == []


def test_whatever_imports_an_engine_imports_privacy_first() -> None:
    """In commands, benches and tests; there is no other control, since it would tell."""
    found = 0
    for path in (*program(), *HERE.glob("bench/*.py"), *HERE.glob("tests/**/*.py")):
        names = [
            alias.name if isinstance(node, ast.Import) else node.module or ""
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        ]
        if set(names) & set(ENGINES):
            found += 1
            assert "runtime.privacy" in names[: min(names.index(engine) for engine in ENGINES if engine in names)], (
                path.name
            )
    assert found >= 5
