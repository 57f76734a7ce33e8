"""The trainer's packs, read from a corpus: by Ray Data in the background, or right here.

Ray Data's tasks read, check and tokenise blocks while the trainer computes, in the order of the
plan. Each worker of a training run reads its own blocks.
"""

import pickle
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count, islice
from typing import Any

import pyarrow as pa
import ray
from ray.data import DataContext, TaskPoolStrategy

from jobs.block_reading import Reading, Task, read_block, row_groups_of, validation_packs
from model_core.training.order import blocks_of, fragments_of
from model_core.training.packs import Pack, Position, Skipped
from pipeline.storage import Corpus
from schemas.errors import ConfigError, DataError

Given = tuple[Pack | None, list[Skipped]]
Reader = Callable[[Reading, Sequence[Task]], Generator[Given, None, None]]

# Tasks of one Ray Data run: a small corpus has few blocks an epoch, and a run costs a quarter of a
# second; a large one has more than a plan should list at once.
_FEWEST_TASKS, _MOST_TASKS = 64, 1024
_READERS = 2


class SampleStream:
    """A `PackStream` over the tables `samples` and `latents`."""

    def __init__(
        self, reading: Reading, *, validation_limit: int = 8, background: bool = True
    ) -> None:
        """validation_limit: packs held out for validation at most; background: through Ray Data.

        Raises `ConfigError` when the corpus has no samples.
        """
        self.reading = reading
        self.validation_limit = validation_limit
        self._read: Reader = read_with_ray if background else read_here
        self._row_groups = row_groups_of(Corpus(reading.corpus))
        if not self._row_groups:
            raise ConfigError(
                f"{reading.corpus} holds no samples: run `voxquarry encode` and "
                "`voxquarry compose` first"
            )
        self._fragments = fragments_of(self._row_groups, reading.workers)

    def packs(self, start: Position) -> Generator[Pack, None, None]:
        """Packs without end. Raises `DataError` when nothing of the corpus can be used."""
        left_out: list[Skipped] = []
        tasks = self.tasks(start)
        per_epoch = -(-len(self._fragments) // self.reading.workers)
        size = min(max(per_epoch, _FEWEST_TASKS), _MOST_TASKS)
        while True:
            empty = True
            # Whoever stops listening ends the reading, too, and at once.
            with closing(self._read(self.reading, list(islice(tasks, size)))) as given:
                for pack, skipped in given:
                    left_out += skipped
                    if pack is None:
                        continue
                    yield replace(pack, skipped=tuple(left_out))
                    left_out, empty = [], False
            if empty:
                why = f", the first because: {left_out[0].reason}" if left_out else ""
                raise DataError(
                    f"stage {self.reading.stage} finds no sample to train on in "
                    f"{self.reading.corpus}: {len(left_out)} were left out{why}"
                )

    def validation(self) -> Sequence[Pack]:
        """This worker's share of the held-out packs."""
        packs = validation_packs(self.reading, self._row_groups, self.validation_limit)
        return packs[self.reading.rank :: self.reading.workers]

    def tasks(self, start: Position) -> Iterator[Task]:
        """Blocks to read from a position on, epoch after epoch."""
        reading = self.reading
        for epoch in count(start.epoch):
            blocks = blocks_of(self._fragments, reading.order, epoch, reading.rank, reading.workers)
            for number, fragments in enumerate(blocks):
                if epoch == start.epoch and number < start.block:
                    continue
                here = (epoch, number) == (start.epoch, start.block)
                yield Task(epoch, number, tuple(fragments), start.pack if here else 0)


def read_here(reading: Reading, tasks: Sequence[Task]) -> Generator[Given, None, None]:
    """What the tasks give, in their order."""
    for task in tasks:
        yield from read_block(reading, task)


def read_with_ray(reading: Reading, tasks: Sequence[Task]) -> Generator[Given, None, None]:
    """The same, read by Ray Data's tasks ahead of whoever listens."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.execution_options.preserve_order = True
    # A pack is a few megabytes; the first is wanted long before its block is through.
    context.target_max_block_size = 2**20
    with DataContext.current(context):
        blocks = ray.data.from_items(
            [{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks)
        )
    packs = blocks.map_batches(
        partial(_read_task, reading=reading),
        batch_size=None,
        batch_format="pyarrow",
        compute=TaskPoolStrategy(size=_READERS),
    )
    # The tasks read ahead; a thread that did so here would outlive the reading.
    for batch in packs.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        assert isinstance(batch, pa.Table)
        for value in batch.column("given"):
            # Our own bytes, written by `_read_task`.
            yield pickle.loads(value.as_buffer())


def _read_task(batch: Any, *, reading: Reading) -> Iterator[Any]:
    for value in batch.column("task"):
        for given in read_block(reading, pickle.loads(value.as_buffer())):
            blob = pickle.dumps(given, protocol=5)
            yield pa.table({"given": pa.array([blob], pa.large_binary())})
