"""Run one stage over a batch so that a bad row costs itself alone."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure(Generic[Row]):
    """A row that a step could not process."""

    row: Row
    stage: str
    error_type: str
    message: str
    traceback: str


def guarded(
    stage: str, step: Callable[[Sequence[Row]], list[Row]], batch: Sequence[Row]
) -> tuple[list[Row], list[Failure[Row]]]:
    """Run a batch; when it raises, halve it until the bad rows stand alone.

    Returns the rows that passed, in their order, and the failures.
    """
    if not batch:
        return [], []
    try:
        done = step(batch)
    except Exception as error:  # noqa: BLE001 - a unit's failure must never end its neighbours
        if len(batch) == 1:
            return [], [failure(batch[0], stage, error)]
        middle = len(batch) // 2
        good, bad = guarded(stage, step, batch[:middle])
        more_good, more_bad = guarded(stage, step, batch[middle:])
        return good + more_good, bad + more_bad
    assert len(done) == len(batch), f"{stage} was given {len(batch)} rows and returned {len(done)}"
    return done, []


def failure(row: Row, stage: str, error: Exception) -> Failure[Row]:
    """An error as a row of quarantine will tell it."""
    return Failure(
        row=row,
        stage=stage,
        error_type=type(error).__name__,
        message=str(error) or type(error).__name__,
        traceback="".join(traceback.format_exception(error)),
    )
