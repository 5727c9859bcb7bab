from os import PathLike
from types import TracebackType
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

_File = str | PathLike[str] | BinaryIO
_Samples = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.int16] | NDArray[np.int32]

class SoundFileError(Exception): ...
class SoundFileRuntimeError(SoundFileError, RuntimeError): ...

class LibsndfileError(SoundFileRuntimeError):
    code: int
    @property
    def error_string(self) -> str: ...

class SoundFile:
    comment: str
    artist: str
    def __init__(
        self,
        file: _File,
        mode: Literal["r", "w"] = "r",
        samplerate: int | None = None,
        channels: int | None = None,
        subtype: str | None = None,
        endian: str | None = None,
        format: str | None = None,
    ) -> None: ...
    @property
    def frames(self) -> int: ...
    @property
    def samplerate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def format(self) -> str: ...
    @property
    def subtype(self) -> str: ...
    def seek(self, frames: int, whence: int = 0) -> int: ...
    def read(
        self, frames: int = -1, *, dtype: Literal["float32"], always_2d: bool = False
    ) -> NDArray[np.float32]: ...
    def write(self, data: _Samples) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> SoundFile: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

class _SoundFileInfo:
    name: str
    samplerate: int
    channels: int
    frames: int
    duration: float
    format: str
    subtype: str

def info(file: _File) -> _SoundFileInfo: ...
def read(
    file: _File, frames: int = -1, start: int = 0, *, dtype: Literal["float32"], always_2d: bool = False
) -> tuple[NDArray[np.float32], int]: ...
def write(
    file: _File,
    data: _Samples,
    samplerate: int,
    subtype: str | None = None,
    endian: str | None = None,
    format: str | None = None,
    *,
    compression_level: float | None = None,
    bitrate_mode: str | None = None,
) -> None: ...
