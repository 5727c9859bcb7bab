"""Waveforms -> probabilities with ONNX Runtime, or OpenVINO where that is asked for or the file is its own, and what
the deployed file says of itself. No torch.

scorer = open_scorer(Path("runs/quantize/classifier.int8.onnx"))
probabilities = score(scorer, waveforms)            # (contexts, samples) -> (windows, species)
for tag, answer in stream([scorer], pieces):        # as many at a time as there are threads, in their order
    answer.probabilities, answer.embeddings
"""

from __future__ import annotations

import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import base64
import hashlib
import json
import platform
import re
import statistics
import tempfile
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from xml.parsers.expat import ExpatError

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from archive.licences import FACTS
from config import MOST_FRAMES, PRESETS, SIZES, AudioSettings, Engine, PictureSettings, from_facts, size_in_words
from evaluation.calibration import Thresholds, mean_as_logits, thresholds_from_json
from runtime.digests import inspect, sha256
from runtime.files import json_object
from runtime.guard import EXACT_INT8, bounded_options, check_graph, check_ir, has_wide_weights, limit_process
from runtime.terminal import show
from system import cores, cpu_facts
from taxonomy import Taxonomy, from_json

if TYPE_CHECKING:  # imported where it is asked for
    from openvino import Core

FORMAT = 2
METADATA = FACTS  # key of our facts in the ONNX file's metadata
NEEDED = frozenset({"format", "audio", "taxonomy", "precision", "verified"})
TOLERANCE = {"openvino in float32": 1e-4, "openvino in bfloat16": 0.05}  # of a probability, to ONNX Runtime in float32
AHEAD = 2  # batches for each thread that are read before their turn
INT8_FLAGS = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")  # the last two on ARM
LOUDEST = 2.0**32  # sounds/audio.py silences what is half as loud; resampling may overshoot
KNOWN_GRAPHS = {  # `known_product` of 7 and of 8 bits as serving/export.py quantises it, packed; its tests made them
    63: (
        b"c-rk$F;Buk6sCYup2e0+45pgYvXHP4bTHyjf-VvnOq?7fC!E-bS8Pj&O#BZQe}`Kq<3t#lnvP6_i7+9dRVlhTxRA@;yYIdCz3<%(k7aY"
        b"O99+Yip*3k0@pDstY+`DvZBj)WuEVI{IzfU9+C<mN4Naw{xarSNZk;|+{Ge7YJjc083DyC_a$yi!M6KPKi=O4`h{M!q5xqRSAMA^<hOS"
        b"kc6_1jPm9SZA*3YO(YD9+|__Dvaw{;Dh;)aJR*f5jfli8V$LeSK<nHMGq3M@VoIIlJL(J_xYM~1k$099H`hGsp$G5F-b&q3=h6nW3BlX"
        b";*zCnN5jYAw3w#?sF$n`Z?fRQT~h#SW`j%j@tx(@XUwCo$khk%?kudXmGBrpz#I%iXMErTYA69JS@Qqf9R`P%O!rGPe9}6N6#=?MQOQ("
        b"QY=?S1f*H%bDJk>1HKo7+0*wq?=6)Y&q2*#t+|D`YZjF{{QKxFK45HDfk9dF&_wYl)vn&ozL-)Kwuff!8!`-TFZbSo4?rwZ+!g{6$)Vp"
        b"2(b^AakEb"
    ),
    127: (
        b"c-rk$!A`<J5T$^o4h8BaCZ?Jo9J!F_4G*R0MWZ1mo;=vBuwo<bLR&)gQu+mivj^l8xO!>&348(J3kY9;gjS{K&4U-R*`0ke^XAR&VR%0"
        b"OF2F5p7_3PvD7i3dqlu}hy^souc@CqDYXpfNcp*Ad>rA7jlnCZ$c21uue$vWUzT-lp1nYodwJ?Y+qE#QvWzTALBw%W^h_24>M~70puCq"
        b"$B>{BxFOKe^?YiHCXRiZ;40@+{O`x?Wh6!TFT8)hbYGC#9h5H{H^_r`@mhUI61;J4;II_^^!$dD3CP@~mMWZnZDLqHCK9JJ{{De1d)vI"
        b"tZbWF$ON)}jYqEc?py1zr>*#UCGZ-sUZPb+NA6FAZcjH%yI_Q_EKSvYQ&uxKY|sdf2i{gVcDk?I@jw+RqIwTXtuhqkP-kaFp&eWOuUN!"
        b"=-^`r^b$=_GerV%kC&`*~w`S=Z20_8jRAcyVhUpul4^=KYKkN4O}rWpw0`SP+R`XzS;X6{|H2$Ljr7~sLomjg!#hVKKSG7m#A2bLP(5%"
        b"0KRdvPX"
    ),
}
TRIED, FASTER = 5, 0.9  # contexts that --engine auto times, and the share of the time that is worth another engine
Tag = TypeVar("Tag")
Network = Callable[[NDArray[np.float32]], dict[str, NDArray[np.float32]]]  # (contexts, samples) -> outputs by name


