"""What the driver holds of a plan and of a run, for `bench_scaling`."""

import ctypes
import gc
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from jobs.annotate import ClipPlan
from pipeline import derived
from pipeline.audio import ChunkPlan
from pipeline.capacity import PoolConfig
from pipeline.derived import Derived
from pipeline.engine import EngineConfig, longest_first, ray_session, run_units
from pipeline.ledger import Item, Ledger, UnitRecord
from pipeline.planning import Broken, items_of, key_of, still_to_do, units_of
from pipeline.shelf import Shelf
from pipeline.sources import Source, shelved
from pipeline.storage import Corpus
from pipeline.survey import Surveyed
from pipeline.work import Unit
from schemas.ids import content_id
from tests.benchmarks.sleepers import UNIT_S, Sleeper, made_up_units, phase_of

UNITS_PER_COMMIT = 20
"""In the measured run: a million units are then 50,000 blocks, which are three datasets."""


def plan(count: int) -> float:
    """MB that a plan of `count` recordings of one unit each adds to the driver, from sources on.

    The second half of them is left to do: the first is in the ledger.
    """
    # SQLite's own pages.
    Shelf([(("", ""), None)])
    before = held_mb()
    sources = shelved(map(_source, range(count)))
    half = shelved(islice(sources, count // 2, None))
    done = units_of(items_of(sources, _surveys(sources), Ledger()), UNIT_S)
    ledger = Ledger(_record(unit) for unit in islice(done, count // 2))
    items = items_of(sources, _surveys(half), ledger)
    left = longest_first(still_to_do(units_of(items, UNIT_S), ledger, retry=False))
    assert len(left) == count - count // 2
    assert sum(1 for _ in left) == len(left)
    return held_mb() - before


def plan_anew(count: int) -> float:
    """MB that a later phase's plan of `count` clips adds; half of them have changed since."""
    Shelf([(("", ""), None)])
    before = held_mb()
    ledger = Ledger(
        _record(unit) for unit in derived.units_of(((_clip(i, "old"), 1) for i in range(count)), 60)
    )
    items = (_clip(i, "old" if i % 2 else "new") for i in range(count))
    units = longest_first(derived.units_of(derived.due(items, ledger, retry=False), 60))
    assert sum(len(unit.items) for unit in units) == count - count // 2
    return held_mb() - before


def _clip(i: int, fingerprint: str) -> Derived:
    clip_id = content_id(i)
    return Derived(
        item_id=clip_id,
        uri=f"s3://recordings/show-{i // 1000:05d}/episode-{i // 10:07d}.flac#t={i % 10},9",
        fingerprint=fingerprint,
        duration_s=6.0,
        plan=ClipPlan(corpus="s3://corpus", part=f"clips/{i // 500:06d}.parquet", clip_id=clip_id),
        size=7,
    )


def _source(i: int) -> Source:
    return Source(
        uri=f"s3://recordings/show-{i // 100:05d}/episode-{i:07d}.flac",
        size_bytes=10_000_000 + i,
        modified=f"1790000000{i:09d}",
        session_id=f"recordings/show-{i // 100:05d}",
    )


def _surveys(sources: Iterable[Source]) -> Shelf[Surveyed | Broken]:
    return Shelf((key_of(source), _surveyed(source)) for source in sources)


def _record(unit: Unit) -> UnitRecord:
    items = tuple(
        Item(
            item_id=item.item_id,
            uri=item.uri,
            status="done",
            duration_s=item.duration_s,
            facts=item.facts,
        )
        for item in unit.items
    )
    return UnitRecord(unit_id=unit.unit_id, attempt=1, items=items, rows={}, seconds={})


def _surveyed(source: Source) -> Surveyed:
    chunk = ChunkPlan(
        source=source,
        recording_id=content_id(source.uri),
        index=0,
        num_chunks=1,
        sample_rate=48_000,
        start_sample=0,
        end_sample=None,
        duration_s=UNIT_S,
    )
    return Surveyed(recording_id=chunk.recording_id, chunks=(chunk,))


def run_without_work(count: int, out: Path) -> list[tuple[int, float]]:
    """Units done, and MB that the driver held more than after the first 1,000 of them."""
    engine = EngineConfig(pools={"cpu": PoolConfig(workers=2)}, units_per_commit=UNITS_PER_COMMIT)
    units = longest_first(made_up_units(count))
    stops = {1_000 * 10**power for power in range(4)} | {count}
    found: list[tuple[int, float]] = []
    with ray_session(engine):
        before = 0.0
        phase = phase_of([Sleeper("none", 0.0, out / "gate", 0)])
        for done, _ in enumerate(run_units(phase, units, Corpus(str(out)), engine), start=1):
            if done in stops:
                before = before or held_mb()
                found.append((done, held_mb() - before))
    return found


def held_mb() -> float:
    """Memory of this process that no other shares, without what it only has not given back."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return float(psutil.Process().memory_full_info().uss) / 2**20


def show_memory(console: Console, title: str, found: Sequence[tuple[int, float]]) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("units", "MB more in the driver", "bytes a unit"):
        table.add_column(heading, justify="right")
    for units, mb in found:
        table.add_row(f"{units:,}", f"{mb:,.1f}", f"{mb * 2**20 / units:,.0f}")
    console.print(table)
