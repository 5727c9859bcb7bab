"""Stage 2: fine-tune the encoder and a new head on labelled recordings.

    python main.py --data.root data/birdclef-2025 --encoder.weights runs/mae/encoder.safetensors
    python main.py --data.root data/birdclef-2025 --train.folds 0 1 2 3        # one model each, all recordings judged
    python main.py --data.root data/birdclef-2025 --data.pseudo pseudo/recordings.csv --run.seed 1

Reads    labelled recordings in any layout of archive/layouts.py, or recordings.csv; encoder.safetensors or a
         Whisper checkpoint; windows labelled by a classifier, from pseudo_label.py
Writes   runs/finetune/: classifier.safetensors, metrics.jsonl, curves.png (with several folds: in a folder for each);
         held_out_scores.csv, held_out_recordings.csv, training_recordings.csv, embeddings.npz, species.csv,
         thresholds.csv, confusion.png, reliability.png, run.json
"""

from __future__ import annotations

import runtime.openmp  # pyright: ignore[reportUnusedImport] - it counts when torch is loaded
import runtime.stopping  # noqa: F401  # pyright: ignore[reportUnusedImport] - Ctrl-C counts from here on

from config import FinetuneCommand, encoder_in_words
from runtime.terminal import answer_early

if __name__ == "__main__":
    answer_early(FinetuneCommand)  # before torch is imported, which takes seconds

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from archive.licences import handed_on, licence_note, teachers_of
from archive.pseudo_labels import apart_from, labelled_with, labelling_models, read_pseudo_labels
from archive.recordings import Recording
from archive.survey import heard_by, marks_of, sound_marks, sounds_marked
from data_loader import (
    fingerprint,
    is_synthetic,
    labeled_loader,
    noise_bank,
    read_labeled,
    read_noise,
    split,
    synthetic_noise,
    truth_table,
    within_band,
)
from encoders import timm_facts
from evaluation.held_out import (
    Calibration,
    HeldOut,
    calibrate,
    evaluate,
    joined_parts,
    recording_scorecard,
    write_embeddings,
    write_held_out,
    write_trained,
)
from model import AnyEncoder, BirdClefClassifier
from runtime.digests import sha256
from runtime.files import FIRST
from runtime.runs import Run, add_facts, past_starts, subfolder
from runtime.terminal import command_line, launch, show
from sounds.discovery import find_recordings
from sounds.negatives import negatives_folder
from taxonomy import Taxonomy
from trainer import score_windows, train_classifier
from training.checkpoint import (
    ClassifierFacts,
    load_any_encoder,
    save_classifier,
    stage_one,
)
from training.device import prepare_device
from training.objective import prepare_loss_inputs
from training.states import begun_with, forget, training_run

CLASSIFIER = "classifier.safetensors"


class Plan(NamedTuple):
    """What one classifier learns from, and what it is judged by."""

    fold: int
    weights: str  # of the encoder it starts from
    train: list[Recording]
    valid: list[Recording]
    pseudo: Sequence[Recording] = ()  # windows with a classifier's labels, to be learnt from too
    quiet: Sequence[Recording] = ()  # made-up noise that is held out, on which alarms are counted where none is real
    origin: Mapping[str, object] = MappingProxyType({})  # what the weights said of where they are from, at the start


class Candidate(NamedTuple):
    """A trained classifier that is not yet calibrated."""

    model: BirdClefClassifier
    facts: ClassifierFacts
    held_out: HeldOut  # its answers to the recordings held out from it


