"""A phase of a few milliseconds, for tests of the engine on a real local Ray."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.work import Phase, Unit, WorkItem
from schemas.errors import UndecodableAudio
from schemas.rows import Recording

NUM_UNITS = 12


class Double:
    """Doubles a number; 3 is bad, a file named `kill` makes the worker kill itself once, and in a
    folder named `workers` each worker leaves its process id."""

    def __init__(self, name: str, folder: Path, *, wait_s: float = 0.0) -> None:
        self.name = name
        self.folder = folder
        self.wait_s = wait_s

    def setup(self) -> None:
        if (self.folder / "no-weights").exists():
            raise FileNotFoundError("model.bin is not here")

    def process(self, batch: Sequence[int]) -> list[int]:
        time.sleep(self.wait_s)
        if (self.folder / "workers").is_dir():
            (self.folder / "workers" / str(os.getpid())).touch()
        kill = self.folder / "kill"
        if kill.exists():
            kill.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if 3 in batch:
            raise UndecodableAudio("three is not a sound")
        return [2 * value for value in batch]


def read(plan: int) -> int:
    if plan == 5:
        raise UndecodableAudio("five does not open")
    return plan


def write(plan: int, row: int | None) -> Mapping[str, Sequence[Any]]:
    if row is None:
        return {}
    recording = Recording(
        recording_id=f"r{row}",
        uri=f"/in/{row}.wav",
        session_id="s",
        duration_s=1.0,
        sample_rate=16_000,
        channels=1,
        codec="PCM_16",
        size_bytes=1,
        num_chunks=1,
    )
    return {"recordings": [recording]}


def measure(row: int) -> float:
    return 1.0


def phase(folder: Path, placement: Mapping[str, str] | None = None, wait_s: float = 0.0) -> Phase:
    stages = tuple(Double(name, folder, wait_s=wait_s) for name in ("one", "two", "three"))
    return Phase(
        name="toy",
        read=read,
        stages=stages,
        placement=placement or {},
        write=write,
        measure=measure,
    )


def units(count: int = NUM_UNITS) -> list[Unit]:
    """Units of one number each; 0 and 1 share one, so that a bad row has a neighbour."""
    items = [
        WorkItem(item_id=f"i{i:02d}", uri=f"/in/{i}.wav", duration_s=1.0, plan=i)
        for i in range(count)
    ]
    return [Unit(items=(items[2], items[3])), *(Unit(items=(i,)) for i in items[:2] + items[4:])]
