"""What the trainer asks of whoever reads its data."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from model_core.training.packs import Pack, Position


class PackStream(Protocol):
    """Packs for one worker."""

    def packs(self, start: Position) -> Iterator[Pack]:
        """Packs without end, from a position on: the same position, the same packs, always."""
        ...

    def validation(self) -> Sequence[Pack]:
        """Packs that training never sees, the same at every call; empty where none are held out."""
        ...
