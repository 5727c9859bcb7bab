"""What the project uses of scikit-learn 1.9."""

class StandardScaler:
    def __init__(self) -> None: ...
