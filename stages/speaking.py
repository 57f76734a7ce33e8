"""The voice of each clone, and several attempts at its text in that voice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from annotators.registry import checkpoint_folder
from schemas.cloning import Candidate, Clone
from schemas.errors import ConfigError, ModelLoadError, NonFiniteLatent
from schemas.ids import content_id

if TYPE_CHECKING:  # it imports PyTorch, which only its own workers should wait for
    from annotators.cloner import Cloner, Utterance

DTYPES = ("float32", "bfloat16")
SLACK_S = 1.0
"""Seconds that any utterance may take beyond `SpeakingConfig.longest`: silence at its ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeakingConfig:
    """How the model speaks."""

    candidates: int = 3
    """Attempts at each clip, each with a seed of its own; the best one is kept."""
    num_steps: int = 10
    """Euler steps of the flow from noise to a patch."""
    cfg: float = 2.0
    """Weight of classifier-free guidance; 1 follows the text and voice alone."""
    longest: float = 2.5
    """An attempt is cut when it lasts so many times what its text takes; it is no good then."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    dtype: str = "float32"
    """Of the weights: `float32` or `bfloat16`. The AudioVAE stays in float32."""
    threads: int = 1
    """Threads on a CPU: two processes of one are faster than one of two."""
    batch_size: int = 16
    """Attempts in flight at once; more use a GPU better and need more of its memory."""

    def __post_init__(self) -> None:
        for name in ("candidates", "num_steps", "threads", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"speaking.{name} must be at least 1, got {getattr(self, name)}")
        if not (np.isfinite(self.cfg) and self.cfg >= 0):
            raise ConfigError(f"speaking.cfg must be a number and not negative, got {self.cfg}")
        if not (np.isfinite(self.longest) and self.longest >= 1):
            raise ConfigError(f"speaking.longest must be at least 1, got {self.longest}")
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"speaking.device must be cpu or cuda, got {self.device!r}")
        if self.dtype not in DTYPES:
            raise ConfigError(f"speaking.dtype must be {' or '.join(DTYPES)}, got {self.dtype!r}")


def seeds_of(clone: Clone, candidates: int) -> list[int]:
    """A seed for each attempt, in [0, 2^60): the same for the same clone, whatever its batch."""
    return [
        int(content_id(clone.seed, clone.attempt, number)[:15], 16) for number in range(candidates)
    ]


def utterances_of(clone: Clone, config: SpeakingConfig) -> "list[Utterance]":
    """What the model is asked for: one text, voice and description, several seeds."""
    from annotators.cloner import Utterance

    assert clone.voice is not None, "voices come first"
    return [
        Utterance(
            text=clone.text,
            description=clone.description,
            voice=clone.voice,
            seed=seed,
            longest_s=config.longest * clone.expected_s + SLACK_S,
        )
        for seed in seeds_of(clone, config.candidates)
    ]


def opened(config: SpeakingConfig, checkpoint: str, model_hash: str) -> "Cloner":
    """The checkpoint, once per process. Raises ModelLoadError, also for another one than planned."""
    from annotators import cloner

    found = cloner.opened(
        checkpoint_folder(checkpoint),
        device=config.device,
        dtype=config.dtype,
        threads=config.threads,
        batch_size=config.batch_size,
        num_steps=config.num_steps,
        cfg=config.cfg,
    )
    if found.hash != model_hash:
        raise ModelLoadError(
            f"{checkpoint} is another checkpoint here ({found.hash[:12]}) than where the run was "
            f"started ({model_hash[:12]})"
        )
    return found


class Voices:
    """Fills `voice`, and finds out which clips cannot be spoken before any time goes into them."""

    name = "voices"

    def __init__(self, config: SpeakingConfig, checkpoint: str, model_hash: str) -> None:
        """model_hash: of the checkpoint that the run was planned with."""
        self.config = config
        self.checkpoint = checkpoint
        self.model_hash = model_hash
        self._cloner: Cloner | None = None

    def setup(self) -> None:
        """Open the checkpoint. Raises ModelLoadError."""
        self._cloner = opened(self.config, self.checkpoint, self.model_hash)

    def process(self, batch: Sequence[Clone]) -> list[Clone]:
        """Return the clones with their voices. Raises DataError for what cannot be spoken."""
        assert self._cloner is not None, "setup() comes first"
        return [self._voiced(clone, self._cloner) for clone in batch]

    def _voiced(self, clone: Clone, cloner: "Cloner") -> Clone:
        assert clone.reference is not None, "a clone begins with a reference"
        voice = cloner.voice(clone.reference, clone.reference_rate)
        if not np.isfinite(voice).all():
            raise NonFiniteLatent("what the AudioVAE makes of the reference holds NaN or infinity")
        voiced = replace(clone, reference=None, voice=voice)
        cloner.check(utterances_of(voiced, self.config)[0])
        return voiced


class Speaking:
    """Fills `candidates` with attempts, and lets go of `voice`."""

    name = "speaking"

    def __init__(self, config: SpeakingConfig, checkpoint: str, model_hash: str) -> None:
        """model_hash: of the checkpoint that the run was planned with."""
        self.config = config
        self.checkpoint = checkpoint
        self.model_hash = model_hash
        self._cloner: Cloner | None = None

    def setup(self) -> None:
        """Open the checkpoint. Raises ModelLoadError."""
        self._cloner = opened(self.config, self.checkpoint, self.model_hash)

    def process(self, batch: Sequence[Clone]) -> list[Clone]:
        """Return the clones with their attempts; all of the batch are spoken at one go."""
        assert self._cloner is not None, "setup() comes first"
        cloner = self._cloner
        asked = [utterances_of(clone, self.config) for clone in batch]
        spoken = iter(cloner.speak([utterance for some in asked for utterance in some]))
        return [
            replace(
                clone,
                voice=None,
                candidates=tuple(
                    Candidate(
                        seed=one.seed,
                        stopped=one.stopped,
                        sample_rate=cloner.sample_rate,
                        wave=one.wave,
                    )
                    for one in (next(spoken) for _ in some)
                ),
            )
            for clone, some in zip(batch, asked, strict=True)
        ]
