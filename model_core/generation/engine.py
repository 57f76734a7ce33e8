"""Feeds requests through a model: many at once for throughput, one by one as patches come.

Rows of different length share each step, and a row that ends gives its place to a waiting request.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from model_core.flow_matching import Solver, SolverConfig
from model_core.generation.requests import Generated, PatchRequest
from model_core.generation.rows import Rows
from model_core.voxcpm import VoxCPM
from schemas.errors import ConfigError

_PREFILL_POSITIONS = 8192
"""Positions that are read at once, padding included: what prefill may need of memory."""


class Engine:
    """Generation with one model and one way to solve."""

    def __init__(
        self, model: VoxCPM, solver: SolverConfig | None = None, *, batch_size: int = 16
    ) -> None:
        """batch_size: rows in flight. The model should be fused; it then runs about twice as fast."""
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        self.model = model
        self.batch_size = batch_size
        with torch.inference_mode():
            self._solver = Solver(
                model.estimator, solver or SolverConfig(), mean_mode=model.config.mean_mode
            )

    def generate(
        self, requests: Iterable[PatchRequest], *, on_step: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, Generated]]:
        """Answers with their request's number, in the order in which they end.

        Requests are taken as places become free, so that an endless source may be given.
        on_step: hears after each step how many patches it made, retried attempts included.
        """
        waiting = enumerate(requests)
        rows = Rows(self.model, self._solver, self.batch_size)
        held: tuple[int, PatchRequest] | None = None
        while True:
            with torch.inference_mode():
                room = self.batch_size - len(rows.alive)
                while room:
                    fits, held = _fitting(waiting, held, room)
                    if not fits:
                        break
                    rows.admit(fits)
                    room -= len(fits)
                if not rows.alive:
                    return
                num_patches = len(rows.sample())
                done = rows.retire()
                rows.advance()
            if on_step is not None:
                on_step(num_patches)
            yield from done

    def stream(self, request: PatchRequest) -> Iterator[Tensor]:
        """Patches (P, C) in float32 as they are made. Nothing is tried again."""
        with torch.inference_mode():
            rows = Rows(self.model, self._solver, 1)
            rows.admit([(0, request)])
        sent = 0
        done: list[tuple[int, Generated]] = []
        while not done:
            with torch.inference_mode():
                patches = rows.sample()
                done = rows.retire()
                if done:
                    ready = list(done[0][1].patches[sent:])
                else:
                    ready = [patches[0].float()]
                    rows.advance()
            yield from ready
            sent += len(ready)


def _fitting(
    waiting: Iterator[tuple[int, PatchRequest]], held: tuple[int, PatchRequest] | None, room: int
) -> tuple[list[tuple[int, PatchRequest]], tuple[int, PatchRequest] | None]:
    """The next requests that can be read together, and one that was seen but does not fit."""
    fits: list[tuple[int, PatchRequest]] = []
    longest = 0
    while len(fits) < room:
        candidate = held or next(waiting, None)
        held = None
        if candidate is None:
            break
        longest = max(longest, len(candidate[1].sequence))
        if fits and longest * (len(fits) + 1) > _PREFILL_POSITIONS:
            return fits, candidate
        fits.append(candidate)
    return fits, held
