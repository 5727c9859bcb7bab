"""What the project uses of transformers 5.23."""

from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from .models.whisper.modeling_whisper import WhisperEncoder

class WhisperConfig:
    max_source_positions: int
    def __init__(
        self,
        *,
        num_mel_bins: int = ...,
        d_model: int = ...,
        encoder_layers: int = ...,
        encoder_attention_heads: int = ...,
        encoder_ffn_dim: int = ...,
        decoder_layers: int = ...,
        decoder_attention_heads: int = ...,
        decoder_ffn_dim: int = ...,
        vocab_size: int = ...,
        max_source_positions: int = ...,
        pad_token_id: int = ...,
        bos_token_id: int = ...,
        eos_token_id: int = ...,
        decoder_start_token_id: int = ...,
    ) -> None: ...
    def to_json_file(self, json_file_path: Path, use_diff: bool = True) -> None: ...

class WhisperModel(nn.Module):
    encoder: WhisperEncoder
    @classmethod
    def from_pretrained(cls, name: str | Path, **kwargs: Any) -> Self: ...

class WhisperForConditionalGeneration(nn.Module):
    model: WhisperModel
    def __init__(self, config: WhisperConfig) -> None: ...
    def save_pretrained(self, folder: str | Path, max_shard_size: str = ...) -> None: ...
    @classmethod
    def from_pretrained(cls, name: str | Path, **kwargs: Any) -> Self: ...

class Features:
    input_features: Tensor

class WhisperFeatureExtractor:
    mel_filters: NDArray[np.float64]
    def __init__(self, feature_size: int = ..., chunk_length: int = ...) -> None: ...
    def __call__(self, sound: NDArray[np.float32], *, sampling_rate: int, return_tensors: str) -> Features: ...
