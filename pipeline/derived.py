"""The plan of a phase that works on what the corpus already holds.

Its items have lasting ids (a session, a clip) and a fingerprint of what they are made from. An
item is done again, as a further attempt, when that fingerprint has changed; the rows of its
latest attempt are the ones that stand (`Corpus.read_standing`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.ledger import Ledger
from pipeline.work import Unit, WorkItem


@dataclass(frozen=True, kw_only=True, slots=True)
class Derived:
    """One item, before its attempt is known."""

    item_id: str
    uri: str
    """What a person knows it by, for quarantine."""
    fingerprint: str
    """Over everything that its rows depend on."""
    duration_s: float
    plan: Any
    """A dataclass with a field `attempt`, which is set here and goes into the item's rows."""
    size: int = 1
    """How much it adds to a unit."""


def due(items: Iterable[Derived], ledger: Ledger, *, retry: bool) -> list[tuple[Derived, int]]:
    """The items that are new, changed or (with `retry`) quarantined, and which attempt it is."""
    left = []
    for item in items:
        attempt, before = ledger.get(item.item_id, (0, None))
        unchanged = before is not None and before.facts["source"] == item.fingerprint
        if before is None or not unchanged or (retry and not before.done):
            left.append((item, attempt + 1))
    return left


def units_of(items: Sequence[tuple[Derived, int]], unit_size: int) -> list[Unit]:
    """Neighbouring items of the same attempt, grouped to about `unit_size`."""
    units: list[Unit] = []
    group: list[WorkItem] = []
    size = attempt = 0
    for item, its_attempt in items:
        if group and (size + item.size > unit_size or its_attempt != attempt):
            units.append(Unit(items=tuple(group), attempt=attempt))
            group, size = [], 0
        attempt = its_attempt
        size += item.size
        group.append(
            WorkItem(
                item_id=item.item_id,
                uri=item.uri,
                duration_s=item.duration_s,
                plan=replace(item.plan, attempt=attempt),
                facts={"source": item.fingerprint},
            )
        )
    return [*units, Unit(items=tuple(group), attempt=attempt)] if group else units
