"""Real utterances as sounds and as a test list."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import soundfile as sf
import torch

from jobs.evaluation.utterances import Utterance
from model_core.synthesis import Recording
from schemas.ids import content_id
from schemas.rows import Wave
from tests.stages.planted import Spoken, devset_utterances


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A sound in memory."""

    wave: Wave = field(repr=False)
    rate: int = 16_000

    @property
    def sound_id(self) -> str:
        return content_id(self.wave.tobytes(), self.rate)

    @property
    def name(self) -> str:
        return "a sound"

    def read(self) -> Recording:
        return Recording(torch.from_numpy(self.wave), self.rate)


def spoken_by(speaker: str, language: str, number: int) -> list[Spoken]:
    """The shortest of a speaker's utterances that have a text."""
    mine = [
        one
        for one in devset_utterances()
        if (one.speaker, one.language) == (speaker, language) and one.text
    ]
    return sorted(mine, key=lambda one: one.wave.size)[:number]


def recorded(said: Sequence[Spoken], voices: Sequence[Spoken]) -> list[Utterance]:
    """Each as it was said, beside another one's voice."""
    return [
        Utterance(
            utterance_id=f"u{number}",
            origin="set",
            language=one.language,
            text=one.text,
            voice=Held(wave=voice.wave),
            voice_text=voice.text,
            truth=Held(wave=one.wave),
        )
        for number, (one, voice) in enumerate(zip(said, voices, strict=True))
    ]


def write_list(folder: Path, said: Sequence[Spoken], *more: str) -> Path:
    """`folder/en/meta.lst`: each utterance in the voice of the one after it. more: further lines."""
    home = folder / "en"
    (home / "wavs").mkdir(parents=True)
    lines = []
    for number, one in enumerate(said):
        sf.write(home / "wavs" / f"{number}.wav", one.wave, one.sample_rate)
        beside = (number + 1) % len(said)
        lines.append(
            f"u{number}|{said[beside].text}|wavs/{beside}.wav|{one.text}|wavs/{number}.wav"
        )
    file = home / "meta.lst"
    file.write_text("\n".join([*lines, *more]) + "\n", encoding="utf-8")
    return file
