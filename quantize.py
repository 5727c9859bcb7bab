"""Stage 3: one ONNX file that takes waveforms and gives probabilities, its matrix products in INT8, for a plain CPU.

    python quantize.py --classifier runs/finetune/classifier.safetensors

Reads    classifier.safetensors, and the held-out recordings that held_out_scores.csv beside it names
Writes   runs/quantize/: classifier.onnx (float32), classifier.int8.onnx, quantize.json, run.json

Quantised are the linear layers of the encoder, weights per channel; front end, stem, attention products, norms and head
stay in float32. Both files are run on the held-out windows after writing. A float32 file that differs from the trained
network, or an INT8 file that too often names another species, is an error.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import time
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

import scorer as scoring
from audio import open_recording
from calibration import to_json as thresholds_to_json
from checkpoint import ClassifierFacts, load_classifier
from config import SIZES, AudioSettings, QuantizeCommand
from device import available_cores
from model import BirdClefClassifier
from runs import launch, open_run, peak_memory_mb, publish, write_json
from taxonomy import to_json

SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes which module a node comes from
QUANTISED_SCOPE = "encoder.whisper.layers."
LINEAR_LAYERS = 6  # of each encoder layer: query, key, value, out, fc1, fc2
LARGEST_FILE = 1.9e9  # bytes: protobuf ends at 2 GiB
FLOAT_TOLERANCE = 1e-4
TIMED_WINDOWS = 20


class Deployed(nn.Module):
    """The classifier as it is served: waveforms (batch, samples) -> probabilities and embeddings of every window.

    forward   (batch, context samples) -> (batch * windows, species), (batch * windows, width)
    """

    def __init__(self, model: BirdClefClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        logits, embeddings = self.model.answers(waveforms)
        return logits.sigmoid(), embeddings


def quantize(config: QuantizeCommand) -> int:
    """The whole of stage 3; returns the exit code."""
    torch.manual_seed(0)
    torch.set_num_threads(config.run.threads or available_cores())
    model, facts = load_classifier(config.classifier)
    names, windows = held_out_windows(config.classifier, facts.audio, config.max_windows)
    verified = bool(names)
    if verified:
        print(f"comparing on {len(windows)} held-out windows of {len(set(names))} recordings")
    else:
        print("no held-out recordings can be read: comparing on noise, and marking the files as unverified")
        windows = np.random.default_rng(0).normal(0, 0.1, (32, model.log_mel.samples)).astype(np.float32)
    with open_run("quantize", config.run.root, config) as run:
        float_path, int8_path = run.folder / "classifier.onnx", run.folder / "classifier.int8.onnx"
        export(model, facts, float_path, verified)
        trained = network_scores(model, windows)
        floats, float_card = examine(float_path, windows, trained, config.run.threads)
        assert float_card["largest_difference"] <= FLOAT_TOLERANCE, (
            f"{float_path} differs from the trained network by {float_card['largest_difference']:.1e}: do not deploy it"
        )
        write_int8(float_path, int8_path, facts, verified)
        _, int8_card = examine(int8_path, windows, floats, config.run.threads)
        card = {
            "classifier": str(config.classifier),
            "verified": verified,
            "windows": len(windows),
            "threads": config.run.threads or available_cores(),
            "float32": float_card,
            "int8": int8_card,
            "peak_memory_mb": peak_memory_mb(),
        }
        write_json(run.folder / "quantize.json", card)
        print_cards({"float32": float_card, "int8": int8_card})
        if int8_card["top1_agreement"] < config.min_agreement:
            int8_path.rename(run.folder / "refused.int8.onnx")
            raise AssertionError(
                f"INT8 names another best species in {100 * (1 - int8_card['top1_agreement']):.1f} % of windows; kept "
                f"the float32 file {float_path} (--model takes it), or allow more with --min_agreement"
            )
    print(f"wrote {int8_path}; next: python predictor.py RECORDING --model {int8_path}")
    return 0


def export(model: BirdClefClassifier, facts: ClassifierFacts, path: Path, verified: bool) -> None:
    """The float32 file, front end included, for any number of windows at a time."""
    size = sum(4 * parameter.numel() for parameter in model.parameters())
    assert size < LARGEST_FILE, (
        f"a {facts.size} classifier is {size / 1e9:.1f} GB in float32, more than an ONNX file can hold in one piece; "
        "choose a smaller --preset (medium and below fit)"
    )
    print("exporting ...", flush=True)
    example = torch.zeros(2, model.log_mel.samples)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with quietly():
        program = torch.onnx.export(
            Deployed(model).eval(),
            (example,),
            dynamo=True,
            input_names=["waveforms"],
            output_names=["probabilities", "embeddings"],
            dynamic_shapes={"waveforms": {0: batch}},
            verbose=False,
        )
    assert program is not None, "torch.onnx.export gave no program"
    graph = program.model_proto
    for node in graph.graph.node:  # the exporter's notes hold stack traces; only the scopes are needed
        scopes = [entry for entry in node.metadata_props if entry.key == SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(scopes)
    set_facts(graph, facts, "float32", verified)
    with publish(path) as temporary:
        onnx.save(graph, temporary)


def write_int8(float_path: Path, path: Path, facts: ClassifierFacts, verified: bool) -> None:
    """The INT8 twin of a float32 file: weights per channel, activations scaled as they come."""
    graph = onnx.load(float_path)
    del graph.graph.value_info[:]  # shapes the exporter noted trip the quantiser's own inference of them
    wanted = encoder_products(graph)
    with publish(path) as temporary, quietly():
        quantize_dynamic(
            graph,
            temporary,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=wanted,
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        quantised = onnx.load(temporary)
        done = sum(node.op_type == "MatMulInteger" for node in quantised.graph.node)
        expected = LINEAR_LAYERS * SIZES[facts.size].layers
        assert done == expected, (
            f"{done} of {expected} matrix products were quantised: a silent failure, please report it"
        )
        set_facts(quantised, facts, "int8", verified)
        onnx.save(quantised, temporary)


def encoder_products(graph: onnx.ModelProto) -> list[str]:
    """Names of the matrix products with constant weights inside the encoder's layers.

    Never those of the front end: quantising the mel filters destroys what the network hears.
    """
    constants = {tensor.name for tensor in graph.graph.initializer}
    return [
        node.name
        for node in graph.graph.node
        if node.op_type == "MatMul"
        and node.input[1] in constants
        and any(QUANTISED_SCOPE in entry.value for entry in node.metadata_props if entry.key == SCOPES)
    ]


def set_facts(graph: onnx.ModelProto, facts: ClassifierFacts, precision: str, verified: bool) -> None:
    """Labels, lineage, audio geometry and provenance into the file's metadata."""
    content = {
        "format": scoring.FORMAT,
        "size": facts.size,
        "precision": precision,
        "verified": verified,
        "audio": asdict(facts.audio),
        "taxonomy": to_json(facts.taxonomy),
        "thresholds": thresholds_to_json(facts.thresholds),
        "rank_thresholds": dict(facts.rank_thresholds),
        "provenance": facts.provenance,
    }
    onnx.helper.set_model_props(graph, {scoring.METADATA: json.dumps(content)})


