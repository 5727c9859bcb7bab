from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

def butter(
    N: int, Wn: float, btype: Literal["low", "highpass"] = ..., *, fs: float, output: Literal["sos"]
) -> NDArray[np.float64]: ...
def sosfilt(sos: NDArray[np.float64], x: ArrayLike) -> NDArray[Any]: ...
def fftconvolve(in1: ArrayLike, in2: ArrayLike, mode: Literal["full", "same", "valid"] = ...) -> NDArray[Any]: ...
