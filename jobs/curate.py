"""The curate phase: raw recordings in, measured and transcribed clips out.

read chunk → music → separation → VAD → segmentation → residue → signal → transcription
→ CTC alignment → alignment → edges → text checks → DNSMOS → speaker → encoding
→ recordings, clips, quarantine
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from typing import Any

from annotators.demucs import hears_stereo
from annotators.registry import ResolvedModel, resolve
from jobs.phases import CURATE
from pipeline.audio import ChunkPlan, read_chunk
from pipeline.cost import CostConfig
from pipeline.engine import EngineConfig
from pipeline.planning import Broken
from pipeline.tombstones import overlap, without_spans
from pipeline.work import Phase
from schemas.errors import ConfigError
from schemas.rows import Chunk, Span
from stages.alignment import Alignment, AlignmentConfig
from stages.ctc_alignment import CtcAlignment, CtcAlignmentConfig
from stages.dnsmos import DnsmosConfig, DnsmosStage
from stages.edges import Edges, EdgesConfig
from stages.encoding import Encoding, EncodingConfig
from stages.music import MusicConfig, MusicStage, Residue
from stages.segmentation import Segmentation, SegmentationConfig
from stages.separation import Separation, SeparationConfig
from stages.signal import Signal, SignalConfig
from stages.speaker import Speaker, SpeakerConfig
from stages.text_checks import TextChecks, TextChecksConfig
from stages.transcription import Transcription, TranscriptionConfig
from stages.vad import Vad, VadConfig

PHASE = CURATE
NO_SPEECH = "no_speech"


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestConfig:
    """How sources become units of work."""

    chunk_s: float = 600.0
    """Longest chunk in seconds; a longer recording is cut in silence."""
    unit_s: float = 60.0
    """Shorter recordings share a unit of about this many seconds of audio."""

    def __post_init__(self) -> None:
        if not 120 <= self.chunk_s <= 3600:
            raise ConfigError(f"ingest.chunk_s must be in [120, 3600], got {self.chunk_s}")
        if self.unit_s < 0:
            raise ConfigError(f"ingest.unit_s must not be negative, got {self.unit_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CurateConfig:
    """Every setting of the phase; a profile fills it."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    music: MusicConfig = field(default_factory=MusicConfig)
    separation: SeparationConfig = field(default_factory=SeparationConfig)
    vad: VadConfig = field(default_factory=VadConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    signal: SignalConfig = field(default_factory=SignalConfig)
    transcription: TranscriptionConfig = field(default_factory=TranscriptionConfig)
    ctc_alignment: CtcAlignmentConfig = field(default_factory=CtcAlignmentConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    edges: EdgesConfig = field(default_factory=EdgesConfig)
    text_checks: TextChecksConfig = field(default_factory=TextChecksConfig)
    dnsmos: DnsmosConfig = field(default_factory=DnsmosConfig)
    speaker: SpeakerConfig = field(default_factory=SpeakerConfig)
    encoding: EncodingConfig = field(default_factory=EncodingConfig)

    def __post_init__(self) -> None:
        stages = {f.name for f in fields(self)} - {"engine", "ingest", "cost"} | {Residue.name}
        unknown = sorted(set(self.engine.placement) - stages)
        if unknown:
            raise ConfigError(f"engine.placement names stages that do not exist: {unknown}")
        if self.separation.mode == "auto" and self.music.model is None:
            raise ConfigError(
                "separation.mode=auto needs a music.model; without one: always or off"
            )


def curate_phase(
    config: CurateConfig, forgotten: Mapping[str, Sequence[Span]] | None = None
) -> Phase:
    """The stages in their order, and the tables that they fill.

    forgotten: recording id → spans whose clips are not to be made again.
    """
    return Phase(
        name=PHASE,
        read=partial(read_item, separation=config.separation),
        stages=(
            MusicStage(config.music),
            Separation(config.separation, config.vad.model),
            Vad(config.vad),
            Segmentation(config.segmentation),
            Residue(config.music),
            Signal(config.signal),
            Transcription(config.transcription),
            CtcAlignment(config.ctc_alignment),
            Alignment(config.alignment),
            Edges(config.edges),
            TextChecks(config.text_checks),
            DnsmosStage(config.dnsmos),
            Speaker(config.speaker),
            Encoding(config.encoding),
        ),
        placement=config.engine.placement,
        write=partial(tables_of, forgotten=forgotten or {}),
        measure=seconds_of,
    )


def read_item(plan: ChunkPlan | Broken, *, separation: SeparationConfig) -> Chunk:
    """An item of the plan as audio. Raises the `DataError` of a source that has none."""
    if isinstance(plan, Broken):
        raise plan.error
    stereo = separation.mode != "off" and _in_stereo(separation.model)
    return read_chunk(plan, stereo=stereo)


@cache
def _in_stereo(model: str) -> bool:
    return hears_stereo(resolve(model).path)


def tables_of(
    plan: ChunkPlan | Broken, chunk: Chunk | None, *, forgotten: Mapping[str, Sequence[Span]]
) -> Mapping[str, Sequence[Any]]:
    """The rows that a chunk leaves; the last chunk brings its recording's row.

    A long recording is known from its survey, so it has a row even if its last chunk failed.
    """
    if isinstance(plan, Broken):
        return {}
    recording = chunk.recording if chunk else plan.recording
    spans = forgotten.get(plan.recording_id, ())
    clips = chunk.clips if chunk else ()
    if chunk and not chunk.clips and plan.num_chunks == 1:
        # Judged, and found empty: the reason must stand somewhere, and there is no clip.
        recording = replace(chunk.recording, flags=(*chunk.recording.flags, NO_SPEECH))
    if recording:
        recording = without_spans(recording, spans)
    is_last = plan.index == plan.num_chunks - 1
    return {
        "clips": [clip for clip in clips if not overlap(clip.start_s, clip.end_s, spans)],
        "recordings": [recording] if recording and is_last else [],
    }


def seconds_of(chunk: Chunk) -> float:
    """Seconds of audio that were decoded."""
    return chunk.duration_s


def model_names(config: CurateConfig) -> list[tuple[str, str]]:
    """(stage, model name or path) for every model that the settings ask for."""
    names = [
        ("music", config.music.model),
        ("separation", None if config.separation.mode == "off" else config.separation.model),
        ("vad", config.vad.model),
        ("transcription", config.transcription.model),
        ("transcription", config.transcription.second_model),
        ("ctc_alignment", config.ctc_alignment.model),
        ("dnsmos", config.dnsmos.model),
        ("speaker", config.speaker.model),
    ]
    return [(stage, name) for stage, name in names if name is not None]


def models_of(config: CurateConfig) -> list[ResolvedModel]:
    """Find every model before any work begins. Raises `ModelLoadError` for the first not found."""
    return [resolve(name) for _, name in model_names(config)]
