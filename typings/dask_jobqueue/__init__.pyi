"""What the project uses of dask-jobqueue 0.9."""

from collections.abc import Mapping, Sequence
from typing import Self

from distributed import Security

class SLURMCluster:
    scheduler_address: str
    def __init__(
        self,
        cores: int = ...,
        processes: int = ...,
        memory: str = ...,
        protocol: str = ...,
        security: Security = ...,
        shared_temp_directory: str = ...,
        scheduler_options: Mapping[str, object] = ...,
        job_script_prologue: Sequence[str] = ...,
        worker_extra_args: Sequence[str] = ...,
        silence_logs: int = ...,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def scale(self, jobs: int = ...) -> None: ...
