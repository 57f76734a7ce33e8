"""Who says what in the clone phase, and which clones may still be used.

    accepted clips with an accepted description and consent → described
    accepted clips with a text that can be said             → the texts of each language
    described × texts of other sessions                     → plans

A clone's id is of its described clip and a running number, so that another text, description or
checkpoint makes a further attempt at it and leaves no row behind that nobody planned.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from annotators.sentence import PACKAGED
from jobs.clone_choice import chosen, told, with_reasons, with_vectors
from jobs.clone_inputs import (
    accepted_descriptions,
    allowed_clips,
    consents_in,
    references_of,
    tongue_of,
    with_texts,
)
from jobs.phases import CLONE
from pipeline.derived import Derived
from pipeline.shelf import in_order
from pipeline.storage import Corpus
from schemas.arrow import VERDICTS
from schemas.errors import ConfigError
from schemas.ids import content_id
from stages import consent, unrelated
from stages.unrelated import UnrelatedConfig, choose

PHASE = CLONE
# Raised when the same tables give another plan than before.
PLAN_VERSION = "1"
LAST_PLAN = "_plans/clone.json"
"""Which clones of former runs the last one had no place for."""

REASONS = {
    **consent.REASONS,
    "no_text": "says nothing whose speed could be measured, or in no known language",
    "near_duplicate": "says and sounds what another described clip does",
    **unrelated.REASONS,
}
"""Why a described clip is not cloned; the first that holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CloneConfig:
    """Whose voices are cloned, and what they say."""

    per_clip: int = 1
    """Texts that each described clip says."""
    consent: str = "not_refused"
    """`not_refused`: a recording that declares no consent may be cloned; `required`: only one that
    permits it. A refusal, and anything that is not understood, forbids it either way."""
    reference_min_s: float = 3.0
    """Seconds of voice that a model is given; a shorter clip is followed by its mined references."""
    reference_max_s: float = 15.0
    """Seconds from which on it is cut off."""
    embedder: str | None = PACKAGED
    """Sentence embedder, by name, folder or hub repository; null compares words only."""
    seed: int = 0
    """Another one gives other texts and other attempts."""
    unit_s: float = 120.0
    """Seconds of speech that are made and committed together: what a crash may cost."""
    transcripts: UnrelatedConfig = field(default_factory=UnrelatedConfig)

    def __post_init__(self) -> None:
        if self.per_clip < 1:
            raise ConfigError(f"clone.per_clip must be at least 1, got {self.per_clip}")
        if self.consent not in consent.RULES:
            rules = " or ".join(consent.RULES)
            raise ConfigError(f"clone.consent must be {rules}, got {self.consent!r}")
        if not 0 <= self.reference_min_s <= self.reference_max_s or self.reference_max_s <= 0:
            raise ConfigError(
                "clone needs 0 <= reference_min_s <= reference_max_s and the latter above 0, got "
                f"{self.reference_min_s}, {self.reference_max_s}"
            )
        if self.unit_s <= 0:
            raise ConfigError(f"clone.unit_s must be above 0, got {self.unit_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPlace:
    """Where a clip's row of `clips` lies."""

    clip_id: str
    part: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ClonePlan:
    """One clone: a described voice says what somebody else said."""

    corpus: str
    clip_id: str
    """Of the clone: the item's id."""
    described: ClipPlace
    """Whose voice and description these are."""
    session_id: str
    """The described clip's."""
    references: tuple[ClipPlace, ...]
    """Clips whose audio, one after the other, is the voice reference; the described one is first."""
    reference_max_s: float
    """Seconds of that audio that are used; the rest is cut off."""
    transcript_id: str
    """A clip that says the text, of another session; no clip of the described one's says it."""
    transcript_session_id: str
    text: str
    """What is said, numbers in words, and what CER compares with."""
    language: str
    """ISO 639 code, of both texts."""
    description: str
    text_cosine: float | None
    """Between the sentence embeddings of both texts; null where no embedder knows the language."""
    lexical_overlap: float
    """Share of the content words that both texts have in common (Jaccard)."""
    expected_s: float
    """Seconds that the text takes at the described clip's characters per second of speech."""
    seed: int
    """In [0, 2^32): the candidates' seeds count from here."""
    attempt: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All clones to make, and who was left out."""

    items: Collection[Derived]
    """Session by session, as the described clips lie; each `plan` is a `ClonePlan`."""
    described: int
    """Accepted clips with an accepted description."""
    left_out: Counter[str]
    """Those that are not cloned, by the reason; see `REASONS`."""
    consents: Counter[str]
    """Wordings of `consent` that are not understood, and how many recordings have them."""
    facts: dict[str, Any]
    """For the run record: texts to choose from, mean cosines of random and of chosen pairs."""


def clones_to_make(
    corpus: Corpus,
    clips: pl.DataFrame,
    config: CloneConfig,
    generation: str,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """What every described clip that may be cloned says.

    clips: `accepted_clips(corpus)`. generation: hash of checkpoint, watermark and settings of
    generation. progress: told how many of the new texts are embedded, and of how many. Raises
    `ModelLoadError`.
    """
    clips = with_texts(corpus, clips)
    consents = consents_in(corpus, config.consent)
    described = with_reasons(
        corpus,
        clips.join(accepted_descriptions(corpus), on="clip_id", maintain_order="left"),
        consents,
    )
    able = described.filter(pl.col("reason") == "")
    texts = clips.filter(pl.col("key").is_not_null())
    tongues = [
        tongue_of(language, texts.filter(language=language), able.filter(language=language))
        for language in able["language"].unique().sort()
    ]
    known, embedder = with_vectors(corpus, tongues, config.embedder, progress)
    choices = [
        choose(one.asked, one.offered, config.transcripts, slots=config.per_clip, seed=config.seed)
        for one in known
    ]
    left_out = Counter(described.filter(pl.col("reason") != "")["reason"].to_list())
    for choice in choices:
        left_out.update(reason for reason in choice.reason.tolist() if reason)
    rows = [chosen(one, choice) for one, choice in zip(known, choices, strict=True)]
    voices = clips.join(consents.filter(pl.col("reason") == ""), on="recording_id", how="semi")
    return Plan(
        items=in_order(_items(corpus, able, voices, rows, config, generation, embedder)),
        described=described.height,
        left_out=left_out,
        consents=consent.not_understood(consents["wordings"].explode()),
        facts={"languages": [told(one, ch) for one, ch in zip(known, choices, strict=True)]},
    )


def _items(
    corpus: Corpus,
    able: pl.DataFrame,
    voices: pl.DataFrame,
    says: list[pl.DataFrame],
    config: CloneConfig,
    generation: str,
    embedder: str,
) -> Iterator[Derived]:
    """A clone for each row of `says`, by `chosen`. voices: the clips that may lend their voice."""
    if not says:
        return
    spans = config.reference_min_s, config.reference_max_s
    references = references_of(corpus, able, voices, *spans)
    more = pl.Series([one for ids in references.values() for one in ids], dtype=pl.String)
    lent = voices.filter(pl.col("clip_id").is_in(more.implode()))
    part_of = dict(lent.select("clip_id", "part").iter_rows())
    # As the described clips lie, so that a worker reads neighbours.
    ordered = (
        able.with_row_index("place_of_clip")
        .with_columns(place_of_session=pl.col("place_of_clip").min().over("session_id"))
        .join(pl.concat(says), left_on="clip_id", right_on="described_id", suffix="_said")
        .sort("place_of_session", "recording_id", "start_s", "clip_id", "slot")
    )
    for row in ordered.iter_rows(named=True):
        clip_id = content_id("clone", row["clip_id"], row["slot"])
        described = ClipPlace(clip_id=row["clip_id"], part=row["part"])
        others = (
            ClipPlace(clip_id=one, part=part_of[one]) for one in references.get(row["clip_id"], ())
        )
        places = (described, *others)
        plan = ClonePlan(
            corpus=corpus.root,
            clip_id=clip_id,
            described=described,
            session_id=row["session_id"],
            references=places,
            reference_max_s=config.reference_max_s,
            transcript_id=row["transcript_id"],
            transcript_session_id=row["transcript_session_id"],
            text=row["text_said"],
            language=row["language"],
            description=row["description"],
            text_cosine=row["cosine"],
            lexical_overlap=row["overlap"],
            expected_s=row["letters_said"] / row["chars_per_s"],
            seed=int(content_id(clip_id, config.seed)[:8], 16),
        )
        yield Derived(
            item_id=clip_id,
            # A place of its own for each clone of a clip: a ledger knows items by it.
            uri=f"{row['place'] or row['clip_id']} clone {row['slot'] + 1}",
            fingerprint=_fingerprint(plan, generation, embedder),
            duration_s=plan.expected_s,
            plan=plan,
            size=int(plan.expected_s) + 1,
        )


def _fingerprint(plan: ClonePlan, generation: str, embedder: str) -> str:
    """Over all that the clone's row depends on."""
    return content_id(
        embedder if plan.text_cosine is not None else "",
        *(PLAN_VERSION, generation, plan.description, plan.language, str(plan.expected_s)),
        *(plan.transcript_id, plan.transcript_session_id, plan.text),
        *(plan.seed, plan.session_id, str(plan.reference_max_s)),
        *(place.clip_id for place in plan.references),
    )


# -------------------------------------------------------------------- afterwards


def record_plan(corpus: Corpus, plan: Plan, config: CloneConfig) -> None:
    """Keep which clones of former runs are not planned any more, for `still_allowed`.

    They keep their rows: whoever plans them again finds them made.
    """
    planned = {item.item_id for item in plan.items}
    gone = sorted(set(corpus.latest_items(PHASE)) - planned)
    corpus.write_json(LAST_PLAN, {"consent": config.consent, "unplanned": gone}, indent=None)


def still_allowed(
    corpus: Corpus, clones: pl.DataFrame, config: CloneConfig | None = None
) -> pl.DataFrame:
    """The clones that may be used today: their columns, and fewer rows.

    Left out is what the last plan has no place for, whose described clip is not accepted or not
    described so any more, and whose voice, described clip or reference, must not be cloned. Consent
    is required if `config` or the last plan requires it.

    clones: with clip_id, described_id, reference_ids and description.
    """
    last = corpus.find_json(LAST_PLAN) or {"consent": "not_refused", "unplanned": []}
    required = "required" in (last["consent"], (config or CloneConfig()).consent)
    voices = allowed_clips(corpus, "required" if required else "not_refused")
    kept = corpus.read(VERDICTS, ["clip_id", "accepted"]).filter("accepted")
    described = (
        accepted_descriptions(corpus)
        .join(kept, on="clip_id", how="semi")
        .join(voices, on="clip_id", how="semi")
    )
    foreign = (
        clones.select("clip_id", reference_id="reference_ids")
        .explode("reference_id")
        .join(voices, left_on="reference_id", right_on="clip_id", how="anti")
    )
    unplanned = pl.DataFrame({"clip_id": last["unplanned"]}, schema={"clip_id": pl.String})
    return (
        clones.join(
            described,
            left_on=["described_id", "description"],
            right_on=["clip_id", "description"],
            how="semi",
            maintain_order="left",
        )
        .join(foreign, on="clip_id", how="anti", maintain_order="left")
        .join(unplanned, on="clip_id", how="anti", maintain_order="left")
    )
