"""The annotate phase: what each accepted clip's voice does, in numbers and in words.

    accepted clips → acoustics → experts                → attributes
    attributes     → levels (once) → traits             → levels, traits
    chosen clips   → [audio language model] → description → verifier → descriptions

The middle step looks at all clips at once and takes seconds; it has no items of its own. A clip is
measured again when an expert changes, and described again when its traits or its writer change.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import soundfile as sf

from annotators.registry import resolve
from annotators.verifier import VerifierConfig
from jobs.phases import ANNOTATE, DESCRIBE
from pipeline.audio import at_model_rate
from pipeline.clip_rows import ClipRows
from pipeline.storage import Corpus
from pipeline.work import Phase
from schemas.arrow import ATTRIBUTES, DESCRIPTIONS
from schemas.attributes import HeardClip
from schemas.errors import ConfigError, MissingSource, UndecodableAudio
from schemas.ids import content_id
from schemas.rows import Span, Word
from stages.acoustics import AcousticsStage
from stages.description import Describing, Draft
from stages.experts import Experts, ExpertsConfig

PHASE = ANNOTATE
LEVELS_PHASE, TRAITS_PHASE, DESCRIBE_PHASE = "levels", "traits", DESCRIBE
# Raised when a measure changes its meaning: then every clip is measured again.
MEASURES_VERSION = "1"

_NEEDED = ("audio", "speech", "words", "bandwidth_hz")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotateConfig:
    """Which clips are described, and in which language."""

    share: float = 0.3
    """Share of the clips, in (0, 1], that are expressive enough to be described."""
    language: str = "auto"
    """ISO 639-1 code of the descriptions; `auto` takes a clip's own where the writer has it, else
    English."""
    unit_s: float = 300.0
    """Seconds of audio that are measured and committed together: what a crash may cost."""
    verifier: VerifierConfig = field(default_factory=VerifierConfig)

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"annotate.share must be in (0, 1], got {self.share}")
        if self.unit_s <= 0:
            raise ConfigError(f"annotate.unit_s must be above 0, got {self.unit_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPlan:
    """Where a clip's row lies."""

    corpus: str
    part: str
    clip_id: str
    attempt: int = 0


def annotate_phase(experts: ExpertsConfig, placement: Mapping[str, str]) -> Phase:
    """Clips to attributes."""
    return Phase(
        name=PHASE,
        read=read_clip,
        stages=(AcousticsStage(), Experts(experts)),
        placement=placement,
        write=attributes_of,
        measure=lambda clip: float(clip.duration_s),
    )


def describe_phase(verifier: VerifierConfig, placement: Mapping[str, str]) -> Phase:
    """Drafts to descriptions."""
    return Phase(
        name=DESCRIBE_PHASE,
        read=_as_planned,
        stages=(Describing(verifier),),
        placement=placement,
        write=descriptions_of,
        measure=lambda draft: float(draft.duration_s),
    )


@lru_cache(maxsize=1)
def _rows(corpus: str) -> ClipRows:
    """Kept by the worker from clip to clip."""
    return ClipRows(Corpus(corpus), _NEEDED)


def read_clip(plan: ClipPlan) -> HeardClip:
    """A clip with its audio. Raises `MissingSource` or `UndecodableAudio`."""
    row = _rows(plan.corpus).row(plan.part, plan.clip_id)
    if row["audio"] is None:
        raise MissingSource(f"{plan.part} holds no audio of clip {plan.clip_id}")
    try:
        wave, sample_rate = sf.read(io.BytesIO(row["audio"]), dtype="float32")
    except sf.LibsndfileError as error:
        raise UndecodableAudio(f"a clip's audio does not decode: {error}") from error
    return HeardClip(
        clip_id=plan.clip_id,
        attempt=plan.attempt,
        wave=wave,
        sample_rate=sample_rate,
        wave_16k=at_model_rate(wave, sample_rate),
        bandwidth_hz=row["bandwidth_hz"],
        speech=tuple(Span(**span) for span in row["speech"]),
        words=tuple(Word(**word) for word in row["words"]),
    )


def attributes_of(plan: ClipPlan, clip: HeardClip | None) -> Mapping[str, Sequence[Any]]:
    """The clip's row of `attributes`."""
    return {ATTRIBUTES.name: [clip.attributes] if clip and clip.attributes else []}


def descriptions_of(plan: Draft, draft: Draft | None) -> Mapping[str, Sequence[Any]]:
    """The clip's row of `descriptions`."""
    return {DESCRIPTIONS.name: [draft.description] if draft and draft.description else []}


def _as_planned(plan: Draft) -> Draft:
    return plan


def measuring_fingerprint(experts: ExpertsConfig) -> str:
    """What a clip's attributes depend on beside its audio. Raises `ModelLoadError`."""
    models = [resolve(name).hash for name in experts.models]
    return content_id(MEASURES_VERSION, experts.voice, experts.emotion, *models)
