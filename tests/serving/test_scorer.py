"""The deployed file: opened only when it is ours and answers with probabilities, and scored one window at a time."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from conftest import Stages
from house import program
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from scipy.special import expit, logit

from runtime import guard as graphs
from runtime.digests import write_digest
from runtime.guard import EXACT_INT8
from serving.scorer import (
    AHEAD,
    FORMAT,
    KNOWN_GRAPHS,
    METADATA,
    TOLERANCE,
    Network,
    Scorer,
    cpu_flags,
    encoder_from_facts,
    int8_fault,
    known_product,
    open_onnxruntime,
    open_scorer,
    options_for,
    score,
    stream,
)
from taxonomy import Taxonomy, to_json

needs_openvino = pytest.mark.skipif(
    not find_spec("openvino"), reason="OpenVINO is not installed: pip install -r requirements-openvino.txt"
)
WHISPER = Path(__file__).parents[3] / "shared" / "whisper-base"
HERE = Path(__file__).parents[2]
Piece = tuple[int, NDArray[np.float32] | None]
FLOAT: dict[str, object] = {"precision": "float32", "provenance": {"seed": 3}}
ONE = Taxonomy(("41",), ("Rana ficta",), ("frog",), (("a", "b", "c", "d", "e", "f", "g"),), (7,))


class Scored(NamedTuple):
    """Answers, and what gave them."""

    probabilities: NDArray[np.float32]
    path: Path
    precision: str
    threads: int
    engine: str


def toy(path: Path, *steps: str, facts: dict[str, object] | None = None, reduce: str = "ReduceSum") -> Path:
    """An ONNX file that sums up each waveform and takes the sum through some operators."""
    nodes = [helper.make_node(reduce, ["waveforms", "axes"], ["x0"])]
    for number, step in enumerate(steps):
        nodes.append(helper.make_node(step, [f"x{number}"], [f"x{number + 1}"]))
    nodes[-1].output[0] = "probabilities"
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("waveforms", TensorProto.FLOAT, ["batch", 80_000])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    ours: dict[str, object] = {
        "format": FORMAT, "audio": {"sample_rate": 16_000, "window_seconds": 5.0}, "taxonomy": to_json(ONE),
        "precision": "int8", "verified": True,
    }  # fmt: skip
    if facts is None or facts:
        helper.set_model_props(model, {METADATA: json.dumps(ours | (facts or {}))})
    onnx.save(model, path)
    return path


def test_the_file_tells_what_it_is(tmp_path: Path) -> None:
    scorer = open_scorer(toy(tmp_path / "m.onnx", "Sigmoid"))
    assert scorer.taxonomy == ONE and scorer.audio.window_seconds == 5.0
    assert (scorer.precision, scorer.verified, len(scorer.sha256)) == ("int8", True, 64)


def test_scores_come_window_by_window_in_order(tmp_path: Path) -> None:
    scorer = open_scorer(toy(tmp_path / "m.onnx", "Sigmoid"))
    waveforms = np.zeros((3, 80_000), np.float32)
    waveforms[1, 0], waveforms[2, 0] = 1.0, -1.0
    expected = 1 / (1 + np.exp([[0.0], [-1.0], [1.0]]))
    np.testing.assert_allclose(score(scorer, waveforms), expected, atol=1e-6)


def test_what_holds_no_sound_goes_through_at_once(tmp_path: Path) -> None:
    """A thousand unreadable recordings in a row are told one by one, not at the end."""
    scorer, read = open_scorer(toy(tmp_path / "m.onnx", "Sigmoid")), list[int]()

    def pieces() -> Iterator[tuple[int, None]]:
        for number in range(1_000):
            read.append(number)
            yield number, None

    for tag, answer in stream([scorer], pieces()):
        assert answer is None and len(read) == tag + 1


def test_answers_of_a_stream_come_in_their_order_while_few_are_read_ahead(tmp_path: Path) -> None:
    scorer = open_scorer(toy(tmp_path / "m.onnx", "Sigmoid"), threads=3)
    read = list[int]()

    def pieces() -> Iterator[Piece]:
        for number in range(40):
            read.append(number)
            samples = np.zeros(80_000, np.float32)
            samples[0] = number
            yield number, None if number % 10 == 9 else samples

    for batch in (1, 4):
        read.clear()
        answers = stream([scorer], pieces(), batch)
        first = next(answers)
        assert len(read) <= (AHEAD * 3 + 1) * batch + 1  # and no more: memory does not grow with a recording
        every = [first, *answers]
        assert [tag for tag, _ in every] == list(range(40)) and len(read) == 40
        assert [tag for tag, answer in every if answer is None] == [9, 19, 29, 39]
        scores = {tag: float(answer.probabilities[0, 0]) for tag, answer in every if answer}
        np.testing.assert_allclose(list(scores.values()), 1 / (1 + np.exp(-np.array(list(scores)))), atol=1e-6)


def test_of_several_models_the_mean_logit_counts(tmp_path: Path) -> None:
    models = [open_scorer(toy(tmp_path / f"{step}.onnx", step), threads=1) for step in ("Sigmoid", "Tanh")]
    loud = np.zeros(80_000, np.float32)
    loud[0] = 2.0
    ((_, answer),) = stream(models, [("loud", loud)])
    assert answer and float(answer.probabilities[0, 0]) == pytest.approx(expit((2 + logit(np.tanh(2))) / 2))


def test_a_reader_that_fails_in_the_middle_of_a_stream_is_heard(tmp_path: Path) -> None:
    scorer = open_scorer(toy(tmp_path / "m.onnx", "Sigmoid"), threads=2)

    def pieces() -> Iterator[Piece]:
        yield 0, np.zeros(80_000, np.float32)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(stream([scorer], pieces()))


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"python quantize\.py"):
        open_scorer(tmp_path / "nothing.onnx")


def test_a_file_of_another_origin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="of another origin"):
        open_scorer(toy(tmp_path / "m.onnx", "Sigmoid", facts={}))


def test_logits_are_not_taken_for_probabilities_and_neither_is_what_is_no_number(tmp_path: Path) -> None:
    scorer = open_scorer(toy(tmp_path / "m.onnx", "Cos", "Neg"))  # silence gives -1
    with pytest.raises(AssertionError, match=r"between -1\.00 and -1\.00, not \(1, 1\) probabilities"):
        score(scorer, np.zeros((1, 80_000), np.float32))
    root = open_scorer(toy(tmp_path / "n.onnx", "Sqrt"))
    with pytest.raises(AssertionError, match="between nan and nan"):
        score(root, np.full((1, 80_000), -1.0, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_no_sound_never_reaches_the_network(value: float, tmp_path: Path) -> None:
    scorer = open_scorer(toy(tmp_path / "m.onnx", "Sigmoid"), threads=1)
    strange = np.zeros(80_000, np.float32)
    strange[5] = value
    answers = stream([scorer], [("before", np.zeros(80_000, np.float32)), ("strange", strange)])
    assert next(answers)[0] == "before"
    with pytest.raises(AssertionError, match="is no sound; silence it"):
        next(answers)
    swallowed = scorer.network(strange[None])["probabilities"]  # negative control: the network says nothing
    assert np.isnan(value) or np.isfinite(swallowed).all()


def test_weights_of_eight_bits_go_the_longer_way_only_on_a_cpu_that_gets_them_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_longer(levels: int) -> bool:
        path = tmp_path / f"{levels}.onnx"
        path.write_bytes(zlib.decompress(base64.b85decode(KNOWN_GRAPHS[levels])))
        options: Any = options_for(path)  # whose types do not know of this method
        try:
            return bool(options.get_session_config_entry(EXACT_INT8[0]) == "1")
        except RuntimeError:  # it was not said
            return False

    right = "vnni" in " ".join(cpu_flags())
    assert (int8_fault(exact=False) == "") >= right and is_longer(127) == bool(int8_fault(exact=False))
    for fault, longer in (("", False), ("a product came out wrong", True)):

        def found(exact: bool, fault: str = fault) -> str:
            return "" if exact else fault

        monkeypatch.setattr("serving.scorer.int8_fault", found)
        assert (is_longer(127), is_longer(63)) == (longer, False)


def test_a_cpu_that_gets_a_known_product_wrong_is_given_the_float_twin_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = toy(tmp_path / "m.int8.onnx", "Sigmoid")
    assert int8_fault() == "" and open_scorer(path).known_answer == "exact"
    rows, weights = known_product(63)
    assert len(set(rows[0])) == len(set(weights[:, 0])) == 1 and weights[0, 0] == -weights[0, 1] == 63  # the largest
    weights[7, 3] += 1

    def known(_levels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return rows, weights

    monkeypatch.setattr("serving.scorer.known_product", known)
    assert int8_fault() == "a product of -570945 came out as -571200"
    with pytest.raises(AssertionError, match=r"copy the float32 file that quantize.py wrote to .*m\.onnx, or score"):
        open_scorer(path)
    twin = toy(tmp_path / "m.onnx", "Sigmoid", facts={"precision": "float32"})
    opened = open_scorer(path)
    assert (opened.path, opened.precision) == (twin, "float32") and "came out as" in opened.known_answer
    assert f"{twin} is used instead" in capsys.readouterr().out
    assert open_scorer(twin).known_answer == "not asked"


def test_a_damaged_file_is_one_clear_line(tmp_path: Path) -> None:
    path = toy(tmp_path / "m.onnx", "Sigmoid")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(AssertionError, match="damaged or no ONNX file") as refusal:
        open_scorer(path)
    assert "\n" not in str(refusal.value)


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="later version"):
        open_scorer(toy(tmp_path / "m.onnx", "Sigmoid", facts={"format": FORMAT + 1}))


def sounds(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.1, (count, 80_000)).astype(np.float32)


def openvino_answers(path: Path, threads: int, count: int, folder: Path) -> tuple[Scored, NDArray[np.float32]]:
    """What OpenVINO says of `sounds(count)`, in a process of its own: it limits the memory of the one that it is in."""
    code = f"""
