"""Waveforms -> probabilities with ONNX Runtime alone, and what the deployed file says of itself. No torch.

scorer = open_scorer(Path("runs/quantize/classifier.int8.onnx"))
probabilities = score(scorer, waveforms)            # (windows, samples) -> (windows, species)
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from calibration import Threshold
from calibration import from_json as thresholds_from_json
from config import AudioSettings
from taxonomy import Taxonomy, from_json

FORMAT = 2
METADATA = "wild_whisper"  # key of our facts in the ONNX file's metadata


@dataclass(frozen=True)
class Scorer:
    """An open model, and the facts that travelled in its file."""

    session: ort.InferenceSession
    path: Path
    audio: AudioSettings
    taxonomy: Taxonomy
    precision: str  # int8 or float32
    verified: bool  # whether it was compared with the trained network on held-out recordings
    sha256: str
    thresholds: tuple[Threshold, ...]  # one per species, or none
    rank_thresholds: Mapping[str, float]  # by the name of the rank

    @property
    def windows(self) -> int:
        """How many windows a context holds, and so how many answers it gets."""
        return round(self.audio.context_seconds / self.audio.window_seconds)


def open_scorer(path: Path, threads: int = 0) -> Scorer:
    """Open a file that quantize.py wrote.

    threads  CPU threads, 0: all cores
    Errors: a missing file, one of another origin and one whose answers are no probabilities are refused.
    """
    assert path.is_file(), f"no model at {path}; `python quantize.py` writes one, or point --model at yours"
    beside = path.with_name(f"{path.name}.data")  # where a file of more than 2 GB keeps its weights
    content = path.read_bytes()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.log_severity_level = 3
    # INT8 products saturate on x64 CPUs without VNNI unless this is on; elsewhere it changes nothing.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        source = str(path) if beside.is_file() else content
        session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors share no narrower type
        raise AssertionError(f"{path} is damaged or no ONNX file ({str(error).splitlines()[0]})") from error
    facts = read_facts(session, path)
    audio, taxonomy = AudioSettings(**facts["audio"]), from_json(facts["taxonomy"])
    sha256 = digest([path, beside] if beside.is_file() else [path])
    limits, ranks = tuple(thresholds_from_json(facts.get("thresholds", []))), facts.get("rank_thresholds", {})
    scorer = Scorer(session, path, audio, taxonomy, facts["precision"], facts["verified"], sha256, limits, ranks)
    silence = np.zeros((1, round(audio.context_seconds * audio.sample_rate)), np.float32)
    answer = score(scorer, silence)
    assert answer.shape == (scorer.windows, len(taxonomy.labels)) and answer.min() >= 0 and answer.max() <= 1, (
        f"{path} answers {answer.shape} between {answer.min():.2f} and {answer.max():.2f}, "
        f"not {len(taxonomy.labels)} probabilities"
    )
    return scorer


def score(scorer: Scorer, waveforms: NDArray[np.float32]) -> NDArray[np.float32]:
    """(contexts, samples) -> (contexts * windows, species) probabilities, the windows of the first context first.

    One context at a time: INT8 scales its activations over a whole batch, so one would otherwise be scored
    differently beside other neighbours. It costs no time on a CPU.
    """
    one_by_one = (waveforms[index : index + 1] for index in range(len(waveforms)))
    return np.concatenate([scorer.session.run(["probabilities"], {"waveforms": heard})[0] for heard in one_by_one])


def digest(paths: Sequence[Path]) -> str:
    """sha256 over the content of some files."""
    sha = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                sha.update(block)
    return sha.hexdigest()


def read_facts(session: ort.InferenceSession, path: Path) -> dict[str, Any]:
    """Our facts from an ONNX file's metadata."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    assert text is not None, f"{path} is an ONNX file of another origin; `python quantize.py` writes ours"
    facts: dict[str, Any] = json.loads(text)
    assert facts["format"] <= FORMAT, f"{path} was written by a later version (format {facts['format']})"
    return facts


if __name__ == "__main__":
    import onnx
    from onnx import TensorProto, helper

    from taxonomy import to_json

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "loudness.onnx"  # a "model" of one species, which is present as far as it is loud
        graph = helper.make_graph(
            [
                helper.make_node("ReduceL1", ["waveforms"], ["sum"], axes=[1]),
                helper.make_node("Tanh", ["sum"], ["probabilities"]),
            ],
            "loudness",
            [helper.make_tensor_value_info("waveforms", TensorProto.FLOAT, ["batch", 80_000])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 1])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        names = Taxonomy(
            ("noise1",), ("Sonus clarus",), ("pretend noise",), (("a", "b", "c", "d", "e", "f", "g"),), (7,)
        )
        facts = {"format": FORMAT, "audio": {}, "taxonomy": to_json(names), "precision": "float32", "verified": False}
        helper.set_model_props(model, {METADATA: json.dumps(facts)})
        onnx.save(model, path)
        scorer = open_scorer(path)
        answer = score(scorer, np.stack([np.zeros(80_000), np.ones(80_000)]).astype(np.float32))
        print(scorer.taxonomy.common_names[0], answer[:, 0].tolist())
        assert answer[:, 0].tolist() == [0.0, 1.0]
