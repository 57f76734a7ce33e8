"""Generated clips among the samples: whose voice they lend, and what must keep them from training.

A generated clip is trained on with its description alone, or with a reference: the clip whose voice
it has, or one that was mined for that clip. It is never itself a reference, a prompt or kept for
validation. Where training must not hear the voice or read the words, it makes no sample at all.
Shapes: N clips, P pairs.
"""

from collections import Counter

import numpy as np
import polars as pl

from jobs.clone_plan import CloneConfig, still_allowed
from jobs.judge_synthetic import accepted_synthetic
from pipeline.storage import Corpus
from stages.composition import Bools, Ints

_FROM_ROW = ("clip_id", "described_id", "transcript_id", "reference_ids")
_AS_RECORDED = ("recording_id", "session_id", "source", "uri")
# What is said, without how it is written.
_BESIDE_WORDS = r"[^\p{L}\p{N}\p{M}]+"


def with_synthetic(
    corpus: Corpus, clips: pl.DataFrame, latents: pl.DataFrame, config: CloneConfig
) -> tuple[pl.DataFrame, pl.DataFrame, Counter[str]]:
    """The clips and, after them, the accepted generated ones; what those were made from; and who
    was left out, by the reason.

    clips: recorded ones, as `take_inputs` joins them; config: whose consent is asked for, today and
    not when the clip was made. The second frame has clip_id, described_id, transcript_id and
    reference_ids. A generated clip lies in the recording and the session of the clip whose voice it
    has: where that one is not among the clips, it has no place.
    """
    clips = clips.with_columns(synthetic=pl.lit(False))
    accepted = accepted_synthetic(corpus)
    if accepted.is_empty():
        lineage = pl.DataFrame(
            schema={name: pl.String for name in _FROM_ROW[:-1]}
            | {"reference_ids": pl.List(pl.String)}
        )
        return clips, lineage, Counter()
    allowed = still_allowed(corpus, accepted, config)
    encoded = allowed.drop("part").join(latents, on="clip_id", how="inner", maintain_order="left")
    voices = clips.select(*_AS_RECORDED, described_id="clip_id")
    made = encoded.drop("session_id").join(
        voices, on="described_id", how="inner", maintain_order="left"
    )
    rows = made.select(
        *("clip_id", "text", "description", "language", "duration_s", *_AS_RECORDED),
        *(pl.col(name).cast(clips.schema[name]) for name in ("frames", "part", "row")),
        has_text=pl.col("text").str.contains(r"\S"),
        repeats=pl.lit(False),
        is_target=pl.col("text").str.contains(r"\S"),
        cut=pl.lit(0, clips.schema["cut"]),
        synthetic=pl.lit(True),
    )
    left_out = Counter(
        withdrawn=accepted.height - allowed.height,
        no_latent=allowed.height - encoded.height,
        no_voice=encoded.height - made.height,
        no_text=made.height - int(rows["is_target"].sum()),
    )
    return pl.concat([clips, rows], how="diagonal"), made.select(_FROM_ROW), +left_out


def inherited(pairs: pl.DataFrame, lineage: pl.DataFrame, numbers: pl.DataFrame) -> pl.DataFrame:
    """Pairs of generated clips: the clip whose voice each has comes first, then its references.

    pairs: target, reference (numbers) and rank, of recorded clips; numbers: clip_id, number.
    """
    children = lineage.join(numbers, on="clip_id").select("described_id", target="number")
    own = children.join(numbers, left_on="described_id", right_on="clip_id").select(
        "target", reference="number", rank=pl.lit(-1, pairs.schema["rank"])
    )
    described = numbers.select(described_id="clip_id", parent="number")
    mined = (
        children.join(described, on="described_id")
        .join(pairs, left_on="parent", right_on="target")
        .select("target", "reference", "rank")
    )
    return pl.concat([own, mined])


def origins(lineage: pl.DataFrame, numbers: pl.DataFrame) -> tuple[Ints, Ints]:
    """(P,) generated clip, and (P,) a clip that it was made from: voice, words, reference audio."""
    made_from = lineage.select(
        "clip_id",
        origin=pl.concat_list("described_id", "transcript_id", "reference_ids"),
    ).explode("origin")
    pairs = (
        made_from.join(numbers, on="clip_id")
        .join(numbers.rename({"number": "from"}), left_on="origin", right_on="clip_id")
        .sort("number", "from")
    )
    return pairs["number"].to_numpy().copy(), pairs["from"].to_numpy().copy()


def leaking(
    clips: pl.DataFrame,
    made_from: tuple[Ints, Ints],
    text: pl.Series,
    target: Bools,
    held: Bools,
) -> Bools:
    """(N,) generated clips that would tell training of what is kept for validation.

    target, held: (N,) recorded targets, and those of them that are kept; text: (N,). A clip leaks
    if what it was made from (its voice, the clip that said its text, its reference audio) is kept
    or lies in a recording or session that is kept as a whole, or if it says, but for how it is
    written, what a kept clip says.
    """
    known = clips.select("session_id", "recording_id", "synthetic").with_columns(
        target=pl.Series(target), held=pl.Series(held), words=_words(text)
    )
    kept = pl.col("held")
    for group in ("session_id", "recording_id"):
        num_held = pl.col("held").sum().over(group)
        kept |= (num_held > 0) & (num_held == pl.col("target").sum().over(group))
    kept_as_a_whole = known.select(kept).to_series().to_numpy()
    leaks = np.zeros(clips.height, np.bool_)
    child, parent = made_from
    leaks[child[kept_as_a_whole[parent]]] = True
    said = known.filter("held")["words"].unique()
    leaks |= known["words"].is_in(said.implode()).fill_null(False).to_numpy()
    found: Bools = leaks & known["synthetic"].to_numpy()
    return found


def _words(text: pl.Series) -> pl.Series:
    return text.str.to_lowercase().str.replace_all(_BESIDE_WORDS, "")
