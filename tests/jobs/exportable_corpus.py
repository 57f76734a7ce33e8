"""A small corpus of real utterances to export: five voices' sessions, with sound, references, clones."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import soxr

from pipeline.storage import Corpus
from schemas.arrow import CLIPS, RECORDINGS
from stages.flac import flac_bytes, wave_of
from tests.jobs.composable_corpus import Cloned, Made, Said, make, write_clones
from tests.stages.planted import Spoken, devset_utterances

LICENCES = {"allison": "CC BY-SA 3.0", "june": "CC-BY-SA-3.0", "armelle": None}
DESCRIPTION = "A calm woman speaks clearly."


@dataclass(kw_only=True)
class Exportable:
    """A corpus, its policy, and what its clips sound like."""

    root: str
    policy: Path
    corpus: Corpus = field(repr=False)
    sounds: dict[str, bytes] = field(repr=False)
    """clip → FLAC as stored."""
    texts: dict[str, str] = field(repr=False)

    def pcm(self, clip_id: str) -> np.ndarray:
        """The stored samples, 16 bit."""
        wave, _ = wave_of(self.sounds[clip_id])
        return (wave * 32_768).astype(np.int16)

    def rate(self, clip_id: str) -> int:
        return wave_of(self.sounds[clip_id])[1]


def make_exportable(folder: Path, each: int = 4) -> Exportable:
    """`each` utterances of every speaker of each language, all accepted; every second one has the one
    before it as a reference. One voice is stored at 8 kHz and declares no speaker."""
    spoken = _utterances(each)
    said: list[Said] = []
    for number, one in enumerate(spoken):
        session = f"{one.language}_{one.speaker}"
        others = [other.name for other in said if other.session == session]
        said.append(
            Said(
                name=f"{number:02}cl1p",
                text=one.text or f"rien {number}",
                session=session,
                recording=f"r-{session}",
                start_s=20.0 * number,
                duration_s=one.wave.size / one.sample_rate,
                speaker=one.speaker if one.speaker != "armelle" else None,
                language=one.language,
                source=f"prompts-{one.language}",
                description=DESCRIPTION,
                references=tuple(others[-1:]) if number % 2 else (),
                latent=False,
            )
        )
    made = make(folder, said)
    sounds = {
        one.name: flac_bytes(uttered.wave, uttered.sample_rate)
        for one, uttered in zip(said, spoken, strict=True)
    }
    _add_sound(made.corpus, sounds)
    declare(made, LICENCES)
    texts = {one.name: one.text or "" for one in said}
    return Exportable(
        root=made.root, policy=Path(made.policy), corpus=made.corpus, sounds=sounds, texts=texts
    )


def declare(made: Made | Exportable, licences: dict[str, str | None], **consents: str) -> None:
    """Put licences, by speaker, and consents, by session, into the place of what was declared."""
    (part,) = made.corpus.parts(RECORDINGS.name)
    frame = made.corpus.read(RECORDINGS)
    speakers = frame["session_id"].str.split("_").list.get(1)
    whole = frame.with_columns(
        licence=speakers.replace_strict(licences, return_dtype=pl.String),
        consent=frame["session_id"].replace_strict(consents, default=None, return_dtype=pl.String),
    )
    table = whole.select(RECORDINGS.schema.names).to_arrow()
    made.corpus.write_table(part, RECORDINGS, table.cast(RECORDINGS.schema))


def add_clones(made: Exportable, clones: Sequence[Cloned]) -> None:
    """Commit clones that all sound as the corpus' first clip does."""
    sound = made.sounds["00cl1p"]
    duration_s = made.pcm("00cl1p").size / made.rate("00cl1p")
    said = [replace(one, duration_s=duration_s, latent=False) for one in clones]
    write_clones(made.corpus, said, audio=sound)
    made.sounds |= {one.name: sound for one in said}
    made.texts |= {one.name: one.text for one in said}


def _utterances(each: int) -> list[Spoken]:
    voices: dict[tuple[str, str], list[Spoken]] = {}
    for one in devset_utterances():
        voices.setdefault((one.language, one.speaker), []).append(one)
    return [_at_own_rate(one) for mine in voices.values() for one in mine[:each]]


def _at_own_rate(one: Spoken) -> Spoken:
    if one.speaker != "armelle":
        return one
    return replace(one, sample_rate=8_000, wave=soxr.resample(one.wave, one.sample_rate, 8_000))


def _add_sound(corpus: Corpus, sounds: dict[str, bytes]) -> None:
    (part,) = corpus.parts(CLIPS.name)
    frame = corpus.read(CLIPS)
    rates = [wave_of(sounds[name])[1] for name in frame["clip_id"]]
    whole = frame.with_columns(
        audio=pl.Series([sounds[name] for name in frame["clip_id"]]),
        sample_rate=pl.Series(rates, dtype=pl.Int64),
    )
    table = whole.select(CLIPS.schema.names).to_arrow()
    corpus.write_table(part, CLIPS, table.cast(CLIPS.schema))
