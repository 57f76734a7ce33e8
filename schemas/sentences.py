"""What texts are about, as vectors: kept, since finding it out takes longer than using it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SentenceVector:
    """The sentence embedding of a text: one row of `sentences`."""

    text_id: str
    """blake2b-128 of the text."""
    model_hash: str
    """Of the embedder."""
    vector: bytes
    """Unit length, as whole numbers of 1/4000: int16, little-endian."""
