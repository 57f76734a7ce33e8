"""Looks through every byte of a corpus for a voice: ids, texts, embeddings, audio, latents, uris."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from pipeline.storage import Corpus
from schemas.arrow import CLIPS, DESCRIPTIONS, LATENTS, RECORDINGS, SENTENCES, SYNTHETIC
from schemas.ids import content_id

SHORTEST = 12
"""Characters of a text that are no coincidence in another one."""


@dataclass(frozen=True, kw_only=True)
class Voice:
    """All that a corpus holds of some clips; nothing of what others hold as well."""

    ids: frozenset[str]
    """Of clips, clones and texts."""
    recordings: frozenset[str]
    uris: frozenset[str]
    texts: frozenset[str]
    vectors: frozenset[bytes]
    """Speaker embeddings as float32."""
    blobs: frozenset[bytes]
    """FLAC files, latents, sentence vectors."""


def voice_of(corpus: Corpus, clip_ids: Sequence[str], recordings: Sequence[str]) -> Voice:
    """Take stock of what must go. recordings: ids of those that go as a whole."""
    clips = corpus.read(CLIPS)
    mine = clips.filter(pl.col("clip_id").is_in(list(clip_ids)))
    others = clips.filter(~pl.col("clip_id").is_in(list(clip_ids)))
    made = corpus.read(SYNTHETIC)
    origins = pl.concat_list("described_id", "transcript_id", "reference_ids")
    hits = pl.Series([set(ids) & set(clip_ids) for ids in made.select(origins).to_series()])
    touched = pl.Series([bool(hit) for hit in hits], dtype=pl.Boolean)
    clones, strangers = made.filter(touched), made.filter(~touched)
    ids = {*clip_ids, *clones["clip_id"]}
    ours = pl.col("clip_id").is_in(sorted(ids))
    written = corpus.read(DESCRIPTIONS, ["clip_id", "text", "text_written"])
    said = _texts(mine) - _texts(others)
    described = _texts(written.filter(pl.col("clip_id").is_in(list(clip_ids))))
    described -= _texts(written.filter(~pl.col("clip_id").is_in(list(clip_ids))))
    latents = corpus.read(LATENTS)
    text_ids = {content_id(text) for text in said}
    sentences = corpus.read(SENTENCES).filter(pl.col("text_id").is_in(sorted(text_ids)))
    known = corpus.read(RECORDINGS).filter(pl.col("recording_id").is_in(list(recordings)))
    return Voice(
        ids=frozenset(ids | set(sentences["text_id"])),
        recordings=frozenset(recordings),
        uris=frozenset(known["uri"]),
        texts=frozenset(text for text in said | described if len(text) >= SHORTEST),
        vectors=frozenset(
            (_vectors(mine) | _vectors(clones)) - _vectors(others) - _vectors(strangers)
        ),
        # A recording may hold the very sound of another one.
        blobs=frozenset(
            _blobs(mine["audio"], clones["audio"], latents.filter(ours)["latent"])
            - _blobs(others["audio"], strangers["audio"], latents.filter(~ours)["latent"])
            | _blobs(sentences["vector"])
        ),
    )


def _vectors(rows: pl.DataFrame) -> set[bytes]:
    vectors = rows["speaker_embedding"].drop_nulls()
    return {np.asarray(vector, np.float32).tobytes() for vector in vectors}


def _blobs(*columns: pl.Series) -> set[bytes]:
    return {blob for column in columns for blob in column.drop_nulls()}


def _texts(rows: pl.DataFrame) -> set[str]:
    names = ("text", "text_asr", "text_given", "text_spoken", "asr2_text", "text_written")
    columns = [rows[name].drop_nulls() for name in names if name in rows.columns]
    return {text.strip() for column in columns for text in column}


def traces_of(corpus: Corpus, voice: Voice) -> list[str]:
    """Where any of it is left: every file is opened, hidden and unnamed ones too."""
    return [
        f"{path.relative_to(corpus.path)}: {found}"
        for path in sorted(Path(corpus.path).rglob("*"))
        if path.is_file()
        for found in _in_file(path, voice)
    ]


def _in_file(path: Path, voice: Voice) -> Iterator[str]:
    raw = path.read_bytes()
    # A tombstone knows a recording by the hash of its bytes.
    names = voice.ids | voice.uris
    if path.parent.name != "_forgotten":
        names |= voice.recordings
    yield from (name for name in names | voice.texts if name.encode() in raw)
    yield from (f"{len(blob)} bytes" for blob in voice.blobs | voice.vectors if blob in raw)
    if path.suffix == ".parquet":
        for value in _values(pq.read_table(path).to_pylist()):
            if isinstance(value, str):
                yield from (name for name in names | voice.texts if name in value)
            elif isinstance(value, bytes) and value in voice.blobs:
                yield f"{len(value)} bytes"
            elif isinstance(value, np.ndarray) and value.tobytes() in voice.vectors:
                yield "an embedding"


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _values(one)
    elif isinstance(value, list) and value and isinstance(value[0], float):
        yield np.asarray(value, np.float32)
    elif isinstance(value, list):
        for one in value:
            yield from _values(one)
    else:
        yield value
