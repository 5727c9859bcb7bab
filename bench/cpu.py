"""What each way of serving an encoder costs on this CPU, from the naive one to our INT8 file: time, memory, disk.

    .venv/bin/python -m bench.cpu --size large-v3 [--threads 2] [--rounds 3]

Writes   runs/cpu/<size>/: classifier.onnx and classifier.int8.onnx with random weights (times hold, accuracy is not
         shown), then prints one table; ratios are to the naive way, medians over the rounds

Every way is measured in processes of its own, the ways taking turns. CTranslate2 and OpenVINO take part where they are
installed (pip install ctranslate2==4.8.5 nncf==3.4.0 -r requirements-openvino.txt); CTranslate2 gets the log-mel
picture for nothing. `fixed`: what activations are divided by is measured beforehand (on noise: times hold), not in
every window.
"""

from __future__ import annotations

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import onnxruntime as ort
import torch
import tyro

from config import SIZES, AudioSettings, HeadSettings, Preset
from model import BirdClefClassifier, Encoder, whisper_config
from runtime.runs import peak_memory_mb
from serving.costs import megabytes
from serving.export import front_end, write_float, write_int8
from serving.scorer import cpu_name
from serving.speed import report_speed, time_graph
from taxonomy import Taxonomy
from training.checkpoint import ClassifierFacts

Way = Literal[
    "naive",
    "torch float32",
    "ONNX float32",
    "ONNX INT8",
    "ONNX INT8, fixed",
    "CTranslate2 INT8",
    "OpenVINO float32",
    "OpenVINO INT8",
]
WAYS: tuple[Way, ...] = get_args(Way)
LIBRARIES: dict[Way, str] = {
    "CTranslate2 INT8": "ctranslate2",
    "OpenVINO float32": "openvino",
    "OpenVINO INT8": "nncf",
}
SPECIES, AUDIO = 206, AudioSettings()
RUNS = Path("runs/cpu")


@dataclass(frozen=True)
class Arguments:
    """What each way of serving an encoder costs on this CPU."""

    size: Preset = "base"
    """Of the encoder."""
    threads: int = 2
    """CPU threads."""
    rounds: int = 3
    """How often each way is measured; the median counts."""
    way: Way | None = None
    """Measure one way in this process and print its figures as JSON; the bench calls itself so."""
    write: bool = False
    """Write the files in this process and print its memory; the bench calls itself so."""


