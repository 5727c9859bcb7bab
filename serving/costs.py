"""What the trained network and its two files cost on this machine, side by side: time, memory, disk.

    measured = measure_files(classifier, float_path, int8_path)
    measured.speeds["ONNX INT8", 1].milliseconds_per_window

Each is measured in a process of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.digests import beside
from runtime.terminal import show
from serving import scorer as scoring
from serving.export import front_end
from serving.speed import Speed, in_fresh_process, measure, report_speed, time_by_part, time_graph
from training.checkpoint import load_classifier
from training.device import available_cores


@dataclass(frozen=True)
class Measured:
    """What the files cost on this machine."""

    speeds: Mapping[tuple[str, int], Speed]  # by file and number of threads
    megabytes: Mapping[str, float]  # by file
    front_end: float  # milliseconds of a window
    parts: Mapping[str, Mapping[str, float]]  # by file, milliseconds of a context by kind of work

    @property
    def threads(self) -> int:
        """As many as predictor.py would take here, two at most."""
        return max(threads for _, threads in self.speeds)


def measure_files(classifier: Path | None, float_path: Path, int8_path: Path, samples: int, windows: int) -> Measured:
    """What the trained network and both files cost, printed as a table.

    classifier         the trained network; None: of several there is none
    samples, windows   of a context: its length, and how many windows it holds
    """
    speeds = measure_all(classifier, float_path, int8_path)
    files = {"torch float32": classifier} if classifier else {}
    files |= {"ONNX float32": float_path, "ONNX INT8": int8_path}
    files |= {"OpenVINO": float_path} if scoring.openvino_may_be_quicker() else {}
    sizes = {name: megabytes(path) for name, path in files.items()}
    show(scoring.cpu_name())
    print_speeds(speeds, sizes)
    front = time_graph(front_end(float_path), samples) / windows
    share = front / speeds["ONNX INT8", 1].milliseconds_per_window
    show(f"of which the front end takes {front:.2f} ms, {100 * share:.0f} % of an INT8 window on one thread")
    parts = {name: time_by_part(path, samples) for name, path in (("float32", float_path), ("INT8", int8_path))}
    return Measured(speeds, sizes, front, parts)


def measure_all(classifier: Path | None, float_path: Path, int8_path: Path) -> dict[tuple[str, int], Speed]:
    """The trained network and both files, with one thread and two."""
    found: dict[tuple[str, int], Speed] = {}
    for threads in sorted({1, min(2, available_cores())}):
        if classifier:
            path = str(classifier.resolve())
            program = f"from serving import costs; costs.report_network({path!r}, {threads}, started)"
            found["torch float32", threads] = in_fresh_process(f"import time; started = time.time(); {program}")
        found["ONNX float32", threads] = measure(float_path, threads)
        found["ONNX INT8", threads] = measure(int8_path, threads)
        if scoring.openvino_may_be_quicker():
            found["OpenVINO", threads] = measure(float_path, threads, "openvino")
    return found


def report_network(classifier: str, threads: int, started: float) -> None:
    """In a fresh process: what the trained network takes."""
    torch.set_num_threads(threads)
    model, facts = load_classifier(Path(classifier))
    noise = 0.1 * torch.randn(1, model.log_mel.samples)

    def answer() -> object:
        with torch.inference_mode():
            return model(noise)

    report_speed(answer, model.windows, facts.audio.window_seconds, started)


def print_speeds(speeds: Mapping[tuple[str, int], Speed], sizes: Mapping[str, float]) -> None:
    """What each costs, as a table."""
    show(f"{'':16}{'threads':>8}{'MB':>9}{'ms/window':>11}{'x real time':>13}{'memory MB':>11}{'start s':>9}")
    for (name, threads), speed in speeds.items():
        size = f"{sizes[name]:.2f}" if name in sizes else ""
        show(
            f"{name:16}{threads:8}{size:>9}{speed.milliseconds_per_window:11.2f}{speed.times_real_time:13.0f}"
            f"{speed.peak_memory_mb:11}{speed.start_seconds:9.2f}"
        )


def megabytes(path: Path) -> float:
    """Of a file, and of what lies beside it for want of room."""
    weights = beside(path)
    return round((path.stat().st_size + (weights.stat().st_size if weights else 0)) / 1e6, 2)


if __name__ == "__main__":
    speeds = {("torch float32", 1): Speed(60.0, 83.3, 700, 6.0), ("ONNX INT8", 1): Speed(12.0, 416.7, 150, 0.4)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classifier.int8.onnx"
        path.write_bytes(bytes(1_230_000))
        print_speeds(speeds, {"ONNX INT8": megabytes(path)})
        assert megabytes(path) == 1.23 and Measured(speeds, {}, 0.0, {}).threads == 1
