"""Self-training: recordings that nobody labelled, labelled by classifiers, for main.py to learn from them too.

    python pseudo_label.py season/ --model runs/quantize/classifier.int8.onnx --out pseudo/
    python main.py --data.root recordings/ --data.pseudo pseudo/recordings.csv --run.seed 1
    python pseudo_label.py season/ --out pseudo/ --rounds 3 --student runs/finetune --judge annotated/

Reads    recordings, folders of them or a recordings.csv; classifier.int8.onnx; with --rounds a run of main.py
Writes   pseudo/: recordings.csv, a row per window with its labels and their scores, run.json; with --rounds a folder
         for each round, rounds.csv, and numbered runs of main.py

Windows are read and scored as predictor.py does it, and what is scored is kept: the same command goes on where it was
stopped, with other limits (--lowest, --highest, --sure) too. What keeps a classifier from teaching itself its own
mistakes: scores are labels and none is certain; main.py draws no more of a species than people labelled of it, and
large sites less (--data.pseudo_mass, --data.pseudo_sites); each round has a seed of its own; what judges is of sites
that are never labelled; and the rounds end when it says that they harm.
"""

from __future__ import annotations

import runtime.openmp  # pyright: ignore[reportUnusedImport] - it counts when torch is loaded
import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

from config import PseudoLabelCommand
from runtime.terminal import answer_early

if __name__ == "__main__":
    answer_early(PseudoLabelCommand)  # before anything is imported that takes seconds

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from archive.duplicates import copies_of
from archive.layouts import read_collection
from archive.pseudo_labels import TEACHERS, Limits, read_limits, site_of, sites_of
from archive.recordings import Recording, read_recordings, write_recordings
from archive.survey import Band, heard_by, marks_of, sound_marks, sounds_marked
from config import CollectionSettings, FinetuneCommand, LabelledSettings, parse
from predictor import MODEL, exit_code, score_waiting, still_to_do
from runtime.cells import write_sheet
from runtime.csvs import read_table
from runtime.digests import sha256
from runtime.files import as_json, read_json
from runtime.runs import MAY_DIFFER, default_of, flat, open_run, point_to, refuse_others
from runtime.terminal import command_line, launch, show
from serving.analyser import AnalyserSettings, open_analyser
from serving.choices import model_hash
from serving.inputs import Entry, find_entries, site_pattern
from serving.journal import Journal, open_journal
from serving.scorer import Scorer
from sounds.audio import reading_version

TABLE = "recordings.csv"
KNOWN = ("run", "data", "encoder", "seed", "held_out_fold", "teachers", "license", "trained_on")  # of its training
ROUNDS = "rounds.csv"


class Round(NamedTuple):
    """A training, and what it is worth; 0 is the one without pseudo-labels."""

    number: int
    run: Path
    cmap: float
    windows: int  # with pseudo-labels


def pseudo_label(config: PseudoLabelCommand) -> int:
    """The command; returns the exit code."""
    assert config.inputs, "no recordings given; for example: python pseudo_label.py season/ --model M --out pseudo/"
    given = [*config.inputs, *([config.judge] if config.judge else [])]
    absent = [str(path) for path in given if not path.exists()]
    assert not absent, f"not found: {', '.join(absent[:5])}"
    if config.rounds:
        return self_train(config)
    code, _ = label_recordings(config)
    show(
        f"next: {command_line('main.py', '--data.pseudo', config.out / TABLE, '--run.seed', '1')}, and its --data.root"
    )
    return code


# --- labelling ------------------------------------------------------------------------------------------------------


