"""Hear where music plays or noise stands, and what of music a separation has left."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from annotators.music import Music
from annotators.registry import resolve
from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Span
from stages.spans import common, mean_of, shared_s
from stages.stnr import stnr_db

AROUND_S = 0.5
"""Speech that a separation has lost at a clip's edges lies this far outside it at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MusicConfig:
    """Which network listens."""

    model: str | None = "music"
    """Name or path; null: nobody listens, `music` and `stnr_db` of clips stay null, and nothing is separated
    but by `separation.mode=always`."""
    threads: int = 1
    """Threads of the model."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConfigError(f"music.threads must be at least 1, got {self.threads}")


class _Listener:
    """What both stages here start with."""

    def __init__(self, config: MusicConfig) -> None:
        self.config = config
        self._model: Music | None = None

    def setup(self) -> None:
        """Open the model. Raises ModelLoadError."""
        if self.config.model is not None:
            self._model = Music(resolve(self.config.model).path, threads=self.config.threads)


class MusicStage(_Listener):
    """Fills `Chunk.music` and `Chunk.stnr_db`."""

    name = "music"

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with where music plays and how near the noise is."""
        if self._model is None:
            return list(batch)
        return [
            replace(chunk, music=self._model.probs(chunk.wave_16k), stnr_db=stnr_db(chunk.wave_16k))
            for chunk in batch
        ]


class Residue(_Listener):
    """Fills what clips tell of background and separation: `music`, `stnr_db`, `music_left`, `speech_kept`."""

    name = "residue"

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with their clips' scores."""
        return [replace(chunk, clips=self._clips(chunk)) for chunk in batch]

    def _clips(self, chunk: Chunk) -> tuple[Clip, ...]:
        left = None
        if chunk.separated is not None and self._model is not None and chunk.clips:
            left = self._model.probs(chunk.wave_16k)
        return tuple(residue(chunk, clip, left) for clip in chunk.clips)


def residue(chunk: Chunk, clip: Clip, left: npt.NDArray[np.float32] | None) -> Clip:
    """The clip with what background there was and is. left: as `Chunk.music`, after separation."""
    start_s = (clip.start_sample - chunk.start_sample) / chunk.sample_rate
    here = Span(start_s=start_s, end_s=start_s + clip.duration_s)
    clip = replace(
        clip,
        music=None if chunk.music is None else mean_of(chunk.music, here),
        stnr_db=None if chunk.stnr_db is None else mean_of(chunk.stnr_db, here),
    )
    separated = chunk.separated
    if separated is None or not shared_s((here,), separated.spans):
        return clip
    around = Span(start_s=here.start_s - AROUND_S, end_s=here.end_s + AROUND_S)
    before = common(separated.speech, (around,))
    spoken_s = sum(span.end_s - span.start_s for span in before)
    return replace(
        clip,
        separated_by=separated.by,
        music_left=None if left is None else mean_of(left, here),
        speech_kept=shared_s(before, chunk.speech) / spoken_s if spoken_s else None,
    )