def bench(given: Arguments) -> None:
    """Everything, and the table."""
    folder = RUNS / given.size
    print(f"{given.size}, {given.threads} threads, {cpu_name()}")
    if not (folder / "written.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "written.json").write_text(called("--size", given.size, "--write"), encoding="utf-8")
    print(f"writing both files: {json.loads((folder / 'written.json').read_text(encoding='utf-8'))}")
    ways: list[Way] = [way for way in WAYS if way not in LIBRARIES or find_spec(LIBRARIES[way])]
    missing: list[Way] = [way for way in WAYS if way not in ways]
    for way in missing:
        print(f"{way} is left out: {LIBRARIES[way]} is not installed")
    found: dict[Way, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(given.rounds):
        for way in ways:
            told = called("--size", given.size, "--threads", str(given.threads), "--way", way)
            found[way].append(json.loads(told))
            print(f"   {way}: {told}", flush=True)
    sizes = {"ONNX float32": folder / "classifier.onnx", "ONNX INT8": folder / "classifier.int8.onnx"}
    print(f"{'':18}{'MB':>9}{'ms/window':>11}{'x real time':>13}{'naive / this':>14}{'memory MB':>11}{'start s':>9}")
    for way in ways:
        time_, memory, start = (
            statistics.median(one[name] for one in found[way])
            for name in ("milliseconds_per_window", "peak_memory_mb", "start_seconds")
        )
        ratio = statistics.median(
            a["milliseconds_per_window"] / b["milliseconds_per_window"]
            for a, b in zip(found["naive"], found[way], strict=True)
        )
        size = f"{megabytes(sizes[way]):.1f}" if way in sizes else ""
        print(f"{way:18}{size:>9}{time_:11.1f}{5000 / time_:13.1f}{ratio:14.1f}{memory:11.0f}{start:9.1f}")
    hearing = time_graph(front_end(folder / "classifier.onnx"), 80_000)
    print(f"of which the front end takes {hearing:.2f} ms on one thread")
    pairs, speed = products_of(given.size), fastest_int8()
    print(
        f"one thread multiplies at most {speed / 1e9:.0f} billion pairs in INT8 a second, a window asks for "
        f"{pairs / 1e9:.1f} billion: no less than {1000 * pairs / speed / given.threads:.1f} ms a window here"
    )


def products_of(size: Preset) -> float:
    """Pairs of numbers that the encoder's layers multiply for one window: projections, then attention."""
    tokens, width, layers = AUDIO.window_seconds * 50, SIZES[size].width, SIZES[size].layers
    return layers * (12 * width * width * tokens + 2 * tokens * tokens * width)


def fastest_int8() -> float:
    """Pairs a second of one large product on one thread, as ONNX Runtime multiplies UINT8 with INT8; best of 20."""
    rows, inner, columns = 512, 1280, 5120
    rng = np.random.default_rng(0)
    weights = rng.integers(-63, 64, (inner, columns)).astype(np.int8)
    node = onnx.helper.make_node("MatMulInteger", ["sound", "weights"], ["products"])
    sound = onnx.helper.make_tensor_value_info("sound", onnx.TensorProto.UINT8, [rows, inner])
    made = onnx.helper.make_tensor_value_info("products", onnx.TensorProto.INT32, [rows, columns])
    graph = onnx.helper.make_graph(
        [node], "product", [sound], [made], [onnx.numpy_helper.from_array(weights, "weights")]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    given: Any = {"sound": rng.integers(0, 256, (rows, inner)).astype(np.uint8)}
    times: list[float] = []
    for _ in range(20):
        begun = time.perf_counter()
        session.run(None, given)
        times.append(time.perf_counter() - begun)
    return rows * inner * columns / min(times)


def called(*words: str) -> str:
    """The last line that this bench prints in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "bench.cpu", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr.strip().splitlines()[-3:]}"
    return done.stdout.strip().splitlines()[-1]


def write(size: Preset) -> None:
    """Both files, and the largest memory on the way to each."""
    lineage = ("Animalia", "Chordata", "Aves", "Passeriformes", "Fictidae", "Avis")
    names = tuple(f"Avis ficta{number}" for number in range(SPECIES))
    taxonomy = Taxonomy(names, names, names, tuple((*lineage, name) for name in names), (7,) * SPECIES)
    facts = ClassifierFacts(size, AUDIO, HeadSettings(), taxonomy, {})
    model, folder = classifier(size), RUNS / size
    write_float(model, facts, folder / "classifier.onnx", verified=False)
    exported = peak_memory_mb()
    del model
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    write_int8(folder / "classifier.onnx", folder / "classifier.int8.onnx", facts, verified=False)
    print(json.dumps({"export_peak_mb": exported, "quantise_peak_mb": peak_memory_mb()}))


def classifier(size: Preset) -> BirdClefClassifier:
    torch.manual_seed(0)
    return BirdClefClassifier(Encoder(SIZES[size], AUDIO), AUDIO, SPECIES, HeadSettings()).eval()


def measure_way(way: Way, size: Preset, threads: int) -> None:
    """Print the figures of one way; its weights are random, so those of the libraries are made here."""
    started = time.time()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if way in ("ONNX float32", "ONNX INT8"):
        name = "classifier.onnx" if way == "ONNX float32" else "classifier.int8.onnx"
        place = str(RUNS / size / name)
        subprocess.run(  # without torch, which this process has loaded
            [sys.executable, "-c", f"from serving import speed; speed.report_file({place!r}, {threads}, {started})"],
            check=True,
        )
        return
    with torch.inference_mode():
        report_speed(answerer(way, size, threads), 1, AUDIO.window_seconds, started)


def answerer(way: Way, size: Preset, threads: int) -> Any:
    """A function that answers for one window of noise."""
    noise = 0.1 * torch.randn(1, 80_000)
    if way == "torch float32":
        model = classifier(size)
        return lambda: model(noise)
    picture = torch.randn(1, SIZES[size].mels, 3000 if way == "naive" else 500)
    if way == "naive":  # transformers pads every window to 30 s
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        whisper = WhisperEncoder(whisper_config(SIZES[size])).eval()
        return lambda: whisper(picture)
    if way == "CTranslate2 INT8":
        return ctranslate2_encoder(size, threads, picture.numpy())
    if way == "ONNX INT8, fixed":
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        session = ort.InferenceSession(fixed_scales(RUNS / size / "classifier.int8.onnx", noise.numpy()), options)
        return lambda: session.run(None, {"waveforms": noise.numpy()})
    core: Any = import_module("openvino").Core()
    graph = core.read_model(str(RUNS / size / "classifier.onnx"))
    if way == "OpenVINO INT8":
        nncf: Any = import_module("nncf")
        heard = nncf.Dataset([noise.numpy()])
        graph = nncf.quantize(graph, heard, model_type=nncf.ModelType.TRANSFORMER, subset_size=1)
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_NUM_THREADS": threads})
    return lambda: compiled(noise.numpy())


def fixed_scales(path: Path, waveforms: np.ndarray[Any, Any]) -> bytes:
    """An INT8 file of one piece whose activations are divided by what these waveforms asked for."""
    graph = onnx.load(path)
    nodes = [node for node in graph.graph.node if node.op_type == "DynamicQuantizeLinear"]
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    names = [name for node in nodes for name in node.output[1:3]]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    given: Any = ort.InferenceSession(probe.SerializeToString()).run(names, {"waveforms": waveforms})
    for name, value in zip(names, given, strict=True):
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    for node in nodes:
        fixed = onnx.helper.make_node("QuantizeLinear", [node.input[0], *node.output[1:3]], [node.output[0]])
        node.CopyFrom(fixed)
    return bytes(graph.SerializeToString())


def ctranslate2_encoder(size: Preset, threads: int, picture: np.ndarray[Any, Any]) -> Any:
    """CTranslate2's Whisper encoder in INT8, with random weights; its decoder is never asked."""
    from transformers import WhisperConfig

    ctranslate2: Any = import_module("ctranslate2")
    folder = RUNS / size / "ctranslate2"
    if not (folder / "model.bin").is_file():
        config: Any = whisper_config(SIZES[size])
        settings: dict[str, Any] = config.to_dict() | {"decoder_layers": 1, "vocab_size": 64, "pad_token_id": 0}
        settings |= {"decoder_ffn_dim": 64, "decoder_attention_heads": SIZES[size].heads, "bos_token_id": 1}
        settings |= {"eos_token_id": 2, "decoder_start_token_id": 1}
        whole: Any = getattr(import_module("transformers"), "WhisperForConditionalGeneration")  # noqa: B009 - not in our stub
        loader: Any = import_module("ctranslate2.converters.transformers").WhisperLoader()
        spec = loader.get_model_spec(whole(WhisperConfig(**settings)).eval())
        spec.register_vocabulary([f"<{number}>" for number in range(64)])
        spec.validate()
        spec.optimize(quantization="int8")
        folder.mkdir(exist_ok=True)
        spec.save(str(folder))
    served: Any = ctranslate2.models.Whisper(str(folder), compute_type="int8", intra_threads=threads)
    heard = ctranslate2.StorageView.from_array(np.ascontiguousarray(picture))
    return lambda: np.array(served.encode(heard, to_cpu=True))


if __name__ == "__main__":
    arguments = tyro.cli(Arguments)
    if arguments.write:
        write(arguments.size)
    elif arguments.way:
        measure_way(arguments.way, arguments.size, arguments.threads)
    else:
        bench(arguments)
