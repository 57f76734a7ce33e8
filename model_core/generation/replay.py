"""Steps of a fixed shape, recorded once on a GPU and replayed without the host's overhead.

A decode step is thousands of kernels of microseconds each; launched one by one they take longer to
launch than to run. A CUDA graph launches them all at once.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

Step = Callable[..., tuple[Tensor, ...]]
"""Tensors in, tensors out. It may write to buffers, but twice with the same inputs does no harm."""

_WARM_UPS = 2


@dataclass(frozen=True, slots=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Replay:
    """Calls steps; on a GPU by a graph for each key, elsewhere directly."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._recorded: dict[Hashable, _Recorded] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._on_gpu else None

    def forget(self) -> None:
        """Drop what was recorded, since a buffer that it uses has moved."""
        self._recorded.clear()

    def __call__(self, key: Hashable, step: Step, *inputs: Tensor) -> tuple[Tensor, ...]:
        """step(*inputs). The outputs are overwritten by the next call with this key."""
        if not self._on_gpu:
            return step(*inputs)
        if key not in self._recorded:
            self._recorded[key] = self._record(step, inputs)
        recorded = self._recorded[key]
        for kept, given in zip(recorded.inputs, inputs, strict=True):
            kept.copy_(given, non_blocking=True)
        recorded.graph.replay()
        return recorded.outputs

    def _record(self, step: Step, inputs: tuple[Tensor, ...]) -> _Recorded:
        kept = tuple(given.clone() for given in inputs)
        # Libraries set themselves up at their first calls, which a recording must not hold.
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                step(*kept)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = step(*kept)
        return _Recorded(graph, kept, outputs)
