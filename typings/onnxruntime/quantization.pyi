"""What the project uses of onnxruntime.quantization 1.31."""

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path

from onnx import ModelProto

class QuantType(Enum):
    QInt8 = 0

def quantize_dynamic(
    model_input: str | Path | ModelProto,
    model_output: str | Path,
    op_types_to_quantize: Sequence[str] | None = ...,
    per_channel: bool = ...,
    reduce_range: bool = ...,
    weight_type: QuantType = ...,
    nodes_to_quantize: Sequence[str] | None = ...,
    extra_options: Mapping[str, object] | None = ...,
) -> None: ...
