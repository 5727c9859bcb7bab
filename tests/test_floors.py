"""The plan of Python.md, held against the code: imports only go down, line by line, and never in a circle."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Set
from functools import cache
from pathlib import Path

import pytest
from house import HERE, ORDER, WINGS, line_of, program, room, rooms

FORBIDDEN_CALLS = frozenset({"system", "popen", "extractall", "extract", "unpack_archive", "spawnl", "execv"})
OPENERS = {"sounds.audio", "sounds.libsndfile", "sounds.ffmpeg", "demo_data"}
SCORING_PATH = (
    *("search", "serving.vectors", "serving.ranked", "serving.foreign", "serving.model_cards", "serving.hub"),
    *("predictor", "serving.scorer", "serving.detections", "sounds.audio", "archive.recordings", "runtime.runs"),
    *("taxonomy", "config", "evaluation.calibration", "evaluation.ranks", "serving.tables", "serving.inputs"),
    *("serving.scored_windows", "serving.contexts", "serving.progress", "serving.analysis", "serving.choices"),
    *("serving.tallies", "serving.outputs", "serving.journal", "runtime.guard"),
    *("runtime.digests", "runtime.files", "runtime.terminal", "runtime.cells", "runtime.csvs"),
)


@cache
def parsed(text: str) -> ast.Module:
    """A file; not to be changed."""
    return ast.parse(text)


def without_demo(tree: ast.Module) -> ast.Module:
    """All of a file but its demo."""
    body = [node for node in tree.body if not (isinstance(node, ast.If) and "__name__" in ast.unparse(node.test))]
    return ast.Module(body, [])


def imports(path: Path) -> frozenset[str]:
    """Names of the modules a file imports, those of its demo left out: `sounds.audio`, `torch`."""
    return imported_in(path.read_text(encoding="utf-8"))


@cache
def imported_in(text: str) -> frozenset[str]:
    """The same of what a file holds."""
    found: set[str] = set()
    for node in ast.walk(without_demo(parsed(text))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module in WINGS:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return frozenset(found)


def circle(start: str, imported: Mapping[str, Set[str]]) -> bool:
    """Whether a room's imports lead back to it."""
    seen, waiting = set[str](), [start]
    while waiting:
        for other in imported.get(waiting.pop(), set()):
            if other == start:
                return True
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return False


def test_every_file_has_a_line_and_every_line_its_files() -> None:
    assert [name for name in rooms() if line_of(name) < 0] == []
    named = [name for line in ORDER for name in line]
    assert len(set(named)) == len(named)
    assert all((HERE / name).is_dir() if name.endswith("/") else (HERE / f"{name}.py").is_file() for name in named)


@pytest.mark.parametrize("name", rooms())
def test_imports_only_go_down(name: str) -> None:
    """Or stay within the wing."""
    for other in imports(HERE / f"{name.replace('.', '/')}.py") & set(rooms()):
        within = name.partition(".")[0] == other.partition(".")[0] and "." in name
        assert within or line_of(other) < line_of(name), f"{name} imports {other}"


def test_no_imports_go_in_a_circle() -> None:
    imported = {name: imports(HERE / f"{name.replace('.', '/')}.py") & set(rooms()) for name in rooms()}
    assert [name for name in imported if circle(name, imported)] == []
    assert circle("a", {"a": {"b"}, "b": {"c"}, "c": {"a"}}) and not circle("a", {"a": {"b", "c"}, "b": {"c"}})


def test_an_import_upwards_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.py"
    path.write_text(
        "import torch\nfrom trainer import train_classifier\nfrom sounds import audio\n"
        "if __name__ == '__main__':\n    import demo_data\n"
    )
    assert imports(path) == {"torch", "trainer", "sounds.audio"}
    assert line_of("sounds.audio") > line_of("taxonomy") and line_of("unheard_of") == -1


