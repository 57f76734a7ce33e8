"""How much of a signal to work on at once.

Work goes through a block in pieces that stay in the processor's cache: beyond it the many cheap
passes of a residual unit wait for memory. Around the blocks, longer spans bound the memory that a
recording of any length takes. Neither changes a number but for float rounding.

Shapes: B batch, T time steps, C channels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Spans:
    """How much of a signal is worked on at once, in elements of the largest activation."""

    piece: int
    """Inside a block."""
    span: int
    """From end to end."""


# Measured on a CPU with 1 MB of second-level cache per core: pieces of 1 to 4 MB are the fastest;
# at 64 MB a batch takes half as long again. A GPU only wants its memory bounded.
CPU_SPANS = Spans(piece=1 << 19, span=1 << 24)
GPU_SPANS = Spans(piece=1 << 26, span=1 << 26)


def spans_for(x: Tensor) -> Spans:
    """The spans of the device that x lies on."""
    return CPU_SPANS if x.device.type == "cpu" else GPU_SPANS


def in_pieces(step: Callable[[Tensor], Tensor], x: Tensor, length: int) -> Tensor:
    """step over x (B, T, C) in pieces of at most `length` time steps, put together again."""
    if x.shape[1] <= length:
        return step(x)
    return torch.cat([step(piece) for piece in torch.split(x, length, dim=1)], dim=1)
