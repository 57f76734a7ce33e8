"""The held-out samples of a corpus, as `compose` put them aside, as utterances."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import soundfile as sf
import torch

from jobs.evaluation.config import EvaluateConfig
from jobs.evaluation.utterances import Utterance, UtteranceSet
from model_core.synthesis import Recording
from pipeline.clip_rows import ClipRows
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, LEVELS, SAMPLES
from schemas.errors import ConfigError, MissingSource, UndecodableAudio
from schemas.ids import content_id
from stages.levels import as_levels

LAYOUTS = ("text", "described", "reference", "described_reference")
"""A continuation is no utterance of its own: where it cuts a clip, nobody knows the prompt's text."""

_COLUMNS = ("sample_id", "layout", "target", "references", "text", "description", "language")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredClip:
    """A clip's sound in its corpus."""

    rows: ClipRows = field(repr=False)
    part: str
    sound_id: str
    """The clip's id, which is of its content."""

    @property
    def name(self) -> str:
        """See `Sound`."""
        return f"clip {self.sound_id}"

    def read(self) -> Recording:
        """See `Sound`."""
        audio = self.rows.row(self.part, self.sound_id)["audio"]
        if audio is None:
            raise MissingSource(f"{self.part} holds no audio of {self.name}")
        try:
            wave, rate = sf.read(io.BytesIO(audio), dtype="float32")
        except (sf.LibsndfileError, RuntimeError) as error:
            raise UndecodableAudio(f"the audio of {self.name} does not decode: {error}") from error
        return Recording(torch.from_numpy(wave.T.copy()), int(rate))


def read_samples(root: str, config: EvaluateConfig) -> UtteranceSet:
    """Held-out samples of each layout but continuations, chosen by their ids.

    A voice is the first reference of its sample. Raises ConfigError where the corpus has none.
    """
    corpus = Corpus(root)
    samples = corpus.read(SAMPLES, [*_COLUMNS, "split"]).filter(split="validation")
    samples = samples.filter(pl.col("layout").is_in(LAYOUTS))
    if samples.is_empty():
        raise ConfigError(
            f"{root} has no held-out samples; `voxquarry compose` puts a share "
            "compose.validation_share of the clips aside"
        )
    chosen = chosen_of(samples, config.samples)
    places = _places(corpus, chosen)
    rows = ClipRows(corpus, ["audio"])
    name = corpus.path.rpartition("/")[2]

    def sound(clip_id: str) -> StoredClip:
        return StoredClip(rows=rows, part=places[clip_id][0], sound_id=clip_id)

    utterances = []
    for row in chosen.iter_rows(named=True):
        reference = row["references"][0]["clip_id"] if row["references"] else None
        utterances.append(
            Utterance(
                utterance_id=row["sample_id"],
                origin=f"{name}, {row['layout']}",
                language=row["language"],
                text=row["text"],
                description=row["description"],
                voice=sound(reference) if reference else None,
                voice_text=places[reference][1] if reference else None,
                truth=sound(row["target"]["clip_id"]),
            )
        )
    levels = as_levels(corpus.read(LEVELS).to_dicts())
    return UtteranceSet(
        utterances=utterances,
        levels={origin: levels for origin in {one.origin for one in utterances}},
    )


def chosen_of(samples: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most so many of each layout: a corpus that grows changes few of them."""
    drawn = pl.col("sample_id").map_elements(
        lambda name: content_id("evaluate", name), return_dtype=pl.String
    )
    ranked = samples.with_columns(drawn=drawn).sort("drawn")
    return ranked.group_by("layout", maintain_order=True).head(most).sort("layout", "sample_id")


def _places(corpus: Corpus, samples: pl.DataFrame) -> dict[str, tuple[str, str | None]]:
    """Clip → the part that holds it, and what it says. Raises ConfigError for one that is gone."""
    wanted = {place["clip_id"] for place in _clips_in(samples.to_dicts())}
    found: dict[str, tuple[str, str | None]] = {}
    for part, table in corpus.scan(CLIPS, ["clip_id", "text"]):
        ids, texts = table["clip_id"].to_pylist(), table["text"].to_pylist()
        for clip_id, text in zip(ids, texts, strict=True):
            if clip_id in wanted:
                found[str(clip_id)] = (part, text)
    gone = sorted(wanted - found.keys())
    if gone:
        raise ConfigError(
            f"{corpus.root}: its samples name clips that are gone, such as {gone[0]}; "
            "`voxquarry compose` makes them anew"
        )
    return found


def _clips_in(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Targets, and the references that lend their voice."""
    return [place for row in rows for place in (row["target"], *row["references"][:1])]
