"""Rows of the clone phase: generated clips, where they come from, and how they were judged."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class Synthetic:
    """A generated clip: a described voice says what somebody else said. One row of `synthetic`.

    Only measurements: whether the clip is accepted stands in `synthetic_verdicts`.
    """

    clip_id: str
    """blake2b-128 over all that the clip is made from; never the id of a recorded clip."""

    # Lineage
    described_id: str
    """The clip whose voice and description these are."""
    session_id: str
    """The session of the described clip."""
    transcript_id: str
    """The clip that said the text first."""
    transcript_session_id: str
    """Never the described clip's."""
    reference_ids: tuple[str, ...]
    """Clips whose audio, one after the other, was the voice reference."""
    description: str
    """What the model was told of the voice, and what a model that trains on the clip is told."""
    model: str
    """The checkpoint, as it was asked for."""
    model_hash: str
    """Of its weights and settings."""
    seed: int
    """Of the candidate that was kept."""
    candidates: int
    """Seeds that were tried."""

    # Text
    language: str
    text: str
    text_cosine: float | None = None
    """Between the sentence embeddings of both texts; null where no embedder knows the language."""
    lexical_overlap: float
    """Share of the content words that both texts have in common (Jaccard), in [0, 1]."""

    # Sound
    sample_rate: int
    duration_s: float
    audio: bytes
    """FLAC, mono, 16 bit, watermarked."""
    watermark: str
    """The method."""
    watermark_score: float
    """Of the detector, on the stored audio, in [0, 1]."""
    stopped: bool
    """The model ended it by itself."""

    # Judgement
    text_asr: str
    """What the recogniser hears."""
    asr_avg_logprob: float | None = None
    cer: float
    """Character error rate of `text_asr` against `text`, both normalised; may exceed 1."""
    cosine: float | None = None
    """Between the speaker embeddings of this clip and of the described one."""
    speaker_embedding: tuple[float, ...] | npt.NDArray[np.float32] | None = None
    length_ratio: float
    """Seconds over those that the text takes at the described clip's characters per second."""
    dnsmos_sig: float | None = None
    dnsmos_bak: float | None = None
    dnsmos_ovrl: float | None = None
    dnsmos_p808: float | None = None
    attempt: int
    """The generation of the clip; only the last one stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticVerdict:
    """Accept or reject a generated clip, for one policy: one row of `synthetic_verdicts`."""

    clip_id: str
    accepted: bool
    reasons: tuple[str, ...]
    """Empty when accepted."""
    policy_hash: str
