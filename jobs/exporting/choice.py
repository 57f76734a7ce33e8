"""Which clips go out, to which side, and what is told of each: light columns, no audio."""

import fnmatch
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from jobs.clone_inputs import accepted_descriptions, repeats_in
from jobs.clone_plan import still_allowed
from jobs.exporting.options import ExportConfig
from jobs.exporting.splits import SPLITS, TEST, TRAIN, VALIDATION, split_of
from jobs.judge_synthetic import accepted_synthetic
from jobs.mine import PHASE as MINE
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, RECORDINGS, REFERENCES, TRAITS, VERDICTS
from schemas.errors import ConfigError, StorageError
from stages import consent
from stages.consent import consent_of, strictest

_FROM_CLIPS = (
    *("clip_id", "recording_id", "session_id", "speaker", "start_s", "duration_s"),
    *("language", "dialect", "text", "snr_db", "dnsmos_ovrl"),
)
_FROM_RECORDINGS = ("recording_id", "uri", "language", "licence", "consent", "source")
_FROM_TRAITS = ("clip_id", "gender", "age", "emotion")
_OF_VOICE = (
    *("recording_id", "session_id", "speaker", "voice", "uri", "source"),
    *("licence", "consent", "gender", "age", "split"),
)
# File names are made of ids.
_SAFE_ID = r"^[0-9A-Za-z_-]+$"

REASONS = {
    "no_text": "has no text",
    "licence": "its licence is none of those that were asked for",
    "consent_refused": "its recording's consent refuses training, or is for other uses",
    "consent_not_understood": "its recording's consent is in words that are not known here",
    "consent_not_declared": "its recording declares no consent, and consent is required",
    "near_duplicate": "says and sounds what another clip does",
    "no_reference": "no other clip lends it a voice",
    "made_of_others": "a clone of whom or what is not in the training clips",
}
"""Why an accepted clip stays; the first that holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What goes out, and why the rest of the accepted clips does not."""

    clips: pl.DataFrame = field(repr=False)
    """clip_id, part, split, synthetic, generation (of a clone), text, duration_s, the columns that
    are told of a clip, voice (speaker or session), reference_id, reference_s, the numbers
    speaker_number and source_number, made_by (a clone's model), listed (false: it is there only to
    be a reference); split by split, as the clips lie in the corpus."""
    left_out: Counter[str]
    """By the reason; see `REASONS`."""
    not_understood: Counter[str]
    """Wordings of consent that count as refusals, and how many recordings have them."""


def choose(corpus: Corpus, config: ExportConfig, *, needs_reference: bool) -> Choice:
    """Join the tables. Raises `ConfigError` where nothing is left to export."""
    clips = _with_reasons(corpus, _accepted(corpus, config))
    left_out = Counter(clips.filter(pl.col("reason") != "")["reason"].to_list())
    clips = clips.filter(pl.col("reason") == "").drop("refused", "reason")
    if clips.is_empty():
        why = ", ".join(f"{reason} {number:,}" for reason, number in left_out.most_common())
        raise ConfigError(f"nothing of {corpus.root} is left to export: {why}")
    clips = _with_references(corpus, _told(corpus, clips)).with_columns(listed=pl.lit(True))
    if needs_reference:
        num_before = clips.height
        clips = _only_referenced(clips)
        if clips.is_empty():
            raise ConfigError(
                f"no clip of {corpus.root} has a reference; `voxquarry mine` finds them"
            )
        left_out["no_reference"] = num_before - int(clips["listed"].sum())
    shares = {TEST: config.test, VALIDATION: config.validation}
    clips = clips.with_columns(
        split=split_of(clips, shares, config.seed),
        synthetic=pl.lit(False),
        generation=pl.lit(0, pl.Int64),
        voice=pl.coalesce("speaker", pl.format("session-{}", "session_id")),
    )
    if config.synthetic:
        made, left_out["made_of_others"] = _clones(corpus, clips)
        clips = pl.concat([clips, made], how="diagonal_relaxed")
    declared = corpus.read(RECORDINGS, ["consent"])["consent"]
    return Choice(
        clips=_numbered(clips),
        left_out=+left_out,
        not_understood=consent.not_understood(declared, use="training"),
    )