@pytest.mark.parametrize("name", rooms())
def test_every_room_has_a_test_file(name: str) -> None:
    *wing, stem = name.split(".")
    assert HERE.joinpath("tests", *wing, f"test_{stem}.py").is_file()


def test_the_scoring_path_is_free_of_what_only_training_needs() -> None:
    heavy = ("torch", "transformers", "timm", "torchvision", "pandas", "sklearn", "scipy")
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    code += f"print([name for name in {heavy} if name in sys.modules])"
    words = [sys.executable, "-c", code]
    for rooms_of_it, loaded in ((SCORING_PATH, "[]\n"), (("taxonomy", "scipy"), "['scipy']\n")):  # control: the second
        done = subprocess.run([*words, *rooms_of_it], cwd=HERE, capture_output=True, text=True, check=True)
        assert done.stdout == loaded


def test_only_optim_moves_weights_and_only_three_rooms_open_sound() -> None:
    """And demo_data, which writes what it makes up."""
    assert {room(path) for path in program()} >= OPENERS
    for path in program():
        text = path.read_text(encoding="utf-8")
        if path.stem != "optim":
            assert not re.search(r"\.backward\(|optimizer\.step\(", text), f"{path.name} moves weights"
        if room(path) not in OPENERS:
            opened = {name.partition(".")[0] for name in imports(path)} & {"soundfile", "av", "soxr"}
            assert not opened, f"{path.name} opens sound files"


def test_one_room_reads_parquet() -> None:
    """With care for what anybody may have noted in such a file."""
    readers = re.compile(r"\bread_parquet\b|\bParquetFile\b")
    found = [room(path) for path in program() if readers.search(path.read_text(encoding="utf-8"))]
    assert found == ["serving.teachers"]


def dangers(path: Path, borders: set[str]) -> list[str]:
    """What no file of ours may do, by its line; `borders` are the rooms that may catch errors."""
    found, tries = dangers_in(path.read_text(encoding="utf-8"), path.stem in ("states", "checkpoint"))
    found = [*found, *([] if room(path) in borders else tries)]
    return [f"{path.name}, line {line}: {what}" for line, what in found]


@cache
def dangers_in(text: str, opens_tensors: bool) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Line and words of what no file may do, and of each `try` outside of a demo.

    opens_tensors   whether torch.load may be called, of tensors alone
    """
    tree = parsed(text)
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            flags = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            tensors_alone = flags.get("weights_only") == "True" and opens_tensors
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
    tries = [node for node in ast.walk(without_demo(tree)) if isinstance(node, ast.Try) and node.handlers]
    return found, [(node.lineno, "a try outside of the borders") for node in tries]


def borders() -> set[str]:
    """The rooms that Python.md lets catch errors."""
    told = re.search(r"- `try` only at the borders: (.*?)\. A damaged", (HERE / "Python.md").read_text(), re.DOTALL)
    assert told is not None
    return set(re.findall(r"`([\w.]+)`", told[1]))


def test_nothing_is_unpickled_evaluated_or_fetched_as_code(record_property: Callable[[str, object], None]) -> None:
    files = [*program(), *HERE.glob("bench/*.py")]
    allowed = borders() | {room(path) for path in HERE.glob("bench/*.py")}  # a bench may catch what it measures
    found = [danger for path in files for danger in dangers(path, allowed)]
    record_property("R21", f"{len(found)} dangerous calls or borders out of place in {len(files)} files")
    assert not found, found


def test_every_border_is_a_room_that_needs_to_be_one() -> None:
    catching = {room(path) for path in program() if dangers(path, set())}
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


def prints(path: Path) -> list[int]:
    """The lines outside of a demo that print by themselves."""
    tree = without_demo(parsed(path.read_text(encoding="utf-8")))
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "print"]
    return [name.lineno for name in names]


def test_commands_print_with_show_alone_which_lets_no_name_steer_the_terminal() -> None:
    """And `show` itself prints."""
    assert [room(path) for path in program() if prints(path)] == ["runtime.terminal"]