def label_recordings(config: PseudoLabelCommand) -> tuple[int, int]:
    """Score what is not yet scored, then write the table; returns the exit code and the number of its windows."""
    refuse_others(config.out, "pseudo", [TABLE])
    wanted = AnalyserSettings(config.model or (MODEL,), config.threads, time_expansion=config.time_expansion)
    with open_analyser(wanted) as analyser:
        scorers = analyser.scorers
        labels = scorers[0].taxonomy.labels
        limits = read_limits(config.limits, labels, config.lowest, config.highest, config.sure)
        teachers = [member for scorer in scorers for member in facts_of(scorer)]
        judging = read_collection(CollectionSettings(config.judge)).recordings if config.judge else []
        judges, band = [row.path for row in judging], heard_by(scorers[0].audio)
        for teacher in teachers:
            refuse_known(judges, str(teacher.get("trained_on", "")), f"{teacher['model']}, which labels,", band)
        entries = entries_to_label(config, judging, band)
        settings = {"reading": reading_version(), "model": model_hash(scorers)[:16], "engine": scorers[0].engine}
        with (
            open_journal(config.out, settings, True, restart=config.restart, command="pseudo_label.py") as journal,
            open_run(
                "pseudo", config.out, config, config.out, kept="what is scored is kept: repeat the command"
            ) as run,
        ):
            score_waiting(analyser, still_to_do(entries, journal, retry_failed=False), journal, fail_fast=False)
            statuses = Counter(str(journal.read_facts(entry)["status"]) for entry in entries)
            rows = list(labelled_windows(entries, journal, limits, config.inputs))
            assert rows, (
                f"in none of {len(entries)} recordings a window has a species with a score of {config.sure:g} or more "
                f"({dict(statuses)}); lower --sure"
            )
            write_recordings(config.out / TABLE, rows)
            run.facts.update({TEACHERS: teachers, "windows": len(rows)})
    mass, sites = Counter[str](), Counter(row.site for row in rows)
    for row in rows:
        mass.update(dict(zip(row.labels, row.scores, strict=True)))
    show(f"wrote {config.out / TABLE}: {len(rows)} windows of {len(sites)} sites, {len(mass)} of {len(labels)} species")
    show("most of " + ", ".join(f"{label} ({total:.1f})" for label, total in mass.most_common(5)))
    return exit_code(statuses), len(rows)


def entries_to_label(config: PseudoLabelCommand, judging: Sequence[Recording], band: Band) -> list[Entry]:
    """The recordings, each with its site, without those of sites that are held out or judge, and copies of what
    judges."""
    entries = with_sites(config)
    assert entries, f"no recordings in {', '.join(map(str, config.inputs))}"
    sites = sites_of(judging, config.site_regex)
    if judging and not sites:
        show(
            f"none of the {len(judging)} recordings of {config.judge} says where it was made, so what is labelled may "
            "be of its site; name such sites with --held_out, or say with --site_regex where the site is in a path"
        )
    unknown = sorted(set(config.held_out) - {entry.site for entry in entries})
    assert not unknown, (
        f"--held_out {' '.join(unknown)}: no such site; there are {', '.join(sorted({e.site for e in entries})[:10])}"
    )
    aside = {*config.held_out, *sites}
    paths = {row.path.resolve() for row in judging}
    kept = [entry for entry in entries if entry.site not in aside and entry.path.resolve() not in paths]
    if judging:
        copies = copies_of([row.path for row in judging], [entry.path for entry in kept], band)
        kept = [entry for entry in kept if entry.path not in copies]
    if len(kept) < len(entries):
        show(
            f"{len(entries) - len(kept)} of {len(entries)} recordings are not labelled: their sites are held out, or "
            "they are copies of what judges"
        )
    assert kept, (
        f"all {len(entries)} recordings are of sites that are held out ({', '.join(sorted(aside)[:5])}); give others, "
        "or say with --site_regex where the site stands in a path"
    )
    return kept


def with_sites(config: PseudoLabelCommand) -> list[Entry]:
    """The recordings that are given, each with its site."""
    entries, notes = find_entries(config.inputs)
    show("\n".join(notes), end="\n" * bool(notes))
    pattern = site_pattern(config.site_regex)
    return [replace(entry, site=site_of(entry.path, entry.site, pattern)) for entry in entries]


def labelled_windows(
    entries: Sequence[Entry], journal: Journal, limits: Limits, inputs: Sequence[Path]
) -> Iterator[Recording]:
    """The windows that have labels, in the order of the recordings and of time."""
    for entry, channels in journal.recall_arrays(entries):
        facts = journal.read_facts(entry)
        path = entry.path.absolute()
        above = [place.absolute() for place in inputs if place.is_dir() and path.is_relative_to(place.absolute())]
        known = Recording(
            path,
            path.relative_to(above[0] if above else path.parent).as_posix(),
            seconds=facts["seconds_analysed"] + facts["seconds_silent"],
            source="pseudo-labels",
            site=entry.site,
            latitude=entry.latitude,
            longitude=entry.longitude,
            recorded_at=entry.recorded_at,
        )
        for scored in channels:
            for start, end, row in zip(scored.starts, scored.ends, scored.probabilities, strict=True):
                labels, scores = limits.labels_of(row)
                if labels:
                    yield replace(known, start=start, end=end, labels=labels, scores=scores)


