"""What the project uses of dask-jobqueue 0.9."""

from collections.abc import Mapping, Sequence

from distributed import Security

class SLURMJob:
    job_id: str | None

class SLURMCluster:
    scheduler_address: str
    workers: dict[object, SLURMJob]
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
    def job_script(self) -> str: ...
    def scale(self, jobs: int = ...) -> None: ...
    def close(self) -> None: ...
