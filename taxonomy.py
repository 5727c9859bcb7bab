"""Who the labels are, and how far apart they stand on the tree of life.

    taxonomy = read_taxonomy(Path("data/birdclef-2025/taxonomy.csv"))
    distances = pairwise_distances(taxonomy)          # 0 is itself, 1 as far as it gets among these labels

Reads    taxonomy.csv: primary_label, scientific_name, common_name, class_name as in BirdCLEF; the ranks from kingdom to
         species and finest_rank where the file has them (a label may be a family or an order)

A node of the tree is its whole path from the root, never a name: the gannet Morus and the mulberry Morus stay apart.
Detections are named with it too, so numpy is all it needs; runtime/csvs.py reads the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from runtime.csvs import read_table

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
CLASS, ORDER, FAMILY, GENUS, SPECIES = range(2, 7)  # positions in RANKS

ANIMAL_CLASSES = {  # what BirdCLEF leaves unsaid: the phylum of a class; the kingdom is Animalia
    "Chordata": (
        "Aves",
        "Mammalia",
        "Amphibia",
        "Reptilia",
        "Squamata",
        "Testudines",
        "Crocodylia",
        "Actinopterygii",
        "Actinopteri",
        "Teleostei",
        "Chondrichthyes",
        "Elasmobranchii",
    ),
    "Arthropoda": ("Insecta", "Arachnida", "Malacostraca", "Collembola", "Chilopoda", "Diplopoda"),
    "Mollusca": ("Gastropoda", "Bivalvia", "Cephalopoda"),
}
MECHANISMS = {  # what makes the sound; the finer rank counts first, so a cicada is no stridulating bug
    "Cicadidae": "tymbal",
    "Orthoptera": "stridulation",
    "Coleoptera": "stridulation",
    "Hemiptera": "stridulation",
    "Diptera": "wing-beat",
    "Hymenoptera": "wing-beat",
    "Aves": "syrinx",
    "Mammalia": "larynx",
    "Amphibia": "larynx",
    "Reptilia": "larynx",
    "Squamata": "larynx",
    "Testudines": "larynx",
    "Crocodylia": "larynx",
}
BLANKS = ("", "-", "?", "na", "n/a", "nan", "none", "null", "unknown", "unclassified", "incertae sedis")
PHYLUM = {word.casefold(): phylum for phylum, classes in ANIMAL_CLASSES.items() for word in classes}
MECHANISM = {word.casefold(): mechanism for word, mechanism in MECHANISMS.items()}


@dataclass(frozen=True)
class Taxonomy:
    """The labels in the order of the table, which is the order of the model's outputs; none of an encoder alone.

    lineages   RANKS names per label from the root; an unknown name begins with a question mark
    finest     ranks from the root down to the label's own: 7 for a species, 5 for a family
    """

    labels: tuple[str, ...]
    scientific_names: tuple[str, ...]
    common_names: tuple[str, ...]
    lineages: tuple[tuple[str, ...], ...]
    finest: tuple[int, ...]

    def __post_init__(self) -> None:
        count = len(self.labels)
        lengths = [len(self.scientific_names), len(self.common_names), len(self.lineages), len(self.finest)]
        assert lengths == [count] * 4, f"{count} labels with {lengths} names, common names, lineages, finest ranks"
        twice = sorted(label for label, times in Counter(self.labels).items() if times > 1)
        assert not twice, f"labels {twice[:5]} occur more than once; keep one row of each"
        for label, lineage, finest in zip(self.labels, self.lineages, self.finest, strict=True):
            assert label, "an empty label; give every row a primary_label"
            assert len(lineage) == len(RANKS) and all(lineage), f"{label}: lineage {lineage}, wanted {RANKS}"
            assert 1 <= finest <= len(RANKS), f"{label}: {finest} known ranks, wanted 1 to {len(RANKS)}"


def read_taxonomy(path: Path) -> Taxonomy:
    """The table at `path`, every lineage made complete.

    path      csv in UTF-8; columns primary_label, scientific_name, common_name, and class_name or class;
              optional: the other RANKS, finest_rank. Without them class, genus and species are what is known.
    returns   a Taxonomy in the order of the rows; its lineages follow `complete`
    """
    return build_taxonomy(checked_rows(path))


def checked_rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """The rows of a taxonomy.csv as they stand there, each with a label, a scientific name and a class."""
    rows = read_table(path, ("primary_label", "scientific_name", "common_name"), unique="primary_label")
    for where, row in rows:
        assert "class_name" in row or "class" in row, f"{path}: no column class_name or class; add one"
        assert row["primary_label"], f"{where}: no primary_label; give every row the code its recordings carry"
        assert row["scientific_name"], f"{where}: no scientific_name for {row['primary_label']}; write one"
        assert row.get("class_name") or row.get("class") or names_high_rank(row), (
            f"{where}: no class_name for {row['scientific_name']}; write one, such as Aves"
        )
    return rows


def build_taxonomy(rows: Sequence[tuple[str, Mapping[str, str]]]) -> Taxonomy:
    """A Taxonomy out of rows as read_taxonomy reads them, from wherever they came; the ranks they leave out stay open.

    rows    (where it stands, cells by column); primary_label and scientific_name must be there
    """
    assert rows, "a taxonomy without labels; give the table at least one row"
    labels: list[str] = []
    lineages: list[list[str]] = []
    finest: list[int] = []
    for where, row in rows:
        names, known = names_in(row, where)
        labels.append(row["primary_label"])
        lineages.append(names)
        finest.append(known)
    complete(lineages, finest, labels, rows[0][0].split(" line ")[0] if rows else "")
    return Taxonomy(
        tuple(labels),
        tuple(row["scientific_name"] for _, row in rows),
        tuple(row.get("common_name", "") or row["scientific_name"] for _, row in rows),
        tuple(tuple(names) for names in lineages),
        tuple(finest),
    )


def table_rows(taxonomy: Taxonomy) -> list[dict[str, str]]:
    """The rows of a taxonomy.csv from which build_taxonomy makes the same taxonomy again; unknown names are blank."""
    rows: list[dict[str, str]] = []
    for row_index, (label, lineage) in enumerate(zip(taxonomy.labels, taxonomy.lineages, strict=True)):
        known = ["" if name.startswith("?") else name for name in lineage]
        rows.append(
            {
                "primary_label": label,
                "scientific_name": taxonomy.scientific_names[row_index],
                "common_name": taxonomy.common_names[row_index],
                "class_name": known[CLASS],
                **dict(zip(RANKS, known, strict=True)),
                "finest_rank": RANKS[taxonomy.finest[row_index] - 1],
            }
        )
    return rows


def select_labels(taxonomy: Taxonomy, labels: Sequence[str]) -> Taxonomy:
    """The rows of `labels`, in their order; lineages stay as the whole table completed them."""
    row_of = {label: row for row, label in enumerate(taxonomy.labels)}
    strangers = [label for label in labels if label not in row_of]
    assert not strangers, f"labels {strangers[:10]} are not in the taxonomy; add their rows to taxonomy.csv"
    rows = [row_of[label] for label in labels]
    return Taxonomy(
        tuple(labels),
        tuple(taxonomy.scientific_names[row] for row in rows),
        tuple(taxonomy.common_names[row] for row in rows),
        tuple(taxonomy.lineages[row] for row in rows),
        tuple(taxonomy.finest[row] for row in rows),
    )


def pairwise_distances(taxonomy: Taxonomy, mechanism_penalty: float = 0.0) -> NDArray[np.float32]:
    """How far apart two labels are: ranks up to where their lineages meet, over the most that occurs in this set.

    mechanism_penalty   g >= 0 adds g where the sound is made in another way (syrinx, larynx, stridulation, ...) and
                        divides by 1 + g, so 1 stays the most there can be
    returns             (species, species) float32 in [0, 1], symmetric, 0 on the diagonal; an ultrametric when g = 0,
                        else a metric (two labels of one species are at distance 0)
    source              the height of the lowest common ancestor as in https://arxiv.org/abs/1912.09393
    """
    assert mechanism_penalty >= 0, f"mechanism_penalty {mechanism_penalty}; choose 0 (off) or more, such as 0.25"
    height = len(RANKS) - shared_ranks(taxonomy)
    distances = height.astype(np.float32) / np.float32(max(int(height.max()), 1))
    if mechanism_penalty:
        group = numbered(mechanism(lineage) for lineage in taxonomy.lineages)
        distances += np.float32(mechanism_penalty) * (group[:, None] != group)
        distances /= np.float32(1 + mechanism_penalty)
    return distances


def ancestor_matrix(taxonomy: Taxonomy) -> NDArray[np.bool_]:
    """Which label contains which: [c, k] is True where c is a taxon above k, as Tettigoniidae is above its katydids.

    returns   (species, species) bool, never True both ways nor on the diagonal
    """
    finest = np.array(taxonomy.finest)
    return (shared_ranks(taxonomy) >= finest[:, None]) & (finest[:, None] < finest)


def to_json(taxonomy: Taxonomy) -> dict[str, object]:
    """Plain lists that travel in a model file; `from_json` reads them back."""
    return {
        "ranks": list(RANKS),
        "labels": list(taxonomy.labels),
        "scientific_names": list(taxonomy.scientific_names),
        "common_names": list(taxonomy.common_names),
        "lineages": [list(lineage) for lineage in taxonomy.lineages],
        "finest": list(taxonomy.finest),
    }


def from_json(stored: Mapping[str, object]) -> Taxonomy:
    """The taxonomy that `to_json` wrote; what is damaged or foreign is refused."""
    ranks = texts(stored, "ranks")
    assert ranks == RANKS, f"stored ranks {ranks}, this version knows {RANKS}; make the model file again"
    finest = [rank for rank in items(stored, "finest") if isinstance(rank, int)]
    assert len(finest) == len(items(stored, "finest")), "stored finest ranks are not all whole numbers"
    return Taxonomy(
        texts(stored, "labels"),
        texts(stored, "scientific_names"),
        texts(stored, "common_names"),
        tuple(texts({"lineages": lineage}, "lineages") for lineage in items(stored, "lineages")),
        tuple(finest),
    )


def names_high_rank(row: Mapping[str, str]) -> bool:
    """Whether a label stands above the classes, so that it has none: Animalia, Chordata."""
    written = key(row.get("finest_rank", ""))
    return written in RANKS[:CLASS] or any(
        key(row.get(rank, "")) == key(row["scientific_name"]) for rank in RANKS[:CLASS]
    )


def names_in(row: Mapping[str, str], where: str) -> tuple[list[str], int]:
    """The seven names as far as the row has them, blank elsewhere, and how many ranks down the label itself is."""
    names = [row.get(rank, "") for rank in RANKS]
    names = ["" if key(name) in BLANKS else name for name in names]
    group = row.get("class_name", "")
    assert not names[CLASS] or not group or key(group) == key(names[CLASS]), (
        f"{where}: class_name {group} but class {names[CLASS]}; make them agree"
    )
    names[CLASS] = names[CLASS] or group
    words = row["scientific_name"].split()
    if words[-1].casefold() in ("sp", "sp.", "spp", "spp.") and len(words) > 1:
        words = words[:-1]
    finest = finest_rank(row.get("finest_rank", ""), names, words, where)
    finer = [name for name in names[finest + 1 :] if name]
    assert not finer, f"{where}: the label is a {RANKS[finest]} and yet says {finer}; clear these or mend finest_rank"
    binomial = finest == SPECIES and len(words) > 1 and not words[1][0].isupper()  # Great Tit is of no genus Great
    if (finest == GENUS or binomial) and not names[GENUS]:
        names[GENUS] = words[0]
    names[finest] = names[finest] or " ".join(words)
    return names, finest + 1


def finest_rank(written: str, names: Sequence[str], words: Sequence[str], where: str) -> int:
    """The label's own rank, a position in RANKS: as written, else by its scientific name."""
    if key(written) not in BLANKS:
        assert key(written) in RANKS, f"{where}: finest_rank {written!r}; choose the nearest above it of {RANKS}"
        return RANKS.index(key(written))
    same = [rank for rank, name in enumerate(names) if name and key(name) == key(" ".join(words))]
    if same or names[SPECIES]:
        return max(same, default=SPECIES)
    if len(words) > 1:
        return SPECIES
    return FAMILY if words[0].endswith("idae") else ORDER if words[0].endswith("iformes") else GENUS


