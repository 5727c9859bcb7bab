"""Files, tables and names as somebody who means harm would make them, each given to the command that would meet it.

    python tests/hostile.py FOLDER        # a line of JSON for each kind; what it did is in FOLDER

Each kind is tried in a forked process of its own: in a folder of its own, with limits on memory and time, and watched
by Python's audit hook, which sees what Python opens, starts, connects to, unpickles and compiles. What C and Rust open
it does not see, nor what decoding processes do, which are forked elsewhere: for that the slow test traces the system's
calls.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn
from unittest.mock import patch

HERE = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(HERE), str(HERE / "tests")) if path not in sys.path]

MARKER = "PWNED"  # a file that every payload tries to make
MEMORY, SECONDS = 3 * 2**30, 30  # that a kind may take
FORBIDDEN = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class"}
Verdict = Literal["refused", "row", "harmless"]


class Kind(NamedTuple):
    """Something hostile: how to make it, who meets it, and how that ends."""

    name: str
    make: Callable[[Path, Path], None]  # (folder of the kind, folder of good files)
    meet: Callable[[Path], int]
    verdict: Verdict  # refused: one line, exit 1; row: goes on, and says why; harmless: goes on
    words: str = ""  # a regular expression that what is said matches


@dataclass
class Outcome:
    """What became of a kind."""

    name: str
    code: int  # exit code, minus the signal
    out: str = ""
    error: str = ""
    seconds: float = 0.0
    marker: bool = False
    opened: str = ""  # what it should not have


class Payload:
    """What a pickle does when it is loaded."""

    def __reduce__(self) -> tuple[Callable[[list[str]], int], tuple[list[str]]]:
        return subprocess.call, (["touch", MARKER],)


# ---- trying a kind ------------------------------------------------------------------------------------------------


def attempt(kind: Kind, folder: Path, good: Path) -> Outcome:
    """Make it, meet it in a child, and look at what happened."""
    place = folder / kind.name
    place.mkdir(parents=True)
    kind.make(place, good)
    started = time.monotonic()
    child = os.fork()
    if not child:
        meet(kind, place)
    _, status = os.waitpid(child, 0)
    said = [place.with_name(f"{kind.name}.{end}").read_text("utf-8", "surrogateescape") for end in ("out", "err")]
    opened = place.with_name(f"{kind.name}.opened")
    return Outcome(
        kind.name,
        os.waitstatus_to_exitcode(status),
        said[0],
        said[1],
        round(time.monotonic() - started, 2),
        any(folder.rglob(MARKER)) or Path(MARKER).exists(),
        opened.read_text() if opened.is_file() else "",
    )


def meet(kind: Kind, place: Path) -> NoReturn:
    """In the child: what it says goes to files, what it does is watched."""
    for number, end in ((1, "out"), (2, "err")):
        os.dup2(os.open(place.with_name(f"{kind.name}.{end}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(n, "wb", 0), "utf-8", write_through=True) for n in (1, 2))
    log = os.open(place.with_name(f"{kind.name}.opened"), os.O_WRONLY | os.O_CREAT)
    os.chdir(place)
    memory = int(Path("/proc/self/statm").read_text().split()[0]) * 4096 + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(SECONDS)
    watch(place, log)
    code = 1
    try:
        code = kind.meet(place)
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except AssertionError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
    except BaseException as error:
        print(f"unexpected: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def watch(place: Path, log: int) -> None:
    """From here on note what must not happen; a hook cannot be taken off again."""
    inside = [str(place), "/tmp/wildwhisper/", "/dev/null", "/dev/shm", "/dev/tty"]
    readable = [*inside, sys.prefix, sys.base_prefix, str(HERE), "/proc/", "/sys/", "/usr/", "/lib", "/etc/localtime"]
    readable += ["/dev/urandom", "/etc/mime.types", "/etc/ld.so", str(Path(sys.prefix).resolve()), "/etc/ssl", "/var/"]

    def hook(event: str, told: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(told[0], str | bytes) and told[0]:
            name = os.path.realpath(os.fsdecode(told[0]))
            writes = bool((told[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if not name.startswith(tuple(inside if writes else readable)):
                os.write(log, f"{'wrote' if writes else 'read'} {name!r}\n".encode())
        elif event in FORBIDDEN or (event == "compile" and MARKER in str(told[0])):
            os.write(log, f"{event} {str(told)[:200]}\n".encode())

    sys.addaudithook(hook)


# ---- who meets it -------------------------------------------------------------------------------------------------


def command(script: str, *words: str) -> Callable[[Path], int]:
    """A command as it is given on the command line."""

    def run(_place: Path) -> int:
        import predictor
        import report
        from config import PredictCommand, ReportCommand
        from runtime.terminal import launch

        sys.argv = [f"{script}.py", *words]
        if script == "predictor":
            launch(predictor.predict, PredictCommand)
        launch(report.report, ReportCommand)

    return run


def scored(model: str = "model.onnx", *words: str) -> Callable[[Path], int]:
    return command("predictor", "sound.wav", "--model", model, "--threads", "1", "--min_conf", "0", *words)


def archive(*words: str) -> Callable[[Path], int]:
    """The predictor over a folder, into tables."""
    return command(
        "predictor", "in", "--model", "model.onnx", "--threads", "1", "--min_conf", "0", "--out", "out", *words
    )


def classifier(place: Path) -> int:
    from training.checkpoint import load_classifier

    model, facts = load_classifier(place / "classifier.safetensors")
    print(f"loaded {len(facts.taxonomy.labels)} labels, {sum(p.numel() for p in model.parameters())} numbers")
    return 0


def encoder(name: str = "encoder.safetensors") -> Callable[[Path], int]:
    def load(place: Path) -> int:
        from config import AudioSettings, EncoderSettings
        from training.checkpoint import load_encoder

        load_encoder(EncoderSettings("demo", str(place / name)), AudioSettings())
        return 0

    return load


def resumed(place: Path) -> int:
    import torch
    from torch import nn

    from training.states import StateWriter

    model = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    writer = StateWriter(place / "states", {"model": model, "optimizer": optimizer}, torch.Generator())
    print(writer.restore())
    return 0


def collected(place: Path, name: str = "data") -> int:
    from archive.layouts import read_collection
    from config import DataSettings

    collection = read_collection(DataSettings(place / name))
    for line in collection.notes:
        print(line)
    for row in collection.recordings:
        print(f"{row.status} {row.name!r} {row.reason}")
        assert not row.sound or row.path.resolve().is_relative_to(place), f"{row.path} is outside"
    return 0


def collected_table(place: Path) -> int:
    return collected(place, "data/recordings.csv")


# ---- how it is made -----------------------------------------------------------------------------------------------


def write_good(folder: Path) -> None:
    """Files as our own commands write them, small."""
    import numpy as np
    import soundfile
    import torch

    from config import SIZES, AudioSettings, HeadSettings
    from model import BirdClefClassifier, Encoder
    from taxonomy import Taxonomy
    from training.checkpoint import ClassifierFacts, save_classifier, save_encoder

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    audio, kin = AudioSettings(), ("Animalia", "Chordata", "Aves", "Passeriformes", "Fictidae", "Ficta")
    names = Taxonomy(("a", "b"), ("Ficta a", "Ficta b"), ("one", "two"), ((*kin, "a"), (*kin, "b")), (7, 7))
    network = Encoder(SIZES["demo"], audio)
    save_encoder(folder / "encoder.safetensors", network, "demo", audio, {})
    save_classifier(
        folder / "classifier.safetensors",
        BirdClefClassifier(network, audio, 2, HeadSettings()),
        ClassifierFacts("demo", audio, HeadSettings(), names, {}),
    )
    sound = np.random.default_rng(0).normal(0, 0.1, 6 * 16_000)
    soundfile.write(folder / "sound.wav", sound, 16_000)
    outside = folder / "outside"  # what nobody may open
    outside.mkdir()
    soundfile.write(outside / "secret.wav", sound, 16_000)
    (outside / "secret.data").write_bytes(np.full(80_000, 0.125, np.float32).tobytes())
    (outside / "model.safetensors").write_bytes((folder / "encoder.safetensors").read_bytes())


def put(name: str, content: bytes | str) -> Callable[[Path, Path], None]:
    def make(place: Path, _good: Path) -> None:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def payload(name: str) -> Callable[[Path, Path], None]:
    return put(name, pickle.dumps({"model": Payload()}))


def hub(**changes: object) -> Callable[[Path, Path], None]:
    """A folder in the hub's format, its config.json changed; a value of ... takes a key away."""

    def make(place: Path, good: Path) -> None:
        (place / "hub").mkdir()
        config = json.loads((good / "whisper" / "config.json").read_text()) | changes
        (place / "hub" / "config.json").write_text(json.dumps(config))
        (place / "hub" / "model.safetensors").write_bytes((good / "encoder.safetensors").read_bytes())

    return make


