"""Writes the column index: many small files of a corpus once more, as a few large ones.

A pack takes in the packs that are no larger than what is new, so that a corpus has few of them and
each row is written again only a few times. Each is written aside and renamed, and what it takes in
is deleted after that; whoever reads meanwhile reads the files themselves.
"""

import json
import logging
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.column_index import (
    FILES,
    FOLDER,
    MARKERS,
    MARKERS_PER_GROUP,
    PART,
    Stamp,
    cover,
    layout_of,
    named_parts,
    pack_names,
)
from pipeline.storage import Corpus
from pipeline.tombstones import FOLDER as TOMBSTONES
from pipeline.tombstones import journal
from schemas.arrow import TABLES
from schemas.errors import StorageError

WORTH = 64
"""So many files outside the index are read themselves: they are opened in a fraction of a second."""
MOST = 8192
"""Files in a pack: its rows must fit into memory."""
_ROWS_PER_GROUP = 1 << 18

log = logging.getLogger(__name__)


def bring_up_to_date(corpus: Corpus) -> None:
    """Pack what is new since the last time, if it is worth it.

    A corpus that cannot be written to, or whose storage fails, stays as it is.
    """
    written: list[str] = []
    try:
        forgotten = corpus.names(TOMBSTONES)
        if journal(corpus) is not None:
            return
        try:
            _pack_all(corpus, written)
        finally:
            # What an opt-out takes out of the corpus meanwhile must not stay here.
            if journal(corpus) is not None or corpus.names(TOMBSTONES) != forgotten:
                _delete(corpus, written)
    except OSError as error:
        log.warning("the index of %s is left as it was: %s", corpus.root, error)


def _pack_all(corpus: Corpus, written: list[str]) -> None:
    """written: takes the names of the packs."""
    for phase in corpus.phases():
        folder = f"_commits/{phase}"
        stamps = corpus.stamps(folder)
        _pack(corpus, folder, MARKERS, stamps, partial(_markers, corpus), written)
    by_table: dict[str, dict[str, Stamp]] = {}
    try:
        parts = corpus.part_stamps(*TABLES)
    except StorageError:
        return
    for name, stamp in parts.items():
        by_table.setdefault(name.partition("/")[0], {})[name] = stamp
    for folder, stamps in by_table.items():
        table = TABLES[folder]
        layout = layout_of(table)
        read = partial(corpus.read_parts, table, layout.names)
        # Whoever wants this table is told what is wrong with it.
        with suppress(StorageError, pl.exceptions.PolarsError, pa.ArrowException):
            _pack(corpus, folder, layout, stamps, read, written)


def _pack(
    corpus: Corpus,
    folder: str,
    layout: pa.Schema,
    stamps: Mapping[str, Stamp],
    read: Callable[[Mapping[str, Stamp]], pl.DataFrame],
    written: list[str],
) -> None:
    """Pack the files of a folder that are in no pack.

    stamps: of all of them. read: some of them → their rows in the order of their names, and `PART`.
    written: takes the names of the packs.
    """
    before = pack_names(corpus, folder)
    found = cover(corpus, folder, layout, stamps)
    names = list(found.rest)
    if len(names) < WORTH:
        return
    kept = set()
    for pack, fresh in sorted(found.packs, key=lambda one: int(one[1].sum())):
        if fresh.sum() > min(len(names), MOST - len(names)):
            kept.add(pack.name)
        else:
            names += [file for (file, _), one in zip(pack.files, fresh, strict=True) if one]
    names.sort()
    for start in range(0, len(names), MOST):
        some = {name: stamps[name] for name in names[start : start + MOST]}
        written.append(_write(corpus, folder, layout, some, read(some)))
    _delete(corpus, [name for name in before if name not in kept])


def _write(
    corpus: Corpus,
    folder: str,
    layout: pa.Schema,
    stamps: Mapping[str, Stamp],
    rows: pl.DataFrame,
) -> str:
    counts = dict(rows[PART].rle().struct.unnest().select("value", "len").iter_rows())
    files = [(name, *stamp, counts.get(name, 0)) for name, stamp in stamps.items()]
    schema = layout.with_metadata({**layout.metadata, FILES: json.dumps(files).encode()})
    size = MARKERS_PER_GROUP if layout is MARKERS else _ROWS_PER_GROUP
    groups = (
        rows[start : start + size].drop(PART).to_arrow().cast(schema)
        for start in range(0, rows.height, size)
    )
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for group in groups:
            writer.write_table(group)
    data = sink.getvalue()
    name = f"{FOLDER}/{folder}/{uuid.uuid4().hex}-{zlib.crc32(data):08x}.parquet"
    corpus.write_bytes(name, data)
    return name


def _markers(corpus: Corpus, stamps: Mapping[str, Stamp]) -> pl.DataFrame:
    markers = corpus.read_jsons(list(stamps))
    return pl.DataFrame(
        {
            "marker": [
                json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in markers
            ],
            "parts": [named_parts(one) for one in markers],
            PART: list(stamps),
        },
        schema={"marker": pl.String, "parts": pl.List(pl.String), PART: pl.String},
    )


def _delete(corpus: Corpus, names: Sequence[str]) -> None:
    for name in names:
        # Another command may have taken it in as well.
        with suppress(FileNotFoundError):
            corpus.delete(name)
