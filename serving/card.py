"""quantize.png: what INT8 costs each product, where the time goes, how the two files agree.

draw_card(path, costs, recipe, parts, (floats, int8), title)
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.files import publish
from serving.export import Recipe
from serving.sensitivity import PRODUCTS, ProductCost

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED_LAYERS = 12  # of more, only what stays in float32 is named


def draw_card(
    path: Path,
    costs: Sequence[ProductCost],
    recipe: Recipe,
    parts: Mapping[str, Mapping[str, float]],
    scores: tuple[NDArray[np.float32], NDArray[np.float32]],
    title: str,
) -> None:
    """The whole picture, written to `path`.

    parts    of each file, milliseconds of a context by kind of work
    scores   of the float32 and the INT8 file, (windows, species) each
    """
    from matplotlib.figure import Figure  # slow to import, and only drawn once

    figure = Figure(figsize=(15, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.25, 1.1, 1])
    draw_products(left, costs, recipe)
    if costs:
        figure.colorbar(left.images[0], ax=left, label="% of the logits' spread")
    draw_parts(middle, parts)
    draw_agreement(right, *scores)
    figure.suptitle(title)
    with publish(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def draw_products(axes: Axes, costs: Sequence[ProductCost], recipe: Recipe) -> None:
    """A field for each product, layer by layer, the darker the more INT8 moves the logits."""
    if not costs:  # of networks for pictures the file as a whole is judged
        axes.axis("off")
        axes.text(0.5, 0.5, "products are not measured one by one", ha="center", transform=axes.transAxes)
        return
    layers = 1 + max(int(cost.name.split(".")[1]) for cost in costs)
    table = np.zeros((layers, len(PRODUCTS)))
    for cost in costs:
        _, layer, product = cost.name.split(".", 2)
        row, column = int(layer), PRODUCTS.index(product)
        error = 100 * (cost.error_8_bits if cost.name in recipe.eight else cost.error)
        table[row, column] = error
        text = f"{error:.1f}{' *' if cost.name in recipe.eight else ''}"
        if cost.name in recipe.spared:
            text = "float32"
        if layers <= NAMED_LAYERS or cost.name in recipe.spared:
            axes.text(column, row, text, ha="center", va="center", fontsize=8)
    axes.imshow(table, cmap="Oranges", vmin=0, vmax=1.5 * table.max(), aspect="auto")
    axes.set_xticks(range(len(PRODUCTS)), [name.removeprefix("self_attn.") for name in PRODUCTS])
    if layers <= NAMED_LAYERS:
        axes.set_yticks(range(layers))
    axes.set_ylabel("layer")
    axes.set_title("what INT8 moves the logits by" + (" (* weights of 8 bits)" if recipe.eight else ""))


def draw_parts(axes: Axes, parts: Mapping[str, Mapping[str, float]]) -> None:
    """Two bars for each kind of work, one of each file."""
    names = [part for part in next(iter(parts.values())) if any(times[part] > 0 for times in parts.values())]
    for offset, (name, times) in zip((-0.2, 0.2), parts.items(), strict=True):
        heights = [row + offset for row in range(len(names))]
        bars = axes.barh(heights, [times[part] for part in names], 0.4, label=name)
        axes.bar_label(bars, fmt="%.2f", fontsize=7, padding=2)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("ms of a context, one thread")
    axes.legend()
    axes.set_title("where the time goes")


def draw_agreement(axes: Axes, floats: NDArray[np.float32], int8: NDArray[np.float32]) -> None:
    """A point for each window: what both files give the species that is best for the float32 one."""
    best = np.arange(len(floats)), floats.argmax(axis=1)
    same = floats.argmax(axis=1) == int8.argmax(axis=1)
    x, y = floats[best], int8[best]
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.plot(x[same], y[same], ".", markersize=4, label=f"{same.sum()} windows, same best species")
    axes.plot(x[~same], y[~same], "x", color="tab:red", label=f"{(~same).sum()} windows, another one")
    axes.set_xlabel("float32: probability of its best species")
    axes.set_ylabel("INT8: probability of the same species")
    axes.legend(fontsize=8)
    axes.set_title("how the two files agree")


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    costs = [ProductCost(f"layers.{k}.{name}", 0.01 * k, 0.005 * k, 3.0, True) for k in (0, 1) for name in PRODUCTS]
    recipe = Recipe({"layers.1.fc2": "it alone would move the logits"}, ["layers.1.fc1"])
    parts = {name: {"attention": 1.0, "norms": 0.5} for name in ("float32", "INT8")}
    floats = rng.uniform(0, 1, (50, 3)).astype(np.float32)
    int8 = np.clip(floats + rng.normal(0, 0.02, floats.shape), 0, 1).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantize.png"
        draw_card(path, costs, recipe, parts, (floats, int8), "gate passed")
        print(f"{path.name}: {path.stat().st_size} bytes")
        assert path.read_bytes()[:4] == b"\x89PNG"
