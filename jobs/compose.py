"""The compose phase: latents, texts, references and descriptions → training sequences → samples,
of recorded clips and, beside them, of generated ones.

Derived data: seconds to minutes, no model but the tokenizer, made anew as a whole whenever
anything that it derives from has changed.
"""

from dataclasses import dataclass, field

from schemas.errors import ConfigError
from stages.composition import ContinuationConfig
from stages.curriculum import Annealing, JointTraining, PreTraining, StageConfig

PHASE = "compose"
# Raised when the same corpus and settings give other samples than before.
COMPOSING_VERSION = "2"


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