class Answer(NamedTuple):
    """What a model says of the windows of a context."""

    probabilities: NDArray[np.float32]  # (windows, species); (windows, 0) of an encoder without a classifier
    embeddings: NDArray[np.float32]  # (windows, width); (windows, 0) of a file that has none
    unfamiliar: NDArray[np.float32] | None = None  # (windows,) evaluation/familiarity.py; of files that tell it


@dataclass(frozen=True)
class Scorer:
    """An open model, and the facts that travelled in its file."""

    network: Network
    path: Path
    audio: AudioSettings
    taxonomy: Taxonomy
    precision: str  # int8 or float32
    verified: bool  # whether it was compared with the trained network on held-out recordings
    sha256: str
    thresholds: Thresholds
    threads: int  # contexts that are scored at a time, each by one thread
    known_answer: str  # of INT8 on this CPU: exact, not asked, or what was wrong, and this is the float32 twin
    encoder: str = ""  # its size and depth in words, as far as the file says
    engine: str = "onnxruntime"  # or openvino in float32, openvino in bfloat16
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])  # what main.py wrote of its training
    unfamiliar: bool = False  # whether it tells how unlike its training a window is
    card: Mapping[str, str] = field(default_factory=dict[str, str])  # of somebody else's model: licence, citation
    origin: str = ""  # hf://owner/name@commit of one from the hub

    @property
    def windows(self) -> int:
        """How many windows a context holds, and so how many answers it gets."""
        return round(self.audio.context_seconds / self.audio.window_seconds)


def open_scorer(path: Path, threads: int = 0, engine: Engine = "onnxruntime") -> Scorer:
    """Open a file that quantize.py wrote.

    path     an .onnx, or an .xml with its .bin beside it, which OpenVINO opens whatever the engine is
    threads  contexts scored at a time, 0: as many as there are cores
    engine   openvino opens the float32 file beside an INT8 one: it multiplies that in half precision or as quickly as
             ONNX Runtime does, and our INT8 file more slowly than either
    Errors: a missing file, a damaged one and one of another origin are refused; answers that are no probabilities when
    they come.
    An INT8 file on a CPU that gets a known product wrong: its float32 twin is opened instead, or it is refused.
    """
    assert not path.is_dir(), f"{path} is a folder; point --model at the file in it, {path / 'classifier.int8.onnx'}"
    assert path.is_file(), f"no model at {path}; `python quantize.py` writes one, or point --model at yours"
    assert path.suffix != ".safetensors", (
        f"{path} is a network as it was trained; `python quantize.py --classifier {path}` makes the ONNX file"
    )
    # which engine, which of two files
    threads = threads or cores()
    if path.suffix == ".xml":
        require_openvino(str(path), "point --model at the ONNX file")
        engine = "openvino"
    if engine == "auto":
        return open_quicker(path, threads)
    if engine == "openvino":
        require_openvino("--engine openvino", "leave the flag out")
        path = float_twin(path, "OpenVINO multiplies float32 files") if ".int8" in path.name else path
    network, name, facts, digest = open_network(path, threads, engine)
    # a CPU that multiplies wrongly
    wrong = int8_fault() if facts["precision"] == "int8" else ""
    if wrong:
        wrong = f"INT8 cannot be trusted here ({cpu_name()}): {wrong}"
        twin = float_twin(path, wrong)
        show(f"{wrong}; {twin} is used instead, which is slower")
        return replace(open_scorer(twin, threads), known_answer=wrong)
    taxonomy = from_json(facts["taxonomy"])
    return Scorer(
        network,
        path,
        from_facts(AudioSettings, facts["audio"], path),
        taxonomy,
        facts["precision"],
        facts["verified"],
        digest,
        thresholds_from_json(facts, taxonomy.labels, path),
        threads,
        "exact" if facts["precision"] == "int8" else "not asked",
        encoder_from_facts(facts),
        name,
        provenance_of(facts),
        facts.get("unfamiliar") is True,
    )


