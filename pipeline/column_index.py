"""What thousands of small files of a corpus say, a second time, in a few large ones.

    ROOT/_index/clips/<id>-<crc32>.parquet             light columns of many parts
    ROOT/_index/_commits/curate/<id>-<crc32>.parquet   many commit markers

A pack of this index knows its files by name, size and time of change. A file that is not as it was
packed, and all that is in no pack, is read itself, so the index is never needed and never stale.
`pipeline.packing` writes it.
"""

import heapq
import json
import logging
import mmap
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from schemas.arrow import Table

FOLDER = "_index"
FILES = b"voxquarry.files"
LAYOUT = b"voxquarry.layout"
PART = "part"
"""Column that names the part where a row lies."""
MARKERS = pa.schema(
    [("marker", pa.string()), ("parts", pa.list_(pa.string()))], metadata={LAYOUT: b"markers/1"}
)
"""A commit marker as JSON, and the parts that it names."""
MARKERS_PER_GROUP = 256
"""Of a row group, and how many are in memory at once."""
Direct = Callable[[Sequence[str]], Iterable[dict[str, Any]]]
_DAMAGED = (
    *(OSError, pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException),
    *(ValueError, KeyError, TypeError),
)

log = logging.getLogger(__name__)


class Stamp(NamedTuple):
    """What tells that a file is the one that was packed.

    Only an opt-out changes a part or marker that is committed; it deletes the index, too.
    """

    size: int
    mtime_ns: int


