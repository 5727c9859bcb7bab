"""An ONNX file of another origin that takes waveforms: opened with care, what it takes and gives, one piece at a time.

    file = open_foreign(Path("perch_v2.onnx"))
    answers = file.ask(samples, ["label", "embedding"])          # of one piece of sound (samples,)

serving/model_cards.py scores with such files, serving/teachers.py imitates them.
"""

from __future__ import annotations

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime.digests import inspect
from runtime.guard import FOREIGN, bounded_options, check_graph
from serving.scorer import file_digest, reason

EMBEDDINGS = ("embedding", "embeddings", "vector", "vectors")  # what an output with them is usually called
KINDS: Mapping[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
DEEPEST = 3  # axes of an input at most: (batch, channels, samples)


@dataclass(frozen=True)
class ForeignFile:
    """An open file."""

    path: Path
    session: ort.InferenceSession
    metadata: Mapping[str, str]
    sha256: str  # of it and the weights beside it

    @property
    def outputs(self) -> list[str]:
        return [output.name for output in self.session.get_outputs()]

    @property
    def samples(self) -> int:
        """Samples that it takes at a time; 0 where any number will do."""
        length = self.session.get_inputs()[0].shape[-1]  # a word where any will do
        return length if isinstance(length, int) and length > 0 else 0

    def ask(self, samples: NDArray[np.float32], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """What it answers to one piece of sound (samples,), by itself: no neighbour in a batch changes it.

        Errors: whatever the engine raises.
        """
        entry = self.session.get_inputs()[0]
        shaped = samples.astype(KINDS[entry.type]).reshape((1,) * (len(entry.shape) - 1) + (-1,))
        return [np.asarray(answer, np.float32) for answer in self.session.run(list(outputs), {entry.name: shaped})]


def open_foreign(path: Path) -> ForeignFile:
    """Open a file; nothing of it is trusted unchecked.

    Errors: a missing file, a damaged or dangerous one, and one that takes something else than waveforms.
    """
    assert path.is_file(), f"no model at {path}; point --model at the ONNX file"
    state, weights = inspect(path)
    assert state != "damaged", f"{path} is damaged: it does not match its digest; copy it again"
    check_graph(path, weights, FOREIGN)
    try:
        session = ort.InferenceSession(str(path), bounded_options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # the engine's own errors share no narrower type
        raise AssertionError(f"{path} is damaged or no ONNX file ({reason(error)}); copy it again") from error
    inputs = session.get_inputs()
    assert len(inputs) == 1 and inputs[0].type in KINDS and 1 <= len(inputs[0].shape) <= DEEPEST, (
        f"{path} takes {[(entry.name, entry.type, entry.shape) for entry in inputs]}, not waveforms (batch, samples)"
    )
    return ForeignFile(path, session, session.get_modelmeta().custom_metadata_map, model_digest(path, weights))


def model_digest(path: Path, weights: Path | None = None) -> str:
    """sha256 of a file and the weights beside it, named by the file or like it."""
    beside = weights or path.with_name(f"{path.name}.data")
    return file_digest([path, *([beside] if beside.is_file() else [])])


def check_length(file: ForeignFile, rate: float, seconds: float, remedy: str) -> None:
    """Refuse a rate in Hz and seconds of sound at a time that are not what a file takes.

    remedy   what to mend, by its name
    """
    assert not file.samples or file.samples == round(seconds * rate), (
        f"{file.path} takes {file.samples} samples at a time, {file.samples / rate:g} s at {rate:g} Hz, not "
        f"{seconds:g} s: its rate or window is another one; mend {remedy}"
    )


def output_of(file: ForeignFile, wanted: str, usual: Sequence[str], name: str) -> str:
    """The name of an output.

    wanted   what somebody calls it, or ""; then it is the one of a usual name, or the only one
    name     of what says so: a flag, a key of a card
    Errors: no such output, and several where nobody says which.
    """
    names = file.outputs
    assert not wanted or wanted in names, f"{file.path} has no output {wanted!r}; {name}: one of {names}"
    likely = [one for one in names if one in usual] or names
    assert wanted or len(likely) == 1, f"{file.path} has several outputs; add {name}, one of {names}"
    return wanted or likely[0]


if __name__ == "__main__":
    import onnx
    from onnx import TensorProto, helper

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loudness.onnx"
        nodes = [helper.make_node("ReduceL1", ["sound"], ["embedding"], axes=[2])]
        given = helper.make_tensor_value_info("sound", TensorProto.FLOAT, [1, 1, 4_000])
        found = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 1, 1])
        graph = helper.make_graph(nodes, "loudness", [given], [found])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
        file = open_foreign(path)
        (answer,) = file.ask(np.full(4_000, 0.5, np.float32), [output_of(file, "", EMBEDDINGS, "--output")])
    print(f"{file.outputs} of {file.samples} samples: {answer.ravel().tolist()}")
    assert answer.item() == 2_000
