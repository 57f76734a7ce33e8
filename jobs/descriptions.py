"""Which descriptions of a corpus stand."""

from collections.abc import Iterable

import polars as pl

from jobs.phases import DESCRIBE
from pipeline.storage import Corpus
from schemas.arrow import DESCRIPTIONS, TRAITS


def descriptions_in(corpus: Corpus, columns: Iterable[str] | None = None) -> pl.DataFrame:
    """The descriptions that stand: the last of each clip that is still chosen.

    columns: all, or some with clip_id among them.
    """
    chosen = corpus.read(TRAITS, ["clip_id", "chosen"]).filter("chosen").select("clip_id")
    written = corpus.read_standing(DESCRIPTIONS, DESCRIBE, "clip_id", columns)
    return written.join(chosen, on="clip_id", how="semi")
