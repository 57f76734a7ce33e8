"""Rows by id that outlive the process: Parquet parts in a folder, each written whole or not at all."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage import Corpus
from schemas.arrow import Table
from schemas.errors import StorageError
from schemas.ids import content_id


class _Named(Protocol):
    @property
    def row_id(self) -> str: ...


Row = TypeVar("Row", bound=_Named)
Item = TypeVar("Item")


class Ledger(Generic[Row]):
    """The rows of one table in one folder."""

    def __init__(self, folder: Path, table: Table) -> None:
        self.folder, self.table = folder, table

    def rows(self, wanted: Iterable[str]) -> dict[str, Row]:
        """The rows that are there, by id. Raises StorageError for parts of another version."""
        ids = set(wanted)
        found: dict[str, Row] = {}
        for part in sorted(self.folder.glob("[!.]*.parquet")):
            try:
                data = pq.read_table(part)
            except (OSError, pa.ArrowInvalid) as error:
                raise StorageError(f"{part} cannot be read: {error}") from error
            self.table.check(data.schema, str(part))
            for values in data.to_pylist():
                if values["row_id"] in ids:
                    found[values["row_id"]] = self._row(values)
        return found

    def add(self, rows: Sequence[Row]) -> None:
        """Keep some more."""
        if rows:
            part = content_id(*(row.row_id for row in rows))
            Corpus(str(self.folder)).write_table(f"{part}.parquet", self.table, rows)

    def _row(self, values: Mapping[str, Any]) -> Row:
        row: Row = self.table.row(**values)
        return row


def units(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """What is done and kept together."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
