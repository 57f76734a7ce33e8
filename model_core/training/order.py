"""Which samples a worker reads, in which order, and which of them share a pack.

An epoch's order is a pure function of the seed, the epoch and a few light columns, so a stream goes
on at the exact sample without reading what lies before it.

    fragment    a row group of `samples`, or an even share of its targets
    block       fragments that are read together and shuffled as one
    pack        samples of a block whose positions fill the budget

Fragments are dealt to the workers anew in each epoch. Shapes: S samples (rows).
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fragment:
    """A share of the targets of one row group of `samples`."""

    part: str
    row_group: int
    share: int = 0
    shares: int = 1
    """The row group's targets are cut into so many shares; this is one of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderConfig:
    """How samples are shuffled and packed."""

    seed: int = 0
    pack_positions: int = 4096
    """Positions of a pack at most."""
    block_fragments: int = 4
    """Fragments shuffled as one: more mixes better and needs more memory."""

    def __post_init__(self) -> None:
        for name in ("pack_positions", "block_fragments"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


def fragments_of(row_groups: Sequence[tuple[str, int]], workers: int) -> list[Fragment]:
    """Row groups (part, number), each cut into as many shares as give every worker a fragment."""
    if not row_groups:
        return []
    shares = -(-workers // len(row_groups))
    return [
        Fragment(part, group, share, shares)
        for part, group in row_groups
        for share in range(shares)
    ]


def blocks_of(
    fragments: Sequence[Fragment], config: OrderConfig, epoch: int, rank: int, workers: int
) -> list[list[Fragment]]:
    """A worker's blocks of an epoch, in order."""
    order = generator(config.seed, "fragments", epoch).permutation(len(fragments))
    mine = [fragments[i] for i in order[rank::workers]]
    size = config.block_fragments
    return [mine[i : i + size] for i in range(0, len(mine), size)]


def in_share(targets: Sequence[str], fragment: Fragment) -> npt.NDArray[np.bool_]:
    """(S,) which rows of a row group belong to a fragment. Rows of a target stay together."""
    if fragment.shares == 1:
        return np.ones(len(targets), dtype=np.bool_)
    number = np.cumsum(_starts(targets)) - 1
    return np.asarray(number % fragment.shares == fragment.share)


def times_seen(targets: Sequence[str], weights: Floats, config: OrderConfig, epoch: int) -> Ints:
    """How often this epoch takes each sample: `weights` on average, (S,) -> (S,).

    The samples of one target stand together and share one draw (systematic sampling), so a target
    whose weights sum to 1 is taken exactly once, in one of its layouts.
    """
    if not len(targets):
        return np.zeros(0, dtype=np.int64)
    starts = _starts(targets)
    upto = np.cumsum(weights)
    before = (upto - weights)[starts][np.cumsum(starts) - 1]  # of all earlier targets
    high = upto - before
    # The first sample of a target begins at exactly 0, whatever was rounded.
    low = np.where(starts, 0.0, np.concatenate(([0.0], high[:-1])))
    draw = np.array([uniform(config.seed, "take", epoch, target) for target in targets])
    return (np.ceil(high - draw) - np.ceil(low - draw)).astype(np.int64)


def packs_of(positions: Ints, config: OrderConfig, *where: int) -> list[list[int]]:
    """Samples to packs: each sample, by its index, in exactly one pack.

    Best fit, longest first, then in random order. A sample longer than a pack has one alone.
    where: epoch, worker, block …: different places are shuffled differently.
    """
    random = generator(config.seed, "packs", *where)
    shuffled = random.permutation(len(positions))
    order = shuffled[np.argsort(-positions[shuffled], kind="stable")]
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (positions left, pack), sorted
    for index in order.tolist():
        need = int(positions[index])
        at = bisect_left(room, (need, -1))
        if at == len(room):
            packs.append([index])
            left, pack = config.pack_positions - need, len(packs) - 1
        else:
            left, pack = room.pop(at)
            packs[pack].append(index)
            left -= need
        if left > 0:
            insort(room, (left, pack))
    for pack_samples in packs:
        random.shuffle(pack_samples)
    return [packs[i] for i in random.permutation(len(packs))]


def generator(*key: int | str) -> np.random.Generator:
    """A generator that depends on the key alone, on every machine."""
    return np.random.default_rng(int.from_bytes(_digest(key), "little"))


def uniform(*key: int | str) -> float:
    """A number in [0, 1) that depends on the key alone, on every machine."""
    return int.from_bytes(_digest(key)[:6], "little") / 2.0**48


def _digest(key: Sequence[int | str]) -> bytes:
    text = "\x1f".join(str(part) for part in key)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _starts(targets: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(S,) whether a row is the first of its target."""
    ids = np.asarray(targets)
    return np.concatenate(([True], ids[1:] != ids[:-1])) if len(ids) else np.zeros(0, np.bool_)
