"""Lineages of labels, completed from tables beside the data and from our own in lineages/.

    rows, notes = taxonomy_rows(Path("data/birdclef-2025"))
    rows, notes = with_lineages(rows, [shipped()])

Reads    taxonomy.csv; lineage.csv or another table with order and family beside it; lineages/*.csv

A blank is filled and never a name replaced: a table that contradicts what a row says already is not used for it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import as_file
from pathlib import Path
from typing import NamedTuple

from runtime.application import own_file
from runtime.csvs import read_table
from taxonomy import BLANKS, checked_rows, key

LONGEST_HEADER = 4096  # characters
LINEAGES = "lineages"
UPPER = ("kingdom", "phylum", "class_name", "order", "family", "genus")
Row = tuple[str, dict[str, str]]  # of a taxonomy: where it stands, cells by column


class Reference(NamedTuple):
    """Lineages that others look up theirs in."""

    title: str
    names: Mapping[str, Mapping[str, str]]  # rows by label, scientific and common name
    taxa: Mapping[str, Mapping[str, str]]  # what is above a genus, family, order, class, by its name
    by_label: bool  # whether labels mean the same in both tables


def taxonomy_rows(root: Path) -> tuple[list[Row], list[str]]:
    """taxonomy.csv; ranks it leaves out are taken from a table of lineages beside it, or from the ones we come with."""
    rows = checked_rows(root / "taxonomy.csv")
    if all(row.get("order") and row.get("family") for _, row in rows):
        return rows, []
    others = [root / "lineage.csv", *sorted(root.glob("*.csv"))]
    beside = next((path for path in others if path.name != "taxonomy.csv" and is_lineage(path)), None)
    if beside is None:
        return with_lineages(rows, [shipped()])
    rows_beside = [
        (where, row | {"finest_rank": row.get("finest_rank") or row.get("rank", "")})
        for where, row in read_table(beside, ("primary_label", "order", "family"), unique="primary_label")
    ]
    return with_lineages(rows, [reference(beside.name, rows_beside, by_label=True), shipped()])


def with_lineages(rows: Sequence[Row], references: Sequence[Reference]) -> tuple[list[Row], list[str]]:
    """Rows with what they leave blank as the first reference that knows them has it, and a note on how many they are.

    A reference that contradicts what a row says already is not used for it.
    """
    done = list(rows)
    notes: list[str] = []
    for known in references:
        before, done = done, [(where, completed(row, known)) for where, row in done]
        pairs = zip(before, done, strict=True)
        changed = sum(old.get("order", "") != new.get("order", "") for (_, old), (_, new) in pairs)
        if changed:
            notes.append(f"the orders and families of {changed} of {len(rows)} labels are from {known.title}")
    return done, notes


@cache
def shipped() -> Reference:
    """The lineages that come with this program."""
    rows: list[Row] = []
    for table in sorted(own_file(LINEAGES).iterdir(), key=lambda table: table.name):
        with as_file(table) as path:
            rows += read_table(path, ("primary_label",))
    return reference("the lineages of this program", rows)


def reference(title: str, rows: Sequence[Row], by_label: bool = False) -> Reference:
    """Rows by every name they have, and the taxa above them; a name that stands in two positions says nothing."""
    names: dict[str, Mapping[str, str]] = {}
    for column in ("primary_label", "scientific_name", "common_name"):
        for _, row in rows:
            if row.get(column):
                names.setdefault(key(row[column]), row)
    taxa: dict[str, dict[str, str]] = {}
    for depth, rank in enumerate(UPPER):
        for _, row in rows:
            if key(row.get(rank, "")) not in BLANKS:
                path = {upper: row.get(upper, "") for upper in UPPER[: depth + 1]}
                path["finest_rank"] = rank.removesuffix("_name")
                if taxa.setdefault(key(row[rank]), path) != path:
                    taxa[key(row[rank])] = {}
    return Reference(title, names, taxa, by_label)


def label_row(label: str, scientific: str = "", common: str = "") -> dict[str, str]:
    """The row of a taxonomy for a label of which only the names are known."""
    names = {"scientific_name": scientific or scientific_form(label), "common_name": common}
    return {"primary_label": label} | names


def merged(row: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Two rows on one label: the blanks of the first filled from the second, unless they contradict each other.

    Then the lineage of the first stays as it is, or gives way where the second one knows more.
    """
    own, theirs = known_ranks(row), known_ranks(other)
    lineage = {rank: own[rank] or theirs[rank] for rank in own}
    if contradict(row, other):
        lineage = max((own, theirs), key=lambda ranks: sum(map(bool, ranks.values())))
        lineage["class"] = lineage["class_name"]
    return dict(row) | lineage | {"common_name": row.get("common_name", "") or other.get("common_name", "")}