import numpy as np, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_scorer import sounds
from serving.scorer import open_scorer, stream
scorer = open_scorer(Path({str(path)!r}), {threads}, "openvino")
answers = [answer for _, answer in stream([scorer], enumerate(sounds({count}))) if answer]
facts = (str(scorer.path), scorer.precision, str(scorer.threads), scorer.engine)
parts = zip(*((answer.probabilities, answer.embeddings) for answer in answers), strict=True)
np.savez({str(folder / "answers.npz")!r}, *map(np.concatenate, parts), facts=facts)
"""
    paths = os.pathsep.join((str(HERE), str(HERE / "tests")))
    subprocess.run([sys.executable, "-c", code], cwd=HERE, env=os.environ | {"PYTHONPATH": paths}, check=True)
    with np.load(folder / "answers.npz") as found:
        facts: list[str] = found["facts"].tolist()
        return Scored(found["arr_0"], Path(facts[0]), facts[1], int(facts[2]), facts[3]), found["arr_1"]


@needs_openvino
def test_openvino_gives_the_same_answers_with_any_number_of_threads(stages: Stages, tmp_path: Path) -> None:
    ours = [answer for _, answer in stream([open_scorer(stages.float_model)], enumerate(sounds(6))) if answer]
    expected, vectors = (
        np.concatenate(part) for part in zip(*((a.probabilities, a.embeddings) for a in ours), strict=True)
    )
    for threads in (1, 2):
        found, embeddings = openvino_answers(stages.model, threads, 6, tmp_path)  # the float32 file beside the INT8 one
        assert (found.path, found.precision, found.threads) == (stages.float_model, "float32", threads)
        assert np.abs(found.probabilities - expected).max() <= TOLERANCE[found.engine]
        assert embeddings.shape == vectors.shape and np.abs(embeddings - vectors).max() < 0.05
    assert np.abs(score(open_scorer(stages.model), sounds(6)) - expected).max() > 1e-4, "negative control: INT8"


@needs_openvino
@pytest.mark.slow
@pytest.mark.skipif(not WHISPER.is_dir(), reason="needs ../shared: Whisper base")
def test_of_whisper_base_openvino_names_the_same_species(tmp_path: Path) -> None:
    import torch

    from config import AudioSettings, EncoderSettings, HeadSettings
    from model import BirdClefClassifier
    from serving.export import write_float
    from training.checkpoint import ClassifierFacts, load_encoder

    torch.manual_seed(0)
    names, audio = tuple(f"s{number}" for number in range(20)), AudioSettings()
    taxonomy = Taxonomy(names, names, names, tuple((*"abcdef", name) for name in names), (7,) * 20)
    encoder = load_encoder(EncoderSettings("base", str(WHISPER), depth=2), audio)
    model = BirdClefClassifier(encoder, audio, 20, HeadSettings()).eval()
    with torch.no_grad():
        for values in model.head.parameters():
            values.add_(0.05 * torch.randn(values.shape))
    write_float(
        model, ClassifierFacts("base", audio, HeadSettings(), taxonomy, {}, depth=2), tmp_path / "m.onnx", False
    )
    ours = score(open_scorer(tmp_path / "m.onnx", 1), sounds(8))
    other, _ = openvino_answers(tmp_path / "m.onnx", 1, 8, tmp_path)
    assert np.abs(ours - other.probabilities).max() <= TOLERANCE[other.engine] and ours.std() > 0.05
    assert (ours.argmax(axis=1) == other.probabilities.argmax(axis=1)).all()


@needs_openvino
def test_the_guard_and_the_limit_on_memory_hold_for_openvino_too(tmp_path: Path) -> None:
    loop = toy(tmp_path / "loop.onnx", "Sigmoid")
    model = onnx.load(loop)
    model.graph.node.append(helper.make_node("Loop", ["x", "y"], ["z"]))
    onnx.save(model, loop)
    with pytest.raises(AssertionError, match="'Loop'"):
        open_scorer(loop, 1, "openvino")
    path = toy(tmp_path / "m.onnx", "Sigmoid", facts={"precision": "float32"})
    code = f"""
