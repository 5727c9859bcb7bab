"""What each loss is worth to the head of a frozen Whisper base: out of fold over all recordings, with the controls.

    make bench-losses          (or: .venv/bin/python -m bench.losses)

Reads    ../shared/animals: labels with at least 8 recordings, folds 0 to 3; ../shared/whisper-base
Writes   /tmp/wildwhisper/features (what the encoder makes of the training windows, kept) and /tmp/wildwhisper/held-out
         (of the others), then prints one table: 3 seeds, the same features, updates and order of windows for all

The first arm is plain binary cross-entropy. Three columns are taxonomic distances: of the best answer, of the least
costly answer that the same scores give (the decision-time alternative to a loss that knows the tree), and of the false
alarms at a recall of .8. `shuffled` has a tree whose species are permuted: what survives there is no taxonomy.
As in bench.whisper, a taxon above a recording's species ("bird" where a tit is named) counts as absent unless an arm
says otherwise. The loss on the best moment needs the encoder, so it is no arm here; bench.ingredients has it. False
alarms are those at the fitted thresholds, per hour of noise that was not trained on.
"""

from __future__ import annotations

import runtime.openmp  # noqa: F401  # pyright: ignore[reportUnusedImport] - it counts when torch is loaded

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from archive.recordings import Recording
from bench.baseline import deal_noise
from bench.folds import FOLDS, MEASURES, gain
from bench.whisper import BASE, SHARED
from config import SCRATCH, AudioSettings, FinetuneCommand, parse
from data_loader import labeled_loader, read_labeled, read_noise, recording_contexts, truth_table
from evaluation.held_out import (
    HeldOut,
    WindowScores,
    alarm_windows,
    calibrate,
    cross_fit,
    joined_parts,
    judged_entries,
    pool_windows,
)
from evaluation.metrics import (
    answers_scorecard,
    bootstrap_interval,
    false_alarms_per_hour,
    false_positive_severity,
    least_cost_answers,
    rank_roc_auc,
    scorecard,
)
from evaluation.ranks import rank_groups
from main import plan_fold
from model import BirdClefClassifier
from runtime.files import publish
from taxonomy import Taxonomy, pairwise_distances
from training.checkpoint import load_encoder
from training.device import prepare_device
from training.frozen import features_key, fit_on_features, frozen_features
from training.objective import prepare_loss_inputs

SEEDS = (0, 1, 2)
ARMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("bce", ("--loss.alpha", "0")),
    ("bce, distances, alpha 1", ("--loss.alpha", "1")),
    ("bce, distances, alpha 4", ("--loss.alpha", "4")),
    ("bce, shuffled, alpha 1", ("--loss.alpha", "1", "--loss.shuffle")),
    ("bce, shuffled, alpha 4", ("--loss.alpha", "4", "--loss.shuffle")),
    ("bce, hard, alpha 4", ("--loss.alpha", "4", "--loss.mode", "hard")),
    ("bce, soft, alpha 4", ("--loss.alpha", "4", "--loss.mode", "soft")),
    ("bce, ancestors left out", ("--loss.alpha", "0", "--loss.ancestors", "ignore")),
    ("bce, ancestors implied", ("--loss.alpha", "0", "--loss.ancestors", "imply")),
    ("ce", ("--loss.kind", "ce")),
    ("focal", ("--loss.kind", "focal", "--loss.alpha", "0")),
    ("asymmetric", ("--loss.kind", "asymmetric", "--loss.alpha", "0")),
    ("soft AUC", ("--loss.kind", "soft_auc")),
    ("bce, smoothing .05", ("--loss.alpha", "0", "--loss.smoothing", "0.05")),
    ("bce, class weights 1/count", ("--loss.alpha", "0", "--loss.class_weights", "inverse")),
    ("bce, class weights sqrt", ("--loss.alpha", "0", "--loss.class_weights", "sqrt")),
)
COLUMNS = (
    *("macro_auc", "cmap", "top1", "macro_f1", "auc_class", "auc_order", "auc_family", "auc_genus"),
    *("mistake_distance", "least_cost_distance", "false_positive_severity", "alarms_per_hour"),
)


class Kept(NamedTuple):
    """What the frozen encoder makes of recordings that a head is judged by."""

    summaries: Tensor  # (windows, ...) all that the head receives
    times: Tensor  # (windows, 3) which recording, where it starts and ends


