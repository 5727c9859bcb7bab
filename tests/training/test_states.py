"""A run that was cut off goes on as if nothing was: the same weights and the same records, to the last bit."""

import json
import os
import shlex
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_teachers import network
from torch import nn

from archive.licences import teachers_of
from config import SIZES, AudioSettings, DataSettings, FinetuneCommand, PretrainCommand, parse
from data_loader import read_labeled, read_unlabeled, split
from demo_data import FieldSeason
from main import finetune
from model import Encoder
from runtime import processes
from runtime.files import as_json
from runtime.runs import past_starts
from serving import teachers
from serving.embeddings import Embedded, write_vectors
from ssl_mae import pretrain
from system import birth
from training import states
from training.checkpoint import HUB_PREFIX, save_encoder, stage_one
from training.states import StateWriter, TrainingProgress

pytestmark = pytest.mark.usefixtures("undrawn")
HERE = Path(__file__).parents[2]
FLAGS = {
    "finetune": (
        *("--encoder.weights", "random", "--train.epochs", "2", "--train.ema", "0.9", "--train.accumulate", "2"),
        *("--head.dropout", "0.1", "--augment.mixup", "0.5", "--train.choose", "last"),
    ),
    "mae": ("--encoder.weights", "random", "--train.epochs", "2", "--target", "teacher"),
    "imitation": ("--encoder.weights", "random", "--train.epochs", "2", "--target", "embeddings"),
}
RESULT = {"finetune": "classifier.safetensors", "mae": "encoder.safetensors", "imitation": "encoder.safetensors"}
Outcome = tuple[dict[str, Any], bytes, list[dict[str, Any]]]
TIMES = ("seconds", "windows_per_second", "memory_mb")


def train(stage: str, season: FieldSeason, root: Path, *more: str) -> None:
    shared = ["--preset", "demo", "--run.root", str(root), "--run.device", "cpu", "--data.root", str(season.root)]
    words = [*shared, "--data.cache", str(root / "cache"), *FLAGS[stage], *more]
    if stage == "imitation":
        words += ["--teacher", str(season.root / "teacher.npz"), "--imitation.reconstruction", "0.5"]
        random_table(season, season.root / "teacher.npz")
    code = finetune(parse(FinetuneCommand, words)) if stage == "finetune" else pretrain(parse(PretrainCommand, words))
    assert code == 0


def random_table(season: FieldSeason, path: Path) -> None:
    """Vectors of nobody for every two seconds of a few recordings of the season, the same each time."""
    rng, sounds = np.random.default_rng(0), sorted((season.root / "train_audio").rglob("*.flac"))[::2]
    starts = [0.0, 2.0]
    vectors = [rng.normal(size=(2, 6)).astype(np.float32) for _ in sounds]
    rows = [
        Embedded(sound.relative_to(season.root).as_posix(), starts, [2.0, 4.0], two)
        for sound, two in zip(sounds, vectors, strict=True)
    ]
    write_vectors(path, rows, "nobody")


def run_of(root: Path, stage: str) -> Path:
    """The folder of a stage's first run."""
    return root / f"{'finetune' if stage == 'finetune' else 'mae'}-001"


