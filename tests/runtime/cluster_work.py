"""What the workers of test_cluster.py do: functions that they can import."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path


def doubled(task: Sequence[int]) -> list[int]:
    return [2 * number for number in task]


def slowly(task: Sequence[int]) -> list[int]:
    time.sleep(0.05)
    return doubled(task)


def killed_at_first(marker: Path, task: Sequence[int]) -> list[int]:
    """7 kills the first worker that has it."""
    if 7 in task and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return slowly(task)


def always_killed(task: Sequence[int]) -> list[int]:
    """7 kills every worker that has it."""
    if 7 in task:
        os.kill(os.getpid(), signal.SIGKILL)
    return doubled(task)


def stuck_at_first(marker: Path, task: Sequence[int]) -> list[int]:
    """7 keeps the first worker that has it for ever."""
    if 7 in task and not marker.exists():
        marker.touch()
        time.sleep(1_000)
    return doubled(task)


def without_room(_task: Sequence[int]) -> list[int]:
    raise OSError(28, "No space left on device", "/scratch/of/the/worker")


def refused(task: Sequence[int]) -> list[int]:
    raise AssertionError(f"it has no model for {task[0]}")
