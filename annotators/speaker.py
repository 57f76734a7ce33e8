"""What a speaker encoder returns, whichever encoder it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.rows import Wave

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The embedding of a stretch of a clip, in seconds from the clip's start."""

    start_s: float
    end_s: float
    embedding: F32
    """(size,), unit length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeakerPrint:
    """A clip's voice."""

    embedding: F32
    """(size,), unit length."""
    windows: tuple[Window, ...]
    """Overlapping stretches of the clip, in order of time."""


class SpeakerEncoder(Protocol):
    """GE2E, ECAPA-TDNN or another of their kind."""

    size: int

    def embed(self, waves: Sequence[Wave]) -> list[SpeakerPrint]:
        """Embed each clip and its windows. waves: (samples,) each, at 16 kHz."""
        ...


def unit(vector: F32) -> F32:
    """The vector at length one; a zero vector stays zero."""
    scaled: F32 = (vector / max(float(np.linalg.norm(vector)), 1e-9)).astype(np.float32)
    return scaled


def print_of(windows: Sequence[Window]) -> SpeakerPrint:
    """The clip's embedding is the mean of its windows', brought to unit length."""
    mean: F32 = np.stack([window.embedding for window in windows]).mean(axis=0)
    return SpeakerPrint(embedding=unit(mean), windows=tuple(windows))
