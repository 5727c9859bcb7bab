"""What the project uses of scikit-learn 1.9."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

def average_precision_score(
    y_true: NDArray[np.bool_], y_score: NDArray[np.floating[Any]], *, average: None
) -> NDArray[np.float64]: ...
def roc_auc_score(
    y_true: NDArray[np.bool_], y_score: NDArray[np.floating[Any]], *, average: None
) -> NDArray[np.float64]: ...
def confusion_matrix_at_thresholds(
    y_true: NDArray[np.bool_], y_score: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[Any]]: ...
