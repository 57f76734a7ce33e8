"""What the driver holds of a plan and of a run, for `bench_scaling`."""

from collections.abc import Sequence
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

import pipeline.engine
from pipeline.audio import ChunkPlan
from pipeline.capacity import PoolConfig
from pipeline.engine import EngineConfig, ray_session, run_units
from pipeline.planning import fingerprint, items_of, still_to_do, units_of
from pipeline.sources import Source
from pipeline.storage import Corpus
from pipeline.survey import Surveyed
from schemas.ids import content_id
from tests.benchmarks.sleepers import UNIT_S, Sleeper, made_up_units, phase_of

BLOCKS_AT_ONCE = 400
"""In the measured run, so that minutes see ten datasets."""


def plan(count: int) -> float:
    """MB that a plan of `count` recordings of one unit each adds to the driver, from sources on."""
    before = held_mb()
    sources = [
        Source(
            uri=f"s3://recordings/show-{i // 100:05d}/episode-{i:07d}.flac",
            size_bytes=10_000_000 + i,
            modified=f"1790000000{i:09d}",
            session_id=f"recordings/show-{i // 100:05d}",
        )
        for i in range(count)
    ]
    surveyed = {fingerprint(source): _surveyed(source) for source in sources}
    items = items_of(sources, surveyed, {})
    units = still_to_do(units_of(items, UNIT_S), {}, retry=False)
    assert len(units) == count
    return held_mb() - before


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
    """Units done, and MB that the driver held more than after the first dataset."""
    pipeline.engine.BLOCKS_AT_ONCE = BLOCKS_AT_ONCE
    engine = EngineConfig(pools={"cpu": PoolConfig(workers=2)})
    units = made_up_units(count)
    found = []
    with ray_session(engine):
        before = 0.0
        phase = phase_of([Sleeper("none", 0.0, out / "gate", 0)])
        for done, _ in enumerate(run_units(phase, units, Corpus(str(out)), engine), start=1):
            if done % BLOCKS_AT_ONCE == 0:
                before = before or held_mb()
                found.append((done, held_mb() - before))
    return found


def held_mb() -> float:
    """Memory of this process that no other shares."""
    return float(psutil.Process().memory_full_info().uss) / 2**20


def show_memory(console: Console, title: str, found: Sequence[tuple[int, float]]) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("units", "MB more in the driver", "bytes a unit"):
        table.add_column(heading, justify="right")
    for units, mb in found:
        table.add_row(f"{units:,}", f"{mb:,.1f}", f"{mb * 2**20 / units:,.0f}")
    console.print(table)
