"""What the project uses of transformers 5.23."""

from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from transformers import WhisperConfig

class WhisperEncoderLayer(nn.Module):
    def __call__(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor: ...

class EncoderOutput:
    last_hidden_state: Tensor

class WhisperEncoder(nn.Module):
    conv1: nn.Conv1d
    conv2: nn.Conv1d
    embed_positions: nn.Embedding
    layers: nn.ModuleList
    layer_norm: nn.LayerNorm
    def __init__(self, config: WhisperConfig) -> None: ...
    def __call__(self, input_features: Tensor) -> EncoderOutput: ...
    @classmethod
    def from_pretrained(cls, name: str | Path, **kwargs: Any) -> Self: ...