def require_openvino(what: str, instead: str) -> None:
    """Refuse what needs OpenVINO, in one line, where it is not installed."""
    assert find_spec("openvino"), (
        f"{what}: OpenVINO is not installed here; `pip install -r requirements-openvino.txt`, or {instead}"
    )


def open_network(path: Path, threads: int, engine: Engine) -> tuple[Network, str, dict[str, Any], str]:
    """A file's network, the engine in words, its facts and its digest; nothing of it is trusted unchecked."""
    # the file is whole, and holds nothing but a network
    with ThreadPoolExecutor(1) as pool:  # two digests of the same file, side by side
        whole = pool.submit(sha256, path)
        state, weights = inspect(path)
    assert state != "damaged", (
        f"{path}{f' or {weights.name} beside it' if weights else ''} is damaged: it does not match its digest; "
        "copy it again, or `python quantize.py` anew"
    )
    if path.suffix == ".xml":
        check_own_ir(path, weights)
    else:
        check_graph(path, weights)
    # the engine takes it
    try:
        network, metadata, name = (open_openvino if engine == "openvino" else open_onnxruntime)(path, threads)
    except Exception as error:  # the engines' own errors share no narrower type
        kind = "network of OpenVINO's" if path.suffix == ".xml" else "ONNX file"
        raise AssertionError(f"{path} is damaged or no {kind} ({reason(error)}); copy it again") from error
    # its facts go together
    facts = read_facts(metadata, path)
    assert state == "sound" or not facts.get("sealed"), f"{path} is damaged: its seal is broken; copy it again"
    assert engine == "onnxruntime" or facts["precision"] == "float32", (
        f"{path} is an INT8 file, and OpenVINO multiplies float32 files; point --model at that, or leave out --engine"
    )
    old_weights = path.with_name(f"{path.name}.data")  # of an earlier version
    digest = whole.result() if state == "sound" or not old_weights.is_file() else file_digest([path, old_weights])
    return network, name, facts, digest


def check_own_ir(path: Path, weights: Path | None) -> None:
    """Refuse an .xml that quantize.py did not write, before OpenVINO parses it.

    weights   the file that its digest names beside it
    """
    assert weights is not None, (
        f"{path} is no file of quantize.py's, or is cut off; `python quantize.py --export openvino` writes ours, and "
        "its .bin is copied with it"
    )
    try:
        check_ir(path, weights)
    except ExpatError as error:
        raise AssertionError(f"{path} is damaged, no XML ({error}); copy it again") from None


def float_twin(path: Path, why: str) -> Path:
    """The float32 file that quantize.py wrote beside an INT8 one.

    Errors: where it is not there, one line with the reason it is wanted for.
    """
    twin = path.with_name(path.name.replace(".int8", ""))
    assert twin != path and twin.is_file(), (
        f"{why}; copy the float32 file that quantize.py wrote to {twin}, or score on another machine or engine"
    )
    return twin


def options_for(path: Path) -> ort.SessionOptions:
    """What a file is opened with. Weights of eight bits are multiplied in another way only on a CPU that would get them
    wrong: with VNNI that way takes a third longer for the same answers."""
    return bounded_options(exact=bool(int8_fault(exact=False)) and has_wide_weights(path))


