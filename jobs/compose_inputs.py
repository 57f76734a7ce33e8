"""What the corpus has to make samples of: light columns only, neither audio nor latents.

Clips are in one order from here on: session by session as they lie in `latents`, inside a session
by recording and time, and then the generated ones. They are known by their number in it.
"""

import hashlib
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from jobs.clone_plan import CloneConfig
from jobs.compose_synthetic import inherited, origins, with_synthetic
from jobs.descriptions import descriptions_in
from jobs.mine import DUPLICATES_PHASE
from jobs.mine import PHASE as MINE
from jobs.voice_thresholds import encoder_of, with_thresholds
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, DUPLICATES, LATENTS, RECORDINGS, REFERENCES, VERDICTS
from schemas.errors import ConfigError
from stages.composition import ContinuationConfig, Floats, Ints, Runs, cuts_of, pauses_of
from stages.mining import MiningConfig, embeddings_of

_TIMES = ("words", "speech")
_LIGHT = (
    *("clip_id", "recording_id", "session_id", "speaker", "language", "text"),
    *("start_s", "end_s", "duration_s", "speaker_embedding"),
    *(f"{name}.list.element.{edge}" for name in _TIMES for edge in ("start_s", "end_s")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Accepted clips that have a latent, recorded and generated, and what is known of them."""

    clips: pl.DataFrame = field(repr=False)
    """clip_id, session_id, recording_id, language, source, text, description, duration_s, part
    (number), row, frames, cut (first frame of the second part; 0: none), before (number of the clip
    that this one continues; null: none), is_target, synthetic."""
    parts: tuple[str, ...]
    """Of `latents`."""
    targets: Ints = field(repr=False)
    """(P,) number of the target of each pair, ascending."""
    references: Ints = field(repr=False)
    """(P,) number of the reference of each pair, best first for each target."""
    made_from: tuple[Ints, Ints] = field(repr=False)
    """(P',) number of a generated clip, and of a clip that it was made from."""
    left_out: Counter[str]
    """Accepted recorded clips that are no target, by the reason."""
    synthetic_left_out: Counter[str]
    """The same of generated ones."""

    def fingerprint(self) -> str:
        """blake2b-128 over all of it."""
        digest = hashlib.blake2b("\n".join(self.parts).encode(), digest_size=16)
        columns = (self.clips.hash_rows(seed=0).to_numpy(), self.targets, self.references)
        for column in (*columns, *self.made_from):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def take_inputs(
    corpus: Corpus,
    vae_hash: str,
    frame_s: float,
    config: ContinuationConfig,
    mining: MiningConfig,
    cloning: CloneConfig,
) -> Inputs:
    """Read and join the tables. Raises `ConfigError` where no clip has a latent of this AudioVAE."""
    latents, parts = _latents(corpus, vae_hash)
    accepted = _accepted_clips(corpus, frame_s, config, _alike_from(corpus, mining))
    if accepted.is_empty():
        raise ConfigError(f"{corpus.root} has no accepted clips to compose samples of")
    clips = accepted.join(latents, on="clip_id", how="inner", maintain_order="left")
    if clips.is_empty():
        others = corpus.read(LATENTS, ["vae_hash"])["vae_hash"].n_unique()
        raise ConfigError(
            f"{corpus.root} holds no latents of this checkpoint's AudioVAE"
            + (f", but of {others} other" if others else "")
            + "; run `voxquarry encode` with the same --checkpoint first"
        )
    clips = _with_descriptions(corpus, clips)
    has_text = pl.col("text").str.contains(r"\S").fill_null(False)
    clips = clips.with_columns(has_text=has_text)
    clips = _with_repeats(corpus, clips)
    clips = clips.with_columns(is_target=pl.col("has_text") & ~pl.col("repeats"))
    left_out = Counter(
        no_latent=accepted.height - clips.height,
        no_text=clips.filter(~pl.col("has_text")).height,
        near_duplicate=clips.filter(pl.col("repeats")).height,
    )
    clips, lineage, synthetic_left_out = with_synthetic(corpus, clips, latents, cloning)
    clips = _in_order(clips)
    numbers = clips.select("clip_id", number=pl.int_range(pl.len()))
    targets, references = _references(corpus, numbers, lineage)
    return Inputs(
        clips=clips.drop("has_text", "repeats"),
        parts=parts,
        targets=targets,
        references=references,
        made_from=origins(lineage, numbers),
        left_out=+left_out,
        synthetic_left_out=synthetic_left_out,
    )


def _latents(corpus: Corpus, vae_hash: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """clip_id, part, row and frames of the last latent of each clip, if it is of this AudioVAE."""
    columns = ["clip_id", "frames", "vae_hash", "attempt"]
    pieces: list[pl.DataFrame] = []
    parts: list[str] = []
    for part, table in corpus.scan(LATENTS, columns):
        frame = _frame(table)
        pieces.append(
            frame.with_columns(
                part=pl.lit(len(parts), pl.Int64), row=pl.int_range(frame.height, dtype=pl.Int64)
            )
        )
        parts.append(part)
    if not pieces:
        schema = {"clip_id": pl.String, "frames": pl.Int64, "part": pl.Int64, "row": pl.Int64}
        return pl.DataFrame(schema=schema), ()
    last = (
        pl.concat(pieces)
        .sort("attempt", "part", "row")
        .unique("clip_id", keep="last", maintain_order=True)
    )
    own = last.filter(pl.col("vae_hash") == vae_hash)
    return own.select("clip_id", "frames", "part", "row"), tuple(parts)


def _accepted_clips(
    corpus: Corpus, frame_s: float, config: ContinuationConfig, alike_from: float | None
) -> pl.DataFrame:
    pieces = [
        _composable(table, frame_s, config, alike_from) for _, table in corpus.scan(CLIPS, _LIGHT)
    ]
    if not pieces:
        return pl.DataFrame()
    kept = corpus.read(VERDICTS, ["clip_id", "accepted"]).filter("accepted").select("clip_id")
    declared = corpus.read(RECORDINGS, ["recording_id", "uri", "source", "language"])
    declared = declared.unique("recording_id").rename({"language": "declared"})
    return (
        pl.concat(pieces)
        .join(kept, on="clip_id", how="semi", maintain_order="left")
        .join(declared, on="recording_id", how="left", maintain_order="left")
        .with_columns(pl.coalesce("language", "declared").alias("language"))
        .drop("declared")
    )


def _composable(
    table: pa.Table, frame_s: float, config: ContinuationConfig, alike_from: float | None
) -> pl.DataFrame:
    """The clips of one part, with where each can be cut and which clip it continues.

    A part holds whole chunks of recordings, so neighbours are together.
    """
    words, speech = (_runs(table[name]) for name in _TIMES)
    durations = table["duration_s"].to_numpy()
    cuts = cuts_of(pauses_of(words, speech), durations, frame_s, config)
    frame = _frame(table.drop_columns(list(_TIMES))).with_columns(cut=pl.Series(cuts))
    order = frame.with_row_index("at").sort("recording_id", "start_s", "end_s", "clip_id")
    same = pl.col("recording_id") == pl.col("recording_id").shift(1)
    gap = pl.col("start_s") - pl.col("end_s").shift(1)
    declared = pl.col("speaker") == pl.col("speaker").shift(1)
    alike = _alike_to_the_one_before(order, alike_from)
    # What is known of both must agree; where nothing is, nothing says that it is one voice.
    one_voice = (
        declared.fill_null(True)
        & alike.fill_null(True)
        & (declared.is_not_null() | alike.is_not_null())
    )
    continues = same & gap.is_between(-0.01, config.max_gap_s) & one_voice
    return (
        order.with_columns(
            before_id=pl.when(continues.fill_null(False)).then(pl.col("clip_id").shift(1))
        )
        .sort("at")
        .drop("at", "speaker", "speaker_embedding")
    )


def _alike_to_the_one_before(clips: pl.DataFrame, alike_from: float | None) -> pl.Expr:
    """Whether each clip's voice is that of the clip before it; null where it is not known."""
    if alike_from is None:
        return pl.lit(None, pl.Boolean)
    voices, known = embeddings_of(clips)
    cosines = np.einsum("nd,nd->n", voices[1:], voices[:-1])
    heard = known[1:] & known[:-1]
    alike = np.ma.masked_array(cosines >= alike_from, ~heard).tolist()
    return pl.lit(pl.Series([None, *alike] if clips.height else [], dtype=pl.Boolean))


def _runs(column: "pa.ChunkedArray[Any]") -> Runs:
    """Spans of each clip: (start_s, end_s) lists as flat arrays."""
    lists: Any = column.combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    values = lists.values
    start: Floats = values.field("start_s").to_numpy(zero_copy_only=False)
    end: Floats = values.field("end_s").to_numpy(zero_copy_only=False)
    low, high = int(offsets[0]), int(offsets[-1])
    return Runs(offsets=offsets - low, start_s=start[low:high], end_s=end[low:high])


def _alike_from(corpus: Corpus, mining: MiningConfig) -> float | None:
    """From which cosine on two clips are one voice; None where nobody knows."""
    try:
        return with_thresholds(mining, corpus, encoder_of(corpus)).min_cosine
    except ConfigError:
        return None


def _with_descriptions(corpus: Corpus, clips: pl.DataFrame) -> pl.DataFrame:
    written = descriptions_in(corpus, ["clip_id", "text", "accepted"]).filter("accepted")
    described = written.select("clip_id", description="text").unique("clip_id", keep="last")
    return clips.join(described, on="clip_id", how="left", maintain_order="left")


def _with_repeats(corpus: Corpus, clips: pl.DataFrame) -> pl.DataFrame:
    """Marks all but one of each group of near-duplicates: the clip that names the group stays, or
    the first that could be a target."""
    marks = corpus.read_standing(DUPLICATES, DUPLICATES_PHASE, "text_id", ["clip_id", "group_id"])
    repeats = (
        clips.filter("has_text")
        .select("clip_id")
        .join(marks.unique("clip_id"), on="clip_id")
        .sort("group_id", pl.col("clip_id") != pl.col("group_id"), "clip_id")
        .filter(pl.int_range(pl.len()).over("group_id") > 0)
    )
    return clips.with_columns(repeats=pl.col("clip_id").is_in(repeats["clip_id"].implode()))


def _in_order(clips: pl.DataFrame) -> pl.DataFrame:
    place = (pl.col("part") * 2**32 + pl.col("row")).filter(~pl.col("synthetic"))
    ordered = (
        clips.with_columns(place=place.min().over("session_id"))
        .sort("place", "session_id", "synthetic", "uri", "recording_id", "start_s", "clip_id")
        .drop("place", "uri", "start_s", "end_s")
        .with_row_index("number")
        .with_columns(pl.col("number").cast(pl.Int64))
    )
    before = ordered.select("number", "clip_id", "is_target").filter("is_target")
    before = before.select(before="number", before_id="clip_id")
    return (
        ordered.join(before, on="before_id", how="left", maintain_order="left")
        .drop("before_id", "number")
        .rechunk()
    )


def _references(corpus: Corpus, numbers: pl.DataFrame, lineage: pl.DataFrame) -> tuple[Ints, Ints]:
    mined = (
        corpus.read_standing(REFERENCES, MINE, "session_id", ["target_id", "reference_id", "rank"])
        .join(numbers.rename({"number": "target"}), left_on="target_id", right_on="clip_id")
        .join(numbers.rename({"number": "reference"}), left_on="reference_id", right_on="clip_id")
        .filter(pl.col("target") != pl.col("reference"))
        .select("target", "reference", "rank")
    )
    pairs = pl.concat([mined, inherited(mined, lineage, numbers)])
    pairs = pairs.sort("target", "rank", "reference")
    return pairs["target"].to_numpy().copy(), pairs["reference"].to_numpy().copy()


def keys_of(names: pl.Series) -> Ints:
    """(N,) a pseudo-random number of each name, the same everywhere and for ever."""
    found: Ints = np.array([zlib.crc32(name.encode()) for name in names], np.int64)
    return found


def _frame(table: pa.Table) -> pl.DataFrame:
    frame: Any = pl.from_arrow(table.replace_schema_metadata())
    assert isinstance(frame, pl.DataFrame)
    return frame
