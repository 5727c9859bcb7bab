"""Commands that the benches start exist: a flag that has gone is found here, and not after three hours."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import animals, busy, calls, context, folds, ingredients, recipe, self_training, teachers, verdict, whisper
from config import FinetuneCommand, PretrainCommand, ProbeCommand, parse

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


def test_a_flag_that_has_gone_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(PretrainCommand, ("--data.min_recordings", "8"))
    assert "--data.min_recordings" in "".join(capsys.readouterr())
