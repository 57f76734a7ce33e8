"""A table's light columns in memory, and views of them in a fraction of a second."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.browse.query import WITHOUT_VALUE, Condition, Query
from schemas.errors import ConfigError

PAGE_ROWS = 50
# What a query finds in a million clips is up to 4 MB.
_KEPT = 16

Rows = npt.NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One page of what a query finds."""

    rows: Sequence[dict[str, Any]]
    total: int
    hours: float
    """Of all that is found."""
    page: int
    pages: int


class Catalog:
    """Answers queries. May be called from threads.

    rows: of one table, with `clip_id`, `duration_s`, `text`, `language`, `accepted`, `reasons`,
    `review` and `part` among the columns; audio, words and embeddings left out.
    """

    def __init__(self, name: str, rows: pl.DataFrame, shown: Sequence[str]) -> None:
        """name: of the table. shown: the columns of a page's table."""
        self.name = name
        self.shown = tuple(shown)
        self._rows = rows.with_columns(
            # Half the memory, and more digits than any score has.
            pl.selectors.float().fill_nan(None).cast(pl.Float32),
            pl.col("part").cast(pl.Categorical),
        )
        self._lock = threading.Lock()
        self._matches: OrderedDict[Hashable, Rows] = OrderedDict()
        self._orders: OrderedDict[Hashable, Rows] = OrderedDict()
        self.columns = [name for name in rows.columns if name != "part"]
        self.numbers = {name for name in self.columns if self._kind(name) == "number"}
        self.languages = sorted(rows["language"].drop_nulls().unique())
        self.reasons = sorted(rows["reasons"].explode().drop_nulls().unique())

    def __len__(self) -> int:
        return self._rows.height

    def view(self, query: Query) -> View:
        """A page. Raises `ConfigError` where a condition does not fit its column."""
        with self._lock:
            wanted = (query.search.lower(), frozenset(query.conditions))
            found = _kept(self._matches, wanted, lambda: self._matching(query))
            key = (wanted, query.sort, query.descending)
            ordered = _kept(self._orders, key, lambda: self._ordered(found, query))
            pages = max(1, math.ceil(len(found) / PAGE_ROWS))
            page = min(query.page, pages)
            rows = self._rows[ordered[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]]
            seconds = float(self._rows["duration_s"].gather(found).cast(pl.Float64).sum())
        return View(
            rows=rows.to_dicts(), total=len(found), hours=seconds / 3600, page=page, pages=pages
        )

    def clip(self, clip_id: str) -> dict[str, Any] | None:
        """One row; None for an id that is not here."""
        return next(self._rows.filter(clip_id=clip_id).iter_rows(named=True), None)

    def review(self, clip_id: str, review: str | None) -> None:
        """Show a mark, or none."""
        with self._lock:
            self._rows = self._rows.with_columns(
                pl.when(clip_id=clip_id).then(pl.lit(review)).otherwise("review").alias("review")
            )
            self._matches.clear()
            self._orders.clear()

    def _matching(self, query: Query) -> Rows:
        wanted = [self._meets(condition) for condition in query.conditions]
        if query.search:
            wanted.append(_containing(pl.col("text"), query.search))
        found = self._rows.select(
            pl.all_horizontal(pl.lit(True), *wanted).fill_null(False).alias("found")
        )["found"]
        if len(found) != self._rows.height:  # without any condition it is a single value
            found = found.new_from_index(0, self._rows.height)
        return np.flatnonzero(found.to_numpy()).astype(np.uint32)

    def _ordered(self, found: Rows, query: Query) -> Rows:
        if not query.sort:
            return found
        if self._kind(query.sort) == "list":
            raise ConfigError(f"{query.sort} holds lists, which have no order")
        order = self._rows.select(pl.col(query.sort).gather(found)).select(
            pl.arg_sort_by(
                query.sort, descending=query.descending, nulls_last=True, maintain_order=True
            )
        )
        rows: Rows = found[order.to_series().to_numpy()]
        return rows

    def _kind(self, column: str) -> str:
        if column not in self.columns:
            raise ConfigError(f"{self.name} have no column {column}")
        held = self._rows.schema[column]
        if held.is_numeric():
            return "number"
        if held == pl.Boolean:
            return "boolean"
        return "list" if held.is_nested() else "text"

    def _meets(self, condition: Condition) -> pl.Expr:
        kind, column = self._kind(condition.column), pl.col(condition.column)
        if condition.operator in WITHOUT_VALUE:
            empty = column.is_null()
            if kind == "list":
                empty = empty | (column.list.len() == 0)
            elif kind == "text":
                empty = empty | (column == "")
            return empty if condition.operator == "is empty" else ~empty
        if kind == "list":
            return _of_list(condition, column)
        if kind == "text":
            return _of_text(condition, column)
        if kind == "boolean":
            return _of_boolean(condition, column)
        return _of_number(condition, column, self._rows.schema[condition.column])


def _of_list(condition: Condition, column: pl.Expr) -> pl.Expr:
    if condition.operator != "contains":
        raise _unfit(condition, "lists", "contains")
    return column.list.contains(condition.value)


def _of_text(condition: Condition, column: pl.Expr) -> pl.Expr:
    if condition.operator == "contains":
        return _containing(column, condition.value)
    if condition.operator == "is":
        return column == condition.value
    if condition.operator == "is not":
        return column.ne_missing(condition.value)
    raise _unfit(condition, "text", "contains, is, is not")


def _of_boolean(condition: Condition, column: pl.Expr) -> pl.Expr:
    if condition.operator not in ("is", "is not") or condition.value not in ("true", "false"):
        raise _unfit(condition, "true or false", "is true, is false")
    wanted = condition.value == "true"
    return column == wanted if condition.operator == "is" else column.ne_missing(wanted)


def _of_number(condition: Condition, column: pl.Expr, held: pl.DataType) -> pl.Expr:
    try:
        number = float(condition.value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise ConfigError(f"{condition.column} holds numbers, got {condition.value!r}")
    # Compared as it is stored, so that what the page shows can be asked for.
    limit = pl.lit(number, held if held.is_float() else pl.Float64)
    if condition.operator == "at least":
        return column >= limit
    if condition.operator == "at most":
        return column <= limit
    if condition.operator == "is":
        return column == limit
    if condition.operator == "is not":
        return column.ne_missing(limit)
    raise _unfit(condition, "numbers", "at least, at most, is, is not")


def _containing(column: pl.Expr, text: str) -> pl.Expr:
    """Whatever the case."""
    return column.str.contains(f"(?i){pl.escape_regex(text)}")


def _unfit(condition: Condition, kind: str, operators: str) -> ConfigError:
    return ConfigError(
        f"{condition.column} holds {kind}: ask for {operators}, is empty or is not empty"
    )


def _kept(kept: OrderedDict[Hashable, Rows], key: Hashable, make: Callable[[], Rows]) -> Rows:
    if key not in kept:
        kept[key] = make()
        while len(kept) > _KEPT:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]
