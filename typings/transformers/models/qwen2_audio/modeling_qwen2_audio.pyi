"""What the tests use of transformers 5.23."""

from torch import nn

from .configuration_qwen2_audio import Qwen2AudioEncoderConfig

class Qwen2AudioEncoder(nn.Module):
    layers: nn.ModuleList
    def __init__(self, config: Qwen2AudioEncoderConfig) -> None: ...