def finetune(config: FinetuneCommand) -> int:
    """The whole of stage 2; returns the exit code."""
    given = config
    if config.run.resume:  # before all recordings are looked at
        past_starts(config.run.resume, "finetune", config)
        config = replace(config, encoder=replace(config.encoder, weights=begun_with(config.run.resume, config)))
    device = prepare_device(config.run)
    band = heard_by(config.audio)
    taxonomy, recordings = read_labeled(config.data, band)
    recordings = within_band(recordings, config.audio)
    if config.data.made_up:
        recordings += synthetic_noise(recordings, config.audio)
    pseudo = read_pseudo_labels(config.data.pseudo, taxonomy.labels, band) if config.data.pseudo else []
    folds = config.train.folds or (config.data.valid_fold,)
    plans = [plan_fold(config, fold, taxonomy, recordings, pseudo) for fold in folds]
    encoder = load_any_encoder(replace(config.encoder, weights=plans[0].weights), config.audio)
    if config.data.pseudo:
        check_labelling_models(config, plans, encoder.depth)
    noise = read_noise(config.data.noise, config.data, band=band) if config.data.noise else []
    noise = within_band(noise, config.audio)
    table = sha256(config.data.pseudo) if config.data.pseudo else ""
    with training_run("finetune", given, config.encoder.weights) as run:
        if table:  # at once, so that nobody goes on with a run that was killed after its table has changed
            add_facts(run, pseudo_labels=table)
        # one classifier for each fold
        parts = [run if len(plans) == 1 else subfolder(run, f"fold-{plan.fold}") for plan in plans]
        candidates: list[Candidate] = []
        for plan, part in zip(plans, parts, strict=True):
            if candidates:  # the first has its encoder
                torch.manual_seed(config.run.seed)
                encoder = load_any_encoder(replace(config.encoder, weights=plan.weights), config.audio)
            candidates.append(train_plan(plan, encoder, config, taxonomy, noise, part, device))
        if not FIRST:  # of several processes one writes down what all have found
            return 0
        # one calibration for all of them, with which each is saved
        held_out = joined_parts([candidate.held_out for candidate in candidates])
        calibration = calibrate(held_out, taxonomy, config.calibrate.alarms_per_hour)
        for plan, part, candidate in zip(plans, parts, candidates, strict=True):
            calibrated = calibration.applied(candidate.held_out)
            save_calibrated(part.folder / CLASSIFIER, candidate, calibration, recording_scorecard(calibrated, taxonomy))
            write_held_out(part.folder, calibrated, taxonomy)
            write_trained(part.folder, plan.train)
        run.facts["scores"] = evaluate(run.folder, calibration.applied(held_out), calibration, taxonomy)
        write_embeddings(run.folder / "embeddings.npz", held_out, joint_provenance(candidates))
    for part in parts:  # only now: a run that is not marked as finished may be resumed
        forget(part.folder / "states")
    if note := licence_note(teachers_of(joint_provenance(candidates))):
        show(note)
    path = parts[0].folder / CLASSIFIER
    more = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
    show(f"wrote {path}{more}; next: {command_line('quantize.py', '--classifier', path)}")
    return 0


def plan_fold(
    config: FinetuneCommand,
    fold: int,
    taxonomy: Taxonomy,
    recordings: list[Recording],
    pseudo: Sequence[Recording] = (),
) -> Plan:
    """The parts of a split, once it is certain that nothing of what is held out was learnt from before."""
    weights = config.encoder.weights.replace("{fold}", str(fold))
    train, valid = split(recordings, replace(config.data, valid_fold=fold))
    before = history_of(weights, config)
    judges, other_fold = sorted({row.path for row in valid}), before.get("held_out_fold")
    adapted = sounds_marked(judges, str(before.get("trained_on", "")), heard_by(config.audio))
    if "trained_on" not in before and before.get("data") == str(config.data.root.resolve()) and other_fold != fold:
        adapted = judges  # an encoder of an earlier version does not say which sounds it heard
    assert not adapted, (
        f"{weights} was adapted on {len(adapted)} of the {len(judges)} recordings that this run would hold out, such "
        f"as {adapted[0]}; add --data.valid_fold {other_fold} and the --data.folds of then, or repeat "
        f"ssl_mae.py with --data.valid_fold {fold} (for several folds: one encoder for each, named in "
        "--encoder.weights with {fold} in place of the number)"
    )
    missing = sorted(set(taxonomy.labels) - {row.labels[0] for row in train if row.labels})
    assert not missing, f"{len(missing)} species have no training recording: {missing[:5]}; raise --data.min_recordings"
    unseen = [label for label in taxonomy.labels if not any(label in row.labels for row in valid)]
    rest = f"; trained, but not in the held-out fold: {', '.join(unseen[:10])}" if unseen else ""
    show(f"{len(taxonomy.labels) - len(unseen)} of {len(taxonomy.labels)} species can be validated{rest}")
    quiet = [row for row in valid if is_synthetic(row)]
    valid = [row for row in valid if not is_synthetic(row)]
    if config.data.pseudo and pseudo:
        site_regex = str(labelled_with(config.data.pseudo).get("site_regex", ""))
        pseudo = apart_from(pseudo, train, valid, site_regex, heard_by(config.audio))
    refuse_lost_backgrounds(config, fold, valid)
    return Plan(fold, weights, train, valid, pseudo, quiet, before)