def facts_of(scorer: Scorer) -> list[dict[str, Any]]:
    """What is to be remembered of a teacher, of an ensemble of each member; its `encoder` is the size in words,
    `weights` what it was trained from."""
    members: object = scorer.provenance.get("members")
    found: list[object] = [scorer.provenance]
    if isinstance(members, list) and members:
        found = cast(list[object], members)
    terms = {name: scorer.provenance[name] for name in ("license", "teachers") if name in scorer.provenance}
    every: list[dict[str, Any]] = []
    for provenance in [cast(dict[str, Any], one) for one in found if isinstance(one, dict)]:
        known = {name: given[name] for given in (terms, provenance) for name in KNOWN if name in given}
        if marks := "".join(dict.fromkeys(marks_of({**scorer.provenance, "members": [provenance]}))):
            known["trained_on"] = marks  # of a member, and of what was done with all of them
        weights, encoder = known.pop("encoder", ""), scorer.encoder if len(found) == 1 else "one of several"
        own = {"model": str(scorer.path), "sha256": scorer.sha256, "encoder": encoder, "weights": weights}
        every.append(own | known)
    return every


def refuse_known(judges: Sequence[Path], written: str, who: str, band: Band) -> None:
    """No classifier is judged by recordings that it, or what labelled for it, was trained on."""
    known = sounds_marked(judges, written, band)
    assert not known, (
        f"{who} was trained on {len(known)} of the {len(set(judges))} recordings of --judge, such as {known[0]}; give "
        "others, or leave --judge out: then the held-out recordings of --student judge"
    )


# --- rounds ---------------------------------------------------------------------------------------------------------


def self_train(config: PseudoLabelCommand) -> int:
    """Label, train and judge in turn, until it does harm or --rounds are done; returns the exit code."""
    first = first_student(config)
    settings = read_json(first / "run.json", "name a run of main.py with --student") if first.is_dir() else {}
    assert settings.get("status") == "finished" and (first / "classifier.safetensors").is_file(), (
        f"{first} is no finished run of main.py with one classifier; train one, and name its folder: --student"
    )
    config.out.mkdir(parents=True, exist_ok=True)
    rounds = [Round(0, first, judged_by(config, first), 0)]
    code, best, models = 0, rounds[0], config.model
    judges = str(config.judge or f"the held-out recordings of {config.student}")
    if config.restart or not (config.out / ROUNDS).is_file():
        write_rounds(config.out / ROUNDS, rounds)  # now, for --student may be the link that every run moves
    show(f"round 0 is {first.name}: cmAP {best.cmap:.4f} on {judges}")
    if config.judge is None:
        show("close recordings do not show all that rounds do in the field: labelled soundscapes judge that (--judge)")
    for number in range(1, config.rounds + 1):
        folder = config.out / f"round-{number}"
        folder.mkdir(exist_ok=True)
        models = models or (exported(rounds[-1].run, folder),)
        code, windows = label_recordings(replace(config, model=models, out=folder, rounds=0))
        run = trained(config, first, number, folder / TABLE)
        rounds.append(Round(number, run, judged_by(config, run), windows))
        write_rounds(config.out / ROUNDS, rounds)
        models = ()
        show(
            f"round {number}: cmAP {rounds[-1].cmap:.4f} on {judges}, best before {best.cmap:.4f} (round {best.number})"
        )
        if rounds[-1].cmap < best.cmap:
            show(f"round {number} is worse than round {best.number}: stopping, as further rounds would learn from it")
            break
        best = rounds[-1]
    path, link = best.run / "classifier.safetensors", best.run.parent / "finetune"
    if link.is_symlink() and link.resolve() in {one.run for one in rounds}:  # not where somebody trained since
        point_to(best.run, link.name)
    show(f"the best is round {best.number}; next: {command_line('quantize.py', '--classifier', path)}")
    return code


def first_student(config: PseudoLabelCommand) -> Path:
    """The run of round 0: that of the rounds that have begun, for a link to the newest run has moved since."""
    given, path = config.student.resolve(), config.out / ROUNDS
    begun = [Path(row["run"]) for _, row in read_table(path, ("number", "run"))][:1] if path.is_file() else []
    if not begun or begun == [given] or (config.restart and not config.student.is_symlink()):
        return given
    assert config.student.is_symlink(), (
        f"{path} began with {begun[0]}, and --student is {config.student}; give that one, another --out, or --restart"
    )
    show(f"{config.student} is {given.name} now; going on with {begun[0].name}, with which {path} began")
    return begun[0]


