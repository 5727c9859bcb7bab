"""What the project uses of tqdm 4.70."""

from collections.abc import Iterable, Iterator
from typing import Generic, Self, TypeVar

T = TypeVar("T")

class tqdm(Generic[T]):
    def __init__(
        self,
        iterable: Iterable[T] = ...,
        desc: str | None = ...,
        total: float | None = ...,
        leave: bool | None = ...,
        disable: bool | None = ...,
        unit: str = ...,
        smoothing: float = ...,
        unit_scale: bool = ...,
        initial: float = ...,
        bar_format: str = ...,
    ) -> None: ...
    def __iter__(self) -> Iterator[T]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def update(self, n: float = ...) -> None: ...
    def set_postfix_str(self, s: str = ..., refresh: bool = ...) -> None: ...
