"""The goals of bench/reliability.py: each has a line, a test that tells its figure, a row in docs/reliability.md."""

import re
from pathlib import Path

from bench.reliability import GOALS, figures, table, telling_files

HERE = Path(__file__).parents[2]
CASE = '<testcase name="{name}"><properties><property name="{goal}" value="{value}"/></properties>{end}</testcase>'


def test_every_goal_has_a_test_that_tells_its_figure_and_a_row_in_the_docs() -> None:
    assert list(GOALS) == [f"R{number}" for number in range(1, 23)]
    tests = "\n".join(path.read_text(encoding="utf-8") for path in telling_files())
    telling = set(re.findall(r'record_property\(\s*"(R\d+)"', tests))
    telling |= set(re.findall(r'record_property\("(R\d+)" if .* else "(R\d+)"', tests)[0])
    assert telling == set(GOALS)
    rows = re.findall(
        r"^\| (R\d+(?:, R\d+)*) \|", (HERE / "docs" / "reliability.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert ", ".join(rows).split(", ") == list(GOALS)


def test_a_goal_names_the_files_that_are_there() -> None:
    named = [word for title in GOALS.values() for word in re.findall(r"\S+\.md|README", title)]
    assert named == ["docs/reasons.md"] and (HERE / named[0]).is_file()


def test_what_failed_or_was_not_measured_says_so(tmp_path: Path) -> None:
    cases = (
        CASE.format(name="one", goal="R1", value="296 kinds", end=""),
        CASE.format(name="two", goal="R1", value="soundfile: 34", end=""),
        CASE.format(name="three", goal="R8", value="99 of 100", end="<failure/>"),
    )
    (tmp_path / "report.xml").write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    lines = table(figures(tmp_path / "report.xml"))
    assert len(lines) == 2 + len(GOALS)
    assert "| 296 kinds; soundfile: 34 |" in lines[2] and "**not met**: 99 of 100" in lines[9]
    assert lines[10].endswith("| not measured |")


def test_make_test_draws_the_same_examples_for_everybody_and_make_test_all_searches() -> None:
    """A test that fails by chance tells a newcomer that the project is broken."""
    from hypothesis import settings

    assert settings.get_profile("everybody").derandomize and not settings.get_profile("search").derandomize
    lines = (HERE / "Makefile").read_text(encoding="utf-8").split("\n")
    ordinary, thorough = (lines[lines.index(f"{goal}: check") + 1] for goal in ("test", "test-all"))
    assert "--hypothesis-profile" not in ordinary and "--hypothesis-profile=search" in thorough
