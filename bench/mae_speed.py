"""What it saves to encode visible tokens alone, in the context a window needs: ratios in one run, and memory.

    make bench-mae-speed          (or: .venv/bin/python -m bench.mae_speed [cpu | cuda] [preset])

Reads    nothing: random log-mel pictures, random weights, Whisper-base's dimensions unless another preset is named
Writes   a table: forward and backward of the encoder, seconds and ratios, medians over rounds taken in turns, and the
         peak memory of each in a process of its own; on CUDA also whole training steps of stage 1 for base, small and
         large-v3, with and without checkpointing and compilation: clips per second, share of the measured bfloat16
         matrix peak, memory

Full-length is the same encoder with the hidden tokens left in place; padded is 5 s of sound in Whisper's 30 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.optim import AdamW

from config import PRESETS, SIZES, EncoderSize, Preset
from loss import masked_reconstruction_loss
from model import Encoder, MaskedAutoencoder
from runtime.runs import peak_memory_mb
from training.device import autocast, device_memory_mb
from training.masking import hide_tokens

FRAMES, PADDED_FRAMES, BATCH, ROUNDS = 500, 3000, 4, 5
RATIOS = (0.65, 0.75)
STEPS, WARMUP = 10, 3
CUDA_BATCH: dict[Preset, int] = {"base": 512, "small": 256, "large-v3": 128}


def bench(device: torch.device, preset: Preset) -> None:
    """Both tables, the second where there is a CUDA device."""
    size = SIZES[preset]
    torch.manual_seed(0)
    encoder = Encoder(size).to(device)
    ways = encoder_ways(encoder, device)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            seconds = timed(way, device)
            if number:  # the first round warms up
                times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{preset}, batch {BATCH}, forward and backward of the encoder on {device}, medians of {ROUNDS} rounds")
    print(f"{'':34}{'seconds':>9}{'full-length / this':>20}{'peak memory MB':>16}")
    for name, seconds in medians.items():
        memory = memory_of(name, device, preset)
        print(f"{name:34}{seconds:9.3f}{medians['full-length'] / seconds:20.2f}{memory:16}")
    print(f"padded to 30 s / 5 s: {medians['padded to 30 s'] / medians['full-length']:.2f}")
    if device.type == "cuda":
        print_training_steps(device)


def encoder_ways(encoder: Encoder, device: torch.device) -> dict[str, Callable[[], None]]:
    """Forward and backward of the encoder alone, in each of the ways that are compared."""
    channels = encoder.channels
    short, long = (torch.randn(BATCH, channels, frames, device=device) for frames in (FRAMES, PADDED_FRAMES))

    def full(mel: Tensor, hidden: Tensor | None = None) -> None:
        encoder.zero_grad()
        with autocast(device):
            output = encoder(mel, hidden)
        torch.autograd.backward(output.float().square().mean())

    ways: dict[str, Callable[[], None]] = {"full-length": partial(full, short)}
    for ratio in RATIOS:
        hidden = hide_tokens(BATCH, FRAMES // 2, ratio, "span", torch.Generator().manual_seed(0)).to(device)
        ways[f"visible only, ratio {ratio:.2f}"] = partial(full, short, hidden)
    ways["padded to 30 s"] = partial(full, long)
    return ways


def timed(way: Callable[[], None], device: torch.device) -> float:
    started = time.perf_counter()
    way()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def memory_of(name: str, device: torch.device, preset: Preset) -> int:
    """Peak memory of one way, MB, beyond what the weights and the libraries take; in a fresh process."""
    words = [sys.executable, "-m", "bench.mae_speed", device.type, preset, name]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(done.stdout)


def print_memory(device: torch.device, preset: Preset, name: str) -> None:
    torch.manual_seed(0)
    ways = encoder_ways(Encoder(SIZES[preset]).to(device), device)
    before = device_memory_mb(device) or peak_memory_mb()
    ways[name]()
    print((device_memory_mb(device) or peak_memory_mb()) - before)


def print_training_steps(device: torch.device) -> None:
    """Whole steps of stage 1 on a GPU."""
    peak = matrix_peak(device)
    print(f"\nstage 1, whole steps; measured bfloat16 matrix peak {peak / 1e12:.0f} TFLOP/s")
    print(f"{'preset':10}{'batch':>6}{'checkpointing':>15}{'compiled':>10}{'clips/s':>9}{'of peak':>9}{'MB':>8}")
    for preset, batch in CUDA_BATCH.items():
        for checkpointing in (False, True):
            for compiled in (False, True):
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                rate = training_rate(preset, batch, checkpointing, compiled, device)
                share = rate * step_flops(SIZES[preset]) / peak
                memory = device_memory_mb(device)
                print(f"{preset:10}{batch:6}{checkpointing!s:>15}{compiled!s:>10}{rate:9.0f}{share:9.1%}{memory:8}")


def training_rate(preset: Preset, batch: int, checkpointing: bool, compiled: bool, device: torch.device) -> float:
    """Clips a second of forward, backward and update."""
    encoder = Encoder(SIZES[preset])
    encoder.checkpointing = checkpointing
    model = MaskedAutoencoder(encoder).to(device)
    network: Callable[[Tensor, Tensor], Tensor] = torch.compile(model) if compiled else model
    optimizer = AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-5, fused=True)
    mel = torch.randn(batch, encoder.channels, FRAMES, device=device)
    hidden = hide_tokens(batch, FRAMES // 2, RATIOS[0], "span", torch.Generator().manual_seed(0)).to(device)
    target = torch.randn(batch, FRAMES // 2, 2 * encoder.channels, device=device)
    started = 0.0
    for step in range(WARMUP + STEPS):
        if step == WARMUP:
            torch.cuda.synchronize()
            started = time.perf_counter()
        with autocast(device):
            painted = network(mel, hidden)
        torch.autograd.backward(masked_reconstruction_loss(painted, target, hidden))
        optimizer.step()  # the bench moves weights of its own, that nobody keeps
        optimizer.zero_grad()
    torch.cuda.synchronize()
    return batch * STEPS / (time.perf_counter() - started)


def step_flops(size: EncoderSize) -> float:
    """Floating-point operations of one clip, forward and backward (three times forward), recomputation not counted."""
    tokens, frames = FRAMES // 2, FRAMES
    visible = tokens - round(RATIOS[0] * tokens)
    stem = 2 * 3 * size.width * (frames * size.mels + tokens * size.width)
    layers = size.layers * (24 * visible * size.width**2 + 4 * visible**2 * size.width)
    behind = size.decoder_layers * (24 * tokens * size.decoder_width**2 + 4 * tokens**2 * size.decoder_width)
    ends = 2 * visible * size.width * size.decoder_width + 4 * tokens * size.decoder_width * size.mels
    return 3.0 * (stem + layers + behind + ends)


def matrix_peak(device: torch.device) -> float:
    """Operations a second of a large bfloat16 matrix product."""
    one, other = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(10):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(10):
            torch.matmul(one, other)
        torch.cuda.synchronize()
        best = max(best, 10 * 2 * 8192**3 / (time.perf_counter() - started))
    return best


if __name__ == "__main__":
    where = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda" if torch.cuda.is_available() else "cpu")
    asked = sys.argv[2] if len(sys.argv) > 2 else "base"
    for preset in PRESETS:
        if preset == asked and len(sys.argv) > 3:
            print_memory(where, preset, sys.argv[3])
        elif preset == asked:
            bench(where, preset)