def complete(lineages: list[list[str]], finest: Sequence[int], labels: Sequence[str], path: str) -> None:
    """Fill the blank names of the lists given, so that unknowns are never equal by accident.

    1. what another row says of the same lower name in the same lineage, if all who say it agree; or the built-in phyla
    2. a gap that stays: "?order of Tettigoniidae", shared by all who are in Tettigoniidae
    3. a rank finer than the label: "?" and the label, shared with nobody
    """
    for rank in reversed(range(SPECIES)):  # from below, since a family once known says more about the order
        gaps = [row for row, names in enumerate(lineages) if not names[rank] and rank < finest[row] - 1]
        witnesses = paths_of_others(lineages, rank) if gaps else {}
        for row in gaps:
            names = lineages[row]
            lower = next(below for below in range(rank + 1, len(RANKS)) if names[below])
            said = {
                key(witness[rank]): witness[rank]
                for witness in witnesses.get((lower, key(names[lower])), ())
                if all(not a or not b or key(a) == key(b) for a, b in zip(witness[:rank], names[:rank], strict=True))
            }
            assert len(said) < 2, (
                f"{path}: {labels[row]} has no {RANKS[rank]}, and the other rows of {names[lower]} disagree: "
                f"{sorted(said.values())}; fill it in"
            )
            names[rank] = next(iter(said.values()), "") or built_in(names, rank)
    for names, known, label in zip(lineages, finest, labels, strict=True):
        nearest = names[known - 1]
        for rank in reversed(range(known)):
            nearest = names[rank] or nearest
            names[rank] = names[rank] or f"?{RANKS[rank]} of {nearest}"
        names[known:] = [f"?{label}"] * (len(RANKS) - known)


