"""The floor plan of Python.md, held against the code: imports only go down."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
SCORING_PATH = (
    *("predictor", "scorer", "detections", "audio", "recordings", "runs", "taxonomy", "config", "metrics"),
    *("calibration", "ranks", "tables", "inputs", "journal", "seals"),
)


def floors() -> dict[str, int]:
    """Room -> floor, from the plan in Python.md."""
    plan = re.search(r"```floors\n(.*?)```", (HERE / "Python.md").read_text(encoding="utf-8"), re.DOTALL)
    assert plan is not None
    rows = [line.split() for line in plan[1].splitlines()]
    return {room: int(number) for number, *rooms in rows for room in rooms}


def imports(path: Path) -> set[str]:
    """Top-level names a file imports, those of its demo left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = [node for node in tree.body if not (isinstance(node, ast.If) and "__name__" in ast.unparse(node.test))]
    found: set[str] = set()
    for node in ast.walk(ast.Module(body, [])):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_every_file_has_a_floor_and_every_room_a_file() -> None:
    assert {path.stem for path in HERE.glob("*.py")} == set(floors())


@pytest.mark.parametrize("room", sorted(floors()))
def test_imports_only_go_down(room: str) -> None:
    plan = floors()
    for other in imports(HERE / f"{room}.py") & set(plan):
        assert plan[other] < plan[room], f"{room} (floor {plan[room]}) imports {other} (floor {plan[other]})"


def test_an_import_upwards_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "loss.py"
    path.write_text(
        "import torch\nfrom trainer import train_classifier\nif __name__ == '__main__':\n    import demo_data\n"
    )
    assert imports(path) == {"torch", "trainer"}


@pytest.mark.parametrize("room", sorted(floors()))
def test_every_room_has_a_test_file(room: str) -> None:
    assert (HERE / "tests" / f"test_{room}.py").is_file()


@pytest.mark.parametrize("room", SCORING_PATH)
def test_the_scoring_path_is_free_of_torch(room: str) -> None:
    code = f"import sys, {room}; print([name for name in ('torch', 'transformers', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_only_optim_moves_weights_and_only_audio_opens_sound() -> None:
    for path in HERE.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.stem != "optim":
            assert not re.search(r"\.backward\(|optimizer\.step\(", text), f"{path.name} moves weights"
        if path.stem not in ("audio", "demo_data"):
            assert not {"soundfile", "av", "soxr"} & imports(path), f"{path.name} opens sound files"


def test_nothing_is_unpickled_evaluated_or_fetched_as_code() -> None:
    for path in [*HERE.glob("*.py"), *HERE.glob("bench/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                flags = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                tensors_alone = flags.get("weights_only") == "True" and path.stem == "states"  # our own, with a digest
                assert name not in ("eval", "exec", "pickle.load", "pickle.loads"), f"{path.name}: {name}"
                assert name != "torch.load" or tensors_alone, f"{path.name}: {ast.unparse(node)}"
                assert not {"trust_remote_code", "shell"} & flags.keys(), f"{path.name}: {ast.unparse(node)}"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path.name}, line {node.lineno}: a bare except"
