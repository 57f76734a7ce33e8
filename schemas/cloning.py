"""What the clone phase carries between its stages: a clip to be made, and attempts at it."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from schemas.rows import Wave


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One attempt at a clip: first as it was spoken, then as it would be stored, then judged."""

    seed: int
    stopped: bool
    """The model ended it by itself."""
    sample_rate: int
    wave: Wave | None = field(default=None, repr=False)
    """As it was spoken; let go once it is stored."""
    audio: bytes = field(default=b"", repr=False)
    """FLAC, watermarked: this is what is judged."""
    duration_s: float = 0.0
    text_asr: str = ""
    """Empty too where there was nothing to hear."""
    asr_avg_logprob: float | None = None
    cer: float = 1.0
    cosine: float | None = None
    speaker_embedding: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    dnsmos_sig: float | None = None
    dnsmos_bak: float | None = None
    dnsmos_ovrl: float | None = None
    dnsmos_p808: float | None = None
    watermark_score: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Clone:
    """A clip on its way through the clone phase's stages."""

    clip_id: str
    attempt: int
    text: str
    language: str
    """ISO 639 code of the text."""
    description: str
    expected_s: float
    """Seconds that the text takes at the described clip's characters per second."""
    seed: int
    """The candidates' seeds derive from it and from `attempt`."""
    reference: Wave | None = field(default=None, repr=False)
    """The voice to speak in; let go once the AudioVAE has heard it."""
    reference_rate: int = 0
    voice: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """The reference's latent patches: (patches, frames, channels)."""
    speaker_embedding: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """Of the described clip, if the encoder that judges made it."""
    described: bytes = field(default=b"", repr=False)
    """The described clip's audio, where that encoder has yet to hear it."""
    candidates: tuple[Candidate, ...] = ()
    """Attempts; in the end the one that is kept."""

    @property
    def kept(self) -> Candidate:
        """The attempt that was chosen."""
        (kept,) = self.candidates
        return kept
