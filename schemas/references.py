"""Rows of the mine phase: which clip may lend its voice to which, and which clips repeat."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A clip usable as voice reference for a target clip: one row of `references`."""

    target_id: str
    reference_id: str
    session_id: str
    cosine: float
    """Between both speaker embeddings."""
    rank: int
    """0 is the best of the target's references."""
    attempt: int
    """The mining of the session that found it; only the last one stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate:
    """A clip that is said and sounds as another one does: one row of `duplicates`."""

    clip_id: str
    group_id: str
    """The id of one clip of the group, the same for all of them."""
    similarity: float
    """Of its sound to the most similar clip of the group, in [0, 1]."""
