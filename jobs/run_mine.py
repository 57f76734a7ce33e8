"""`voxquarry mine`: judge, mark near-duplicates, pair the clips of each session, print the table."""

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from jobs.judge import judge_corpus
from jobs.mine import DUPLICATES_PHASE, PHASE, duplicates_phase, mine_phase
from jobs.mine_plan import Inventory, sessions_to_mine, take_inventory, texts_to_compare
from jobs.running import Working, recorded
from jobs.settings import Settings
from jobs.voice_thresholds import Encoder, encoder_of, with_thresholds
from pipeline.derived import due, units_of
from pipeline.policy import load_policy
from pipeline.profile import as_plain
from pipeline.storage import Corpus
from schemas.arrow import DUPLICATES, SESSIONS
from schemas.errors import ConfigError
from stages.mining import REASONS, MiningConfig

CLIPS_PER_UNIT = 8192
"""Neighbouring sessions of about so many clips are read, mined and committed together."""


@dataclass(slots=True)
class _Mining(Working):
    """One run of the command."""

    config: Settings = field(kw_only=True)
    mining: MiningConfig = field(kw_only=True)
    """With its thresholds."""
    encoder: Encoder = field(kw_only=True)
    retry: bool = field(kw_only=True)


def run_mine(root: str, config: Settings, *, policy: str, retry: bool, console: Console) -> None:
    """Mine the sessions that are new or have changed. Raises `VoxquarryError`; what is done stays."""
    load_policy(policy)
    corpus = Corpus(root)
    if not corpus.exists():
        raise ConfigError(f"{root} holds no corpus; `voxquarry run SOURCE --out {root}` makes one")
    encoder = encoder_of(corpus)
    mining = with_thresholds(config.mine, corpus, encoder)
    settings = {"mine": as_plain(mining), "duplicates": as_plain(config.duplicates)}
    started = time.perf_counter()
    with (
        recorded(corpus, PHASE, settings, console, encoder=as_plain(encoder)) as record,
        ExitStack() as ray,
    ):
        with console.status("Judging the clips …"):
            judge_corpus(root, policy, console, quiet=True)
        judged_s = time.perf_counter() - started
        with console.status("Taking stock of clips and sessions …"):
            inventory = take_inventory(corpus)
        plan_s = time.perf_counter() - started - judged_s
        run = _Mining(
            corpus=corpus,
            engine=config.engine,
            console=console,
            ray=ray,
            run=record.name,
            config=config,
            mining=mining,
            encoder=encoder,
            retry=retry,
            facts={"judge_s": round(judged_s, 3), "inventory_s": round(plan_s, 3)},
        )
        _mark_duplicates(run, inventory)
        sessions = _mine_sessions(run, inventory)
        facts = {**run.facts, "counts": _books(corpus), "wall_s": time.perf_counter() - started}
        record.finish("finished" if run.units else "nothing to do", **facts)
    if not run.units:
        console.print(f"Nothing to do: all {sessions:,} sessions of {root} are mined already.")
    _show(facts, mining, console)


def _mark_duplicates(run: _Mining, inventory: Inventory) -> None:
    ledger = run.corpus.latest_items(DUPLICATES_PHASE)
    texts = texts_to_compare(inventory, run.config.duplicates, run.encoder.hash, ledger)
    units = units_of(due(texts, ledger, retry=run.retry), CLIPS_PER_UNIT // 16)
    phase = duplicates_phase(run.config.duplicates, run.config.engine.placement)
    run.work(phase, units, "texts")


def _mine_sessions(run: _Mining, inventory: Inventory) -> int:
    """How many sessions the corpus has; those that changed are mined."""
    if inventory.clips.is_empty():
        return 0
    marks = run.corpus.read_standing(DUPLICATES, DUPLICATES_PHASE, "text_id", ["clip_id"])
    # How many targets share a block decides nothing but speed.
    settings = {**as_plain(replace(run.mining, block=1)), "encoder": run.encoder.hash}
    items = sessions_to_mine(inventory, marks["clip_id"], settings)
    units = units_of(due(items, run.corpus.latest_items(PHASE), retry=run.retry), CLIPS_PER_UNIT)
    run.work(mine_phase(run.mining, run.config.engine.placement), units, "sessions")
    return int(inventory.clips["session_id"].n_unique())


def _books(corpus: Corpus) -> dict[str, Any]:
    """Counts over all sessions as they stand."""
    sessions = corpus.read_standing(SESSIONS, PHASE, "session_id")
    reasons: Counter[str] = Counter()
    for entries in sessions["unreferenced"]:
        for entry in entries:
            reasons[entry["reason"]] += entry["clips"]
    names = ("clips", "accepted", "duplicates", "clean", "targets", "pairs")
    pairs = int(sessions["pairs"].sum())
    cosines = float((sessions["cosine_mean"].fill_null(0.0) * sessions["pairs"]).sum())
    return {
        "sessions": sessions.height,
        **{name: int(sessions[name].sum()) for name in names},
        "cosine_mean": cosines / pairs if pairs else None,
        "unreferenced": dict(reasons.most_common()),
        "quarantined": corpus.read_quarantine()
        .filter(pl.col("phase").is_in([PHASE, DUPLICATES_PHASE]))
        .height,
    }


def _show(facts: dict[str, Any], mining: MiningConfig, console: Console) -> None:
    counts = facts["counts"]
    accepted = max(1, counts["accepted"])
    table = Table("", "clips", "share", title="References", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("accepted", f"{counts['accepted']:,}", "")
    table.add_row("clean enough to be a reference", *_share(counts["clean"], accepted))
    table.add_row("[bold]with references[/]", *_share(counts["targets"], accepted))
    for reason, clips in counts["unreferenced"].items():
        table.add_row(f"without: {reason} ({REASONS[reason]})", *_share(clips, accepted))
    console.print(table)
    mean = f", mean cosine {counts['cosine_mean']:.3f}" if counts["pairs"] else ""
    console.print(
        f"{counts['pairs']:,} pairs{mean}, in {counts['sessions']:,} sessions of "
        f"{counts['clips']:,} clips; cosine at least {mining.min_cosine:.2f}, of voices "
        f"{mining.min_voice_cosine:.2f}; {facts['wall_s']:.1f} s.",
        highlight=False,
    )
    if counts["quarantined"]:
        console.print(
            f"[yellow]{counts['quarantined']} sessions or texts are in quarantine;[/] the table "
            "quarantine says why, --retry-quarantined tries them again."
        )


def _share(clips: int, of: int) -> tuple[str, str]:
    return f"{clips:,}", f"{clips / of:.1%}"
