"""What the project uses of onnxruntime.quantization 1.31."""

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path

from numpy import float32
from numpy.typing import NDArray
from onnx import ModelProto

class QuantType(Enum):
    QInt8 = 0
    QUInt8 = 1

class QuantFormat(Enum):
    QOperator = 0
    QDQ = 1

class CalibrationDataReader:
    def get_next(self) -> dict[str, NDArray[float32]] | None: ...

def quantize_static(
    model_input: str | Path | ModelProto,
    model_output: str | Path,
    calibration_data_reader: CalibrationDataReader,
    quant_format: QuantFormat = ...,
    op_types_to_quantize: Sequence[str] | None = ...,
    per_channel: bool = ...,
    reduce_range: bool = ...,
    activation_type: QuantType = ...,
    weight_type: QuantType = ...,
    nodes_to_quantize: Sequence[str] | None = ...,
) -> None: ...

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
