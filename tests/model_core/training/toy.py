"""A stream of random sequences that follow from their position: a corpus without a corpus."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model_core.audio_vae import AudioVAE
from model_core.checkpoint import load_checkpoint
from model_core.sequences import Sequence as Row
from model_core.sequences import training_sequence
from model_core.training.packs import START, Pack, Position, Skipped, packed_up
from model_core.voxcpm import VoxCPM
from schemas.samples import LAYOUTS

CORE = Path(__file__).parents[2] / "data" / "core"
BASE = CORE / "v2"
PATCH, CHANNELS = 4, 16  # of that checkpoint
PACKS_OF_A_BLOCK, BLOCKS = 3, 2


def opened(base: Path = BASE) -> tuple[VoxCPM, AudioVAE]:
    checkpoint = load_checkpoint(base, dtype=torch.float32)
    return checkpoint.model, checkpoint.vae


def row(layout: str, generator: torch.Generator) -> Row:
    """A random sequence of a layout."""

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    def patches(low: int, high: int) -> torch.Tensor:
        return torch.randn(number(low, high), PATCH, CHANNELS, generator=generator)

    return training_sequence(
        torch.randint(110, 600, (number(2, 9),), generator=generator),
        patches(1, 6),
        reference=patches(1, 4) if "reference" in layout else None,
        prompt=patches(1, 3) if layout == "continuation" else None,
    )


def pack_of(seed: int, *, size: int = 3, after: Position = START, name: str = "") -> Pack:
    """A pack of `size` random sequences that follow from the seed."""
    generator = torch.Generator().manual_seed(seed)
    layouts = [LAYOUTS[(seed + i) % len(LAYOUTS)] for i in range(size)]
    rows = [row(layout, generator) for layout in layouts]
    ids = [f"{name or seed}.{i}" for i in range(size)]
    return packed_up(rows, ids, layouts, after=after)


@dataclass
class ToyStream:
    """Packs of a worker; `seen` are the ids that were given."""

    rank: int = 0
    workers: int = 1
    held_out: int = 0
    seen: list[str] | None = None
    skips: bool = False

    def packs(self, start: Position) -> Iterator[Pack]:
        """Endless."""
        epoch, block, pack = start
        while True:
            name = f"{epoch}.{block}.{pack}.{self.rank}"
            number = ((epoch * BLOCKS + block) * PACKS_OF_A_BLOCK + pack) * self.workers + self.rank
            given = pack_of(number, after=self._after(epoch, block, pack), name=name)
            if self.skips and pack == 1:
                left_out = Skipped(f"missing.{name}", "its latents hold NaN")
                given = Pack(**{**_fields(given), "skipped": (left_out,)})
            if self.seen is not None:
                self.seen.append(name)
            yield given
            epoch, block, pack = given.after

    @staticmethod
    def _after(epoch: int, block: int, pack: int) -> Position:
        if pack + 1 < PACKS_OF_A_BLOCK:
            return Position(epoch, block, pack + 1)
        return Position(epoch, block + 1, 0) if block + 1 < BLOCKS else Position(epoch + 1, 0, 0)

    def validation(self) -> Sequence[Pack]:
        """The first worker has them."""
        return [pack_of(10_000 + i) for i in range(self.held_out)] if self.rank == 0 else []


def _fields(pack: Pack) -> dict[str, object]:
    return {name: getattr(pack, name) for name in Pack.__dataclass_fields__}
