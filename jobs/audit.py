"""What the notebooks compute: tables of a corpus, joined and counted."""

from collections.abc import Sequence

import polars as pl

from jobs.descriptions import descriptions_in
from jobs.judge_synthetic import standing_synthetic
from jobs.phases import ANNOTATE, MINE
from pipeline.storage import Corpus
from schemas.arrow import (
    ATTRIBUTES,
    CLIPS,
    REFERENCES,
    SYNTHETIC_VERDICTS,
    TRAITS,
    VERDICTS,
)

HOURS = pl.col("duration_s").sum() / 3600
_HEAVY = {"audio", "words", "speech", "speaker_embedding"}
_TRAITS = ("gender", "age", "emotion", "pitch", "rate", "energy")


def clips_in(corpus: Corpus) -> pl.DataFrame:
    """Light columns of every clip with its verdict, and traits and pitch where they are known."""
    light = [name for name in CLIPS.schema.names if name not in _HEAVY]
    verdicts = corpus.read(VERDICTS, ["clip_id", "accepted", "tier", "reasons"])
    traits = corpus.read(TRAITS, ["clip_id", *_TRAITS])
    measured = corpus.read_standing(ATTRIBUTES, ANNOTATE, "clip_id", ["clip_id", "f0_median_hz"])
    return (
        corpus.read(CLIPS, light)
        .join(verdicts, on="clip_id", how="left")
        .join(traits, on="clip_id", how="left")
        .join(measured, on="clip_id", how="left")
    )


def balance_by(clips: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Clips, hours, speakers and sessions of each group; what states nothing is a group too."""
    return (
        clips.group_by(pl.col(name).fill_null("not stated") for name in columns)
        .agg(
            pl.len().alias("clips"),
            HOURS.alias("hours"),
            pl.col("speaker").drop_nulls().n_unique().alias("speakers"),
            pl.col("session_id").n_unique().alias("sessions"),
        )
        .sort("hours", *columns, descending=[True, *(False for _ in columns)])
    )


def seen_at(hours: pl.DataFrame, by: str, temperatures: Sequence[float]) -> pl.DataFrame:
    """Share of what a model sees of each group, at each temperature T: hours^(1/T), scaled.

    hours: `by` and `hours`. Returns one row for each group and temperature.
    """
    flat = [
        hours.select(
            by,
            pl.lit(float(temperature)).alias("temperature"),
            (pl.col("hours") ** (1 / temperature)).alias("weight"),
        ).with_columns(share=pl.col("weight") / pl.col("weight").sum())
        for temperature in temperatures
    ]
    return pl.concat(flat).drop("weight")


def references_per_clip(corpus: Corpus) -> pl.DataFrame:
    """How many accepted clips have so many references: `references`, `clips`, ascending."""
    kept = corpus.read(VERDICTS, ["clip_id", "accepted"]).filter("accepted").select("clip_id")
    return (
        kept.join(_pairs(corpus).group_by("clip_id").len(), on="clip_id", how="left")
        .group_by(pl.col("len").fill_null(0).alias("references"))
        .agg(pl.len().alias("clips"))
        .sort("references")
    )


def reference_cosines(corpus: Corpus) -> pl.Series:
    """Of the pairs whose target is accepted."""
    kept = corpus.read(VERDICTS, ["clip_id", "accepted"]).filter("accepted")
    return _pairs(corpus).join(kept, on="clip_id", how="semi")["cosine"]


def claims(corpus: Corpus) -> pl.DataFrame:
    """What descriptions claim and how the verifier found it: `name`, `verdict`, `claims`."""
    verified = descriptions_in(corpus, ["clip_id", "verified"]).explode("verified").drop_nulls()
    return (
        verified.select(pl.col("verified").struct.unnest())
        .group_by("name", "verdict")
        .agg(pl.len().alias("claims"))
        .sort("name", "verdict")
    )


def clones_in(corpus: Corpus) -> pl.DataFrame:
    """Light columns of the clones that stand, with their verdicts."""
    verdicts = corpus.read(SYNTHETIC_VERDICTS, ["clip_id", "accepted", "reasons"])
    return standing_synthetic(corpus).join(verdicts, on="clip_id", how="left")


def beside_real(clips: pl.DataFrame, clones: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Median of each score over the accepted recorded clips, and over the accepted clones."""
    rows = [
        {
            "score": name,
            "recorded": clips.filter("accepted")[name].median(),
            "synthetic": clones.filter("accepted")[name].median(),
        }
        for name in columns
    ]
    schema = {"score": pl.String, "recorded": pl.Float64, "synthetic": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def _pairs(corpus: Corpus) -> pl.DataFrame:
    columns = ["target_id", "reference_id", "cosine"]
    pairs = corpus.read_standing(REFERENCES, MINE, "session_id", columns)
    return pairs.rename({"target_id": "clip_id"})
