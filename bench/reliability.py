"""What is promised of runs and files that go wrong, and what the tests that hold it counted: a line for each goal.

    make bench-reliability          (or: .venv/bin/python -m bench.reliability [quick], without the slow tests)

Reads    the tests, which tell their figures with pytest's record_property("R5", "0 of 412 faults lost a file")
Writes   runs/reliability.xml, and prints a table in Markdown; leaves with 1 where a goal is not met or not measured
"""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

HERE, REPORT = Path(__file__).parents[1], Path("runs/reliability.xml")
GOALS = {
    "R1": "bad paths: one clear outcome each",
    "R2": "the ledger of inputs adds up",
    "R3": "kill -9 of the predictor: the same tables",
    "R4": "kill -9 of training: the same weights and records",
    "R5": "a fault at every file operation of every save",
    "R6": "a full disk",
    "R7": "SIGTERM and SIGINT at any moment",
    "R8": "flipped bits are found",
    "R9": "states that are kept",
    "R10": "a recording that poisons the gradient",
    "R11": "memory for 24 h of sound",
    "R12": "memory and open files for many recordings",
    "R13": "odd sample rates",
    "R14": "true time",
    "R15": "a window's score does not depend on its neighbours",
    "R16": "INT8 kernels with a known answer",
    "R17": "hostile files",
    "R18": "broken tables",
    "R19": "fuzzing",
    "R20": "the same command twice",
    "R21": "nothing in the code that runs what it reads",
    "R22": "every reason has a test and a line in docs/reasons.md",
}


@dataclass
class Found:
    """What the tests of a goal told."""

    figures: list[str] = field(default_factory=list[str])
    failed: int = 0


def bench(quick: bool) -> int:
    """Run the tests that tell figures, print the table; returns the exit code."""
    REPORT.parent.mkdir(exist_ok=True)
    words = [
        "-q",
        "-p",
        "no:randomly",
        "-o",
        "junit_family=xunit1",
        f"--junitxml={REPORT}",
        *(["-m", "not slow"] if quick else []),
    ]
    subprocess.run([sys.executable, "-m", "pytest", *words, *map(str, telling_files())], cwd=HERE, check=False)
    found = figures(REPORT)
    print("\n".join(table(found)))
    return int(any(not found[goal].figures or found[goal].failed for goal in GOALS))


def telling_files() -> list[Path]:
    """The files of tests that tell figures."""
    return [path for path in sorted((HERE / "tests").rglob("test_*.py")) if "record_property" in path.read_text()]


def figures(report: Path) -> dict[str, Found]:
    """Goal -> what its tests told, from a report in JUnit's format that pytest has just written."""
    found = {goal: Found() for goal in GOALS}
    for case in ET.parse(report).iter("testcase"):
        failed = case.find("failure") is not None or case.find("error") is not None
        for told in case.iter("property"):
            goal = told.get("name", "")
            if goal in found:
                found[goal].figures.append(told.get("value", ""))
                found[goal].failed += failed
    return found


def table(found: dict[str, Found]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| | goal | counted |", "|---|---|---|"]
    for goal, title in GOALS.items():
        told = "; ".join(found[goal].figures) or "not measured"
        lines.append(f"| {goal} | {title} | {'**not met**: ' if found[goal].failed else ''}{told} |")
    return lines


if __name__ == "__main__":
    sys.exit(bench("quick" in sys.argv[1:]))
