"""Rows of the encode phase: what the AudioVAE makes of a clip."""

from dataclasses import dataclass


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
    attempt: int
    """The encoding of the clip; only the last one stands."""
