"""Store each clip's audio: FLAC, mono, 16 bit, at the chunk's rate.

FLAC keeps 16 bits exactly, so encoding twice gives the same bytes and a decoded clip can be
encoded again without loss. No dither: at 16 bits it would only add noise to what models learn.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import soundfile as sf

from schemas.errors import ConfigError, EmptyAudio
from schemas.rows import Chunk, Wave

_FULL_SCALE = 32_768


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodingConfig:
    """How hard FLAC works."""

    compression: float = 0.5
    """0 is fastest, 1 is smallest; the samples are the same."""

    def __post_init__(self) -> None:
        if not 0 <= self.compression <= 1:
            raise ConfigError(f"encoding.compression must be in [0, 1], got {self.compression}")


def flac_bytes(wave: Wave, sample_rate: int, compression: float = 0.5) -> bytes:
    """A mono wave as a FLAC file, 16 bit. wave: (samples,), in [-1, 1], else it saturates.

    Raises EmptyAudio.
    """
    if wave.size == 0:
        raise EmptyAudio("a clip of 0 samples cannot be stored")
    scaled = np.round(wave.astype(np.float64) * _FULL_SCALE)
    pcm = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    buffer = io.BytesIO()
    sf.write(
        buffer, pcm, sample_rate, format="FLAC", subtype="PCM_16", compression_level=compression
    )
    return buffer.getvalue()


class Encoding:
    """Fills `audio` of every clip, screened ones too: the filter policy can be changed later."""

    name = "encoding"

    def __init__(self, config: EncodingConfig) -> None:
        self.config = config

    def setup(self) -> None:
        """Nothing to load."""

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with their clips' FLAC bytes."""
        return [
            replace(
                chunk,
                clips=tuple(
                    replace(
                        clip,
                        audio=flac_bytes(
                            chunk.clip_wave(clip), clip.sample_rate, self.config.compression
                        ),
                    )
                    for clip in chunk.clips
                ),
            )
            for chunk in batch
        ]
