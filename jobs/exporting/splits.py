"""Train, validation and test, so that nobody and no room is heard on two sides.

Clips that share a speaker, a session or a recording belong together, and so does whatever hangs
together by several of these: such a group goes to one side as a whole.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from schemas.ids import content_id

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
LINKS = ("session_id", "speaker", "recording_id")


def groups_of(clips: pl.DataFrame) -> pl.Series:
    """The group of each clip, named by its first session id.

    clips: the columns LINKS; a null speaker links nothing.
    """
    numbers, known = [], 0
    for name in LINKS:
        numbers.append(clips[name].rank("dense").cast(pl.Int64) - 1 + known)
        known += clips[name].drop_nulls().n_unique()
    session = numbers[0]
    edges = pl.concat(
        pl.DataFrame({"a": session, "b": other}).drop_nulls().unique() for other in numbers[1:]
    )
    ones = np.ones(edges.height, np.int8)
    places = (edges["a"].to_numpy(), edges["b"].to_numpy())
    _, labels = connected_components(coo_array((ones, places), shape=(known, known)))
    label = pl.Series("label", np.asarray(labels)[session.to_numpy()], dtype=pl.Int64)
    return clips.select(pl.col("session_id").min().over(label).alias("group"))["group"]


def split_of(clips: pl.DataFrame, shares: Mapping[str, float], seed: int) -> pl.Series:
    """The side of each clip: train, or a side of `shares`, which say how much of the hours each has.

    clips: duration_s and the columns LINKS. A side takes groups, in an order that only the seed and
    their names decide, as long as they bring it nearer to its share; where all are too large for
    that it takes the smallest. Train is never left empty, so one group alone is all train.
    """
    grouped = clips.select("duration_s", group=groups_of(clips))
    sizes = dict(grouped.group_by("group").agg(pl.col("duration_s").sum()).iter_rows())
    total = sum(sizes.values())
    left = sorted(sizes, key=lambda name: content_id("split", seed, name))
    side_of: dict[str, str] = {}
    for side, share in shares.items():
        room = share * total
        taken: set[str] = set()
        for name in left if share else ():
            if sizes[name] < 2 * room and len(taken) + 1 < len(left):
                taken.add(name)
                room -= sizes[name]
        if share and not taken and len(left) > 1:
            taken = {min(left, key=lambda name: (sizes[name], name))}
        side_of |= dict.fromkeys(taken, side)
        left = [name for name in left if name not in taken]
    return grouped["group"].replace_strict(side_of, default=TRAIN, return_dtype=pl.String)
