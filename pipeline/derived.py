"""The plan of a phase that works on what the corpus already holds.

Its items have lasting ids (a session, a clip) and a fingerprint of what they are made from. An
item is done again, as a further attempt, when that fingerprint has changed; the rows of its
latest attempt are the ones that stand (`Corpus.read_standing`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.ledger import Item
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


Due = tuple[Derived, int]
"""An item that is to be done, and which attempt it is."""


def due(
    items: Iterable[Derived], ledger: Mapping[str, tuple[int, Item]], *, retry: bool
) -> Iterator[Due]:
    """The items that are new, changed or (with `retry`) quarantined, and which attempt it is."""
    for item in items:
        attempt, before = ledger.get(item.item_id, (0, None))
        unchanged = before is not None and before.facts["source"] == item.fingerprint
        if before is None or not unchanged or (retry and not before.done):
            yield item, attempt + 1


def units_of(items: Iterable[Due], unit_size: int) -> Iterator[Unit]:
    """Neighbouring items of the same attempt, grouped to about `unit_size`."""
    group: list[WorkItem] = []
    size = attempt = 0
    for item, its_attempt in items:
        if group and (size + item.size > unit_size or its_attempt != attempt):
            yield Unit(items=tuple(group), attempt=attempt)
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
    if group:
        yield Unit(items=tuple(group), attempt=attempt)
