"""How a training run goes, whatever it reads."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from model_core.lora import LoRAConfig
from schemas.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW (arXiv 1711.05101)."""

    lr: float = 1e-4
    """The highest learning rate of the schedule."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    """Of matrices; norms and biases do not decay."""
    clip_norm: float = 1.0
    """The gradient of a step is scaled down to this norm."""

    def __post_init__(self) -> None:
        _positive(self, "lr", "clip_norm")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ConfigError(f"weight_decay must not be negative, got {self.weight_decay}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must be in [0, 1), got {self.betas}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """The learning rate over the steps, as shares of the highest."""

    shape: Literal["cosine", "wsd"] = "cosine"
    """After the warm-up: a half cosine to the end; or stable, then a straight decay (WSD,
    arXiv 2404.06395)."""
    warmup_steps: int = 100
    """Steps of a straight rise from near zero."""
    decay_share: float = 0.1
    """wsd: share of all steps that the decay takes."""
    final_ratio: float = 0.0
    """Learning rate after the last step, as a share of the highest."""

    def __post_init__(self) -> None:
        if self.shape not in ("cosine", "wsd"):
            raise ConfigError(f"schedule shape must be cosine or wsd, got {self.shape!r}")
        if self.warmup_steps < 0:
            raise ConfigError(f"warmup_steps must not be negative, got {self.warmup_steps}")
        for name in ("decay_share", "final_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """What a run says aloud now and then, so that one hears how it goes."""

    text: str
    reference: Path | None = None
    """A recording of whose voice (V2 class)."""
    description: str | None = None
    """How and by whom (V2 class)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerConfig:
    """One run. A resumed run may change what `FREE` names; all else stays as it began."""

    steps: int
    """Optimiser steps in all, those before a resume included."""
    accumulate: int = 1
    """Packs of each worker in a step."""
    seed: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the arithmetic: bf16 where the device multiplies it natively (all GPUs that are known here, CPUs
    with AVX-512), else fp32, which is 5 to 30 times as fast there. Weights and optimiser are float32 always."""
    compile: bool = False
    """Compile the blocks with torch.compile."""
    checkpoint_activations: bool = False
    """Keep only what enters a block, and compute the rest again: less memory, a third more time."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """Of several workers: each holds everything, or a part of each tensor."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    lambda_flow: float = 1.0
    """Weight of the flow-matching loss."""
    lambda_stop: float = 1.0
    """Weight of the stop loss."""
    lambda_reading: float = 0.0
    """Weight of the loss that holds the semantic LM's states to tell the text, for corpora of minutes;
    0 leaves it out. See `model_core.training.reading`."""
    pure_noise: float = 0.0
    """Share of the target patches, in [0, 1], whose flow starts at pure noise: only there must a
    patch be known from text and past alone. A small corpus makes little of the few that are."""
    noisy_history: float = 0.0
    """Largest deviation of the noise on the patches that the LMs hear. A model that cannot trust
    what was said so far reads its text, and bears its own errors when it speaks."""
    ema_decay: float | None = None
    """Share that an exponential moving average of the weights keeps of itself at each step. Where
    there is one it is what is validated, spoken with and saved for use."""
    mode: Literal["full", "lora"] = "full"
    lora: LoRAConfig | None = None
    """mode lora: which layers get adapters."""
    log_every: int = 10
    validate_every: int = 500
    """Every save is validated too."""
    save_every: int = 500
    sample_every: int = 0
    """0 is never."""
    samples: tuple[Line, ...] = ()
    pack_positions: int | None = None
    """What a pack holds at most; the log says how full packs are."""

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "log_every", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.sample_every < 0:
            raise ConfigError(f"sample_every must not be negative, got {self.sample_every}")
        if self.pack_positions is not None and self.pack_positions < 1:
            raise ConfigError(f"pack_positions must be at least 1, got {self.pack_positions}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name} must be {' or '.join(known)}, got {getattr(self, name)!r}"
                )
        for name in ("lambda_flow", "lambda_stop", "lambda_reading", "noisy_history"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be a number and not negative, got {value}")
        if not 0 <= self.pure_noise <= 1:
            raise ConfigError(f"pure_noise must be in [0, 1], got {self.pure_noise}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        if (self.mode == "lora") != (self.lora is not None):
            raise ConfigError("mode lora and settings of lora go together")


_CHOICES = {
    "precision": ("auto", "bf16", "fp32"),
    "parallel": ("ddp", "fsdp2"),
    "mode": ("full", "lora"),
}

FREE = (
    "steps",
    "compile",
    "checkpoint_activations",
    "parallel",
    "log_every",
    "validate_every",
    "save_every",
    "sample_every",
    "samples",
    "pack_positions",
)
"""What may differ when a run is resumed: how long and how it runs, and what is told of it."""

BOUND = tuple(f.name for f in fields(TrainerConfig) if f.name not in FREE)
"""What may not."""


def _positive(config: OptimizerConfig, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} must be a positive number, got {value}")
