"""A corpus on disk or in object storage: Parquet tables and the markers that make them true.

    ROOT/clips/curate-<block>.parquet       parts, one per table and committed block
    ROOT/recordings/… ROOT/quarantine/… ROOT/verdicts/…
    ROOT/_commits/curate/<block>.json       the marker: which units, which parts, how many rows
    ROOT/_runs/<run>.json                   one record per run
    ROOT/_index/…                           the light columns of many parts again (`column_index`)

A block of units is committed by writing the parts of all its tables and, last, the marker that
names them. A part without a marker does not exist for a reader, so a crash at any moment leaves
either the whole block or nothing. Names derive from the units' ids: a block that is written twice
overwrites itself with the same rows.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from pipeline import column_index
from pipeline.column_index import PART, Stamp
from pipeline.ledger import Item, Ledger, UnitRecord
from pipeline.opening import filesystem_of
from schemas.arrow import QUARANTINE, TABLES, VERSION_KEY, Table
from schemas.errors import ConfigError, StorageError
from schemas.ids import content_id

# An object store answers in tens of milliseconds, so many are asked at once.
_READERS = 16
_TRIES = 5


class Corpus:
    """A corpus root: any path or uri that `pyarrow.fs` opens."""

    def __init__(self, root: str) -> None:
        """Open (not create) the root.

        Raises `ConfigError` for a uri that no file system handles, or that holds a password.
        """
        self.root = root
        try:
            if "://" in root:
                self.fs, self.path = filesystem_of(root)
            else:
                self.fs, self.path = pafs.LocalFileSystem(), root.rstrip("/")
        except (ValueError, OSError) as error:
            raise ConfigError(f"cannot open corpus {root}: {error}") from error
        self.is_local = isinstance(self.fs, pafs.LocalFileSystem)

    def exists(self) -> bool:
        """Whether anything was ever committed or recorded here."""
        return bool(self.names("_runs") or self.names("_commits"))

    # ---------------------------------------------------------------- writing

    def commit(
        self,
        phase: str,
        units: Sequence[UnitRecord],
        rows: Mapping[str, Sequence[Any] | pa.Table],
        **facts: Any,
    ) -> None:
        """Write the rows of a block of units, all or nothing.

        rows: table name → rows of its type, or an Arrow table of its schema. facts: kept in the
        marker, such as the run that made them.
        """
        block = content_id(*sorted(unit.unit_id for unit in units))
        parts = {}
        for name, table_rows in rows.items():
            if table_rows:
                part = f"{name}/{phase}-{block}.parquet"
                self.write_table(part, TABLES[name], table_rows)
                parts[name] = {"part": part, "rows": len(table_rows)}
        records = [asdict(unit) for unit in units]
        marker = {"phase": phase, "parts": parts, "units": records, **facts}
        # Compact: a phase may have a million items.
        self.write_json(f"_commits/{phase}/{block}.json", marker, indent=None)

    def write_table(self, name: str, table: Table, rows: Sequence[Any] | pa.Table) -> None:
        """Write one Parquet file whole or not at all."""
        data = rows if isinstance(rows, pa.Table) else table.to_arrow(rows)
        table.check(data.schema, name)

        self._write_atomically(name, lambda sink: _write_groups(table, [data], sink))

    def write_current(self, phase: str, table: Table, data: pa.Table, **facts: Any) -> None:
        """Put rows in the place of all that the phase wrote before: for derived data.

        facts: kept in the marker, such as the hash of what the rows derive from.
        """
        data = data.select(table.schema.names).cast(table.schema)
        part = f"{table.name}/current.parquet"
        self.write_table(part, table, data)
        self._mark_current(phase, {table.name: {"part": part, "rows": data.num_rows}}, facts)

    def write_version(
        self, phase: str, table: Table, version: str, pieces: Iterable[pa.Table], **facts: Any
    ) -> int:
        """As `write_current`, for more rows than memory holds: piece by piece, each of the table's
        schema. Returns how many rows they had.

        version: part of the file's name, so that the rows before stand until these are complete.
        """
        part = f"{table.name}/{version}.parquet"
        num_rows = 0

        def checked() -> Iterator[pa.Table]:
            nonlocal num_rows
            for piece in pieces:
                table.check(piece.schema, part)
                num_rows += piece.num_rows
                yield piece

        self._write_atomically(
            part, lambda sink: _write_groups(table, checked(), sink), in_pieces=True
        )
        self._mark_current(phase, {table.name: {"part": part, "rows": num_rows}}, facts)
        for name in set(self.names(table.name)) - {part}:
            self.delete(name)
        return num_rows

    def rewrite_part(self, part: str, table: Table, change: Callable[[pa.Table], pa.Table]) -> int:
        """Put a part's rows, changed, in its place; returns how many are left.

        change: some neighbouring rows → what becomes of them; a row group at a time.
        """
        num_rows = 0
        with pq.ParquetFile(f"{self.path}/{part}", filesystem=self.fs) as file:
            table.check(file.schema_arrow, part)

            def changed() -> Iterator[pa.Table]:
                nonlocal num_rows
                for group in range(file.num_row_groups):
                    piece = change(file.read_row_group(group)).cast(table.schema)
                    num_rows += piece.num_rows
                    if piece.num_rows:
                        yield piece

            self._write_atomically(part, lambda sink: _write_groups(table, changed(), sink))
        return num_rows

    def _mark_current(self, phase: str, parts: dict[str, Any], facts: Mapping[str, Any]) -> None:
        marker = {"phase": phase, "parts": parts, "units": [], **facts}
        self.write_json(f"_commits/{phase}/current.json", marker)

    def write_json(self, name: str, value: Any, *, indent: int | None = 1) -> None:
        """Write one JSON file whole or not at all."""
        self.write_text(name, json.dumps(value, ensure_ascii=False, indent=indent, default=str))

    def write_text(self, name: str, text: str) -> None:
        """Write one text file, UTF-8, whole or not at all."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes | pa.Buffer) -> None:
        """Write one file whole or not at all."""
        self._write_atomically(name, lambda sink: sink.write(data))

    def _write_atomically(self, name: str, write: Any, *, in_pieces: bool = False) -> None:
        """in_pieces: more than memory holds, under a name that no committed part has."""
        target = f"{self.path}/{name}"
        if not self.is_local:
            self._upload(target, write, in_pieces)
            return
        folder, _, file = target.rpartition("/")
        self.fs.create_dir(folder, recursive=True)
        aside = f"{folder}/.{file}.{uuid.uuid4().hex}"
        try:
            with self.fs.open_output_stream(aside) as sink:
                write(sink)
            self.fs.move(aside, target)
        except BaseException:
            # A full disk must not stay full of what it had no room for.
            with suppress(OSError):
                self.fs.delete_file(aside)
            raise

    def _upload(self, target: str, write: Any, in_pieces: bool) -> None:
        # An object appears when its stream closes, and an error closes it too.
        if not in_pieces:
            whole = pa.BufferOutputStream()
            write(whole)
            with self.fs.open_output_stream(target) as sink:
                sink.write(whole.getvalue())
            return
        try:
            with self.fs.open_output_stream(target) as sink:
                write(sink)
        except BaseException:
            with suppress(OSError):
                self.fs.delete_file(target)
            raise

    # ---------------------------------------------------------------- reading

    def markers(self, phase: str) -> Iterator[dict[str, Any]]:
        """Every commit marker of a phase, in the order of their names, some at a time."""
        folder = f"_commits/{phase}"
        return column_index.read_markers(self, folder, self.stamps(folder), self.read_jsons)

    def committed(self, phase: str) -> Iterator[UnitRecord]:
        """Every unit that a phase has finished here."""
        for marker in self.markers(phase):
            for unit in marker["units"]:
                items = tuple(Item(**item) for item in unit["items"])
                yield UnitRecord(**{**unit, "items": items})

    def parts(self, table: str) -> list[str]:
        """Names of the committed parts of a table. Raises `StorageError` if one is gone."""
        return list(self.part_stamps(table))

    def part_stamps(self, *tables: str) -> dict[str, Stamp]:
        """As `parts`, of some tables, with what tells that a part is the one that was read."""
        folders = [f"_commits/{phase}" for phase in self.phases()]
        named = {
            part
            for folder in folders
            for part in column_index.read_named_parts(
                self, folder, self.stamps(folder), self.read_jsons
            )
            if part.partition("/")[0] in tables
        }
        present: dict[str, Stamp] = {}
        for table in {part.partition("/")[0] for part in named}:
            present |= self.stamps(table)
        lost = sorted(named - present.keys())
        if lost:
            raise StorageError(f"{self.root}: {len(lost)} committed parts are gone: {lost[0]} …")
        return {name: present[name] for name in sorted(named)}

    def read(
        self, table: Table, columns: Iterable[str] | None = None, filters: Any = None
    ) -> pl.DataFrame:
        """The committed rows of a table; `columns` keeps audio out of memory if not needed."""
        wanted = list(columns) if columns is not None else table.schema.names
        if filters is None:
            return self.read_with_parts(table, wanted).drop(PART)
        return _frame(table, wanted, self._pieces(table, self.parts(table.name), wanted, filters))

    def read_with_parts(self, table: Table, columns: Sequence[str]) -> pl.DataFrame:
        """As `read`, with the name of each row's part in a further column, `PART`."""
        return self.read_parts(table, columns, self.part_stamps(table.name))

    def read_parts(
        self, table: Table, columns: Sequence[str], stamps: Mapping[str, Stamp]
    ) -> pl.DataFrame:
        """As `read_with_parts`, of some parts. stamps: of `part_stamps`."""

        def direct(parts: Sequence[str]) -> pl.DataFrame:
            how = self._read_local if self.is_local else self._read_remote
            return how(table, columns, parts)

        return column_index.read_parts(self, table, columns, stamps, direct)

    def _read_remote(
        self, table: Table, columns: Sequence[str], parts: Sequence[str]
    ) -> pl.DataFrame:
        pieces = self._pieces(table, parts, columns, None)
        counts = [piece.num_rows for piece in pieces]
        names = pl.Series(PART, parts, pl.String).gather(np.repeat(np.arange(len(parts)), counts))
        return _frame(table, columns, pieces).with_columns(names)

    def _read_local(
        self, table: Table, columns: Sequence[str], parts: Sequence[str]
    ) -> pl.DataFrame:
        """A corpus of a million clips has thousands of parts: polars opens them several times
        faster than pyarrow does, and all the columns alike."""
        empty = _frame(table, columns, []).with_columns(pl.lit("", pl.String).alias(PART))
        if not parts:
            return empty.clear()
        tag, key = table.tag, VERSION_KEY.decode()
        for name in parts:
            if pl.read_parquet_metadata(f"{self.path}/{name}").get(key) != tag:
                self._check_part(table, name)
        read = pl.scan_parquet(
            [f"{self.path}/{name}" for name in parts], include_file_paths=PART, glob=False
        ).select(*columns, pl.col(PART).str.slice(len(self.path) + 1))
        try:
            frame = read.collect()
        except pl.exceptions.PolarsError:
            for name in parts:
                self._check_part(table, name)
            raise
        if frame.schema != empty.schema:
            for name in parts:
                self._check_part(table, name)
        return frame

    def _check_part(self, table: Table, name: str) -> None:
        with pq.ParquetFile(f"{self.path}/{name}", filesystem=self.fs) as file:
            table.check(file.schema_arrow, name)

    def scan(
        self, table: Table, columns: Sequence[str], filters: Any = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """Each committed part's name and rows: what a plan needs to say which rows lie where."""
        for name in self.parts(table.name):
            yield name, self._read_part(table, name, columns, filters)

    def _pieces(
        self, table: Table, parts: Sequence[str], columns: Sequence[str], filters: Any
    ) -> list[pa.Table]:
        """Rows of parts, read by several threads."""

        def read(name: str) -> pa.Table:
            return self._read_part(table, name, columns, filters)

        with ThreadPoolExecutor(_READERS) as readers:
            return list(readers.map(read, parts))

    def _read_part(self, table: Table, name: str, columns: Sequence[str], filters: Any) -> pa.Table:
        path = f"{self.path}/{name}"
        with pq.ParquetFile(path, filesystem=self.fs) as file:
            table.check(file.schema_arrow, name)
            if filters is None:
                return file.read(columns=list(columns), use_threads=False)
        return pq.read_table(path, columns=list(columns), filesystem=self.fs, filters=filters)

    def read_rows(self, part: str, rows: npt.NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Some rows of a part, in the order asked for; only the row groups that hold them are read.

        rows: (n,) numbers from the start of the part.
        """
        with pq.ParquetFile(f"{self.path}/{part}", filesystem=self.fs) as file:
            metadata = file.metadata
            sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            starts = np.concatenate(([0], np.cumsum(sizes)))
            groups = np.searchsorted(starts, rows, side="right") - 1
            wanted = np.unique(groups)
            shift = np.cumsum(starts[wanted + 1] - starts[wanted]) - starts[wanted + 1]
            read = file.read_row_groups(wanted.tolist(), columns=list(columns))
        return read.take(rows + shift[np.searchsorted(wanted, groups)])

    def latest_items(self, phase: str) -> Ledger:
        """How every item of a phase ended at its last attempt."""
        return Ledger(self.committed(phase))

    def read_standing(
        self, table: Table, phase: str, key: str, columns: Iterable[str] | None = None
    ) -> pl.DataFrame:
        """Rows that a later attempt of their item has not overtaken.

        key: the column that holds the item's id; the table also has `attempt`.
        """
        wanted = list(columns) if columns is not None else table.schema.names
        frame = self.read(table, dict.fromkeys([*wanted, key, "attempt"]))
        ledger = self.latest_items(phase)
        standing = [(item_id, attempt) for item_id, (attempt, item) in ledger.items() if item.done]
        schema = {key: pl.String, "attempt": pl.Int64}
        latest = pl.DataFrame(standing, schema=schema, orient="row")
        return frame.join(latest, on=list(schema), how="semi").select(wanted)

    def read_quarantine(self) -> pl.DataFrame:
        """Rows of `quarantine` that still stand: a later attempt overtakes an earlier one."""
        frame = self.read(QUARANTINE)
        standing = [
            {"phase": phase, "unit_id": item_id, "attempt": attempt}
            # The others' ledgers may have millions of items.
            for phase in frame["phase"].unique()
            for item_id, (attempt, item) in self.latest_items(phase).items()
            if item.status == "quarantined"
        ]
        keys = {"phase": pl.String, "unit_id": pl.String, "attempt": pl.Int64}
        return frame.join(pl.DataFrame(standing, schema=keys), on=list(keys), how="semi")

    def read_json(self, name: str) -> Any:
        """One JSON file of the corpus."""
        # Arrow asks for an object's size and then for so many bytes, so one that another process
        # wrote anew in between comes cut.
        for _ in range(_TRIES - 1):
            with suppress(json.JSONDecodeError, UnicodeDecodeError):
                return json.loads(self.read_bytes(name))
        return json.loads(self.read_bytes(name))

    def find_json(self, name: str) -> Any | None:
        """One JSON file of the corpus, or None where it is not there."""
        found = self.fs.get_file_info(f"{self.path}/{name}").type == pafs.FileType.File
        return self.read_json(name) if found else None

    def jsons(self, folder: str) -> list[Any]:
        """Every JSON file of a folder of the corpus, in the order of their names."""
        return self.read_jsons(self.names(folder))

    def read_jsons(self, names: Sequence[str]) -> list[Any]:
        """JSON files of the corpus, read by several threads."""
        with ThreadPoolExecutor(_READERS) as readers:
            return list(readers.map(self.read_json, names))

    def runs(self) -> list[dict[str, Any]]:
        """Every run record, oldest first."""
        return sorted(self.jsons("_runs"), key=_started)

    def files(self) -> list[str]:
        """Every file below the root, relative to it, half-written ones too."""
        selector = pafs.FileSelector(self.path, allow_not_found=True, recursive=True)
        found = self.fs.get_file_info(selector)
        return sorted(
            info.path[len(self.path) + 1 :] for info in found if info.type == pafs.FileType.File
        )

    def read_bytes(self, name: str) -> bytes:
        """A file of the corpus as it is."""
        with self.fs.open_input_stream(f"{self.path}/{name}") as source:
            return bytes(source.read())

    def delete(self, name: str) -> None:
        """Remove a file of the corpus."""
        self.fs.delete_file(f"{self.path}/{name}")

    def names(self, folder: str) -> list[str]:
        """Files below a folder, relative to the root, sorted; half-written ones left out."""
        return list(self.stamps(folder))

    def stamps(self, folder: str) -> dict[str, Stamp]:
        """As `names`, with the size and the time of change of each."""
        found = self._list(folder, pafs.FileType.File, recursive=True)
        return {name: Stamp(info.size, info.mtime_ns or 0) for name, info in found}

    def phases(self) -> list[str]:
        """Those that have committed anything, sorted."""
        found = self._list("_commits", pafs.FileType.Directory, recursive=False)
        return [name.rpartition("/")[2] for name, _ in found]

    def _list(
        self, folder: str, kind: pafs.FileType, recursive: bool
    ) -> list[tuple[str, pafs.FileInfo]]:
        selector = pafs.FileSelector(
            f"{self.path}/{folder}", allow_not_found=True, recursive=recursive
        )
        found = [
            (info.path[len(self.path) + 1 :], info)
            for info in self.fs.get_file_info(selector)
            if info.type == kind and not info.base_name.startswith(".")
        ]
        return sorted(found, key=lambda one: one[0])


def _frame(table: Table, columns: Sequence[str], pieces: Sequence[pa.Table]) -> pl.DataFrame:
    schema = pa.schema([table.schema.field(name) for name in columns])
    # Any array, an empty one too, would import pandas.
    empty = pa.Table.from_batches([], schema)
    frame = pl.from_arrow(pa.concat_tables([*pieces, empty]).replace_schema_metadata())
    assert isinstance(frame, pl.DataFrame)
    return frame


def _write_groups(table: Table, pieces: Iterable[pa.Table], sink: Any) -> None:
    """Rows as one Parquet file, in row groups of the table's size."""
    # The audio is compressed already, so the cheapest codec is the right one for it.
    how: dict[str, Any] = {"compression": "lz4"}
    if table.raw:
        packed = [name for name in table.schema.names if name not in table.raw]
        how = {
            "compression": {name: "lz4" for name in packed} | dict.fromkeys(table.raw, "none"),
            "use_dictionary": packed,
            "write_statistics": packed,
        }
    with pq.ParquetWriter(sink, table.schema, **how) as writer:
        for piece in pieces:
            writer.write_table(piece, row_group_size=table.rows_per_group)


def _started(record: dict[str, Any]) -> str:
    return str(record.get("started", ""))
