"""Commands that the benches start exist: a flag that has gone is found here, and not after three hours."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import (
    animals,
    busy,
    calls,
    context,
    folds,
    ingredients,
    listening,
    recipe,
    self_training,
    teachers,
    verdict,
    whisper,
)
from config import FinetuneCommand, PredictCommand, PretrainCommand, ProbeCommand, parse

Command = type[Any]
HELD_OUT = ("--data.valid_fold", "1")
START = ("--encoder.weights", "weights")


def commands() -> Iterator[tuple[str, Command, tuple[str, ...]]]:
    """Bench, command and flags, as the bench puts them together."""
    yield "animals", PretrainCommand, (*animals.SHARED, *animals.DATA, *animals.PRETRAIN)
    yield "animals", FinetuneCommand, (*animals.SHARED, *animals.DATA, *animals.FINETUNE)
    for work, command in (("main.py", FinetuneCommand), ("ssl_mae.py", PretrainCommand)):
        yield "busy", command, tuple(busy.command(work, Path("data"), Path("runs"), 3, busy.Arguments())[2:])
    for animal in calls.ANIMALS.values():
        for name in animal.arms:
            yield f"calls, {name}", FinetuneCommand, calls.settings(animal, name)
    for length in context.ARMS:
        yield f"context, {length.name}", FinetuneCommand, (*context.SHARED, *length.flags)
    yield "folds", FinetuneCommand, folds.FLAGS
    for way, (common, arms) in ingredients.WAYS.items():
        for arm in arms:
            flags = (*whisper.BASE, *whisper.LABELS, *HELD_OUT, *common, *arm.flags)
            yield f"ingredients, {way}, {arm.name}", FinetuneCommand, flags
    for row in whisper.ROWS:
        if row.flags is not None:
            yield f"whisper, {row.letter}", FinetuneCommand, (*row.flags, *whisper.SHARED, "--train.folds", "0", "1")
    yield "recipe", ProbeCommand, (*recipe.SIZE, *START)
    yield "recipe, reconstruction", PretrainCommand, (*recipe.SIZE, *START, *recipe.MASK, *HELD_OUT)
    imitation = (*teachers.IMITATE, *recipe.PASSES, "--teacher", "birdnet.npz", *HELD_OUT)
    yield "recipe, imitation", PretrainCommand, (*recipe.SIZE, *START, *imitation)
    yield "teachers", PretrainCommand, (*teachers.BASE, *START, *imitation)
    yield "teachers", FinetuneCommand, (*teachers.BASE, *START, *whisper.SHARED, *HELD_OUT, "--train.frozen")
    for brakes in self_training.ARMS:
        flags = (*whisper.BASE, *whisper.SHARED, "--data.pseudo", "recordings.csv", *brakes.flags)
        yield f"self-training, {brakes.name}", FinetuneCommand, flags
    for question in (verdict.WHISPER, verdict.SCRATCH_WEIGHTS):
        for way_of_masking in question.arms:
            if way_of_masking.stage_one is not None:
                flags = ("--preset", question.size, *question.start, *question.stage_one, *way_of_masking.stage_one)
                yield f"verdict, {way_of_masking.name}", PretrainCommand, flags


def different() -> Iterator[tuple[str, Command, tuple[str, ...]]]:
    """Those of them that have a flag, or a value of one, that none before had."""
    known = set[tuple[Command, str]]()
    for name, command, flags in commands():
        words = {(command, word) for word in " ".join(flags).split("--")}
        if not words <= known:
            yield name, command, flags
        known |= words


@pytest.mark.parametrize(("command", "flags"), [pytest.param(*rest, id=name) for name, *rest in different()])
def test_the_command_knows_every_flag(command: Command, flags: tuple[str, ...]) -> None:
    preset = flags[flags.index("--preset") + 1] if "--preset" in flags else "demo"
    config: Any = parse(command, flags)
    assert config.encoder.size == preset


def test_predictor_knows_the_flags_of_every_way_to_listen() -> None:
    plain, *others = (parse(PredictCommand, ["sounds", "--scores", *way.flags]) for way in listening.WAYS)
    changed = [plain != other for other in others]
    assert changed == [bool(way.flags) for way in listening.WAYS[1:]]


STAGE = """
import json, sys
from pathlib import Path
words = sys.argv[1:]
root = Path(words[-1]).parent if "--run.resume" in words else Path(words[-1])
run = Path(words[-1]) if "--run.resume" in words else root / f"mae-{len(list(root.glob('mae-*'))) + 1:03}"
run.mkdir(exist_ok=True)
if "--state" in words:
    (run / "states").mkdir()
(run / "run.json").write_text(json.dumps({"status": "failed" if "--fails" in words else "finished", "words": words}))
if "--fails" in words:
    raise SystemExit(1)
(root / "mae").symlink_to(run.name)
"""


def test_a_stage_is_done_once_begun_anew_where_nothing_was_kept_and_gone_on_with_where_something_was(
    tmp_path: Path,
) -> None:
    """Stopped before its first state it has the number 2 when it ends; what was done with other flags is refused."""
    (tmp_path / "stage.py").write_text(STAGE)
    for place, cut, number in (("anew", [], "002"), ("on", ["--state"], "001")):
        folder, stage = tmp_path / place, str(tmp_path / "stage.py")
        with pytest.raises(AssertionError, match=r"stage.py left with 1: see .*printed.txt"):
            teachers.command(stage, folder, "mae", "--fails", *cut)
        (folder / "flags.txt").write_text("--flag\n3")  # whatever it was that failed
        run = teachers.command(stage, folder, "mae", "--flag", "3")
        words = json.loads((run / "run.json").read_text())["words"]
        assert run == folder / "mae" and run.resolve().name == f"mae-{number}"
        assert words[0] == ("--run.resume" if cut else "--flag")
        (folder / "printed.txt").unlink()
        assert teachers.command(stage, folder, "mae", "--flag", "3") == run and not (folder / "printed.txt").exists()
        with pytest.raises(AssertionError, match="made with other flags; remove it"):
            teachers.command(stage, folder, "mae", "--flag", "4")


def test_a_flag_that_has_gone_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(PretrainCommand, ("--data.min_recordings", "8"))
    assert "--data.min_recordings" in "".join(capsys.readouterr())
