"""Perceived quality of each clip."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from annotators.dnsmos import Dnsmos
from annotators.registry import resolve
from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip


@dataclass(frozen=True, kw_only=True, slots=True)
class DnsmosConfig:
    """Which weights, and how many windows share a call."""

    model: str = "dnsmos"
    """Name, or path of a folder with sig_bak_ovr.onnx and model_v8.onnx."""
    threads: int = 1
    """Threads of the models."""
    batch_size: int = 1
    """Windows of 9.01 s per call; on a CPU more of them only fall out of its caches."""

    def __post_init__(self) -> None:
        for name in ("threads", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"dnsmos.{name} must be at least 1, got {getattr(self, name)}")


def scored(chunk: Chunk, model: Dnsmos) -> tuple[Clip, ...]:
    """The chunk's clips with the four scores; screened clips stay unmeasured."""
    wanted = [clip for clip in chunk.clips if clip.screened is None]
    scores = iter(model.score([chunk.clip_wave_16k(clip) for clip in wanted]))
    clips = []
    for clip in chunk.clips:
        if clip.screened is None:
            own = next(scores)
            clip = replace(
                clip,
                dnsmos_sig=own.sig,
                dnsmos_bak=own.bak,
                dnsmos_ovrl=own.ovrl,
                dnsmos_p808=own.p808,
            )
        clips.append(clip)
    return tuple(clips)


class DnsmosStage:
    """Fills `dnsmos_sig`, `dnsmos_bak`, `dnsmos_ovrl` and `dnsmos_p808`."""

    name = "dnsmos"

    def __init__(self, config: DnsmosConfig) -> None:
        self.config = config
        self._model: Dnsmos | None = None

    def setup(self) -> None:
        """Open the models. Raises ModelLoadError."""
        self._model = Dnsmos(
            resolve(self.config.model).path,
            threads=self.config.threads,
            batch_size=self.config.batch_size,
        )

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with their clips scored."""
        assert self._model is not None, "setup() comes first"
        return [replace(chunk, clips=scored(chunk, self._model)) for chunk in batch]
