"""What the numbers and labels of voice classifiers mean in this project's words."""

import re
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import erf, inf, sqrt

from annotators.expert import Opinion
from schemas.descriptions import AGES

CHILD = "child"

# Datasets abbreviate and vary; a value's own name is a synonym too.
_GENDERS = {
    "female": ("f", "woman", "women", "girl"),
    "male": ("m", "man", "men", "boy"),
    CHILD: ("children", "kid", "c"),
}
_EMOTIONS = {
    "neutral": ("neu", "neutrality"),
    "calm": ("cal", "calmness", "relaxed"),
    "tender": ("tenderness",),
    "sad": ("sadness",),
    "tired": ("tiredness", "sleepy", "sleepiness"),
    "serious": ("seriousness",),
    "happy": ("hap", "happiness", "joy", "joyful"),
    "excited": ("exc", "excitement"),
    "surprised": ("sur", "surprise", "surprising", "ps"),
    "angry": ("ang", "anger"),
    "fearful": ("fea", "fear", "afraid", "scared"),
    "disgusted": ("dis", "disgust"),
}
# In years, between the groups of `schemas.descriptions.AGES`.
_AGE_EDGES = (13.0, 18.0, 35.0, 60.0)
# Burkhardt et al., "Speech-based age and gender prediction with transformers", ITG Speech
# Communication 2023: a mean absolute error of 7 to 11 years, by the corpus.
_AGE_SPREAD = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """What one class of a classifier says."""

    gender: str | None = None
    """One of `schemas.descriptions.GENDERS`, or `child`."""
    emotion: str | None = None


def label_of(text: str) -> Label:
    """A label's meaning: `hap`, `Female`, `05_angry` or `male_sad`; empty where it has none."""
    words = [word for word in re.split(r"[^a-z]+", text.casefold()) if word]
    return Label(gender=_first(words, _GENDERS), emotion=_first(words, _EMOTIONS))


def opinion_by(labels: Sequence[Label], probabilities: Sequence[float]) -> Opinion:
    """The likeliest gender and emotion; a class that means nothing here makes neither likely."""
    genders: dict[str | None, float] = {}
    emotions: dict[str | None, float] = {}
    for label, probability in zip(labels, probabilities, strict=True):
        genders[label.gender] = genders.get(label.gender, 0.0) + probability
        emotions[label.emotion] = emotions.get(label.emotion, 0.0) + probability
    gender, gender_confidence = max(genders.items(), key=lambda item: item[1])
    emotion, emotion_confidence = max(emotions.items(), key=lambda item: item[1])
    child = gender == CHILD
    return Opinion(
        # Boys and girls are not told apart.
        gender=None if child else gender,
        gender_confidence=gender_confidence if gender and not child else None,
        age=CHILD if child else None,
        age_confidence=gender_confidence if child else None,
        emotion=emotion,
        emotion_confidence=emotion_confidence if emotion else None,
    )


def age_group(years: float) -> tuple[str, float]:
    """Age group of an estimate in years, and the probability that the true age lies in it."""
    edges = (-inf, *_AGE_EDGES, inf)
    at = bisect(_AGE_EDGES, years)
    return AGES[at], _share_below(edges[at + 1] - years) - _share_below(edges[at] - years)


def _share_below(distance: float) -> float:
    return 0.5 * (1.0 + erf(distance / (_AGE_SPREAD * sqrt(2.0))))


def _first(words: Sequence[str], synonyms: Mapping[str, Sequence[str]]) -> str | None:
    for word in words:
        for value, others in synonyms.items():
            if word == value or word in others:
                return value
    return None
