"""What the plan of the clone phase reads: who may be cloned, what there is to say, in which voice.

Light columns only; clips are the accepted ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from annotators.content_words import content_words
from annotators.text import plain_tokens
from jobs.descriptions import descriptions_in
from jobs.phases import MINE, NEAR_DUPLICATES
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, DUPLICATES, RECORDINGS, REFERENCES
from stages.consent import consent_of, strictest
from stages.text_pairs import keys_of
from stages.unrelated import Described, Texts

REFERENCED = ("target_id", "reference_id", "rank")


def consents_in(corpus: Corpus, rule: str) -> pl.DataFrame:
    """recording_id, wordings, and reason: why its voice may not be cloned; empty where it may."""
    rows = corpus.read(RECORDINGS, ["recording_id", "consent"])
    declared = rows.group_by("recording_id", maintain_order=True).agg(wordings=pl.col("consent"))
    reasons = [
        strictest(consent_of(wording, rule) for wording in wordings).reason
        for wordings in declared["wordings"].to_list()
    ]
    return declared.with_columns(reason=pl.Series(reasons, dtype=pl.String))


def allowed_clips(corpus: Corpus, rule: str) -> pl.DataFrame:
    """clip_id of every clip, accepted or not, whose recording lets its voice be cloned."""
    allowed = consents_in(corpus, rule).filter(pl.col("reason") == "")
    clips = corpus.read(CLIPS, ["clip_id", "recording_id"])
    return clips.join(allowed, on="recording_id", how="semi").select("clip_id").unique()


def accepted_descriptions(corpus: Corpus) -> pl.DataFrame:
    """clip_id and description of the clips that have one that stands and was accepted."""
    written = descriptions_in(corpus, ["clip_id", "text", "accepted"]).filter("accepted")
    return written.select("clip_id", description="text").unique("clip_id", keep="last")


def with_texts(corpus: Corpus, clips: pl.DataFrame) -> pl.DataFrame:
    """The clips with what is known of their texts, each clip once.

    language: the recording's where the clip has none. said: the text as it is spoken. sayable:
    others may say it. key: the same for texts of one language that differ in punctuation only, null
    where there is nothing to say. letters: letters and digits of `said`.
    """
    checked = corpus.read(CLIPS, ["clip_id", "text_spoken", "stock_phrase"]).unique("clip_id")
    declared = corpus.read(RECORDINGS, ["recording_id", "language"]).unique("recording_id")
    frame = (
        clips.unique("clip_id", keep="first", maintain_order=True)
        .join(checked, on="clip_id", how="left", maintain_order="left")
        .join(declared, on="recording_id", how="left", maintain_order="left", suffix="_declared")
        .with_columns(
            language=pl.coalesce("language", "language_declared"),
            said=pl.coalesce("text_spoken", "text").str.strip_chars(),
            sayable=pl.col("text_spoken").is_not_null() & pl.col("stock_phrase").is_null(),
        )
        .drop("language_declared", "text_spoken", "stock_phrase")
    )
    keys = [_key(said, language) for said, language in frame.select("said", "language").iter_rows()]
    return frame.with_columns(
        key=pl.Series(keys, dtype=pl.String),
        letters=pl.col("said").str.count_matches(r"[\p{L}\p{N}]").cast(pl.Int64),
    )


def _key(said: str | None, language: str | None) -> str | None:
    if said is None or language is None:
        return None
    return " ".join(plain_tokens(said, language.partition("-")[0])) or None


def repeats_in(corpus: Corpus, clips: pl.DataFrame) -> pl.Series:
    """Ids of all but one of each group of near-duplicates among the clips."""
    marks = corpus.read_standing(DUPLICATES, NEAR_DUPLICATES, "text_id", ["clip_id", "group_id"])
    return (
        clips.select("clip_id")
        .join(marks.unique("clip_id"), on="clip_id")
        .sort("group_id", pl.col("clip_id") != pl.col("group_id"), "clip_id")
        .filter(pl.int_range(pl.len()).over("group_id") > 0)
    )["clip_id"]


def references_of(
    corpus: Corpus, described: pl.DataFrame, voices: pl.DataFrame, least_s: float, most_s: float
) -> dict[str, list[str]]:
    """Clips that lend their voice to a described one which is shorter than `least_s`: the best that
    were mined for it, until it is longer, as long as all of them fit into `most_s`.

    voices: clip_id and duration_s of the clips that may lend their voice.
    """
    short = described.filter(pl.col("duration_s") < least_s)
    lengths = dict(short.select("clip_id", "duration_s").iter_rows())
    found: dict[str, list[str]] = {}
    pairs = (
        corpus.read_standing(REFERENCES, MINE, "session_id", REFERENCED)
        .filter(pl.col("target_id") != pl.col("reference_id"))
        .join(short, left_on="target_id", right_on="clip_id", how="semi")
        .join(voices.select("clip_id", "duration_s"), left_on="reference_id", right_on="clip_id")
        .sort("target_id", "rank", "reference_id")
    )
    for target, reference, length in pairs.select(
        "target_id", "reference_id", "duration_s"
    ).iter_rows():
        if lengths[target] < least_s and lengths[target] + length <= most_s:
            lengths[target] += length
            found.setdefault(target, []).append(reference)
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Tongue:
    """One language: its described clips, and the different texts that are said in it."""

    language: str
    described: pl.DataFrame = field(repr=False)
    texts: pl.DataFrame = field(repr=False)
    """clip_id, session_id, said, letters of the clip that each text is taken from."""
    asked: Described = field(repr=False)
    offered: Texts = field(repr=False)
    """Without vectors."""


def tongue_of(language: str, clips: pl.DataFrame, described: pl.DataFrame) -> Tongue:
    """clips: all of the language that say something; described: some of them."""
    texts = (
        clips.sort(~pl.col("sayable"), "clip_id")
        .unique("key", keep="first", maintain_order=True)
        .sort("key")
        .with_row_index("number")
        .with_columns(pl.col("number").cast(pl.Int64))
    )
    numbers = texts.select("key", "number")
    sessions = clips.select(pl.col("session_id").unique().sort()).with_columns(
        session=pl.int_range(pl.len(), dtype=pl.Int64)
    )
    said = clips.join(numbers, on="key").join(sessions, on="session_id")
    asked = described.join(numbers, on="key", maintain_order="left").join(
        sessions, on="session_id", maintain_order="left"
    )
    return Tongue(
        language=language,
        described=asked,
        texts=texts.select("clip_id", "session_id", "said", "letters"),
        asked=Described(
            keys=keys_of(asked["clip_id"].to_list()),
            text=asked["number"].to_numpy(),
            session=asked["session"].to_numpy(),
            letters_per_s=asked["chars_per_s"].to_numpy(),
        ),
        offered=Texts(
            keys=keys_of(texts["key"].to_list()),
            usable=texts["sayable"].to_numpy(),
            letters=texts["letters"].to_numpy(),
            words=_words(texts["said"].to_list(), language),
            vectors=None,
            said=said.select("number", "session").unique().to_numpy(),
        ),
    )


def _words(texts: Sequence[str], language: str) -> csr_array:
    """(T, V) 1 where a text has a content word."""
    number_of: dict[str, int] = {}
    columns: list[int] = []
    ends = [0]
    for text in texts:
        words = content_words(text, language)
        columns += sorted(number_of.setdefault(word, len(number_of)) for word in words)
        ends.append(len(columns))
    shape = (len(texts), max(1, len(number_of)))
    return csr_array((np.ones(len(columns), np.int32), columns, ends), shape=shape)
