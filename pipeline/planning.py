"""The plan of a run: every source as items, items as units, minus what is committed.

Grouping looks at all sources, finished ones too, so that a resumed run forms the very same units
as the run before it: a unit's result may depend on its items, never on when it ran.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import ray

from pipeline.audio import ChunkPlan
from pipeline.ledger import Item, Ledger
from pipeline.shelf import Key, Shelf
from pipeline.sources import Source
from pipeline.survey import Surveyed, survey
from pipeline.work import Unit, WorkItem
from schemas.errors import DataError, DuplicateRecording
from schemas.ids import content_id

# Sources surveyed in one Ray task: enough to pay for the task, few enough to spread.
SOURCES_PER_TASK = 16
TASKS_PER_CPU = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """A source that cannot become audio; reading it raises the reason."""

    error: DataError


def fingerprint(source: Source) -> str:
    """What tells that a uri still holds the bytes that a former run saw."""
    return content_id(source.uri, source.size_bytes or 0, source.modified or "")


def survey_all(sources: Collection[Source], chunk_s: float) -> Shelf[Surveyed | Broken]:
    """Hash, probe and cut every source, in parallel: fingerprint → outcome. Needs Ray."""
    return Shelf(_surveyed(sources, chunk_s))


def key_of(source: Source) -> Key:
    """Where the survey of a source lies on its shelf."""
    return fingerprint(source), ""


def _surveyed(sources: Iterable[Source], chunk_s: float) -> Iterator[tuple[Key, Surveyed | Broken]]:
    @ray.remote(num_cpus=1)
    def task(batch: Sequence[Source]) -> list[tuple[Key, Surveyed | Broken]]:
        return [(key_of(source), _survey(source, chunk_s)) for source in batch]

    cpus = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
    at_once = max(1, int(TASKS_PER_CPU * cpus))
    waiting: list[ray.ObjectRef[Any]] = []
    every = iter(sources)
    while batch := list(islice(every, SOURCES_PER_TASK)):
        waiting.append(task.remote(batch))
        if len(waiting) == at_once:
            [done], waiting = ray.wait(waiting)
            yield from ray.get(done)
    for done in waiting:
        yield from ray.get(done)


def _survey(source: Source, chunk_s: float) -> Surveyed | Broken:
    try:
        return survey(source, chunk_s)
    except DataError as error:
        return Broken(error=error)


def items_of(
    sources: Iterable[Source], surveyed: Shelf[Surveyed | Broken], ledger: Ledger
) -> Iterator[WorkItem]:
    """Every source's items in the order of the sources; a second copy of some bytes is broken.

    ledger: knows the items of the sources that were not surveyed.
    """
    first_uri: Shelf[str] = Shelf()
    for source in sources:
        outcome = surveyed.get(key_of(source))
        if outcome is not None:
            yield from _items_of_one(source, fingerprint(source), outcome, first_uri)
            continue
        for item in ledger.of_source(fingerprint(source)):
            first_uri.setdefault((item.facts["recording_id"], ""), item.uri)
            yield WorkItem(
                item_id=item.item_id,
                uri=item.uri,
                duration_s=item.facts["planned_s"],
                plan=None,
                facts=item.facts,
            )


def _items_of_one(
    source: Source, key: str, outcome: Surveyed | Broken, first_uri: Shelf[str]
) -> list[WorkItem]:
    facts = {"source": key, "index": 0, "num_chunks": 1, "recording_id": key, "planned_s": 0.0}
    if isinstance(outcome, Surveyed):
        owner = first_uri.setdefault((outcome.recording_id, ""), source.uri)
        if owner == source.uri:
            return [
                _item_of_chunk(source, key, plan, len(outcome.chunks)) for plan in outcome.chunks
            ]
        duration_s = sum(plan.duration_s for plan in outcome.chunks)
        facts["planned_s"] = duration_s
        outcome = Broken(
            error=DuplicateRecording(f"holds the same bytes as {owner}, which is in the corpus")
        )
    return [
        WorkItem(
            # By uri alone: the next bytes at this place are another attempt at the same item.
            item_id=content_id("source", source.uri),
            uri=source.uri,
            duration_s=facts["planned_s"],  # type: ignore[arg-type]
            plan=outcome,
            facts=facts,
        )
    ]


def _item_of_chunk(source: Source, key: str, plan: ChunkPlan, num_chunks: int) -> WorkItem:
    return WorkItem(
        item_id=f"{plan.recording_id}-{plan.index:05d}",
        uri=source.uri,
        duration_s=plan.duration_s,
        plan=plan,
        facts={
            "source": key,
            "index": plan.index,
            "num_chunks": num_chunks,
            "recording_id": plan.recording_id,
            "planned_s": plan.duration_s,
        },
    )


def units_of(items: Iterable[WorkItem], unit_s: float) -> Iterator[Unit]:
    """Neighbouring items grouped to about `unit_s` seconds of audio each.

    Short recordings share a unit, since models work in windows of 9 to 30 s and a commit has its
    price; a longer item is a unit of its own.
    """
    group: list[WorkItem] = []
    length_s = 0.0
    for item in items:
        if group and (length_s >= unit_s or item.duration_s >= unit_s):
            yield Unit(items=tuple(group))
            group, length_s = [], 0.0
        group.append(item)
        length_s += item.duration_s
    if group:
        yield Unit(items=tuple(group))


def still_to_do(
    units: Iterable[Unit], ledger: Mapping[str, tuple[int, Item]], *, retry: bool
) -> Iterator[Unit]:
    """Units without the items that are done (and, unless `retry`, without quarantined ones)."""
    for unit in units:
        before = {item.item_id: ledger.get(item.item_id) for item in unit.items}
        items = tuple(
            item for item in unit.items if _is_open(item, before[item.item_id], retry=retry)
        )
        attempts = [found[0] for item in items if (found := before[item.item_id])]
        if items:
            yield replace(unit, items=items, attempt=1 + max(attempts, default=0))


def _is_open(item: WorkItem, found: tuple[int, Item] | None, *, retry: bool) -> bool:
    if found is None:
        return True
    before = found[1]
    return not before.done and (retry or before.facts["source"] != item.facts["source"])
