"""What checkpoints are asked to say, and the recordings that belong to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from model_core.synthesis import Recording
from schemas.attributes import Level
from schemas.ids import content_id
from schemas.rows import Wave


class Sound(Protocol):
    """A recording that is read when it is needed."""

    @property
    def sound_id(self) -> str:
        """Of its content: the same sound, the same id."""
        ...

    @property
    def name(self) -> str:
        """How messages call it."""
        ...

    def read(self) -> Recording:
        """The whole of it. Raises a DataError, or ConfigError where it is too long for a voice."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundFile:
    """A sound file of a test list."""

    path: Path
    sound_id: str
    name: str
    """As the list has it."""

    def read(self) -> Recording:
        """See `Sound`."""
        from jobs.speak import read_voice

        recording = read_voice(str(self.path))
        assert recording is not None, "only no uri gives no recording"
        return recording


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One text to be said."""

    utterance_id: str
    """The list's, or the sample's."""
    origin: str
    """The set that it belongs to: a list, or a layout of a corpus's held-out samples."""
    language: str | None
    text: str
    description: str | None = None
    voice: Sound | None = field(default=None, repr=False)
    """Whose voice says it."""
    voice_text: str | None = None
    """What is said in `voice`."""
    truth: Sound | None = field(default=None, repr=False)
    """The text as it was recorded."""

    @property
    def key(self) -> str:
        """Of all that its speech depends on: the same wherever the list lies."""
        voice = self.voice.sound_id if self.voice else ""
        return content_id(
            *(self.utterance_id, self.language or "", self.text),
            *(self.description or "", voice, self.voice_text or ""),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """What could not be evaluated, and why."""

    where: str
    """A line of a list, or a sample."""
    utterance_id: str | None
    system: str | None = None
    """The checkpoint that could not do it; None: no checkpoint was asked."""
    error: str
    """The error's type."""
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UtteranceSet:
    """The utterances of all lists and corpora."""

    utterances: Sequence[Utterance]
    refused: Sequence[Refused] = ()
    levels: Mapping[str, Sequence[Level]] = field(default_factory=dict)
    """Origin → where the words of its descriptions begin."""

    def __add__(self, other: "UtteranceSet") -> "UtteranceSet":
        """Both, and what stands in both once."""
        known = {one.key: one for one in self.utterances}
        return UtteranceSet(
            utterances=[*self.utterances, *(u for u in other.utterances if u.key not in known)],
            refused=[
                *(*self.refused, *other.refused),
                *(
                    Refused(
                        where=one.origin,
                        utterance_id=one.utterance_id,
                        error="Repeated",
                        message=f"the same utterance stands in {known[one.key].origin}",
                    )
                    for one in other.utterances
                    if one.key in known
                ),
            ],
            levels={**self.levels, **other.levels},
        )


def mono(recording: Recording) -> Wave:
    """(S,) float32, the mean of the channels."""
    wave = recording.wave.numpy()
    return np.asarray(wave if wave.ndim == 1 else wave.mean(axis=0), np.float32)