def refuse_lost_backgrounds(config: FinetuneCommand, fold: int, valid: Sequence[Recording]) -> None:
    """Where all of --augment.background is held out, nothing of it may be put under the training windows."""
    given = config.augment.background if config.augment.noise else None
    found = {path.resolve() for path in find_recordings([given])[0]} if given else set[Path]()
    assert not found or found - {row.path.resolve() for row in valid}, (
        f"every recording below {given} is held out to judge by (fold {fold}); point --augment.background at others, "
        "or leave it out: those of --data.no_call that are trained on are used then"
    )


def history_of(weights: str, config: FinetuneCommand) -> dict[str, object]:
    """What the weights to start from say of the run that made them, or the `license` on which somebody published them:
    of a network of timm's what timm says of that."""
    picture = config.encoder.picture
    if picture is None:
        return stage_one(weights)
    licence = timm_facts(picture.name).license if picture.kind == "timm" and weights != "random" else ""
    return {"license": licence} if licence else {}


def check_labelling_models(config: FinetuneCommand, plans: Sequence[Plan], layers: int) -> None:
    """Refuse pseudo-labels by a classifier that was trained on what is held out here; say where student and teacher are
    one and the same network before they are trained."""
    assert config.data.pseudo is not None, "no --data.pseudo, so there are no teachers"
    table, seed = config.data.pseudo, config.run.seed
    own = {
        "encoder": encoder_in_words(config.encoder.size, layers, config.encoder.pool, config.encoder.picture),
        "seed": seed,
    }
    for teacher in labelling_models(table):
        name = f"{teacher.get('run', 'a classifier')} ({teacher.get('model')})"
        for plan in plans:
            fold = teacher.get("held_out_fold")
            judges = sorted({row.path for row in plan.valid})
            known = sounds_marked(judges, str(teacher.get("trained_on", "")), heard_by(config.audio))
            assert not known, (
                f"{table} was labelled by {name}, which was trained on {len(known)} of the {len(judges)} recordings "
                f"that this run would hold out, such as {known[0]}; add --data.valid_fold {fold} and the --data.folds "
                "of then, or label with a classifier that was not trained on them"
            )
            assert "trained_on" in teacher or teacher.get("data") != str(config.data.root) or fold == plan.fold, (
                f"{table} was labelled by {name}, which was trained on fold {plan.fold} that this run would hold out; "
                f"add --data.valid_fold {fold}, or label with a classifier that held out fold {plan.fold}"
            )
            if own | {"weights": plan.weights} == {key: teacher.get(key) for key in (*own, "weights")}:
                show(
                    f"teacher and student do not differ: {name} has the encoder ({own['encoder']}, {plan.weights}) and "
                    f"the seed {seed} of this run, which will repeat its mistakes; add --run.seed {seed + 1}"
                )


def train_plan(
    plan: Plan,
    encoder: AnyEncoder,
    config: FinetuneCommand,
    taxonomy: Taxonomy,
    noise: list[Recording],
    run: Run,
    device: torch.device,
) -> Candidate:
    """One classifier, and what it makes of the recordings held out from it."""
    size, pseudo = config.train.batch_size, plan.pseudo
    loader = labeled_loader(plan.train, taxonomy, config.data, config.audio, size, config.run.seed, pseudo)
    model = BirdClefClassifier(encoder, config.audio, len(taxonomy.labels), config.head).to(device)
    inputs = prepare_loss_inputs(taxonomy, plan.train, config.loss, backgrounds_of(plan, config), device)
    data = fingerprint(plan.train, plan.valid, *[pseudo] * bool(pseudo), taxonomy=taxonomy)
    trained = train_classifier(model, loader, inputs, plan.valid, taxonomy, config, run, device, data)
    rows = unheard_noise(noise, plan, config.augment.background)
    if plan.quiet and not rows and all(row.labels for row in plan.valid):
        show(
            "no real noise is held out: false alarms are those in made-up noise, of kinds that were not trained on; "
            "real noise gives more, and --data.noise counts them"
        )
        rows = list(plan.quiet)
    silence = score_windows(trained.model, rows, config.audio, device) if rows else None
    provenance = provenance_of(plan, config, run.folder.name, trained.epoch)
    picture = config.encoder.picture
    depth = 0 if picture else encoder.depth
    facts = ClassifierFacts(
        config.encoder.size,
        config.audio,
        config.head,
        taxonomy,
        provenance,
        depth=depth,
        pool=config.encoder.pool,
        picture=picture,
    )
    truth = truth_table(plan.valid, taxonomy.labels, config.audio)
    return Candidate(trained.model.cpu(), facts, HeldOut(plan.valid, truth, trained.windows, silence))


