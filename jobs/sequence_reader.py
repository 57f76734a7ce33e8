"""What a checkpoint decides about latents and sequences, for the phases that make them."""

from dataclasses import dataclass, field
from pathlib import Path

from annotators.registry import checkpoint_folder
from model_core.checkpoint import load_vae, read_config, vae_hash
from model_core.tokenizer import TextTokenizer
from schemas.errors import ConfigError
from schemas.ids import content_id
from schemas.latents import PATCH


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """What a checkpoint decides about the sequences that it reads."""

    vae_hash: str
    tokenizer_hash: str
    tokenizer: TextTokenizer = field(repr=False)
    patch_size: int
    frame_s: float
    """Seconds of a latent frame."""
    max_positions: int
    knows_voices: bool
    """Whether it reads references and descriptions: the V2 class does."""


def reader_of(checkpoint: str) -> Reader:
    """Read a checkpoint's config and tokenizer, and name its AudioVAE.

    Raises `ModelLoadError`, and `ConfigError` for a patch that does not divide what a latent is
    filled up to.
    """
    folder: Path = checkpoint_folder(checkpoint)
    config = read_config(folder)
    if PATCH % config.patch_size:
        raise ConfigError(
            f"latents are multiples of {PATCH} frames, which patches of {config.patch_size} "
            "do not divide"
        )
    vae = config.audio_vae_config
    file = folder / "tokenizer.json"
    return Reader(
        tokenizer=TextTokenizer(file),
        tokenizer_hash=content_id(file.read_bytes()),
        vae_hash=hash_of_vae(checkpoint),
        patch_size=config.patch_size,
        frame_s=vae.hop / vae.sample_rate,
        max_positions=config.max_length,
        knows_voices=config.is_v2,
    )


def hash_of_vae(checkpoint: str) -> str:
    """What names the AudioVAE of a checkpoint. Raises `ModelLoadError`."""
    return vae_hash(load_vae(checkpoint_folder(checkpoint)))
