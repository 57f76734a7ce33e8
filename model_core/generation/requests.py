"""What is asked of the generation engine, and what it answers."""

from dataclasses import dataclass

from torch import Tensor

from model_core.sequences import Sequence
from schemas.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchRequest:
    """Patches that follow a sequence."""

    sequence: Sequence
    seed: int
    """Decides the noise, whatever else is in the batch; an attempt more adds one."""
    min_patches: int = 2
    """A stop is not heard before patch number min_patches + 2, as in the official loop."""
    max_patches: int
    too_many: float = float("inf")
    """An answer of so many patches or more is tried again."""
    max_attempts: int = 1
    """The last attempt is taken as it is."""

    def __post_init__(self) -> None:
        if self.max_patches < 1:
            raise ConfigError(f"max_patches must be at least 1, got {self.max_patches}")
        if self.min_patches < 0:
            raise ConfigError(f"min_patches must not be negative, got {self.min_patches}")
        if self.max_attempts < 1:
            raise ConfigError(f"max_attempts must be at least 1, got {self.max_attempts}")


@dataclass(frozen=True, slots=True)
class Generated:
    """Patches (A, P, C) in float32 and how they came about."""

    patches: Tensor
    stopped: bool
    """The model ended it; else it ran into max_patches."""
    seed: int
    """Of the attempt that was taken."""
    num_attempts: int
