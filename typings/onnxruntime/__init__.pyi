"""What the project uses of onnxruntime 1.31."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

class OrtAllocatorType:
    ORT_ARENA_ALLOCATOR: OrtAllocatorType

class OrtMemType:
    DEFAULT: OrtMemType

class OrtMemoryInfo:
    def __init__(self, name: str, kind: OrtAllocatorType, device: int, memory: OrtMemType) -> None: ...

class OrtArenaCfg:
    def __init__(self, settings: Mapping[str, int]) -> None: ...

def create_and_register_allocator(info: OrtMemoryInfo, settings: OrtArenaCfg) -> None: ...

class ModelMetadata:
    custom_metadata_map: dict[str, str]

class NodeArg:
    name: str
    shape: Sequence[int | str | None]
    type: str

class SessionOptions:
    intra_op_num_threads: int
    inter_op_num_threads: int
    log_severity_level: int
    enable_profiling: bool
    profile_file_prefix: str
    def add_session_config_entry(self, key: str, value: str) -> None: ...

class InferenceSession:
    def __init__(
        self, path_or_bytes: str | bytes, sess_options: SessionOptions | None = ..., providers: Sequence[str] = ...
    ) -> None: ...
    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]: ...
    def get_inputs(self) -> Sequence[NodeArg]: ...
    def get_outputs(self) -> Sequence[NodeArg]: ...
    def get_modelmeta(self) -> ModelMetadata: ...
    def end_profiling(self) -> str: ...
