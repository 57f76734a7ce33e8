"""The encode phase: accepted clips, recorded and generated, → hearing → AudioVAE → latents.

A clip is encoded again when the AudioVAE changes, a generated one also when it is generated anew.
Clips of a session follow each other in the plan, so a target, its references and its prompt lie
near each other in the table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import polars as pl

from jobs.annotate import ClipPlan
from jobs.phases import ENCODE
from pipeline.clip_rows import ClipRows
from pipeline.derived import Derived
from pipeline.storage import Corpus
from pipeline.work import Phase
from schemas.arrow import LATENTS, SYNTHETIC
from schemas.errors import ConfigError, MissingSource
from schemas.ids import content_id
from schemas.latents import ClipSound
from stages.hearing import Hearing
from stages.latents import Latents, LatentsConfig

PHASE = ENCODE
# Raised when the same sound and AudioVAE give another latent than before.
ENCODING_VERSION = "1"


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeConfig:
    """How clips become units of work."""

    unit_s: float = 600.0
    """Seconds of audio that are read, encoded and committed together: what a crash may cost. A core
    hears the releases' AudioVAE at a few times real time, so these are about two minutes."""

    def __post_init__(self) -> None:
        if self.unit_s <= 0:
            raise ConfigError(f"encode.unit_s must be above 0, got {self.unit_s}")


def encode_phase(
    config: LatentsConfig, checkpoint: str, vae: str, placement: Mapping[str, str]
) -> Phase:
    """Clips to latents. vae: the hash of the checkpoint's AudioVAE."""
    return Phase(
        name=PHASE,
        read=read_clip,
        stages=(Hearing(checkpoint), Latents(config, checkpoint, vae)),
        placement=placement,
        write=latents_of,
        measure=lambda clip: float(clip.duration_s),
    )


@lru_cache(maxsize=1)
def _rows(corpus: str) -> ClipRows:
    """Kept by the worker from clip to clip."""
    return ClipRows(Corpus(corpus), ("audio", "sample_rate"))


def read_clip(plan: ClipPlan) -> ClipSound:
    """A clip's audio as it is stored, in `clips` or `synthetic`. Raises `MissingSource`."""
    row = _rows(plan.corpus).row(plan.part, plan.clip_id)
    if row["audio"] is None:
        raise MissingSource(f"{plan.part} holds no audio of clip {plan.clip_id}")
    return ClipSound(
        clip_id=plan.clip_id,
        attempt=plan.attempt,
        audio=row["audio"],
        sample_rate=row["sample_rate"],
        synthetic=plan.part.startswith(f"{SYNTHETIC.name}/"),
    )


def latents_of(plan: ClipPlan, clip: ClipSound | None) -> Mapping[str, Sequence[Any]]:
    """The clip's row of `latents`."""
    return {LATENTS.name: [clip.latent] if clip and clip.latent else []}


def with_synthetic(clips: pl.DataFrame, synthetic: pl.DataFrame) -> pl.DataFrame:
    """Recorded and generated clips in one frame; `generation` says which generation one is, and is
    null for a recording.

    clips: accepted recorded ones; synthetic: accepted rows of `synthetic`; both with their `part`.
    """
    made = synthetic.select(
        *("clip_id", "session_id", "duration_s", "part"),
        generation="attempt",
        place=pl.format("synthetic clip of {}", "described_id"),
    )
    return pl.concat([clips, made], how="diagonal")


def clips_to_encode(
    corpus: Corpus, clips: pl.DataFrame, vae: str, config: LatentsConfig
) -> Iterator[Derived]:
    """Every accepted clip, session by session, in the order in which the sessions lie.

    clips: as `with_synthetic` joins them.
    """
    fingerprint = content_id(ENCODING_VERSION, vae, config.dtype)
    ordered = (
        clips.with_row_index("place_of_clip")
        .with_columns(place_of_session=pl.col("place_of_clip").min().over("session_id"))
        .sort(
            *("place_of_session", pl.col("generation").is_not_null()),
            *("recording_id", "start_s", "clip_id"),
        )
    )
    columns = ("clip_id", "place", "duration_s", "part", "generation")
    for clip_id, place, duration_s, part, generation in ordered.select(columns).iter_rows():
        yield Derived(
            item_id=clip_id,
            uri=place or clip_id,
            fingerprint=(
                fingerprint if generation is None else content_id(fingerprint, generation)
            ),
            duration_s=duration_s,
            plan=ClipPlan(corpus=corpus.root, part=part, clip_id=clip_id),
            size=int(duration_s) + 1,
        )
