"""What the project uses of tqdm 4.70."""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

class tqdm(Generic[T]):
    def __init__(
        self,
        iterable: Iterable[T],
        desc: str | None = ...,
        total: float | None = ...,
        leave: bool | None = ...,
        disable: bool | None = ...,
        unit: str = ...,
        smoothing: float = ...,
    ) -> None: ...
    def __iter__(self) -> Iterator[T]: ...
