"""The voice of each clip, and whether it stays one voice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from annotators.registry import resolve
from annotators.speaker import SpeakerEncoder, Window
from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Span

_ENCODERS = ("ge2e", "ecapa")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeakerConfig:
    """Which encoder."""

    model: str = "ge2e"
    """`ge2e`, `ecapa`, or a path; then `encoder` says what lies there."""
    encoder: str | None = None
    """`ge2e` or `ecapa`; None takes it from the model's name."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    threads: int = 1
    """Threads of the model on a CPU."""
    batch_size: int = 32
    """Windows per call."""
    min_speech: float = 0.5
    """Share of a window, in [0, 1], that must be speech for purity to look at it."""
    min_stretch: int = 2
    """Windows that a stretch and the rest of its clip must each have for purity to compare them;
    two of GE2E's are 2.4 s."""

    def __post_init__(self) -> None:
        if self.encoder is None and self.model not in _ENCODERS:
            raise ConfigError(f"speaker.model {self.model!r} is a path: set speaker.encoder too")
        if self.encoder is not None and self.encoder not in _ENCODERS:
            raise ConfigError(
                f"speaker.encoder must be one of {', '.join(_ENCODERS)}, got {self.encoder!r}"
            )
        if not 0 <= self.min_speech <= 1:
            raise ConfigError(f"speaker.min_speech must be in [0, 1], got {self.min_speech}")
        for name in ("threads", "batch_size", "min_stretch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"speaker.{name} must be at least 1, got {getattr(self, name)}")


def open_encoder(config: SpeakerConfig) -> SpeakerEncoder:
    """The encoder with its weights. Raises ModelLoadError."""
    path: Path = resolve(config.model).path
    if (config.encoder or config.model) == "ge2e":
        from annotators.ge2e import Ge2e

        return Ge2e(
            path, threads=config.threads, device=config.device, batch_size=config.batch_size
        )
    from annotators.ecapa import Ecapa

    return Ecapa(path, threads=config.threads, device=config.device, batch_size=config.batch_size)


def spoken(windows: Sequence[Window], speech: Sequence[Span], min_speech: float) -> list[Window]:
    """The windows that are speech for at least `min_speech` of their length.

    A pause, or what sounds in it, has no voice. Without any `speech` nothing is known of pauses,
    and every window counts.
    """
    if not speech:
        return list(windows)
    return [
        window
        for window in windows
        if sum(
            max(0.0, min(span.end_s, window.end_s) - max(span.start_s, window.start_s))
            for span in speech
        )
        >= min_speech * (window.end_s - window.start_s)
    ]


def purity(voice: Sequence[Window], min_stretch: int) -> float | None:
    """Lowest cosine between a stretch of the clip and the rest of it, over all stretches.

    A stretch is a run of at least `min_stretch` windows that leaves as many outside. None where
    the clip is too short for one. Comparing a stretch with the rest, and not with the clip that
    holds it, keeps a second voice from diluting its own evidence.
    """
    if len(voice) < 2 * min_stretch:
        return None
    windows = np.stack([window.embedding for window in voice]).astype(np.float64)
    num = len(windows)
    sums = np.concatenate((np.zeros((1, windows.shape[1])), np.cumsum(windows, axis=0)))
    lowest = 1.0
    for start in range(num - min_stretch + 1):
        longest = num - min_stretch  # windows that a stretch may have
        inside = sums[start + min_stretch : min(num, start + longest) + 1] - sums[start]
        outside = sums[-1] - inside
        norms = np.linalg.norm(inside, axis=1) * np.linalg.norm(outside, axis=1)
        cosines = np.einsum("nd,nd->n", inside, outside) / np.maximum(norms, 1e-12)
        lowest = min(lowest, float(cosines.min()))
    return lowest


def embedded(chunk: Chunk, encoder: SpeakerEncoder, config: SpeakerConfig) -> tuple[Clip, ...]:
    """The chunk's clips with their voice; screened clips stay unmeasured."""
    wanted = [clip for clip in chunk.clips if clip.screened is None]
    voices = iter(encoder.embed([chunk.clip_wave_16k(clip) for clip in wanted]))
    clips = []
    for clip in chunk.clips:
        if clip.screened is None:
            voice = next(voices)
            clip = replace(
                clip,
                speaker_embedding=voice.embedding,
                speaker_purity=purity(
                    spoken(voice.windows, clip.speech, config.min_speech), config.min_stretch
                ),
            )
        clips.append(clip)
    return tuple(clips)


class Speaker:
    """Fills `speaker_embedding` and `speaker_purity`."""

    name = "speaker"

    def __init__(self, config: SpeakerConfig) -> None:
        self.config = config
        self._encoder: SpeakerEncoder | None = None

    def setup(self) -> None:
        """Open the encoder. Raises ModelLoadError."""
        self._encoder = open_encoder(self.config)

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with their clips' voices."""
        assert self._encoder is not None, "setup() comes first"
        return [
            replace(chunk, clips=embedded(chunk, self._encoder, self.config)) for chunk in batch
        ]
