"""What the project uses of scipy 1.17."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

class OptimizeResult:
    x: float

class PointFound:
    x: NDArray[np.float64]

def minimize_scalar(
    fun: Callable[[float], float], *, bounds: tuple[float, float], method: str, options: Mapping[str, float]
) -> OptimizeResult: ...
def minimize(
    fun: Callable[[NDArray[np.float64]], float],
    x0: NDArray[np.float64],
    *,
    method: str,
    options: Mapping[str, float] = ...,
) -> PointFound: ...
