"""What test_processes.py starts with torchrun: the gradients of both loops, and what processes tell each other.

    torchrun --nproc-per-node 2 tests/reliability/two_processes.py OUT.json SCRIPT WORDS...

The first process writes: name of a check -> what was found. Then both go on with a command, since they are there.
"""

import copy
import json
import runpy
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from loops import loop_of
from torch import Tensor, nn

from config import SIZES, AudioSettings, FinetuneCommand, HeadSettings, ImitationSettings, LossSettings, PretrainCommand
from data_loader import Batch, EpochBatches, of_all
from heads import PooledHead
from loss import LOSS_KINDS, masked_reconstruction_loss
from model import BirdClefClassifier, Encoder, ImitatingAutoencoder, Imitator, LogMel, MaskedAutoencoder
from runtime import processes
from ssl_mae import Pretraining, TrivialBaseline, draw_mask, input_picture, pretraining_loss, target_of
from trainer import training_loss
from training import frozen
from training.frozen import fit_head
from training.imitation import Imitated
from training.objective import LossInputs
from training.optim import cosine_schedule, differential_groups, pull_to_start, update
from training.states import Stateful

SPECIES, CPU, SECONDS = 4, torch.device("cpu"), 1.0
METHOD = "context_and_moment_logits"
AUDIO = AudioSettings(window_seconds=SECONDS, context_seconds=SECONDS)


def main(out: Path) -> None:
    """All checks, the same in every process."""
    torch.set_num_threads(1)
    processes.meet()
    found: dict[str, object] = {"told": told()}
    for rows in (5, 2, 1):  # in unequal parts, one each, and none for one of them
        found |= {f"mae, {rows} rows": mae_gap(rows, divided=False)}
        found |= {f"bce, {rows} rows": finetune_gap(rows, "bce", divided=False)}
    found |= {f"{kind}, 5 rows": finetune_gap(5, kind, divided=False) for kind in LOSS_KINDS if kind != "bce"}
    found |= {"divided, mae": mae_gap(5, divided=True), "divided, bce": finetune_gap(5, "bce", divided=True)}
    found |= {f"imitation, {rows} rows": imitation_gap(rows, 0.0, divided=False) for rows in (5, 1)}
    found |= {"imitation beside the mask, 5 rows": imitation_gap(5, 0.5, divided=False)}
    found |= {f"divided, imitation {weight}": imitation_gap(5, weight, divided=True) for weight in (0.0, 0.5)}
    found |= {"each its own loss": finetune_gap(5, "soft_auc", divided=False, apart=True)}
    found |= {"states": states_survive(), "head": head_gap(), "pull": pull_gap()}
    if processes.rank() == 0:
        out.write_text(json.dumps(found))


def told() -> dict[str, object]:
    """What every process hears of the others."""
    mine = torch.arange(5.0)[processes.span(5)]
    nothing = mine[:0] if processes.rank() else mine
    keys = EpochBatches(np.ones(7), 3, seed=0)
    here = torch.tensor([index for batch in keys for _, _, index in batch])
    return {
        "gathered": processes.gathered(mine).tolist(),
        "from one alone": processes.gathered(nothing).tolist(),
        "steps": [item is None for item in processes.in_step(range(1 + 2 * processes.rank()))],
        "summed": processes.summed(1.0, processes.rank()),
        "first says": processes.first_says("runs/märz-001" if processes.rank() == 0 else "nothing"),
        "batches": len(keys),
        "keys": sorted(int(index) for index in processes.gathered(here)),
        "mean": processes.mean_of_all(torch.tensor([float(processes.rank())]), 1 + processes.rank()).tolist(),
    }


def batch_of(rows: int) -> tuple[Batch, Batch]:
    """The part of a batch that this process has read, and all of it."""
    chance = torch.Generator().manual_seed(rows)
    labels = torch.eye(SPECIES)[torch.arange(rows) % SPECIES]
    whole = Batch(torch.randn(rows, 16_000, generator=chance) * 0.1, labels, labels.roll(1, dims=1) * 0.0)
    return Batch(*(part[processes.span(rows)] for part in whole)), whole


@contextmanager
def alone() -> Generator[None]:
    """As if there were no other process."""
    kept = processes.count, processes.rank
    processes.count, processes.rank = lambda: 1, lambda: 0
    yield
    processes.count, processes.rank = kept


def gap(make: Callable[[], nn.Module], step: Callable[[nn.Module, bool], None], method: str, divided: bool) -> float:
    """Largest difference of a gradient to that of one process with the whole batch, in units of the largest."""
    torch.manual_seed(0)
    one = make()
    many = copy.deepcopy(one)
    if divided:
        processes.divide(many, many.get_submodule("encoder.whisper.layers").children(), method)
    with alone():
        step(one, False)
    step(many, True)
    wanted, got = gradients(one), processes.whole(gradients(many))
    assert wanted.keys() == got.keys(), wanted.keys() ^ got.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    return max(float((got[name] - wanted[name]).abs().max()) for name in wanted) / largest


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


