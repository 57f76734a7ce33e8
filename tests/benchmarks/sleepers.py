"""A phase whose stages sleep as long as models take."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from ray import cloudpickle

from pipeline.work import Phase, Unit, WorkItem
from schemas.ids import content_id
from schemas.rows import Recording

UNIT_S = 60.0
"""Seconds of audio in a unit, as the embedded profile makes them."""


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


def made_up_units(count: int, unit_s: float = UNIT_S) -> Iterator[Unit]:
    for i in range(count):
        yield Unit(
            items=(WorkItem(item_id=f"{i:07d}", uri=f"{i}", duration_s=unit_s, plan=unit_s),)
        )