def is_lineage(path: Path) -> bool:
    """Whether a table has these columns, however it parts them; read_table says what is wrong with it otherwise."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline(LONGEST_HEADER).replace("\0", "")  # UTF-16, which read_table refuses
    return {"primary_label", "order", "family"} <= set(re.findall(r"\w+", header.casefold()))


def completed(row: dict[str, str], known: Reference) -> dict[str, str]:
    """A row with the blanks filled in that a reference can fill: by its names, else by its genus or higher taxon."""
    label, scientific = row["primary_label"], row["scientific_name"]
    names = [key(label), key(scientific)] if known.by_label else [key(scientific)]
    known_row = next((known.names[name] for name in names if name in known.names), None)
    if known_row is not None and not contradict(row, known_row):
        filled = merged(row, {column: known_row.get(column, "") for column in (*UPPER, "common_name", "finest_rank")})
        spoken = key(scientific) in (key(label), key(scientific_form(label)))  # the label is all there was
        real = known_row.get("scientific_name", "")
        return filled | {"scientific_name": real} if spoken and real and filled != row else filled
    words = scientific.split()
    above: Mapping[str, str] = known.taxa.get(key(words[0]), {})
    if len(words) > 1:  # of a species no more than the genus is known, and Great Tit is of no genus Great
        genus = above.get("finest_rank") == "genus" and not words[1][0].isupper()
        above = {rank: above.get(rank, "") if genus else "" for rank in UPPER}
    return row if contradict(row, above) else merged(row, above)


def contradict(row: Mapping[str, str], other: Mapping[str, str]) -> bool:
    own, theirs = known_ranks(row), known_ranks(other)
    return any(own[rank] and theirs[rank] and key(own[rank]) != key(theirs[rank]) for rank in own)


def known_ranks(row: Mapping[str, str]) -> dict[str, str]:
    """The ranks above a label as far as its row has them, and its own."""
    cells = {rank: row.get(rank, "") for rank in (*UPPER, "finest_rank")}
    cells["class_name"] = cells["class_name"] or row.get("class", "")
    return {rank: "" if key(name) in BLANKS else name for rank, name in cells.items()}


def scientific_form(label: str) -> str:
    """parus_major -> Parus major; anything else as it is."""
    words = label.split("_")
    lower = len(words) in (2, 3) and all(re.fullmatch(r"[a-z][a-z-]+", word) for word in words[1:])
    return " ".join([words[0].capitalize(), *words[1:]]) if lower and words[0].isalpha() else label


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "taxonomy.csv").write_text(
            "primary_label,scientific_name,common_name,class_name\n"
            "greti,Parus major,Great Tit,Aves\n"
            "frog,Leptodactylus insularum,San Miguel Island Frog,Amphibia\n"
            "odd,Leptodactylus nobodyi,Nobody's Bird,Aves\n"
        )
        (root / "orders.csv").write_text("primary_label,order,family\ngreti,Passeriformes,Paridae\n")
        rows, notes = taxonomy_rows(root)
    families = [known_ranks(row)["family"] for _, row in rows]
    print("\n".join(notes), families)
    assert families == ["Paridae", "Leptodactylidae", ""], "the table beside it, ours, and a genus that is of no bird"
