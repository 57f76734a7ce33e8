"""Gender and age group from pitch and the third formant alone: no model, no hub.

A naive Bayes over three kinds of voice. Pitch: men speak at 120 Hz, women at 210 Hz on average
(Traunmüller and Eriksson, "The frequency range of the voice fundamental in the speech of male and
female adults", 1995), children of six to ten at 260 to 280 Hz (Sorenson, J. Commun. Disord. 22,
1989). Third formant: 2.5 to 2.6 kHz in men, 2.8 to 3.0 kHz in women, 3.2 to 3.7 kHz in children,
over the vowels of Hillenbrand et al. (J. Acoust. Soc. Am. 97, 1995); running speech with its
consonants lies somewhat higher.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotators.expert import Opinion, Sound
from schemas.attributes import Acoustics


@dataclass(frozen=True, kw_only=True, slots=True)
class VoiceKind:
    """How a kind of voice is spread, over speakers and what they say."""

    f0_hz: float
    f0_spread_st: float
    f3_hz: float
    f3_spread_hz: float


KINDS = {
    "male": VoiceKind(f0_hz=120, f0_spread_st=3.5, f3_hz=2650, f3_spread_hz=180),
    "female": VoiceKind(f0_hz=210, f0_spread_st=2.7, f3_hz=2980, f3_spread_hz=180),
    "child": VoiceKind(f0_hz=270, f0_spread_st=2.7, f3_hz=3600, f3_spread_hz=200),
}
# Recordings of children are rare; an excited woman's must not become one's.
_PRIOR = {"male": 0.485, "female": 0.485, "child": 0.03}


def probabilities(acoustics: Acoustics) -> dict[str, float] | None:
    """Kind of voice → probability; None without a voice to judge by."""
    if acoustics.f0_median_hz is None:
        return None
    scores = {}
    for name, kind in KINDS.items():
        distance_st = 12 * np.log2(acoustics.f0_median_hz / kind.f0_hz)
        score = np.log(_PRIOR[name]) + _log_density(distance_st, kind.f0_spread_st)
        if acoustics.f3_hz is not None:
            score += _log_density(acoustics.f3_hz - kind.f3_hz, kind.f3_spread_hz)
        scores[name] = float(score)
    top = max(scores.values())
    weights = {name: float(np.exp(score - top)) for name, score in scores.items()}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def opinion_of(acoustics: Acoustics) -> Opinion:
    """Gender of an adult voice, and whether it is a child's. A child's gender stays open."""
    found = probabilities(acoustics)
    if found is None:
        return Opinion()
    child = found["child"]
    if child > 0.5:
        return Opinion(age="child", age_confidence=child)
    gender = "female" if found["female"] >= found["male"] else "male"
    # Child or not is a question of its own: what is female here may be a boy's voice.
    return Opinion(
        gender=gender,
        gender_confidence=found[gender] + (child if gender == "female" else 0.0) / 2,
        age="adult",
        age_confidence=1.0 - child,
    )


class AcousticExpert:
    """The embedded profile's expert."""

    def judge(self, sounds: Sequence[Sound]) -> list[Opinion]:
        """An opinion for each clip, from its measures alone."""
        return [opinion_of(sound.acoustics) for sound in sounds]


def _log_density(distance: float, spread: float) -> float:
    return float(-0.5 * (distance / spread) ** 2 - np.log(spread))
