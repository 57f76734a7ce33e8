"""One worker of a pool: neighbouring stages fused into one process, so audio is not copied.

The first pool reads the audio, the last one commits. Between pools a unit travels pickled in a
binary column; Ray Data moves blocks and knows nothing of what is inside.
"""

import pickle
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.guard import Failure, failure, guarded
from pipeline.storage import Corpus
from pipeline.work import Phase, Progress, Unit, finish
from schemas.errors import ModelLoadError, StorageError
from stages.base import Stage

# Stages report what the worker paid before its first unit under this name.
START = "worker start"


class PoolWorker:
    """Runs some stages of a phase over blocks of units. Ray builds it once per process."""

    def __init__(
        self, phase: Phase, stages: Sequence[Stage[Any]], *, first: bool, last: bool, corpus: str
    ) -> None:
        self.phase = phase
        self.stages = stages
        self.first = first
        self.last = last
        self.corpus = Corpus(corpus)
        self.ready = False

    def _set_up(self) -> float:
        """Open the models; seconds since this process began to."""
        started = time.perf_counter()
        for stage in self.stages:
            try:
                stage.setup()
            except Exception as error:  # noqa: BLE001 - whatever it is, no unit can be judged
                # Without the cause: Ray would print its traceback beside the one line that counts.
                raise ModelLoadError(f"stage {stage.name} cannot start: {error}") from None
        self.ready = True
        return time.perf_counter() - started

    def __call__(self, block: pa.Table) -> pa.Table:
        """One binary column `unit` in; the same, or the records of committed units, out."""
        start_s = 0.0 if self.ready else self._set_up()
        done = []
        for value in block.column("unit"):
            # Our own bytes, written by the driver or the pool before this one.
            state = pickle.loads(value.as_buffer())
            progress = _begin(state) if self.first else state
            if start_s:
                progress.seconds[START] = progress.seconds.get(START, 0.0) + start_s
                start_s = 0.0
            self._run(progress)
            done.append(progress)
        if not self.last:
            return as_block(done)
        try:
            return as_block(finish(self.phase, self.corpus, done))
        except OSError as error:
            # As above: the one line counts.
            raise StorageError(f"nothing more can be written to the corpus: {error}") from None

    def _run(self, progress: Progress) -> None:
        if self.first:
            self._read(progress)
        for stage in self.stages:
            ids = list(progress.rows)
            batch = [progress.rows[item_id] for item_id in ids]
            started = time.perf_counter()
            rows, failures = guarded(stage.name, stage.process, batch)
            _add(progress, stage.name, started)
            # guarded keeps the order, so what is left pairs with the ids that did not fail.
            failed = {id(fault.row): fault for fault in failures}
            living = [i for i, row in zip(ids, batch, strict=True) if id(row) not in failed]
            for item_id, row in zip(ids, batch, strict=True):
                if id(row) in failed:
                    progress.failures[item_id] = _without_row(failed[id(row)])
            progress.rows = dict(zip(living, rows, strict=True))

    def _read(self, progress: Progress) -> None:
        started = time.perf_counter()
        for item in progress.unit.items:
            try:
                progress.rows[item.item_id] = self.phase.read(item.plan)
            except Exception as error:  # noqa: BLE001 - one broken file must not end its neighbours
                progress.failures[item.item_id] = failure(None, "read", error)
        _add(progress, "read", started)


def as_block(values: Sequence[Any]) -> pa.Table:
    """Objects as one binary column, a row each."""
    blobs = [pickle.dumps(value, protocol=5) for value in values]
    return pa.table({"unit": pa.array(blobs, pa.large_binary())})


def _begin(unit: Unit) -> Progress:
    return Progress(unit=unit, rows={}, failures={}, seconds={})


def _without_row(fault: Failure[Any]) -> Failure[Any]:
    return Failure(
        row=None,
        stage=fault.stage,
        error_type=fault.error_type,
        message=fault.message,
        traceback=fault.traceback,
    )


def _add(progress: Progress, stage: str, started: float) -> None:
    spent = time.perf_counter() - started
    progress.seconds[stage] = progress.seconds.get(stage, 0.0) + spent