def hub_with(more: Mapping[str, bytes], whole: bool = True) -> Callable[[Path, Path], None]:
    def make(place: Path, good: Path) -> None:
        hub()(place, good)
        if not whole:
            (place / "hub" / "model.safetensors").unlink()
        for name, content in more.items():
            (place / "hub" / name).write_bytes(content)

    return make


def index(weight_map: object) -> Callable[[Path, Path], None]:
    return hub_with({"model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode()}, whole=False)


def tensors(header: Mapping[str, object] | str, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file laid down by hand."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype: str, shape: Sequence[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def facts(change: Callable[[dict[str, Any]], object], name: str = "classifier") -> Callable[[Path, Path], None]:
    """A good file of ours whose facts were changed: tensors and digest are right."""

    def make(place: Path, good: Path) -> None:
        from runtime.digests import write_digest

        raw = (good / f"{name}.safetensors").read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + size])
        told = json.loads(header["__metadata__"]["wild_whisper"])
        changed = change(told)
        header["__metadata__"]["wild_whisper"] = changed if isinstance(changed, str) else json.dumps(told)
        (place / f"{name}.safetensors").write_bytes(tensors(header, raw[8 + size :]))
        write_digest(place / f"{name}.safetensors")

    return make


def sparse(name: str, size: int) -> Callable[[Path, Path], None]:
    def make(place: Path, _good: Path) -> None:
        with (place / name).open("wb") as file:
            file.write(struct.pack("<Q", size - 8))
            file.truncate(size)

    return make


def state(content: object) -> Callable[[Path, Path], None]:
    """A state with a right digest in its name."""

    def make(place: Path, _good: Path) -> None:
        import torch

        from training.states import state_digest

        folder = place / "states"
        folder.mkdir()
        path = folder / "state.pt"
        made = content() if callable(content) else content
        if isinstance(made, bytes):
            path.write_bytes(made)
        else:
            torch.save(made, path)
        path.rename(folder / f"state-000100001-{state_digest(path)}.pt")

    return make


def good_state() -> dict[str, Any]:
    import torch
    from torch import nn

    model = nn.Linear(3, 1)
    parts = {"model": model.state_dict(), "optimizer": torch.optim.AdamW(model.parameters()).state_dict()}
    rest = {"generator": torch.Generator().get_state(), "torch": [torch.get_rng_state()], "cuda": list[Any]()}
    return {"progress": {"epoch": 1}, "data": "", "parts": parts, **rest}


def greedy_state() -> dict[str, Any]:
    import torch

    made = good_state()
    made["parts"]["model"]["weight"] = torch.zeros(1).expand(2**31)
    return made


def unforced(name: str) -> Callable[[Path], int]:
    """Where the environment makes torch's default run pickles."""

    def run(place: Path) -> int:
        os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
        return resumed(place) if name == "state" else classifier(place)

    return run


def toy(
    nodes: Callable[[Any], Sequence[Any]] | None = None,
    told: Mapping[str, object] | str | None = None,
    shape: Sequence[int | str] = ("batch", 80_000),
    after: Callable[[Any, Path, Path], object] | None = None,
) -> Callable[[Path, Path], None]:
    """An ONNX file of ours beside a recording, changed.

    nodes   of the graph, from `waveforms` to `probabilities`; told: facts that differ; after: what else is done to it
    """

    def make(place: Path, good: Path) -> None:
        import onnx
        from onnx import TensorProto, helper

        from serving.scorer import FORMAT, METADATA

        plain = [helper.make_node("ReduceL1", ["waveforms", "axes"], ["sum"]), helper.make_node("Tanh", ["sum"], ["p"])]
        plain.append(helper.make_node("Clip", ["p"], ["probabilities"]))
        graph = helper.make_graph(
            list(nodes(helper)) if nodes else plain,
            "toy",
            [helper.make_tensor_value_info("waveforms", TensorProto.FLOAT, list(shape))],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None)],
            [
                helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
                helper.make_tensor("huge", TensorProto.INT64, [2], [2**20, 2**15]),
                helper.make_tensor("pads", TensorProto.INT64, [4], [0, 0, 0, 2**35]),
            ],
        )
        versions = [helper.make_opsetid("", 18), helper.make_opsetid("evil", 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=8)
        ours: dict[str, object] = {
            "format": FORMAT,
            "audio": dict[str, object](),
            "precision": "float32",
            "verified": True,
        } | labelled()
        text = told if isinstance(told, str) else json.dumps(ours | dict(told or {}))
        if told != "nothing":
            helper.set_model_props(model, {METADATA: text})
        if after:
            after(model, place, good)
        (place / "sound.wav").write_bytes((good / "sound.wav").read_bytes())
        onnx.save(model, place / "model.onnx")

    return make


def labelled(**names: list[str]) -> dict[str, object]:
    """The facts of one label under other names."""
    lineage = [["a", "b", "c", "d", "e", "f", "g"]]
    from taxonomy import RANKS

    plain: dict[str, object] = {"labels": ["x"], "scientific_names": ["Ficta x"], "common_names": ["frog"]}
    return {"taxonomy": {"ranks": list(RANKS), "lineages": lineage, "finest": [7]} | plain | names}


def elsewhere(location: str, link: str = "") -> Callable[[Any, Path, Path], object]:
    """Weights outside of the file; link: how model.onnx.data leads out of the folder."""

    def change(model: Any, place: Path, good: Path) -> object:
        from onnx import TensorProto

        weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[80_000, 1])
        weight.data_location = TensorProto.EXTERNAL
        where = location.format(good=good, place=place)
        for key, value in (("location", where), ("offset", "0"), ("length", "320000")):
            entry = weight.external_data.add()
            entry.key, entry.value = key, value
        model.graph.initializer.append(weight)
        secret = good / "outside" / "secret.data"
        if link == "soft":
            (place / "model.onnx.data").symlink_to(secret)
        elif link == "hard":
            (place / "model.onnx.data").hardlink_to(secret)
        return None

    return change


