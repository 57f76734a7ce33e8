"""Store each clip's audio: FLAC, mono, 16 bit, at the chunk's rate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.errors import ConfigError
from schemas.rows import Chunk
from stages.flac import flac_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodingConfig:
    """How hard FLAC works."""

    compression: float = 0.5
    """0 is fastest, 1 is smallest; the samples are the same."""

    def __post_init__(self) -> None:
        if not 0 <= self.compression <= 1:
            raise ConfigError(f"encoding.compression must be in [0, 1], got {self.compression}")


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
