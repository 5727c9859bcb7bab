"""What the tests use of transformers 5.23."""

class Qwen2AudioEncoderConfig:
    def __init__(self, **described: object) -> None: ...
