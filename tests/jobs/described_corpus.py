"""A small corpus of real utterances that can be cloned: described clips of two sessions, with sound."""

from pathlib import Path

import numpy as np
import polars as pl

from annotators.speaker import SpeakerEncoder
from pipeline.storage import Corpus
from schemas.arrow import CLIPS
from stages.flac import flac_bytes
from stages.speaker import SpeakerConfig, open_encoder
from tests.jobs.composable_corpus import Made, Said, make
from tests.stages.planted import Spoken, devset_utterances

SPEAKERS = {("en", "allison"): "s0", ("fr", "june"): "s1"}
DESCRIPTION = "A calm woman speaks clearly."


def utterances(each: int) -> list[Spoken]:
    """Of two voices; what the French one says is told in English, so that both share a language."""
    found = []
    for speaker in SPEAKERS:
        everyone = devset_utterances()
        mine = [one for one in everyone if (one.language, one.speaker) == speaker and one.text]
        found += mine[:each]
    return found


def make_cloneable(folder: Path, each: int = 2) -> Made:
    """Write it: `each` clips of either session, all of them accepted and described."""
    spoken = utterances(each)
    said = [
        Said(
            name=f"clip{number:02}",
            text=one.text,
            session=SPEAKERS[one.language, one.speaker],
            recording=f"r{SPEAKERS[one.language, one.speaker]}",
            start_s=20.0 * number,
            duration_s=one.wave.size / one.sample_rate,
            speaker=one.speaker,
            description=DESCRIPTION,
        )
        for number, one in enumerate(spoken)
    ]
    made = make(folder, said)
    _add_sound(made.corpus, spoken, open_encoder(SpeakerConfig()))
    return made


def _add_sound(corpus: Corpus, spoken: list[Spoken], encoder: SpeakerEncoder) -> None:
    """What `make` leaves out, in the place of the part that it wrote."""
    (part,) = corpus.parts(CLIPS.name)
    frame = corpus.read(CLIPS)
    voices = [voice.embedding for voice in encoder.embed([one.wave for one in spoken])]
    whole = frame.with_columns(
        audio=pl.Series([flac_bytes(one.wave, one.sample_rate) for one in spoken]),
        chars_per_s=pl.Series([one.chars_per_s for one in spoken]),
        text_spoken="text",
        speaker_embedding=pl.Series(np.stack(voices).tolist(), dtype=pl.List(pl.Float32)),
    )
    table = whole.select(CLIPS.schema.names).to_arrow()
    corpus.write_table(part, CLIPS, table.cast(CLIPS.schema))
