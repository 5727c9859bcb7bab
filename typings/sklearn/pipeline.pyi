"""What the project uses of scikit-learn 1.9."""

import numpy as np
from numpy.typing import NDArray

class Pipeline:
    classes_: NDArray[np.int64]
    def fit(self, X: NDArray[np.float32], y: NDArray[np.int64]) -> Pipeline: ...
    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]: ...

def make_pipeline(*steps: object) -> Pipeline: ...
