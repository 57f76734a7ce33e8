"""How each system is started, and what is read from what it leaves."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks import peer_voxkitchen as peer
from tests.benchmarks.peers import PeerUnavailable
from tests.benchmarks.results import Result

CORES = len(os.sched_getaffinity(0))
ROOT = Path(__file__).resolve().parents[2]
PEER_ENVIRONMENT = ROOT / ".venv-voxkitchen"
TIMEOUT_S = 3600
NAMES = {
    "a": "naive loop",
    "b": "voxquarry",
    "c": "floor (models alone)",
    "d": f"voxkitchen {peer.VERSION}",
    "e": f"voxkitchen {peer.VERSION}, 1 thread",
}
ORDER = "cbade"


class SystemFailed(Exception):
    """A system ended without a result; the message says why."""


def measure(key: str, folder: Path, out: Path) -> Result:
    """Run one system over a folder. A failure is in the result, not raised."""
    busy = busy_cores()
    try:
        facts = {"a": _naive, "b": _voxquarry, "c": _floor, "d": _peer, "e": _tuned}[key](
            folder, out
        )
    except (SystemFailed, PeerUnavailable) as error:
        return Result(key=key, system=NAMES[key], failure=str(error), busy_before=busy)
    return Result(key=key, system=NAMES[key], busy_before=busy, **facts)


def busy_cores() -> float:
    """Cores that other work keeps busy, over two seconds in which we do nothing."""
    return float(psutil.cpu_percent(interval=2.0)) / 100 * (os.cpu_count() or 1)


def prepare_peer() -> tuple[float, str | None]:
    """Make the peer's environment: seconds that took, and why it failed if it did."""
    try:
        return peer.prepare(PEER_ENVIRONMENT), None
    except PeerUnavailable as error:
        return 0.0, str(error)


def _naive(folder: Path, out: Path) -> dict[str, Any]:
    return _module("tests.benchmarks.naive", folder, out / "naive.json")


def _floor(folder: Path, out: Path) -> dict[str, Any]:
    return _module("tests.benchmarks.floor", folder, out / "floor.json")


def _module(name: str, folder: Path, result: Path) -> dict[str, Any]:
    """Run a module that writes its facts; without a `wall_s` of its own it gets the process's."""
    command = [sys.executable, "-m", name, str(folder), str(result)]
    wall_s = _run(command, result.with_suffix(".log"))
    return {"wall_s": wall_s, **json.loads(result.read_text())}


def _voxquarry(folder: Path, out: Path) -> dict[str, Any]:
    from pipeline.storage import Corpus
    from schemas.arrow import CLIPS

    corpus = out / "corpus"
    script = Path(sys.executable).with_name("voxquarry")
    # A checkout on PYTHONPATH has no console script.
    start = [str(script)] if script.is_file() else [sys.executable, "-c", _MAIN]
    command = [*start, "curate", str(folder), "--out", str(corpus), "--profile", "embedded"]
    wall_s = _run(command, out / "voxquarry.log")

    tables = Corpus(str(corpus))
    record = tables.runs()[-1]
    if record["status"] != "finished":
        raise SystemFailed(f"the run record says {record['status']!r}")
    clips = tables.read(CLIPS, ["duration_s", "words", "screened"])
    seconds: dict[str, float] = defaultdict(float)
    for unit in tables.committed("curate"):
        for stage, spent in unit.seconds.items():
            seconds[stage] += spent / CORES
    # One worker per core opens its models beside the others, so this too is wall time.
    worker_start_s = seconds.pop("worker start", 0.0)
    num_screened = clips["screened"].count()
    return {
        "wall_s": wall_s,
        "ray_start_s": float(record["ray_start_s"]),
        "worker_start_s": worker_start_s,
        "num_clips": clips.height,
        "clip_s": float(clips["duration_s"].sum()),
        "num_words": int(clips["words"].list.len().sum()),
        "seconds": dict(seconds),
        "note": f"{num_screened} clips screened before the dear models",
    }


_MAIN = "from jobs.cli import main; main()"


def _peer(folder: Path, out: Path, *, tuned: bool = False) -> dict[str, Any]:
    from annotators.registry import resolve

    facts = peer.run(
        folder,
        out / ("peer-tuned" if tuned else "peer"),
        PEER_ENVIRONMENT,
        resolve("tiny.en").path,
        peer.PeerSettings(tuned=tuned),
    )
    return {**facts, "note": peer.LEFT_OUT}


def _tuned(folder: Path, out: Path) -> dict[str, Any]:
    return _peer(folder, out, tuned=True)


def _run(command: list[str], log: Path) -> float:
    """Wall seconds of a command run in the repository; its output goes to `log`."""
    # A setting of the caller's shell must not change what is compared.
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    started = time.perf_counter()
    try:
        with log.open("wb") as output:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise SystemFailed(f"not finished after {TIMEOUT_S} s (see {log})") from error
    wall_s = time.perf_counter() - started
    if done.returncode:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        reason = lines[-1] if lines else "no output"
        raise SystemFailed(f"ended with {done.returncode}: {reason} (see {log})")
    return wall_s


def fresh(folder: Path) -> Path:
    """An empty folder in place of what an earlier run left there.

    Raises FileExistsError for a folder with anything in it that no earlier run made.
    """
    mark = folder / ".voxquarry-bench"
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise FileExistsError(f"{folder}: not empty, and not from an earlier benchmark")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.touch()
    return folder
