"""A trained classifier as a folder that the hub understands, pushed there when told to.

    python publish.py runs/finetune --license cc-by-4.0
    python publish.py runs/finetune --license cc-by-4.0 --to owner/name
    python predictor.py season-2026/ --model hf://owner/name

Reads    runs/finetune: classifier.safetensors, run.json; the ONNX file that quantize.py made of it
Writes   README.md (the model card), config.json, labels.csv, classifier.safetensors, classifier.int8.onnx, and
         model.safetensors, the encoder for transformers; with --to the same on the hub

No recording, no path of this machine and nobody's name leaves it.
"""

from __future__ import annotations

import runtime.openmp  # pyright: ignore[reportUnusedImport] - it counts when torch is loaded
import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

from config import PublishCommand
from runtime.terminal import answer_early

if __name__ == "__main__":
    answer_early(PublishCommand)  # before what takes seconds to import

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from archive.licences import handed_on, is_non_commercial, licence_note
from runtime.files import read_json
from runtime.terminal import command_line, launch, show
from serving.hub import push, require_library
from serving.published import CARD, CLASSIFIER, Story, is_of, write_folder
from training.checkpoint import ClassifierFacts, load_classifier

ONNX = ("classifier.int8.onnx", "classifier.onnx")


def publish_run(config: PublishCommand) -> int:
    """The command; returns the exit code."""
    if config.to:
        require_library()
    path = config.trained / CLASSIFIER
    inner = sorted(config.trained.glob(f"*/{CLASSIFIER}"))
    assert path.is_file() or not inner, (
        f"{config.trained} has one classifier for each fold; name one: {inner[0].parent}"
    )
    model, facts = load_classifier(path)
    file = onnx_of(config, facts)
    show(f"with {file}" if file else "without an ONNX file: `python quantize.py` makes the one that predictor.py takes")
    folder = config.out or config.trained / "hub"
    refuse_taken(folder, [path, *([file] if file else [])])
    written = write_folder(folder, model, facts, file, story_of(config, facts))
    size = sum(one.stat().st_size for one in written) / 1e6
    show(f"wrote {', '.join(one.name for one in written)} to {folder} ({size:.1f} MB); read README.md before others do")
    helpers = handed_on(facts.provenance, path.name)
    if helpers:
        show(licence_note(helpers))
    closed = [one for one in helpers if is_non_commercial(one.get("license", ""))]
    if closed and config.license and not is_non_commercial(config.license):
        show(f"--license {config.license} promises more than {closed[0].get('name')} allows: give a non-commercial one")
    if not config.license:
        show("no --license: the card says that others must ask before they use it")
    if config.to:
        where = push(folder, config.to, private=not config.public)
        show(f"pushed; next: {command_line('predictor.py', 'RECORDINGS', '--model', where)}")
    else:
        words = command_line(
            "publish.py", config.trained, "--license", config.license or "LICENCE", "--to", "OWNER/NAME"
        )
        show(f"nothing was pushed; next: {words}")
    return 0


def refuse_taken(folder: Path, read: Sequence[Path]) -> None:
    """Refuse a folder in which a file that is read, or the card of something else, would be written over."""
    own = [path for path in read if path.resolve().parent == folder.resolve()]
    assert not own, f"--out {folder}: {own[0]} lies there and would be written over; give another folder"
    assert (folder / CLASSIFIER).is_file() or not (folder / CARD).exists(), (
        f"--out {folder}: {folder / CARD} is no model card of ours and would be written over; give another folder"
    )


def onnx_of(config: PublishCommand, facts: ClassifierFacts) -> Path | None:
    """The ONNX file of a classifier: the one that is named, else what quantize.py made last, if it is of this one."""
    if config.onnx:
        assert config.onnx.is_file(), f"no ONNX file at {config.onnx}; `python quantize.py` writes one"
        assert is_of(config.onnx, facts), f"{config.onnx} was not made of {config.trained}: name the file that was"
        return config.onnx
    made = [folder / "quantize" / name for folder in config.trained.resolve().parents[:2] for name in ONNX]
    return next((path for path in made if path.is_file() and is_of(path, facts)), None)


def story_of(config: PublishCommand, facts: ClassifierFacts) -> Story:
    """What a run says beside its classifier."""
    path = next((one for one in (config.trained, config.trained.parent) if (one / "run.json").is_file()), None)
    run: Mapping[str, Any] = read_json(path / "run.json", "take it away") if path else {}
    scores = numbers_of(run.get("scores")) or numbers_of(facts.provenance.get("held_out"))
    seconds = numbers_of(run).get("seconds", 0.0)
    return Story(config.to, config.license, scores, seconds, config.watts)


def numbers_of(stored: object) -> dict[str, float]:
    """The numbers of a JSON object."""
    given = cast(dict[str, object], stored) if isinstance(stored, dict) else {}
    return {name: float(value) for name, value in given.items() if isinstance(value, int | float)}


if __name__ == "__main__":
    launch(publish_run, PublishCommand)
