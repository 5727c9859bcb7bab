"""What the project uses of timm 1.0."""

from torch import Tensor, nn

__version__: str

class PretrainedCfg:
    hf_hub_id: str | None
    first_conv: str | tuple[str, ...] | None
    classifier: str | tuple[str, ...] | None
    fixed_input_size: bool
    license: str | None

class Network(nn.Module):
    num_features: int
    def forward_features(self, x: Tensor) -> Tensor: ...

def is_model(model_name: str) -> bool: ...
def list_pretrained(filter: str) -> list[str]: ...
def get_pretrained_cfg(model_name: str) -> PretrainedCfg: ...
def create_model(
    model_name: str, *, pretrained: bool = ..., in_chans: int = ..., num_classes: int = ..., global_pool: str = ...
) -> Network: ...