def outcome(root: Path, stage: str) -> Outcome:
    """The file's facts and its weights, byte for byte, and what was recorded without what a clock said."""
    run = run_of(root, stage)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    content = (run / RESULT[stage]).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")  # the library writes the facts in any order
    records = [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
    header = json.loads(content[8:start])
    del header["__metadata__"]["seal"]  # which sees the order of the facts
    return header, content[start:], records


def cut_off_at(monkeypatch: pytest.MonkeyPatch, *updates: int) -> None:
    """Stop like a kill after some of all updates; the state is kept two updates before."""
    done = 0

    def save_if_due(writer: StateWriter, progress: TrainingProgress) -> None:
        nonlocal done
        done += 1
        if done + 2 in updates:
            writer.save(progress)
        if done in updates:
            raise KeyboardInterrupt

    monkeypatch.setattr(StateWriter, "save_if_due", save_if_due)


@pytest.fixture(scope="module")
def whole(season: FieldSeason, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Both loops without an interruption."""
    found: dict[str, Outcome] = {}
    for stage in FLAGS:
        root = tmp_path_factory.mktemp(stage)
        train(stage, season, root)
        found[stage] = outcome(root, stage)
        assert not (run_of(root, stage) / "states").exists()
    return found


@pytest.mark.slow  # and so is the control below: test_kill.py has both in small
@pytest.mark.parametrize("stage", ["finetune", "mae", "imitation"])
def test_a_run_that_was_cut_off_ends_with_the_same_weights_and_records(
    stage: str,
    whole: dict[str, Outcome],
    season: FieldSeason,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_off_at(monkeypatch, 4, 9)  # in the first epoch, and in the second after the first was recorded
    with pytest.raises(KeyboardInterrupt):
        train(stage, season, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(stage, season, tmp_path, "--run.resume", str(run_of(tmp_path, stage)))
    monkeypatch.undo()
    train(stage, season, tmp_path, "--run.resume", str(run_of(tmp_path, stage)), "--data.workers", "1")
    assert outcome(tmp_path, stage) == whole[stage]
    facts = json.loads((run_of(tmp_path, stage) / "run.json").read_text())
    assert facts["status"] == "finished" and len(facts["started_before"]) == 2


@pytest.mark.slow
def test_a_network_for_pictures_with_a_trained_front_end_goes_on_too(
    season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch norms, the standardisation and the curve of PCEN are among what is kept."""
    kind = [*("--encoder.kind", "timm", "--encoder.name", "test_resnet", "--audio.compression", "pcen_trained")]
    kind += ["--loss.kind", "ce", "--train.epochs", "1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train("finetune", season, whole, *kind)
    with monkeypatch.context() as patch:
        cut_off_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train("finetune", season, cut, *kind)

    def again(*_parts: object) -> None:
        raise AssertionError("the standardisation is fitted again")

    with monkeypatch.context() as patch:
        patch.setattr("trainer.fit_standard", again)
        train("finetune", season, cut, *kind, "--run.resume", str(cut / "finetune-001"))
    assert outcome(cut, "finetune") == outcome(whole, "finetune")
    tensors = load_file(whole / "finetune-001" / "classifier.safetensors")
    assert float(tensors["encoder.mean"]) != 0.0 and float(tensors["encoder.deviation"]) != 1.0
    curve = tensors["log_mel.pcen.curve"]
    assert curve.shape[0] == 3 and not torch.allclose(curve, curve[:, :1].expand_as(curve)), "it has learnt"


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["finetune", "mae"])
def test_in_bfloat16_too(
    stage: str,
    whole: dict[str, Outcome],
    season: FieldSeason,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uncut, cut, half = tmp_path_factory.mktemp("uncut"), tmp_path_factory.mktemp("cut"), ("--run.precision", "bfloat16")
    train(stage, season, uncut, *half)
    with monkeypatch.context() as patch:
        cut_off_at(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(stage, season, cut, *half)
    train(stage, season, cut, *half, "--run.resume", str(run_of(cut, stage)))
    assert outcome(cut, stage) == outcome(uncut, stage)
    assert outcome(cut, stage)[1] != whole[stage][1]  # negative control: it was bfloat16


@pytest.mark.slow
def test_without_the_random_states_the_weights_differ(
    whole: dict[str, Outcome],
    season: FieldSeason,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Negative control: the comparison above has teeth."""
    with monkeypatch.context() as patch:
        cut_off_at(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train("finetune", season, tmp_path)

    def as_it_is(_state: object) -> None:
        pass

    monkeypatch.setattr(torch, "set_rng_state", as_it_is)
    train("finetune", season, tmp_path, "--run.resume", str(tmp_path / "finetune-001"))
    assert outcome(tmp_path, "finetune")[1] != whole["finetune"][1]


def test_losses_are_fetched_when_a_state_is_kept_and_are_then_all_there(tmp_path: Path) -> None:
    writer = StateWriter(tmp_path, {}, torch.Generator())
    progress = TrainingProgress(step=3, losses=[0.5], pending=[torch.tensor(0.25), torch.tensor(float("nan"))])
    writer.save(progress)
    again = writer.restore()
    for kept in (progress, again):
        assert kept.pending == [] and kept.losses[:2] == [0.5, 0.25] and len(kept.losses) == 3
        assert kept.losses[2] != kept.losses[2]  # of a step that was thrown away
    progress.fetch()
    assert len(progress.losses) == 3


def test_other_settings_and_other_recordings_are_refused(
    season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off_at(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        train("finetune", season, tmp_path)
    resume = ("--run.resume", str(tmp_path / "finetune-001"))
    with pytest.raises(AssertionError, match=r"--train\.clip was 1\.0, is 2\.0; give the same"):
        train("finetune", season, tmp_path, *resume, "--train.clip", "2")
    with pytest.raises(AssertionError, match="there is no run at"):
        train("finetune", season, tmp_path, "--run.resume", str(tmp_path / "finetune-007"))
    taxonomy, recordings = read_labeled(DataSettings(season.root))
    learnt, held_out = split(recordings, DataSettings(season.root))
    kin = (*taxonomy.lineages[0][:-2], "Elsewhere", taxonomy.lineages[0][-1])
    elsewhere = replace(taxonomy, lineages=(kin, *taxonomy.lineages[1:]))
    for name, answer in (("split", (learnt, held_out[1:])), ("read_labeled", (elsewhere, recordings))):

        def told(*_: object, answer: object = answer) -> object:
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(f"main.{name}", told)
            with pytest.raises(AssertionError, match=r"the recordings are not those .*, or their split or species"):
                train("finetune", season, tmp_path, *resume)


def test_an_imitation_refuses_another_table_and_goes_on_with_its_own(
    season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = season.root / "unlabeled"
    table, rng = tmp_path / "teacher.npz", np.random.default_rng(0)
    rows = [
        Embedded(path.name, [0.0], [3.0], rng.normal(size=(1, 4)).astype(np.float32)) for path in root.rglob("*.flac")
    ]
    write_vectors(table, rows, "nobody")
    words = ["--preset", "demo", "--data.root", str(root), "--run.device", "cpu", "--train.epochs", "1", "--data.folds"]
    words += [
        "2",
        "--data.valid_fold",
        "1",
        "--target",
        "embeddings",
        "--teacher",
        str(table),
        "--train.batch_size",
        "1",
        "--imitation.license",
    ]
    words += ["CC BY-NC 4.0", "--data.cache", str(tmp_path / "cache")]
    for name in ("whole", "cut"):
        with monkeypatch.context() as patch:
            if name == "cut":
                cut_off_at(patch, 3)
                with pytest.raises(KeyboardInterrupt):
                    pretrain(parse(PretrainCommand, [*words, "--run.root", str(tmp_path / name)]))
            else:
                assert pretrain(parse(PretrainCommand, [*words, "--run.root", str(tmp_path / name)])) == 0
    resumed = ["--run.resume", str(tmp_path / "cut" / "mae-001")]
    other = [replace(row, vectors=row.vectors + np.float32(number == 3)) for number, row in enumerate(rows)]
    write_vectors(table, other, "nobody")
    with pytest.raises(AssertionError, match="not those that this run began with"):
        pretrain(parse(PretrainCommand, resumed))
    write_vectors(table, rows, "nobody")
    assert pretrain(parse(PretrainCommand, resumed)) == 0
    assert outcome(tmp_path / "cut", "imitation") == outcome(tmp_path / "whole", "imitation")
    facts = json.loads(outcome(tmp_path / "cut", "imitation")[0]["__metadata__"]["wild_whisper"])
    (teacher,) = facts["provenance"]["teachers"]
    assert (teacher["name"], teacher["license"]) == ("nobody", "CC BY-NC 4.0") and len(teacher["sha256"]) == 64
    assert all(
        name.startswith("model.encoder.") for name in outcome(tmp_path / "cut", "imitation")[0] if name[0] != "_"
    )


def test_an_imitation_of_a_file_goes_on_though_its_answers_are_asked_for_again(
    season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    monkeypatch.setattr(teachers, "SCRATCH", kept)
    words = ["--preset", "demo", "--data.root", str(season.root / "unlabeled"), "--run.device", "cpu"]
    words += ["--data.folds", "2", "--data.valid_fold", "1", "--data.cache", str(tmp_path / "cache")]
    words += ["--train.epochs", "1", "--train.batch_size", "1", "--encoder.weights", "random"]
    words += ["--target", "embeddings", "--teacher", str(network(tmp_path / "t.onnx")), "--run.root"]
    assert pretrain(parse(PretrainCommand, [*words, str(tmp_path / "whole")])) == 0
    asked = {path.name for path in kept.rglob("*.npz")}
    with monkeypatch.context() as patch:
        cut_off_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            pretrain(parse(PretrainCommand, [*words, str(tmp_path / "cut")]))
    shutil.rmtree(kept)
    assert pretrain(parse(PretrainCommand, ["--run.resume", str(tmp_path / "cut" / "mae-001")])) == 0
    assert asked and {path.name for path in kept.rglob("*.npz")} == asked
    assert outcome(tmp_path / "cut", "imitation") == outcome(tmp_path / "whole", "imitation")
    provenance = json.loads(outcome(tmp_path / "cut", "imitation")[0]["__metadata__"]["wild_whisper"])["provenance"]
    assert [(one["name"], one["license"]) for one in provenance["teachers"]] == [("t.onnx", "CC0")]


def test_a_pulled_run_goes_on_towards_the_weights_it_started_from_whatever_has_become_of_their_file(
    season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, root = tmp_path / "encoder.safetensors", season.root / "unlabeled"
    words = ["--preset", "demo", "--data.root", str(root), "--run.device", "cpu", "--train.epochs", "1"]
    words += ["--data.folds", "2", "--data.valid_fold", "1", "--train.batch_size", "1", "--data.cache"]
    words += [str(tmp_path / "cache"), "--encoder.weights", str(start), "--train.encoder_rate", "1e-2"]

    def run(name: str, *more: str) -> None:
        assert pretrain(parse(PretrainCommand, [*words, "--run.root", str(tmp_path / name), *more])) == 0

    save_random_encoder(start, seed=0)
    run("free", "--pull", "0")
    run("whole", "--pull", "0.5")
    with monkeypatch.context() as patch:
        cut_off_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            run("cut", "--pull", "0.5")
    before = load_file(start)
    save_random_encoder(start, seed=1)
    assert pretrain(parse(PretrainCommand, ["--run.resume", str(tmp_path / "cut" / "mae-001")])) == 0
    assert outcome(tmp_path / "cut", "mae") == outcome(tmp_path / "whole", "mae")
    # and negative controls: it was pulled, by the file of then
    distance = {
        name: max(float((tensor - before[key]).abs().max()) for key, tensor in load_file(path).items())
        for name in ("free", "whole")
        for path in [tmp_path / name / "mae-001" / "encoder.safetensors"]
    }
    assert 0 < distance["whole"] < 0.6 * distance["free"], distance
    assert not torch.equal(load_file(start)[f"{HUB_PREFIX}conv1.weight"], before[f"{HUB_PREFIX}conv1.weight"])


def save_random_encoder(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    save_encoder(path, Encoder(SIZES["demo"]), "demo", AudioSettings(), {})


def test_stage_one_refuses_other_held_out_recordings_too(
    season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off_at(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        train("mae", season, tmp_path)
    learnt, held_out = split(read_unlabeled(DataSettings(season.root)), DataSettings(season.root))

    def told(*_: object) -> object:
        return learnt, held_out[1:]

    monkeypatch.setattr("ssl_mae.split", told)
    with pytest.raises(AssertionError, match="the recordings are not those"):
        train("mae", season, tmp_path, "--run.resume", str(tmp_path / "mae-001"))


def test_a_finished_or_living_run_is_not_resumed(tmp_path: Path) -> None:
    facts = {"name": "mae-001", "status": "finished", "host": os.uname().nodename, "pid": os.getpid(), "started": "x"}
    facts["born"] = birth(os.getpid())
    for status, message in (("finished", "nothing to resume"), ("running", "is still running")):
        (tmp_path / "run.json").write_text(json.dumps(facts | {"status": status, "settings": {}}))
        with pytest.raises(AssertionError, match=message):
            past_starts(tmp_path, "mae", {})
    for other in ({"born": "another boot"}, {"pid": 2**22 + 1}, {"host": "elsewhere"}):  # its number is another's now
        (tmp_path / "run.json").write_text(json.dumps(facts | other | {"status": "running", "settings": {}}))
        assert past_starts(tmp_path, "mae", {}) == ["x"]
    (tmp_path / "run.json").write_text(json.dumps(facts | {"status": "interrupted", "settings": {}}))
    assert past_starts(tmp_path, "mae", {}) == ["x"]
    with pytest.raises(AssertionError, match="of another command"):
        past_starts(tmp_path, "finetune", {})


def test_a_run_that_was_begun_before_a_setting_came_goes_on_with_its_default(tmp_path: Path) -> None:
    def told(*words: str) -> FinetuneCommand:
        return parse(FinetuneCommand, ["--preset", "base", "--data.root", str(tmp_path), *words])

    def was_begun(config: FinetuneCommand, without: str) -> None:
        settings = json.loads(json.dumps(config, default=as_json))
        del settings["encoder"][without]
        facts = {"name": "finetune-001", "status": "failed", "host": "", "pid": 1, "started": "x", "settings": settings}
        (tmp_path / "run.json").write_text(json.dumps(facts))

    was_begun(told(), without="pool")
    assert past_starts(tmp_path, "finetune", told()) == ["x"]
    with pytest.raises(AssertionError, match=r"other settings: --encoder.pool was None, is 2; give the same"):
        past_starts(tmp_path, "finetune", told("--encoder.pool", "2"))
    was_begun(told(), without="depth")  # the preset's is not the default, and not all layers were asked for
    with pytest.raises(AssertionError, match=r"other settings: --encoder.depth was None, is 4; give the same"):
        past_starts(tmp_path, "finetune", told())


def small(folder: Path) -> tuple[nn.Linear, StateWriter]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return model, StateWriter(folder, {"model": model}, torch.Generator().manual_seed(0))


def test_a_signal_after_the_last_look_is_obeyed_with_the_state_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, writer = small(tmp_path / "states")
    (tmp_path / "states").mkdir()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    real = processes.anywhere

    def late(asked: bool) -> bool:
        found = real(asked)
        signal.raise_signal(signal.SIGTERM)
        return found

    try:
        monkeypatch.setattr(processes, "anywhere", late)
        with pytest.raises(KeyboardInterrupt), writer.listening(TrainingProgress(step=3, moved=7)):
            pass
        assert writer.restore().moved == 7
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_signal_on_the_way_into_what_does_not_wait_or_out_of_it_keeps_the_state(tmp_path: Path) -> None:
    _, writer = small(tmp_path / "states")
    (tmp_path / "states").mkdir()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(KeyboardInterrupt), writer.listening(TrainingProgress(step=3, moved=7)):
            writer.at_once = True  # as `guarding` has it, which cannot catch anything at these moments
            signal.raise_signal(signal.SIGTERM)
        assert writer.restore().moved == 7 and not writer.at_once
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_stage_one_on_stage_one_goes_on_with_the_encoder_that_it_began_with(
    season: FieldSeason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What that heard must not be held out later, and its licences hold, though runs/mae leads elsewhere since."""
    for number in (1, 2):
        (tmp_path / f"mae-00{number}").mkdir()
        own = tmp_path / f"mae-00{number}" / "encoder.safetensors"
        save_encoder(own, Encoder(SIZES["demo"]), "demo", AudioSettings(), {"license": f"of {number}"})
    link = tmp_path / "adapted"
    link.symlink_to(tmp_path / "mae-001")
    words = ["--preset", "demo", "--run.root", str(tmp_path / "runs"), "--run.device", "cpu", "--train.epochs", "1"]
    words += ["--data.root", str(season.root), "--data.cache", str(tmp_path / "cache"), "--encoder.weights"]

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ssl_mae.pretrain_epoch", stopped)
        with pytest.raises(KeyboardInterrupt):
            pretrain(parse(PretrainCommand, [*words, str(link / "encoder.safetensors")]))
    link.unlink()
    link.symlink_to(tmp_path / "mae-002")
    run = tmp_path / "runs" / "mae-001"
    assert pretrain(parse(PretrainCommand, ["--run.resume", str(run)])) == 0
    assert [one["license"] for one in teachers_of(stage_one(str(run / "encoder.safetensors")))] == ["of 1"]
    facts = json.loads((run / "run.json").read_text())
    assert facts["weights"] == str(tmp_path / "mae-001" / "encoder.safetensors")
    assert facts["settings"]["encoder"]["weights"] == str(link / "encoder.safetensors"), "as it was given"


def test_every_flipped_bit_is_found_and_the_state_before_is_taken(tmp_path: Path) -> None:
    model, writer = small(tmp_path)
    writer.save(TrainingProgress(step=1, moved=11))
    with torch.no_grad():
        model.weight.zero_()
    newest = writer.save(TrainingProgress(step=2, moved=12))
    content = newest.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 100)):
        newest.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert writer.restore().moved == 11 and model.weight.abs().sum() > 0
    newest.write_bytes(content)
    assert writer.restore().moved == 12 and not model.weight.any()
    newest.write_bytes(content[:-100])
    assert writer.restore().moved == 11
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(AssertionError, match=r"no state in .* is sound"):
        writer.restore()


def test_two_states_are_kept_and_what_was_never_finished_goes(tmp_path: Path) -> None:
    _, writer = small(tmp_path)
    (tmp_path / "state-000100001.pt").write_bytes(b"killed before it had its digest")
    for step in range(1, 6):
        writer.save(TrainingProgress(step=step))
    assert [path.name[:21] for path in writer.states()] == ["state-000001000000005", "state-000001000000004"]
    assert len(list(tmp_path.iterdir())) == 2
    states.forget(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.parametrize("operation", ["fsync", "replace", "open", "torch.save", "state_digest"])
def test_a_fault_at_any_operation_leaves_the_last_good_state(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full disk at the first, the second, ... call of each operation, until none fails."""
    _, writer = small(tmp_path)
    writer.save(TrainingProgress(step=1, moved=11))
    targets = {
        "fsync": (os, "fsync"),
        "replace": (Path, "replace"),
        "open": (Path, "open"),
        "state_digest": (states, "state_digest"),
    }
    owner, name = targets.get(operation, (torch, "save"))
    real, failing, calls = getattr(owner, name), 1, 0

    def faulty(*words: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(28, "No space left on device")
        return real(*words, **named)

    while True:
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, faulty)
            try:
                writer.save(TrainingProgress(step=2, moved=12))
                break
            except (OSError, AssertionError):  # of a full disk is told in a line
                pass
        assert writer.restore().moved in (11, 12)
        failing += 1
    assert failing > 1 and writer.restore().moved == 12


def test_a_gradient_that_is_not_finite_names_its_recordings_and_ten_in_a_row_stop_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = TrainingProgress(epoch=3, step=7)
    for _ in range(9):
        progress.watch(float("nan"), lambda: ["pond/a.wav", "b.wav"])
    assert "epoch 3, step 7: no finite gradient, left out; recordings: pond/a.wav, b.wav" in capsys.readouterr().out
    progress.watch(0.5, list)
    for _ in range(9):
        progress.watch(float("nan"), list)
    with pytest.raises(AssertionError, match="10 steps in a row"):
        progress.watch(float("nan"), list)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_a_run_keeps_its_state_says_how_to_go_on_and_leaves_with_130(
    number: signal.Signals, few: FieldSeason, tmp_path: Path
) -> None:
    words = ["--preset", "demo", "--data.root", str(few.root), "--run.device", "cpu"]
    words += ["--encoder.weights", "random", "--train.epochs", "40", "--run.root", str(tmp_path)]
    words += ["--data.cache", str(tmp_path / "cache"), "--run.save_minutes", "0"]
    child = forked.start(HERE, "main.py", *words, early=True)
    kept = tmp_path / "finetune-001" / "states"
    while not (kept.is_dir() and any(kept.iterdir())) and not child.is_over():
        time.sleep(0.02)
    if not child.is_over():
        os.kill(child.pid, number)
    done = child.ended()
    said, problems = done.stdout, done.stderr
    assert done.returncode == 130 and "Traceback" not in said + problems, problems
    at_once, last = [line for line in problems.splitlines() if line.startswith("stop")]
    assert at_once == "stopping as soon as this step is done and its state is kept"
    assert last.startswith(f"stopped; {kept.parent} is marked as interrupted; its state is kept; go on with: ")
    python, script, *flags = shlex.split(last.partition("go on with: ")[2])
    assert flags == ["--run.resume", str(kept.parent)] and (HERE / script).samefile(HERE / "main.py")
    assert shutil.which(python, path=f"{os.environ['PATH']}:.")
    again = parse(FinetuneCommand, flags)
    assert again == replace(parse(FinetuneCommand, words), run=again.run) and again.run.resume == kept.parent
    assert json.loads((kept.parent / "run.json").read_text())["status"] == "interrupted"
    assert any(kept.iterdir())
