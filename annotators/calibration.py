"""From which cosine on an encoder's two clips are one voice.

Calibrated on pairs of clips whose speakers are known. Each pair of voices counts the same, and so
does each voice: neither the most talkative voice nor the most numerous decides.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class VoiceThresholds:
    """Cosines that say "the same voice", and how often they err."""

    min_cosine: float
    """Between the embeddings of two clips."""
    min_voice_cosine: float
    """Between the voices around two clips (`stages.voice_pairs`)."""
    equal_error: float
    """Error rate of clip cosines where both kinds of error are as frequent."""
    equal_error_cosine: float
    false_accept: float
    """Share of pairs of different voices that pass both limits."""
    recall: float
    """Share of pairs of one voice that pass both limits."""
    precision: float
    """Share of pairs that pass both limits that are of one voice."""
    voices: int
    same_pairs: int
    different_pairs: int
    data: str
    """What was compared, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Cosines of pairs whose voices are known, each with its weight; the weights sum to one."""

    same: F64
    same_weight: F64
    different: F64
    different_weight: F64

    def false_accept(self, cosine: float) -> float:
        """Share of different pairs at or above a cosine."""
        return float(self.different_weight[self.different >= cosine].sum())

    def false_reject(self, cosine: float) -> float:
        """Share of same pairs below a cosine."""
        return float(self.same_weight[self.same < cosine].sum())

    def equal_error(self) -> tuple[float, float]:
        """(error rate, cosine) where both kinds of error are as frequent."""
        cosines = np.unique(np.concatenate((self.same, self.different)))
        accepts = 1 - _below(self.different, self.different_weight, cosines)
        rejects = _below(self.same, self.same_weight, cosines)
        at = int(np.abs(accepts - rejects).argmin())
        return float(accepts[at] + rejects[at]) / 2, float(cosines[at])

    def cosine_at(self, false_accept: float) -> float:
        """Lowest cosine, in steps of 0.01, at which no more different pairs pass."""
        for step in range(-100, 100):
            if self.false_accept(step / 100) <= false_accept:
                return step / 100
        return 1.0


def _below(values: F64, weights: F64, limits: F64) -> F64:
    """Weight of the values below each limit."""
    order = np.argsort(values)
    summed = np.concatenate(([0.0], np.cumsum(weights[order])))
    found: F64 = summed[np.searchsorted(values[order], limits)]
    return found


def scores_of(cosines: F32, voices: npt.NDArray[np.int64]) -> Scores:
    """Scores of all pairs of clips. cosines: (N, N); voices: (N,) numbers from 0."""
    one, two = np.triu_indices(voices.size, 1)
    values = cosines[one, two].astype(np.float64)
    num = int(voices.max()) + 1
    low, high = np.minimum(voices[one], voices[two]), np.maximum(voices[one], voices[two])
    kinds = low * num + high
    weights = 1.0 / np.bincount(kinds)[kinds]
    same = voices[one] == voices[two]
    return Scores(
        same=values[same],
        same_weight=weights[same] / max(weights[same].sum(), 1e-12),
        different=values[~same],
        different_weight=weights[~same] / max(weights[~same].sum(), 1e-12),
    )
