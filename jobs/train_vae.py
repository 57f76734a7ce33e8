"""Settings of AudioVAE training: what a recipe fills and `--set` overrides."""

from dataclasses import dataclass, field

from jobs.vae_segments import SegmentsConfig
from model_core.vae_training.settings import VAETraining


@dataclass(frozen=True, kw_only=True, slots=True)
class VAERecipe(VAETraining):
    """How the AudioVAE is trained, and on what."""

    segments: SegmentsConfig = field(default_factory=SegmentsConfig)
