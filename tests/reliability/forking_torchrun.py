"""torchrun, but that it forks its processes: the libraries, whose import takes seconds, are there already.

python tests/reliability/forking_torchrun.py 2 SCRIPT WORDS...     # as torchrun --standalone --nproc-per-node 2 ...
"""

import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from torch.distributed import run
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def be(_unbuffered: str, script: str, *words: str) -> None:
    """In each process: what torchrun gives Python to do. None of our modules is imported before its rank is known."""
    sys.argv, sys.path[0] = [script, *words], str(Path(script).resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as left:
        assert not left.code, f"{script} leaves with {left.code}"


def launched(config: LaunchConfig, entrypoint: str) -> Callable[..., object]:
    """What torchrun does with its settings, and with Python."""
    assert entrypoint == sys.executable, entrypoint
    return elastic_launch(replace(config, start_method="fork"), be)


if __name__ == "__main__":
    with patch.object(run, "elastic_launch", launched):
        run.main(["--standalone", "--nproc-per-node", *sys.argv[1:]])
