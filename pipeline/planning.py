"""The plan of a run: every source as items, items as units, minus what is committed.

Grouping looks at all sources, finished ones too, so that a resumed run forms the very same units
as the run before it: a unit's result may depend on its items, never on when it ran.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from pipeline.audio import ChunkPlan
from pipeline.sources import Source
from pipeline.storage import Item
from pipeline.survey import Surveyed, survey
from pipeline.work import Unit, WorkItem
from schemas.errors import DataError, DuplicateRecording
from schemas.ids import content_id

# Sources surveyed in one Ray task: enough to pay for the task, few enough to spread.
SOURCES_PER_TASK = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """A source that cannot become audio; reading it raises the reason."""

    error: DataError


Ledger = Mapping[str, tuple[int, Item]]
"""Item id → (attempt, item), as `Corpus.latest_items` gives it."""


def fingerprint(source: Source) -> str:
    """What tells that a uri still holds the bytes that a former run saw."""
    return content_id(source.uri, source.size_bytes or 0, source.modified or "")


def known_sources(ledger: Ledger) -> dict[str, list[Item]]:
    """Sources that a former run finished in whole: fingerprint → their items in order."""
    by_source: dict[str, list[Item]] = {}
    for _, item in ledger.values():
        by_source.setdefault(item.facts["source"], []).append(item)
    whole = {}
    for key, items in by_source.items():
        items.sort(key=lambda item: item.facts["index"])
        if [item.facts["index"] for item in items] == list(range(items[0].facts["num_chunks"])):
            whole[key] = items
    return whole


def survey_all(sources: Sequence[Source], chunk_s: float) -> dict[str, Surveyed | Broken]:
    """Hash, probe and cut every source, in parallel: fingerprint → outcome. Needs Ray."""

    @ray.remote(num_cpus=1)
    def task(batch: Sequence[Source]) -> list[Surveyed | Broken]:
        return [_survey(source, chunk_s) for source in batch]

    batches = [sources[i : i + SOURCES_PER_TASK] for i in range(0, len(sources), SOURCES_PER_TASK)]
    outcomes: list[list[Surveyed | Broken]] = ray.get([task.remote(batch) for batch in batches])
    flat = [outcome for batch in outcomes for outcome in batch]
    return {fingerprint(source): o for source, o in zip(sources, flat, strict=True)}


def _survey(source: Source, chunk_s: float) -> Surveyed | Broken:
    try:
        return survey(source, chunk_s)
    except DataError as error:
        return Broken(error=error)


def items_of(
    sources: Sequence[Source],
    surveyed: Mapping[str, Surveyed | Broken],
    known: Mapping[str, list[Item]],
) -> list[WorkItem]:
    """Every source's items in the order of the sources; a second copy of some bytes is broken."""
    first_uri: dict[str, str] = {}
    items: list[WorkItem] = []
    for source in sources:
        key = fingerprint(source)
        if key in surveyed:
            found = _items_of_one(source, key, surveyed[key], first_uri)
        else:
            found = [
                WorkItem(
                    item_id=item.item_id,
                    uri=item.uri,
                    duration_s=item.facts["planned_s"],
                    plan=None,
                    facts=item.facts,
                )
                for item in known[key]
            ]
            for item in known[key]:
                first_uri.setdefault(item.facts["recording_id"], item.uri)
        items += found
    return items


def _items_of_one(
    source: Source, key: str, outcome: Surveyed | Broken, first_uri: dict[str, str]
) -> list[WorkItem]:
    facts = {"source": key, "index": 0, "num_chunks": 1, "recording_id": key, "planned_s": 0.0}
    if isinstance(outcome, Surveyed):
        owner = first_uri.setdefault(outcome.recording_id, source.uri)
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


def units_of(items: Iterable[WorkItem], unit_s: float) -> list[Unit]:
    """Neighbouring items grouped to about `unit_s` seconds of audio each.

    Short recordings share a unit, since models work in windows of 9 to 30 s and a commit has its
    price; a longer item is a unit of its own.
    """
    units: list[Unit] = []
    group: list[WorkItem] = []
    length_s = 0.0
    for item in items:
        if group and (length_s >= unit_s or item.duration_s >= unit_s):
            units.append(Unit(items=tuple(group)))
            group, length_s = [], 0.0
        group.append(item)
        length_s += item.duration_s
    return [*units, Unit(items=tuple(group))] if group else units


def still_to_do(units: Iterable[Unit], ledger: Ledger, *, retry: bool) -> list[Unit]:
    """Units without the items that are done (and, unless `retry`, without quarantined ones)."""
    left = []
    for unit in units:
        items: tuple[WorkItem, ...] = tuple(
            item for item in unit.items if _is_open(item, ledger, retry=retry)
        )
        attempts: list[Any] = [ledger[i.item_id][0] for i in items if i.item_id in ledger]
        if items:
            left.append(replace(unit, items=items, attempt=1 + max(attempts, default=0)))
    return left


def _is_open(item: WorkItem, ledger: Ledger, *, retry: bool) -> bool:
    if item.item_id not in ledger:
        return True
    before = ledger[item.item_id][1]
    return not before.done and (retry or before.facts["source"] != item.facts["source"])
