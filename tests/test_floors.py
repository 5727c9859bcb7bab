"""The floor plan of Python.md, held against the code: imports only go down."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
FORBIDDEN_CALLS = frozenset({"system", "popen", "extractall", "extract", "unpack_archive", "spawnl", "execv"})
SCORING_PATH = (
    *("predictor", "scorer", "detections", "audio", "recordings", "runs", "taxonomy", "config"),
    *("calibration", "ranks", "tables", "inputs", "journal", "graphs", "seals"),
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
def test_the_scoring_path_is_free_of_what_only_training_needs(room: str) -> None:
    heavy = ("torch", "transformers", "pandas", "sklearn", "scipy")
    code = f"import sys, {room}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_only_optim_moves_weights_and_only_audio_opens_sound() -> None:
    for path in HERE.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.stem != "optim":
            assert not re.search(r"\.backward\(|optimizer\.step\(", text), f"{path.name} moves weights"
        if path.stem not in ("audio", "demo_data"):
            assert not {"soundfile", "av", "soxr"} & imports(path), f"{path.name} opens sound files"


def dangers(path: Path, borders: set[str]) -> list[str]:
    """What no file of ours may do, by its line; `borders` are the rooms that may catch errors."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = [node for node in tree.body if not (isinstance(node, ast.If) and "__name__" in ast.unparse(node.test))]
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            flags = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            tensors_alone = flags.get("weights_only") == "True" and path.stem == "states"  # our own, with a digest
            plain = name in ("__import__", "compile", "eval", "exec") or name.split(".")[-1] in FORBIDDEN_CALLS
            unsafe = name == "torch.load" and not tensors_alone
            unsafe |= name.startswith(("pickle.", "marshal.", "shelve.", "dill.", "joblib.", "subprocess.getoutput"))
            unsafe |= name == "np.load" and flags.get("allow_pickle", "False") != "False"
            unsafe |= bool({"trust_remote_code", "shell"} & flags.keys())
            found += [(node.lineno, ast.unparse(node)[:80])] * (plain or unsafe)
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append((node.lineno, "a bare except"))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [(node.lineno, ast.unparse(node))] * bool({"pickle", "marshal", "shelve", "dill"} & set(names))
    if path.stem not in borders:
        tries = [node for node in ast.walk(ast.Module(body, [])) if isinstance(node, ast.Try) and node.handlers]
        found += [(node.lineno, "a try outside of the borders") for node in tries]
    return [f"{path.name}, line {line}: {what}" for line, what in found]


def borders() -> set[str]:
    """The rooms that Python.md lets catch errors."""
    told = re.search(r"- `try` only at the borders: (.*?)\. A damaged", (HERE / "Python.md").read_text(), re.DOTALL)
    assert told is not None
    return set(re.findall(r"`(\w+)`", told[1]))


def test_nothing_is_unpickled_evaluated_or_fetched_as_code(record_property: Callable[[str, object], None]) -> None:
    files = [*HERE.glob("*.py"), *HERE.glob("bench/*.py")]
    allowed = borders() | {path.stem for path in HERE.glob("bench/*.py")}  # a bench may catch what it measures
    found = [danger for path in files for danger in dangers(path, allowed)]
    record_property("R21", f"{len(found)} dangerous calls or borders out of place in {len(files)} files")
    assert not found, found


def test_every_border_is_a_room_that_needs_to_be_one() -> None:
    catching = {path.stem for path in HERE.glob("*.py") if dangers(path, set())}
    assert borders() == catching


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')",
        "exec('1')",
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "file.extractall(folder)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run(words, shell=True)",
        "os.system(words)",
        "np.load(path, allow_pickle=True)",
        "try:\n    pass\nexcept:\n    pass",
        "try:\n    pass\nexcept ValueError:\n    pass",
    ],
)
def test_a_dangerous_line_would_be_seen(line: str, tmp_path: Path) -> None:
    path = tmp_path / "loss.py"
    path.write_text("total = sum([1, 2])\n")
    assert not dangers(path, borders())
    path.write_text(line + "\n")
    assert dangers(path, borders())
