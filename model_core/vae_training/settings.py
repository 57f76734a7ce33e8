"""Settings of AudioVAE training. The defaults are those of DAC and of VoxCPM's AudioVAE."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from schemas.errors import ConfigError

Schedule = Literal["exponential", "cosine"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MelConfig:
    """The spectrograms that two waveforms are compared by."""

    windows: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048)
    """Samples of each window; a hop is a quarter of it."""
    num_mels: tuple[int, ...] = (5, 10, 20, 40, 80, 160, 320)
    """Mel bands of each window."""
    floor: float = 1e-5
    """Magnitude below which everything is silence."""

    def __post_init__(self) -> None:
        if not self.windows or len(self.windows) != len(self.num_mels):
            raise ConfigError(
                f"mel: each window needs its num_mels, got {len(self.windows)} windows and "
                f"{len(self.num_mels)} num_mels"
            )
        for window, mels in zip(self.windows, self.num_mels, strict=True):
            if window < 16 or window % 4 or not 0 < mels <= window // 2:
                raise ConfigError(
                    "mel: windows must be multiples of 4 from 16 on, with at most half as many "
                    f"num_mels, got {window} and {mels}"
                )
        _positive("mel", self, "floor")


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscriminatorsConfig:
    """Who tells real speech from the AudioVAE's. An empty list leaves a kind out."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    """Each sees the waveform folded to this many columns."""
    period_channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    fft_sizes: tuple[int, ...] = (2048, 1024, 512)
    """Each sees a complex spectrogram with this window, band by band."""
    fft_channels: int = 32
    bands: tuple[tuple[float, float], ...] = (
        (0.0, 0.1),
        (0.1, 0.25),
        (0.25, 0.5),
        (0.5, 0.75),
        (0.75, 1.0),
    )
    """Shares of the spectrum that have convolutions of their own."""
    scales: tuple[int, ...] = (1,)
    """Each sees the waveform itself, the mean of this many samples at a time."""
    scale_channels: tuple[int, ...] = (16, 64, 256, 1024, 1024, 1024)

    def __post_init__(self) -> None:
        if not (self.periods or self.fft_sizes or self.scales):
            raise ConfigError(
                "discriminators: at least one of periods, fft_sizes, scales is needed"
            )
        for name in ("periods", "period_channels", "fft_sizes", "scales", "scale_channels"):
            if any(value < 1 for value in getattr(self, name)):
                raise ConfigError(f"discriminators.{name} must be >= 1, got {getattr(self, name)}")
        for name in ("period_channels", "scale_channels"):
            if len(getattr(self, name)) < 2:
                raise ConfigError(f"discriminators.{name} must hold at least 2 layers")
        if any(channels % 4 for channels in self.scale_channels[:-1]):
            raise ConfigError(
                f"discriminators.scale_channels must be multiples of 4, got {self.scale_channels}"
            )
        if self.fft_channels < 1 or any(size % 4 or size < 64 for size in self.fft_sizes):
            raise ConfigError(
                "discriminators: fft_sizes must be multiples of 4 from 64 on and fft_channels >= "
                f"1, got {self.fft_sizes} and {self.fft_channels}"
            )
        if not self.bands or any(not 0 <= low < high <= 1 for low, high in self.bands):
            raise ConfigError(f"discriminators.bands must rise within [0, 1], got {self.bands}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """What each part of the AudioVAE's loss counts."""

    mel: float = 15.0
    adversarial: float = 1.0
    features: float = 2.0
    """Of matching what the discriminators see in real speech."""
    kl: float = 5e-5

    def __post_init__(self) -> None:
        for part in fields(self):
            if getattr(self, part.name) < 0:
                raise ConfigError(f"loss.{part.name} must be >= 0, got {getattr(self, part.name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """The loop: how long, how fast, and when it saves and looks at held-out clips."""

    steps: int = 400_000
    batch_size: int = 72
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    warmup_steps: int = 0
    schedule: Schedule = "exponential"
    """"exponential": times `decay` at every step; "cosine": to zero at the last one."""
    decay: float = 0.999996
    adversarial_from: int = 0
    """The step from which on the discriminators learn and are listened to."""
    frozen_encoder: bool = False
    """Only the decoder learns: a language model that was trained on the latents still knows them."""
    clip_vae: float = 1000.0
    """Largest norm of the AudioVAE's gradient."""
    clip_discriminators: float = 10.0
    precision: Precision = "fp32"
    """Of the discriminators, on a GPU; the AudioVAE stays in fp32, as it is used."""
    seed: int = 0
    log_every: int = 50
    validate_every: int = 1000
    save_every: int = 1000

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size", "log_every", "validate_every", "save_every")
        _positive("training", self, *counts)
        _positive("training", self, "learning_rate", "clip_vae", "clip_discriminators")
        for name in ("warmup_steps", "adversarial_from", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"training.{name} must be >= 0, got {getattr(self, name)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"training.betas must be in [0, 1), got {self.betas}")
        if not 0 < self.decay <= 1:
            raise ConfigError(f"training.decay must be in (0, 1], got {self.decay}")


@dataclass(frozen=True, kw_only=True, slots=True)
class VAETraining:
    """All that the trainer needs to know."""

    mel: MelConfig = field(default_factory=MelConfig)
    discriminators: DiscriminatorsConfig = field(default_factory=DiscriminatorsConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    training: LoopConfig = field(default_factory=LoopConfig)


def _positive(group: str, config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ConfigError(f"{group}.{name} must be > 0, got {getattr(config, name)}")
