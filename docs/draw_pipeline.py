"""The figure of the README: the commands, and the files by which they meet.

    python docs/draw_pipeline.py

Writes   docs/pipeline.png
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

OUT = Path(__file__).with_name("pipeline.png")
WIDTH, HEIGHT = 1.55, 0.62  # of a box
COMMAND, FILE, INPUT = "#1f6f5c", "#f1efe6", "#dfe9f3"


class Box(NamedTuple):
    """A command, a file or what is brought along."""

    x: float
    y: float
    text: str
    colour: str


BOXES = {
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
ARROWS = (
    *(("unlabelled", "ssl_mae"), ("ssl_mae", "encoder"), ("labelled", "data_loader"), ("data_loader", "table")),
    *(("encoder", "main"), ("table", "main"), ("main", "classifier"), ("classifier", "quantize"), ("quantize", "int8")),
    *(("season", "predictor"), ("predictor", "detections"), ("detections", "report"), ("report", "verdicts")),
)
ELBOWS = (("int8", "predictor", 1.25), ("verdicts", "table", 0.9))  # by way of this height


def draw(path: Path) -> None:
    """The whole figure."""
    figure, axes = plt.subplots(figsize=(12, 4.2), dpi=110)
    for box in BOXES.values():
        corner = (box.x - WIDTH / 2, box.y - HEIGHT / 2)
        axes.add_patch(
            FancyBboxPatch(
                corner,
                WIDTH,
                HEIGHT,
                boxstyle="round,pad=0.02,rounding_size=0.1",
                facecolor=box.colour,
                edgecolor="#555",
            )
        )
        colour = "white" if box.colour == COMMAND else "#222"
        axes.text(box.x, box.y, box.text, ha="center", va="center", fontsize=10, color=colour)
    for start, end in ARROWS:
        one, other = BOXES[start], BOXES[end]
        down = one.x == other.x
        tail = (one.x, one.y - HEIGHT / 2) if down else (one.x + WIDTH / 2, one.y)
        head = (other.x, other.y + HEIGHT / 2) if down else (other.x - WIDTH / 2, other.y)
        axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": "#555", "shrinkA": 2, "shrinkB": 2})
    for start, end, height in ELBOWS:
        one, other = BOXES[start], BOXES[end]
        side = one.y == height
        begin = (one.x - WIDTH / 2 if side else one.x, height if side else one.y + HEIGHT / 2)
        stop = other.y + HEIGHT / 2 if height > other.y else other.y - HEIGHT / 2
        axes.plot([begin[0], begin[0], other.x], [begin[1], height, height], color="#555", linewidth=1)
        axes.annotate("", (other.x, stop), (other.x, height), arrowprops={"arrowstyle": "-|>", "color": "#555"})
    axes.set_xlim(-1, 11)
    axes.set_ylim(-0.5, 3.5)
    axes.set_axis_off()
    figure.tight_layout(pad=0)
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    draw(OUT)
    assert OUT.stat().st_size > 10_000, f"{OUT} is empty"
