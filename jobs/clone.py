"""The clone phase: a described voice says what somebody else said.

    described clip, references → voices → speaking → marking → judging → synthetic

Several attempts are made at each clip and stored as they would be kept, watermark and all; the
judges hear those and the best one becomes a row. A clip is made again when anything that it is made
by changes: the checkpoint, how it speaks, the watermark, or a judge.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import soxr

from annotators.dnsmos import Dnsmos
from annotators.registry import checkpoint_folder, checkpoint_hash, resolve
from annotators.watermark import Watermark
from annotators.whisper import Whisper, knows_language
from jobs.clone_plan import PHASE, ClipPlace, ClonePlan, Plan
from jobs.clone_plan import REASONS as PLAN_REASONS
from jobs.settings import Settings
from jobs.voice_thresholds import encoder_of
from pipeline.clip_rows import ClipRows
from pipeline.shelf import in_order
from pipeline.storage import Corpus
from pipeline.work import Phase
from schemas.arrow import SYNTHETIC
from schemas.cloning import Clone
from schemas.errors import ConfigError, MissingSource, ModelLoadError
from schemas.ids import content_id
from schemas.rows import Wave
from schemas.synthetic import Synthetic
from stages.dnsmos import DnsmosConfig
from stages.flac import wave_of
from stages.judging import Judges, Judging
from stages.marking import Marking
from stages.speaker import SpeakerConfig, open_encoder
from stages.speaking import Speaking, SpeakingConfig, Voices
from stages.transcription import TranscriptionConfig

# Raised when the same plan, models and settings give another clip than before.
CLONING_VERSION = "1"
UNHEARD = "unheard"
"""The reason where no recogniser can check what a clone says."""
REASONS = {**PLAN_REASONS, UNHEARD: "is in a language that the recogniser does not know"}
"""Why a described clip is not cloned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Maker:
    """The checkpoint that speaks, and the mark that it leaves."""

    checkpoint: str
    """As it was asked for."""
    model_hash: str
    watermark: str
    """The method."""


def maker_of(checkpoint: str) -> Maker:
    """Find a checkpoint and hash it. Raises `ModelLoadError`, also where it takes no reference."""
    from model_core.checkpoint import read_config

    folder = checkpoint_folder(checkpoint)
    if not read_config(folder).is_v2:
        raise ModelLoadError(
            f"{checkpoint} is of the V1 class, which takes neither a reference nor a description"
        )
    return Maker(
        checkpoint=checkpoint, model_hash=checkpoint_hash(folder), watermark=Watermark.name
    )


def generation_of(maker: Maker, config: Settings) -> str:
    """Over all that a clone is made and chosen by, beside its plan. Raises `ModelLoadError`."""
    speaking, judging, asr = config.speaking, config.judging, config.transcription
    judges = (asr.model, config.speaker.model, config.dnsmos.model)
    return content_id(
        CLONING_VERSION,
        *(maker.model_hash, maker.watermark),
        *(speaking.candidates, speaking.num_steps, str(speaking.cfg), str(speaking.longest)),
        *(speaking.dtype, str(judging.near_cer), str(judging.near_cosine)),
        *(str(judging.silence_dbfs), asr.beam_size, asr.compute_type),
        *(resolve(name).hash for name in judges),
    )


def clone_phase(config: Settings, maker: Maker, *, same_encoder: bool) -> Phase:
    """Plans to rows of `synthetic`.

    same_encoder: the corpus' voices were measured by the encoder that judges, so that a described
    clip's stored embedding is what a clone's is compared with.
    """
    judges = partial(open_judges, config.transcription, config.dnsmos, config.speaker)
    model = maker.checkpoint, maker.model_hash
    placed = config.engine.placement
    return Phase(
        name=PHASE,
        read=partial(read_clone, same_encoder=same_encoder),
        stages=(
            Voices(config.speaking, *model),
            Speaking(config.speaking, *model),
            Marking(),
            Judging(config.judging, judges),
        ),
        # The voice is read by the model that speaks in it, and marked where it is judged.
        placement={
            **placed,
            "voices": placed.get("speaking", "cpu"),
            "marking": placed.get("judging", "cpu"),
        },
        write=partial(rows_of, maker=maker, config=config.speaking),
        measure=_seconds,
    )


def open_judges(
    transcription: TranscriptionConfig, dnsmos: DnsmosConfig, speaker: SpeakerConfig
) -> Judges:
    """The recogniser, encoder and scorer of the curate phase, and the watermark's detector.

    Raises `ModelLoadError`.
    """
    return Judges(
        asr=Whisper(
            resolve(transcription.model).path,
            device=transcription.device,
            compute_type=transcription.compute_type,
            threads=transcription.threads,
            beam_size=transcription.beam_size,
            batch_size=transcription.batch_size,
        ),
        voices=open_encoder(speaker),
        quality=Dnsmos(
            resolve(dnsmos.model).path, threads=dnsmos.threads, batch_size=dnsmos.batch_size
        ),
        watermark=Watermark(),
    )