class Place(Protocol):
    """Where a corpus lies."""

    fs: Any
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """One file of the index."""

    name: str
    """Relative to the corpus."""
    files: Sequence[tuple[str, Stamp]]
    """What it holds, sorted by name, as it was then."""
    rows: npt.NDArray[np.int64]
    """(files,) how many rows each of them has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cover:
    """Which files of a folder the index holds."""

    packs: Sequence[tuple[Pack, npt.NDArray[np.bool_]]]
    """Each with a flag per file: whether it is to be taken from this pack."""
    rest: Sequence[str]
    """Files to be read themselves, sorted."""


def layout_of(table: Table) -> pa.Schema:
    """The columns of a table that its packs hold: no audio, no vectors, no words."""
    light = [field for field in table.schema if _is_light(field.type)]
    told = ", ".join(f"{field.name} {field.type}" for field in light)
    return pa.schema(light, metadata={LAYOUT: f"{table.tag}: {told}".encode()})


def cover(place: Place, folder: str, layout: pa.Schema, stamps: Mapping[str, Stamp]) -> Cover:
    """Find the files of a folder in its packs. stamps: of those that are wanted, by name."""
    left = dict(stamps)
    packs = []
    for name in pack_names(place, folder):
        if pack := _opened(place, name, layout):
            fresh = np.array([left.get(file) == stamp for file, stamp in pack.files], np.bool_)
            if fresh.any():
                packs.append((pack, fresh))
                for (file, _), is_fresh in zip(pack.files, fresh, strict=True):
                    if is_fresh:
                        del left[file]
    return Cover(packs=packs, rest=sorted(left))


def pack_names(place: Place, folder: str) -> list[str]:
    """The packs of a folder, sorted, whatever state they are in."""
    selector = pafs.FileSelector(f"{place.path}/{FOLDER}/{folder}", allow_not_found=True)
    return sorted(
        f"{FOLDER}/{folder}/{info.base_name}"
        for info in place.fs.get_file_info(selector)
        if info.type == pafs.FileType.File and not info.base_name.startswith(".")
    )


def read_parts(
    place: Place,
    table: Table,
    columns: Sequence[str],
    stamps: Mapping[str, Stamp],
    direct: Callable[[Sequence[str]], pl.DataFrame],
) -> pl.DataFrame:
    """Columns of some parts, and `PART`: the rows in the order of the parts' names.

    stamps: of the parts. direct: reads parts themselves, in the order that it is given.
    """
    layout = layout_of(table)
    if not set(columns) <= set(layout.names):
        return direct(sorted(stamps))
    found = cover(place, table.name, layout, stamps)
    rest = list(found.rest)
    names: list[str] = []
    counts: list[int] = []
    pieces = []
    for pack, fresh in found.packs:
        taken = [file for (file, _), one in zip(pack.files, fresh, strict=True) if one]
        if (frame := _rows(place, pack, fresh, columns)) is None:
            rest += taken
            continue
        names += taken
        counts += pack.rows[fresh].tolist()
        pieces.append(frame)
    if rest or not pieces:
        frame = direct(sorted(rest))
        for name, count in frame[PART].rle().struct.unnest().select("value", "len").iter_rows():
            names.append(name)
            counts.append(count)
        pieces.append(frame.drop(PART))
    return _in_order(pieces, names, counts)


def read_markers(
    place: Place, folder: str, stamps: Mapping[str, Stamp], direct: Direct
) -> Iterator[dict[str, Any]]:
    """Commit markers of a folder, in the order of their names.

    stamps: of the markers. direct: reads markers themselves; it is asked for some at a time.
    """
    for one in _merged(place, folder, stamps, direct, "marker"):
        yield json.loads(one) if isinstance(one, str) else one


def read_named_parts(
    place: Place, folder: str, stamps: Mapping[str, Stamp], direct: Direct
) -> Iterator[str]:
    """The parts that commit markers name. Arguments as `read_markers` takes them."""
    for one in _merged(place, folder, stamps, direct, "parts"):
        yield from named_parts(one) if isinstance(one, dict) else one


def named_parts(marker: Mapping[str, Any]) -> list[str]:
    """The parts of all tables that a commit marker names."""
    return [str(one["part"]) for one in marker["parts"].values()]


def _merged(
    place: Place, folder: str, stamps: Mapping[str, Stamp], direct: Direct, column: str
) -> Iterator[Any]:
    """What the packs have in a column, or else the marker."""
    found = cover(place, folder, MARKERS, stamps)
    streams = [_packed(place, pack, fresh, column, direct) for pack, fresh in found.packs]
    for _, value in heapq.merge(*streams, _unpacked(found.rest, direct), key=lambda one: one[0]):
        yield value


def _packed(
    place: Place, pack: Pack, fresh: npt.NDArray[np.bool_], column: str, direct: Direct
) -> Iterator[tuple[str, Any]]:
    done = 0
    try:
        with _file(place, pack.name) as file:
            for group in range(file.num_row_groups):
                for value in file.read_row_group(group, [column])[column].to_pylist():
                    if fresh[done]:
                        yield pack.files[done][0], value
                    done += 1
    except _DAMAGED as error:
        _tell(pack.name, error)
        left = zip(pack.files[done:], fresh[done:], strict=True)
        yield from _unpacked([name for (name, _), is_fresh in left if is_fresh], direct)


def _unpacked(names: Sequence[str], direct: Direct) -> Iterator[tuple[str, Any]]:
    for start in range(0, len(names), MARKERS_PER_GROUP):
        some = names[start : start + MARKERS_PER_GROUP]
        yield from zip(some, direct(some), strict=True)


def _opened(place: Place, name: str, layout: pa.Schema) -> Pack | None:
    """A pack, or None where it is damaged, gone meanwhile, or of another version."""
    try:
        with _file(place, name) as file:
            schema, num_rows = file.schema_arrow, file.metadata.num_rows
        if schema.metadata[LAYOUT] != layout.metadata[LAYOUT]:
            return None
        files = json.loads(schema.metadata[FILES])
        rows = np.array([count for *_, count in files], np.int64)
        if rows.sum() != num_rows:
            raise ValueError(f"{num_rows} rows, and its files have {rows.sum()}")
        return Pack(
            name=name,
            files=[(file, Stamp(size, mtime_ns)) for file, size, mtime_ns, _ in files],
            rows=rows,
        )
    except _DAMAGED as error:
        _tell(name, error)
        return None


def _rows(
    place: Place, pack: Pack, fresh: npt.NDArray[np.bool_], columns: Sequence[str]
) -> pl.DataFrame | None:
    try:
        if isinstance(place.fs, pafs.LocalFileSystem):
            # Several times faster here than pyarrow, but it looks at no checksums.
            with (
                open(f"{place.path}/{pack.name}", "rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                _check(pack.name, data)
                frame = pl.read_parquet(file.name, columns=list(columns), glob=False)
        else:
            with _file(place, pack.name) as parquet:
                table = parquet.read(columns=list(columns)).replace_schema_metadata()
            frame = pl.DataFrame(table)
        if frame.height != pack.rows.sum():
            raise ValueError(f"{frame.height} rows, and its files have {pack.rows.sum()}")
    except _DAMAGED as error:
        _tell(pack.name, error)
        return None
    frame = frame.select(columns)
    return frame if fresh.all() else frame.filter(pl.Series(np.repeat(fresh, pack.rows)))


def _check(name: str, data: mmap.mmap) -> None:
    """Raise `ValueError` unless these are the bytes that the pack was written with."""
    crc32 = name.removesuffix(".parquet").rpartition("-")[2]
    if crc32 != f"{zlib.crc32(data):08x}":
        raise ValueError(f"its bytes have not the checksum {crc32}")


def _in_order(
    pieces: Sequence[pl.DataFrame], names: Sequence[str], counts: Sequence[int]
) -> pl.DataFrame:
    """Pieces one below the other, and then their rows by the names of the parts.

    names, counts: of the parts in the pieces, in their order, with how many rows they have.
    """
    frame = pieces[0] if len(pieces) == 1 else pl.concat(pieces)
    order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
    lengths = np.array(counts, np.int64)
    sizes = lengths[order]
    if (order[1:] < order[:-1]).any():
        starts, shift = np.cumsum(lengths) - lengths, np.cumsum(sizes) - sizes
        frame = frame[np.repeat(starts[order] - shift, sizes) + np.arange(sizes.sum())]
    parts = pl.Series(PART, [names[number] for number in order], pl.String)
    return frame.with_columns(parts.gather(np.repeat(np.arange(len(order)), sizes)))


def _file(place: Place, name: str) -> pq.ParquetFile:
    return pq.ParquetFile(
        f"{place.path}/{name}", filesystem=place.fs, page_checksum_verification=True
    )


def _is_light(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return bool(kind.value_type == pa.string())
    return not (pa.types.is_nested(kind) or pa.types.is_large_binary(kind))


def _tell(name: str, error: BaseException) -> None:
    # Another command has taken a pack into a larger one meanwhile.
    if not isinstance(error, FileNotFoundError):
        log.warning("%s is ignored, and can be deleted: %s", name, error)
