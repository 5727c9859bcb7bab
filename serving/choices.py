"""What counts as a detection, from the flags and from what the models bring: thresholds, species, marks.

    choices = choose_detections(part_of(ChoiceSettings, config), scorers)

Reads    thresholds.csv and a list of species, where they are given
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config import AudioSettings, PredictCommand
from evaluation.calibration import MARKS, Threshold, Thresholds, judged_labels, mean_as_logits, read_thresholds
from runtime.csvs import decoded_text
from runtime.terminal import show
from serving.detections import Choices, Scores
from serving.scorer import Scorer
from taxonomy import CLASS, ORDER, Taxonomy, match_species

MIN_CONF = 0.25  # of a model that brings no thresholds
GROUPS = {  # what people call them -> taxa of a lineage; those of GBIF's tree
    "birds": ("Aves",),
    "mammals": ("Mammalia",),
    "bats": ("Chiroptera",),
    "whales": ("Cetacea", "Balaenopteridae", "Balaenidae", "Physeteridae", "Delphinidae", "Phocoenidae", "Ziphiidae"),
    "amphibians": ("Amphibia",),
    "frogs": ("Anura",),
    "toads": ("Bufonidae",),
    "reptiles": ("Reptilia", "Squamata", "Crocodylia", "Testudines"),
    "geckos": ("Gekkonidae", "Phyllodactylidae", "Sphaerodactylidae", "Eublepharidae"),
    "fish": ("Actinopterygii",),
    "insects": ("Insecta",),
    "crickets": ("Gryllidae", "Trigonidiidae", "Gryllotalpidae", "Mogoplistidae"),
    "grasshoppers": ("Acrididae",),
    "cicadas": ("Cicadidae",),
    "songbirds": ("Passeriformes",),
    "owls": ("Strigiformes",),
}
DOUBTFUL = {"never": "were never validated", "too few": "were validated on too few recordings"}


@dataclass(frozen=True)
class ChoiceSettings:
    """What is reported; the flags of these names say more."""

    min_conf: float | None = PredictCommand.min_conf
    thresholds: Path | None = PredictCommand.thresholds
    top_n: int = PredictCommand.top_n
    slist: Path | None = PredictCommand.slist
    strict: bool = PredictCommand.strict
    only: tuple[str, ...] = PredictCommand.only
    ranks: bool = PredictCommand.ranks

    def __post_init__(self) -> None:
        assert self.min_conf is None or 0 <= self.min_conf <= 1, f"--min_conf {self.min_conf}: give 0 to 1"
        assert self.top_n >= 0, f"--top_n {self.top_n}: give a number of species"
        assert not self.strict or self.slist, "--strict is about the lines of --slist; add that, or leave it out"


def choose_detections(settings: ChoiceSettings, scorers: Sequence[Scorer]) -> Choices:
    """What counts as a detection; prints which species of a list are unknown, and which were never validated."""
    taxonomy = scorers[0].taxonomy
    thresholds, validated = usual_thresholds(settings, scorers), validated_species(scorers)
    if settings.thresholds:
        given = read_thresholds(settings.thresholds, model_hash(scorers), taxonomy.labels)
        for label, threshold in given.items():
            thresholds[taxonomy.labels.index(label)] = threshold if threshold < 1 else np.inf
        for label in judged_labels(settings.thresholds).intersection(taxonomy.labels):
            validated[taxonomy.labels.index(label)] = "yes"
    wanted = np.ones(len(taxonomy.labels), np.bool_)
    if settings.slist:
        wanted = listed_species(settings.slist, settings.strict, taxonomy)
    if settings.only:
        wanted &= species_of_groups(settings.only, taxonomy)
        assert wanted.any(), f"--only {' '.join(settings.only)}: none of these is on {settings.slist}"
    shown = [validated[column] for column in np.flatnonzero(wanted)]
    if doubtful := [f"{shown.count(word)} {said}" for word, said in DOUBTFUL.items() if word in shown]:
        strict = "" if settings.min_conf is not None or settings.top_n else ", and have strict thresholds"
        show(f"of {len(shown)} species {' and '.join(doubtful)}: they are marked in every table{strict}")
    ranks = scorers[0].thresholds.ranks if settings.ranks else dict[str, float]()
    return Choices(thresholds, wanted, settings.top_n, ranks, validated)


def usual_thresholds(settings: ChoiceSettings, scorers: Sequence[Scorer]) -> Scores:
    """(species,) without a thresholds.csv: --min_conf for all, 0 with --top_n, else the models' own in the mean."""
    species = len(scorers[0].taxonomy.labels)
    if settings.min_conf is not None:
        return np.full(species, settings.min_conf, np.float32)
    if settings.top_n:
        return np.zeros(species, np.float32)
    if not all(scorer.thresholds.species for scorer in scorers):
        return np.full(species, MIN_CONF, np.float32)
    every = np.array([[threshold.applied for threshold in scorer.thresholds.species] for scorer in scorers])
    thresholds: Scores = mean_as_logits(every).astype(np.float32)
    unreached = np.isinf(every).any(axis=0) | (every >= 1).all(axis=0)
    thresholds[unreached] = np.inf  # a rounded 1 does not reach what nothing is to reach
    return thresholds


