"""The Arrow schema of every table, derived from its row type, and the way rows pass through it.

Every file carries its table's name and version in the Parquet metadata; both are checked on
write and on read.
"""

import types
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa

from schemas.attributes import Attributes, Level, Traits
from schemas.descriptions import Description
from schemas.errors import StorageError
from schemas.latents import Latent
from schemas.references import Duplicate, MinedSession, Reference
from schemas.reviews import Review
from schemas.rows import Clip, Quarantined, Recording, Verdict
from schemas.samples import Sample
from schemas.sentences import SentenceVector
from schemas.synthetic import Synthetic, SyntheticVerdict

VERSION_KEY = b"voxquarry.table"

_SCALARS: dict[type, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.large_binary(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One table of the corpus: its name, the version of its meaning, and its row type."""

    name: str
    version: int
    row: type
    rows_per_group: int = 256
    """Of a Parquet row group, which is read as a whole. One clip's audio is about 100 kB, so a row
    group of clips is some tens of megabytes."""
    raw: tuple[str, ...] = ()
    """Columns of noise, kept as they are: no codec makes them smaller, and a damaged byte costs one
    row and not its row group. Only for tables without nested columns."""

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema with `name/version` in its metadata."""
        return _schema_of(self)

    @property
    def tag(self) -> str:
        """What stands in every file's metadata."""
        return f"{self.name}/{self.version}"

    def to_arrow(self, rows: Sequence[Any]) -> pa.Table:
        """Rows of this table's type, as a table of this schema."""
        schema = self.schema
        columns = [
            pa.array([_plain(getattr(row, field.name)) for row in rows], field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(columns, schema=schema)

    def check(self, schema: pa.Schema, where: str) -> None:
        """Raise `StorageError` unless `schema` is this table, of this version, column by column."""
        expected = self.schema
        tag = (schema.metadata or {}).get(VERSION_KEY, b"no tag").decode()
        if tag != self.tag:
            raise StorageError(f"{where}: holds table {tag}, this version reads {self.tag}")
        if schema.equals(expected):
            return
        for field in expected:
            index = schema.get_field_index(field.name)
            if index < 0 or schema.field(index).type != field.type:
                found = "missing" if index < 0 else str(schema.field(index).type)
                raise StorageError(
                    f"{where}: column {field.name} is {found}, the schema says {field.type}"
                )


@cache
def _schema_of(table: Table) -> pa.Schema:
    """Made once per table: a corpus has thousands of parts, and each is checked."""
    return pa.schema(_struct_fields(table.row), metadata={VERSION_KEY: table.tag.encode()})


def _struct_fields(row: type) -> "list[pa.Field[Any]]":
    hints = get_type_hints(row)
    return [_field(field.name, hints[field.name]) for field in fields(row)]


def _field(name: str, hint: Any) -> "pa.Field[Any]":
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not type(None)]
        # A vector may be held as a tuple or an array; both are a list in Arrow.
        return pa.field(name, _field(name, options[0]).type, nullable=type(None) in get_args(hint))
    if origin is tuple:
        if get_args(hint)[0] is float:
            return pa.field(name, pa.list_(pa.float32()), nullable=False)
        return pa.field(name, pa.list_(_field("item", get_args(hint)[0]).type), nullable=False)
    if is_dataclass(hint):
        return pa.field(name, pa.struct(_struct_fields(hint)), nullable=False)  # type: ignore[arg-type]
    if isinstance(hint, type) and hint in _SCALARS:
        return pa.field(name, _SCALARS[hint], nullable=False)
    raise TypeError(f"{name}: no Arrow type for {hint}")


def _plain(value: Any) -> Any:
    """Dataclasses as dicts and tuples as lists, which is what pyarrow converts."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


RECORDINGS = Table(name="recordings", version=1, row=Recording)
CLIPS = Table(name="clips", version=4, row=Clip)
# Short rows, one for each clip, written and read as a whole.
VERDICTS = Table(name="verdicts", version=1, row=Verdict, rows_per_group=65_536)
QUARANTINE = Table(name="quarantine", version=1, row=Quarantined)
REFERENCES = Table(name="references", version=1, row=Reference)
DUPLICATES = Table(name="duplicates", version=1, row=Duplicate)
SESSIONS = Table(name="sessions", version=1, row=MinedSession)
ATTRIBUTES = Table(name="attributes", version=1, row=Attributes)
LEVELS = Table(name="levels", version=1, row=Level)
TRAITS = Table(name="traits", version=1, row=Traits, rows_per_group=65_536)
DESCRIPTIONS = Table(name="descriptions", version=1, row=Description)
SYNTHETIC = Table(name="synthetic", version=1, row=Synthetic)
SYNTHETIC_VERDICTS = Table(name="synthetic_verdicts", version=1, row=SyntheticVerdict)
REVIEWS = Table(name="reviews", version=1, row=Review, rows_per_group=8192)
SENTENCES = Table(
    name="sentences", version=1, row=SentenceVector, rows_per_group=8192, raw=("vector",)
)
# A clip of eight seconds is 26 kB: row groups of about three megabytes.
LATENTS = Table(name="latents", version=2, row=Latent, rows_per_group=128, raw=("latent",))
SAMPLES = Table(name="samples", version=1, row=Sample, rows_per_group=4096)

TABLES = {
    table.name: table
    for table in (
        *(RECORDINGS, CLIPS, VERDICTS, QUARANTINE),
        *(REFERENCES, DUPLICATES, SESSIONS),
        *(ATTRIBUTES, LEVELS, TRAITS, DESCRIPTIONS),
        *(SYNTHETIC, SYNTHETIC_VERDICTS, SENTENCES),
        *(LATENTS, SAMPLES),
        REVIEWS,
    )
}
