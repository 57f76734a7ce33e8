"""How checkpoints are compared; who judges is set where the curate phase sets it."""

from dataclasses import dataclass

from schemas.errors import ConfigError

VOICES = ("auto", "reference", "prompt", "both")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """What is spoken, how, and how sure the figures are."""

    voice: str = "auto"
    """How an utterance gets its voice: `reference`, `prompt` (the speech continues the recording),
    `both`, or `auto`: a reference where the checkpoint takes one, else a prompt."""
    samples: int = 200
    """Of a corpus: held-out samples of each layout, at most."""
    recordings: int = 100
    """Recordings that go through the AudioVAE, at most; 0 for none."""
    seed: int = 0
    """Of the speech, with the utterance's own id, and of the intervals."""
    confidence: float = 0.95
    """Of the intervals, in (0, 1)."""
    resamples: int = 2000
    """Bootstrap samples of an interval."""
    unit: int = 64
    """Utterances that are kept at once: what a crash may cost, and a unit of the real-time factor's
    interval."""

    def __post_init__(self) -> None:
        if self.voice not in VOICES:
            raise ConfigError(
                f"evaluate.voice must be one of {', '.join(VOICES)}, got {self.voice!r}"
            )
        for name in ("samples", "resamples", "unit"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluate.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("recordings", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"evaluate.{name} must not be negative, got {getattr(self, name)}"
                )
        if not 0 < self.confidence < 1:
            raise ConfigError(f"evaluate.confidence must be in (0, 1), got {self.confidence}")
