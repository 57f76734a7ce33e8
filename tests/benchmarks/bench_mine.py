"""`make bench`: a million clips through `voxquarry mine`, and whether its cost grows with them.

The clips are made up, their tables are real: the command runs as a user runs it, from its start to
its end, Ray and the filter policy included. The floor is the products of the same embeddings alone,
by as many one-thread processes as there are cores. Making the clips is not counted.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from pipeline.storage import Corpus
from tests.benchmarks.synthetic_corpus import SIZE, make_corpus, session_sizes
from tests.benchmarks.systems import CORES, ROOT, busy_cores, fresh

MOST_S = 180.0
MOST_MB = 4096
CLIPS = 1_000_000
SMALLEST, LARGEST = 50, 5000
FIXED = 1000
"""Clips of each session where cost against clips is measured."""
BLOCK = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Mined:
    """One corpus, mined."""

    name: str
    clips: int
    sessions: int
    wall_s: float
    work_s: float
    """Seconds of it behind Ray's start: what grows with the clips."""
    peak_mb: float
    """Of the whole process tree; memory that processes share counts once."""
    pairs: int
    floor_s: float
    busy_before: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 1 when a run failed. A bar that is missed is printed, since machines differ."""
    parser = argparse.ArgumentParser(prog="bench_mine", description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=CLIPS, help="of the largest corpus")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out", help="emptied first")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 132)
    out = fresh(options.out.resolve())
    console.print(f"{CORES} cores; the bars were set for 2.")
    runs = [
        _measure(
            f"sessions of {SMALLEST}–{LARGEST:,}",
            session_sizes(options.clips, SMALLEST, LARGEST, seed=1),
            out,
        )
    ]
    for share in (16, 4, 1):
        num = options.clips // share // FIXED
        runs.append(_measure(f"sessions of {FIXED:,}", [FIXED] * num, out))
    show(console, runs)
    return 0


def show(console: Console, runs: Sequence[Mined]) -> None:
    """The table and the bars; the first run is the one that they are for."""
    table = Table(title="voxquarry mine", title_justify="left")
    table.add_column("corpus", no_wrap=True)
    headings = ("clips", "sessions", "wall s", "µs a clip", "floor s", "peak MB", "pairs", "busy")
    for heading in headings:
        table.add_column(heading, justify="right")
    for run in runs:
        table.add_row(
            run.name,
            f"{run.clips:,}",
            f"{run.sessions:,}",
            f"{run.wall_s:.1f}",
            f"{run.work_s / run.clips * 1e6:.0f}",
            f"{run.floor_s:.1f}",
            f"{run.peak_mb:.0f}",
            f"{run.pairs:,}",
            f"{run.busy_before:.1f}",
        )
    console.print(table)
    console.print(
        "Wall seconds from the start of the program to its end. µs a clip: behind Ray's start. "
        "Floor: the products of the embeddings alone. Busy: cores that other work held just before."
    )
    first, *fixed = runs
    for name, value, most in (
        (f"{first.clips:,} clips, seconds", first.wall_s, MOST_S),
        (f"{first.clips:,} clips, MB of the process tree", first.peak_mb, MOST_MB),
    ):
        console.print(
            f"{'PASS' if value < most else 'FAIL':5} {name}: {value:.0f} (bar {most:.0f})"
        )
    growth = (fixed[-1].work_s - fixed[0].work_s) / (fixed[-1].clips - fixed[0].clips)
    console.print(
        f"From {fixed[0].clips:,} to {fixed[-1].clips:,} clips in sessions of {FIXED:,}, a further "
        f"clip costs {growth * 1e6:.0f} µs; with the last step alone "
        f"{(fixed[-1].work_s - fixed[-2].work_s) / (fixed[-1].clips - fixed[-2].clips) * 1e6:.0f}."
    )


def _measure(name: str, sizes: Sequence[int], out: Path) -> Mined:
    folder = out / f"{sum(sizes)}-{len(sizes)}"
    corpus = make_corpus(str(folder), sizes, seed=1)
    busy = busy_cores()
    wall_s, peak_mb = _run_mine(corpus, out / "mine.log")
    record = next(run for run in corpus.runs() if run["phase"] == "mine")
    found = Mined(
        name=name,
        clips=sum(sizes),
        sessions=len(sizes),
        wall_s=wall_s,
        work_s=wall_s - record["ray_start_s"],
        peak_mb=peak_mb,
        pairs=record["counts"]["pairs"],
        floor_s=_floor(sizes),
        busy_before=busy,
    )
    subprocess.run(["rm", "-r", str(folder)], check=True)
    return found


def _run_mine(corpus: Corpus, log: Path) -> tuple[float, float]:
    command = [sys.executable, "-m", "jobs.cli", "mine", corpus.root]
    started = time.perf_counter()
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        peak_mb = _peak_mb(process)
    wall_s = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"mine ended with {process.returncode}, see {log}")
    return wall_s, peak_mb


def _peak_mb(process: "subprocess.Popen[bytes]") -> float:
    """Highest memory of a process and all it started, while it runs; shared memory counts once."""
    peak = 0.0
    ended = threading.Event()
    root = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        for child in _tree(root):
            try:
                total += child.memory_full_info().pss
            except psutil.Error:
                continue
        peak = max(peak, total / 2**20)
        ended.wait(0.5)
    return peak


def _tree(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _floor(sizes: Sequence[int]) -> float:
    """Seconds of the products alone."""
    os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")})
    shares = [list(sizes[core::CORES]) for core in range(CORES)]
    # Fresh processes: a library that is loaded already no longer looks at its settings.
    with ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as pool:
        return max(pool.map(_products, shares))


def _products(sizes: Sequence[int]) -> float:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((max(sizes, default=1), SIZE), np.float32)
    started = time.perf_counter()
    for size in sizes:
        for start in range(0, size, BLOCK):
            np.dot(rows[start : min(size, start + BLOCK)], rows[:size].T)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
