"""Spans of time against each other, and against what was heard frame by frame."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from annotators.music import FRAME_S
from schemas.rows import Span


def mean_of(probs: npt.NDArray[np.float32], span: Span) -> float:
    """Mean over the frames that a span touches."""
    first, last = int(span.start_s / FRAME_S), int(np.ceil(span.end_s / FRAME_S))
    found = probs[max(0, first) : max(first + 1, last)]
    return float(found.mean()) if found.size else 0.0


def common(ours: Sequence[Span], theirs: Sequence[Span]) -> tuple[Span, ...]:
    """What lies in both."""
    pairs = ((a, b) for a in ours for b in theirs)
    bounds = ((max(a.start_s, b.start_s), min(a.end_s, b.end_s)) for a, b in pairs)
    return tuple(Span(start_s=start, end_s=end) for start, end in bounds if end > start)


def shared_s(ours: Sequence[Span], theirs: Sequence[Span]) -> float:
    """Seconds that lie in both."""
    return sum(span.end_s - span.start_s for span in common(ours, theirs))
