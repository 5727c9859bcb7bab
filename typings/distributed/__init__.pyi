"""What the project uses of distributed 2026.8."""

from collections.abc import Callable, Mapping
from typing import Any, Self

class KilledWorker(Exception): ...

class Security:
    @classmethod
    def temporary(cls) -> Security: ...

class Future:
    key: str
    status: str
    def result(self, timeout: float | None = ...) -> Any: ...
    def add_done_callback(self, fn: Callable[[Future], object]) -> None: ...

class Scheduler:
    address: str

class Client:
    scheduler: Scheduler
    security: Security
    def __init__(
        self,
        address: str,
        timeout: float = ...,
        set_as_default: bool = ...,
        security: Security | None = ...,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def wait_for_workers(self, n_workers: int, timeout: float | None = ...) -> None: ...
    def nthreads(self) -> Mapping[str, int]: ...
    def submit(self, func: Callable[..., object], *args: object, pure: bool = ...) -> Future: ...
    def run(self, function: Callable[..., Any], *args: object, nanny: bool = ...) -> dict[str, Any]: ...

class LocalCluster:
    scheduler_address: str
    def __init__(
        self,
        n_workers: int = ...,
        host: str = ...,
        silence_logs: int = ...,
        dashboard_address: str | None = ...,
        security: Security = ...,
        protocol: str = ...,
        scheduler_kwargs: Mapping[str, object] = ...,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

class WorkerState:
    nthreads: int

class Worker:
    state: WorkerState

def get_worker() -> Worker: ...
