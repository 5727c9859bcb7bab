"""Waveforms -> probabilities with ONNX Runtime alone, and what the deployed file says of itself. No torch.

scorer = open_scorer(Path("runs/quantize/classifier.int8.onnx"))
probabilities = score(scorer, waveforms)            # (contexts, samples) -> (windows, species)
for tag, answer in stream([scorer], pieces):        # as many at a time as there are threads, in their order
    answer.probabilities, answer.embeddings
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from calibration import Threshold
from calibration import from_json as thresholds_from_json
from config import AudioSettings
from seals import beside, sha256, state_of
from taxonomy import Taxonomy, from_json

FORMAT = 2
METADATA = "wild_whisper"  # key of our facts in the ONNX file's metadata
AHEAD = 2  # batches for each thread that are read before their turn
Tag = TypeVar("Tag")


class Answer(NamedTuple):
    """What a model says of the windows of a context."""

    probabilities: NDArray[np.float32]  # (windows, species)
    embeddings: NDArray[np.float32]  # (windows, width); (windows, 0) of a file that has none


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
    threads: int  # contexts that are scored at a time, each by one thread

    @property
    def windows(self) -> int:
        """How many windows a context holds, and so how many answers it gets."""
        return round(self.audio.context_seconds / self.audio.window_seconds)


def open_scorer(path: Path, threads: int = 0) -> Scorer:
    """Open a file that quantize.py wrote.

    threads  contexts scored at a time, 0: as many as there are cores
    Errors: a missing file, a damaged one and one of another origin are refused; answers that are no probabilities when
    they come.
    """
    assert path.is_file(), f"no model at {path}; `python quantize.py` writes one, or point --model at yours"
    state, weights = state_of(path), beside(path)
    assert state != "damaged", (
        f"{path}{f' or {weights.name} beside it' if weights else ''} is damaged: it does not match its digest; "
        "copy it again, or `python quantize.py` anew"
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # ONNX Runtime's own errors share no narrower type
        raise AssertionError(f"{path} is damaged or no ONNX file ({str(error).splitlines()[0]})") from error
    facts = read_facts(metadata, path)
    assert state == "sound" or not facts.get("sealed"), f"{path} is damaged: its seal is broken; copy it again"
    audio, taxonomy = AudioSettings(**facts["audio"]), from_json(facts["taxonomy"])
    old_weights = path.with_name(f"{path.name}.data")  # of an earlier version
    told = sha256(path) if state == "sound" or not old_weights.is_file() else digest([path, old_weights])
    limits, ranks = tuple(thresholds_from_json(facts.get("thresholds", []))), facts.get("rank_thresholds", {})
    threads = threads or len(os.sched_getaffinity(0))
    precision, verified = facts["precision"], facts["verified"]
    return Scorer(session, path, audio, taxonomy, precision, verified, told, limits, ranks, threads)


def score(scorer: Scorer, waveforms: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(contexts, samples) -> (contexts * windows, species) probabilities, the windows of the first context first."""
    answers = [answer for _, answer in stream([scorer], enumerate(waveforms)) if answer]
    return np.concatenate([answer.probabilities for answer in answers])


def stream(
    scorers: Sequence[Scorer], pieces: Iterable[tuple[Tag, NDArray[np.float32] | None]], batch: int = 1
) -> Iterator[tuple[Tag, Answer | None]]:
    """Score contexts as they come, several at a time, and give each answer with its tag, in their order.

    pieces   a tag of the caller's and a context (samples,), or None for a tag that goes through as it is
    batch    contexts that one thread puts through the network at a time. INT8 scales its activations over all of them,
             so that a context is scored differently beside other neighbours; 1 keeps every score for itself.
    While the threads score, the next contexts are read: at most AHEAD batches for each thread, so that memory does not
    grow with a recording. Of several models the mean counts.
    """
    waiting = deque[tuple[list[Tag], Future[list[Answer]] | None]]()
    threads = scorers[0].threads
    with ThreadPoolExecutor(threads) as pool:
        try:
            for group in groups(pieces, batch):
                samples = [context for _, context in group if context is not None]
                future = pool.submit(mean_answers, scorers, np.stack(samples)) if samples else None
                waiting.append(([tag for tag, _ in group], future))
                while sum(future is not None for _, future in waiting) > AHEAD * threads:
                    yield from told(*waiting.popleft())
            while waiting:
                yield from told(*waiting.popleft())
        finally:
            for _, future in waiting:
                if future:
                    future.cancel()


def groups(
    pieces: Iterable[tuple[Tag, NDArray[np.float32] | None]], batch: int
) -> Iterator[list[tuple[Tag, NDArray[np.float32] | None]]]:
    """Contexts in batches; what has no context is a group of its own."""
    group = list[tuple[Tag, NDArray[np.float32] | None]]()
    for piece in pieces:
        if piece[1] is None or len(group) == batch:
            if group:
                yield group
            group = []
        if piece[1] is None:
            yield [piece]
        else:
            group.append(piece)
    if group:
        yield group


def told(tags: Sequence[Tag], future: Future[list[Answer]] | None) -> Iterator[tuple[Tag, Answer | None]]:
    """Tags with their answers, once those are there."""
    answers = future.result() if future else [None] * len(tags)
    return zip(tags, answers, strict=True)


def mean_answers(scorers: Sequence[Scorer], samples: NDArray[np.float32]) -> list[Answer]:
    """What the models say of each context (contexts, samples) in the mean; the embeddings are those of the first."""
    every = [answers_of(scorer, samples) for scorer in scorers]
    if len(every) == 1:
        return every[0]
    found: list[Answer] = []
    for same in zip(*every, strict=True):
        mean: NDArray[np.float32] = np.stack([one.probabilities for one in same]).mean(axis=0).astype(np.float32)
        found.append(Answer(mean, same[0].embeddings))
    return found


def answers_of(scorer: Scorer, samples: NDArray[np.float32]) -> list[Answer]:
    """What a model says of each context of a batch (contexts, samples)."""
    names = [output.name for output in scorer.session.get_outputs()]
    outputs = scorer.session.run(names, {"waveforms": samples})
    heard = dict(zip(names, outputs, strict=True))
    given, wanted = heard["probabilities"], (len(samples) * scorer.windows, len(scorer.taxonomy.labels))
    low, high = given.min(), given.max()
    assert given.shape == wanted and low >= 0 and high <= 1, (
        f"{scorer.path} answers {given.shape} between {low:.2f} and {high:.2f}, not {wanted} probabilities"
    )
    vectors = heard.get("embeddings", np.zeros((len(given), 0), np.float32))
    parts = zip(np.split(given, len(samples)), np.split(vectors, len(samples)), strict=True)
    return [Answer(*both) for both in parts]


def digest(paths: Sequence[Path]) -> str:
    """sha256 over the content of some files."""
    sha = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                sha.update(block)
    return sha.hexdigest()


def read_facts(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Our facts from an ONNX file's metadata."""
    text = metadata.get(METADATA)
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
        heard = score(scorer, np.stack([np.zeros(80_000), np.ones(80_000)]).astype(np.float32))
        print(scorer.taxonomy.common_names[0], heard[:, 0].tolist())
        assert heard[:, 0].tolist() == [0.0, 1.0]