def paths_of_others(lineages: Sequence[Sequence[str]], rank: int) -> dict[tuple[int, str], set[tuple[str, ...]]]:
    """For every name below `rank`: the different paths down to `rank` of the rows that have both."""
    paths: dict[tuple[int, str], set[tuple[str, ...]]] = {}
    for names in lineages:
        for lower in range(rank + 1, len(RANKS)):
            if names[rank] and names[lower]:
                paths.setdefault((lower, key(names[lower])), set()).add(tuple(names[: rank + 1]))
    return paths


def built_in(names: Sequence[str], rank: int) -> str:
    """Phylum or kingdom of the common classes of animals, else blank."""
    phylum = names[1] or PHYLUM.get(key(names[CLASS]), "")
    kingdom = "Animalia" if phylum.title() in ANIMAL_CLASSES else ""
    return (kingdom, phylum)[rank] if rank < CLASS else ""


def shared_ranks(taxonomy: Taxonomy) -> NDArray[np.int8]:
    """(species, species) how many ranks two labels share, walking from the root to the first difference."""
    shared = np.zeros((len(taxonomy.labels), len(taxonomy.labels)), np.int8)
    paths = [tuple(key(name) for name in lineage) for lineage in taxonomy.lineages]
    for depth in range(1, len(RANKS) + 1):
        node = numbered(path[:depth] for path in paths)
        shared += node[:, None] == node
    return shared