def has_same_encoder(corpus: Corpus, speaker: SpeakerConfig) -> bool:
    """Whether the corpus' embeddings are those of the encoder that judges.

    Raises `ModelLoadError`. A corpus that does not say, or says several, has none to compare with.
    """
    try:
        return encoder_of(corpus).hash == resolve(speaker.model).hash
    except ConfigError:
        return False


def recognised(plan: Plan, transcription: TranscriptionConfig) -> Plan:
    """The plan without texts in a language that the recogniser cannot check.

    Raises `ModelLoadError`.
    """
    path = resolve(transcription.model).path
    languages = {item.plan.language for item in plan.items}
    known = {one for one in languages if knows_language(path, one)}
    if languages == known:
        return plan
    kept = in_order(item for item in plan.items if item.plan.language in known)
    lost = {item.plan.described.clip_id for item in plan.items if item.plan.language not in known}
    return replace(plan, items=kept, left_out=plan.left_out + Counter({UNHEARD: len(lost)}))


@lru_cache(maxsize=1)
def _rows(corpus: str) -> ClipRows:
    """Kept by the worker from clip to clip."""
    return ClipRows(Corpus(corpus), ("audio", "speaker_embedding"))


def read_clone(plan: ClonePlan, *, same_encoder: bool) -> Clone:
    """What a clone is made from. Raises `MissingSource` or `UndecodableAudio`."""
    described = _row(plan.corpus, plan.described)
    embedding = described["speaker_embedding"] if same_encoder else None
    reference, rate = joined(
        (wave_of(_row(plan.corpus, place)["audio"]) for place in plan.references),
        plan.reference_max_s,
    )
    return Clone(
        clip_id=plan.clip_id,
        attempt=plan.attempt,
        text=plan.text,
        language=plan.language,
        description=plan.description,
        expected_s=plan.expected_s,
        seed=plan.seed,
        reference=reference,
        reference_rate=rate,
        speaker_embedding=None if embedding is None else np.asarray(embedding, np.float32),
        described=described["audio"] if embedding is None else b"",
    )


def _row(corpus: str, place: ClipPlace) -> dict[str, Any]:
    row = _rows(corpus).row(place.part, place.clip_id)
    if row["audio"] is None:
        raise MissingSource(f"{place.part} holds no audio of clip {place.clip_id}")
    return row


def joined(waves: Iterable[tuple[Wave, int]], longest_s: float) -> tuple[Wave, int]:
    """Clips one after the other, at the rate of the first, cut off at `longest_s`."""
    pieces: list[Wave] = []
    rate, room = 0, 0
    for wave, own_rate in waves:
        if not pieces:
            rate, room = own_rate, int(longest_s * own_rate)
        if own_rate != rate:
            wave = np.asarray(soxr.resample(wave, own_rate, rate, quality="HQ"), np.float32)
        pieces.append(wave[:room])
        room -= len(pieces[-1])
        if not room:
            break
    return np.concatenate(pieces), rate


def rows_of(
    plan: ClonePlan, clone: Clone | None, *, maker: Maker, config: SpeakingConfig
) -> Mapping[str, Sequence[Any]]:
    """The clone's row of `synthetic`."""
    return {SYNTHETIC.name: [] if clone is None else [_synthetic(plan, clone, maker, config)]}


def _synthetic(plan: ClonePlan, clone: Clone, maker: Maker, config: SpeakingConfig) -> Synthetic:
    kept = clone.kept
    return Synthetic(
        clip_id=plan.clip_id,
        described_id=plan.described.clip_id,
        session_id=plan.session_id,
        transcript_id=plan.transcript_id,
        transcript_session_id=plan.transcript_session_id,
        reference_ids=tuple(place.clip_id for place in plan.references),
        description=plan.description,
        model=maker.checkpoint,
        model_hash=maker.model_hash,
        seed=kept.seed,
        candidates=config.candidates,
        language=plan.language,
        text=plan.text,
        text_cosine=plan.text_cosine,
        lexical_overlap=plan.lexical_overlap,
        sample_rate=kept.sample_rate,
        duration_s=kept.duration_s,
        audio=kept.audio,
        watermark=maker.watermark,
        watermark_score=kept.watermark_score,
        stopped=kept.stopped,
        text_asr=kept.text_asr,
        asr_avg_logprob=kept.asr_avg_logprob,
        cer=kept.cer,
        cosine=kept.cosine,
        speaker_embedding=kept.speaker_embedding,
        length_ratio=kept.duration_s / plan.expected_s,
        dnsmos_sig=kept.dnsmos_sig,
        dnsmos_bak=kept.dnsmos_bak,
        dnsmos_ovrl=kept.dnsmos_ovrl,
        dnsmos_p808=kept.dnsmos_p808,
        attempt=plan.attempt,
    )


def _seconds(clone: Clone) -> float:
    return clone.kept.duration_s
