"""What an expert says of a voice, whichever expert it is."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

from schemas.attributes import Acoustics
from schemas.rows import Wave


@dataclass(frozen=True, kw_only=True, slots=True)
class Sound:
    """A clip as an expert gets it."""

    wave_16k: Wave
    acoustics: Acoustics


@dataclass(frozen=True, kw_only=True, slots=True)
class Opinion:
    """What an expert hears. None: it does not judge that, or cannot here.

    A confidence is the expert's own probability for what it says, in [0, 1].
    """

    gender: str | None = None
    """One of `schemas.descriptions.GENDERS`."""
    gender_confidence: float | None = None
    age: str | None = None
    """One of `schemas.descriptions.AGES`, or `adult` where it is not known which kind."""
    age_confidence: float | None = None
    emotion: str | None = None
    """One of `schemas.descriptions.EMOTIONS`."""
    emotion_confidence: float | None = None
    arousal: float | None = None
    """From -1, sleepy, to 1, agitated."""
    valence: float | None = None
    """From -1, unpleasant, to 1, pleasant."""


class Expert(Protocol):
    """Judges voices; opened once per worker."""

    def judge(self, sounds: Sequence[Sound]) -> list[Opinion]:
        """An opinion for each clip, which depends on that clip alone."""
        ...


def combined(opinions: Sequence[Opinion]) -> Opinion:
    """One opinion out of several experts': the first that says something counts."""
    said: dict[str, str | float] = {}
    for opinion in opinions:
        for field in fields(opinion):
            value = getattr(opinion, field.name)
            if value is not None:
                said.setdefault(field.name, value)
    return replace(Opinion(), **said)  # type: ignore[arg-type]
