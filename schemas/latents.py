"""Rows of the encode phase: what the AudioVAE makes of a clip."""

from dataclasses import dataclass, field

from schemas.rows import Wave

PATCH = 4
"""Frames that every latent is a multiple of: the longest patch of the family."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Latent:
    """The latent of a clip: one row of `latents`."""

    clip_id: str
    latent: bytes
    """Little-endian float16, frames × channels, frame by frame. Silence fills up the last frames to
    a multiple of four, the longest patch of the family."""
    frames: int
    channels: int
    crc32: int
    """Of the bytes of `latent`, as zlib has it."""
    vae_hash: str
    """Of the AudioVAE's weights and settings: latents of two AudioVAEs do not mix."""
    synthetic: bool = False
    """The clip was generated."""
    attempt: int
    """The encoding of the clip; only the last one stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSound:
    """An accepted clip on its way through the encode phase's stages."""

    clip_id: str
    attempt: int
    audio: bytes = field(repr=False)
    """As stored; empty once it is decoded."""
    sample_rate: int
    """Hertz, as the clip's row says."""
    synthetic: bool = False
    """The clip was generated."""
    duration_s: float = 0.0
    """Of what was decoded."""
    wave: Wave | None = field(default=None, repr=False)
    """At the rate that the AudioVAE hears."""
    latent: Latent | None = None
