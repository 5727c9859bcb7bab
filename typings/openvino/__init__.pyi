"""What the project uses of openvino 2026.4."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

class OVAny:
    value: object

class Type:
    def to_string(self) -> str: ...

class ConstOutput:
    def get_any_name(self) -> str: ...

class Model:
    def has_rt_info(self, path: Sequence[str]) -> bool: ...
    def get_rt_info(self, path: Sequence[str]) -> OVAny: ...

class InferRequest:
    def infer(self, inputs: Mapping[str, NDArray[np.float32]]) -> Mapping[str, NDArray[np.float32]]: ...

class CompiledModel:
    outputs: Sequence[ConstOutput]
    def create_infer_request(self) -> InferRequest: ...
    def get_property(self, name: str) -> Type: ...

class Core:
    def read_model(self, model: str) -> Model: ...
    def compile_model(self, model: Model, device_name: str, config: Mapping[str, object]) -> CompiledModel: ...
