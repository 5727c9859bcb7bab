from typing import Literal

import numpy as np
from numpy.typing import NDArray

_Quality = Literal["QQ", "LQ", "MQ", "HQ", "VHQ"]

class ResampleStream:
    def __init__(
        self,
        in_rate: float,
        out_rate: float,
        num_channels: int,
        dtype: Literal["float32"] = "float32",
        quality: _Quality = "HQ",
    ) -> None: ...
    def resample_chunk(self, x: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]: ...

def resample(
    x: NDArray[np.float32], in_rate: float, out_rate: float, quality: _Quality = "HQ"
) -> NDArray[np.float32]: ...
