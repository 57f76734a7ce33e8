"""Samples as rows of their table, gathered some ten thousand at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.compose_rows import Composition
from schemas.arrow import SAMPLES
from schemas.samples import LAYOUTS, SPLITS
from stages.composition import CONTINUATION, WITH_DESCRIPTION, WITH_REFERENCE, Bools, Ints

_ROWS_AT_ONCE = 16 * SAMPLES.rows_per_group


def pieces_of(made: Composition) -> Iterator[pa.Table]:
    """The rows of `samples`, some ten thousand at a time."""
    columns = _Columns(made)
    for start in range(0, made.rows.clip.size, _ROWS_AT_ONCE):
        yield columns.of(np.arange(start, min(start + _ROWS_AT_ONCE, made.rows.clip.size)))


class _Columns:
    """Gathers the columns of some rows."""

    def __init__(self, made: Composition) -> None:
        self.made = made
        clips = made.inputs.clips
        self.before = clips["before"].fill_null(0).to_numpy()
        self.cut = clips["cut"].to_numpy()
        self.synthetic = clips["synthetic"].to_numpy()
        self.text = {
            name: clips[name].to_arrow().cast(pa.string())
            for name in ("clip_id", "session_id", "language", "source")
        }
        self.said = [texts.to_arrow().cast(pa.string()) for texts in made.texts]
        self.parts = pa.array(made.inputs.parts, pa.string())
        self.place = {name: clips[name].to_numpy() for name in ("part", "row", "frames")}
        self.lender = made.inputs.references[made.lent]
        owners = made.inputs.targets[made.lent]
        self.first = np.searchsorted(owners, np.arange(clips.height + 1))

    def of(self, numbers: Ints) -> pa.Table:
        """The rows with these numbers."""
        made, schema = self.made, SAMPLES.schema
        clip, layout = made.rows.clip[numbers], made.rows.layout[numbers]
        continues = layout == CONTINUATION
        joins = continues & made.joins[clip]
        text, description, behind = (texts.take(clip) for texts in self.said)
        controlled = np.isin(layout, WITH_DESCRIPTION)
        names = np.array(LAYOUTS)[layout]
        ids = self.text["clip_id"].take(clip)
        values: dict[str, Any] = {
            "sample_id": pc.binary_join_element_wise(ids, pa.array(names), "."),
            "layout": pa.array(names),
            "target": self._places(clip, schema.field("target").type),
            "target_start": np.where(continues & ~joins, self.cut[clip], 0),
            "prompt": self._places(self.before[clip], schema.field("prompt").type, ~joins),
            "references": self._references(clip, layout, schema.field("references").type),
            "text": pc.if_else(pa.array(joins), behind, text),
            "description": pc.if_else(pa.array(controlled), description, None),
            "language": self.text["language"].take(clip),
            "source": self.text["source"].take(clip),
            "session_id": self.text["session_id"].take(clip),
            "synthetic": self.synthetic[clip],
            "split": np.array(SPLITS)[made.held[clip].astype(np.int64)],
            "duration_s": made.rows.duration_s[numbers],
            "tokens": made.tokens[numbers],
            "positions": made.rows.positions[numbers],
            "weights": pa.ListArray.from_arrays(
                pa.array(np.arange(clip.size + 1) * made.weights.shape[1], pa.int32()),
                pa.array(made.weights[numbers].ravel(), pa.float32()),
            ),
        }
        columns = []
        for field_ in schema:
            value = values[field_.name]
            array = value if isinstance(value, pa.Array) else pa.array(value)
            columns.append(array.cast(field_.type))
        return pa.Table.from_arrays(columns, schema=schema)

    def _places(self, clip: Ints, kind: Any, without: Bools | None = None) -> "pa.Array[Any]":
        values = {
            "clip_id": self.text["clip_id"].take(clip),
            "part": self.parts.take(self.place["part"][clip]),
            "row": pa.array(self.place["row"][clip]),
            "frames": pa.array(self.place["frames"][clip]),
        }
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(
            [values[one.name] for one in fields],
            fields=fields,
            mask=None if without is None else pa.array(without),
        )

    def _references(self, clip: Ints, layout: Ints, kind: Any) -> "pa.Array[Any]":
        has = np.isin(layout, WITH_REFERENCE)
        starts = self.first[clip]
        counts = np.where(has, self.first[clip + 1] - starts, 0)
        ends = np.cumsum(counts)
        offsets = np.concatenate(([0], ends))
        numbers = np.arange(offsets[-1]) + np.repeat(starts - (ends - counts), counts)
        places = self._places(self.lender[numbers], kind.value_type)
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), places, type=kind)
