"""Clips cut into shards, each with a name and a fingerprint of all that it depends on."""

from dataclasses import dataclass, field

import polars as pl

from schemas.ids import content_id

# Raised when the same clips give other files than before.
WRITING_VERSION = "1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """Neighbouring clips of one split, written together."""

    split: str
    index: int
    count: int
    """Shards of the split."""
    fingerprint: str
    clips: pl.DataFrame = field(repr=False)
    """Rows of `Choice.clips`."""

    @property
    def name(self) -> str:
        """The same for the same place in the same number of shards."""
        return f"{self.split}-{self.index:05}-of-{self.count:05}"


def shards_of(clips: pl.DataFrame, shard_s: float, how: str) -> list[Shard]:
    """Each split's clips, in their order, in pieces of about `shard_s` seconds.

    how: what the files depend on beside the clips.
    """
    found = []
    for (split,), side in clips.group_by("split", maintain_order=True):
        before = pl.col("duration_s").cum_sum() - pl.col("duration_s")
        piece = (before / shard_s).floor().rank("dense").cast(pl.Int64)
        pieces = side.with_columns(piece=piece).partition_by("piece", include_key=False)
        found += [
            Shard(
                split=str(split),
                index=index,
                count=len(pieces),
                fingerprint=_fingerprint(rows, how),
                clips=rows,
            )
            for index, rows in enumerate(pieces)
        ]
    return found


def _fingerprint(rows: pl.DataFrame, how: str) -> str:
    """Over what is told of each clip; in which part of the corpus it lies does not matter."""
    hashes = rows.drop("part").hash_rows(seed=0).to_numpy().tobytes()
    return content_id("export", WRITING_VERSION, how, hashes)
