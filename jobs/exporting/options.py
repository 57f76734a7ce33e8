"""What a user may ask of an export."""

from dataclasses import dataclass
from enum import StrEnum

from schemas.errors import ConfigError
from stages.consent import RULES


class FormatName(StrEnum):
    """Formats that an export can have."""

    VOXCPM = "voxcpm"
    QWEN3_TTS = "qwen3-tts"
    HUGGINGFACE = "huggingface"
    WEBDATASET = "webdataset"
    LHOTSE = "lhotse"
    NEMO = "nemo"
    KALDI = "kaldi"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Which clips go out, and how."""

    licences: tuple[str, ...] = ()
    """Patterns with `*`, without regard to case, of which a recording's licence must match one; none:
    any licence, or no declared one."""
    consent: str = "not_refused"
    """One of `stages.consent.RULES`, asked for training."""
    validation: float = 0.05
    """Share of the hours that is kept for validation."""
    test: float = 0.05
    seed: int = 0
    """Another one puts other speakers and sessions on each side."""
    synthetic: bool = True
    """Accepted clones go out with the training clips."""
    sample_rate: int | None = None
    """Hertz of all audio; null: each clip's own, or the format's."""
    shard_s: float = 3600.0
    """Seconds of audio that are written together: what a crash may cost."""

    def __post_init__(self) -> None:
        if self.consent not in RULES:
            raise ConfigError(f"consent must be {' or '.join(RULES)}, got {self.consent!r}")
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise ConfigError(
                "validation and test must be shares of the hours that leave some for training, got "
                f"{self.validation} and {self.test}"
            )
        if self.sample_rate is not None and not 4_000 <= self.sample_rate <= 192_000:
            raise ConfigError(f"sample rate must be 4,000 to 192,000 Hz, got {self.sample_rate}")
        if not self.shard_s > 0:
            raise ConfigError(f"a shard must have more than 0 s, got {self.shard_s}")
