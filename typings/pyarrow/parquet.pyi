"""What the project uses of pyarrow.parquet 26."""

from pathlib import Path
from types import TracebackType
from typing import Self

from pyarrow import Schema, Table

class ParquetWriter:
    def __init__(self, where: Path, schema: Schema) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def write_table(self, table: Table) -> None: ...

class ParquetFile:
    num_row_groups: int
    schema_arrow: Schema
    def __init__(self, source: Path) -> None: ...
