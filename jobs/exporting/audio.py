"""The clips of a shard with their sound, one after the other, as a format wants it."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import soundfile as sf
import soxr

from pipeline.clip_audio import ClipAudio
from pipeline.storage import Corpus
from schemas.errors import DataError, UndecodableAudio
from stages.flac import flac_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportClip:
    """A clip on its way out."""

    row: dict[str, Any]
    """Its columns of `Choice.clips`."""
    audio: bytes = field(repr=False)
    """A FLAC or WAV file, mono, 16 bit."""
    sample_rate: int
    frames: int

    @property
    def duration_s(self) -> float:
        """Length of the audio."""
        return self.frames / self.sample_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """A clip whose audio could not be read: it stays, and is named."""

    clip_id: str
    error: str


class ClipReader:
    """Reads clips from the corpus and converts them."""

    def __init__(self, corpus: Corpus, suffix: str, sample_rate: int | None) -> None:
        """suffix: `flac` or `wav`; sample_rate: hertz, None for each clip's own."""
        self._audio = ClipAudio(corpus)
        self._suffix = suffix
        self._sample_rate = sample_rate
        self.lost: list[Lost] = []
        """What the last pass could not read."""

    def clips(self, rows: pl.DataFrame) -> Iterator[ExportClip]:
        """Each clip that can be read, in the order of the rows."""
        self.lost = []
        for row in rows.iter_rows(named=True):
            try:
                stored = self._audio.flac(row["part"], row["clip_id"])
                audio, rate, frames = converted(stored, self._suffix, self._sample_rate)
            except DataError as error:
                self.lost.append(Lost(clip_id=row["clip_id"], error=str(error)))
                continue
            yield ExportClip(row=row, audio=audio, sample_rate=rate, frames=frames)


def converted(stored: bytes, suffix: str, sample_rate: int | None) -> tuple[bytes, int, int]:
    """A stored clip as a file of a format and rate: the file, its hertz and its samples.

    At the clip's own rate the samples stay as they are, bit by bit. Raises `UndecodableAudio`.
    """
    try:
        pcm, rate = sf.read(io.BytesIO(stored), dtype="int16")
    except (sf.LibsndfileError, RuntimeError) as error:
        raise UndecodableAudio(f"a clip's audio does not decode: {error}") from error
    if not pcm.size:
        raise UndecodableAudio("a clip's audio decodes to no samples")
    if sample_rate in (None, rate):
        if suffix == "flac":
            return stored, int(rate), len(pcm)
    else:
        wave = soxr.resample(pcm.astype(np.float32) / 32_768, rate, sample_rate, quality="VHQ")
        rate = sample_rate
        if suffix == "flac":
            return flac_bytes(wave, rate), int(rate), len(wave)
        pcm = np.clip(np.round(wave * 32_768), -32_768, 32_767).astype(np.int16)
    buffer = io.BytesIO()
    sf.write(buffer, pcm, rate, format=suffix.upper(), subtype="PCM_16")
    return buffer.getvalue(), int(rate), len(pcm)
