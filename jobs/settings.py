"""Every setting of every phase: what a profile fills and `--set` overrides."""

from dataclasses import dataclass, field

from jobs.curate import CurateConfig
from stages.mining import MiningConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings(CurateConfig):
    """The curate phase's stages by their names, then the phases that follow."""

    mine: MiningConfig = field(default_factory=MiningConfig)
