"""`python -m tests.benchmarks.bench_scaling`: how the engine scales, with sleepers in the models' place.

Workers: the curate phase's dear stages as sleepers that take as long as the models were measured to take,
in one fused pool as in the embedded profile, from 1 to 64 workers that sleep most of their time. What is
left between them and the ideal is the engine: feeding, scheduling, committing, ending together.

Memory: what the driver holds, in a process of its own for each figure. A plan of made-up sources, up to
10^6; and a run over units without work.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from pipeline.capacity import PoolConfig
from pipeline.engine import EngineConfig, ray_session, run_units
from pipeline.storage import Corpus
from tests.benchmarks.driver_memory import plan, plan_anew, run_without_work, show_memory
from tests.benchmarks.sleepers import UNIT_S, Sleeper, made_up_units, phase_of
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
LEAST_EFFICIENT = 0.9
PLANNED = (1_000, 10_000, 100_000, 1_000_000)
RUN = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaled:
    """One run of sleepers."""

    workers: int
    units: int
    unit_s: float
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
    parser.add_argument("--unit-s", type=float, default=UNIT_S, help="seconds of audio in a unit")
    parser.add_argument("--planned", type=int, nargs="*", default=PLANNED)
    parser.add_argument("--run", type=int, default=RUN, help="units; 0 for none")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out", help="emptied first")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 110)
    out = options.out.resolve()
    runs = []
    for workers in options.workers:
        fresh_folder(out)
        runs.append(alone(sleep, workers, options.rounds, options.unit_s, out))
        console.print(runs[-1])
    if runs:
        show_scaling(console, runs)
    if options.planned:
        found = [(n, alone(plan, n)) for n in options.planned]
        show_memory(console, "plan: sources to units", found)
        found = [(n, alone(plan_anew, n)) for n in options.planned]
        show_memory(console, "plan of a later phase: clips to units", found)
    if options.run:
        fresh_folder(out)
        show_memory(console, "run: units without work", alone(run_without_work, options.run, out))
    shutil.rmtree(out, ignore_errors=True)
    return 0


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The same in a process of its own, whose memory nothing else has used before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def fresh_folder(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    (out / "gate").mkdir(parents=True)


def sleep(workers: int, rounds: int, unit_s: float, out: Path) -> Scaled:
    """Run `rounds` units of `unit_s` seconds of audio for each worker."""
    busy = busy_cores()
    gate = out / "gate"
    stages = [
        Sleeper(name, cost, gate, workers if index == 0 else 0)
        for index, (name, cost) in enumerate(COSTS.items())
    ]
    cost = unit_s * sum(COSTS.values())
    pool = PoolConfig(workers=workers, num_cpus=1 / workers)
    units = list(made_up_units(workers * rounds, unit_s))
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
        unit_s=unit_s,
        wall_s=wall_s,
        ideal_s=rounds * cost,
        driver_cpu=(sum(me.cpu_times()[:2]) - used) / wall_s,
        busy_before=busy,
    )


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
            f"{run.units * run.unit_s / run.wall_s:,.0f}",
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


if __name__ == "__main__":
    sys.exit(main())
