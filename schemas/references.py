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
    """0 was chosen first of the target's references: the best when all that counts is weighed."""
    attempt: int
    """The mining of the session that found it; only the last one stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreferenced:
    """Accepted clips of a session that have no reference, for one reason."""

    reason: str
    """See `stages.mining.REASONS`."""
    clips: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MinedSession:
    """What mining found in a session: one row of `sessions`."""

    session_id: str
    clips: int
    accepted: int
    duplicates: int
    """Accepted clips that are near-duplicates of another and take no part."""
    clean: int
    """Clips good enough to be a reference."""
    targets: int
    """Clips that have a reference."""
    pairs: int
    cosine_mean: float | None = None
    """Over the pairs; null where there is none."""
    unreferenced: tuple[Unreferenced, ...]
    """Why the other accepted clips have no reference: `accepted` is their sum and `targets`."""
    attempt: int
    """The mining of the session; only the last one stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate:
    """A clip that is said and sounds as another one does: one row of `duplicates`."""

    clip_id: str
    group_id: str
    """The id of one clip of the group, the same for all of them."""
    similarity: float
    """Of its sound to the most similar clip of the group, in [0, 1]."""
    text_id: str
    """The normalised text that the group shares, hashed: what was compared at one go."""
    attempt: int
    """The comparison of the clips of that text; only the last one stands."""
