"""Rows of the review: what a person who listened found bad."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Review:
    """A clip that somebody marked as bad: one row of `reviews`. Taking the mark back removes it."""

    clip_id: str
    """Of `clips` or of `synthetic`."""
    review: str
    """Why it is bad, in the listener's words. Policies know it as a column of either table."""
    reviewed_at: str
    """UTC, ISO 8601."""