def mechanism(lineage: Sequence[str]) -> str:
    """What the animal makes its sound with; one group per class where it is not known."""
    known = [MECHANISM[key(lineage[rank])] for rank in (FAMILY, ORDER, CLASS) if key(lineage[rank]) in MECHANISM]
    return known[0] if known else f"unknown in {key(lineage[CLASS])}"


def numbered(things: Iterable[object]) -> NDArray[np.int64]:
    """A number for each thing, the same for equal ones."""
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(thing, len(seen)) for thing in things], dtype=np.int64)


def key(name: str) -> str:
    """What two spellings of one name have in common."""
    return " ".join(normalize("NFC", name).split()).casefold()


def items(stored: Mapping[str, object], name: str) -> list[object]:
    value = stored.get(name)
    assert isinstance(value, list), f"stored {name} are {value!r}, not a list; make the model file again"
    return cast(list[object], value)


def texts(stored: Mapping[str, object], name: str) -> tuple[str, ...]:
    words = tuple(word for word in items(stored, name) if isinstance(word, str))
    assert len(words) == len(items(stored, name)), f"stored {name} are not all text; make the model file again"
    return words


def match_species(lines: Sequence[str], taxonomy: Taxonomy) -> tuple[set[int], list[str]]:
    """The species that the lines of a list mean, as BirdNET writes it, and the lines that mean none of them.

    A line is a label, a scientific name, a common name, or `Scientific name_Common name`, in any case; blank lines and
    lines that begin with # mean nothing.
    """
    columns: dict[str, set[int]] = {}
    for names in (taxonomy.labels, taxonomy.scientific_names, taxonomy.common_names):  # the surest first
        known = set(columns)
        for column, name in enumerate(names):
            if name.casefold() not in known:
                columns.setdefault(name.casefold(), set()).add(column)
    found, strange = set[int](), list[str]()
    for line in lines:
        name = line.strip().casefold()
        scientific, _, common = name.partition("_")
        meant = next(
            (columns[part] for part in (name, scientific.strip(), common.strip()) if part in columns), set[int]()
        )
        found |= meant
        if name and not meant and not name.startswith("#"):
            strange.append(line.strip())
    return found, strange


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "taxonomy.csv"
        table.write_text(
            "primary_label,scientific_name,common_name,class_name,order,family\n"
            "greti,Parus major,Great Tit,Aves,Passeriformes,Paridae\n"
            "frog,Rana temporaria,Common Frog,Amphibia,Anura,Ranidae\n"
            "bush,Tettigoniidae,Bush-crickets,Insecta,Orthoptera,Tettigoniidae\n"
            "green,Tettigonia viridissima,Great Green Bush-cricket ,Insecta,,Tettigoniidae\n"
        )
        taxonomy = read_taxonomy(table)
    for label, lineage in zip(taxonomy.labels, taxonomy.lineages, strict=True):
        print(f"{label:6}", " > ".join(lineage))
    assert (pairwise_distances(taxonomy)[0] * 6).round().tolist() == [0, 5, 6, 6], "the tree has changed its shape"
    assert np.argwhere(ancestor_matrix(taxonomy)).tolist() == [[2, 3]], "only the family stands above another label"
    assert taxonomy.lineages[3][ORDER] == "Orthoptera", "the order was not copied from the family's other row"
