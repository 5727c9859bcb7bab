"""What several rooms' tests share: one small field season, and one small run of the four stages."""

import runtime.openmp  # pyright: ignore[reportUnusedImport] - it counts when torch is loaded
import runtime.privacy  # noqa: F401  # pyright: ignore[reportUnusedImport] - before the engines

import csv
import fcntl
import functools
import gc
import json
import multiprocessing
import os
import pickle
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from pretend import read_rows
from tyro import _docstrings, _unsafe_cache

from demo_data import FieldSeason, write_field_season

# the same examples on every machine, however busy it is
settings.register_profile("everybody", derandomize=True, database=None, deadline=None)
settings.register_profile("search", derandomize=False, print_blob=True)  # other ones each time: make test-all
settings.load_profile("everybody")  # unless --hypothesis-profile names the other one


def spare_checks_of_flags() -> None:
    """tyro, which reads the flags, checks a tenth of all it remembers where it finds pytest, and forgets everything
    after each command line: that was half of the time of each. What it answers is the same."""
    cache: Any = _unsafe_cache
    cache.sys = SimpleNamespace(modules=dict[str, object]())
    docstrings: Any = _docstrings
    kind = docstrings._ClassTokenization
    kind.make = staticmethod(functools.cache(kind.make.__wrapped__))


spare_checks_of_flags()
multiprocessing.set_forkserver_preload(["data_loader"])  # torch is loaded once, and not by each process that reads

if worker := re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", "")):
    cores = sorted(os.sched_getaffinity(0))  # one for each process of tests: their threads would wait for each other
    os.sched_setaffinity(0, {cores[int(worker[1]) % len(cores)]})

LONGEST = (  # files of tests that are handed out before the others, so that no process ends long after the other
    *("test_predictor", "test_demos", "test_zoo", "test_kill", "test_quantize", "test_ensemble", "test_processes"),
    *("test_data_loader", "test_hostile", "test_gpu", "test_native_rate", "test_export", "test_states", "test_main"),
    *("test_frozen", "test_convolutions", "test_fuzz", "test_faults", "test_pseudo_label", "test_long_files"),
    *("test_trainer", "test_probe", "test_report", "test_time", "test_ssl_mae", "test_scorer", "test_stopping"),
    *("test_commands", "test_requirements", "test_scale", "test_survey", "test_decoders", "test_duplicates"),
)


def pytest_collection_finish() -> None:
    """What is there now stays: no garbage is looked for among all that the libraries have made."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; within a file nothing changes."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def ledger_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the tests listen to is nobody else's business."""
    from archive import survey

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "LEDGER", tmp_path_factory.mktemp("ledger") / "examined.sqlite")
        yield


@pytest.fixture(scope="session", autouse=True)
def features_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nor is what an encoder made of it."""
    from training import frozen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen, "SCRATCH", tmp_path_factory.mktemp("scratch"))
        yield


@pytest.fixture(scope="session", autouse=True)
def teachers_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nor what a teacher made of it."""
    from serving import teachers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teachers, "SCRATCH", tmp_path_factory.mktemp("teachers"))
        yield


@pytest.fixture(scope="session", autouse=True)
def float32_unless_told() -> Iterator[None]:
    """On any CPU the same numbers; bfloat16 has tests of its own."""
    from training import device

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "multiplies_bfloat16", lambda: False)
        yield


@pytest.fixture(scope="session", autouse=True)
def decoders_of_the_tests() -> Iterator[None]:
    """Begun from a process that has imported what they need; test_decoders.py begins them as ever."""
    from decoder_nursery import Nursery

    from sounds import decoders

    with pytest.MonkeyPatch.context() as patch, Nursery() as nursery:
        patch.setattr(decoders, "start_process", nursery.start)
        yield


@contextmanager
def shared_folder(factory: pytest.TempPathFactory, name: str) -> Generator[Path]:
    """One folder for all processes of tests, each at its turn: the first fills it, the others find it filled."""
    base = factory.getbasetemp()
    folder = (base.parent if worker else base) / name
    folder.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@pytest.fixture(scope="session")
def season(tmp_path_factory: pytest.TempPathFactory) -> FieldSeason:
    """Eight recordings of each of the pretend species, and a short soundscape."""
    with shared_folder(tmp_path_factory, "season") as folder:
        return write_field_season(folder, recordings_per_species=8, unlabeled_recordings=8, soundscape_seconds=40)


FEW = ("prewre1", "9000117", "9000255", "9000310")  # a species of each class


