"""Do readers that others wrote open our Raven tables? crowsetta and opensoundscape, where they are installed.

    .venv/bin/python -m bench.readers          (pip install crowsetta opensoundscape, in an environment of their own)

Writes   /tmp/wildwhisper/bench-readers/, and prints what each reader makes of it
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from config import SCRATCH
from serving.detections import Analysed, Detection, TableFacts
from serving.tables import write_tables

FOLDER = SCRATCH / "bench-readers"


def bench() -> None:
    """A silent recording between two loud ones, read back."""
    frog = Detection(0.0, 5.0, "41", "Rana ficta", 'the "pretend", frog', 0.91, 0.25)
    names = ("pond/dawn.wav", "pond/noon.wav", "pond/dusk.wav")
    told = [Analysed(name, "pond", "", 48_000, 1, 60.0, 60.0, 12, "ok", "", 5_760_044, 1) for name in names]
    season = [replace(one, found=() if "noon" in one.file else (frog,)) for one in told]
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_tables(FOLDER, season, TableFacts("toy.onnx", 5.0, 0.0, 16_000.0), ("raven",), split=True)
    table = FOLDER / "exports" / "raven.selections.txt"
    expected = [(0.0, 5.0, "41"), (120.0, 125.0, "41")]
    if find_spec("crowsetta"):
        raven: Any = import_module("crowsetta.formats.bbox.raven")
        boxes = raven.Raven.from_file(str(table), annot_col="Species Code").to_bbox()
        say("crowsetta", [(float(box.onset), float(box.offset), str(box.label)) for box in boxes] == expected)
    if find_spec("opensoundscape"):
        annotations: Any = import_module("opensoundscape.annotations")
        boxes = annotations.BoxedAnnotations.from_raven_files([str(table)], annotation_column="Species Code")
        rows = boxes.df[["start_time", "end_time", "annotation"]].to_numpy().tolist()
        say("opensoundscape", [(float(a), float(b), str(c)) for a, b, c in rows] == expected)
    if not (find_spec("crowsetta") or find_spec("opensoundscape")):
        print("neither crowsetta nor opensoundscape is installed: nothing was read")


def say(reader: str, same: bool) -> None:
    print(f"{reader}: {'reads every selection as it was written' if same else 'READS SOMETHING ELSE'}")
    assert same, f"{reader} reads something else than was written"


if __name__ == "__main__":
    bench()
