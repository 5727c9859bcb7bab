"""What the project uses of scikit-learn 1.9."""

class LogisticRegression:
    def __init__(self, *, C: float = ..., max_iter: int = ...) -> None: ...
