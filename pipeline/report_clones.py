"""The report's part on generated clips: a description, who it tells of, and what was made of both."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from pipeline.charts import histogram

CLONED_SAMPLES, CLONES_SHOWN = 4, 3
# FLAC of all that is heard here: with the other samples the file stays below the 8 MB of
# `pipeline.report`.
MOST_CLONES_BYTES = 1_500_000
# Enough for the shape of any histogram.
MOST_DRAWN = 200_000
NOT_JUDGED = "not judged yet"

SCORES = (
    ("cer", "CER of what is heard", "CER"),
    ("cosine", "Cosine to the voice", "cosine"),
    ("dnsmos_ovrl", "DNSMOS overall (P.835)", "MOS"),
    ("length_ratio", "Length against the voice's rate", "ratio"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clones:
    """What clone made, as far as it ran: a frame without rows means not yet."""

    synthetic: pl.DataFrame
    """`synthetic` as it stands, without audio and embeddings, with accepted and reasons of
    `synthetic_verdicts`; accepted is null of a clip without a verdict."""
    load_audio: Callable[[Sequence[str]], Mapping[str, bytes]]
    """Ids of generated clips → FLAC; asked for the shown ones alone."""
    limits: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    """Column → the limits of the policy that the verdicts are by, such as ("max", 0.3)."""


def clones_of(
    clones: Clones,
    clips: pl.DataFrame,
    bytes_per_sample: float,
    with_audio: Callable[[pl.DataFrame, int], Sequence[Mapping[str, Any]]],
) -> dict[str, Any] | None:
    """Counts, charts, and a few described clips beside their clones; None before any is made.

    clips: recorded ones; bytes_per_sample: of FLAC, about; with_audio: clips and bytes of FLAC that
    may be embedded → rows with `flac` where it fits.
    """
    if clones.synthetic.is_empty():
        return None
    made = clones.synthetic.with_columns(
        pl.when(pl.col("accepted").is_null())
        .then(pl.lit([NOT_JUDGED]))
        .otherwise("reasons")
        .alias("reasons"),
        pl.col("accepted").fill_null(False),
    )
    accepted = made.filter("accepted")
    reasons = made.filter(~pl.col("accepted")).explode("reasons")["reasons"].drop_nulls()
    counted = reasons.value_counts().sort("count", "reasons", descending=[True, False])
    return {
        "made": made.height,
        "accepted": accepted.height,
        "voices": made["described_id"].n_unique(),
        "reasons": list(counted.iter_rows()),
        "charts": _charts(made, clones.limits),
        "samples": _samples(clones, made, clips, bytes_per_sample, with_audio),
    }


def _charts(
    made: pl.DataFrame, limits: Mapping[str, Sequence[tuple[str, float]]]
) -> list[tuple[str, Any]]:
    if made.height > MOST_DRAWN:
        made = made.sample(MOST_DRAWN, seed=0)
    charts = []
    for column, label, unit in SCORES:
        kept, rejected = (
            made.filter(pl.col("accepted") == accepted)[column]
            .drop_nulls()
            .to_numpy()
            .astype(np.float64)
            for accepted in (True, False)
        )
        if kept.size + rejected.size:
            drawn = histogram(label, unit, kept, rejected, limits.get(column, ()))
            charts.append((label, drawn))
    return charts


def _samples(
    clones: Clones,
    made: pl.DataFrame,
    clips: pl.DataFrame,
    bytes_per_sample: float,
    with_audio: Callable[[pl.DataFrame, int], Sequence[Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """Described clips, one of each session before a second of any, and some clones of each: good
    ones and rejected ones in turn. Always the same ones."""
    size = pl.col("duration_s") * pl.col("sample_rate") * bytes_per_sample
    best_first = made.with_columns(size=size).sort("cer", "clip_id")
    turns = best_first.with_columns(turn=pl.int_range(pl.len()).over("described_id", "accepted"))
    shown = (
        turns.sort("turn", pl.col("accepted").not_(), "clip_id")
        .group_by("described_id", maintain_order=True)
        .head(CLONES_SHOWN)
        .sort(pl.col("accepted").not_(), "cer", "clip_id")
    )
    told = shown.group_by("described_id").agg(
        pl.col("accepted").any().alias("any_accepted"), pl.col("size").sum().alias("size_of_clones")
    )
    room = MOST_CLONES_BYTES // CLONED_SAMPLES
    chosen = (
        clips.join(told, left_on="clip_id", right_on="described_id")
        .with_columns(poor=~pl.col("any_accepted"), heavy=size + pl.col("size_of_clones") > room)
        .sort("poor", "heavy", "clip_id")
        .with_columns(turn=pl.int_range(pl.len()).over("session_id"))
        .sort("turn", "poor", "heavy", "session_id", "clip_id")
        .head(CLONED_SAMPLES)
    )
    cards = []
    for name in chosen["clip_id"]:
        (source,) = with_audio(chosen.filter(clip_id=name), room)
        left = room - 3 * len(source.get("flac", "")) // 4
        rows = shown.filter(described_id=name).to_dicts()
        sounds = clones.load_audio([row["clip_id"] for row in rows])
        for row in rows:
            sound = sounds.get(row["clip_id"])
            if sound and len(sound) <= left:
                left -= len(sound)
                row["flac"] = base64.b64encode(sound).decode()
        cards.append({"source": source, "clones": rows})
    return cards