def listed_species(path: Path, strict: bool, taxonomy: Taxonomy) -> NDArray[np.bool_]:
    """(species,) which of the model's are on a list that people write in any editor."""
    assert path.is_file(), f"--slist {path}: no such file"
    lines, encoding = decoded_text(path.read_bytes())
    if encoding:
        show(f"{path} is not in UTF-8, read as {encoding}")
    known, strange = match_species(lines.splitlines(), taxonomy)
    unknown = f"; not in it: {', '.join(strange)}" if strange else ""
    show(f"{path}: {len(known)} species of the model{unknown}")
    assert not (strange and strict), f"--strict: {len(strange)} lines of {path} are no species of the model"
    assert known, f"no line of {path} is a species of the model"
    return np.array([column in known for column in range(len(taxonomy.labels))])


def species_of_groups(words: Sequence[str], taxonomy: Taxonomy) -> NDArray[np.bool_]:
    """(species,) which of the model's belong to a group of animals, by plain words or by the names of their lineages.

    Errors: a word that is no group of the model's is refused with the classes and orders that there are.
    """
    lineages = [{taxon.casefold() for taxon in lineage} for lineage in taxonomy.lineages]
    wanted = np.zeros(len(lineages), np.bool_)
    for word in words:
        taxa = GROUPS.get(word.casefold(), (word,))
        own = np.array([any(taxon.casefold() in lineage for taxon in taxa) for lineage in lineages])
        there = sorted({taxon for lineage in taxonomy.lineages for taxon in lineage[CLASS : ORDER + 1]})
        named = [taxon for taxon in there if not taxon.startswith("?")]
        assert own.any(), (
            f"--only {word}: no species of the model belongs to {' or '.join(taxa)}; it knows {', '.join(named[:12])}"
        )
        wanted |= own
    show(f"only {' and '.join(words)}: {int(wanted.sum())} of {len(wanted)} species")
    return wanted


def validated_species(scorers: Sequence[Scorer]) -> list[str]:
    """(species,) whether each was validated; of several models the worst counts, and blank where one of them does not
    say."""
    words = [
        [limit.validated for limit in scorer.thresholds.species] or [""] * len(scorer.taxonomy.labels)
        for scorer in scorers
    ]
    return [max(each, key=MARKS.index) if all(each) else "" for each in zip(*words, strict=True)]


def model_hash(scorers: Sequence[Scorer]) -> str:
    """sha256 of the model; of several one that no other models have, nor the same averaged in another way."""
    every = [scorer.sha256 for scorer in scorers]
    return every[0] if len(every) == 1 else hashlib.sha256(f"logits {'+'.join(every)}".encode()).hexdigest()


if __name__ == "__main__":
    kin = ("Animalia", "Chordata", "Amphibia", "Anura", "Fictidae", "Rana")
    frogs = Taxonomy(("41", "42"), ("Rana ficta", "Rana falsa"), ("frog", "toad"), ((*kin, "a"), (*kin, "b")), (7, 7))
    limits = tuple(Threshold(label, 0.5, 0.0, None, 0.0, 0.0, 40, 20, "") for label in frogs.labels)
    scorer = Scorer(
        lambda _: {}, Path("toy"), AudioSettings(), frogs, "float32", True, "", Thresholds(limits), 1, "not asked"
    )
    own, one = (choose_detections(ChoiceSettings(min_conf=limit), [scorer]) for limit in (None, 0.9))
    bare = choose_detections(ChoiceSettings(), [replace(scorer, thresholds=Thresholds())])
    print(f"its own {own.thresholds}, --min_conf .9 {one.thresholds}, of a model without any {bare.thresholds}")
    assert own.validated == ["yes", "yes"] and set(bare.thresholds.tolist()) == {MIN_CONF}
