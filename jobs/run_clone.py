"""`voxquarry clone`: plan, speak, judge, and print the tables."""

from collections import Counter
from contextlib import ExitStack
from typing import Any

import polars as pl
from rich.console import Console

from annotators.registry import resolve
from jobs.clone import clone_phase, generation_of, has_same_encoder, maker_of, recognised
from jobs.clone_plan import PHASE, Plan, clones_to_make, record_plan
from jobs.clone_table import show
from jobs.judge import judge_corpus
from jobs.judge_synthetic import judge_synthetic, standing_synthetic
from jobs.run_annotate import accepted_clips
from jobs.running import Working, as_recorded, recorded
from jobs.settings import Settings
from pipeline.derived import due, units_of
from pipeline.policy import load_policy, load_synthetic_policy
from pipeline.profile import as_plain
from pipeline.storage import Corpus
from schemas.arrow import SYNTHETIC_VERDICTS
from schemas.errors import ConfigError

_SETTINGS = ("clone", "speaking", "judging", "transcription", "dnsmos", "speaker")


def run_clone(
    root: str,
    checkpoint: str,
    config: Settings,
    *,
    policy: str,
    synthetic_policy: str,
    retry: bool,
    console: Console,
) -> None:
    """Make the clones that are new or changed, and judge them all. Raises `VoxquarryError`."""
    load_policy(policy)
    load_synthetic_policy(synthetic_policy)
    corpus = Corpus(root)
    if not corpus.exists():
        raise ConfigError(f"{root} holds no corpus; `voxquarry run SOURCE --out {root}` makes one")
    with console.status("Finding the models …"):
        maker = maker_of(checkpoint)
        generation = generation_of(maker, config)
        judges = (config.transcription.model, config.speaker.model, config.dnsmos.model)
        models = as_recorded([resolve(name) for name in judges])
    settings = {name: as_plain(getattr(config, name)) for name in _SETTINGS}
    known = {**as_plain(maker), "models": models}
    with recorded(corpus, PHASE, settings, console, **known) as record, ExitStack() as ray:
        run = Working(
            corpus=corpus, engine=config.engine, console=console, ray=ray, run=record.name
        )
        with console.status("Judging the clips …"):
            judge_corpus(root, policy, console, quiet=True)
            clips = accepted_clips(corpus)
        if clips.is_empty():
            raise ConfigError(f"{root} has no accepted clips to clone")
        plan = planned(corpus, clips, config, generation, console)
        phase = clone_phase(config, maker, same_encoder=has_same_encoder(corpus, config.speaker))
        todo = due(plan.items, corpus.latest_items(PHASE), retry=retry)
        units = units_of(todo, int(config.clone.unit_s))
        run.facts["audio_s"] = round(run.work(phase, units, "clones"), 3)
        with console.status("Judging the clones …"):
            judge_synthetic(corpus, synthetic_policy, config.clone)
        facts = {**run.facts, "plan": plan.facts, "counts": books(corpus, plan)}
        record.finish("finished" if run.units else "nothing to do", **facts)
    if not run.units:
        console.print(f"Nothing to do: all {len(plan.items):,} clones of {root} are made already.")
    show(facts, console)


def planned(
    corpus: Corpus, clips: pl.DataFrame, config: Settings, generation: str, console: Console
) -> Plan:
    """Who says what; the corpus is told, so that clones with no place in it stand no more.

    Raises `ConfigError` where no clip is described, and `ModelLoadError`.
    """
    with console.status("Choosing who says what …") as status:

        def embedded(done: int, total: int) -> None:
            status.update(f"Choosing who says what: {done:,} of {total:,} new texts read …")

        plan = clones_to_make(corpus, clips, config.clone, generation, progress=embedded)
        plan = recognised(plan, config.transcription)
    if not plan.described:
        raise ConfigError(
            f"{corpus.root} has no accepted descriptions; `voxquarry annotate {corpus.root}` "
            "writes them"
        )
    record_plan(corpus, plan, config.clone)
    return plan


def books(corpus: Corpus, plan: Plan) -> dict[str, Any]:
    """Counts over the clones as they stand."""
    verdicts = corpus.read(SYNTHETIC_VERDICTS, ["clip_id", "accepted", "reasons"])
    clones = standing_synthetic(corpus).join(verdicts, on="clip_id")
    ill = corpus.read_quarantine().filter(pl.col("phase") == PHASE)
    accepted = clones.filter("accepted")
    return {
        "described": plan.described,
        "left_out": dict(plan.left_out.most_common()),
        "consents": dict(plan.consents.most_common()),
        "planned": len(plan.items),
        "made": clones.height,
        "made_s": round(float(clones["duration_s"].sum()), 3),
        "accepted": accepted.height,
        "accepted_s": round(float(accepted["duration_s"].sum()), 3),
        "rejected": dict(Counter(clones.explode("reasons")["reasons"].drop_nulls()).most_common()),
        "cer_mean": clones["cer"].mean(),
        "cosine_mean": clones["cosine"].mean(),
        "accepted_cer_mean": accepted["cer"].mean(),
        "accepted_cosine_mean": accepted["cosine"].mean(),
        "quarantined": ill.height,
    }
