"""The figures of the commands, and of the files by which they meet: all stages, and the loop from one call on.

    python docs/draw_pipeline.py

Writes   docs/pipeline.png, docs/loop.png
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

HERE = Path(__file__).parent
WIDTH, HEIGHT = 1.55, 0.62  # of a box
COMMAND, FILE, INPUT = "#1f6f5c", "#f1efe6", "#dfe9f3"


class Box(NamedTuple):
    """A command, a file or what is brought along."""

    x: float
    y: float
    text: str
    colour: str


class Figure(NamedTuple):
    """What is drawn: boxes by name, arrows along a row or a column, and arrows by way of a height."""

    name: str
    boxes: dict[str, Box]
    arrows: tuple[tuple[str, str], ...]
    elbows: tuple[tuple[str, str, float], ...]


STAGES = {
    "unlabelled": Box(0, 3, "recordings\nwithout labels", INPUT),
    "labelled": Box(0, 2, "labelled\nrecordings", INPUT),
    "season": Box(0, 0, "a season\nof recordings", INPUT),
    "ssl_mae": Box(2, 3, "ssl_mae.py\nmasked autoencoding", COMMAND),
    "data_loader": Box(2, 2, "data_loader.py\ncheck, split", COMMAND),
    "predictor": Box(2, 0, "predictor.py\nevery 5 seconds", COMMAND),
    "encoder": Box(4, 3, "encoder\n.safetensors", FILE),
    "table": Box(4, 2, "recordings.csv", FILE),
    "detections": Box(4, 0, "detections.csv\nfiles.csv", FILE),
    "main": Box(6, 2.5, "main.py\nhead first, then all", COMMAND),
    "report": Box(6, 0, "report.py\nlisten and judge", COMMAND),
    "classifier": Box(8, 2.5, "classifier\n.safetensors", FILE),
    "quantize": Box(10, 2.5, "quantize.py\nINT8", COMMAND),
    "int8": Box(10, 1.25, "classifier\n.int8.onnx", FILE),
    "verdicts": Box(8, 0, "validation.csv\nthresholds.csv", FILE),
}
STAGE_ARROWS = (
    *(("unlabelled", "ssl_mae"), ("ssl_mae", "encoder"), ("labelled", "data_loader"), ("data_loader", "table")),
    *(("encoder", "main"), ("table", "main"), ("main", "classifier"), ("classifier", "quantize"), ("quantize", "int8")),
    *(("season", "predictor"), ("predictor", "detections"), ("detections", "report"), ("report", "verdicts")),
)
LOOP = {
    "season": Box(0, 1.6, "a season\nof recordings", INPUT),
    "index_command": Box(2, 1.6, "search.py index\nembeds windows", COMMAND),
    "index": Box(4, 1.6, "season.index", FILE),
    "query": Box(6, 1.6, "search.py query\nnearest windows", COMMAND),
    "call": Box(6, 2.7, "call.wav\none example", INPUT),
    "windows": Box(8, 1.6, "windows\nto listen to", FILE),
    "report": Box(10, 1.6, "report.py\nlisten and judge", COMMAND),
    "verdicts": Box(10, 0, "validation.csv", FILE),
    "refit": Box(4, 0, "refit.py\na head in seconds", COMMAND),
    "classifier": Box(2, 0, "classifier.onnx\nthresholds", FILE),
    "predictor": Box(0, 0, "predictor.py\nevery 5 seconds", COMMAND),
}
FIGURES = (
    Figure("pipeline.png", STAGES, STAGE_ARROWS, (("int8", "predictor", 1.25), ("verdicts", "table", 0.9))),
    Figure(
        "loop.png",
        LOOP,
        (
            *(("season", "index_command"), ("index_command", "index"), ("index", "query"), ("call", "query")),
            *(("query", "windows"), ("windows", "report"), ("report", "verdicts"), ("verdicts", "refit")),
            *(("index", "refit"), ("refit", "classifier"), ("classifier", "predictor")),
        ),
        (("refit", "windows", 0.8),),
    ),
)


def draw(drawn: Figure, path: Path) -> None:
    """The whole figure."""
    heights = [box.y for box in drawn.boxes.values()]
    low, high = min(heights) - 0.5, max(heights) + 0.5
    figure, axes = plt.subplots(figsize=(12, 1.05 * (high - low)), dpi=110)
    for box in drawn.boxes.values():
        corner = (box.x - WIDTH / 2, box.y - HEIGHT / 2)
        shape = "round,pad=0.02,rounding_size=0.1"
        axes.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle=shape, facecolor=box.colour, edgecolor="#555"))
        colour = "white" if box.colour == COMMAND else "#222"
        axes.text(box.x, box.y, box.text, ha="center", va="center", fontsize=10, color=colour)
    for start, end in drawn.arrows:
        tail, head = ends(drawn.boxes[start], drawn.boxes[end])
        axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": "#555", "shrinkA": 2, "shrinkB": 2})
    for start, end, height in drawn.elbows:
        one, other = drawn.boxes[start], drawn.boxes[end]
        side = one.y == height
        begin = (one.x - WIDTH / 2 if side else one.x, height if side else one.y + HEIGHT / 2)
        stop = other.y + HEIGHT / 2 if height > other.y else other.y - HEIGHT / 2
        above = [drawn.boxes[first] for first, name in drawn.arrows if name == start]
        bend = one.x + WIDTH / 4 if any(box.x == one.x for box in above) else begin[0]
        axes.plot([bend, bend, other.x], [begin[1], height, height], color="#555", linewidth=1)
        axes.annotate("", (other.x, stop), (other.x, height), arrowprops={"arrowstyle": "-|>", "color": "#555"})
    axes.set_xlim(-1, 11)
    axes.set_ylim(low, high)
    axes.set_axis_off()
    figure.tight_layout(pad=0)
    figure.savefig(path)
    plt.close(figure)


def ends(one: Box, other: Box) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where an arrow from one box to another begins and ends."""
    if one.x == other.x:
        down = HEIGHT / 2 if one.y > other.y else -HEIGHT / 2
        return (one.x, one.y - down), (other.x, other.y + down)
    side = WIDTH / 2 if one.x < other.x else -WIDTH / 2
    return (one.x + side, one.y), (other.x - side, other.y)


if __name__ == "__main__":
    for drawn in FIGURES:
        draw(drawn, HERE / drawn.name)
        assert (HERE / drawn.name).stat().st_size > 10_000, f"{drawn.name} is empty"