def mae_gap(rows: int, divided: bool) -> float:
    """The step of stage 1: mixed windows, masks by energy."""
    config = PretrainCommand.defaults("demo")
    config = replace(config, mask=replace(config.mask, strategy="energy"), augment=replace(config.augment, mixup=0.5))
    log_mel = LogMel(AUDIO, 80)

    def step(network: nn.Module, together: bool) -> None:
        generator, (mine, everything) = torch.Generator().manual_seed(1), batch_of(rows)
        call = processes.parallel(network, "forward")
        mel = input_picture(log_mel, of_all(mine if together else everything, CPU), config, generator)
        hidden = draw_mask(mel, config.mask, generator)
        share = processes.share(len(mel))
        mel, hidden = processes.part(mel), processes.part(hidden)
        target = target_of(mel, hidden, None)
        TrivialBaseline().fit(target, hidden, share)
        loss = share * masked_reconstruction_loss(call(mel, hidden), target, hidden) * processes.count()
        torch.autograd.backward(loss)

    return gap(lambda: MaskedAutoencoder(Encoder(SIZES["demo"], AUDIO)), step, "forward", divided)


def imitation_gap(rows: int, weight: float, divided: bool) -> float:
    """The step of stage 1 with a teacher, alone or beside the mask."""
    settings = ImitationSettings(reconstruction=weight)
    config = PretrainCommand.defaults("demo")
    config = replace(config, target="embeddings", teacher=Path("nobody.npz"), imitation=settings)
    mine, everything = (Batch(part[0], torch.zeros(0, 2), part[2]) for part in batch_of(rows))
    targets = torch.stack([torch.arange(rows).float(), 0.1 * torch.arange(rows)], dim=1)
    everything = everything._replace(targets=targets, secondary=targets + 0.4)  # segments of .4 s
    mine = mine._replace(**{name: getattr(everything, name)[processes.span(rows)] for name in ("targets", "secondary")})
    vectors = torch.randn(rows, 6, generator=torch.Generator().manual_seed(0))
    imitated = Imitated([], vectors, everything, vectors, "")
    kind = ImitatingAutoencoder if weight else Imitator
    method = "both" if weight else "forward"

    def step(network: nn.Module, together: bool) -> None:
        assert isinstance(network, MaskedAutoencoder | Imitator)
        call = processes.parallel(network, method, unused=not weight)
        nothing, generator = cast(Any, None), torch.Generator().manual_seed(1)
        parts = (network, None, None, imitated, TrivialBaseline(), LogMel(AUDIO, 80))
        loop = Pretraining(*parts, nothing, nothing, nothing, generator, call, call, CPU)
        batch = of_all(mine if together else everything, CPU)
        torch.autograd.backward(pretraining_loss(loop, batch, config) * processes.count())

    return gap(lambda: kind(Encoder(SIZES["demo"], AUDIO), 6), step, method, divided)


