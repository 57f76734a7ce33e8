"""`voxquarry curate`: plan, run with progress, judge, and close the books."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.curate import PHASE, CurateConfig, curate_phase, models_of
from jobs.judge import judge_corpus
from jobs.running import as_recorded, recorded, run_with_progress
from pipeline.cost import estimate
from pipeline.engine import ray_session
from pipeline.planning import (
    Broken,
    fingerprint,
    items_of,
    known_sources,
    still_to_do,
    survey_all,
    units_of,
)
from pipeline.policy import load_policy
from pipeline.profile import as_plain
from pipeline.run_record import RunRecord, without_secrets
from pipeline.sources import Source, list_sources
from pipeline.storage import Corpus
from pipeline.summary import render
from pipeline.survey import Surveyed
from pipeline.tombstones import Tombstones
from pipeline.work import Unit
from pipeline.worker import START

# Hours of audio per hour of one core with the embedded profile, from `make bench`; only for the
# estimate of a first run, since later ones know their corpus' own rate.
TYPICAL_SPEED = 14.0


def run_curate(
    spec: str,
    root: str,
    config: CurateConfig,
    *,
    policy: str,
    retry: bool,
    console: Console,
    sources: Sequence[Source] | None = None,
) -> None:
    """Curate every source that the corpus does not have yet, then judge and print the table.

    sources: what to take of those behind `spec`; None for all, as they are.
    Raises a `VoxquarryError` when the run cannot go on; what was committed stays.
    """
    load_policy(policy)
    if sources is None:
        sources = list_sources(spec)
    models = models_of(config)
    corpus = Corpus(root)
    with recorded(
        corpus,
        PHASE,
        as_plain(config),
        console,
        source=without_secrets(spec),
        models=as_recorded(models),
    ) as record:
        facts = _run(sources, corpus, config, retry, console, record)
    status = "finished" if facts["units"] else "nothing to do"
    accounts = judge_corpus(root, policy, console, quiet=True)
    record.finish(status, **facts, counts=accounts.as_dict())
    render(accounts, facts, console)


def _run(
    sources: Sequence[Source],
    corpus: Corpus,
    config: CurateConfig,
    retry: bool,
    console: Console,
    record: RunRecord,
) -> dict[str, Any]:
    """Plan and run; what the run record says of it."""
    stones = Tombstones.of(corpus)
    sources = _remembered(sources, stones, console)
    ledger = corpus.latest_items(PHASE)
    known = known_sources(ledger)
    ill = {
        item.facts["source"]
        for _, item in ledger.values()
        if retry and item.status == "quarantined"
    }
    unknown = [s for s in sources if fingerprint(s) not in known or fingerprint(s) in ill]
    if not unknown:
        console.print(f"Nothing to do: all {len(sources)} sources are in {corpus.root} already.")
        return {"units": 0}
    with ray_session(config.engine) as ray_s:
        survey_started = time.perf_counter()
        with console.status(f"Taking in {len(unknown)} of {len(sources)} sources …"):
            surveyed = survey_all(unknown, config.ingest.chunk_s)
        sources = _without_copies(sources, surveyed, stones, console)
        survey_s = time.perf_counter() - survey_started
        items = items_of(sources, surveyed, known)
        units = still_to_do(units_of(items, config.ingest.unit_s), ledger, retry=retry)
        record.write(ray_start_s=round(ray_s, 3), survey_s=round(survey_s, 3), units=len(units))
        run_started = time.perf_counter()
        audio_s, seconds = run_with_progress(
            replace(curate_phase(config, stones.spans), run=record.name),
            units,
            corpus,
            config.engine,
            console,
            size=_size,
            note=_hours,
            waiting="starting the models",
        )
        run_s = time.perf_counter() - run_started
    starts = seconds.pop(START, 0.0)
    return {
        "units": len(units),
        "audio_s": round(audio_s, 3),
        "ray_start_s": round(ray_s, 3),
        "survey_s": round(survey_s, 3),
        "run_s": round(run_s, 3),
        "worker_start_s": round(starts, 3),
        "stage_seconds": {stage: round(value, 3) for stage, value in seconds.items()},
    }


def _remembered(
    sources: Sequence[Source], stones: Tombstones, console: Console
) -> Sequence[Source]:
    """The sources that were not forgotten; says which were."""
    kept, gone = stones.split(sources)
    if gone:
        _tell_forgotten(gone, len(sources), console)
    return kept


def _without_copies(
    sources: Sequence[Source],
    surveyed: Mapping[str, Surveyed | Broken],
    stones: Tombstones,
    console: Console,
) -> Sequence[Source]:
    """The sources without those that hold a forgotten recording under another uri."""
    gone = {
        key
        for key, found in surveyed.items()
        if isinstance(found, Surveyed) and found.recording_id in stones.recordings
    }
    if not gone:
        return sources
    _tell_forgotten([s for s in sources if fingerprint(s) in gone], len(sources), console)
    return [source for source in sources if fingerprint(source) not in gone]


def _tell_forgotten(gone: Sequence[Source], of: int, console: Console) -> None:
    more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
    console.print(
        f"{len(gone)} of {of} sources are forgotten and left out: "
        f"{', '.join(source.uri for source in gone[:3])}{more}",
        highlight=False,
        markup=False,
    )


def _size(unit: Unit) -> float:
    """A file without a length in its header still is one step of the bar."""
    return max(unit.duration_s, 1.0)


def _hours(done_s: float, total_s: float, wall_s: float) -> str:
    return f"{done_s / 3600:.2f} of {total_s / 3600:.2f} h, {done_s / wall_s:.0f} × real time"


def explain(spec: str, root: str, config: CurateConfig, console: Console) -> None:
    """What a run would do: sources, hours, models, an estimate of the time. Starts no Ray."""
    from pipeline.survey import header_seconds

    corpus = Corpus(root)
    sources = _remembered(list_sources(spec), Tombstones.of(corpus), console)
    known = known_sources(corpus.latest_items(PHASE))
    new = [source for source in sources if fingerprint(source) not in known]
    lengths = [header_seconds(source) for source in new]
    hours = sum(length or 0.0 for length in lengths) / 3600
    ran = [
        run
        for run in corpus.runs()
        if run["phase"] == PHASE and run.get("run_s") and run.get("audio_s")
    ]
    rates = [run["audio_s"] / run["run_s"] for run in ran]
    workers = sum(pool.workers or 1 for pool in config.engine.pools.values())
    speed = rates[-1] if rates else TYPICAL_SPEED * workers
    table = Table("dry run", "", show_header=False, title=f"{without_secrets(spec)} → {root}")
    table.add_row("sources", f"{len(sources)}, of which {len(sources) - len(new)} are done")
    table.add_row("unreadable headers", str(sum(length is None for length in lengths)))
    table.add_row("hours to curate", f"{hours:.2f}")
    basis = "the last run here" if rates else "the embedded profile's usual rate"
    table.add_row("estimated time", f"{hours * 60 / speed:.1f} min at {speed:.0f} × ({basis})")
    for stage in curate_phase(config).stages:
        pool = config.engine.placement.get(stage.name, "cpu")
        table.add_row(f"stage {stage.name}", f"in pool {pool}")
    for model in models_of(config):
        table.add_row(f"model {model.name}", f"{model.origin}, {model.hash[:12]}")
    console.print(table)
    if ran:
        _show_cost(hours, ran[-1], config, console)
    else:
        console.print(
            "What it costs is known once some of it has run: curate a folder of an hour into this "
            "corpus with these settings, and ask again."
        )


def _show_cost(
    hours: float, run: Mapping[str, Any], config: CurateConfig, console: Console
) -> None:
    """By the seconds that the stages of an earlier run took."""
    per_second = {
        stage: seconds / run["audio_s"] for stage, seconds in run["stage_seconds"].items()
    }
    pools = estimate(hours, per_second, config.engine, config.cost)
    table = Table(
        *("pool", "worker hours", "CPU hours", "GPU hours", config.cost.currency),
        title=f"Cost of {hours:,.2f} h of audio, at the rates of {run['run']}",
    )
    for one in pools:
        numbers = (f"{x:,.2f}" for x in (one.worker_hours, one.cpu_hours, one.gpu_hours))
        table.add_row(one.pool, *numbers, "–" if one.money is None else f"{one.money:,.2f}")
    known = [one.money for one in pools if one.money is not None]
    table.add_row(
        "[bold]all[/]",
        *(
            f"{sum(getattr(one, name) for one in pools):,.2f}"
            for name in ("worker_hours", "cpu_hours", "gpu_hours")
        ),
        f"{sum(known):,.2f}" if len(known) == len(pools) else "–",
    )
    console.print(table)
    if len(known) < len(pools):
        console.print("Prices: --set cost.cpu_hour=… --set cost.gpu_hour=…")
