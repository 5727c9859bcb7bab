"""How threads wait for each other: asleep, so that a busy machine slows a command down and does not bring it to a halt.

    import runtime.openmp  # before anything that loads torch

The threads that share a step meet some hundred times in it. Those of OpenMP wait for the last one by asking again and
again, by default for some milliseconds: beside other programs they take the core that the last one needs, and a
training that makes 108 windows a second alone makes 4 beside another one. OpenMP reads how to wait when it is loaded,
with torch, and never again; that is why this is a module, and why ruff sorts it before all others (pyproject.toml).
Processes that are started by a command wait as it does. ONNX Runtime needs nothing: a context is scored by one thread.

source    https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import MutableMapping

WAITING = {  # what a user may have set, and what is set where nothing of it is
    "OMP_WAIT_POLICY": "PASSIVE",  # of every OpenMP
    "GOMP_SPINCOUNT": "300",  # of GCC's, which torch brings on Linux: microseconds, about what falling asleep costs
    "KMP_BLOCKTIME": "0",  # of Intel's and LLVM's, milliseconds
}


def wait_asleep(environment: MutableMapping[str, str]) -> None:
    """Set how OpenMP waits; an environment in which anything is said about it stays as it is."""
    if not environment.keys() & WAITING.keys():
        environment.update(WAITING)


wait_asleep(os.environ)


if __name__ == "__main__":
    environment = os.environ | {"OMP_DISPLAY_ENV": "VERBOSE"}
    done = subprocess.run(
        [sys.executable, "-c", "import torch"], env=environment, capture_output=True, text=True, check=True
    )
    lines = [line.strip() for line in done.stderr.splitlines() if "WAIT_POLICY" in line or "SPINCOUNT" in line]
    print("OpenMP waits as set:", *lines, sep="\n  ")
    spins = [line for line in lines if "SPINCOUNT" in line]  # of GCC's alone
    assert not spins or spins == [f"GOMP_SPINCOUNT = '{environment['GOMP_SPINCOUNT']}'"]
