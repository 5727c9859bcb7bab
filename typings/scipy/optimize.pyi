"""What the project uses of scipy 1.17."""

from collections.abc import Callable, Mapping

class OptimizeResult:
    x: float

def minimize_scalar(
    fun: Callable[[float], float], *, bounds: tuple[float, float], method: str, options: Mapping[str, float]
) -> OptimizeResult: ...
