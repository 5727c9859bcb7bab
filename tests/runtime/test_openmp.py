"""How threads wait: the commands say it before torch is loaded, OpenMP has heard it, and a user's own word counts."""

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines
from runtime.openmp import WAITING, wait_asleep

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest
from house import ORDER

from runtime.guard import bounded_options

HERE = Path(__file__).parents[2]
# the commands that load torch
LOADING = ("data_loader", "ssl_mae", "main", "quantize", "probe", "pseudo_label", "refit", "publish")


# torch's libraries have been loaded, and what OpenMP goes by has been said, before its second hundred of modules is
BRIEFLY = """
import sys
class Enough:
    def find_spec(self, name, path=None, target=None):
        if "torch._C" in sys.modules and name.startswith("torch."):
            raise ImportError("enough of torch")
sys.meta_path.insert(0, Enough())
for word in sys.argv[1:]:
    try:
        __import__(word)
    except ImportError as error:
        assert str(error) == "enough of torch", error
"""


def told_to_openmp(*imports: str, **more: str) -> dict[str, str]:
    """What OpenMP goes by in a fresh process that imports this and that, by its own account; {} where it is none of
    GCC's."""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", **more}
    done = subprocess.run(
        [sys.executable, "-c", BRIEFLY, *imports], cwd=HERE, env=environment, capture_output=True, text=True, check=True
    )
    return dict(re.findall(r"^\s*(?:\[host\] )?(\w+) = '(.*)'", done.stderr, re.MULTILINE))


@pytest.fixture(scope="module")
def untold() -> dict[str, str]:
    """How OpenMP waits by itself."""
    told = told_to_openmp("torch")
    if "GOMP_SPINCOUNT" not in told:
        pytest.skip("torch has another OpenMP than GCC's here")
    return told


def test_threads_of_a_command_wait_asleep(untold: dict[str, str]) -> None:
    told = told_to_openmp("runtime.openmp", "torch")
    assert told["GOMP_SPINCOUNT"] == WAITING["GOMP_SPINCOUNT"]
    assert int(untold["GOMP_SPINCOUNT"]) > 100 * int(told["GOMP_SPINCOUNT"])  # negative control


def test_it_is_too_late_once_torch_is_loaded(untold: dict[str, str]) -> None:
    assert told_to_openmp("torch", "runtime.openmp")["GOMP_SPINCOUNT"] == untold["GOMP_SPINCOUNT"]


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_what_a_user_has_set_stays(name: str) -> None:
    own = {"GOMP_SPINCOUNT": "12345", "OMP_WAIT_POLICY": "ACTIVE"}[name]
    environment = {name: own, "HOME": "/"}
    wait_asleep(environment)
    assert environment == {name: own, "HOME": "/"}


def test_an_environment_that_says_nothing_is_told_all() -> None:
    environment = {"HOME": "/"}
    wait_asleep(environment)
    assert environment == {"HOME": "/"} | WAITING


@pytest.mark.parametrize("room", LOADING)
def test_a_command_says_it_before_anything_else_is_loaded(room: str) -> None:
    tree = ast.parse((HERE / f"{room}.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    lines = [ast.unparse(node) for node in sorted(imports, key=lambda node: node.lineno)]
    assert lines[:2] == ["from __future__ import annotations", "import runtime.openmp"]


def test_every_command_that_loads_torch_is_among_them() -> None:
    others = ", ".join({*ORDER[0], *ORDER[1], "data_loader"} - set(LOADING))
    words = [sys.executable, "-c", f"import sys, {others}; print('torch' in sys.modules)"]
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n", f"one of {others} loads torch: let it import openmp first, and add it here"


def test_a_context_is_scored_by_one_thread_so_that_none_waits_for_another() -> None:
    options = bounded_options()
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1
    assert ort.SessionOptions().intra_op_num_threads != 1  # negative control: by itself it takes all cores
