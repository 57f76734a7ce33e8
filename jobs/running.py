"""What every phase's command does around its work: a record, a bar with the time left, the seconds."""

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from annotators.registry import ResolvedModel
from pipeline.engine import EngineConfig, longest_first, ray_session, run_units
from pipeline.lease import lease
from pipeline.ledger import UnitRecord
from pipeline.run_record import RunRecord
from pipeline.storage import Corpus
from pipeline.tombstones import refuse_unfinished
from pipeline.work import Phase, Unit
from schemas.errors import CorpusInUse


@contextmanager
def recorded(
    corpus: Corpus,
    phase: str,
    settings: dict[str, Any],
    console: Console,
    *,
    alone: bool = True,
    **facts: Any,
) -> Iterator[RunRecord]:
    """A run record that is closed with what ended the run, if anything did.

    alone: no other such run may be writing to the corpus. Raises `CorpusInUse`, and `ConfigError`
    where an opt-out has begun and not ended.
    """
    record = RunRecord(corpus, phase, settings)
    started = time.perf_counter()
    try:
        with lease(corpus, record.name, console) if alone else nullcontext():
            refuse_unfinished(corpus)
            record.write(**facts)
            yield record
    except CorpusInUse:
        raise
    except KeyboardInterrupt:
        record.finish("interrupted", wall_s=_since(started))
        console.print("Interrupted. The same command goes on from here.")
        raise
    except Exception as error:
        # The storage may be what failed; then its own error would hide this one.
        with suppress(OSError):
            told = f"{type(error).__name__}: {error}"
            record.finish("failed", error=told, wall_s=_since(started))
        raise
    record.write(wall_s=_since(started))


def as_recorded(models: Sequence[ResolvedModel]) -> list[dict[str, Any]]:
    """Models as the run record keeps them: without the folders of this machine."""
    return [{**asdict(model), "path": model.path.name} for model in models]


def run_with_progress(
    phase: Phase,
    units: Collection[Unit],
    corpus: Corpus,
    engine: EngineConfig,
    console: Console,
    *,
    size: Callable[[Unit | UnitRecord], float],
    note: Callable[[float, float, float], str],
    waiting: str = "starting",
) -> tuple[float, dict[str, float]]:
    """Run units under a bar. Returns seconds of audio done, and seconds per stage.

    size: how much of the bar a unit is, by its plan and by its record alike. note: (size done, size
    in all, seconds so far) → what stands beside the bar; `waiting` until the first unit is done.
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
    total = sum(map(size, units))
    audio_s = done = 0.0
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(phase.name, total=total, note=waiting)
        for record in run_units(phase, units, corpus, engine):
            audio_s += sum(item.duration_s for item in record.items)
            done += size(record)
            for stage, value in record.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + value
            told = note(done, total, time.perf_counter() - began)
            progress.update(task, completed=done, note=told)
    return audio_s, seconds


def step_bar(console: Console) -> Progress:
    """A bar over the steps of a training; its tasks have a `note`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


@contextmanager
def ending_on_signals() -> Iterator[threading.Event]:
    """An event that the first SIGTERM or Ctrl-C sets; the second one acts as ever."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {sign: signal.getsignal(sign) for sign in (signal.SIGTERM, signal.SIGINT)}

    def end(sign: int, _: object) -> None:
        asked.set()
        signal.signal(sign, before[signal.Signals(sign)])

    for sign in before:
        signal.signal(sign, end)
    try:
        yield asked
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


@dataclass(slots=True)
class Working:
    """What the steps of one run share, and what its record will say of them."""

    corpus: Corpus
    engine: EngineConfig
    console: Console
    ray: ExitStack
    """Ends the Ray that was started for the run."""
    run: str = ""
    """Name of the run's record."""
    facts: dict[str, Any] = field(default_factory=dict)
    units: int = 0

    def start_ray(self) -> None:
        """Connect to Ray, unless it is done already."""
        ray_s = self.ray.enter_context(ray_session(self.engine))
        self.facts["ray_start_s"] = self.facts.get("ray_start_s", 0.0) + round(ray_s, 3)

    def work(self, phase: Phase, units: Iterable[Unit], unit: str) -> float:
        """Run units, if there are any; returns how many seconds of audio were in them.

        unit: what a phase's items are called, in the plural.
        """
        name, units = phase.name, longest_first(units)
        self.facts[f"{name}_units"] = self.facts.get(f"{name}_units", 0) + len(units)
        self.units += len(units)
        if not units:
            return 0.0
        self.start_ray()
        started = time.perf_counter()
        audio_s, seconds = run_with_progress(
            replace(phase, run=self.run),
            units,
            self.corpus,
            self.engine,
            self.console,
            size=lambda block: float(len(block.items)),
            note=lambda done, total, _: f"{done:,.0f} of {total:,.0f} {unit}",
        )
        self.facts[f"{name}_s"] = self.facts.get(f"{name}_s", 0.0) + _since(started)
        stages = self.facts.setdefault("stage_seconds", {})
        for stage, value in seconds.items():
            key = f"{name}.{stage}"
            stages[key] = round(stages.get(key, 0.0) + value, 3)
        return audio_s


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 3)
