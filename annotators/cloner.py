"""A checkpoint that speaks texts in given voices, many at a time: arrays in, waveforms out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from annotators.registry import checkpoint_hash
from model_core.checkpoint import load_checkpoint
from model_core.flow_matching import SolverConfig
from model_core.synthesis import Recording, RetryConfig, SpeechRequest, Synthesizer
from schemas.rows import Wave

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """What is to be said, and in which voice."""

    text: str
    description: str
    voice: F32 = field(repr=False)
    """(patches, frames, channels), as `Cloner.voice` gives it."""
    seed: int
    longest_s: float
    """Where it is cut if the model does not end it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spoken:
    """What came of it."""

    wave: Wave = field(repr=False)
    """(S,) at the cloner's rate."""
    seed: int
    stopped: bool
    """The model ended it; else it was cut."""


class Cloner:
    """Speaks with one checkpoint."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        threads: int = 1,
        batch_size: int = 16,
        num_steps: int = 10,
        cfg: float = 2.0,
    ) -> None:
        """batch_size: utterances in flight. Raises ModelLoadError."""
        torch.set_num_threads(threads)
        checkpoint = load_checkpoint(folder, device=device, dtype=DTYPES[dtype])
        self.hash = checkpoint_hash(folder)
        # Whoever asks for several seeds has them in the place of further attempts.
        self._synthesizer = Synthesizer(
            checkpoint,
            solver=SolverConfig(num_steps=num_steps, cfg=cfg),
            retry=RetryConfig(max_attempts=1),
            batch_size=batch_size,
        )

    @property
    def sample_rate(self) -> int:
        """Hertz of what is spoken."""
        return self._synthesizer.sample_rate

    def voice(self, wave: Wave, sample_rate: int) -> F32:
        """A reference (S,) -> its latent patches (patches, frames, channels).

        Raises a DataError for a sound that cannot be a voice.
        """
        recording = Recording(torch.from_numpy(wave), sample_rate)
        patches: F32 = self._synthesizer.encode_reference(recording).float().numpy()
        return patches

    def check(self, utterance: Utterance) -> None:
        """Raises UnspeakableText, also for a text that does not fit the model's positions."""
        self._synthesizer.prepare(self._request(utterance))

    def speak(self, utterances: Sequence[Utterance]) -> list[Spoken]:
        """Each of them, in their order. What is likely to take longest begins first, so that those
        in flight are of about one length and none is left alone at the end.
        """
        order = sorted(range(len(utterances)), key=lambda i: (-utterances[i].longest_s, i))
        requests = (self._request(utterances[i]) for i in order)
        spoken: dict[int, Spoken] = {}
        for number, speech in self._synthesizer.speak(requests):
            spoken[order[number]] = Spoken(
                wave=speech.wave.numpy(), seed=speech.seed, stopped=speech.stopped
            )
        return [spoken[i] for i in range(len(utterances))]

    def _request(self, utterance: Utterance) -> SpeechRequest:
        return SpeechRequest(
            text=utterance.text,
            description=utterance.description,
            reference=torch.from_numpy(utterance.voice),
            seed=utterance.seed,
            max_patches=max(1, int(utterance.longest_s / self._synthesizer.patch_s)),
        )


@lru_cache(maxsize=1)
def opened(
    folder: Path,
    *,
    device: str,
    dtype: str,
    threads: int,
    batch_size: int,
    num_steps: int,
    cfg: float,
) -> Cloner:
    """A cloner that the stages of one worker share, since its weights are gigabytes.

    Raises ModelLoadError.
    """
    return Cloner(
        folder,
        device=device,
        dtype=dtype,
        threads=threads,
        batch_size=batch_size,
        num_steps=num_steps,
        cfg=cfg,
    )
