"""What the project uses of scikit-learn 1.9."""

import numpy as np
from numpy.typing import NDArray

class LogisticRegression:
    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]
    def __init__(self, *, C: float = ..., max_iter: int = ..., tol: float = ...) -> None: ...
    def fit(
        self,
        X: NDArray[np.float32 | np.float64],
        y: NDArray[np.bool_ | np.int64],
        sample_weight: NDArray[np.float64] | None = ...,
    ) -> LogisticRegression: ...
    def decision_function(self, X: NDArray[np.float64]) -> NDArray[np.float64]: ...
    def predict_proba(self, X: NDArray[np.float64]) -> NDArray[np.float64]: ...
