"""How quick and how hungry a served file is: milliseconds per window, times real time, memory, in a fresh process.

    speed = measure(Path("classifier.int8.onnx"), threads=1)

Also the arithmetic of a budget: whether so many hours of sound can be scored in so many minutes of this CPU.
"""

from __future__ import annotations

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from config import PRESETS, SIZES, EncoderSize, Engine, Preset, encoder_size
from runtime.runs import peak_memory_mb
from serving.guard import bounded_options
from serving.scorer import context_samples, cpu_name, open_scorer, score

SECONDS, FEWEST, MOST = 2.0, 5, 200  # how long and how often a context is scored
HERE = Path(__file__).parents[1]
REST = "front end's steps and the rest"
PARTS = {  # of the work of a served file, by ONNX Runtime's operator
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger"), "INT8 products"),
    "DynamicQuantizeLinear": "INT8 products",
    **dict.fromkeys(("MatMul", "FusedMatMul", "Gemm"), "float32 products"),
    **dict.fromkeys(("MultiHeadAttention", "Softmax"), "attention"),
    **dict.fromkeys(("Conv", "FusedConv"), "convolutions"),
    **dict.fromkeys(("Gelu", "BiasGelu", "QuickGelu"), "Gelu"),
    **dict.fromkeys(("LayerNormalization", "SkipLayerNormalization"), "norms"),
}


@dataclass(frozen=True)
class Speed:
    """What scoring costs on this machine."""

    milliseconds_per_window: float
    times_real_time: float
    peak_memory_mb: int  # resident, of the whole process
    start_seconds: float  # until the first answer, imports included


def measure(path: Path, threads: int, engine: Engine = "onnxruntime") -> Speed:
    """Score noise with a served file in a process of its own."""
    place = str(path.resolve())
    return in_fresh_process(
        f"from serving import speed; speed.report_file({place!r}, {threads}, {time.time()}, {engine!r})"
    )


def in_fresh_process(program: str) -> Speed:
    """Run a program of a line that ends in `report`; its figures."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=HERE)
    assert done.returncode == 0, f"could not be measured: {done.stderr.strip().splitlines()[-1:]}"
    return Speed(**json.loads(done.stdout.splitlines()[-1]))


def report_file(path: str, threads: int, started: float, engine: Engine = "onnxruntime") -> None:
    """In the fresh process: open a file, score with it, print what it took since the clock said `started`."""
    opened = open_scorer(Path(path), threads, engine)
    noise = np.random.default_rng(0).normal(0, 0.1, (threads, context_samples(opened.audio))).astype(np.float32)
    report(lambda: score(opened, noise), threads * opened.windows, opened.audio.window_seconds, started)


def time_graph(graph: bytes, samples: int) -> float:
    """Milliseconds that an ONNX graph takes for one context of so many samples, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0).normal(0, 0.1, (1, samples)).astype(np.float32)
    times: list[float] = []
    for _ in range(FEWEST * 4):
        begun = time.perf_counter()
        session.run(None, {"waveforms": noise})
        times.append(time.perf_counter() - begun)
    return round(1000 * statistics.median(times), 3)


def time_by_part(path: Path, samples: int) -> dict[str, float]:
    """Milliseconds of each kind of work in a context of so many samples, on one thread, as ONNX Runtime counts them;
    in a float32 file attention's two products are among the float32 ones."""
    with tempfile.TemporaryDirectory() as folder:
        options = bounded_options()
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        noise = np.random.default_rng(0).normal(0, 0.1, (1, samples)).astype(np.float32)
        for _ in range(FEWEST):
            session.run(None, {"waveforms": noise})
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    fastest: dict[tuple[str, str], float] = {}  # of each node: whatever else the machine was busy with
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith("_kernel_time"):
            node = PARTS.get(event["args"]["op_name"], REST), str(event["name"])
            fastest[node] = min(fastest.get(node, math.inf), event["dur"] / 1000)
    parts = dict.fromkeys([*PARTS.values(), REST], 0.0)
    for (part, _), milliseconds in fastest.items():
        parts[part] += milliseconds
    return {part: round(milliseconds, 3) for part, milliseconds in parts.items()}