def sparse_tensor(model: Any, _place: Path, good: Path) -> object:
    from onnx import SparseTensorProto, TensorProto

    values = TensorProto(name="s", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    entry = values.external_data.add()
    entry.key, entry.value = "location", str(good / "outside" / "secret.data")
    model.graph.sparse_initializer.append(
        SparseTensorProto(
            values=values, dims=[80_000], indices=TensorProto(data_type=7, dims=[4], int64_data=[0, 1, 2, 3])
        )
    )
    return None


def function(model: Any, _place: Path, _good: Path) -> object:
    from onnx import helper

    inner = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(helper.make_function("evil", "Run", ["x"], ["y"], inner, [helper.make_opsetid("", 18)]))
    return None


def loop(helper: Any) -> list[Any]:
    """Ends after 2^62 rounds."""
    kinds = {"more": 9, "round": 7, "x": 1, "same": 9, "y": 1}
    infos = {name: helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()}
    steps = [helper.make_node("Identity", ["more"], ["same"]), helper.make_node("Identity", ["x"], ["y"])]
    body = helper.make_graph(
        steps, "body", [infos["round"], infos["more"], infos["x"]], [infos["same"], infos["y"]], []
    )
    rounds = helper.make_node("Constant", [], ["rounds"], value_int=2**62)
    return [rounds, helper.make_node("Loop", ["rounds", "", "waveforms"], ["probabilities"], body=body)]


def branch(helper: Any) -> list[Any]:
    part = helper.make_graph(
        [helper.make_node("Identity", ["waveforms"], ["z"])], "p", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    yes = helper.make_node("Cast", ["axes"], ["yes"], to=9)
    return [yes, helper.make_node("If", ["yes"], ["probabilities"], then_branch=part, else_branch=part)]


def constant(helper: Any) -> list[Any]:
    from onnx import TensorProto

    inner = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    entry = inner.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"
    return [helper.make_node("Identity", ["waveforms"], ["probabilities"], value=inner)]


def node(operator: str, *inputs: str, **more: Any) -> Callable[[Any], list[Any]]:
    return lambda helper: [helper.make_node(operator, list(inputs or ["waveforms"]), ["probabilities"], **more)]


def doubling(helper: Any) -> list[Any]:
    names = ["waveforms", *(f"x{step}" for step in range(24)), "probabilities"]
    return [helper.make_node("Concat", [one, one], [two], axis=1) for one, two in pairwise(names)]


def after_all(*steps: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    def make(place: Path, good: Path) -> None:
        for step in steps:
            step(place, good)

    return make


def raw(change: Callable[[bytes], bytes]) -> Callable[[Path, Path], None]:
    """The bytes of a good ONNX file, changed."""

    def make(place: Path, good: Path) -> None:
        toy()(place, good)
        path = place / "model.onnx"
        path.write_bytes(change(path.read_bytes()))

    return make


def recording(name: str) -> Callable[[Path, Path], None]:
    """A good recording of a hostile name, in a folder that the predictor is given."""

    def make(place: Path, good: Path) -> None:
        toy()(place, good)
        (place / "in").mkdir()
        (place / "in" / name).write_bytes((good / "sound.wav").read_bytes())
        (place / "in" / "broken.wav").write_text("no sound at all, but more than forty-four bytes of it are here")

    return make


def tarred(_place: Path, _good: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        entry = tarfile.TarInfo(f"../../{MARKER}")
        entry.size = 4
        file.addfile(entry, io.BytesIO(b"boom"))
    return content.getvalue()


def archived(kind: str) -> Callable[[Path, Path], None]:
    def make(place: Path, good: Path) -> None:
        toy()(place, good)
        content = tarred(place, good)
        if kind == "zip":
            target = io.BytesIO()
            with zipfile.ZipFile(target, "w") as file:
                file.writestr(f"../../{MARKER}", "boom")
            content = target.getvalue()
        (place / "in").mkdir()
        (place / "in" / f"recordings.{kind}").write_bytes(content)
        (place / "in" / "sound.wav").write_bytes(content)

    return make


def as_data(place: Path, _good: Path) -> None:
    """What was in a folder `in` as the root of data."""
    (place / "in").rename(place / "data")


def archive_as_root(place: Path) -> int:
    return collected(place, "data/recordings.zip")


def birdclef(cell: str, label: str = "a", more: Mapping[str, str] | None = None) -> Callable[[Path, Path], None]:
    """A competition's folder whose train.csv names a file so, beside a good one."""

    def make(place: Path, good: Path) -> None:
        root = place / "data"
        (root / "train_audio").mkdir(parents=True)
        (root / "train_audio" / "good.wav").write_bytes((good / "sound.wav").read_bytes())
        (root / "train_audio" / "out.wav").symlink_to(good / "outside" / "secret.wav")
        (root / "taxonomy.csv").write_text(
            "primary_label,scientific_name,common_name,class_name\na,Ficta a,one,Aves\nb,Ficta b,two,Aves\n"
        )
        (root / "train.csv").write_text(
            f'primary_label,secondary_labels,filename\na,[],good.wav\n{label},[],"{cell.format(good=good)}"\n'
        )
        for name, content in (more or {}).items():
            (root / name).write_text(content.format(good=good))

    return make


def table(name: str, content: str) -> Callable[[Path, Path], None]:
    """A table beside a good recording."""

    def make(place: Path, good: Path) -> None:
        root = place / "data"
        root.mkdir()
        (root / "good.wav").write_bytes((good / "sound.wav").read_bytes())
        (root / name).write_text(content.format(good=good, place=place, root=root))

    return make


def results(
    rows: Sequence[str] = (), run: str = "{}", files: str = "file,status\n", more: Mapping[str, str] | None = None
) -> Callable[[Path, Path], None]:
    """A folder of results beside a recording."""

    def make(place: Path, good: Path) -> None:
        (place / "results").mkdir()
        (place / "sound.wav").write_bytes((good / "sound.wav").read_bytes())
        header = "Start (s),End (s),Scientific name,Common name,Confidence,File,Species code"
        lines = [header, *(row.format(good=good) for row in rows or ["0,5,Ficta x,frog,0.9,sound.wav,x"])]
        (place / "results" / "detections.csv").write_text("\n".join(lines) + "\n")
        (place / "results" / "files.csv").write_text(files)
        (place / "results" / "run.json").write_text(run)
        for name, content in (more or {}).items():
            (place / name).write_text(content)

    return make


def change(*path: str, value: object) -> Callable[[dict[str, Any]], object]:
    """Facts with one of them replaced."""

    def apply(told: dict[str, Any]) -> object:
        inner = told
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        return None

    return apply


DEEP = "[" * 100_000
ONE = tensors({"x": tensor("F32", [1], 0, 4)}, bytes(4))
REFUSED_PATHS = {
    "up": "../../outside/secret.wav",
    "absolute": "{good}/outside/secret.wav",
    "home": "~/secret.wav",
    "drive": "C:\\\\secret.wav",
    "nul": "good\0.wav",
    "scheme": "file:///etc/hostname",
    "backslashes": "..\\\\..\\\\outside\\\\secret.wav",
    "link": "out.wav",
}
HOSTILE_NAMES = {
    "markup": "<img src=x onerror=alert(1)>.wav",
    "formula": "=cmd|' -C touch PWNED'!A0.wav",
    "shell": "; touch PWNED; $(touch PWNED) `touch PWNED`.wav",
    "format": "%s%n{0}{__class__}.wav",
    "escape": "\x1b[2J\x1b]0;owned\x07.wav",
    "lines": "a\nerror: all is lost\r.wav",
    "bidi": "\u202egnp.wav",
    "long": "n" * 250 + ".wav",
    "glob": "[a-z]*.wav",
    "dash": "--restart.wav",
    "no_utf8": os.fsdecode(b"owl\xff\x9b31m.wav"),
}


def kinds() -> list[Kind]:
    """The table: who meets what, and how it ends."""
    return [*weight_kinds(), *state_kinds(), *graph_kinds(), *name_kinds(), *table_kinds(), *report_kinds()]


def weight_kinds() -> list[Kind]:
    no_file = "damaged or no safetensors file"
    tag = '<img onerror="x">\x1b[2J'
    return [
        Kind("pickle_as_classifier", payload("classifier.safetensors"), classifier, "refused", no_file),
        Kind("pickle_as_encoder", payload("encoder.safetensors"), encoder(), "refused", no_file),
        Kind("pickle_forced", payload("classifier.safetensors"), unforced("classifier"), "refused", no_file),
        Kind(
            "hub_only_bin",
            hub_with({"pytorch_model.bin": pickle.dumps(Payload())}, whole=False),
            encoder("hub"),
            "refused",
            "only safetensors are read",
        ),
        Kind("hub_bin_beside", hub_with({"pytorch_model.bin": pickle.dumps(Payload())}), encoder("hub"), "harmless"),
        Kind(
            "hub_remote_code",
            after_all(
                hub(auto_map={"AutoModel": "evil.Evil"}, trust_remote_code=True, architectures=["Evil"]),
                put("hub/evil.py", f"open('{MARKER}', 'w')"),
            ),
            encoder("hub"),
            "harmless",
        ),
        Kind(
            "hub_tokenizer",
            hub_with({"preprocessor_config.json": DEEP.encode(), "tokenizer.json": pickle.dumps(Payload())}),
            encoder("hub"),
            "harmless",
        ),
        Kind("hub_gigantic", hub(d_model=10**15, encoder_layers=10**9), encoder("hub"), "refused", "are understood"),
        Kind("hub_negative", hub(encoder_layers=-3), encoder("hub"), "refused", "are understood"),
        Kind("hub_nan", hub(d_model=float("nan")), encoder("hub"), "refused", "are understood"),
        Kind("hub_type", hub(model_type=["whisper"]), encoder("hub"), "refused", "not whisper"),
        Kind("hub_deep", hub_with({"config.json": DEEP.encode()}), encoder("hub"), "refused", "is damaged"),
        Kind("hub_list", hub_with({"config.json": b"[1]"}), encoder("hub"), "refused", "holds no JSON object"),
        Kind("hub_no_utf8", hub_with({"config.json": b"\xff\xfe{"}), encoder("hub"), "refused", "is damaged"),
        Kind("index_up", index({"x": "../model.safetensors"}), encoder("hub"), "refused", "outside its folder"),
        Kind("index_absolute", index({"x": "/etc/hostname"}), encoder("hub"), "refused", "outside its folder"),
        Kind("index_list", index(["a"]), encoder("hub"), "refused", "outside its folder, or none"),
        Kind("index_number", index({"x": 7}), encoder("hub"), "refused", "outside its folder, or none"),
        Kind("index_long", index({"x": "n" * 5_000}), encoder("hub"), "refused", "outside its folder, or none"),
        Kind("header_length", put("encoder.safetensors", tensors({}, length=2**63)), encoder(), "refused", no_file),
        Kind("header_100mb", sparse("encoder.safetensors", 100_000_000), encoder(), "refused", no_file),
        Kind("sparse_64gib", sparse("classifier.safetensors", 2**36), classifier, "refused", "64 GiB, more than any"),
        Kind(
            "offsets_overlap",
            put(
                "encoder.safetensors",
                tensors({"x": tensor("F32", [2], 0, 8), "y": tensor("F32", [2], 4, 12)}, bytes(12)),
            ),
            encoder(),
            "refused",
            no_file,
        ),
        Kind(
            "offsets_negative",
            put("encoder.safetensors", tensors({"x": tensor("F32", [1], -4, 0)}, bytes(4))),
            encoder(),
            "refused",
            no_file,
        ),
        Kind(
            "shape_overflow",
            put("encoder.safetensors", tensors({"x": tensor("F32", [2**40, 2**40], 0, 4)}, bytes(4))),
            encoder(),
            "refused",
            no_file,
        ),
        Kind(
            "dtype_unknown",
            put("encoder.safetensors", tensors({"x": tensor("OBJECT", [1], 0, 4)}, bytes(4))),
            encoder(),
            "refused",
            no_file,
        ),
        Kind(
            "keys_twice",
            put("encoder.safetensors", tensors('{"x":%s,"x":%s}' % ((json.dumps(tensor("F32", [1], 0, 4)),) * 2))),
            encoder(),
            "refused",
            no_file,
        ),
        Kind("no_facts", put("classifier.safetensors", ONE), classifier, "refused", "no classifier of this project"),
        Kind("facts_deep", facts(lambda _: DEEP), classifier, "refused", "its header is damaged"),
        Kind("facts_list", facts(lambda _: "[]"), classifier, "refused", "holds no JSON object"),
        Kind("facts_lack", facts(lambda told: told.pop("audio") and None), classifier, "refused", "does not say its"),
        Kind("facts_version", facts(change("format", value="x")), classifier, "refused", "is no number"),
        Kind(
            "labels_million",
            facts(change("taxonomy", "labels", value=["x"] * 1_000_000)),
            classifier,
            "refused",
            "1000000 labels with",
        ),
        Kind(
            "labels_markup",
            facts(change("taxonomy", "common_names", value=[tag, "=1+1"])),
            classifier,
            "harmless",
            "loaded 2 labels",
        ),
        Kind(
            "lineage_cycle",
            facts(change("taxonomy", "lineages", value=[["a", "b", "a", "b", "a", "b", "a"]] * 2)),
            classifier,
            "harmless",
            "loaded 2 labels",
        ),
        Kind(
            "lineage_long",
            facts(change("taxonomy", "lineages", value=[["a"] * 100_000] * 2)),
            classifier,
            "refused",
            "lineage",
        ),
        Kind("head_negative", facts(change("head", "layers", value=-1)), classifier, "refused", "give 1 or more"),
        Kind("head_layers", facts(change("head", "layers", value=10**9)), classifier, "refused", "a head of"),
        Kind("head_dropout", facts(change("head", "dropout", value=1.0)), classifier, "refused", "less than 1"),
        Kind("head_nan", facts(change("head", "dropout", value=float("nan"))), classifier, "refused", "less than 1"),
        Kind("head_old", facts(change("head", "hidden", value=60_000)), classifier, "refused", "HeadSettings with"),
        Kind("head_pooling", facts(change("head", "pooling", value="mean")), classifier, "refused", "pooling mean"),
        Kind("head_strange", facts(change("head", "__class__", value="x")), classifier, "refused", "HeadSettings with"),
        Kind("audio_text", facts(change("audio", "sample_rate", value="1")), classifier, "refused", "AudioSettings"),
        Kind("audio_nan", facts(change("audio", "window_seconds", value=float("nan"))), classifier, "refused", "nan"),
        Kind("audio_zero", facts(change("audio", "window_seconds", value=0)), classifier, "refused", "window_seconds"),
    ]


def state_kinds() -> list[Kind]:
    import torch

    def progress(**more: object) -> Callable[[], dict[str, Any]]:
        return lambda: good_state() | {"progress": {"epoch": 1} | more}

    pickled = pickle.dumps({"progress": Payload()})
    return [
        Kind("state_pickle", state(pickled), resumed, "refused", "no state of this program"),
        Kind("state_reduce", state({"progress": Payload()}), resumed, "refused", "no state of this program"),
        Kind("state_forced", state({"progress": Payload()}), unforced("state"), "refused", "no state of this program"),
        Kind("state_expanded", state(greedy_state), resumed, "refused", "a tensor of 8589934592"),
        Kind("state_garbage", state(os.urandom(5_000)), resumed, "refused", "no state of this program"),
        Kind("state_list", state([1, 2]), resumed, "refused", "lacks"),
        Kind("state_strange", state(progress(evil=1)), resumed, "refused", "no state of this loop"),
        Kind(
            "state_other",
            state(lambda: good_state() | {"parts": {"model": {"weight": torch.zeros(9)}}}),
            resumed,
            "refused",
            "no state of this loop",
        ),
        Kind("state_good", state(good_state), resumed, "harmless", "going on in epoch 1"),
    ]


def graph_kinds() -> list[Kind]:
    out = "only read from model.onnx.data beside it"
    short = "cannot be run|damaged or no ONNX"
    steering = labelled(scientific_names=["\x1b[2JFicta"], common_names=["\x1b]0;owned\x07frog"])
    return [
        Kind("onnx_good", toy(), scored(), "harmless", "frog"),
        Kind("onnx_up", toy(after=elsewhere("../../good/outside/secret.data")), scored(), "refused", out),
        Kind("onnx_absolute", toy(after=elsewhere("{good}/outside/secret.data")), scored(), "refused", out),
        Kind("onnx_symlink", toy(after=elsewhere("model.onnx.data", "soft")), scored(), "refused", "is a link"),
        Kind("onnx_hard_link", toy(after=elsewhere("model.onnx.data", "hard")), scored(), "refused", "is a link"),
        Kind("onnx_data_missing", toy(after=elsewhere("model.onnx.data")), scored(), "refused", "is missing"),
        Kind("onnx_sparse", toy(after=sparse_tensor), scored(), "refused", "sparse tensors"),
        Kind("onnx_attribute_data", toy(constant), scored(), "refused", "a tensor of its own"),
        Kind("onnx_loop", toy(loop), scored(), "refused", "'Loop'|'Constant'"),
        Kind("onnx_if", toy(branch), scored(), "refused", "'If'"),
        Kind("onnx_constant_of_shape", toy(node("ConstantOfShape", "huge")), scored(), "refused", "'ConstantOfShape'"),
        Kind("onnx_expand_128gib", toy(node("Expand", "waveforms", "huge")), scored(), "refused", short),
        Kind("onnx_pad_128gib", toy(node("Pad", "waveforms", "pads")), scored(), "refused", short),
        Kind("onnx_doubling", toy(doubling), scored(), "refused", short),
        Kind("onnx_domain", toy(node("Run", domain="evil")), scored(), "refused", "'evil.Run'"),
        Kind("onnx_function", toy(after=function), scored(), "refused", "functions"),
        Kind("onnx_text", put("model.onnx", "hello" * 9), scored(), "refused", "not found"),
        Kind("onnx_no_onnx", raw(lambda _: b"hello" * 99), scored(), "refused", "damaged or no ONNX"),
        Kind("onnx_empty", raw(lambda _: b""), scored(), "refused", "is empty"),
        Kind("onnx_cut", raw(lambda content: content[:200]), scored(), "refused", "damaged or no ONNX"),
        Kind("onnx_pickle", raw(lambda _: pickle.dumps(Payload())), scored(), "refused", "damaged or no ONNX"),
        Kind("onnx_no_facts", toy(told="nothing"), scored(), "refused", "of another origin"),
        Kind("onnx_facts_deep", toy(told=DEEP), scored(), "refused", "its metadata is damaged"),
        Kind("onnx_facts_list", toy(told="[]"), scored(), "refused", "holds no JSON object"),
        Kind("onnx_audio", toy(told={"audio": {"sample_rate": -1}}), scored(), "refused", "sample_rate"),
        Kind("onnx_audio_list", toy(told={"audio": [1]}), scored(), "refused", "AudioSettings"),
        Kind("onnx_labels", toy(told=labelled(labels=["x", "y"])), scored(), "refused", "2 labels with"),
        Kind("onnx_ranks", toy(told={"rank_thresholds": {"evil": 1}}), scored(), "refused", "no thresholds of ranks"),
        Kind("onnx_thresholds", toy(told={"thresholds": [1]}), scored(), "refused", "stored threshold"),
        Kind("onnx_shape", toy(shape=("batch", 7)), scored(), "refused", "cannot be run"),
        Kind("onnx_answers", toy(node("Identity")), scored(), "refused", "not .* probabilities"),
        Kind("onnx_no_numbers", toy(node("Log")), scored(), "refused", "not .* probabilities"),
        Kind("onnx_name_steers", toy(told=steering), scored(), "harmless", r"\\x1b\[2JFicta"),
    ]


def name_kinds() -> list[Kind]:
    found = [
        Kind(f"name_{kind}", recording(name), archive("--rtype", "csv", "table", "audacity"), "row", "unreadable")
        for kind, name in HOSTILE_NAMES.items()
    ]
    return [
        *found,
        Kind("archive_zip", archived("zip"), archive(), "refused", "none of the 1 recordings could be analysed"),
        Kind("archive_tar", archived("tar.gz"), archive(), "refused", "none of the 1 recordings could be analysed"),
        Kind(
            "archive_as_root",
            after_all(archived("zip"), as_data),
            archive_as_root,
            "refused",
            "is a file; point",
        ),
    ]


def table_kinds() -> list[Kind]:
    paths = [
        Kind(
            f"path_{kind}",
            birdclef(cell),
            collected,
            "row" if kind in ("home", "drive", "scheme", "backslashes", "nul") else "refused",
            "missing" if kind in ("home", "drive", "scheme", "backslashes") else "leaves|stay below|not in UTF-8",
        )
        for kind, cell in REFUSED_PATHS.items()
    ]
    paths = [kind._replace(verdict="refused") if kind.name == "path_nul" else kind for kind in paths]
    header = "root,path,labels\n"
    return [
        *paths,
        Kind("own_up", table("recordings.csv", header + "{root},../../x.wav,\n"), collected_table, "refused", "leaves"),
        Kind("own_nul", table("recordings.csv", header + "{root},a\0.wav,\n"), collected_table, "refused", "UTF-8"),
        Kind(
            "label_steers",
            birdclef("good.wav", label="\x1b[2J"),
            collected,
            "refused",
            "filename good.wav stands at",
        ),
        Kind(
            "label_stranger",
            birdclef("b.wav", label="=cmd|x", more={"train_audio/b.wav": "x"}),
            collected,
            "row",
            "refused .*not in the taxonomy",
        ),
        Kind(
            "keep_up",
            birdclef("good2.wav", more={"keep.csv": "filename,start,end\n../../etc/passwd,0,5\n"}),
            collected,
            "row",
            "1 rows name no recording",
        ),
        Kind(
            "keep_nan",
            birdclef("good2.wav", more={"keep.csv": "filename,start,end\ngood.wav,nan,5\n"}),
            collected,
            "refused",
            "is no segment",
        ),
        Kind(
            "annotation_up",
            table("a.csv", "filename,start,end,label\n../../good/outside/secret.wav,0,5,Ficta a\ngood.wav,0,1,Ficta a"),
            collected,
            "row",
            "missing",
        ),
        Kind(
            "annotation_infinite",
            table("a.csv", "filename,start,end,label\ngood.wav,0,1e999,Ficta a\ngood.wav,0,1,Ficta a\n"),
            collected,
            "row",
            "are no times",
        ),
        Kind(
            "secondary_code",
            birdclef("good2.wav", more={"train.csv": "primary_label,secondary_labels,filename\n"
            f"a,\"[__import__('os').system('touch {MARKER}')]\",good.wav\n"}),
            collected,
            "refused",
            "secondary labels",
        ),
    ]  # fmt: skip


def report_kinds() -> list[Kind]:
    page = command("report", "results", "--audio", ".")
    plain = command("report", "results")
    verdicts = "Start (s),End (s),Confidence,File,Species code,Verdict,Common name\n"
    applied = command("report", "results", "--apply", "v.csv")
    return [
        Kind("report_up", results(["0,5,F,f,0.9,../../good/outside/secret.wav,x"]), page, "refused", "is not there"),
        Kind("report_absolute", results(["0,5,F,f,0.9,{good}/outside/secret.wav,x"]), page, "refused", "not there"),
        Kind("report_run_deep", results(run=DEEP), plain, "refused", "is damaged"),
        Kind("report_run_list", results(run="[1]"), plain, "refused", "holds no JSON object"),
        Kind("report_nan", results(["0,nan,F,f,0.9,sound.wav,x"]), plain, "refused", "are not all numbers"),
        Kind("report_infinite", results(["0,1e999,F,f,0.9,sound.wav,x"]), plain, "refused", "are not all numbers"),
        Kind("report_shifted", results(["0,5,F,f,0.9,sound.wav,x,"]), plain, "refused", "8 cells, not 7"),
        Kind("report_quote", results(['0,5,F,f,0.9,sound.wav,"x']), plain, "refused", "a quote is left open"),
        Kind("report_files", results(files="file,status\na\n"), plain, "refused", "1 cells, not 2"),
        *(
            Kind(name, results(more={"v.csv": f"{verdicts}0,5,0.9,{row},frog\n"}), applied, "refused", words)
            for name, row, words in (
                ("verdict_strange", "sound.wav,x,<script>", "none of yes, no, unsure"),
                ("verdict_strangers", "../../etc/passwd,x,yes", "no verdict"),
            )
        ),
        Kind(
            "thresholds_formula",
            after_all(toy(), put("t.csv", "label,threshold,model\nx,=1+1,\n")),
            scored("model.onnx", "--thresholds", "t.csv"),
            "refused",
            "write a number from 0 to 1",
        ),
        Kind(
            "species_list",
            after_all(toy(), put("s.txt", f"x\n$(touch {MARKER})\n\x1b[2J\n")),
            scored("model.onnx", "--slist", "s.txt"),
            "harmless",
            r"not in it: .*\\x1b",
        ),
    ]


def main(folder: Path, only: Sequence[str]) -> None:
    import torch
    from decoder_nursery import Nursery

    import predictor
    import report
    from archive.lineages import shipped
    from sounds import decoders

    assert predictor and report  # imported here, so that forks need not
    torch.set_num_threads(1)  # what OpenMP has begun does not survive a fork
    shipped()
    good = folder / "good"
    write_good(good)
    with Nursery() as nursery, patch.object(decoders, "start_process", nursery.start):
        nursery.begin()  # before anything is watched
        for kind in kinds():
            if not only or kind.name in only:
                print(json.dumps(asdict(attempt(kind, folder / "kinds", good))), flush=True)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main(Path(sys.argv[1]).resolve(), sys.argv[2:])