def examine(
    path: Path, windows: NDArray[np.float32], reference: NDArray[np.float32], threads: int
) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Run a written file on the windows: its scores, and how they, its size and its speed compare."""
    opened = scoring.open_scorer(path, threads)
    scores = scoring.score(opened, windows)
    started = time.perf_counter()
    scoring.score(opened, windows[:TIMED_WINDOWS])
    seconds = (time.perf_counter() - started) / (len(windows[:TIMED_WINDOWS]) * opened.windows)
    return scores, {
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "milliseconds_per_window": round(1000 * seconds, 2),
        "times_real_time": round(opened.audio.window_seconds / seconds, 1),
        "top1_agreement": float((scores.argmax(axis=1) == reference.argmax(axis=1)).mean()),
        "largest_difference": float(np.abs(scores - reference).max()),
        "median_difference": float(np.median(np.abs(scores - reference).max(axis=1))),
    }


@torch.inference_mode()
def network_scores(model: BirdClefClassifier, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the trained network itself says: (windows, species)."""
    batches = [torch.from_numpy(windows[start : start + 16]) for start in range(0, len(windows), 16)]
    scores: NDArray[np.float32] = torch.cat([model(batch).sigmoid() for batch in batches]).numpy()
    return scores


def held_out_windows(classifier: Path, audio: AudioSettings, most: int) -> tuple[list[str], NDArray[np.float32]]:
    """Windows of the recordings that held_out_scores.csv beside a classifier names, as far as they are still there."""
    path = classifier.with_name("held_out_scores.csv")
    if not path.is_file():
        return [], np.zeros((0, 0), np.float32)
    with path.open(encoding="utf-8", newline="") as file:
        recordings = list(dict.fromkeys(row["file"] for row in csv.DictReader(file)))
    names: list[str] = []
    windows: list[NDArray[np.float32]] = []
    for index in np.random.default_rng(0).permutation(len(recordings)):  # tables are often sorted by species
        name = Path(recordings[int(index)])
        if name.is_file() and len(windows) < most:
            opened = open_recording(name, audio.sample_rate)
            for heard, _ in opened.contexts(audio.context_seconds, audio.window_seconds):
                names.append(str(name))
                windows.append(heard.samples)
    return names[:most], np.stack(windows[:most]) if windows else np.zeros((0, 0), np.float32)


def print_cards(cards: Mapping[str, Mapping[str, float]]) -> None:
    """The comparison as a table."""
    print(f"{'':10}{'MB':>8}{'ms/window':>11}{'x real time':>13}{'same top-1':>12}{'largest change':>16}")
    for precision, row in cards.items():
        print(
            f"{precision:10}{row['megabytes']:8.2f}{row['milliseconds_per_window']:11.1f}{row['times_real_time']:13.0f}"
            f"{100 * row['top1_agreement']:11.1f}%{row['largest_difference']:16.5f}"
        )


@contextmanager
def quietly() -> Generator[None]:
    """Without the exporter's progress report and warnings about its own insides."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "root", "onnxscript", "onnx_ir")}
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


if __name__ == "__main__":
    launch(quantize, QuantizeCommand)
