"""What the tests use of PyYAML 6."""

from typing import Any

def safe_load(stream: str) -> Any: ...