def finetune_gap(rows: int, kind: str, divided: bool, apart: bool = False) -> float:
    """The step of stage 2: mixed windows, distances, running moments that are learnt from all of them.

    apart   a negative control: each process takes the loss of its own windows
    """
    config = FinetuneCommand.defaults("demo")
    config = replace(config, augment=replace(config.augment, mixup=0.5, mask=0.5))
    distances = (torch.arange(SPECIES)[:, None] - torch.arange(SPECIES)).abs() / SPECIES
    settings = LossSettings(kind=kind, alpha=4.0, mode="soft", moments=0.3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - a table's word
    inputs = LossInputs(settings, distances, torch.zeros(SPECIES, SPECIES, dtype=torch.bool))

    def step(network: nn.Module, together: bool) -> None:
        mine, everything = batch_of(rows)
        assert isinstance(network, BirdClefClassifier)
        call = processes.parallel(network.train(), METHOD, unused=True)
        loop = loop_of(network, call, seed=1)
        batch = mine if together else everything
        if apart and together:
            with alone():
                loss = training_loss(loop, batch, inputs, config)
        else:
            loss = training_loss(loop, of_all(batch, CPU), inputs, config) * processes.count()
        torch.autograd.backward(loss)

    return gap(classifier, step, METHOD, divided)


def classifier() -> BirdClefClassifier:
    """One whose head says something: from one of zeros no gradient reaches the encoder."""
    head = HeadSettings(dropout=0.0, layers=2)
    model = BirdClefClassifier(Encoder(SIZES["demo"], AUDIO), AUDIO, SPECIES, head)
    nn.init.normal_(model.head.score.weight, std=0.1)
    assert isinstance(model.head, PooledHead), "another head"
    model.head.standard.follow(torch.randn(64, model.head.score.in_features))  # of two rows
    return model  # alone a value that is nearly the same in both would be divided by next to nothing


def head_gap() -> dict[str, float]:
    """The head fitted first, by all processes and by one with the whole batches: largest difference of a weight and of
    the moments, in units of the largest; and how far apart it is from where it began."""
    config = FinetuneCommand.defaults("demo")
    train = replace(config.train, head_epochs=1, head_updates=20)
    config = replace(config, train=train, augment=replace(config.augment, mixup=0.5, mask=0.5))
    distances = torch.ones(SPECIES, SPECIES) - torch.eye(SPECIES)
    inputs = LossInputs(LossSettings(), distances, torch.zeros(SPECIES, SPECIES, dtype=torch.bool))
    torch.manual_seed(0)
    one = classifier()
    many, before = copy.deepcopy(one), one.head.score.weight.detach().clone()
    parts = [batch_of(rows) for rows in (5, 2, 1)]
    frozen.frozen_features = frozen.computed_features  # these batches are nobody's recordings: nothing is kept of them
    with alone():
        fit_head(one, cast(Any, Given([everything for _, everything in parts])), inputs, config, CPU)
    fit_head(many, cast(Any, Given([mine for mine, _ in parts])), inputs, config, CPU)
    mine, theirs = one.head.state_dict(), many.head.state_dict()
    gaps = {name: float((mine[name] - theirs[name]).abs().max() / mine[name].abs().max()) for name in mine}
    same = processes.gathered(many.head.score.weight.detach()[None].contiguous())
    moved = float((mine["score.weight"] - before).abs().max() / before.abs().max())
    return {"gap": max(gaps.values()), "moved": moved, "between processes": float((same[0] - same[1]).abs().max())}


class Given(list[Batch]):
    """Batches in place of a loader; every epoch has the same."""

    batch_sampler = EpochBatches(np.ones(1), 1, seed=0)


def states_survive() -> Mapping[str, bool]:
    """Divided weights and moments, put together, filled into others: the next step is the same."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    second = copy.deepcopy(first)
    results: list[dict[str, Tensor]] = []
    state: dict[str, Any] = {}
    for network in (first, second):
        processes.divide(network, [network[0]])
        optimizer = torch.optim.AdamW(differential_groups(network, 0.1, 0.1, 1.0, 0.1))
        schedule = cosine_schedule(optimizer, 10, 0.1)
        if state:
            for name, thing in (("network", network), ("optimizer", optimizer), ("schedule", schedule)):
                processes.fill(thing, state[name])
        for turn in range(1 if state else 2):
            if turn == 1:
                parts: dict[str, Stateful] = {"network": network, "optimizer": optimizer, "schedule": schedule}
                state = {name: copy.deepcopy(processes.whole(part.state_dict())) for name, part in parts.items()}
            loss = network(torch.ones(2, 3)).square().sum()
            update(loss, network.parameters(), optimizer, schedule, clip=1.0)
        results.append(processes.whole(network.state_dict()))
    same = all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    plain = all(type(tensor) is Tensor for tensor in results[0].values())
    return {"same": same, "plain": plain}


def pull_gap() -> Mapping[str, float]:
    """An encoder in parts, pulled to another one in parts: how far from a tenth of the way, and from where it was, in
    units of the way."""
    torch.manual_seed(0)
    encoder, start = Encoder(SIZES["demo"], AUDIO), Encoder(SIZES["demo"], AUDIO).requires_grad_(False)
    before, goal = (copy.deepcopy(one.state_dict()) for one in (encoder, start))
    for one in (encoder, start):
        processes.divide(one, one.whisper.layers)
    optimizer = torch.optim.AdamW([weight for weight in encoder.parameters() if weight.requires_grad], weight_decay=0.0)
    schedule = cosine_schedule(optimizer, steps=10, warmup=0.5)  # which begins with a fifth of the rate
    processes.fill(start, processes.whole(start.state_dict()))
    pull_to_start(optimizer, schedule, encoder, start, 0.5)
    for weight in encoder.parameters():
        weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    optimizer.step()
    after = processes.whole(encoder.state_dict())
    way = max(float((goal[name] - before[name]).abs().max()) for name in before)
    gaps = [float((after[name] - torch.lerp(before[name], goal[name], 0.1)).abs().max()) for name in before]
    moved = [float((after[name] - before[name]).abs().max()) for name in before]
    return {"gap": max(gaps) / way, "moved": max(moved) / way}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
