"""Pauses and emphasis, from where speech and words lie in a clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from annotators.acoustics import Contour
from schemas.rows import Span, Word

# Shorter gaps are stop consonants.
_SHORTEST_PAUSE_S = 0.15
# Steps that a listener notices in running speech: pitch ('t Hart, "Differential sensitivity to pitch
# distance, particularly in speech", J. Acoust. Soc. Am. 69, 1981: 3 semitones) and level.
_PITCH_STEP_ST = 3.0
_LEVEL_STEP_DB = 3.0
_FEWEST_WORDS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Pauses:
    """The silences between the first and the last speech of a clip."""

    ratio: float
    """Share of the time from the first to the last speech."""
    number: int
    longest_s: float


def pauses_of(speech: Sequence[Span]) -> Pauses | None:
    """None where no speech was found."""
    if not speech:
        return None
    spans = sorted(speech, key=lambda span: span.start_s)
    gaps = [b.start_s - a.end_s for a, b in pairwise(spans)]
    pauses = [gap for gap in gaps if gap >= _SHORTEST_PAUSE_S]
    length_s = max(spans[-1].end_s - spans[0].start_s, 1e-6)
    return Pauses(
        ratio=sum(pauses) / length_s, number=len(pauses), longest_s=max(pauses, default=0.0)
    )


def prominences(words: Sequence[Word], contour: Contour) -> list[float]:
    """How much each word stands out of the clip's words, in noticeable steps of pitch and level.

    A word's height is that of its peaks, since an accent needs but one syllable. 0 is usual.
    """
    voiced = contour.f0_hz[contour.f0_hz > 0]
    if not voiced.size:
        return [0.0 for _ in words]
    base = float(np.median(voiced))
    pitches, levels = [], []
    for word in words:
        place = contour.within(word.start_s, word.end_s)
        f0 = contour.f0_hz[place]
        f0 = f0[f0 > 0]
        level = contour.level_db[place]
        pitches.append(12 * np.log2(np.percentile(f0, 90) / base) if f0.size else np.nan)
        levels.append(np.percentile(level, 90) if level.size else np.nan)
    steps = _above_usual(pitches) / _PITCH_STEP_ST + _above_usual(levels) / _LEVEL_STEP_DB
    return [float(value) for value in steps / 2]


def emphasis_of(words: Sequence[Word], contour: Contour) -> tuple[float | None, tuple[str, ...]]:
    """The prominence of the words that stand out most (90th percentile), and those words.

    None for a clip of too few words to stand out of.
    """
    if len(words) < _FEWEST_WORDS:
        return None, ()
    heights = prominences(words, contour)
    strong = tuple(
        word.word.strip() for word, height in zip(words, heights, strict=True) if height >= 1
    )
    return float(np.percentile(heights, 90)), strong


def _above_usual(values: Sequence[float]) -> np.ndarray:
    """Distance from the median; what was not measured is usual."""
    heights = np.asarray(values, dtype=np.float64)
    if np.isnan(heights).all():
        return np.zeros(heights.shape)
    return np.nan_to_num(heights - np.nanmedian(heights), nan=0.0)
