"""What the project uses of scikit-learn 1.9."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

class StratifiedGroupKFold:
    def __init__(self, n_splits: int = ..., *, shuffle: bool = ..., random_state: int | None = ...) -> None: ...
    def split(
        self, X: Sequence[object], y: Sequence[object], groups: Sequence[object]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]: ...

class GroupKFold:
    def __init__(self, n_splits: int = ..., *, shuffle: bool = ..., random_state: int | None = ...) -> None: ...
    def split(
        self, X: NDArray[np.float32], y: NDArray[np.bool_], groups: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]: ...
