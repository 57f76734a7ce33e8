"""Every setting of every phase: what a profile fills and `--set` overrides."""

from dataclasses import dataclass, field

from jobs.annotate import AnnotateConfig
from jobs.clone_plan import CloneConfig
from jobs.compose import ComposeConfig
from jobs.curate import CurateConfig
from jobs.encode import EncodeConfig
from jobs.evaluation.config import EvaluateConfig
from pipeline.chat.config import ChatConfig
from stages.experts import ExpertsConfig
from stages.judging import JudgingConfig
from stages.latents import LatentsConfig
from stages.mining import MiningConfig
from stages.near_duplicates import DuplicatesConfig
from stages.speaking import SpeakingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings(CurateConfig):
    """The curate phase's stages by their names, then the phases that follow."""

    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    mine: MiningConfig = field(default_factory=MiningConfig)
    experts: ExpertsConfig = field(default_factory=ExpertsConfig)
    annotate: AnnotateConfig = field(default_factory=AnnotateConfig)
    chat: ChatConfig = field(default_factory=ChatConfig)
    """The audio language model that writes descriptions; without a url the grammar does."""
    judge: ChatConfig = field(default_factory=ChatConfig)
    """A second one that judges them blind."""
    clone: CloneConfig = field(default_factory=CloneConfig)
    speaking: SpeakingConfig = field(default_factory=SpeakingConfig)
    judging: JudgingConfig = field(default_factory=JudgingConfig)
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    compose: ComposeConfig = field(default_factory=ComposeConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
