"""`voxquarry annotate`: measure, level, choose, write, verify, and print the tables."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields
from typing import Any

import polars as pl
from rich.console import Console

from annotators.grammar import writing as grammar
from annotators.registry import resolve
from annotators.verifier import CONTRADICTED
from jobs.annotate import (
    DESCRIBE_PHASE,
    LEVELS_PHASE,
    PHASE,
    TRAITS_PHASE,
    ClipPlan,
    annotate_phase,
    describe_phase,
    measuring_fingerprint,
)
from jobs.annotate_table import show
from jobs.descriptions import descriptions_in
from jobs.judge import judge_corpus
from jobs.running import Working, as_recorded, recorded
from jobs.settings import Settings
from jobs.writing import check_writers, writing_fingerprint, written
from pipeline.derived import Derived, due, units_of
from pipeline.policy import load_policy
from pipeline.profile import as_plain
from pipeline.storage import Corpus
from schemas.arrow import ATTRIBUTES, CLIPS, LEVELS, RECORDINGS, TRAITS, VERDICTS
from schemas.attributes import Traits
from schemas.errors import ConfigError
from schemas.ids import content_id
from stages.description import Draft, claims_of
from stages.levels import as_levels, expressiveness_level, levels_of, measured
from stages.traits import scored, traits_of

DRAFTS_PER_UNIT = 512
# A corpus that has grown this much may have another middle than its first clips had.
OUTGROWN = 2

_LIGHT = (
    *("clip_id", "recording_id", "session_id", "speaker", "language", "text"),
    *("start_s", "end_s", "duration_s", "chars_per_s", "snr_db"),
)


def run_annotate(
    root: str, config: Settings, *, policy: str, relevel: bool, retry: bool, console: Console
) -> None:
    """Annotate the accepted clips that are new or changed. Raises `VoxquarryError`."""
    load_policy(policy)
    check_writers(config)
    corpus = Corpus(root)
    if not corpus.exists():
        raise ConfigError(f"{root} holds no corpus; `voxquarry run SOURCE --out {root}` makes one")
    names = ("experts", "annotate", "chat", "judge")
    settings = {name: as_plain(getattr(config, name)) for name in names}
    models = as_recorded([resolve(name) for name in config.experts.models])
    with recorded(corpus, PHASE, settings, console, models=models) as record, ExitStack() as ray:
        run = Working(
            corpus=corpus, engine=config.engine, console=console, ray=ray, run=record.name
        )
        with console.status("Judging the clips …"):
            judge_corpus(root, policy, console, quiet=True)
            clips = accepted_clips(corpus)
        if clips.is_empty():
            raise ConfigError(f"{root} has no accepted clips to annotate")
        _measure(run, clips, config, retry)
        with console.status("Levels and traits …"):
            traits = level(corpus, clips, config, console, relevel=relevel)
        _describe(run, clips, traits, config, retry)
        facts = {**run.facts, "counts": books(corpus, clips)}
        record.finish("finished" if run.units else "nothing to do", **facts)
    if not run.units and not facts.get("waiting"):
        console.print(f"Nothing to do: the clips of {root} are annotated already.")
    show(facts, console)


def accepted_clips(corpus: Corpus) -> pl.DataFrame:
    """Light columns of the accepted clips, with `part` and `place` (recording and time)."""
    kept = corpus.read(VERDICTS, ["clip_id", "accepted"]).filter("accepted").select("clip_id")
    uris = corpus.read(RECORDINGS, ["recording_id", "uri"]).unique("recording_id")
    pieces = []
    for part, table in corpus.scan(CLIPS, _LIGHT):
        frame = pl.from_arrow(table.replace_schema_metadata())
        assert isinstance(frame, pl.DataFrame)
        pieces.append(frame.with_columns(part=pl.lit(part)))
    if not pieces:
        return pl.DataFrame()
    place = pl.format(
        "{}#t={},{}", pl.col("uri"), pl.col("start_s").round(2), pl.col("end_s").round(2)
    )
    # One join for all: each part's own would go through all verdicts again.
    clips = pl.concat(pieces).join(kept, on="clip_id", how="semi", maintain_order="left")
    clips = clips.join(uris, on="recording_id", how="left", maintain_order="left")
    return clips.with_columns(place=place)


def _measure(run: Working, clips: pl.DataFrame, config: Settings, retry: bool) -> None:
    fingerprint = measuring_fingerprint(config.experts)
    items = (
        Derived(
            item_id=clip_id,
            uri=place or clip_id,
            fingerprint=fingerprint,
            duration_s=duration_s,
            plan=ClipPlan(corpus=run.corpus.root, part=part, clip_id=clip_id),
            size=int(duration_s) + 1,
        )
        for clip_id, place, duration_s, part in clips.select(
            "clip_id", "place", "duration_s", "part"
        ).iter_rows()
    )
    todo = due(items, run.corpus.latest_items(PHASE), retry=retry)
    phase = annotate_phase(config.experts, config.engine.placement)
    run.work(phase, units_of(todo, int(config.annotate.unit_s)), "clips")


def level(
    corpus: Corpus, clips: pl.DataFrame, config: Settings, console: Console, *, relevel: bool
) -> pl.DataFrame:
    """Levels once, then the traits of every measured clip; both are kept."""
    light = clips.select("clip_id", "language", "speaker", "session_id", "chars_per_s", "snr_db")
    attributes = corpus.read_standing(ATTRIBUTES, PHASE, "clip_id")
    frame = attributes.join(light, on="clip_id").sort("clip_id")
    if (relevel or not corpus.parts(LEVELS.name)) and not frame.is_empty():
        made = levels_of(measured(frame))
        made.append(expressiveness_level(scored(frame, made)))
        corpus.write_current(LEVELS_PHASE, LEVELS, LEVELS.to_arrow(made))
    # As they are kept, so that every run sees the very same edges.
    levels = as_levels(corpus.read(LEVELS).to_dicts())
    made_of = max((level.num_clips for level in levels), default=0)
    if made_of and frame.height >= OUTGROWN * made_of:
        console.print(
            f"What is high or slow was found out when {made_of:,} clips were measured; now there "
            f"are {frame.height:,}. --relevel finds it anew."
        )
    traits = traits_of(frame, levels, config.annotate.share)
    corpus.write_current(TRAITS_PHASE, TRAITS, traits.to_arrow())
    return traits


def _describe(
    run: Working, clips: pl.DataFrame, traits: pl.DataFrame, config: Settings, retry: bool
) -> None:
    chosen = traits.filter("chosen").join(
        clips.select("clip_id", "part", "place", "duration_s", "text", spoken="language"),
        on="clip_id",
        maintain_order="left",
    )
    ledger = run.corpus.latest_items(DESCRIBE_PHASE)
    todo = due(_drafts(config, chosen), ledger, retry=retry)
    phase = describe_phase(config.annotate.verifier, config.engine.placement)
    for block in written(run, config, todo, chosen, ledger):
        run.work(phase, units_of(block, DRAFTS_PER_UNIT), "descriptions")


def _drafts(config: Settings, chosen: pl.DataFrame) -> Iterator[Derived]:
    """chosen: the clips to describe, with their traits."""
    names = [field.name for field in fields(Traits)]
    writer = writing_fingerprint(config)
    for row in chosen.iter_rows(named=True):
        known = Traits(**{name: row[name] for name in names})
        language = language_of(config, row["spoken"])
        words = (f"{claim.name}={claim.value}" for claim in claims_of(known))
        heard = (str(value) for value in (known.gender, known.age, known.emotion))
        yield Derived(
            item_id=row["clip_id"],
            uri=row["place"] or row["clip_id"],
            fingerprint=content_id(writer, language, *heard, *words),
            duration_s=row["duration_s"],
            plan=Draft(
                clip_id=row["clip_id"],
                duration_s=row["duration_s"],
                language=language,
                traits=known,
            ),
        )


def language_of(config: Settings, spoken: str | None) -> str:
    """The language in which a clip is described."""
    if config.annotate.language != "auto":
        return config.annotate.language
    able = config.chat.on or spoken in grammar.LANGUAGES
    return spoken if spoken and able else "en"


def books(corpus: Corpus, clips: pl.DataFrame) -> dict[str, Any]:
    """Counts over the accepted clips as they stand."""
    accepted = clips.select("clip_id")
    ill = corpus.read_quarantine()
    traits = corpus.read(TRAITS, ["clip_id", "chosen"])
    descriptions = descriptions_in(corpus).join(accepted, on="clip_id", how="semi")
    kept = descriptions.filter("accepted")
    verdicts = (
        descriptions.select("verified").explode("verified").unnest("verified").drop_nulls("name")
    )
    contradicted = verdicts.filter(pl.col("verdict") == CONTRADICTED)
    return {
        "accepted": clips.height,
        "measured": traits.height,
        "measuring_quarantined": ill.filter(pl.col("phase") == PHASE).height,
        "chosen": int(traits["chosen"].sum()),
        "described": kept.height,
        "rejected": dict(Counter(descriptions.explode("reasons")["reasons"].drop_nulls())),
        "describing_quarantined": ill.filter(pl.col("phase") == DESCRIBE_PHASE).height,
        "writers": dict(Counter(kept["model"])),
        "claims": dict(Counter(verdicts["name"])),
        "contradicted": dict(Counter(contradicted["name"])),
    }
