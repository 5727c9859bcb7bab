"""Device, precision and seeds: where the numbers are computed, and that the same seed gives them again."""

from __future__ import annotations

import os
import random
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from config import RunSettings
from runtime.processes import meet
from runtime.terminal import show

_half: dict[str, bool] = {}  # kind of device -> whether in bfloat16, as prepare_device decided for this process


def prepare_device(settings: RunSettings) -> torch.device:
    """Seed every generator, set threads and precision, and say which device will compute.

    The precision is remembered for `autocast`: all of a process computes in the same one.
    """
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
    native = torch.cuda.is_bf16_supported() if cuda else multiplies_bfloat16()
    _half[device.type] = native if settings.precision == "auto" else settings.precision == "bfloat16"
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    slowly = "" if native or not half_precision(device) else ", slowly: it has no products of that kind"
    show(f"computing on {name} ({'bfloat16' if half_precision(device) else 'float32'}{slowly})")
    return device


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where `prepare_device` has decided so, float32 elsewhere. Norms and sums stay in float32."""
    return torch.autocast(device.type, torch.bfloat16) if half_precision(device) else nullcontext()


def half_precision(device: torch.device) -> bool:
    """Whether matrix products run in bfloat16; float16 overflows on Whisper's residual stream and is not offered.
    Before `prepare_device` was asked: on a GPU that can, and on no CPU."""
    return _half.get(device.type, device.type == "cuda" and torch.cuda.is_bf16_supported())


def multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself (AMX or AVX512-BF16); on any other it is slower than float32."""
    asked = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(callable(ask) and bool(ask()) for ask in asked)  # torch may rename what is not public


def device_memory_mb(device: torch.device) -> int:
    """Largest memory torch has held on a CUDA device so far, MB of 10^6 bytes; 0 elsewhere."""
    return int(torch.cuda.max_memory_allocated(device) // 10**6) if device.type == "cuda" else 0


def available_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    draws: list[float] = []
    for _ in range(2):
        prepare_device(RunSettings(seed=7, device="cpu", precision="bfloat16"))
        draws.append(float(torch.rand(1).item()))
    with autocast(torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    print("drawn twice with seed 7:", draws, "precision", product.dtype, "by itself:", multiplies_bfloat16())
    assert draws[0] == draws[1] and product.dtype == torch.bfloat16
