"""What every phase's command does around its work: a record, a bar with the time left, the seconds."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from annotators.registry import ResolvedModel
from pipeline.engine import EngineConfig, run_units
from pipeline.run_record import RunRecord
from pipeline.storage import Corpus
from pipeline.work import Phase, Unit


@contextmanager
def recorded(
    corpus: Corpus, phase: str, settings: dict[str, Any], console: Console, **facts: Any
) -> Iterator[RunRecord]:
    """A run record that is closed with what ended the run, if anything did."""
    record = RunRecord(corpus, phase, settings)
    record.write(**facts)
    started = time.perf_counter()
    try:
        yield record
    except KeyboardInterrupt:
        record.finish("interrupted", wall_s=_since(started))
        console.print("Interrupted. The same command goes on from here.")
        raise
    except Exception as error:
        record.finish("failed", error=f"{type(error).__name__}: {error}", wall_s=_since(started))
        raise
    record.write(wall_s=_since(started))


def as_recorded(models: Sequence[ResolvedModel]) -> list[dict[str, Any]]:
    """Models as the run record keeps them: without the folders of this machine."""
    return [{**asdict(model), "path": model.path.name} for model in models]


def run_with_progress(
    phase: Phase,
    units: Sequence[Unit],
    corpus: Corpus,
    engine: EngineConfig,
    console: Console,
    *,
    size: Callable[[Unit], float],
    note: Callable[[float, float, float], str],
    waiting: str = "starting",
) -> tuple[float, dict[str, float]]:
    """Run units under a bar. Returns seconds of audio done, and seconds per stage.

    size: how much of the bar a unit is. note: (size done, size in all, seconds so far) → what
    stands beside the bar; `waiting` until the first unit is done.
    """
    columns = (
        TextColumn(phase.name),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    sizes = {unit.unit_id: size(unit) for unit in units}
    total = sum(sizes.values())
    audio_s = done = 0.0
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(phase.name, total=total, note=waiting)
        for record in run_units(phase, units, corpus, engine):
            audio_s += sum(item.duration_s for item in record.items)
            done += sizes[record.unit_id]
            for stage, value in record.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + value
            told = note(done, total, time.perf_counter() - began)
            progress.update(task, completed=done, note=told)
    return audio_s, seconds


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 3)
