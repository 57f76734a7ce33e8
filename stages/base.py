"""What a stage is.

Settings, maths, wiring: a frozen config, pure functions, and a class that opens its model once
per worker. A stage sees rows and arrays; it knows neither Ray nor files nor other stages.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

Row = TypeVar("Row")


class Stage(Protocol[Row]):
    """One step over a batch of rows.

    `process` may run twice on one batch: it remembers nothing, changes none of its input and
    returns as many rows as it was given, in the same order. It raises a `DataError` for a row
    that cannot be judged; the engine then halves the batch until that row stands alone.
    The constructor only stores settings, so a stage pickles.
    """

    @property
    def name(self) -> str:
        """Name in profiles, in `--set name.field=value` and in the seconds-per-stage table."""
        ...

    def setup(self) -> None:
        """Open models, once per worker. Raises `ModelLoadError`."""
        ...

    def process(self, batch: Sequence[Row]) -> list[Row]:
        """Return the batch with more measured."""
        ...
