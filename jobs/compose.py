"""The compose phase: latents, texts, references and descriptions → training sequences → samples.

Derived data: seconds to minutes, no model but the tokenizer, made anew as a whole whenever
anything that it derives from has changed.
"""

from dataclasses import dataclass, field
from pathlib import Path

from annotators.audio_vae import PATCH
from annotators.registry import checkpoint_folder
from jobs.encode import hash_of_vae
from model_core.checkpoint import read_config
from model_core.tokenizer import TextTokenizer
from schemas.errors import ConfigError
from schemas.ids import content_id
from stages.composition import ContinuationConfig
from stages.curriculum import Annealing, JointTraining, PreTraining, StageConfig

PHASE = "compose"
# Raised when the same corpus and settings give other samples than before.
COMPOSING_VERSION = "1"


@dataclass(frozen=True, kw_only=True, slots=True)
class ComposeConfig:
    """The curriculum, and what all of its stages share."""

    stage_1: PreTraining = field(default_factory=PreTraining)
    stage_2: JointTraining = field(default_factory=JointTraining)
    stage_3: Annealing = field(default_factory=Annealing)
    continuation: ContinuationConfig = field(default_factory=ContinuationConfig)
    validation_share: float = 0.02
    """Share of the clips, in [0, 1), that no stage trains on."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share < 1:
            raise ConfigError(
                f"compose.validation_share must be in [0, 1), got {self.validation_share}"
            )

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        """Of the curriculum, in their order."""
        return self.stage_1, self.stage_2, self.stage_3


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
