"""A training loop of stage 2 without a run folder: what `trainer.training_loss` needs of it, for several tests."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.utils.data import DataLoader

from data_loader import Batch
from model import BirdClefClassifier
from trainer import Finetuning
from training.optim import cosine_schedule
from training.states import StateWriter


def loop_of(model: BirdClefClassifier, call: Callable[[Tensor], Any] | None = None, seed: int = 0) -> Finetuning:
    """The loop of a model; `call` answers in its place."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = AdamW(model.parameters())
    writer = StateWriter(Path(tempfile.gettempdir()) / "never-written", {}, generator)
    nothing: DataLoader[Batch] = DataLoader([])  # type: ignore[arg-type]
    schedule = cosine_schedule(optimizer, 1, 0.0)
    called = call or model.context_logits
    device = torch.device("cpu")
    return Finetuning(model, model, None, model, model, nothing, optimizer, schedule, generator, writer, called, device)
