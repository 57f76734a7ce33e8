"""What people who listened found bad: rows of the corpus that its policies can use."""

from datetime import UTC, datetime

import polars as pl

from pipeline.storage import Corpus
from schemas.arrow import REVIEWS

PHASE = "review"


def read_reviews(corpus: Corpus) -> pl.DataFrame:
    """Every clip that is marked as bad: the columns of `reviews`."""
    return corpus.read(REVIEWS)


def mark_bad(corpus: Corpus, clip_id: str, reason: str) -> None:
    """Mark a clip as bad; an earlier mark of it is overwritten."""
    mark = pl.DataFrame(
        {
            "clip_id": [clip_id],
            "review": [reason],
            "reviewed_at": [datetime.now(UTC).isoformat(timespec="seconds")],
        }
    )
    others = read_reviews(corpus).filter(pl.col("clip_id") != clip_id)
    corpus.write_current(PHASE, REVIEWS, pl.concat([others, mark]).to_arrow())


def take_back(corpus: Corpus, clip_id: str) -> None:
    """Remove a clip's mark; without one nothing changes."""
    others = read_reviews(corpus).filter(pl.col("clip_id") != clip_id)
    corpus.write_current(PHASE, REVIEWS, others.to_arrow())