def provenance_of(plan: Plan, config: FinetuneCommand, run: str, epoch: int) -> dict[str, object]:
    """What a classifier's file says of its training."""
    table = config.data.pseudo if plan.pseudo else None
    models = labelling_models(table) if table else []
    learnt = [row.path for row in (*plan.train, *plan.pseudo) if not is_synthetic(row)]
    before = [
        marks for one in (plan.origin, *models) for marks in marks_of(one)
    ]  # its encoder and teachers heard these
    helpers = handed_on(plan.origin, config.encoder.name or Path(plan.weights).name)
    for model in models:
        own = handed_on(model, Path(str(model.get("model"))).name, str(model.get("sha256", "")))
        helpers += [helper for helper in own if helper not in helpers]
    provenance: dict[str, object] = {
        "run": run,
        "data": str(config.data.root),
        "encoder": plan.weights,
        "held_out_fold": plan.fold,
        "licenses": dict(Counter(row.license or "unknown" for row in plan.train)),
        "epoch": epoch,
        "sound": config.sound,
        "teachers": helpers,
        "seed": config.run.seed,
        "trained_on": sound_marks(learnt, heard_by(config.audio), before),  # no student of it may hold these out
    }
    if table:
        names = [str(model.get("run", "unknown")) for model in models]
        provenance["pseudo_labels"] = {"table": str(table), "windows": len(plan.pseudo), "teachers": names}
    return provenance


def joint_provenance(candidates: Sequence[Candidate]) -> dict[str, object]:
    """What is said of answers by classifiers of several folds, in one file: of the only one what it says itself."""
    every = [candidate.facts.provenance for candidate in candidates]
    if len(every) == 1:
        return every[0]
    helpers = [one for provenance in every for one in teachers_of(provenance)]
    teachers = [one for number, one in enumerate(helpers) if one not in helpers[:number]]
    return {"members": every, "teachers": teachers}


def backgrounds_of(plan: Plan, config: FinetuneCommand) -> Tensor | None:
    """(count, samples) what is put under the training windows: of --augment.background but for what is held out, else
    of those recordings of --data.no_call that are trained on, else of made-up noise."""
    if not config.augment.noise:
        return None
    if given := config.augment.background:
        free = {path.resolve() for path in find_recordings([given])[0]} - {row.path.resolve() for row in plan.valid}
        return noise_bank(given, config.audio, only=free)
    trained = {row.path.resolve() for row in plan.train if not row.labels}
    for folder in (
        config.data.no_call,
        negatives_folder(config.audio.sample_rate) if config.data.made_up else None,
    ):
        only = trained & {path.resolve() for path in find_recordings([folder])[0]} if folder else set[Path]()
        if folder and only:  # none where all are held out
            return noise_bank(folder, config.audio, only=only)
    return None


def unheard_noise(noise: Sequence[Recording], plan: Plan, background: Path | None) -> list[Recording]:
    """Recordings of --data.noise that were not in this training, nor are judged with the others."""
    used = {row.path.resolve() for row in (*plan.train, *plan.valid, *plan.pseudo)}
    used |= {path.resolve() for path in find_recordings([background])[0]} if background else set()
    rows = [row for row in noise if row.path.resolve() not in used]
    if len(rows) < len(noise):
        show(
            f"{len(noise) - len(rows)} of {len(noise)} recordings of --data.noise are left out of it: they are in "
            "--data.root, --data.no_call, --data.pseudo or --augment.background too"
        )
    return rows


def save_calibrated(path: Path, candidate: Candidate, calibration: Calibration, card: Mapping[str, float]) -> None:
    """Write a classifier with what was fitted on the held-out recordings, and how it does on them."""
    model, facts, _ = candidate
    model.temperature.fill_(float(np.float32(calibration.temperature)))
    fitted = {"temperature": calibration.temperature, "alarms_per_hour": calibration.alarms}
    provenance = facts.provenance | {"held_out": dict(card)} | fitted
    save_classifier(path, model, replace(facts, provenance=provenance, thresholds=calibration.thresholds))


if __name__ == "__main__":
    launch(finetune, FinetuneCommand)
