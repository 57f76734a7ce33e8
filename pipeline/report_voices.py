"""The report's part on references and descriptions: who can be cloned, and how voices are told."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pipeline.charts import bars, histogram
from schemas.descriptions import CLOSED

DESCRIBED_SAMPLES = 6
# Beside the kept and the rejected samples the file stays below the 8 MB of `pipeline.report`.
MOST_DESCRIBED_BYTES = 1_200_000
# Enough for the shape of any histogram.
MOST_DRAWN = 200_000

MEASURES = (
    ("f0_median_hz", "Pitch (median F0)", "Hz"),
    ("f0_range_st", "Range of pitch", "semitones"),
    ("loudness_lufs", "Loudness", "LUFS"),
    ("pause_ratio", "Pauses", "share"),
    ("emphasis", "Emphasis", "noticeable steps"),
    ("hnr_db", "Harmonics to noise", "dB"),
    ("jitter", "Jitter", "share"),
    ("alpha_ratio_db", "Brightness (alpha ratio)", "dB"),
    ("arousal", "Arousal", "−1 to 1"),
)
WORDS = ("gender", "age", "emotion", "pitch", "rate", "energy")
# An age group that no writer uses, for voices whose kind of adulthood is not known.
_VALUES = CLOSED | {"age": (*CLOSED["age"], "adult")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Voices:
    """What mine and annotate found, as far as they ran: a frame without rows means not yet."""

    references: pl.DataFrame
    """`references` as it stands."""
    duplicates: int
    """Near-duplicate clips that are marked."""
    attributes: pl.DataFrame
    """`attributes` as it stands, joined with the other columns of `traits`."""
    descriptions: pl.DataFrame
    """`descriptions` as it stands."""


def references_of(voices: Voices, accepted: int) -> dict[str, Any] | None:
    """Counts and charts of the references; None before they are mined."""
    pairs = voices.references
    if pairs.is_empty():
        return None
    per_target = pairs.group_by("target_id").len()["len"]
    counts = [("0", accepted - len(per_target))]
    counts += [(str(n), int((per_target == n).sum())) for n in range(1, int(per_target.max()) + 1)]  # type: ignore[arg-type]
    cosines = _values(pairs, "cosine")
    return {
        "pairs": pairs.height,
        "targets": len(per_target),
        "share": len(per_target) / max(1, accepted),
        "duplicates": voices.duplicates,
        "charts": [
            ("References per clip", bars("References per clip", counts)),
            ("Cosine of the pairs", histogram("Cosine", "cosine", cosines, np.zeros(0), [])),
        ],
    }


def attributes_of(voices: Voices) -> list[tuple[str, Any]]:
    """A chart of each attribute: words as bars, numbers as histograms."""
    frame = voices.attributes
    if frame.is_empty():
        return []
    charts = []
    for name in WORDS:
        found = dict(frame[name].drop_nulls().value_counts().iter_rows())
        counts = [(value, int(found.get(value, 0))) for value in _VALUES[name]]
        if found:
            charts.append((name.capitalize(), bars(name, [c for c in counts if c[1]])))
    for name, label, unit in MEASURES:
        values = _values(frame, name)
        if values.size:
            charts.append((label, histogram(label, unit, values, np.zeros(0), [])))
    return charts


def descriptions_of(
    voices: Voices,
    clips: pl.DataFrame,
    with_audio: Callable[[pl.DataFrame, int], Sequence[Mapping[str, Any]]],
) -> dict[str, Any] | None:
    """Counts, and a few descriptions beside their sound; None before any is written.

    with_audio: clips and bytes of FLAC that may be embedded → rows with `flac` where it fits.
    """
    if voices.descriptions.is_empty():
        return None
    kept = voices.descriptions.filter("accepted")
    told = kept.rename({"text": "description", "language": "description_language"})
    beside = clips.join(
        told.select("clip_id", "description", "description_language", "model", "verified"),
        on="clip_id",
    ).with_columns(turn=pl.int_range(pl.len()).over("session_id", order_by="clip_id"))
    chosen = beside.sort("turn", "session_id", "clip_id").head(DESCRIBED_SAMPLES)
    references = dict(
        voices.references.sort("target_id", "rank").group_by("target_id").len().iter_rows()
    )
    rows = [
        {**row, "num_references": references.get(row["clip_id"], 0)}
        for row in with_audio(chosen, MOST_DESCRIBED_BYTES)
    ]
    rejected = voices.descriptions.filter(~pl.col("accepted")).explode("reasons")
    return {
        "written": voices.descriptions.height,
        "kept": kept.height,
        "rejected": sorted(rejected["reasons"].value_counts().iter_rows()),
        "samples": rows,
    }


def _values(frame: pl.DataFrame, column: str) -> np.ndarray:
    known = frame[column].cast(pl.Float64).drop_nulls()
    if len(known) > MOST_DRAWN:
        known = known.sample(MOST_DRAWN, seed=0)
    return known.to_numpy()
