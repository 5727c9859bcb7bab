"""Runs that survive: a fault at every operation of every save, full and vanished disks, flipped bits, signals, NaN."""

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from faults import KINDS, Save, every_fault, file_system, in_order, operations
from house import program, room
from onnx import helper, numpy_helper
from safetensors import safe_open
from test_journal import DAWN, ENTRY, LEFT
from test_scorer import ONE, toy
from torch import nn

from config import SIZES, AudioSettings, HeadSettings
from model import BirdClefClassifier, Encoder
from runtime.files import write_json
from runtime.runs import Run, keep_records, open_run, read_records, record
from serving import export
from serving.detections import TableFacts
from serving.embeddings import Embedded, write_vectors
from serving.export import save as save_graph
from serving.journal import Journal
from serving.scorer import METADATA, open_scorer, score
from serving.tables import write_tables
from training.checkpoint import ClassifierFacts, load_classifier, read_tensors, save_classifier, save_encoder, stage_one
from training.optim import cosine_schedule, update
from training.states import KEPT, StateWriter, TrainingProgress, digest_in_name, is_state, state_digest

HERE = Path(__file__).parents[2]
Record = Callable[[str, object], None]
OLD, NEW = 1, 2
SETTINGS = TableFacts("toy.onnx", 5.0, 0.0, 8_000.0)


def small_writer(folder: Path, version: int = 0) -> StateWriter:
    torch.manual_seed(version)
    model = nn.Linear(40, 40)
    return StateWriter(folder / "states", {"model": model}, torch.Generator().manual_seed(version))


def keep_state(folder: Path, version: int) -> None:
    small_writer(folder, version).save(TrainingProgress(step=version, moved=version))


def version_of_state(folder: Path) -> str:
    writer = small_writer(folder)
    moved = writer.restore().moved
    return named(moved)


