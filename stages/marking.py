"""Every attempt as it would be stored: watermarked, in 16 bits, before anyone judges it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from annotators.watermark import Watermark
from schemas.cloning import Candidate, Clone
from schemas.errors import NonFiniteAudio
from stages.flac import flac_bytes


def stored(candidate: Candidate, watermark: Watermark) -> Candidate:
    """The attempt with its audio in place of its wave. Raises EmptyAudio."""
    assert candidate.wave is not None, "speaking comes first"
    # What swings beyond full scale would be cut off flat by FLAC: quieter is better.
    wave = candidate.wave / max(1.0, float(np.abs(candidate.wave).max(initial=0.0)))
    marked = watermark.mark(wave.astype(np.float32), candidate.sample_rate)
    return replace(
        candidate,
        wave=None,
        audio=flac_bytes(marked, candidate.sample_rate),
        duration_s=len(marked) / candidate.sample_rate,
    )


class Marking:
    """Fills `audio` and `duration_s` of every attempt. One that is no sound at all is left out."""

    name = "marking"

    def __init__(self) -> None:
        self._watermark: Watermark | None = None

    def setup(self) -> None:
        """Make the watermark's pattern."""
        self._watermark = Watermark()

    def process(self, batch: Sequence[Clone]) -> list[Clone]:
        """Return the clones with their attempts stored.

        Raises NonFiniteAudio where the model made NaN of every attempt.
        """
        assert self._watermark is not None, "setup() comes first"
        return [self._marked(clone, self._watermark) for clone in batch]

    def _marked(self, clone: Clone, watermark: Watermark) -> Clone:
        sounds = [c for c in clone.candidates if c.wave is not None and np.isfinite(c.wave).all()]
        if not sounds:
            raise NonFiniteAudio(
                f"the model made NaN or infinity of all {len(clone.candidates)} attempts"
            )
        return replace(clone, candidates=tuple(stored(one, watermark) for one in sounds))
