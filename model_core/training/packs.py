"""Packs: training sequences of different lengths, one after another in a single row.

Nothing is padded. Positions restart with every sequence, and attention does not cross from one to
the next, so a pack trains what its sequences would train one by one.

Shapes: T positions of the pack, A audio positions, P frames of a patch, C latent channels,
N sequences; H query heads, G key-value heads, K channels per head.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from model_core.sequences import Sequence


class Position(NamedTuple):
    """Where a worker's stream goes on: packs of that block before `pack` were given."""

    epoch: int = 0
    block: int = 0
    """Of the worker's blocks, in the order of the epoch."""
    pack: int = 0


START = Position()


class Skipped(NamedTuple):
    """A sample that the stream left out, and why."""

    sample_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Pack:
    """Sequences one after another, and where the stream goes on after them."""

    tokens: Tensor
    """(T,) int64; 0 at audio positions."""
    is_audio: Tensor
    """(T,) booleans."""
    patches: Tensor
    """(A, P, C): latents at the audio positions, in order."""
    is_target: Tensor
    """(T,) booleans: patches that carry loss."""
    stop_labels: Tensor
    """(T,) int64: 1 at the last target patch of each sequence."""
    lengths: tuple[int, ...]
    """Positions of each sequence; they sum to T."""
    sample_ids: tuple[str, ...]
    layouts: tuple[str, ...]
    """Of each sequence, one of `schemas.samples.LAYOUTS`."""
    after: Position = START
    skipped: tuple[Skipped, ...] = ()
    """What was left out since the pack before this one."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def positions(self) -> Tensor:
        """(T,) int64, from 0 in every sequence."""
        return torch.cat([torch.arange(length) for length in self.lengths])

    @property
    def owner(self) -> Tensor:
        """(T,) int64: which sequence a position belongs to."""
        return torch.repeat_interleave(torch.tensor(self.lengths))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Pack":
        """Move the tensors; dtype is that of the patches."""
        return replace(
            self,
            tokens=self.tokens.to(device, non_blocking=True),
            is_audio=self.is_audio.to(device, non_blocking=True),
            patches=self.patches.to(device, dtype, non_blocking=True),
            is_target=self.is_target.to(device, non_blocking=True),
            stop_labels=self.stop_labels.to(device, non_blocking=True),
        )


def packed_up(
    sequences: Rows[Sequence],
    sample_ids: Rows[str],
    layouts: Rows[str],
    *,
    after: Position = START,
    skipped: Rows[Skipped] = (),
) -> Pack:
    """Put sequences into one pack, in their order. At least one is needed."""
    return Pack(
        tokens=torch.cat([row.tokens for row in sequences]),
        is_audio=torch.cat([row.is_audio for row in sequences]),
        patches=torch.cat([row.patches for row in sequences]),
        is_target=torch.cat([row.is_target for row in sequences]),
        stop_labels=torch.cat([row.stop_labels for row in sequences]),
        lengths=tuple(len(row) for row in sequences),
        sample_ids=tuple(sample_ids),
        layouts=tuple(layouts),
        after=after,
        skipped=tuple(skipped),
    )