def report(answer: Callable[[], object], windows: int, window_seconds: float, started: float) -> None:
    """Print the figures of something that answers for so many windows at a time."""
    answer()
    first = time.time() - started
    times: list[float] = []
    while len(times) < FEWEST or (sum(times) < SECONDS and len(times) < MOST):
        begun = time.perf_counter()
        answer()
        times.append(time.perf_counter() - begun)
    seconds = statistics.median(times) / windows
    figures = {
        "milliseconds_per_window": round(1000 * seconds, 3),
        "times_real_time": round(window_seconds / seconds, 1),
        "peak_memory_mb": peak_memory_mb(),
        "start_seconds": round(first, 2),
    }
    print(json.dumps(figures))


def fits(speed: Speed, minutes: float, audio_hours: float, memory_gb: float) -> tuple[bool, str]:
    """Whether so much sound can be scored in the time and memory, and the figures in words."""
    needed = audio_hours * 60 / speed.times_real_time
    gigabytes = speed.peak_memory_mb / 1000
    yes = needed <= minutes and gigabytes <= memory_gb
    return yes, (
        f"{audio_hours:g} h of sound take {needed:.1f} of {minutes:g} minutes and {gigabytes:.2f} of {memory_gb:g} GB: "
        + ("fits" if yes else "does not fit")
    )


def largest_that_fits(
    speed: Speed,
    size: Preset,
    minutes: float,
    audio_hours: float,
    memory_gb: float,
    context_seconds: float = 5.0,
    depth: int = 0,
    bytes_each: float = 1.3,
) -> tuple[Preset | None, dict[Preset, float]]:
    """The largest encoder that would fit the budget, estimated from the speed of one (`expected`).

    depth     how many layers the one has, 0: all; the others have all theirs
    returns   its name, and the times real time that are expected of every size
    """
    measured = encoder_size(size, depth)
    others = {preset: expected(speed, measured, SIZES[preset], context_seconds, bytes_each) for preset in PRESETS}
    fitting: list[Preset] = [preset for preset in PRESETS if fits(others[preset], minutes, audio_hours, memory_gb)[0]]
    rates: dict[Preset, float] = {preset: others[preset].times_real_time for preset in PRESETS}
    return (fitting[-1] if fitting else None), rates


def deepest_that_fits(
    speed: Speed,
    size: Preset,
    minutes: float,
    audio_hours: float,
    memory_gb: float,
    context_seconds: float = 5.0,
    depth: int = 0,
    bytes_each: float = 1.3,
) -> int:
    """How many of the lowest layers of the same encoder would fit the budget, 0 where none do; estimated in the same
    way."""
    measured = encoder_size(size, depth)
    for layers in range(measured.layers, 0, -1):
        other = expected(speed, measured, replace(measured, layers=layers), context_seconds, bytes_each)
        if fits(other, minutes, audio_hours, memory_gb)[0]:
            return layers
    return 0


def expected(
    speed: Speed, measured: EncoderSize, other: EncoderSize, context_seconds: float, bytes_each: float
) -> Speed:
    """What another encoder would take: time by multiplications, memory by the weights that it has more or less."""
    tokens = round(50 * context_seconds)
    slower = multiplications(other, tokens) / multiplications(measured, tokens)
    more = bytes_each * (weights(other) - weights(measured)) / 1e6
    return Speed(
        speed.milliseconds_per_window * slower,
        speed.times_real_time / slower,
        speed.peak_memory_mb + math.floor(more),
        speed.start_seconds,
    )


def multiplications(size: EncoderSize, tokens: int) -> float:
    """Of a context of so many tokens: front end, stem and layers."""
    front_end = 2 * tokens * (2 * 200 * 201 + 201 * size.mels)
    stem = 2 * tokens * 3 * size.mels * size.width + tokens * 3 * size.width**2
    return float(front_end + stem + size.layers * (12 * tokens * size.width**2 + 2 * tokens**2 * size.width))


def weights(size: EncoderSize) -> float:
    """Parameters of an encoder."""
    return float(size.layers * 12 * size.width**2 + 3 * size.width * (size.mels + size.width) + 1500 * size.width)


if __name__ == "__main__":
    fast = Speed(12.0, 417.0, 400, 0.9)
    print(cpu_name())
    print(fits(fast, minutes=90, audio_hours=11.7, memory_gb=2.0)[1])
    best, rates = largest_that_fits(fast, "base", minutes=90, audio_hours=11.7, memory_gb=2.0)
    print(f"largest that fits: {best};", ", ".join(f"{name} {rate:.0f} x" for name, rate in rates.items()))
    assert best is not None and rates["small"] < rates["base"] < rates["tiny"]
