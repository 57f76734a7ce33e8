"""A description as its writer had it, whoever wrote it."""

from dataclasses import dataclass

from schemas.descriptions import Claim


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What a writer made of a clip, before anybody verified it."""

    text: str
    claims: tuple[Claim, ...]
    """What the writer means the text to say; what it was unsure of is left out."""
