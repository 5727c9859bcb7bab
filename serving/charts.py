"""Pictures of a season as SVG, which needs no library: small maps of two axes, and lines that rise with effort.

    write_svg(path, maps("detections per hour", panels))
    write_svg(path, lines("hours analysed", "species", {"detected": [(1.0, 2.0), (2.0, 3.0)]}))

Writes   .svg: text and rectangles, no script; names are escaped
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from runtime.cells import bare
from runtime.files import publish

SIGNS = 14  # of a row's name
PANEL_WIDTH, PANEL_HEIGHT, LEFT, TOP, GAP = 420, 190, 90, 40, 40  # pixels
ACROSS = 2  # panels beside each other
TICKS = 8  # labels along an axis, at most
INK, NONE = "#222222", "#e8e8e8"  # text; analysed, and nothing found
PALE, DARK = (253, 231, 200), (122, 28, 62)
COLOURS = ("#7a1c3e", "#1f6f8b", "#888888")


@dataclass(frozen=True)
class Panel:
    """A map: what was found by column and row; what was not analysed is not in it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[str]
    values: Mapping[tuple[str, str], float]


def maps(caption: str, panels: Sequence[Panel]) -> str:
    """Panels two by two, each with a scale of its own: white where nothing was analysed, grey where nothing is."""
    parts = [text(LEFT, 20, caption, size=14)]
    for number, panel in enumerate(panels):
        x = LEFT + number % ACROSS * (PANEL_WIDTH + LEFT + GAP)
        y = TOP + 25 + number // ACROSS * (PANEL_HEIGHT + 2 * GAP)
        parts += panel_parts(panel, x, y)
    down = -(-len(panels) // ACROSS)
    return svg(parts, ACROSS * (PANEL_WIDTH + LEFT + GAP), TOP + 25 + down * (PANEL_HEIGHT + 2 * GAP))


def panel_parts(panel: Panel, x: float, y: float) -> list[str]:
    """One map, its axes and its title."""
    most = max(panel.values.values(), default=0.0)
    width, height = PANEL_WIDTH / max(1, len(panel.columns)), PANEL_HEIGHT / max(1, len(panel.rows))
    at = {name: x + number * width for number, name in enumerate(panel.columns)}
    above = {name: y + number * height for number, name in enumerate(panel.rows)}
    parts = [text(x, y - 8, f"{panel.title}, at most {most:.3g}")]
    for (column, row), value in panel.values.items():
        colour = shade(value / most) if value > 0 else NONE
        box = f'x="{at[column]:.1f}" y="{above[row]:.1f}" width="{width:.2f}" height="{height:.2f}" fill="{colour}"'
        parts.append(f"<rect {box}><title>{clean(f'{column}, {row}: {value:.3g}')}</title></rect>")
    step, jump = (max(1, -(-len(names) // TICKS)) for names in (panel.columns, panel.rows))
    parts += [text(at[name], y + PANEL_HEIGHT + 14, name[-10:], size=9) for name in panel.columns[::step]]
    return parts + [
        text(
            x - 5,
            above[name] + min(height, 12),
            name if len(name) <= SIGNS else f"{name[: SIGNS - 1]}…",
            size=9,
            anchor="end",
        )
        for name in panel.rows[::jump]
    ]


def lines(across: str, up: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Curves from the lower left, over one pair of axes."""
    points = [point for curve in curves.values() for point in curve]
    right, top = (max((point[axis] for point in points), default=0.0) or 1.0 for axis in (0, 1))
    width, height = 1.5 * PANEL_WIDTH, 1.5 * PANEL_HEIGHT
    parts = [f'<path d="M{LEFT},{TOP}v{height}h{width}" fill="none" stroke="{INK}"/>']
    parts += [text(LEFT + width, TOP + height + 30, f"{across} (up to {right:.4g})", anchor="end")]
    parts += [text(LEFT - 5, TOP + 4, f"{top:.3g}", anchor="end"), text(LEFT - 5, TOP + height, "0", anchor="end")]
    parts += [text(10, 20, up)]
    for number, (name, curve) in enumerate(curves.items()):
        path = " ".join(f"{LEFT + px / right * width:.1f},{TOP + (1 - py / top) * height:.1f}" for px, py in curve)
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(text(LEFT + 15, TOP + 16 * (number + 1), name, colour=colour))
    return svg(parts, LEFT + width + GAP, TOP + height + GAP)


def shade(share: float) -> str:
    """From pale to dark."""
    red, green, blue = (round(p + (d - p) * float(np.clip(share, 0, 1))) for p, d in zip(PALE, DARK, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def text(x: float, y: float, words: str, size: int = 11, anchor: str = "start", colour: str = INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{clean(words)}</text>'
    )


def clean(words: str) -> str:
    """Words as XML can hold them: without control characters, and with nothing that is taken for markup."""
    return escape(bare(words))


def svg(parts: Sequence[str], width: float, height: float) -> str:
    """A whole picture on white."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
    ground = f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
    return "\n".join([f'{head} height="{height:.0f}" font-family="sans-serif">', ground, *parts, "</svg>\n"])


def write_svg(path: Path, picture: str) -> Path:
    """The picture as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with publish(path) as temporary:
        temporary.write_text(picture, encoding="utf-8")
    return path


if __name__ == "__main__":
    from xml.etree.ElementTree import fromstring

    frog = Panel("<frog> & \x1b toad", ["May 1", "May 2"], ["05", "06"], {("May 1", "05"): 3.0, ("May 2", "06"): 0.0})
    picture = maps("calls per hour", [frog])
    print(len(picture), "bytes")
    boxes = [element.get("fill") for element in fromstring(picture).iter() if element.tag.endswith("rect")]
    assert boxes == ["#ffffff", shade(1.0), NONE], "dark where it called, grey where nothing did, white elsewhere"