@pytest.fixture(scope="session")
def few(season: FieldSeason, tmp_path_factory: pytest.TempPathFactory) -> FieldSeason:
    """Four species of the season, each recording with one: a fine-tuning run in seconds."""
    with shared_folder(tmp_path_factory, "few") as root:
        if not (root / "taxonomy.csv").is_file():
            for path in season.root.rglob("*.flac"):
                own = root / path.relative_to(season.root)
                if path.parent.name in FEW or "unlabeled" in path.parts:
                    own.parent.mkdir(parents=True, exist_ok=True)
                    own.hardlink_to(path)
            for name in ("train.csv", "taxonomy.csv"):
                rows = [row for row in read_rows(season.root / name) if row["primary_label"] in FEW]
                with (root / name).open("w", encoding="utf-8", newline="") as file:
                    table = csv.DictWriter(file, list(rows[0]))
                    table.writeheader()
                    table.writerows(row | ({"secondary_labels": "['']"} if "filename" in row else {}) for row in rows)
    return FieldSeason(root, season.soundscape, season.answers)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture is drawn, which takes a second or two of each run; the stages and others draw theirs."""

    def sign(_: object, file: Path, **__: object) -> None:
        file.write_bytes(b"\x89PNG\r\n\x1a\n")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", sign)


@dataclass(frozen=True)
class Stages:
    """The files that the four commands left behind."""

    runs: Path
    encoder: Path
    classifier: Path
    float_model: Path
    model: Path


@pytest.fixture(scope="session")
def stages(season: FieldSeason, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """The stages run once, briefly."""
    with shared_folder(tmp_path_factory, "runs") as runs:
        if not (runs / "quantize").exists():  # which points to the last stage's run once that has ended well
            run_stages(season, runs)
        ANSWERS.update(pickle.loads((runs / "answers").read_bytes()))  # of a file that we have just written
    encoder, classifier = runs / "mae" / "encoder.safetensors", runs / "finetune" / "classifier.safetensors"
    int8 = runs / "quantize" / "classifier.int8.onnx"
    return Stages(runs, encoder, classifier, int8.with_name("classifier.onnx"), int8)


MOST_WINDOWS = 60  # of training from which the stages learn what is familiar; fewer are held out


def run_stages(season: FieldSeason, runs: Path) -> None:
    """The stages in this process."""
    from config import FinetuneCommand, PretrainCommand, QuantizeCommand, parse
    from main import finetune
    from quantize import quantize
    from ssl_mae import pretrain

    shared = ["--preset", "demo", "--run.root", str(runs)]
    data = ["--data.root", str(season.root), "--run.device", "cpu", "--data.cache", str(runs / "cache")]
    assert pretrain(parse(PretrainCommand, [*shared, *data, "--train.epochs", "2"])) == 0
    flags = ["--train.epochs", "6", "--train.head_updates", "150"]
    flags += ["--encoder.weights", str(runs / "mae" / "encoder.safetensors")]
    assert finetune(parse(FinetuneCommand, [*shared, *data, *flags])) == 0
    flags = ["--run.root", str(runs), "--classifier", str(runs / "finetune" / "classifier.safetensors")]
    flags += ["--gate.min_agreement", "0.9", "--gate.max_auc_drop", "0.05", "--max_windows", str(MOST_WINDOWS)]
    flags += ["--max_error", "0.1"]  # so that all products of this small network are INT8 of 7 bits
    with pytest.MonkeyPatch.context() as patch:
        measure_briefly(patch)
        answer_once(patch)
        assert quantize(parse(QuantizeCommand, flags)) == 0
    (runs / "answers").write_bytes(pickle.dumps(ANSWERS))


def measure_briefly(patch: pytest.MonkeyPatch) -> None:
    """Each file in a process of its own, as ever, but for a tenth of the time."""
    from serving import costs, speed

    measured = speed.in_fresh_process

    def briefly(program: str) -> speed.Speed:
        return measured(f"from serving import speed; speed.SECONDS = {speed.SECONDS / 10}; {program}")

    for room in (costs, speed):
        patch.setattr(room, "in_fresh_process", briefly)


ExportOnce = Callable[..., None]  # of what `write_float` takes


@pytest.fixture(scope="session")
def export_once(stages: Stages) -> ExportOnce:
    """`write_float`, but that no network is exported twice: what it wrote is known by the digest of the weights. Nor is
    one of the shape of the stages' network, which differs from it in weights alone."""
    from exported import shape_of, write_from

    from model import BirdClefClassifier
    from serving.export import write_float
    from training.checkpoint import ClassifierFacts, load_classifier, weights_digest

    def key(model: BirdClefClassifier, familiarity: object) -> tuple[str, bool]:
        return weights_digest(model.state_dict()), familiarity is not None

    content = stages.float_model.read_bytes()
    trained, its_facts = load_classifier(stages.classifier)
    before = trained.state_dict()
    known = {key(trained, content if b"unfamiliar" in content else None): content}

    def write(
        model: BirdClefClassifier, facts: ClassifierFacts, path: Path, verified: bool, familiarity: Any = None
    ) -> None:
        network, after = key(model, familiarity), model.state_dict()
        if network not in known:
            alike = familiarity is None and shape_of(facts, after) == shape_of(its_facts, before)
            if not (alike and write_from(content, before, after, facts, path, verified)):
                write_float(model, facts, path, verified, familiarity)
            known[network] = path.read_bytes()
        path.write_bytes(known[network])

    return write