def named(version: int) -> str:
    return {OLD: "old", NEW: "new"}.get(version, f"version {version}")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Generator[None]:
    """A fork has none of the threads of the process it was forked from."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def small_classifier() -> BirdClefClassifier:
    torch.manual_seed(0)
    return BirdClefClassifier(Encoder(SIZES["demo"]), AudioSettings(), 1, HeadSettings()).eval()


def write_encoder(folder: Path, version: int) -> None:
    save_encoder(
        folder / "encoder.safetensors",
        small_classifier().whisper_encoder,
        "demo",
        AudioSettings(),
        {"version": version},
    )


def version_of_encoder(folder: Path) -> list[str]:
    facts = read_tensors(folder / "encoder.safetensors", "encoder", "")[1]
    again = read_tensors(folder / "whisper" / "model.safetensors", "encoder", "")[1]
    assert json.loads((folder / "whisper" / "config.json").read_text())["d_model"] == 96
    return [named(one["provenance"]["version"]) for one in (facts, again)]


def write_classifier(folder: Path, version: int) -> None:
    facts = ClassifierFacts("demo", AudioSettings(), HeadSettings(), ONE, {"version": version})
    save_classifier(folder / "classifier.safetensors", small_classifier(), facts)


def version_of_classifier(folder: Path) -> str:
    facts = read_tensors(folder / "classifier.safetensors", "classifier", "")[1]
    return named(facts["provenance"]["version"])


def graph_of(folder: Path, version: int) -> onnx.ModelProto:
    """tanh(sum of the waveform * 0 + version / 10), with weights that are many enough to lie beside it."""
    path = toy(folder / f"toy-{version}.onnx", "Sigmoid")
    graph = onnx.load(path)
    path.unlink()
    graph.graph.initializer.append(numpy_helper.from_array(np.full(4_000, version, np.float32), "weights"))
    graph.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "first"))
    graph.graph.node[-1].output[0] = "loud"
    graph.graph.node.append(helper.make_node("Gather", ["weights", "first"], ["weight"]))
    graph.graph.node.append(helper.make_node("Mul", ["loud", "weight"], ["heard"]))
    graph.graph.initializer.append(numpy_helper.from_array(np.array([0.1], np.float32), "tenth"))
    graph.graph.node.append(helper.make_node("Mul", ["heard", "tenth"], ["probabilities"]))
    facts = json.loads(graph.metadata_props[0].value) | {"sealed": True}
    helper.set_model_props(graph, {METADATA: json.dumps(facts)})
    return graph


def write_onnx(folder: Path, version: int) -> None:
    save_graph(graph_of(folder.parent, version), folder / "classifier.int8.onnx")


def write_onnx_with_weights(folder: Path, version: int) -> None:
    with pytest.MonkeyPatch.context() as change:
        change.setattr(export, "LARGEST_FILE", 1_000)
        write_onnx(folder, version)


def version_of_onnx(folder: Path) -> str:
    loud = score(open_scorer(folder / "classifier.int8.onnx"), [np.zeros(80_000, np.float32)])
    return named(round(float(loud[0, 0]) * 20))


def write_part(folder: Path, version: int) -> None:
    journal = Journal(folder, False)
    journal.save(ENTRY, replace(DAWN, windows=version), [])


def version_of_part(folder: Path) -> str:
    (one,) = Journal(folder, False).recall([ENTRY])
    return named(one.windows)


def write_part_with_arrays(folder: Path, version: int) -> None:
    Journal(folder, True).save(ENTRY, replace(DAWN, windows=version), [replace(LEFT, channel=version)])


def version_of_part_with_arrays(folder: Path) -> str:
    """Two files: where they disagree, the recording is analysed again, which gives the new version."""
    journal = Journal(folder, True)
    if not journal.is_done(ENTRY):
        return "new"
    (one,), ((_, (scored,)),) = journal.recall([ENTRY]), journal.recall_arrays([ENTRY])
    return named(one.windows) if one.windows == scored.channel else "mixed"


def write_all_tables(folder: Path, version: int) -> None:
    kinds = ("csv", "raven", "audacity", "kaleidoscope")
    write_tables(folder, [replace(DAWN, file="dawn.wav", windows=version)] * 2 * version, SETTINGS, kinds, True)
    vectors = Embedded("dawn.wav", [0.0], [5.0], np.full((1, 4), version, np.float32))
    for name in ("embeddings.npz", "embeddings.csv"):
        write_vectors(folder / name, [vectors], "toy.onnx")


def write_parquet(folder: Path, version: int) -> None:
    write_tables(folder, [replace(DAWN, windows=version)] * version, SETTINGS, ("parquet",))


def whole_tables(old: dict[str, bytes], new: dict[str, bytes]) -> Callable[[Path], list[str]]:
    def read(folder: Path) -> list[str]:
        found = contents(folder)
        return [
            "old" if found.get(name) == old[name] else "new" if found.get(name) == new[name] else f"{name} is lost"
            for name in old
            if old[name] != new[name]
        ]

    return read


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".part")
    }


def write_card(folder: Path, version: int) -> None:
    write_json(folder / "quantize.json", {"version": version, "products": list(range(1_000))})


def version_of_card(folder: Path) -> str:
    return named(json.loads((folder / "quantize.json").read_text())["version"])


def whole_run(folder: Path, version: int) -> None:
    with open_run("mae", folder, {}) as run:
        record(run, epoch=version)
        (run.folder / "told").write_text(str(version))


def version_of_run(folder: Path) -> str:
    """The link that later commands follow leads to a run that finished."""
    run = folder / "mae"
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert [line["epoch"] for line in read_records(run)] == [int((run / "told").read_text())]
    return named(int((run / "told").read_text()))


def saves(tmp_path: Path) -> dict[str, Save]:
    """Every save of the four commands."""
    told: dict[str, list[dict[str, bytes]]] = {"tables": [], "Parquet": []}
    for name, write in (("tables", write_all_tables), ("Parquet", write_parquet)):
        for version in (OLD, NEW):
            write(tmp_path / f"{name}-{version}", version)
            told[name].append(contents(tmp_path / f"{name}-{version}"))
    writers: dict[str, tuple[Callable[[Path, int], object], Callable[[Path], object]]] = {
        "state": (keep_state, version_of_state),
        "encoder.safetensors": (write_encoder, version_of_encoder),
        "classifier.safetensors": (write_classifier, version_of_classifier),
        "ONNX": (write_onnx, version_of_onnx),
        "ONNX with weights beside it": (write_onnx_with_weights, version_of_onnx),
        "part": (write_part, version_of_part),
        "part with arrays": (write_part_with_arrays, version_of_part_with_arrays),
        "tables": (write_all_tables, whole_tables(*told["tables"])),
        "Parquet": (write_parquet, whole_tables(*told["Parquet"])),
        "quantize.json": (write_card, version_of_card),
        "run.json and link": (whole_run, version_of_run),
    }

    def save_of(write: Callable[[Path, int], object], read: Callable[[Path], object]) -> Save:
        return Save(lambda folder: write(folder, OLD), lambda folder: write(folder, NEW), read)

    return {name: save_of(*both) for name, both in writers.items()}


SAVES = (
    "state",
    "encoder.safetensors",
    "classifier.safetensors",
    "ONNX",
    "ONNX with weights beside it",
    "part",
    "part with arrays",
    pytest.param("tables", marks=pytest.mark.slow),  # each of them through the same publish
    pytest.param("Parquet", marks=pytest.mark.slow),
    "quantize.json",
    "run.json and link",
)


@pytest.mark.parametrize("name", SAVES)
def test_no_fault_at_any_operation_loses_the_last_good_file(name: str, tmp_path: Path, record_property: Record) -> None:
    kinds = KINDS[1:] if name == "Parquet" else KINDS  # the threads of its library do not survive a fork
    found = every_fault(saves(tmp_path)[name], tmp_path / "faults", kinds)
    told = f"{name}: {len(found.lost)} of {found.cases} faults at {len(found.operations)} operations lost the last good"
    record_property("R5", told)
    assert not found.lost, "\n".join(found.lost)
    assert found.cases >= 15 and not found.left_over
    in_order(found.operations, links=name == "run.json and link")


def test_a_save_in_place_is_lost_at_nearly_every_operation(tmp_path: Path, record_property: Record) -> None:
    """Negative control: the harness sees what it is for."""

    def in_place(folder: Path, version: int) -> None:
        with (folder / "state.pt").open("wb") as file:
            torch.save({"version": version, "weights": torch.zeros(20_000)}, file)

    def read(folder: Path) -> str:
        return named(torch.load(folder / "state.pt", weights_only=True)["version"])

    found = every_fault(Save(lambda f: in_place(f, OLD), lambda f: in_place(f, NEW), read), tmp_path)
    record_property("R5", f"control: a save in place lost {len(found.lost)} of {found.cases}")
    assert len(found.lost) > 0.7 * found.cases


def test_what_was_recorded_after_the_last_state_is_forgotten_even_where_it_is_torn(tmp_path: Path) -> None:
    record(Run(tmp_path, 0.0, {}), epoch=1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "lo')
    keep_records(tmp_path, 1)
    assert [line["epoch"] for line in read_records(tmp_path)] == [1]


def test_files_are_written_through_publish_and_nowhere_else() -> None:
    """What a library writes by itself too: inside a publish it writes to a temporary file, synced before its rename."""
    writers = re.compile(
        r"(write_text|write_bytes|savefig|savez|save_file|torch\.save|onnx\.save|to_json_file|\.save)$"
    )
    may_write = re.compile(r"(write_text|write_bytes|savefig|savez|save_file|save|to_json_file|open)$")
    elsewhere = {
        *("runtime.runs.record", "system.locked"),  # a line; a lock
        *("runtime.files.publish", "system.take_room"),  # what is there, to have it on disk
        *("pack.contents", "runtime.cluster.start_workers"),  # into folders that go
        "pack.write_application",  # a temporary file, as the next
        *("runtime.digests.write_digest", "serving.export.write_float"),  # a temporary file; into a folder that goes
        *("archive.cache.write_waveform", "serving.teachers.keep_answers"),  # whole or not, and may be deleted any time
        "serving.journal.save_in_pieces",  # into the file of a publish
        "serving.vectors.write_store",  # into a folder that goes; then published
    }
    # states and parts of a run: seen where they write
    ours = {"loop.writer.save", "writer.save", "self.save", "progress.save", "journal.save"}
    found = set[str]()
    for path in program():
        if path.stem in ("demo_data", "demo"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "__name__" in ast.unparse(node.test))
        ]
        safe = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.With) and any("publish(" in ast.unparse(item) for item in node.items)
            for inner in ast.walk(node)
        }
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and id(node) not in safe and may_write.search(last_name(node.func)):
                    name, told = ast.unparse(node.func), [ast.unparse(word) for word in node.args]
                    opens = name.split(".")[-1] == "open" and any(re.fullmatch(r"'[rwax]b?\+?b?'", w) for w in told)
                    if (writers.search(name) and name not in ours) or (opens and not set("'rb'") >= set(told[-1])):
                        found.add(f"{room(path)}.{function.name}")
    assert found <= elsewhere | {"runtime.terminal.border"}, found - elsewhere


def last_name(called: ast.expr) -> str:
    """Of what is called; nothing where that has no name."""
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


# Flipped bits


def flips(path: Path, found: Callable[[], bool], count: int = 100) -> int:
    """How many of so many single flipped bits anywhere in a file are found."""
    content, rng, noticed = path.read_bytes(), np.random.default_rng(0), 0
    for place, bit in zip(rng.integers(0, len(content), count), rng.integers(0, 8, count), strict=True):
        damaged = bytearray(content)
        damaged[int(place)] ^= 1 << int(bit)
        path.write_bytes(damaged)
        noticed += found()
    path.write_bytes(content)
    return noticed


def refused(load: Callable[[], object]) -> bool:
    try:
        load()
    except AssertionError as refusal:
        return "damaged" in str(refusal)
    return False


def test_a_flipped_bit_anywhere_is_found_before_anything_is_done_with_it(
    tmp_path: Path, record_property: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_state(tmp_path, OLD)
    keep_state(tmp_path, NEW)
    newest = max((tmp_path / "states").iterdir())
    content = newest.read_bytes()

    def older_taken() -> bool:
        told = version_of_state(tmp_path) == "old" and f"{newest} is damaged" in capsys.readouterr().out
        newest.write_bytes(content)
        return told

    write_encoder(tmp_path, OLD)
    write_classifier(tmp_path, OLD)
    write_onnx(tmp_path, OLD)
    (tmp_path / "large").mkdir()
    write_onnx_with_weights(tmp_path / "large", OLD)
    model = tmp_path / "classifier.int8.onnx"
    large = tmp_path / "large" / model.name
    (weights,) = (tmp_path / "large").glob("*.data")
    write_part_with_arrays(tmp_path, OLD)
    journal = Journal(tmp_path, True)
    encoder, classifier = tmp_path / "encoder.safetensors", tmp_path / "classifier.safetensors"
    found = {
        "state": flips(newest, older_taken),
        "encoder.safetensors": flips(encoder, lambda: refused(lambda: stage_one(str(encoder)))),
        "classifier.safetensors": flips(classifier, lambda: refused(lambda: load_classifier(classifier))),
        "classifier.int8.onnx": flips(model, lambda: refused(lambda: open_scorer(model))),
        "graph with weights beside it": flips(large, lambda: refused(lambda: open_scorer(large))),
        "weights beside it": flips(weights, lambda: refused(lambda: open_scorer(large))),
        "part": flips(journal.path(ENTRY, "json"), lambda: not journal.is_done(ENTRY)),
        "arrays of a part": flips(journal.path(ENTRY, "npz"), lambda: not journal.is_done(ENTRY)),
    }
    told = ", ".join(f"{name} {number}" for name, number in found.items())
    record_property("R8", f"of 100 flipped bits each were found: {told}")
    assert set(found.values()) == {100}
    assert journal.is_done(ENTRY) and version_of_onnx(tmp_path) == "old" and version_of_onnx(large.parent) == "old"


def test_without_the_digest_a_flipped_bit_in_the_weights_is_taken_for_good(tmp_path: Path) -> None:
    """Negative control: neither format looks at its content by itself."""
    write_encoder(tmp_path, OLD)
    path = tmp_path / "encoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with safe_open(path, framework="pt") as file:
        assert len(list(file.keys())) > 10


# States


def test_at_any_moment_there_is_a_verified_state_and_never_one_more_than_may_be(
    tmp_path: Path, record_property: Record
) -> None:
    fewest, most, checked = 99, 0, 0
    (tmp_path / "seed").mkdir()
    for step in range(1, 4):
        keep_state(tmp_path / "seed", step)

    def counted(folder: Path) -> str:
        nonlocal fewest, most, checked
        files = list((folder / "states").iterdir())
        sound = [path for path in files if is_state(path) and state_digest(path) == digest_in_name(path)]
        fewest, most, checked = min(fewest, len(sound)), max(most, len(files)), checked + 1
        return "old"

    def two(folder: Path) -> None:
        (folder / "states").mkdir()
        for path in (tmp_path / "seed" / "states").iterdir():
            (folder / "states" / path.name).write_bytes(path.read_bytes())

    def another(folder: Path) -> None:
        keep_state(folder, 4)

    with pytest.MonkeyPatch.context() as change:
        change.setattr("faults.dry_run", dry)
        every_fault(Save(two, another, counted), tmp_path / "faults")
    record_property("R9", f"after {checked} faults: never under {fewest} verified states, never over {most} files")
    assert fewest >= 1 and most <= KEPT + 1 and checked > 20


def dry(save: Save, root: Path) -> list[Any]:
    """The operations of a save, whatever its reader makes of it."""

    shutil.copytree(root / "old", root / "dry")
    with operations(root / "dry") as seen:
        save.write(root / "dry")
    return seen


def test_a_damaged_state_goes_once_a_sound_one_was_taken_and_never_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_state(tmp_path, OLD)
    keep_state(tmp_path, NEW)
    older, newest = sorted((tmp_path / "states").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    assert version_of_state(tmp_path) == "old" and "taking the state before it" in capsys.readouterr().out
    assert not newest.exists()
    older.write_bytes(b"")
    for _ in range(2):  # never from the beginning unasked, however often
        with pytest.raises(AssertionError, match=r"no state in .* is sound"):
            version_of_state(tmp_path)


def test_a_run_killed_within_its_very_first_save_begins_again(tmp_path: Path) -> None:
    (tmp_path / "states").mkdir()
    (tmp_path / "states" / "state-000100001.pt").write_bytes(b"half")
    assert small_writer(tmp_path).restore() == TrainingProgress()


# NaN


def test_one_poisoned_recording_in_a_thousand_is_named_and_does_no_harm(
    record_property: Record, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    sound = torch.randn(1_000, 8)
    sound[617, 3] = torch.nan
    model = nn.Linear(8, 1)
    learnt, steps = learn(model, sound, tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if "no finite gradient" in line]
    finite = all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert finite and learnt == 124 and steps == 125 and len(said) == 1 and "recording 617" in said[0]
    with pytest.raises(AssertionError, match="10 steps in a row"):
        learn(model, torch.full_like(sound, torch.nan), tmp_path)
    stopped = [line for line in capsys.readouterr().out.splitlines() if "no finite gradient" in line]
    assert len(stopped) <= 20 and all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    record_property(
        "R10",
        f"1 poisoned recording in {len(sound)}: {learnt} of {steps} steps moved the weights, named {len(said)} time, "
        f"weights finite; all poisoned: stopped after {len(stopped)} steps",
    )


def learn(model: nn.Linear, sound: torch.Tensor, folder: Path) -> tuple[int, int]:
    """An epoch as the loops go through it; returns how many updates moved the weights, and of how many steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule, progress, moved = cosine_schedule(optimizer, 125, 0.1), TrainingProgress(), 0
    writer = StateWriter(folder, {"model": model}, torch.Generator())
    for step, rows in enumerate(torch.randperm(len(sound)).reshape(-1, 8), 1):
        before = model.weight.detach().clone()
        norm = update((model(sound[rows]) - 1).square().mean(), model.parameters(), optimizer, schedule, 1.0)
        moved += not torch.equal(before, model.weight)
        progress.step = step
        progress.watch(norm, partial(recordings_in, rows))
        writer.save_if_due(progress)
    return moved, progress.step