def bench() -> None:
    """Fit every head, then compare."""
    deal_noise()
    common = [*BASE, *SHARED]
    config = parse(FinetuneCommand, [*common, "--train.frozen", "--run.threads", "1"])
    with redirect_stdout(StringIO()):
        device = prepare_device(config.run)
        taxonomy, recordings = read_labeled(config.data)
        assert config.data.noise is not None, "this bench has noise"
        noise = read_noise(config.data.noise, config.data)
    parts: dict[tuple[str, int], list[HeldOut]] = {(name, seed): [] for name, _ in ARMS for seed in SEEDS}
    for fold in FOLDS:
        with redirect_stdout(StringIO()):
            plan = plan_fold(config, fold, taxonomy, recordings)
            loader = labeled_loader(plan.train, taxonomy, config.data, config.audio, config.train.batch_size, 0)
            encoder = load_encoder(config.encoder, config.audio)
            start = BirdClefClassifier(encoder, config.audio, len(taxonomy.labels), config.head).to(device)
            truth = truth_table(plan.valid, taxonomy.labels, config.audio)
            inputs = prepare_loss_inputs(taxonomy, plan.train, config.loss, None, device)
            features = frozen_features(start, loader, inputs, config, device)
            key = features_key(start, loader, inputs, config, device)
            of_held_out, of_noise = (
                summaries_of(start, rows, config.audio, f"{key}-{name}")
                for name, rows in (("held-out", plan.valid), ("noise", noise))
            )
        for name, flags in ARMS:
            loss = parse(FinetuneCommand, [*common, *flags]).loss
            inputs = prepare_loss_inputs(taxonomy, plan.train, loss, None, device)
            for seed in SEEDS:
                torch.manual_seed(seed)  # the seed is the head's alone
                model = BirdClefClassifier(encoder, config.audio, len(taxonomy.labels), config.head).to(device)
                with redirect_stdout(StringIO()):
                    fit_on_features(model, features, inputs, config.train, seed, device)
                windows, silence = answers(model, of_held_out), answers(model, of_noise)
                parts[name, seed].append(HeldOut(plan.valid, truth, windows, silence))
        print(f"fold {fold} is done", flush=True)
    print_table(parts, taxonomy)


@torch.no_grad()
def summaries_of(model: BirdClefClassifier, rows: Sequence[Recording], audio: AudioSettings, key: str) -> Kept:
    """What the head receives of every window of some recordings; kept under a key."""
    path = SCRATCH / "held-out" / f"{key}.safetensors"
    if path.is_file():
        return Kept(**load_file(path))
    model.eval()
    found, times = list[Tensor](), list[list[float]]()
    for context in recording_contexts(rows, audio):
        summaries = model.summaries(model.log_mel(torch.from_numpy(context.samples)[None]))[0]
        found.append(summaries[list(context.rows)].clone())
        times += [[context.owner, *window] for window in context.windows]
    kept = Kept(torch.cat(found), torch.tensor(times, dtype=torch.float64))
    path.parent.mkdir(parents=True, exist_ok=True)
    with publish(path) as temporary:
        save_file(kept._asdict(), temporary)
    return kept


@torch.no_grad()
def answers(model: BirdClefClassifier, kept: Kept) -> WindowScores:
    """The scores of every window."""
    model.eval()
    scores: NDArray[np.float32] = model.head(kept.summaries).sigmoid().numpy()
    owner, starts, ends = kept.times.T.numpy()
    return WindowScores(owner.astype(np.int64), starts, ends, scores, scores[:, :0])


def print_table(parts: Mapping[tuple[str, int], list[HeldOut]], taxonomy: Taxonomy) -> None:
    """Means over the seeds, and what is better than the first arm with its interval, the seeds' scores averaged."""
    print(f"\n| loss | {' | '.join(COLUMNS)} | {' | '.join(f'{name} minus the first' for name, *_ in MEASURES)} |")
    print("|---|" + "---|" * (len(COLUMNS) + len(MEASURES)))
    first = mean_scores(parts, ARMS[0][0])
    for name, _ in ARMS:
        whole = [joined_parts(parts[name, seed]) for seed in SEEDS]
        cells = [f"{value:.3f}" for value in np.mean([figures(one, taxonomy) for one in whole], axis=0)]
        scores = mean_scores(parts, name)
        truth, groups = whole[0].truth, whole[0].groups
        for _, statistic, weighted in MEASURES if name != ARMS[0][0] else ():
            low, high = bootstrap_interval(partial(gain, weighted, truth, scores, first), groups)
            cells.append(f"{statistic(truth, scores) - statistic(truth, first):+.3f} [{low:+.3f}, {high:+.3f}]")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def mean_scores(parts: Mapping[tuple[str, int], list[HeldOut]], name: str) -> NDArray[np.float32]:
    """(recordings, species) of a loss, the seeds averaged."""
    whole = [joined_parts(parts[name, seed]) for seed in SEEDS]
    scores = np.stack([pool_windows(one.windows, len(one.recordings)) for one in whole])
    found: NDArray[np.float32] = scores.mean(axis=0).astype(np.float32)
    return found


def figures(held_out: HeldOut, taxonomy: Taxonomy) -> list[float]:
    """Every one of COLUMNS."""
    truth, scores = held_out.truth, pool_windows(held_out.windows, len(held_out.recordings))
    distances, judged = pairwise_distances(taxonomy), judged_entries(held_out.truth, taxonomy)
    labelled = truth.any(axis=1)
    careful = answers_scorecard(truth[labelled], least_cost_answers(scores[labelled], distances), distances)
    calibration = calibrate(held_out, taxonomy)
    calm = calibration.applied(held_out)
    empty, limits, hours = alarm_windows(cross_fit(calm, calibration, taxonomy), calibration)
    found = scorecard(truth, scores, distances) | {
        "least_cost_distance": careful["mistake_distance"],
        "false_positive_severity": false_positive_severity(truth, scores, distances, 0.8, judged)[0],
        "alarms_per_hour": false_alarms_per_hour(empty, limits, hours),
    }
    found |= {f"auc_{rank}": area for rank, area in rank_roc_auc(truth, scores, rank_groups(taxonomy)).items()}
    return [found[column] for column in COLUMNS]


if __name__ == "__main__":
    bench()
