"""`python -m tests.benchmarks.bench_scaling`: how the engine scales, with sleepers in the models' place.

Workers: the curate phase's dear stages as sleepers that take as long as the models were measured to take,
in one fused pool as in the embedded profile, from 1 to 64 workers that sleep most of their time. What is
left between them and the ideal is the engine: feeding, scheduling, committing, ending together.

Memory: what the driver holds, in a process of its own for each figure. A plan of made-up sources, up to
10^6; and a run over units without work, whose growth from block to block says what a longer run takes.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
from ray import cloudpickle
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
from pipeline.work import Phase, Unit, WorkItem
from schemas.ids import content_id
from schemas.rows import Recording
from tests.benchmarks.systems import ROOT, busy_cores

WORKERS = (1, 2, 4, 8, 16, 32, 64)
# Seconds of one worker for a second of audio, from RESULTS.md's floor: two workers' wall seconds for
# 20.3 minutes.
COSTS = {
    stage: 2 * seconds / (20.3 * 60)
    for stage, seconds in (
        ("vad", 1.1),
        ("transcription", 21.6),
        ("dnsmos", 34.9),
        ("speaker", 2.9),
    )
}
UNIT_S = 60.0
LEAST_EFFICIENT = 0.9
PLANNED = (1_000, 10_000, 100_000, 1_000_000)
RUN = (1_000, 10_000)
BLOCKS_AT_ONCE = 1_000
"""In the measured run, so that a few minutes see ten datasets."""


class Sleeper:
    """A stage that takes as long as its model."""

    def __init__(self, name: str, seconds_per_second: float, gate: Path, workers: int) -> None:
        self.name = name
        self.seconds_per_second = seconds_per_second
        self.gate = gate
        self.workers = workers

    def setup(self) -> None:
        """Wait until every worker is there: what their start costs is not the question."""
        if not self.workers:
            return
        (self.gate / content_id(self.name, time.time_ns(), psutil.Process().pid)).touch()
        while len(list(self.gate.iterdir())) < self.workers:
            time.sleep(0.2)

    def process(self, batch: Sequence[float]) -> list[float]:
        time.sleep(self.seconds_per_second * sum(batch))
        return list(batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaled:
    """One run of sleepers."""

    workers: int
    units: int
    wall_s: float
    """From the moment when all workers were there to the last commit."""
    ideal_s: float
    driver_cpu: float
    """Cores that the driver kept busy."""
    busy_before: float

    @property
    def efficiency(self) -> float:
        """Ideal over measured."""
        return self.ideal_s / self.wall_s


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both tables. A bar that is missed is printed, since machines differ."""
    parser = argparse.ArgumentParser(prog="bench_scaling", description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="*", default=WORKERS)
    parser.add_argument("--rounds", type=int, default=8, help="units for each worker")
    parser.add_argument("--planned", type=int, nargs="*", default=PLANNED)
    parser.add_argument("--run", type=int, nargs="*", default=RUN)
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out", help="emptied first")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 110)
    out = options.out.resolve()
    for workers in options.workers:
        fresh_folder(out)
        show_scaling(console, [alone(sleep, workers, options.rounds, out)])
    show_memory(console, "plan: sources to units", [(n, alone(plan, n)) for n in options.planned])
    for n in options.run:
        fresh_folder(out)
        show_memory(console, "run: units without work", alone(run_without_work, n, out))
    shutil.rmtree(out)
    return 0


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The same in a process of its own, whose memory nothing else has used before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def fresh_folder(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    (out / "gate").mkdir(parents=True)


# ---------------------------------------------------------------- workers


def sleep(workers: int, rounds: int, out: Path) -> Scaled:
    """Run `rounds` units for each worker."""
    busy = busy_cores()
    gate = out / "gate"
    stages = [
        Sleeper(name, cost, gate, workers if index == 0 else 0)
        for index, (name, cost) in enumerate(COSTS.items())
    ]
    cost = UNIT_S * sum(COSTS.values())
    pool = PoolConfig(workers=workers, num_cpus=1 / workers)
    units = made_up_units(workers * rounds)
    engine = EngineConfig(pools={"cpu": pool})
    me = psutil.Process()
    used = 0.0
    with ray_session(engine):
        for number, _ in enumerate(run_units(phase_of(stages), units, Corpus(str(out)), engine)):
            if not number:
                used = sum(me.cpu_times()[:2])
        ended = time.time()
    started = max(path.stat().st_mtime for path in gate.iterdir())
    wall_s = ended - started
    return Scaled(
        workers=workers,
        units=len(units),
        wall_s=wall_s,
        ideal_s=rounds * cost,
        driver_cpu=(sum(me.cpu_times()[:2]) - used) / wall_s,
        busy_before=busy,
    )


def phase_of(stages: Sequence[Sleeper]) -> Phase:
    """A phase that reads nothing and leaves one row for each item."""
    # Workers do not have the tests on their path.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return Phase(
        name="scaling",
        read=float,
        stages=tuple(stages),
        placement={},
        write=recording_of,
        measure=float,
    )


def recording_of(plan: float, row: float | None) -> Mapping[str, Sequence[Any]]:
    recording = Recording(
        recording_id=content_id(time.time_ns()),
        uri="made up",
        session_id="made up",
        duration_s=plan,
        sample_rate=16_000,
        channels=1,
        codec="PCM_16",
        size_bytes=1,
        num_chunks=1,
    )
    return {"recordings": [recording]}


def made_up_units(count: int) -> list[Unit]:
    return [
        Unit(items=(WorkItem(item_id=f"{i:07d}", uri=f"{i}", duration_s=UNIT_S, plan=UNIT_S),))
        for i in range(count)
    ]


def show_scaling(console: Console, runs: Sequence[Scaled]) -> None:
    table = Table(title="sleeping workers", title_justify="left")
    for heading in (
        "workers",
        "units",
        "s",
        "ideal s",
        "× real time",
        "efficiency",
        "driver",
        "busy",
    ):
        table.add_column(heading, justify="right")
    for run in runs:
        table.add_row(
            str(run.workers),
            str(run.units),
            f"{run.wall_s:.1f}",
            f"{run.ideal_s:.1f}",
            f"{run.units * UNIT_S / run.wall_s:,.0f}",
            f"{run.efficiency:.1%}",
            f"{run.driver_cpu:.2f}",
            f"{run.busy_before:.1f}",
        )
    console.print(table)
    for run in runs:
        verdict = "PASS" if run.efficiency >= LEAST_EFFICIENT else "FAIL"
        console.print(
            f"{verdict:5} {run.workers} workers: {run.efficiency:.1%} (bar {LEAST_EFFICIENT:.0%})"
        )


# ---------------------------------------------------------------- memory


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


if __name__ == "__main__":
    sys.exit(main())