def open_onnxruntime(path: Path, _threads: int) -> tuple[Network, Mapping[str, str], str]:
    """A graph as ONNX Runtime runs it, a thread for each caller; its metadata, and what the engine is called."""
    session = ort.InferenceSession(str(path), options_for(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def network(samples: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(names, session.run(names, {"waveforms": samples}), strict=True))

    return network, session.get_modelmeta().custom_metadata_map, "onnxruntime"


@cache
def openvino_core() -> Core:
    """OpenVINO, once for a process and to its end.

    With its first model each gives the thread another stack for signals, and takes it away when it goes, for the one
    that it found. Of two that go in the order in which they came the second leaves the thread with a stack that is no
    more, and the next signal that Python handles, Ctrl-C among them, ends the process with a segmentation fault.
    """
    from openvino import Core

    return Core()


def open_openvino(path: Path, threads: int) -> tuple[Network, Mapping[str, str], str]:
    """The same as OpenVINO runs it: in bfloat16 where the CPU multiplies that, by so many callers at a time."""
    from openvino import InferRequest

    limit_process()
    core, own = openvino_core(), threading.local()
    model = core.read_model(str(path))  # of an .xml the weights in the .bin of its name
    facts: object = model.get_rt_info(["framework"]).value if model.has_rt_info(["framework"]) else {}
    settings = {"NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(model, "CPU", settings)
    names = [output.get_any_name() for output in compiled.outputs]

    def network(samples: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        request: InferRequest = own.request
        answers = request.infer({"waveforms": samples})
        return {name: np.asarray(answers[name]) for name in names}

    # first calls from two threads at once can wait for each other for ever: one holds Python's lock and wants what the
    # other is making for the first time, so the first call of all is here
    shape = compiled.input("waveforms").get_partial_shape()
    network(np.zeros((1, shape[1].get_length()), np.float32))
    half = compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "bf16"
    return network, cast(Mapping[str, str], facts), f"openvino in {'bfloat16' if half else 'float32'}"


def open_quicker(path: Path, threads: int) -> Scorer:
    """The engine that scores this file in less time here, ONNX Runtime unless the other one is clearly quicker.

    OpenVINO is only timed where it can be: on a CPU with AMX. Anywhere else it multiplies in float32, and takes half as
    long again as our INT8 file (docs/serving.md).
    """
    ours = open_scorer(path, threads)
    twin = path.with_name(path.name.replace(".int8", ""))
    if not openvino_may_be_quicker() or not twin.is_file():
        return ours
    theirs = open_scorer(path, threads, "openvino")
    noise = np.random.default_rng(0).normal(0, 0.1, (threads, context_samples(ours.audio))).astype(np.float32)
    times: list[list[float]] = []
    for _ in range(TRIED + 1):  # the first one warms up
        times.append([seconds_to_score(scorer, noise) for scorer in (ours, theirs)])
    one, other = (1000 * statistics.median(each) / threads for each in zip(*times[1:], strict=True))
    show(f"--engine auto: {one:.1f} ms a context with ONNX Runtime, {other:.1f} ms with OpenVINO")
    return theirs if other < FASTER * one else ours


def openvino_may_be_quicker() -> bool:
    """Whether it is worth timing: it is installed, and the CPU has AMX."""
    return "amx_bf16" in cpu_flags() and find_spec("openvino") is not None


def context_samples(audio: AudioSettings) -> int:
    return round(audio.context_seconds * audio.sample_rate)


def seconds_to_score(scorer: Scorer, contexts: NDArray[np.float32]) -> float:
    begun = time.perf_counter()
    score(scorer, contexts)
    return time.perf_counter() - begun


def encoder_from_facts(facts: Mapping[str, Any]) -> str:
    """The encoder in words; of an ensemble that of each member, as far as the file says."""
    members: object = provenance_of(facts).get("members")
    if not isinstance(members, list):
        return network_from_facts(facts)
    each = [cast(dict[str, Any], one) for one in cast(list[object], members) if isinstance(one, dict)]
    networks = [cast(dict[str, Any], one["network"]) for one in each if isinstance(one.get("network"), dict)]
    return ensemble_in_words([words for network in networks if (words := network_from_facts(network))], len(each))


def ensemble_in_words(encoders: Sequence[str], count: int) -> str:
    """ensemble of 3: 2 x base, AudioCNN.

    encoders   in words; of members that do not say there is none
    """
    named = [f"{times} x {words}" if times > 1 else words for words, times in Counter(encoders).items()]
    return f"ensemble of {count}{': ' if named else ''}{', '.join(named)}"


def network_from_facts(facts: Mapping[str, Any]) -> str:
    """base, `base, the lowest 3 of 6 layers`, or another kind and name; nothing where the file says nothing known."""
    if isinstance(stored := facts.get("picture"), dict):
        other = cast(dict[str, Any], stored)
        found = PictureSettings(other.get("kind", ""), str(other.get("name", ""))[:80])
        return found.words if found.known else ""
    size, depth, pool = facts.get("size"), facts.get("depth", 0), facts.get("pool", 1)
    for preset in PRESETS:
        if (
            preset == size
            and type(depth) is int
            and 0 <= depth <= SIZES[preset].layers
            and type(pool) is int
            and 1 <= pool <= MOST_FRAMES // 2
        ):
            return size_in_words(preset, depth or SIZES[preset].layers, pool)
    return ""


def provenance_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of its training; nothing where it says nothing that could be read."""
    stored: object = facts.get("provenance")
    return cast(dict[str, Any], stored) if isinstance(stored, dict) else {}


def int8_fault(exact: bool = True) -> str:
    """What this CPU makes wrong of products whose answers are known, or nothing. A CPU without VNNI adds two products
    of UINT8 and INT8 in 16 bits; that weights of seven bits survive it, and that those of eight are multiplied in
    another way there, is asked here, not hoped. Four milliseconds.

    exact     whether ONNX Runtime is told to multiply weights of eight bits in another way
    source    https://github.com/microsoft/onnxruntime/issues/6004
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if exact:
        options.add_session_config_entry(*EXACT_INT8)
    for levels, packed in KNOWN_GRAPHS.items():
        sounds, weights = known_product(levels)
        session = ort.InferenceSession(
            zlib.decompress(base64.b85decode(packed)), options, providers=["CPUExecutionProvider"]
        )
        expected = sounds @ weights  # of whole numbers below 2**24: exact
        for some in (sounds, sounds[:1]):  # a single row has a kernel of its own
            (given,) = session.run(None, {"sound": some})
            if not np.array_equal(given, expected[: len(some)]):
                worst = int(np.argmax(np.abs(given - expected[: len(some)])))
                return f"a product of {expected.flat[worst]:.0f} came out as {given.flat[worst]:.0f}"
    return ""


def known_product(levels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(rows, 64) sounds and (64, 16) weights of whole numbers that INT8 holds exactly: largest beside largest too.

    levels   the largest weight, 63 of seven bits or 127 of eight
    """
    inputs, outputs = np.arange(64)[:, None], np.arange(16)
    weights = (-1) ** outputs * (levels - (levels + 1) // 8 * (inputs % 8 * (outputs // 2) % 16))
    ramp = inputs[:, 0]
    sounds = np.stack([np.full(64, 255), 255 * (ramp % 2), 4 * ramp, 0 * ramp])
    return sounds.astype(np.float32), weights.astype(np.float32)


def cpu_name() -> str:
    """The CPU's model and what it has for INT8: AMD EPYC, avx2."""
    flags = [flag for flag in INT8_FLAGS if flag in cpu_flags()]
    return f"{cpu_facts().get('model name', platform.machine())}, {' '.join(flags) or 'no INT8 products'}"


def cpu_flags() -> list[str]:
    """What the CPU can do, as Linux calls it."""
    return cpu_facts().get("flags", cpu_facts().get("Features", "")).split()


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
    threads, ahead = scorers[0].threads, 0  # contexts that are not yet answered
    with ThreadPoolExecutor(threads) as pool:
        try:
            for group in groups(pieces, batch):
                samples = [context for _, context in group if context is not None]
                future = pool.submit(mean_answers, scorers, np.stack(samples)) if samples else None
                waiting.append(([tag for tag, _ in group], future))
                ahead += future is not None
                while waiting and (is_done(waiting[0][1]) or ahead > AHEAD * threads):
                    ahead -= waiting[0][1] is not None
                    yield from with_answers(*waiting.popleft())
            while waiting:
                yield from with_answers(*waiting.popleft())
        finally:
            for _, future in waiting:
                if future:
                    future.cancel()


def is_done(future: Future[list[Answer]] | None) -> bool:
    return future is None or future.done()


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


def with_answers(tags: Sequence[Tag], future: Future[list[Answer]] | None) -> Iterator[tuple[Tag, Answer | None]]:
    """Tags with their answers, once those are there."""
    answers = future.result() if future else [None] * len(tags)
    return zip(tags, answers, strict=True)


def mean_answers(scorers: Sequence[Scorer], samples: NDArray[np.float32]) -> list[Answer]:
    """What the models say of each context (contexts, samples) in the mean; the embeddings are those of the first, and
    how unfamiliar a window is only a model by itself can say."""
    every = [answers_of(scorer, samples) for scorer in scorers]
    if len(every) == 1:
        return every[0]
    found: list[Answer] = []
    for same in zip(*every, strict=True):
        mean = mean_as_logits(np.stack([one.probabilities for one in same])).astype(np.float32)
        found.append(Answer(mean, same[0].embeddings))
    return found


def answers_of(scorer: Scorer, samples: NDArray[np.float32]) -> list[Answer]:
    """What a model says of each context of a batch (contexts, samples).

    Errors: NaN and the like are refused before the network, where INT8 would spread them over a batch or swallow them.
    """
    peak = max(float(samples.max()), -float(samples.min()))
    assert peak <= LOUDEST, f"a sample of {peak:g} is no sound; silence it before scoring, as sounds/audio.py does"
    outputs = run(scorer, samples)
    wanted = (len(samples) * scorer.windows, len(scorer.taxonomy.labels))
    given = outputs.get("probabilities", np.zeros((wanted[0], 0), np.float32))  # none of a file that only embeds
    assert given.shape == wanted, f"{scorer.path} answers {given.shape}, not {wanted} probabilities"
    low, high = (given.min(), given.max()) if given.size else (0.0, 0.0)
    hint = f"; is the activation in the card {scorer.card['card']} right?" if scorer.card else ""
    assert low >= 0 and high <= 1, (
        f"{scorer.path} answers {given.shape} between {low:.2f} and {high:.2f}, not {wanted} probabilities{hint}"
    )
    vectors = outputs.get("embeddings", np.zeros((len(given), 0), np.float32))
    assert vectors.ndim == 2 and len(vectors) == len(given), f"{scorer.path}: {vectors.shape} embeddings for {wanted}"
    every = [given, vectors, *([strangeness(scorer, outputs, len(given))] if scorer.unfamiliar else [])]
    return [Answer(*each) for each in zip(*(np.split(part, len(samples)) for part in every), strict=True)]


def strangeness(scorer: Scorer, outputs: Mapping[str, NDArray[np.float32]], windows: int) -> NDArray[np.float32]:
    """How unlike its training each window is, (windows,) 0 to 1, as the file says that it tells."""
    found = outputs.get("unfamiliar", np.zeros(0, np.float32))
    sound = found.shape == (windows,) and bool(((found >= 0) & (found <= 1)).all())
    assert sound, f"{scorer.path} does not tell how unfamiliar its {windows} windows are; `python quantize.py` anew"
    return found


def run(scorer: Scorer, samples: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The outputs of the network by name."""
    try:
        return scorer.network(samples)
    except Exception as error:  # the engines' own errors share no narrower type
        raise AssertionError(
            f"{scorer.path} cannot be run ({reason(error)}); make it again, or where memory is short lower --threads "
            "and --batch_size"
        ) from error


def reason(error: Exception) -> str:
    """What an engine says, in short; OpenVINO begins with where in its own code it was."""
    lines = (line for line in str(error).splitlines() if not re.match(r"Exception from |Check '.*' failed at |$", line))
    return next(lines, "")[:300]


def file_digest(paths: Sequence[Path]) -> str:
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
    assert text is not None, (
        f"{path} is an ONNX file of another origin; say with --card what it takes and gives, or give one that "
        "`python quantize.py` wrote"
    )
    facts = json_object(text, f"{path}: its metadata", "`python quantize.py` writes it anew")
    lacking = NEEDED - facts.keys()
    assert not lacking, f"{path} does not say its {', '.join(sorted(lacking))}; `python quantize.py` writes it anew"
    version: object = facts["format"]
    assert isinstance(version, int), f"{path}: the format {version!r} is no number; `python quantize.py` writes it anew"
    assert version <= FORMAT, f"{path} was written by a later version (format {version})"
    return facts


if __name__ == "__main__":
    import onnx
    from onnx import TensorProto, helper

    from taxonomy import to_json

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loudness.onnx"  # a "model" of one species, which is present as far as it is loud
        nodes = [helper.make_node("ReduceL1", ["waveforms"], ["sum"], axes=[1])]
        nodes += [helper.make_node("Tanh", ["sum"], ["probabilities"])]
        shapes: dict[str, list[str | int | None]] = {"waveforms": ["batch", 80_000], "probabilities": ["batch", 1]}
        given, answered = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in shapes)
        graph = helper.make_graph(nodes, "loudness", [given], [answered])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        names = Taxonomy(("noise1",), ("Sonus clarus",), ("pretend noise",), (tuple("abcdefg"),), (7,))
        facts = {"format": FORMAT, "audio": {}, "taxonomy": to_json(names), "precision": "float32", "verified": False}
        helper.set_model_props(model, {METADATA: json.dumps(facts)})
        onnx.save(model, path)
        scores = score(open_scorer(path), np.stack([np.zeros(80_000), np.ones(80_000)]).astype(np.float32))
        print("silence and noise:", scores[:, 0].tolist())
        assert scores[:, 0].tolist() == [0.0, 1.0]
