"""The pages of docs/ say what the commands say, and every link in them leads somewhere."""

import re
from pathlib import Path

import pytest
from conftest import Answer

from docs.write_cli import PAGE, help_of, page, shown

HERE = Path(__file__).parents[1]
PAGES = [*HERE.glob("*.md"), *(HERE / "docs").glob("*.md")]


def slugs(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles: list[str] = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture(scope="module")
def helps(answers: dict[str, dict[str, Answer]]) -> dict[str, str]:
    """What each command says with --help."""
    return {name: shown(said["--help"].out) for name, said in answers.items()}


def test_the_page_of_commands_is_what_they_say(helps: dict[str, str]) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(helps), "run python docs/write_cli.py"
    assert help_of("experiments") == helps["experiments"], "as who writes the page asks"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not re.match(r"https?:", target):
            file, _, anchor = target.partition("#")
            where = path.parent / file if file else path
            assert where.exists(), f"{path.name}: {target}"
            assert not anchor or anchor in slugs(where), f"{path.name}: {target}"


def test_flags_named_in_the_pages_are_flags_of_a_command(helps: dict[str, str]) -> None:
    offered = {flag for said in helps.values() for flag in re.findall(r"--[\w.]+", said)}
    offered |= {re.sub(r"^--", "--no_", flag) for flag in offered}
    for path in (HERE / "README.md", *(HERE / "docs").glob("*.md")):
        for line in re.findall(r"`(--[a-z][\w.]*)", path.read_text(encoding="utf-8")):
            known = line in offered or any(flag.startswith(f"{line}.") for flag in offered)
            assert known or path.name == "cli.md", f"{path.name} names {line}, which no command has"
