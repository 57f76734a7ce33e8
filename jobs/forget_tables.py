"""Rows that an opt-out takes out of the tables, and what it changes in those that stay.

Every change leaves what was changed before as it is, so that all of it can be done again.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.compose import PHASE as COMPOSE
from jobs.curate import PHASE as CURATE
from jobs.forget_plan import Removal
from jobs.mine import PHASE as MINE
from pipeline.storage import Corpus
from pipeline.tombstones import overlap
from schemas.arrow import (
    DUPLICATES,
    LATENTS,
    QUARANTINE,
    RECORDINGS,
    SAMPLES,
    SESSIONS,
    TABLES,
    Table,
)
from schemas.ids import content_id
from schemas.rows import Span

# Free words that somebody chose; the ids of clips and recordings are hashes and mean one thing.
_NO_HASHES = {"session_id", "transcript_session_id"}
# What such a column names may go while the row stays.
_RENAMED = {(DUPLICATES.name, "group_id"), (SAMPLES.name, "sample_id")}
_TOLD = ("unit_id", "message", "traceback")


class Rewriting:
    """Takes what a `Removal` names out of every table of a corpus."""

    def __init__(self, corpus: Corpus, removal: Removal) -> None:
        self.corpus = corpus
        self.removal = removal
        self.gone = pa.array(sorted({*removal.ids, *removal.uris}), pa.string())
        self.spans = {
            name: [Span(start_s=start, end_s=end) for start, end in times]
            for name, times in removal.spans.items()
        }
        self._places: pl.DataFrame | None = None

    def count(self) -> dict[str, int]:
        """How many rows of each table go; nothing is changed."""
        found = {}
        for table in TABLES.values():
            columns = [column for column in table.schema.names if _is_read(table, column)]
            going = (
                int(pc.sum(self.going(table, piece), min_count=0).as_py())
                for _, piece in self.corpus.scan(table, columns)
            )
            if rows := sum(going):
                found[table.name] = rows
        return found

    def rewrite(self, table: Table) -> None:
        """Put the parts of a table that hold any of it again, without it."""
        change = self._changes().get(table.name)
        columns = [column for column in table.schema.names if _is_read(table, column)]
        for part, piece in self.corpus.scan(table, columns):
            going = self.going(table, piece)
            if change is None and not pc.any(going, min_count=0).as_py():
                continue
            same = change or _as_it_is

            def changed(rows: pa.Table, same: Callable[[pa.Table], pa.Table] = same) -> pa.Table:
                return same(rows.filter(pc.invert(self.going(table, rows))))

            self.corpus.rewrite_part(part, table, changed)

    def failed(self) -> list[tuple[str, str]]:
        """(phase, item) of the rows of `quarantine` that go."""
        found: list[tuple[str, str]] = []
        for _, rows in self.corpus.scan(QUARANTINE, QUARANTINE.schema.names):
            going = rows.filter(self.going(QUARANTINE, rows)).to_pylist()
            found += [(str(row["phase"]), str(row["unit_id"])) for row in going]
        return found

    # ---------------------------------------------------------------- rows that go

    def going(self, table: Table, rows: pa.Table) -> "pa.Array[Any]":
        """(rows,) whether each one goes. rows: with the columns that `_is_read` names."""
        found = pa.array([False] * rows.num_rows, pa.bool_())
        for field in table.schema:
            if _names_ids(table, field):
                found = pc.or_(found, self._named(rows[field.name].combine_chunks()))
        if table.name == SESSIONS.name:
            found = pc.or_(found, self._is_in(rows["session_id"], self.removal.sessions))
        if table.name == QUARANTINE.name:
            found = pc.or_(found, self._tells(rows))
        if table.name == DUPLICATES.name:
            lonely = [group for group, name in self.removal.groups.items() if not name]
            found = pc.or_(found, self._is_in(rows["group_id"], lonely))
        if table.name == SAMPLES.name:
            found = pc.or_(found, self._has_no_part(rows))
        return found

    def _named(self, values: "pa.Array[Any]") -> "pa.Array[Any]":
        if pa.types.is_list(values.type):
            hits = pc.list_parent_indices(values).filter(
                pc.is_in(pc.list_flatten(values), value_set=self.gone)
            )
            numbers = pa.array(range(len(values)), pa.int64())
            return pc.is_in(numbers, value_set=hits.cast(pa.int64()).unique())
        return pc.is_in(values, value_set=self.gone)

    @staticmethod
    def _is_in(values: Any, names: list[str]) -> Any:
        return pc.is_in(values.combine_chunks(), value_set=pa.array(names, pa.string()))

    def _tells(self, rows: pa.Table) -> "pa.Array[Any]":
        """Whether what is told of a failure names what goes."""
        frame = pl.DataFrame({name: rows[name].to_pylist() for name in _TOLD})
        needles = [*self.removal.uris, *self.removal.recordings, *self.removal.clips]
        sessions = list(self.removal.sessions)
        told = pl.any_horizontal(pl.col(_TOLD).str.contains_any(needles))
        found = frame.cast(pl.String).select(told | pl.col("unit_id").is_in(sessions))
        return pa.array(found.to_series().fill_null(False).to_list(), pa.bool_())

    def _has_no_part(self, rows: pa.Table) -> Any:
        """Samples whose target or prompt goes, or every reference that they have."""
        names = {
            name: self._named(pc.struct_field(rows[name].combine_chunks(), "clip_id"))
            for name in ("target", "prompt")
        }
        references = rows["references"].combine_chunks()
        before = pc.list_value_length(references)
        after = pc.list_value_length(self._lent(references))
        nothing = pa.scalar(0, before.type)
        bare = pc.and_(pc.greater(before, nothing), pc.equal(after, nothing))
        return pc.or_(pc.or_(names["target"], names["prompt"]), bare)

    # ---------------------------------------------------------------- rows that stay

    def _changes(self) -> dict[str, Callable[[pa.Table], pa.Table]]:
        """By table: what happens to the rows that stay."""
        changes: dict[str, Callable[[pa.Table], pa.Table]] = {}
        if self.removal.spans:
            changes[RECORDINGS.name] = self._trimmed
        if any(self.removal.groups.values()):
            changes[DUPLICATES.name] = self._regrouped
        if self.removal.clips or self.removal.clones:
            changes[SAMPLES.name] = self._placed
        return changes

    def _trimmed(self, rows: pa.Table) -> pa.Table:
        """Recordings without what a speaker said in them."""
        values = rows.to_pylist()
        for row in values:
            if spans := self.spans.get(row["recording_id"]):
                row["transcript"] = None
                row["utterances"] = [
                    said
                    for said in row["utterances"]
                    if not overlap(said["start_s"], said["end_s"], spans)
                ]
                if row["speaker"] == self.removal.speaker:
                    row["speaker"] = None
        return pa.Table.from_pylist(values, RECORDINGS.schema)

    def _regrouped(self, rows: pa.Table) -> pa.Table:
        names = (str(name) for name in rows["group_id"].to_pylist())
        groups = [self.removal.groups.get(name, name) for name in names]
        return _with(rows, "group_id", pa.array(groups, pa.string()))

    def _placed(self, rows: pa.Table) -> pa.Table:
        """Samples without the references that go, and with the places where latents lie now."""
        if self._places is None:
            self._places = places_of(self.corpus)
        for name in ("target", "prompt"):
            rows = _with(rows, name, _moved(rows[name].combine_chunks(), self._places))
        lent = self._lent(rows["references"].combine_chunks())
        values = _moved(lent.values, self._places)
        moved = pa.ListArray.from_arrays(lent.offsets, values, type=lent.type)
        return _with(rows, "references", moved)

    def _lent(self, references: "pa.Array[Any]") -> Any:
        """Lists of places without those that go."""
        places = pc.list_flatten(references)
        stays = pc.invert(self._named(pc.struct_field(places, "clip_id")))
        owners = pc.list_parent_indices(references).filter(stays)
        counts = pl.Series(owners.to_numpy()).value_counts()
        sizes = [0] * len(references)
        for owner, count in counts.iter_rows():
            sizes[owner] = count
        offsets = pa.array([0, *pl.Series(sizes, dtype=pl.Int32).cum_sum()], pa.int32())
        return pa.ListArray.from_arrays(offsets, places.filter(stays), type=references.type)


def places_of(corpus: Corpus) -> pl.DataFrame:
    """part, clip_id and row of every latent."""
    schema = {"part": pl.String, "clip_id": pl.String, "row": pl.Int64}
    pieces = [
        pl.DataFrame({"clip_id": piece["clip_id"].to_pylist()}, schema={"clip_id": pl.String})
        .with_columns(part=pl.lit(part), row=pl.int_range(pl.len(), dtype=pl.Int64))
        .select(*schema)
        for part, piece in corpus.scan(LATENTS, ["clip_id"])
    ]
    return pl.concat([pl.DataFrame(schema=schema), *pieces])


def _names_ids(table: Table, field: "pa.Field[Any]") -> bool:
    """Whether a column holds ids or uris, any of which may cost its row."""
    kind = field.type.value_type if pa.types.is_list(field.type) else field.type
    named = field.name == "uri" or field.name.endswith(("_id", "_ids"))
    free = field.name in _NO_HASHES or (table.name, field.name) in _RENAMED
    return named and not free and kind == pa.string()


def _is_read(table: Table, column: str) -> bool:
    """Whether it takes a column to know which rows go."""
    more = {
        SESSIONS.name: ("session_id",),
        QUARANTINE.name: _TOLD,
        DUPLICATES.name: ("group_id",),
        SAMPLES.name: ("target", "prompt", "references"),
    }
    return _names_ids(table, table.schema.field(column)) or column in more.get(table.name, ())


def _as_it_is(rows: pa.Table) -> pa.Table:
    return rows


def _with(rows: pa.Table, name: str, values: "pa.Array[Any]") -> pa.Table:
    field = rows.schema.field(name)
    return rows.set_column(rows.schema.get_field_index(name), field, values.cast(field.type))


def _moved(places: Any, rows: pl.DataFrame) -> Any:
    """Places with the rows where their latents lie now. rows: `places_of`."""
    fields = [places.type.field(i) for i in range(places.type.num_fields)]
    # Where there is no place its fields are null, which the schema does not know.
    columns = {
        field.name: pc.fill_null(
            pc.struct_field(places, field.name), "" if field.type == pa.string() else 0
        )
        for field in fields
    }
    known = pl.DataFrame({name: columns[name] for name in ("part", "clip_id", "row")})
    found = known.join(rows, on=["part", "clip_id"], how="left", maintain_order="left")
    columns["row"] = found.select(pl.coalesce("row_right", "row")).to_series().to_arrow()
    return pa.StructArray.from_arrays(
        [columns[field.name] for field in fields], fields=fields, mask=places.is_null()
    )


# -------------------------------------------------------------------- markers


def rewrite_markers(corpus: Corpus, removal: Removal, forget_id: str) -> None:
    """Take the items out of every commit marker, and count the rows of its parts anew."""
    ids, uris, sessions = set(removal.ids), set(removal.uris), set(removal.sessions)
    failed = {(phase, name) for phase, name in removal.failed}

    def goes(item: Mapping[str, Any], phase: str) -> bool:
        name, uri = item["item_id"], item["uri"].partition("#t=")[0]
        known = name in ids or uri in uris or (phase == MINE and name in sessions)
        return known or (item["status"] == "quarantined" and (phase, name) in failed)

    for name in corpus.names("_commits"):
        marker = corpus.read_json(name)
        before = deepcopy(marker)
        units = []
        for unit in marker["units"]:
            items = [item for item in unit["items"] if not goes(item, marker["phase"])]
            for item in items:
                if marker["phase"] == CURATE:
                    length = removal.lengths.get(item["item_id"])
                    item["duration_s"] = item["duration_s"] if length is None else length
            if items or not unit["items"]:
                units.append({**unit, "items": items})
        marker["units"] = units
        for part in marker["parts"].values():
            path = f"{corpus.path}/{part['part']}"
            part["rows"] = pq.read_metadata(path, filesystem=corpus.fs).num_rows
        if marker["phase"] == COMPOSE and marker.get("forgotten") != forget_id:
            # Other samples than a training may have begun with.
            marker["fingerprint"] = content_id(before["fingerprint"], forget_id)
            marker["forgotten"] = forget_id
        if marker == before:
            continue
        if before["units"] and not units and not any(p["rows"] for p in marker["parts"].values()):
            corpus.delete(name)
            continue
        corpus.write_json(name, marker, indent=None if units else 1)
