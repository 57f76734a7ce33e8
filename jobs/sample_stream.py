"""The trainer's packs, read from a corpus: by Ray in the background, or right here.

Tasks read, check and tokenise blocks while the trainer computes, in the order of the plan. Each
worker of a training run reads its own blocks. They are Ray's own streaming tasks and no Ray Data
pipeline: its scheduler is a thread that never rests where the results wait for whoever listens, and
beside a training loop in Python it takes half of the loop's time.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count, islice
from typing import cast

import ray
from ray import ObjectRefGenerator

from jobs.block_reading import Reading, Task, read_block, row_groups_of, validation_packs
from model_core.training.order import blocks_of, fragments_of
from model_core.training.packs import Pack, Position, Skipped
from pipeline.storage import Corpus
from schemas.errors import ConfigError, DataError

Given = tuple[Pack | None, list[Skipped]]
Reader = Callable[[Reading, Iterable[Task]], Generator[Given, None, None]]

_FEWEST_TASKS = 64
"""Read in one go; the next go has nothing read ahead. A small corpus has few blocks an epoch."""
_READERS = 2
_PACKS_AHEAD = 8
"""Of each reader; a pack is a few megabytes, a block may be gigabytes."""


class SampleStream:
    """A `PackStream` over the tables `samples` and `latents`."""

    def __init__(
        self, reading: Reading, *, validation_limit: int = 8, background: bool = True
    ) -> None:
        """validation_limit: packs held out for validation at most; background: by Ray's tasks.

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
        size = max(per_epoch, _FEWEST_TASKS)
        while True:
            empty = True
            # Whoever stops listening ends the reading, too, and at once.
            with closing(self._read(self.reading, islice(tasks, size))) as given:
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


def read_here(reading: Reading, tasks: Iterable[Task]) -> Generator[Given, None, None]:
    """What the tasks give, in their order."""
    for task in tasks:
        yield from read_block(reading, task)


def read_with_ray(reading: Reading, tasks: Iterable[Task]) -> Generator[Given, None, None]:
    """The same, read by Ray's tasks ahead of whoever listens."""
    tasks = iter(tasks)
    reader = ray.remote(read_block).options(
        num_returns="streaming",
        scheduling_strategy="SPREAD",  # else it would wait for the place that the trainer holds
        _generator_backpressure_num_objects=_PACKS_AHEAD,
    )
    shared = ray.put(reading)

    def begun(number: int) -> Iterator[ObjectRefGenerator]:
        # Ray's stubs know no streaming task.
        return (cast(ObjectRefGenerator, reader.remote(shared, t)) for t in islice(tasks, number))

    running = deque(begun(_READERS))
    try:
        while running:
            for given in running[0]:
                yield ray.get(given)
            running.popleft()
            running.extend(begun(1))
    finally:
        for left in running:
            ray.cancel(left)