def recordings_in(rows: torch.Tensor) -> list[str]:
    return [f"recording {int(row)}" for row in rows]


def test_weights_that_are_not_finite_are_never_published(tmp_path: Path) -> None:
    model = BirdClefClassifier(Encoder(SIZES["demo"]), AudioSettings(), 1, HeadSettings())
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    facts = ClassifierFacts("demo", AudioSettings(), HeadSettings(), ONE, {})
    with pytest.raises(AssertionError, match="weights are not finite"):
        save_classifier(tmp_path / "classifier.safetensors", model, facts)
    assert not list(tmp_path.iterdir())


# Full and vanished disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 4 MB."""
    with file_system(tmp_path / "disk", 4) as place:
        yield place


def test_on_a_full_disk_the_old_state_stays_and_one_line_says_what_is_needed(
    small_disk: Path, record_property: Record
) -> None:
    torch.manual_seed(0)
    model = nn.Linear(500, 500)  # 1 MB
    writer = StateWriter(small_disk / "states", {"model": model}, torch.Generator())
    writer.save(TrainingProgress(step=1, moved=OLD))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(int(2.4e6)))
    before = contents(small_disk / "states")
    with pytest.raises(
        AssertionError, match=r"disk full: .* needs 1\.0 MB or more, 0\.[0-9] MB are free there; make room"
    ):
        writer.save(TrainingProgress(step=2, moved=NEW))
    torch.manual_seed(1)
    with pytest.raises(AssertionError, match=r"disk full: .* needs .* MB or more, .* --run\.resume"):
        StateWriter(small_disk / "other", {"model": nn.Linear(600, 600)}, torch.Generator()).save(
            TrainingProgress()
        )  # size unknown
    assert contents(small_disk / "states") == before and not list((small_disk / "other").iterdir())
    assert writer.restore().moved == OLD
    with pytest.raises(AssertionError, match="disk full"):
        save_classifier(
            small_disk / "classifier.safetensors",
            small_classifier(),
            ClassifierFacts("demo", AudioSettings(), HeadSettings(), ONE, {}),
        )
    assert [path.name for path in small_disk.iterdir() if path.is_file()] == ["ballast"]
    ballast.unlink()
    writer.save(TrainingProgress(step=2, moved=NEW))
    assert writer.restore().moved == NEW
    record_property("R6", "3 of 3 saves on a full disk left the old state as it was, said need and have, went on after")


def test_a_folder_that_cannot_be_written_to_is_one_line(small_disk: Path) -> None:
    write_card(small_disk, OLD)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code = f"""
from pathlib import Path
from runtime.files import write_json
from runtime.terminal import launch
from config import QuantizeCommand
def command(config):
    write_json(Path({str(small_disk)!r}) / "quantize.json", 1)
launch(command, QuantizeCommand)
"""
    done = subprocess.run([".venv/bin/python", "-c", code], cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "Read-only file system" in done.stderr and "traceback" not in done.stderr
    assert version_of_card(small_disk) == "old"
