"""Between the tables and the plan of the clone phase: who can be cloned, and what each one says."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from annotators.registry import resolve
from annotators.sentence import SentenceEmbedder, languages_of
from jobs.clone_inputs import Tongue, repeats_in
from jobs.sentences import vectors_of
from pipeline.storage import Corpus
from stages.unrelated import Choice


def with_reasons(corpus: Corpus, described: pl.DataFrame, consents: pl.DataFrame) -> pl.DataFrame:
    """reason: why a clip is not cloned, as far as it is known before texts are chosen."""
    says = pl.col("key").is_not_null() & (pl.col("letters") > 0) & (pl.col("chars_per_s") > 0)
    refused = (
        described.join(
            consents.select("recording_id", "reason"),
            on="recording_id",
            how="left",
            maintain_order="left",
        )
        # A clip whose recording is nowhere has nobody's consent.
        .with_columns(pl.col("reason").fill_null("consent_refused"))
        .with_columns(
            reason=pl.when((pl.col("reason") == "") & ~says.fill_null(False))
            .then(pl.lit("no_text"))
            .otherwise("reason")
        )
    )
    # Of those that are left: a refused clip must not stand for its copies.
    repeats = repeats_in(corpus, refused.filter(pl.col("reason") == ""))
    return refused.with_columns(
        reason=pl.when(pl.col("clip_id").is_in(repeats.implode()))
        .then(pl.lit("near_duplicate"))
        .otherwise("reason")
    )


def with_vectors(
    corpus: Corpus,
    tongues: list[Tongue],
    name: str | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Tongue], str]:
    """The languages, with sentence embeddings where the embedder knows them; and its hash.

    name: of the embedder; None for none. Raises `ModelLoadError`.
    """
    if name is None or not tongues:
        return tongues, ""
    model = resolve(name)
    covered = languages_of(model.path)
    able = [one for one in tongues if one.language.partition("-")[0] in covered]
    said = [text for one in able for text in one.texts["said"]]
    vectors = vectors_of(corpus, said, partial(SentenceEmbedder, model.path), model.hash, progress)
    ends = np.cumsum([one.texts.height for one in able])
    of = dict(zip((one.language for one in able), np.split(vectors, ends[:-1]), strict=False))
    found = [
        replace(one, offered=replace(one.offered, vectors=of.get(one.language))) for one in tongues
    ]
    return found, model.hash


def chosen(tongue: Tongue, choice: Choice) -> pl.DataFrame:
    """described_id, slot, and what is said, one row for each clone."""
    rows, slots = np.nonzero(choice.text >= 0)
    texts = tongue.texts[choice.text[rows, slots]]
    return pl.DataFrame(
        {
            "described_id": tongue.described["clip_id"][rows],
            "slot": slots,
            "transcript_id": texts["clip_id"],
            "transcript_session_id": texts["session_id"],
            "text": texts["said"],
            "letters": texts["letters"],
            "cosine": choice.cosine[rows, slots].astype(np.float64),
            "overlap": choice.overlap[rows, slots].astype(np.float64),
        }
    ).with_columns(pl.col("cosine").fill_nan(None))


def told(tongue: Tongue, choice: Choice) -> dict[str, Any]:
    """What the run record says of a language."""
    some = choice.text >= 0
    uses = np.bincount(choice.text[some]) if some.any() else np.zeros(1)
    measured = some.any() and tongue.offered.vectors is not None
    return {
        "language": tongue.language,
        "described": tongue.described.height,
        "texts": int(tongue.offered.usable.sum()),
        "clones": int(some.sum()),
        "random_cosine": choice.mean_cosine,
        "cosine": float(choice.cosine[some].mean()) if measured else None,
        "overlap": float(choice.overlap[some].mean()) if some.any() else None,
        "most_uses": int(uses.max()),
    }
