"""What a command prints to be done next can be copied into the terminal, and is taken by the command that it names."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import forked
import pytest
from house import program
from pretend import write_results

from archive.recordings import Recording, write_recordings
from config import (
    FinetuneCommand,
    LabelledSettings,
    PredictCommand,
    PretrainCommand,
    ProbeCommand,
    QuantizeCommand,
    ReportCommand,
    changed_words,
    parse,
)
from main import finetune
from quantize import next_command as after_quantize
from report import next_steps as after_review
from runtime.terminal import command_line
from serving.results import read_results
from ssl_mae import next_step as after_ssl_mae

HERE = Path(__file__).parents[1]
COMMANDS: dict[str, Callable[[list[str]], object]] = {
    "main.py": partial(parse, FinetuneCommand),
    "predictor.py": partial(parse, PredictCommand),
    "quantize.py": partial(parse, QuantizeCommand),
    "report.py": partial(parse, ReportCommand),
    "ssl_mae.py": partial(parse, PretrainCommand),
}


def taken(text: str) -> list[object]:
    """The settings that every command in a text gives to the program that it names; all paths in them are there."""
    found: list[object] = []
    for line in text.splitlines():
        if script := re.search(r"(\S*[/ ])?(\w+\.py) ", line[line.find(sys.executable.rpartition("/")[2]) :]):
            start = line.find("next: ") + 6 if "next: " in line else line.rfind(": ") + 2
            words = shlex.split(line[max(start, 0) :].strip())
            place = next(n for n, word in enumerate(words) if word.endswith(script[2]))
            assert Path(words[0]).is_file() or words[0] == "python", words
            assert Path(words[place]).is_file(), words
            found.append(COMMANDS[script[2]](words[place + 1 :]))
    return found


@pytest.mark.parametrize("where", [HERE, Path("/")])
def test_a_command_line_runs_from_where_the_command_was_given(
    where: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(where)
    odd = tmp_path / "a b; rm 'x' $HOME.wav"
    line = command_line("predictor.py", odd, "--model", tmp_path / "none.onnx")
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith(f"error: not found: {odd}"), done.stderr
    plain = f"python predictor.py {odd} --model {tmp_path / 'none.onnx'}"  # negative control: as it was printed before
    done = subprocess.run(["/bin/sh", "-c", plain], capture_output=True, text=True, check=False)
    assert f"not found: {odd}" not in done.stderr


def test_the_usual_python_is_called_so_and_another_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not command_line("main.py").startswith("python ")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert command_line("main.py").startswith("python ")
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    assert command_line("main.py") == f"./python {HERE / 'main.py'}"


def test_no_room_prints_a_next_step_that_it_made_up_itself() -> None:
    for path in program():
        assert not re.search(r"[nN]ext: +python|print\(f?\"( *)python ", path.read_text(encoding="utf-8")), path


def test_stage_1_names_the_recordings_and_the_split_it_was_given(tmp_path: Path) -> None:
    flags = ["--preset", "demo", "--data.root", str(tmp_path), "--data.folds", "4", "--data.valid_fold", "2"]
    config = parse(PretrainCommand, [*flags, "--audio.context_seconds", "10", "--data.layout", "folders"])
    (next_,) = taken(after_ssl_mae(config, tmp_path / "encoder.safetensors", labelled=True))
    assert isinstance(next_, FinetuneCommand)
    data = replace(FinetuneCommand.defaults("demo").data, root=tmp_path, folds=4, valid_fold=2, layout="folders")
    assert next_.data == data and next_.audio == config.audio and next_.preset == "demo"
    assert next_.encoder.weights == str(tmp_path / "encoder.safetensors")
    assert not taken(after_ssl_mae(config, tmp_path / "encoder.safetensors", labelled=False)), "nothing to copy"


def test_stage_3_names_a_recording_that_is_there(tmp_path: Path) -> None:
    classifier, model = tmp_path / "classifier.safetensors", tmp_path / "classifier.int8.onnx"
    assert not taken(after_quantize(classifier, model))
    (tmp_path / "b.wav").touch()
    rows = [Recording(tmp_path / name, name, ("owl",)) for name in ("a.wav", "b.wav")]
    write_recordings(tmp_path / "held_out_recordings.csv", rows)
    (next_,) = taken(after_quantize(classifier, model))
    assert isinstance(next_, PredictCommand)
    assert next_.inputs == (tmp_path / "b.wav",) and next_.model == (model,)


def test_the_probe_passes_on_what_was_asked_of_it() -> None:
    usual = ProbeCommand.defaults("base").data
    given = LabelledSettings(Path("birds"), min_recordings=8, folds=3)
    words = changed_words("data", given, usual)
    assert words == ["--data.root", "birds", "--data.folds", "3", "--data.min_recordings", "8"]
    assert not changed_words("data", usual, usual)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_after_a_review_only_commands_that_can_work_are_printed(there: bool, training: bool, tmp_path: Path) -> None:
    folder = write_results(tmp_path, 1, 3)
    facts = json.loads((folder / "run.json").read_text())
    facts |= {"inputs": [str(tmp_path / "card")], "models": ["m.onnx"]}
    facts["settings"]["runs"] = "runs"
    table = tmp_path / "runs" / "data" / "recordings.csv"
    if there:
        (tmp_path / "m.onnx").touch()
        table.parent.mkdir(parents=True)
        table.touch()
    (folder / "run.json").write_text(json.dumps(facts))
    config = ReportCommand(folder, apply=(tmp_path / "validation.csv",), training=table if training else None)
    lines = after_review(config, read_results(folder), folder / "review")
    told = taken("\n".join(lines))
    assert [type(one) for one in told] == [
        *([PredictCommand] if there else []),
        *([FinetuneCommand] if training else [ReportCommand] if there else []),
    ]
    for one in told:
        if isinstance(one, PredictCommand):
            assert one.inputs == (tmp_path / "card",) and one.model == (tmp_path / "m.onnx",)
            assert one.thresholds == folder / "review" / "thresholds.csv" and one.out and not one.out.exists()
        if isinstance(one, FinetuneCommand):
            assert one.data.root == folder / "review" / "recordings.csv"
        if isinstance(one, ReportCommand):
            assert one.training == table and one.apply == config.apply


Training = TypeVar("Training", FinetuneCommand, PretrainCommand)


def stored(tmp_path: Path, command: type[Training], flags: Sequence[str]) -> Path:
    """A run.json as a command with these flags writes it."""
    settings = json.loads(json.dumps(asdict(parse(command, flags)), default=str))
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings}))
    return tmp_path


@pytest.mark.parametrize("command", [FinetuneCommand, PretrainCommand])
@pytest.mark.parametrize("equals", [True, False])
def test_resume_alone_brings_back_every_setting(command: type[Training], equals: bool, tmp_path: Path) -> None:
    flags = [
        "--preset",
        "demo",
        "--data.root",
        str(tmp_path / "a b"),
        "--augment.gain_db",
        "-3",
        "2",
        "--run.seed",
        "5",
    ]
    flags += ["--data.label_column", "", "--train.compile", "--encoder.weights", "random"]
    if command is FinetuneCommand:
        flags += ["--train.folds", "0", "2", "--data.no_call", str(tmp_path / "n"), "--train.frozen"]
    folder = stored(tmp_path, command, flags)
    words: list[str] = [f"--run.resume={folder}"] if equals else ["--run.resume", str(folder)]
    again = parse(command, words)
    assert replace(again, run=replace(again.run, resume=None)) == parse(command, flags)
    assert again.run.resume == folder and again.data.root != command.defaults("base").data.root
    assert parse(command, [*words, "--train.epochs", "99"]).train.epochs == 99, "whoever opens the run refuses it"


@pytest.mark.parametrize("content", [None, "", "[]", '{"settings": 3}', '{"settings": {"data": 3, "x": {"y": 1}}}'])
def test_a_run_that_cannot_be_read_is_left_to_whoever_opens_it(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    config = parse(FinetuneCommand, ["--run.resume", str(tmp_path)])
    assert config == replace(FinetuneCommand.defaults("base"), run=replace(config.run, resume=tmp_path))


def test_a_flag_that_contradicts_a_resumed_run_is_refused_in_a_line_before_anything_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "finetune-001"
    folder.mkdir()
    stored(folder, FinetuneCommand, ["--preset", "demo", "--data.root", str(tmp_path / "none")])
    facts = {"name": "finetune-001", "status": "interrupted", "host": "h", "pid": 1, "started": "now"}
    (folder / "run.json").write_text(json.dumps(json.loads((folder / "run.json").read_text()) | facts))
    words = ["--run.resume", str(folder)]
    done = forked.run(tmp_path, "main.py", *words, "--train.epochs", "99")
    assert done.returncode == 1 and "--train.epochs was 10, is 99" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    with pytest.raises(AssertionError, match=f"no folder {tmp_path / 'none'}"):  # its own data root
        finetune(parse(FinetuneCommand, words))
