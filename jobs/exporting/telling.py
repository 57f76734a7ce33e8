"""What the formats with columns tell of a clip beside its sound."""

from typing import Any

from jobs.exporting.audio import ExportClip

TEXTS = (
    *("clip_id", "text", "language", "dialect", "speaker", "session_id", "recording_id"),
    *("source", "licence", "description", "gender", "age", "emotion", "reference_id", "made_by"),
)
NUMBERS = ("start_s", "snr_db", "dnsmos_ovrl")


def told_of(clip: ExportClip) -> dict[str, Any]:
    """Columns of a clip as plain JSON; null where it is not known.

    start_s: where the clip lies in its recording; null for a clone.
    """
    row = clip.row
    return {
        **{name: row[name] for name in TEXTS},
        **{name: row[name] for name in NUMBERS},
        "duration_s": clip.duration_s,
        "sample_rate": clip.sample_rate,
        "synthetic": row["synthetic"],
    }
