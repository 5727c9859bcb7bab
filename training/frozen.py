"""The head alone, on features of the frozen encoder that are computed once.

    fit_head(model, loader, inputs, config, device)

The encoder sees a few passes over the training windows, each pass with other windows. What the head needs of them is
kept, in memory and for the next run below /tmp/wildwhisper/features; the head is fitted on it in seconds. With
--train.frozen that is all of the training. Else it is the start of it: fine-tuning from a head with random weights
pulls what the encoder knows out of shape before the head can use it.

source    linear probing, then fine-tuning: https://arxiv.org/abs/2202.10054
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import AdamW
from torch.utils.data import DataLoader
from tqdm import tqdm

from config import SCRATCH, FinetuneCommand, FinetuneSettings
from data_loader import Batch, RandomWindows, fingerprint, of_all, set_epoch
from heads import PooledHead
from model import BirdClefClassifier
from runtime import processes
from runtime.files import publish
from runtime.terminal import show
from sounds.audio import reading_version
from training.checkpoint import weights_digest
from training.device import autocast, half_precision
from training.objective import LossInputs, augmented, label_loss
from training.optim import cosine_schedule, update

HEAD_BATCH = 64  # windows in an update of the head alone
HEAD_RATE = 1e-3  # of a linear layer on standardised features, whatever the encoder is that they come from
OTHER_DRAWS = 1_000_000  # epochs and seeds of these passes: the windows of phase 2 must be new to the head
MOST_FEATURE_BYTES = 4 * 2**30  # of memory; further passes are left out, and the rest of the first where it is too long


class Features(NamedTuple):
    """What the frozen encoder makes of the training windows."""

    summaries: Tensor  # (contexts, windows, ...) on the CPU
    targets: Tensor  # (contexts, species)
    secondary: Tensor  # (contexts, species)


def fit_head(
    model: BirdClefClassifier,
    loader: DataLoader[Batch],
    inputs: LossInputs,
    config: FinetuneCommand,
    device: torch.device,
) -> float:
    """Fit the head, the encoder as it is; the standardisation of its features is fitted too, and kept from then on.

    returns  the loss of the last tenth of the updates
    """
    with torch.random.fork_rng(devices=[]):  # a loader draws one when it begins, kept features draw none
        features = frozen_features(model, loader, inputs, config, device)
    return fit_on_features(model, features, inputs, config.train, config.run.seed, device)


def fit_on_features(
    model: BirdClefClassifier,
    features: Features,
    inputs: LossInputs,
    settings: FinetuneSettings,
    seed: int,
    device: torch.device,
) -> float:
    """The same on features that are at hand."""
    if isinstance(model.head, PooledHead):
        model.head.standard.fit(features.summaries.flatten(0, 1))
    rows = len(features.summaries)
    updates = max(settings.head_updates, settings.head_epochs * -(-rows // HEAD_BATCH))
    optimizer = AdamW(model.head.parameters(), HEAD_RATE, weight_decay=settings.weight_decay)
    schedule = cosine_schedule(optimizer, updates, settings.warmup)
    generator = torch.Generator().manual_seed(seed)
    order, losses = torch.zeros(0, dtype=torch.int64), list[Tensor]()
    with torch.random.fork_rng(devices=[]):  # dropout: the same in every process, and nothing later depends on it
        torch.manual_seed(seed)
        model.head.train()
        for _ in tqdm(range(updates), "fitting the head", disable=processes.no_bar(), leave=False):
            while len(order) < HEAD_BATCH:
                order = torch.cat([order, torch.randperm(rows, generator=generator)])
            batch, order = order[:HEAD_BATCH], order[HEAD_BATCH:]
            summaries, targets, secondary = (part[batch].to(device) for part in features)
            loss = label_loss(model.best_windows(summaries), targets, secondary, inputs)
            update(loss, model.head.parameters(), optimizer, schedule, settings.clip)
            losses.append(loss.detach())
    last = float(torch.stack(losses[-max(1, updates // 10) :]).mean())
    show(f"head fitted on {rows} windows of the frozen encoder: {updates} updates, loss {last:.4f}")
    return last


def frozen_features(
    model: BirdClefClassifier,
    loader: DataLoader[Batch],
    inputs: LossInputs,
    config: FinetuneCommand,
    device: torch.device,
) -> Features:
    """What the encoder makes of some passes over the training windows: computed, or as it was kept the last time."""
    if processes.count() > 1:  # what lies on one machine is not on the others
        return computed_features(model, loader, inputs, config, device)
    path = SCRATCH / "features" / f"{features_key(model, loader, inputs, config, device)}.safetensors"
    if path.is_file():
        try:
            kept = Features(**load_file(path))
            show(f"features of the frozen encoder: {len(kept.targets)} windows, kept from a run before in {path}")
            return kept
        except (SafetensorError, OSError, TypeError):
            show(f"{path} is damaged; computing it again")
    features = computed_features(model, loader, inputs, config, device, path.with_suffix(".begun"))
    keep_features(path, features, {})
    return features


def features_key(
    model: BirdClefClassifier,
    loader: DataLoader[Batch],
    inputs: LossInputs,
    config: FinetuneCommand,
    device: torch.device,
) -> str:
    """A word for all that the features depend on: encoder, layers, recordings, draws, augmentation, precision."""
    assert isinstance(loader.dataset, RandomWindows), "this loader was not made by data_loader.py"
    files = {row.path.resolve() for row in loader.dataset.recordings}
    times = sorted((str(path), (about := path.stat()).st_size, about.st_mtime_ns) for path in files)
    settings = (config.data, config.audio, config.augment, config.run.seed, config.train.head_passes)
    under = None if inputs.backgrounds is None else float(inputs.backgrounds.double().square().sum())
    parts = (
        weights_digest({name: tensor.cpu() for name, tensor in model.encoder.state_dict().items()}),
        (config.encoder.pool, config.encoder.picture),  # networks of other kinds may share names and weights
        (config.head.pooling, model.layers, config.train.batch_size, half_precision(device), under),
        (fingerprint(loader.dataset.recordings), list(loader.dataset.column), times, settings),
        reading_version(),
    )
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:24]


@torch.no_grad()
def computed_features(
    model: BirdClefClassifier,
    loader: DataLoader[Batch],
    inputs: LossInputs,
    config: FinetuneCommand,
    device: torch.device,
    begun: Path | None = None,
) -> Features:
    """What the encoder makes of some passes over the training windows; of several processes each computes its part.

    begun   where those of the first batches are kept when this is stopped, and taken from the next time
    """
    model.eval()
    generator = torch.Generator().manual_seed(OTHER_DRAWS + config.run.seed)
    found = features_before(begun, generator)
    done = (len(found), generator.get_state())  # batches, and with what the draws of the next one begin
    size = sum(part.summaries.nbytes for part in found)
    try:
        for number in range(1, config.train.head_passes + 1):
            before = min(len(loader), max(0, done[0] - (number - 1) * len(loader)))  # of this pass
            set_epoch(loader, OTHER_DRAWS + number, before)
            title = f"features of the frozen encoder, pass {number}/{config.train.head_passes}"
            bar = tqdm(loader, title, len(loader), initial=before, disable=processes.no_bar(), leave=False)
            for batch in bar if before < len(loader) and size <= MOST_FEATURE_BYTES else ():
                batch, mel = augmented(of_all(batch, device), model.log_mel, config.augment, inputs, generator)
                with autocast(device):
                    own = model.summaries(processes.part(mel))
                summaries = processes.joined(own, len(mel)).cpu()
                found.append(Features(summaries, batch.targets.cpu(), batch.secondary.cpu()))
                done = (len(found), generator.get_state())  # one assignment: a signal falls before it or after it
                size += summaries.nbytes
                if size > MOST_FEATURE_BYTES:
                    break
            if size > MOST_FEATURE_BYTES:
                windows = sum(len(part.targets) for part in found)
                show(f"the head is fitted on the first {windows} windows, whose features fill {size / 2**30:.1f} GiB")
                break
    except KeyboardInterrupt as stop:
        if begun and done[0]:
            kept, sizes = joined_features(found[: done[0]]), [len(part.targets) for part in found[: done[0]]]
            keep_features(begun, kept, {"sizes": torch.tensor(sizes), "generator": done[1]})
            stop.args = (f"the features of {sum(sizes)} windows are kept: the same command goes on from there",)
        raise
    if begun:
        begun.unlink(missing_ok=True)
    return joined_features(found)


def features_before(begun: Path | None, generator: torch.Generator) -> list[Features]:
    """The features of the batches that were done when this was stopped, and the generator as it was then."""
    if not begun or not begun.is_file():
        return []
    try:
        kept = load_file(begun)
        sizes = [int(size) for size in kept["sizes"]]
        summaries, targets, secondary = (torch.split(kept[name], sizes) for name in Features._fields)
        generator.set_state(kept["generator"])
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError):
        show(f"{begun} is damaged; computing it again")
        return []
    show(f"features of the frozen encoder: {sum(sizes)} windows from a run that was stopped")
    return [Features(*each) for each in zip(summaries, targets, secondary, strict=True)]


def joined_features(parts: Sequence[Features]) -> Features:
    """Those of several batches as one."""
    return Features(*(torch.cat(each) for each in zip(*parts, strict=True)))


def keep_features(path: Path, features: Features, more: Mapping[str, Tensor]) -> None:
    """Write features for the next time, whole or not at all; a disk that is full keeps nobody from going on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with publish(path) as temporary:
            save_file({name: part.contiguous() for name, part in {**features._asdict(), **more}.items()}, temporary)
    except (OSError, AssertionError) as error:
        show(f"the features are not kept for the next time: {error}")


if __name__ == "__main__":
    from config import SIZES, AudioSettings, LossSettings, parse
    from data_loader import labeled_loader, read_labeled
    from demo_data import DEFAULT_ROOT, write_field_season
    from model import Encoder
    from training.objective import prepare_loss_inputs

    root, cpu = write_field_season(DEFAULT_ROOT).root, torch.device("cpu")
    config = parse(FinetuneCommand, ["--preset", "demo", "--data.root", str(root), "--train.head_updates", "60"])
    taxonomy, recordings = read_labeled(config.data)
    loader = labeled_loader(recordings[:48], taxonomy, config.data, AudioSettings(), 16, seed=0)
    inputs = prepare_loss_inputs(taxonomy, recordings[:48], LossSettings(), None, cpu)
    network = BirdClefClassifier(Encoder(SIZES["demo"]), AudioSettings(), len(taxonomy.labels), config.head)
    loss = fit_head(network, loader, inputs, config, cpu)
    assert loss < 0.25, "better than answering 1 / species everywhere"
