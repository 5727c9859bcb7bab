"""Which files the program is made of, and where each stands: read from the plan in Python.md and from the folders."""

import re
from pathlib import Path

HERE = Path(__file__).parents[1]
PLAN = re.search(r"```order\n(.*?)```", (HERE / "Python.md").read_text(encoding="utf-8"), re.DOTALL)
assert PLAN is not None, "Python.md has no plan"
ORDER = [line.split() for line in PLAN[1].splitlines()]  # the highest line first; a name with a slash is a wing
WINGS = tuple(name[:-1] for line in ORDER for name in line if name.endswith("/"))


def program() -> list[Path]:
    """Every file of the program, benches and tests left out."""
    return sorted([*HERE.glob("*.py"), *(path for wing in WINGS for path in (HERE / wing).glob("*.py"))])


def room(path: Path) -> str:
    """A file as others import it: `sounds.audio`."""
    inside = path.relative_to(HERE) if path.is_relative_to(HERE) else Path(path.name)
    return ".".join(inside.with_suffix("").parts)


def rooms() -> list[str]:
    """All files that hold more than the sentence about their wing."""
    return [room(path) for path in program() if path.stem != "__init__"]


def line_of(name: str) -> int:
    """How high a room stands; 0 is the ground. A room that the plan does not name stands nowhere: -1."""
    places = [name, name.partition(".")[0] + "/"]
    return next((len(ORDER) - 1 - at for at, line in enumerate(ORDER) if {*places} & {*line}), -1)
