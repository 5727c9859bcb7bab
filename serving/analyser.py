"""All that turns recordings into detections, opened at once: models, choices, prior, decoder, finder of voices.

    with open_analyser(AnalyserSettings((model,))) as analyser:
        for entry, outcome, analysed, scored in analyser.analysed(entries, progress): ...
        for ... in analysed_there(cluster, analyser, entries, arrays=True): ...      # by the workers of a cluster

A worker opens the same once for all that it is given, and refuses to go on where it is not the same there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from archive.licences import licence_note, teachers_of
from config import Engine
from runtime.cluster import Cluster, alive, kept_open, threads_of_worker
from runtime.terminal import show
from serving.analysis import analyse, score_entries
from serving.choices import ChoiceSettings, choose_detections, model_hash
from serving.contexts import SoundSettings, common_audio
from serving.detections import Analysed, Choices, Scored
from serving.hub import USUAL, fetch, is_address
from serving.inputs import Entry, is_present
from serving.model_cards import Card, open_with_card, read_card
from serving.priors import Prior, read_prior
from serving.progress import ScoringProgress
from serving.scorer import Network, Scorer, open_scorer
from sounds.audio import reading_version
from sounds.damage import Outcome
from sounds.decoders import Decoder
from sounds.notes import undo_expansion
from sounds.voices import VoiceFinder

MOST_OF_A_TASK, MOST_BYTES = 16, 2**26  # recordings and bytes that a worker is given at a time
TASKS = 8  # for each worker at least, so that none is idle for long at the end


@dataclass(frozen=True)
class AnalyserSettings:
    """What is to be opened, and how; the flags of these names say more."""

    models: tuple[Path, ...]
    threads: int = 0
    engine: Engine = "onnxruntime"
    sound: SoundSettings = field(default_factory=SoundSettings)
    choice: ChoiceSettings | None = None  # None: nothing is a detection
    prior: Path | None = None
    prior_weight: float = 1.0
    time_expansion: int = 1
    species: bool = True  # whether a model needs to know any
    card: str = ""  # of somebody else's models: what they take and give


class Answered(NamedTuple):
    """What was made of a recording."""

    entry: Entry
    outcome: Outcome
    analysed: Analysed
    scored: list[Scored]


@dataclass(frozen=True)
class Analyser:
    """All that is needed to turn a recording into detections."""

    settings: AnalyserSettings
    scorers: Sequence[Scorer]
    choices: Choices
    decoder: Decoder
    prior: Prior | None = None
    finder: VoiceFinder | None = None  # where voices are looked for

    @property
    def sound(self) -> SoundSettings:
        return self.settings.sound

    def analysed(
        self, entries: Sequence[Entry], progress: ScoringProgress | None = None, embeddings: bool = False
    ) -> Iterator[Answered]:
        """Every recording and what was made of it.

        embeddings   keep them, also where no journal asks for them
        """
        more = self.decoder, progress, self.prior, self.finder, embeddings
        for entry, outcome, scored in score_entries(self.scorers, entries, self.sound, *more):
            analysed = analyse(entry, outcome, scored, self.scorers[0].taxonomy, self.choices)
            yield Answered(entry, outcome, analysed, scored)

    def facts(self) -> dict[str, object]:
        """All that changes what is found but the flags: results that differ in it are never mixed."""
        labels, choices = self.scorers[0].taxonomy.labels, self.choices
        return {
            "reading": reading_version(),
            "model": model_hash(self.scorers)[:16],
            "card": self.scorers[0].card.get("card_sha256", "")[:16],
            "engine": " + ".join(dict.fromkeys(scorer.engine for scorer in self.scorers)),
            "thresholds": {label: f"{limit:.6g}" for label, limit in zip(labels, choices.thresholds, strict=True)},
            "voices": f"{self.sound.voices} {self.finder.digest}" if self.finder else "off",
            "prior": f"{self.prior.digest[:16]} x {self.prior.weight:g}" if self.prior else "",
            "species": [label for label, wanted in zip(labels, choices.wanted, strict=True) if wanted],
        }


@contextmanager
def open_analyser(settings: AnalyserSettings) -> Generator[Analyser]:
    """Open all of it; what is wrong with any part of it is said in one line."""
    undo_expansion(settings.time_expansion)
    with (  # their imports take as long as opening a model does
        Decoder() as decoder,
        VoiceFinder() if settings.sound.voices != "off" else nullcontext() as finder,
    ):
        scorers = open_models(settings.models, settings.threads, settings.engine, settings.species, settings.card)
        assert settings.prior or settings.prior_weight == 1, (
            "--prior_weight is about --prior; add that, or leave it out"
        )
        taxonomy = scorers[0].taxonomy
        prior = read_prior(settings.prior, taxonomy, settings.prior_weight) if settings.prior else None
        choices = choose_detections(settings.choice, scorers) if settings.choice else nothing_of(len(taxonomy.labels))
        yield Analyser(settings, scorers, choices, decoder, prior, finder)


def nothing_of(species: int) -> Choices:
    """Choices after which nothing is a detection."""
    return Choices(np.full(species, np.inf, np.float32), np.ones(species, np.bool_))


def open_models(
    paths: Sequence[Path], threads: int, engine: Engine, species: bool = True, card: str = ""
) -> list[Scorer]:
    """The models, which must agree in their windows and species; one without any is refused where they are needed.

    card   of somebody else's models: what they take and give
    """
    assert not card or engine != "openvino", f"--engine {engine} is for files of quantize.py; leave it out with --card"
    read = read_card(card) if card else None
    scorers = [open_model(path, threads, engine, read, species) for path in paths]
    for scorer in scorers:
        assert scorer.taxonomy.labels or not species, (
            f"{scorer.path} is an encoder that knows no species; `python search.py index` makes an index with it"
        )
        size = f"{scorer.encoder}, " if scorer.encoder else ""
        show(
            f"model {scorer.path} ({size}{scorer.precision}, {len(scorer.taxonomy.labels)} species, "
            f"sha256 {scorer.sha256[:12]}, {scorer.threads} threads, {scorer.engine})"
        )
        if scorer.origin:
            show(f"from {scorer.origin}")
        if licence := licence_of(scorer):
            show(licence)
        if not scorer.card and not scorer.verified and scorer.taxonomy.labels:
            show("unverified: this model was not compared with the trained network on enough held-out windows")
        assert scorer.taxonomy == scorers[0].taxonomy, (
            f"{scorer.path} and {scorers[0].path} differ in their species; average models that agree"
        )
    audio = common_audio([scorer.path for scorer in scorers], [scorer.audio for scorer in scorers])
    scorers = [replace(scorer, audio=audio) for scorer in scorers]
    if len(scorers) > 1 and any(scorer.unfamiliar for scorer in scorers):
        show("of several models nothing is said of how unfamiliar a window is; each by itself would tell it")
        return [replace(scorer, unfamiliar=False) for scorer in scorers]
    return scorers


def open_model(path: Path, threads: int, engine: Engine, card: Card | None, species: bool) -> Scorer:
    """One model, fetched where it lies on the hub."""
    origin = ""
    if is_address(path):
        names = (card.facts.file, *USUAL) if card else USUAL
        path, origin = fetch(path, names, [card.facts.labels] if card and isinstance(card.facts.labels, str) else [])
    scorer = open_with_card(path, card, threads, species) if card else open_scorer(path, threads, engine)
    return replace(scorer, origin=origin) if origin else scorer


def licence_of(scorer: Scorer) -> str:
    """On what terms a model may be used, by its card or its file and those of who helped to make it, in a line."""
    if scorer.card:
        return f"licence of {scorer.card['name']}: {scorer.card['license']}. {scorer.card['citation']}".rstrip()
    licence = scorer.provenance.get("license")
    own = f"licence of {scorer.path.name}: {licence}" if isinstance(licence, str) and licence else ""
    note = licence_note(teachers_of(scorer.provenance))
    return ". ".join(part for part in (own or (note and scorer.path.name), note) if part)


# --- by the workers of a cluster ------------------------------------------------------------------------------------


def analysed_there(cluster: Cluster, analyser: Analyser, entries: Sequence[Entry], arrays: bool) -> Iterator[Answered]:
    """The same as `Analyser.analysed` by the workers of a cluster, in the order in which they are done.

    arrays   whether what was scored is wanted too
    Errors   a worker that has another model or reads otherwise, or does not see a recording that is there
    """
    engine: Engine = "openvino" if analyser.scorers[0].engine.startswith("openvino") else "onnxruntime"
    where = Path.cwd(), replace(analyser.settings, engine=engine)
    work = partial(analyse_here, where, analyser.facts(), arrays)
    for task, answers in cluster.results(work, tasks_of(entries, cluster.threads())):
        for entry, (outcome, analysed, scored) in zip(task, answers, strict=True):
            hidden = "cannot be found" in outcome.reason and is_present(entry.path)
            assert not hidden, (
                f"a worker at {cluster.name} does not see {entry.path}; recordings must lie at the same place on all "
                "machines"
            )
            yield Answered(entry, outcome, analysed, scored)


def tasks_of(entries: Sequence[Entry], workers: int) -> Iterator[list[Entry]]:
    """The recordings in their order, several at a time where they are short and many."""
    most = max(1, min(MOST_OF_A_TASK, len(entries) // (TASKS * max(1, workers))))
    task, size = list[Entry](), 0
    for entry in entries:
        if task and (len(task) >= most or size + entry.size > MOST_BYTES):
            yield task
            task, size = [], 0
        task.append(entry)
        size += entry.size
    if task:
        yield task


def analyse_here(
    where: tuple[Path, AnalyserSettings], facts: Mapping[str, object], arrays: bool, entries: Sequence[Entry]
) -> list[tuple[Outcome, Analysed, list[Scored]]]:
    """What a worker does: recordings -> what was made of each.

    where   the folder in which the command was given, and what is to be opened there
    facts   of the analyser of who asks, which this one must equal
    """
    analyser = kept_open(where, open_there)
    here = analyser.facts()
    differ = [name for name in facts if here[name] != facts[name]]
    assert not differ, (
        f"its {differ[0]} is another one ({str(here[differ[0]])[:60]}, not {str(facts[differ[0]])[:60]}); all machines "
        "need the same model, the same version of this program, and a CPU that its engine takes for the same"
    )
    watched = replace(analyser, scorers=[replace(one, network=lively(one.network)) for one in analyser.scorers])
    answers = watched.analysed(entries, embeddings=arrays)
    return [(outcome, analysed, scored if arrays else []) for _, outcome, analysed, scored in answers]


@contextmanager
def open_there(where: tuple[Path, AnalyserSettings]) -> Generator[Analyser]:
    """An analyser of a worker, with as many threads as that was given, where relative paths begin as for who asked."""
    folder, settings = where
    assert folder.is_dir(), f"it has no folder {folder}; all machines need the same folders"
    os.chdir(folder)
    with open_analyser(replace(settings, threads=settings.threads or threads_of_worker())) as analyser:
        yield analyser


def lively(network: Network) -> Network:
    """A network whose every answer is a sign of life."""

    def answer(samples: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> dict[str, np.ndarray]:
        alive()
        return network(samples)

    return answer


if __name__ == "__main__":
    entries = [Entry(Path(f"{number}.wav"), size=2**20) for number in range(1000)]
    tasks = list(tasks_of(entries, workers=4))
    print(f"{len(entries)} recordings of a minute are {len(tasks)} tasks, the last of {len(tasks[-1])}")
    assert [entry for task in tasks for entry in task] == entries and len(tasks[0]) == MOST_OF_A_TASK
    assert [len(task) for task in tasks_of([replace(one, size=2**30) for one in entries[:3]], 4)] == [1, 1, 1]
    with tempfile.TemporaryDirectory() as folder:
        try:
            with open_analyser(AnalyserSettings((Path(folder) / "classifier.int8.onnx",))):
                raise SystemExit("a model was opened that is not there")
        except AssertionError as refusal:
            print(refusal)
