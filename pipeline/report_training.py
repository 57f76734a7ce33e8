"""The report's part on what a trainer gets: latents, samples, and the marks of listeners."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pipeline.charts import bars, histogram

# Enough for the shape of any histogram.
MOST_DRAWN = 200_000
# Languages, and marks, that are told one by one.
MOST_LANGUAGES, MOST_MARKS = 12, 100
SHOWN_OF_SAMPLES = (
    *("layout", "language", "split", "synthetic"),
    *("duration_s", "tokens", "positions", "weights"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """What encode, compose and listeners left, as far as they were there."""

    latents: pl.DataFrame
    """`latents` as it stands: frames, vae_hash, synthetic."""
    samples: pl.DataFrame
    """Of `samples`: `SHOWN_OF_SAMPLES`."""
    reviews: pl.DataFrame
    """`reviews`."""


def encoded_of(training: Training) -> dict[str, Any] | None:
    """How many clips have a latent, by which AudioVAE; None before any was encoded."""
    latents = training.latents
    if latents.is_empty():
        return None
    hashes = latents["vae_hash"].unique().sort().to_list()
    return {
        "clips": latents.height,
        "synthetic": int(latents["synthetic"].sum()),
        "frames": int(latents["frames"].sum()),
        "vaes": [name[:12] for name in hashes],
    }


def samples_of(training: Training) -> dict[str, Any] | None:
    """Counts and charts of the training samples; None before they were composed."""
    samples = training.samples
    if samples.is_empty():
        return None
    train = samples.filter(split="train")
    drawn = samples.sample(MOST_DRAWN, seed=0) if samples.height > MOST_DRAWN else samples
    charts = [
        ("Samples by layout", bars("Samples by layout", _counts(train, "layout"))),
        ("Samples by language", bars("Samples by language", _counts(train, "language"))),
    ]
    for column, label, unit in (
        ("duration_s", "Length of what is said", "s"),
        ("tokens", "Tokens of text and description", "tokens"),
        ("positions", "Positions of the sequence", "positions"),
    ):
        values = drawn[column].to_numpy().astype(np.float64)
        charts.append((label, histogram(label, unit, values, np.zeros(0), [])))
    return {
        "samples": samples.height,
        "train": train.height,
        "hours": float(train["duration_s"].sum()) / 3600,
        "synthetic": float(train["synthetic"].mean() or 0.0),  # type: ignore[arg-type]
        "stages": _stages(train),
        "charts": charts,
    }


def marks_of(training: Training) -> dict[str, Any] | None:
    """What listeners marked as bad; None where nothing is."""
    if training.reviews.is_empty():
        return None
    latest = training.reviews.sort("reviewed_at", "clip_id", descending=[True, False])
    return {"marks": latest.height, "shown": latest.head(MOST_MARKS).to_dicts()}


def _counts(frame: pl.DataFrame, column: str) -> list[tuple[str, int]]:
    counted = (
        frame[column]
        .fill_null("not stated")
        .value_counts()
        .sort("count", column, descending=[True, False])
    )
    rows = list(counted.head(MOST_LANGUAGES).iter_rows())
    rest = int(counted["count"][MOST_LANGUAGES:].sum())
    return [*rows, ("others", rest)] if rest else rows


def _stages(train: pl.DataFrame) -> list[dict[str, Any]]:
    """What an epoch of each stage of the curriculum sees."""
    seen = train.with_columns(stage=pl.int_ranges(pl.col("weights").list.len())).explode(
        "weights", "stage"
    )
    return (
        seen.filter(pl.col("weights") > 0)
        .group_by("stage")
        .agg(
            pl.len().alias("samples"),
            (pl.col("weights") * pl.col("duration_s") / 3600).sum().alias("hours"),
            (pl.col("weights") * pl.col("synthetic"))
            .sum()
            .truediv(pl.col("weights").sum())
            .alias("synthetic"),
        )
        .sort("stage")
        .with_columns(pl.col("stage") + 1)
        .to_dicts()
    )