import numpy as np
from pathlib import Path
from serving.scorer import open_scorer, score
silence = np.zeros((1, 80_000), np.float32)
for path in ({str(greedy(path))!r}, {str(path)!r}):
    try:
        print(score(open_scorer(Path(path), 1, "openvino"), silence).tolist())
    except AssertionError as refusal:
        print(refusal)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    refused, answered = done.stdout.splitlines()
    assert re.search(r"greedy\.onnx .*(allocate|bad_alloc)", refused) and answered == "[[0.5]]"


def greedy(path: Path) -> Path:
    """A graph beside another that asks for more memory than there is."""
    huge = graphs.most_memory() // 80_000 // 4 + 1
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], [huge, 80_000]))
    model.graph.node.append(helper.make_node("Expand", ["waveforms", "shape"], ["much"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["much", "axes"], ["little"]))
    model.graph.output.append(helper.make_tensor_value_info("little", TensorProto.FLOAT, None))
    onnx.save(model, path.with_name("greedy.onnx"))
    return path.with_name("greedy.onnx")


@needs_openvino
def test_openvino_is_imported_where_it_is_asked_for_and_tells_nobody(tmp_path: Path) -> None:
    """Nor does it wait by turning in circles."""
    path = toy(tmp_path / "m.onnx", "Sigmoid", facts={"precision": "float32"})
    code = f"""
import os, sys, time, numpy as np
from pathlib import Path
from serving.scorer import open_scorer, score
def loaded(): return sorted(name for name in ("openvino", "openvino_telemetry") if sys.modules.get(name))
score(open_scorer(Path({str(path)!r})), np.zeros((1, 80_000), np.float32))
print(loaded())
score(open_scorer(Path({str(path)!r}), 2, "openvino"), np.zeros((4, 80_000), np.float32))
print(loaded())
begun = time.process_time()
time.sleep(0.5)
print(time.process_time() - begun < 0.05)
"""
    home = os.environ | {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, env=home, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['openvino']", "True"]
    assert not (tmp_path / "home" / "intel").exists()


@needs_openvino
@pytest.mark.parametrize("cores", [1, 2])
def test_ctrl_c_is_answered_after_two_openvino_models_have_gone(cores: int, tmp_path: Path) -> None:
    """A core for each of them is the control: the thread is left without a stack for signals, and dies of the next."""
    path = toy(tmp_path / "m.onnx", "Sigmoid", facts=FLOAT)
    code = f"""
import gc, os, signal
from pathlib import Path
from serving import scorer
from serving.scorer import open_scorer, openvino_core
if {cores} == 2:
    scorer.openvino_core = openvino_core.__wrapped__
scorers = [open_scorer(Path({str(path)!r}), 1, "openvino") for _ in range(2)]
while scorers:
    del scorers[0]
    gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("answered", flush=True))
os.kill(os.getpid(), signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == ((0, "answered\n") if cores == 1 else (-signal.SIGSEGV, "")), done.stderr


def test_openvino_is_begun_in_one_room_alone() -> None:
    begun = {path.relative_to(HERE).as_posix() for path in program() if re.search(r"\bCore\(\)", path.read_text())}
    assert begun == {"serving/scorer.py"}


def test_without_openvino_the_way_to_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.scorer.find_spec", absent)
    path = toy(tmp_path / "m.onnx", "Sigmoid")
    with pytest.raises(
        AssertionError, match=r"not installed here; `pip install -r requirements-openvino\.txt`"
    ) as refusal:
        open_scorer(path, 1, "openvino")
    assert "\n" not in str(refusal.value) and open_scorer(path, 1, "auto").engine == "onnxruntime"


def test_without_openvino_its_own_files_are_refused_in_a_line_that_names_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.scorer.find_spec", absent)
    (tmp_path / "m.xml").write_text("<net/>")
    with pytest.raises(AssertionError, match=r"m\.xml: OpenVINO is not installed here; .* the ONNX file$"):
        open_scorer(tmp_path / "m.xml")


def test_an_ensemble_is_called_by_its_members_and_nothing_that_a_file_makes_up() -> None:
    whisper, cnn = {"size": "base", "depth": 2}, {"size": "base", "depth": 0, "picture": {"kind": "cnn"}}
    members = [{"network": whisper, "encoder": "random"}, {"network": cnn}, {"network": whisper}]
    facts = {"size": "base", "depth": 6, "provenance": {"members": members}}
    assert encoder_from_facts(whisper) == "base, the lowest 2 of 6 layers"
    assert encoder_from_facts(facts) == "ensemble of 3: 2 x base, the lowest 2 of 6 layers, AudioCNN"
    earlier = {"size": "base", "depth": 6, "provenance": {"members": [{"encoder": "random"}] * 2}}
    assert encoder_from_facts(earlier) == "ensemble of 2"  # of an earlier version, that said what the first is
    odd = [3, {"network": 3}, {"network": {"size": "\x1b[2J"}}, {"network": {"picture": {"kind": "\x1b[2J"}}}]
    assert encoder_from_facts({"provenance": {"members": odd}}) == "ensemble of 3"
    assert encoder_from_facts({"size": "base", "provenance": {"members": "two"}}) == "base"


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small network as OpenVINO keeps it; the memory of this process is not limited."""
    from serving.export import write_openvino

    monkeypatch.setattr("serving.scorer.limit_process", lambda: None)
    write_openvino(toy(tmp_path / "m.onnx", "Sigmoid", facts=FLOAT), tmp_path / "m.xml")
    return tmp_path / "m.xml"


@needs_openvino
def test_openvinos_own_files_bring_along_what_the_onnx_file_does_and_need_no_flag(exported: Path) -> None:
    names = sorted(path.name for path in exported.parent.iterdir())
    assert names == ["m.bin", "m.onnx", "m.xml"]  # as OpenVINO's own tools look for them
    ours, theirs = open_scorer(exported.with_suffix(".onnx")), open_scorer(exported)
    assert theirs.engine in TOLERANCE and ours.engine == "onnxruntime"
    for fact in ("audio", "taxonomy", "precision", "verified", "thresholds", "provenance", "encoder"):
        assert getattr(ours, fact) == getattr(theirs, fact), fact
    assert ours.provenance["seed"] == 3 and ours.sha256 != theirs.sha256
    loud = np.linspace(-1, 1, 6, dtype=np.float32)[:, None] * np.eye(1, 80_000, dtype=np.float32)
    assert np.abs(score(theirs, loud) - score(ours, loud)).max() <= TOLERANCE[theirs.engine] < np.ptp(score(ours, loud))


@needs_openvino
@pytest.mark.parametrize("part", ["m.xml", "m.bin"])
@pytest.mark.parametrize("harm", ["flipped", "cut off", "gone"])
def test_a_damaged_pair_is_refused_in_one_line(exported: Path, part: str, harm: str) -> None:
    path = exported.with_name(part)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content) if harm == "flipped" else content[: len(content) // 2])
    if harm == "gone":
        path.unlink()
    with pytest.raises(AssertionError, match=r"is damaged: it does not match|is cut off|no model at") as refusal:
        open_scorer(exported)
    assert "\n" not in str(refusal.value)


@needs_openvino
def test_a_network_of_another_origin_is_refused_before_openvino_reads_it(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_path: Path, _threads: int) -> object:
        raise AssertionError("OpenVINO has read it")

    monkeypatch.setattr("serving.scorer.open_openvino", read)
    text = exported.read_text()
    foreign = re.sub("<seal value=.*/>", "", text)
    assert foreign != text
    exported.write_text(foreign)
    with pytest.raises(AssertionError, match=r"m\.xml is no file of quantize\.py's, or is cut off"):
        open_scorer(exported)
    exported.write_text(text)
    with pytest.raises(AssertionError, match="OpenVINO has read it"):  # control: ours gets as far
        open_scorer(exported)


@needs_openvino
def test_a_hostile_network_with_a_digest_of_its_own_is_refused_all_the_same(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes a file can write its digest too: the guard does not trust it."""
    monkeypatch.setattr("serving.scorer.open_openvino", None)
    (tmp_path / "secret").write_text("a secret")
    text = exported.read_text()
    entity = f'<!DOCTYPE net [<!ENTITY out SYSTEM "file://{tmp_path}/secret">]>\n<net'
    for before, after, said in (
        ("<net", entity, "declares a document type"),
        ("</net>", "</net", "is damaged, no XML"),
        ('type="Sigmoid" version="opset1"', 'type="Loop" version="opset5"', r"holds the layer 'opset5\.Loop'"),
    ):
        assert text.count(before) == 1
        exported.write_text(re.sub("place: [0-9a-f]{64}", "place: " + "0" * 64, text.replace(before, after)))
        write_digest(exported)
        with pytest.raises(AssertionError, match=said) as refusal:
            open_scorer(exported)
        assert "\n" not in str(refusal.value) and "a secret" not in str(refusal.value)


def absent(_name: str) -> None:
    return None


def present(_name: str) -> object:
    return object()


def pretend_openvino(path: Path, threads: int) -> tuple[Network, Mapping[str, str], str]:
    """ONNX Runtime under another name, where OpenVINO is not installed."""
    return (*open_onnxruntime(path, threads)[:2], "openvino in bfloat16")


def test_openvino_takes_the_float32_file_or_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.scorer.find_spec", present)
    monkeypatch.setattr("serving.scorer.open_openvino", pretend_openvino)
    int8 = toy(tmp_path / "m.int8.onnx", "Sigmoid")
    with pytest.raises(AssertionError, match=r"copy the float32 file that quantize.py wrote to .*m\.onnx, or score"):
        open_scorer(int8, 1, "openvino")
    with pytest.raises(AssertionError, match=r"n\.onnx is an INT8 file, and OpenVINO multiplies float32 files"):
        open_scorer(toy(tmp_path / "n.onnx", "Sigmoid"), 1, "openvino")
    twin = toy(tmp_path / "m.onnx", "Sigmoid", facts={"precision": "float32"})
    opened = open_scorer(int8, 1, "openvino")
    assert (opened.path, opened.precision, opened.engine) == (twin, "float32", "openvino in bfloat16")


def test_auto_takes_openvino_only_with_amx_and_only_where_it_is_clearly_quicker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("serving.scorer.find_spec", present)
    monkeypatch.setattr("serving.scorer.open_openvino", pretend_openvino)
    int8 = toy(tmp_path / "m.int8.onnx", "Sigmoid")
    flags, times = list[str](), {"onnxruntime": 0.1, "openvino in bfloat16": 0.05}
    monkeypatch.setattr("serving.scorer.cpu_flags", lambda: flags)

    def seconds(scorer: Scorer, _contexts: object) -> float:
        return times[scorer.engine]

    monkeypatch.setattr("serving.scorer.seconds_to_score", seconds)
    flags.append("amx_bf16")
    assert open_scorer(int8, 1, "auto").engine == "onnxruntime"  # there is no float32 file
    toy(tmp_path / "m.onnx", "Sigmoid", facts={"precision": "float32"})
    assert open_scorer(int8, 2, "auto").engine == "openvino in bfloat16"
    assert "--engine auto: 50.0 ms a context with ONNX Runtime, 25.0 ms with OpenVINO" in capsys.readouterr().out
    times["openvino in bfloat16"] = 0.095
    assert open_scorer(int8, 2, "auto").engine == "onnxruntime"
    times["openvino in bfloat16"], flags[0] = 0.01, "avx512_bf16"
    assert open_scorer(int8, 2, "auto").engine == "onnxruntime"
