"""What a plan holds of a million sources: on disk, in order, one in memory at a time."""

import pickle
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
Key = tuple[str | float, str]


class Shelf(Collection[T], Generic[T]):
    """Things by key, iterated in the order of their keys. They must pickle.

    They lie in a temporary SQLite file that ends with the process.
    """

    def __init__(self, pairs: Iterable[tuple[Key, T]] = ()) -> None:
        """A later thing takes the place of an earlier one with its key."""
        self._db = temporary_database("CREATE TABLE shelf (a, b, thing, PRIMARY KEY (a, b))")
        self._db.executemany(
            "INSERT OR REPLACE INTO shelf VALUES (?, ?, ?)",
            ((*key, pickle.dumps(thing, protocol=5)) for key, thing in pairs),
        )

    def __len__(self) -> int:
        [[count]] = self._db.execute("SELECT count(*) FROM shelf")
        return int(count)

    def __iter__(self) -> Iterator[T]:
        for (thing,) in self._db.execute("SELECT thing FROM shelf ORDER BY a, b"):
            yield pickle.loads(thing)

    def __contains__(self, thing: object) -> bool:
        return any(one == thing for one in self)

    def get(self, key: Key) -> T | None:
        """What lies under a key."""
        found = self._db.execute("SELECT thing FROM shelf WHERE a = ? AND b = ?", key).fetchone()
        return pickle.loads(found[0]) if found else None

    def setdefault(self, key: Key, thing: T) -> T:
        """What lies under a key; if nothing does, this."""
        there = self.get(key)
        if there is None:
            self._db.execute("INSERT INTO shelf VALUES (?, ?, ?)", (*key, pickle.dumps(thing)))
            return thing
        return there


def in_order(things: Iterable[T]) -> Shelf[T]:
    """Things in the order in which they come."""
    return Shelf(((place, ""), thing) for place, thing in enumerate(things))


def temporary_database(*tables: str) -> sqlite3.Connection:
    """An empty SQLite database in a file without a name, with some tables."""
    database = sqlite3.connect("", isolation_level=None)
    for statement in ("PRAGMA synchronous = OFF", "PRAGMA journal_mode = OFF", *tables):
        database.execute(statement)
    # Never committed: nobody else reads it, and each commit has its price.
    database.execute("BEGIN")
    return database
