"""Device, precision and seeds: where the numbers are computed, and that the same seed gives them again."""

from __future__ import annotations

import os
import random
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from config import RunSettings
from processes import meet


def prepare_device(settings: RunSettings) -> torch.device:
    """Seed every generator, set the threads, and say which device will compute."""
    assert settings.device != "cuda" or torch.cuda.is_available(), (
        "--run.device cuda, but torch finds no CUDA device here; use --run.device cpu (or auto)"
    )
    random.seed(settings.seed)
    np.random.seed(settings.seed)  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(settings.seed)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that torchrun has started on this machine
    torch.set_num_threads(settings.threads or max(1, available_cores() // here))
    torch.backends.cudnn.allow_tf32 = False  # outside autocast, float32 means float32, in convolutions too
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    meet()
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"computing on {name} ({'bfloat16' if half_precision(device) else 'float32'})")
    return device


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where the device is fast at it, float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16) if half_precision(device) else nullcontext()


def half_precision(device: torch.device) -> bool:
    """Whether matrix products run in bfloat16; float16 overflows on Whisper's residual stream and is not offered."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def device_memory_mb(device: torch.device) -> int:
    """Largest memory torch has held on a CUDA device so far, MB of 10^6 bytes; 0 elsewhere."""
    return int(torch.cuda.max_memory_allocated(device) // 10**6) if device.type == "cuda" else 0


def available_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    draws: list[float] = []
    for _ in range(2):
        prepare_device(RunSettings(seed=7, device="cpu"))
        draws.append(float(torch.rand(1).item()))
    with autocast(torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    print("drawn twice with seed 7:", draws, "precision", product.dtype)
    assert draws[0] == draws[1] and product.dtype == torch.float32
