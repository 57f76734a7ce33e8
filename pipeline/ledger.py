"""What a phase has done so far, unit by unit and item by item."""

import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.shelf import temporary_database


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One piece of work inside a unit, and how it ended."""

    item_id: str
    uri: str
    status: str
    """`done` or `quarantined`."""
    duration_s: float
    facts: dict[str, Any] = field(default_factory=dict)
    """What the phase needs to plan the next run without opening the source again."""

    @property
    def done(self) -> bool:
        """Whether its rows are in the tables."""
        return self.status == "done"


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitRecord:
    """A finished unit, as its commit marker keeps it."""

    unit_id: str
    attempt: int
    items: tuple[Item, ...]
    rows: dict[str, int]
    """Rows written per table."""
    seconds: dict[str, float]
    """Wall seconds of one worker, per stage."""


class Ledger(Mapping[str, tuple[int, Item]]):
    """How every item ended at its last attempt: item id → (attempt, item).

    It lies on disk: a corpus may have millions of items.
    """

    def __init__(self, units: Iterable[UnitRecord] = ()) -> None:
        self._db = temporary_database(
            "CREATE TABLE items (item_id PRIMARY KEY, attempt, uri, done, source, place, item)",
            "CREATE INDEX by_uri ON items (uri)",
            "CREATE INDEX by_source ON items (source, place)",
        )
        self._db.executemany(
            "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (item_id) DO UPDATE SET attempt = excluded.attempt, uri = excluded.uri, "
            "done = excluded.done, source = excluded.source, place = excluded.place, "
            "item = excluded.item WHERE excluded.attempt > attempt",
            (_row(unit.attempt, item) for unit in units for item in unit.items),
        )
        # A source that was mended has other items now; what was broken before is overtaken.
        self._db.execute(
            "DELETE FROM items WHERE NOT done AND EXISTS (SELECT 1 FROM items AS healthy "
            "WHERE healthy.uri = items.uri AND healthy.done "
            "AND healthy.source IS NOT items.source)"
        )

    def __len__(self) -> int:
        [[count]] = self._db.execute("SELECT count(*) FROM items")
        return int(count)

    def __iter__(self) -> Iterator[str]:
        for (item_id,) in self._db.execute("SELECT item_id FROM items ORDER BY rowid"):
            yield item_id

    def __getitem__(self, item_id: str) -> tuple[int, Item]:
        query = "SELECT attempt, item FROM items WHERE item_id = ?"
        if (found := self._db.execute(query, (item_id,)).fetchone()) is None:
            raise KeyError(item_id)
        return found[0], pickle.loads(found[1])

    def of_source(self, source: str) -> list[Item]:
        """The items of a source, in order, if a former run finished all of it; else none.

        source: its fingerprint, as the items' facts have it.
        """
        query = "SELECT item FROM items WHERE source = ? ORDER BY place"
        items: list[Item] = [pickle.loads(item) for (item,) in self._db.execute(query, (source,))]
        whole = items and [item.facts["index"] for item in items] == list(
            range(items[0].facts["num_chunks"])
        )
        return items if whole else []


def _row(attempt: int, item: Item) -> tuple[Any, ...]:
    source, place = item.facts.get("source"), item.facts.get("index")
    return item.item_id, attempt, item.uri, item.done, source, place, pickle.dumps(item)
