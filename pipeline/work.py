"""What the engine runs: items grouped into units, units through pools of stages, rows to tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.guard import Failure
from pipeline.ledger import Item, UnitRecord
from pipeline.storage import Corpus
from schemas.arrow import TABLES
from schemas.ids import content_id
from schemas.rows import Quarantined
from stages.base import Stage


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkItem:
    """The smallest piece that can fail alone, such as one chunk of a recording."""

    item_id: str
    uri: str
    duration_s: float
    """Length of its audio as far as the plan knows; 0 where it does not."""
    plan: Any
    """What the phase's `read` turns into a row; pickles."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Kept in the commit marker for the next run's plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """Items that are processed and committed together, exactly once."""

    items: tuple[WorkItem, ...]
    attempt: int = 1

    @property
    def unit_id(self) -> str:
        """From the items' ids and the attempt, so the same plan finds the same unit again."""
        return content_id(*(item.item_id for item in self.items), self.attempt)

    @property
    def duration_s(self) -> float:
        """Seconds of audio in the unit."""
        return sum(item.duration_s for item in self.items)


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A named job: how an item becomes a row, what is measured on it, which tables it fills."""

    name: str
    read: Callable[[Any], Any]
    """Item plan → row. Module-level, so that it pickles. Raises `DataError`."""
    stages: tuple[Stage[Any], ...]
    placement: Mapping[str, str]
    """Stage name → pool name; stages that are not named run in the pool `cpu`."""
    write: Callable[[Any, Any | None], Mapping[str, Sequence[Any] | pa.Table]]
    """Item plan and its finished row (None: it failed) → rows per table; a table that can have
    thousands of rows per item takes them as an Arrow table."""
    measure: Callable[[Any], float]
    """Row → seconds of audio that were really there."""
    run: str = ""
    """Name of the record of the run that works; commits keep it."""


@dataclass(slots=True)
class Progress:
    """A unit on its way through the pools: rows so far, failures so far, seconds per stage."""

    unit: Unit
    rows: dict[str, Any]
    """Item id → row, for the items that still live."""
    failures: dict[str, Failure[Any]]
    seconds: dict[str, float]


def finish(phase: Phase, corpus: Corpus, block: Sequence[Progress]) -> list[UnitRecord]:
    """Commit a block of units and say how they ended."""
    tables: dict[str, list[Sequence[Any] | pa.Table]] = {}
    records = []
    for progress in block:
        counts: dict[str, int] = {}
        items = []
        for item in progress.unit.items:
            failed = progress.failures.get(item.item_id)
            row = progress.rows.get(item.item_id)
            duration_s = item.duration_s if failed else phase.measure(row)
            outcome = dict(phase.write(item.plan, row))
            if failed:
                outcome["quarantine"] = [_quarantined(phase, progress.unit, item, failed)]
            for table, rows in outcome.items():
                tables.setdefault(table, []).append(rows)
                counts[table] = counts.get(table, 0) + len(rows)
            items.append(
                Item(
                    item_id=item.item_id,
                    uri=item.uri,
                    status="done" if failed is None else "quarantined",
                    duration_s=duration_s,
                    facts=item.facts,
                )
            )
        records.append(
            UnitRecord(
                unit_id=progress.unit.unit_id,
                attempt=progress.unit.attempt,
                items=tuple(items),
                rows=counts,
                seconds={stage: round(value, 4) for stage, value in progress.seconds.items()},
            )
        )
    joined = {name: _joined(name, pieces) for name, pieces in tables.items()}
    corpus.commit(phase.name, records, joined, run=phase.run)
    return records


def _joined(name: str, pieces: Sequence[Sequence[Any] | pa.Table]) -> Sequence[Any] | pa.Table:
    """Rows of many items as one; Arrow if any of them are."""
    rows: list[Any] = []
    tables: list[pa.Table] = []
    for piece in pieces:
        if isinstance(piece, pa.Table):
            tables.append(piece)
        else:
            rows.extend(piece)
    if not tables:
        return rows
    return pa.concat_tables([*tables, TABLES[name].to_arrow(rows)])


def _quarantined(phase: Phase, unit: Unit, item: WorkItem, failed: Failure[Any]) -> Quarantined:
    return Quarantined(
        unit_id=item.item_id,
        phase=phase.name,
        stage=failed.stage,
        error_type=failed.error_type,
        message=failed.message,
        traceback=failed.traceback,
        uri=item.uri,
        attempt=unit.attempt,
        duration_s=item.duration_s or None,
    )