def licence_key(licence: str) -> str:
    """One spelling of a licence's name: lower case, words parted by `-`."""
    return re.sub(r"[\s_-]+", "-", licence.strip().casefold())


def _accepted(corpus: Corpus, config: ExportConfig) -> pl.DataFrame:
    """Accepted clips with what their recordings declare, and `refused`: why it may not go out."""
    kept = corpus.read(VERDICTS, ["clip_id", "accepted"]).filter("accepted").select("clip_id")
    pieces = []
    for part, table in corpus.scan(CLIPS, _FROM_CLIPS):
        frame = pl.from_arrow(table.replace_schema_metadata())
        assert isinstance(frame, pl.DataFrame)
        accepted = frame.join(kept, on="clip_id", how="semi", maintain_order="left")
        pieces.append(accepted.with_columns(part=pl.lit(part)))
    if not pieces or not sum(piece.height for piece in pieces):
        raise ConfigError(f"{corpus.root} has no accepted clips to export")
    clips = pl.concat(pieces)
    strange = clips.filter(~pl.col("clip_id").str.contains(_SAFE_ID))
    if strange.height:
        raise StorageError(f"{corpus.root}: {strange['clip_id'][0]!r} is no clip id")
    return (
        clips.join(_declared(corpus, config), on="recording_id", how="left", maintain_order="left")
        .with_columns(language=pl.coalesce("language", "declared"))
        .drop("declared")
    )


def _with_reasons(corpus: Corpus, clips: pl.DataFrame) -> pl.DataFrame:
    """The clips with why each may not go out; empty where it may."""
    reasoned = clips.with_columns(
        reason=pl.when(pl.col("text").str.contains(r"\S").fill_null(False))
        .then("refused")
        .otherwise(pl.lit("no_text"))
    )
    repeats = repeats_in(corpus, reasoned.filter(pl.col("reason") == ""))
    return reasoned.with_columns(
        reason=pl.when(pl.col("clip_id").is_in(repeats.implode()))
        .then(pl.lit("near_duplicate"))
        .otherwise("reason")
    )


def _only_referenced(clips: pl.DataFrame) -> pl.DataFrame:
    """The clips that have a reference, and, not listed, those that only are one."""
    has_reference = pl.col("reference_id").is_not_null()
    lent = clips["reference_id"].drop_nulls()
    return clips.with_columns(listed=has_reference).filter(
        has_reference | pl.col("clip_id").is_in(lent.implode())
    )


def _declared(corpus: Corpus, config: ExportConfig) -> pl.DataFrame:
    """recording_id, uri, source, licence, consent, declared (language), refused."""
    rows = corpus.read(RECORDINGS, _FROM_RECORDINGS)
    known = rows.group_by("recording_id", maintain_order=True).agg(
        *(pl.col(name).first() for name in ("uri", "source", "licence", "consent")),
        declared=pl.col("language").first(),
        licences=pl.col("licence"),
        consents=pl.col("consent"),
    )
    refused = [
        _refusal(licences, consents, config)
        for licences, consents in known.select("licences", "consents").iter_rows()
    ]
    return known.with_columns(refused=pl.Series(refused, dtype=pl.String)).drop(
        "licences", "consents"
    )


def _refusal(
    licences: Sequence[str | None], consents: Sequence[str | None], config: ExportConfig
) -> str:
    """Why a recording, which may be declared several times, does not go out; empty if it does."""
    wanted = [licence_key(pattern) for pattern in config.licences]
    for licence in licences:
        key = licence_key(licence or "")
        if wanted and not any(fnmatch.fnmatchcase(key, pattern) for pattern in wanted):
            return "licence"
    return strictest(consent_of(one, config.consent, "training") for one in consents).reason


