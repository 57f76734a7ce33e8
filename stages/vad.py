"""Find the speech of a chunk."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from annotators.registry import resolve
from annotators.silero import SAMPLE_RATE, Silero, speech_spans
from schemas.errors import ConfigError
from schemas.rows import Chunk, Span


@dataclass(frozen=True, kw_only=True, slots=True)
class VadConfig:
    """When a frame is speech, and which pauses part two spans."""

    model: str = "silero"
    """Name or path of the sequence export of Silero VAD."""
    threshold: float = 0.5
    """Probability in (0, 1) from which speech begins; it ends 0.15 below."""
    min_speech_s: float = 0.25
    """Seconds; shorter bursts are no speech."""
    min_silence_s: float = 0.3
    """Seconds; shorter pauses stay inside a span."""
    pad_s: float = 0.03
    """Seconds that a span grows at either end."""
    threads: int = 1
    """Threads of the model."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(f"vad.threshold must be in (0, 1), got {self.threshold}")
        for name in ("min_speech_s", "min_silence_s", "pad_s"):
            if not 0 <= getattr(self, name) <= 10:
                raise ConfigError(f"vad.{name} must be in [0, 10], got {getattr(self, name)}")
        if self.threads < 1:
            raise ConfigError(f"vad.threads must be at least 1, got {self.threads}")


def speech_of(chunk: Chunk, model: Silero, config: VadConfig) -> tuple[Span, ...]:
    """Voice activity in seconds from the start of the chunk."""
    return speech_spans(
        model.probs(chunk.wave_16k),
        duration_s=chunk.wave_16k.size / SAMPLE_RATE,
        threshold=config.threshold,
        min_speech_s=config.min_speech_s,
        min_silence_s=config.min_silence_s,
        pad_s=config.pad_s,
    )


class Vad:
    """Fills `Chunk.speech`."""

    name = "vad"

    def __init__(self, config: VadConfig) -> None:
        self.config = config
        self._model: Silero | None = None

    def setup(self) -> None:
        """Open the model. Raises ModelLoadError."""
        self._model = Silero(resolve(self.config.model).path, threads=self.config.threads)

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with their speech."""
        assert self._model is not None, "setup() comes first"
        return [
            replace(chunk, speech=speech_of(chunk, self._model, self.config)) for chunk in batch
        ]