ANSWERS: dict[tuple[str, str], Any] = {}


def once(function: Callable[..., Any], digest: Callable[..., str]) -> Callable[..., Any]:
    """A function that is not computed twice of what has the same digest; what the stages have asked is known."""

    @functools.wraps(function)
    def answer(*given: Any) -> Any:
        key = function.__name__, digest(*given)
        if key not in ANSWERS:
            ANSWERS[key] = function(*given)
        return ANSWERS[key]

    return answer


def answer_once(patch: pytest.MonkeyPatch) -> None:
    """No network or file is asked twice the same, nor what INT8 costs it or what it knows."""
    import torch

    import quantize
    from runtime.digests import sha256
    from training.checkpoint import weights_digest

    def of_network(model: Any, waveforms: Any, *more: Any) -> str:
        """`more`: scales, the last."""
        given: dict[str, Any] = more[-1] if more else {}
        scales = {f"scale of {one}": scale for one, scale in given.items()}
        return weights_digest({**model.state_dict(), **scales, "sound": torch.as_tensor(waveforms)})

    def of_familiarity(model: Any, _trained: Any, vectors: Any, most: int) -> str:
        return f"{most} {of_network(model, vectors)}"

    def of_file(path: Path, contexts: Any) -> str:
        return f"{sha256(path)} {weights_digest({'sound': torch.from_numpy(contexts)})}"

    digests: dict[str, Callable[..., str]] = {"what_is_familiar": of_familiarity, "file_scores": of_file}
    digests |= dict.fromkeys(("network_answers", "input_channels", "product_costs"), of_network)
    for name, digest in digests.items():
        patch.setattr(quantize, name, once(getattr(quantize, name), digest))


@pytest.fixture
def unmeasured(export_once: ExportOnce, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage 3 without the half minute in which processes of their own measure the speed; test_speed.py and the card of
    the stages do that. And no network is exported twice, nor asked twice what INT8 costs it or what it knows."""
    from serving.speed import Speed

    def known(classifier: Path | None, _floats: Path, _int8: Path) -> dict[tuple[str, int], Speed]:
        names = (*(("torch float32",) if classifier else ()), "ONNX float32", "ONNX INT8")
        return {(name, 1): Speed(10.0, 500.0, 100, 1.0) for name in names}

    monkeypatch.setattr("serving.costs.measure_all", known)
    monkeypatch.setattr("quantize.write_float", export_once)
    answer_once(monkeypatch)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """What `forked` starts early is forked from here: all is imported, and nothing watches a test yet."""
    import forked

    if not session.testscollected:  # xdist's first process runs none itself
        return (yield)
    with forked.Nursery() as nursery:
        forked.nurseries.append(nursery)
        return (yield)


@dataclass(frozen=True)
class Answer:
    """How a command ended, and what it printed."""

    code: int
    out: str
    problems: str


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Answer]]:
    """What each command says to --help and to a mistyped flag, where nothing can be imported that scoring lacks."""
    from test_requirements import run_with

    from docs.write_cli import COMMANDS, PLAIN

    with shared_folder(tmp_path_factory, "answers") as folder, pytest.MonkeyPatch.context() as patch:
        if not (folder / "answers.json").is_file():
            for name, value in PLAIN.items():
                patch.setenv(name, value)
            words = ("tests/asking.py", str(folder / "answers.json"), *COMMANDS, "--", "--help", "--no_such_flag")
            done = run_with("requirements-score.txt", *words)
            assert done.returncode == 0, done.stderr
        told = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return {name: {word: Answer(*one) for word, one in said.items()} for name, said in told.items()}