def _told(corpus: Corpus, clips: pl.DataFrame) -> pl.DataFrame:
    """The clips with their description and traits; null where there are none."""
    traits = corpus.read(TRAITS, _FROM_TRAITS).unique("clip_id", keep="last")
    return clips.join(
        accepted_descriptions(corpus), on="clip_id", how="left", maintain_order="left"
    ).join(traits, on="clip_id", how="left", maintain_order="left")


def _with_references(corpus: Corpus, clips: pl.DataFrame) -> pl.DataFrame:
    """The best mined reference of each clip among those that go out.

    It is of the same session, so it will be on the same side.
    """
    known = clips.select("clip_id", "session_id", reference_s="duration_s")
    columns = ["target_id", "reference_id", "rank"]
    best = (
        corpus.read_standing(REFERENCES, MINE, "session_id", columns)
        .filter(pl.col("target_id") != pl.col("reference_id"))
        .join(known.drop("reference_s"), left_on="target_id", right_on="clip_id")
        .join(known, left_on=["reference_id", "session_id"], right_on=["clip_id", "session_id"])
        .sort("target_id", "rank", "reference_id")
        .unique("target_id", keep="first", maintain_order=True)
        .select("reference_id", "reference_s", clip_id="target_id")
    )
    return clips.join(best, on="clip_id", how="left", maintain_order="left")


def _clones(corpus: Corpus, clips: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Accepted clones as clips of the training side, and how many stay.

    One goes out only with all that it is made from, voice, references and the clip that said its
    text, on that side, and if no clip on another side says its text.
    """
    accepted = accepted_synthetic(corpus)
    if accepted.is_empty():
        return clips.clear(), 0
    made = still_allowed(corpus, accepted)
    train = clips.filter(split=TRAIN).select("clip_id")
    foreign = (
        made.select("clip_id", of=pl.concat_list("described_id", "transcript_id", "reference_ids"))
        .explode("of")
        .join(train, left_on="of", right_on="clip_id", how="anti")
    )
    held = clips.filter(pl.col("split") != TRAIN).select(words=_words()).unique()
    voices = clips.select(
        *_OF_VOICE,
        described_id="clip_id",
        reference_s="duration_s",
    )
    found = (
        made.join(foreign, on="clip_id", how="anti", maintain_order="left")
        .with_columns(words=_words())
        .join(held, on="words", how="anti", maintain_order="left")
        .drop("session_id")
        .join(voices, on="described_id", how="inner", maintain_order="left")
    )
    rows = found.select(
        *("clip_id", "part", "text", "language", "duration_s", "description", "dnsmos_ovrl"),
        *(*_OF_VOICE, "reference_s"),
        synthetic=pl.lit(True),
        listed=pl.lit(True),
        generation="attempt",
        reference_id="described_id",
        made_by="model",
    )
    return rows, made.height - rows.height


def _words() -> pl.Expr:
    """What is said, without how it is written."""
    return pl.col("text").str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}\p{M}]+", "")


def _numbered(clips: pl.DataFrame) -> pl.DataFrame:
    """Split by split, with speakers and sources numbered from 0; clones are a source of their own."""
    side = pl.col("split").replace_strict({name: i for i, name in enumerate(SPLITS)})
    source = (
        pl.when("synthetic")
        .then(pl.lit("\uffffsynthetic"))
        .otherwise(pl.col("source").fill_null(""))
    )
    return (
        clips.with_columns(
            source_number=source.rank("dense").cast(pl.Int64) - 1,
            speaker_number=pl.col("voice").rank("dense").cast(pl.Int64) - 1,
            made_by=pl.col("made_by") if "made_by" in clips.columns else pl.lit(None, pl.String),
        )
        .with_columns(side=side)
        .sort("side", maintain_order=True)
        .drop("side")
    )
