"""Devices: the same seed gives the same numbers, and a device that is not there is refused."""

import numpy as np
import pytest
import torch

from config import RunSettings
from device import autocast, available_cores, device_memory_mb, half_precision, prepare_device


def test_the_same_seed_gives_the_same_numbers_in_both_libraries() -> None:
    drawn: list[tuple[float, float]] = []
    for seed in (1, 1, 2):
        prepare_device(RunSettings(seed=seed, device="cpu"))
        drawn.append((torch.rand(1).item(), float(np.random.rand())))  # noqa: NPY002 - the global generator is meant
    assert drawn[0] == drawn[1] != drawn[2]


def test_threads_are_as_asked_for_or_all() -> None:
    prepare_device(RunSettings(device="cpu", threads=1))
    assert torch.get_num_threads() == 1
    prepare_device(RunSettings(device="cpu"))
    assert torch.get_num_threads() == available_cores()


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(AssertionError, match=r"--run\.device cpu"):
        prepare_device(RunSettings(device="cuda"))
    assert prepare_device(RunSettings(device="auto")).type == "cpu"


def test_a_cpu_computes_in_float32() -> None:
    cpu = torch.device("cpu")
    with autocast(cpu):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert not half_precision(cpu) and device_memory_mb(cpu) == 0


def test_memory_on_a_device_is_counted_in_millions_of_bytes_as_that_of_a_process_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def held(_device: torch.device) -> int:
        return 3_000_000_000

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", held)
    assert device_memory_mb(torch.device("cuda")) == 3000
