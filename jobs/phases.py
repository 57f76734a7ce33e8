"""The names of the phases, and what stands of the descriptions, for whoever runs none of them.

Importing a phase itself imports its stages, which takes seconds.
"""

from collections.abc import Iterable

import polars as pl

from pipeline.storage import Corpus
from schemas.arrow import DESCRIPTIONS, TRAITS

CURATE = "curate"
MINE, NEAR_DUPLICATES = "mine", "duplicates"
ANNOTATE, DESCRIBE = "annotate", "describe"
CLONE, ENCODE = "clone", "encode"


def descriptions_in(corpus: Corpus, columns: Iterable[str] | None = None) -> pl.DataFrame:
    """The descriptions that stand: the last of each clip that is still chosen.

    columns: all, or some with clip_id among them.
    """
    chosen = corpus.read(TRAITS, ["clip_id", "chosen"]).filter("chosen").select("clip_id")
    written = corpus.read_standing(DESCRIPTIONS, DESCRIBE, "clip_id", columns)
    return written.join(chosen, on="clip_id", how="semi")
