"""How quick and how hungry a served file is: milliseconds per window, times real time, memory, in a fresh process.

    speed = measure(Path("classifier.int8.onnx"), threads=1)

serving/budget.py says whether that is enough.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from config import Engine
from runtime.runs import peak_memory_mb
from runtime.terminal import show
from serving.scorer import context_samples, cpu_name, open_scorer, options_for, score

SECONDS, FEWEST, MOST = 2.0, 5, 200  # how long and how often a context is scored
HERE = Path(__file__).parents[1]
REST = "front end's steps and the rest"
PARTS = {  # of the work of a served file, by ONNX Runtime's operator
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger"), "INT8 products"),
    "DynamicQuantizeLinear": "INT8 products",
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QGemm", "QuantizeLinear", "DequantizeLinear"), "INT8 products"),
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
    name = str(path.resolve())
    return in_fresh_process(
        f"from serving import speed; speed.report_file({name!r}, {threads}, {time.time()}, {engine!r})"
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
    report_speed(lambda: score(opened, noise), threads * opened.windows, opened.audio.window_seconds, started)


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
        options = options_for(path)
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


def report_speed(answer: Callable[[], object], windows: int, window_seconds: float, started: float) -> None:
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
    show(json.dumps(figures))


if __name__ == "__main__":
    print(cpu_name())
    code = "import time; from serving import speed; speed.report_speed(lambda: time.sleep(0.02), 2, 5.0, time.time())"
    asleep = in_fresh_process(code)
    print(f"{asleep.milliseconds_per_window} ms a window, {asleep.times_real_time} x real time")
    assert 10 <= asleep.milliseconds_per_window < 100, "two windows in each 20 ms"