def trained(config: PseudoLabelCommand, first: Path, number: int, table: Path) -> Path:
    """The folder of a round's training: of one that has finished, else of one that is begun or goes on now."""
    from main import finetune  # torch takes seconds, and labelling alone does without it
    from training.states import begun_with

    wanted = parse(FinetuneCommand, ["--config", str(first / "run.json"), "--data.pseudo", str(table)])
    wanted = replace(
        wanted,
        run=replace(wanted.run, seed=wanted.run.seed + number),
        encoder=replace(wanted.encoder, weights=begun_with(first, wanted)),
    )
    before = runs_like(wanted, sha256(table))
    if "finished" in before.values():
        show(f"round {number} is trained already")
    else:
        begun = [] if config.restart else list(before)
        code = finetune(parse(FinetuneCommand, ["--run.resume", str(begun[-1])]) if begun else wanted)
        assert code == 0, f"round {number} was not trained; see what main.py printed above"
    return next(run for run, status in runs_like(wanted, sha256(table)).items() if status == "finished")


def runs_like(wanted: FinetuneCommand, table: str) -> dict[Path, str]:
    """The runs with these settings and this digest of their pseudo-labels, the oldest first, and how they ended."""
    found: dict[Path, str] = {}
    settings = settled(json.loads(json.dumps(wanted, default=as_json)))
    for path in sorted(wanted.run.root.glob("finetune-*/run.json")):
        facts = read_json(path, "remove its folder")
        status, own = facts.get("status"), facts.get("settings")
        learnt = facts.get("pseudo_labels")  # nothing in one that an earlier version began: asked when it is resumed
        of_table = learnt == table or (learnt is None and status != "finished")
        before = settled(cast(dict[str, Any], own)) if isinstance(own, dict) else {}
        since = {name: default_of(wanted, name) for name in settings.keys() - before.keys()}  # flags that came later
        if before and settings == before | since and of_table:
            found[path.parent.resolve()] = str(status)
    return found


def settled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their flags, without those that may differ between two starts of one run."""
    return {name: value for name, value in flat(settings).items() if name not in MAY_DIFFER}


def exported(run: Path, folder: Path) -> Path:
    """The classifier of a run as a float32 file to score with, named after its content."""
    from serving.export import write_float
    from training.checkpoint import load_classifier

    classifier = run / "classifier.safetensors"
    path = folder / f"teacher-{sha256(classifier)[:12]}.onnx"
    if not path.is_file():
        network, facts = load_classifier(classifier)
        write_float(network, facts, path, False)
    return path


def judged_by(config: PseudoLabelCommand, run: Path) -> float:
    """cmAP of a run's classifier on the recordings of --judge, else on those that main.py held out."""
    if config.judge is None:
        return float(read_json(run / "run.json", "train again")["scores"]["cmap"])
    import torch

    from data_loader import read_labeled, truth_table, within_band
    from evaluation.held_out import pool_windows
    from evaluation.metrics import cmap
    from trainer import score_windows
    from training.checkpoint import load_classifier

    network, facts = load_classifier(run / "classifier.safetensors")
    band = heard_by(facts.audio)
    _, rows = read_labeled(LabelledSettings(config.judge, time_expansion=config.time_expansion), band)
    rows, trained_on = within_band(rows, facts.audio), facts.provenance.get("trained_on")
    listed = run / "training_recordings.csv"  # all that there is of a classifier of an earlier version
    if trained_on is None and listed.is_file():
        trained_on = sound_marks([row.path for row in read_recordings(listed)], band)
    refuse_known([row.path for row in rows], str(trained_on or ""), str(run / "classifier.safetensors"), band)
    truth = truth_table(rows, facts.taxonomy.labels, facts.audio)
    assert truth.any(), f"none of the species of {run} is labelled in {config.judge}; give --judge recordings of them"
    return cmap(truth, pool_windows(score_windows(network, rows, facts.audio, torch.device("cpu")), len(rows)))


def write_rounds(path: Path, rounds: Sequence[Round]) -> None:
    """All rounds so far, a row each."""
    rows = [(str(each.number), str(each.run), f"{each.cmap:.6f}", str(each.windows)) for each in rounds]
    write_sheet(path, [Round._fields, *rows])


if __name__ == "__main__":
    launch(pseudo_label, PseudoLabelCommand)
