"""`voxquarry curate`: plan, run with progress, judge, and close the books."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.curate import PHASE, CurateConfig, curate_phase, models_of
from jobs.judge import judge_corpus
from jobs.running import as_recorded, recorded, run_with_progress
from pipeline.cost import estimate
from pipeline.engine import bounds_of, longest_first, ray_session
from pipeline.ledger import Ledger, UnitRecord
from pipeline.planning import (
    Broken,
    fingerprint,
    items_of,
    key_of,
    still_to_do,
    survey_all,
    units_of,
)
from pipeline.policy import load_policy
from pipeline.profile import as_plain
from pipeline.run_record import RunRecord, without_secrets
from pipeline.shelf import Shelf
from pipeline.sources import Source, list_sources, shelved
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
    sources: Collection[Source] | None = None,
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
    sources: Collection[Source],
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
    unknown = shelved(source for source in sources if _is_new(source, ledger, retry))
    if not unknown:
        console.print(f"Nothing to do: all {len(sources)} sources are in {corpus.root} already.")
        return {"units": 0}
    phase = curate_phase(config, stones.spans)
    with ray_session(config.engine) as ray_s:
        # Before the survey, whose tasks would wait as well.
        bounds_of(phase, config.engine)
        survey_started = time.perf_counter()
        with console.status(f"Taking in {len(unknown)} of {len(sources)} sources …"):
            surveyed = survey_all(unknown, config.ingest.chunk_s)
        sources = _without_copies(sources, surveyed, stones, console)
        survey_s = time.perf_counter() - survey_started
        whole = units_of(items_of(sources, surveyed, ledger), config.ingest.unit_s)
        units = longest_first(still_to_do(whole, ledger, retry=retry))
        record.write(ray_start_s=round(ray_s, 3), survey_s=round(survey_s, 3), units=len(units))
        run_started = time.perf_counter()
        audio_s, seconds = run_with_progress(
            replace(phase, run=record.name),
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


def _is_new(source: Source, ledger: Ledger, retry: bool) -> bool:
    """Whether no run has finished it, or one is to try again."""
    items = ledger.of_source(fingerprint(source))
    return not items or (retry and any(not item.done for item in items))


def _remembered(
    sources: Collection[Source], stones: Tombstones, console: Console
) -> Collection[Source]:
    """The sources that were not forgotten; says which were."""
    if not stones.keys:
        return sources
    return _left(sources, stones.hold, console)


def _without_copies(
    sources: Collection[Source],
    surveyed: Shelf[Surveyed | Broken],
    stones: Tombstones,
    console: Console,
) -> Collection[Source]:
    """The sources without those that hold a forgotten recording under another uri."""

    def is_copy(source: Source) -> bool:
        found = surveyed.get(key_of(source))
        return isinstance(found, Surveyed) and found.recording_id in stones.recordings

    return _left(sources, is_copy, console) if stones.recordings else sources


def _left(
    sources: Collection[Source], is_gone: Callable[[Source], bool], console: Console
) -> Shelf[Source]:
    """The sources that are not forgotten; says which are."""
    gone: list[str] = []

    def kept() -> Iterator[Source]:
        for source in sources:
            if is_gone(source):
                gone.append(source.uri)
            else:
                yield source

    left = shelved(kept())
    if gone:
        more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
        console.print(
            f"{len(gone)} of {len(sources)} sources are forgotten and left out: "
            f"{', '.join(gone[:3])}{more}",
            highlight=False,
            markup=False,
        )
    return left


def _size(unit: Unit | UnitRecord) -> float:
    """A file without a length in its header still is one step of the bar."""
    planned_s: float = sum(item.facts["planned_s"] for item in unit.items)
    return max(planned_s, 1.0)


def _hours(done_s: float, total_s: float, wall_s: float) -> str:
    return f"{done_s / 3600:.2f} of {total_s / 3600:.2f} h, {done_s / wall_s:.0f} × real time"


def explain(spec: str, root: str, config: CurateConfig, console: Console) -> None:
    """What a run would do: sources, hours, models, an estimate of the time. Starts no Ray."""
    from pipeline.survey import header_seconds

    corpus = Corpus(root)
    sources = _remembered(list_sources(spec), Tombstones.of(corpus), console)
    ledger = corpus.latest_items(PHASE)
    lengths = [header_seconds(source) for source in sources if _is_new(source, ledger, retry=False)]
    hours = sum(length or 0.0 for length in lengths) / 3600
    ran = [
        run
        for run in corpus.runs()
        if run["phase"] == PHASE and run.get("run_s") and run.get("audio_s")
    ]
    rates = [run["audio_s"] / run["run_s"] for run in ran]
    table = Table("dry run", "", show_header=False, title=f"{without_secrets(spec)} → {root}")
    table.add_row("sources", f"{len(sources)}, of which {len(sources) - len(lengths)} are done")
    table.add_row("unreadable headers", str(sum(length is None for length in lengths)))
    table.add_row("hours to curate", f"{hours:.2f}")
    table.add_row("estimated time", _time_for(hours, rates, config))
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


def _time_for(hours: float, rates: Sequence[float], config: CurateConfig) -> str:
    """rates: seconds of audio in a second, of earlier runs."""
    pools = config.engine.pools.values()
    if rates:
        speed, basis = rates[-1], "the last run here"
    elif any(pool.num_gpus for pool in pools):
        return "not known before some of it has run: this profile has GPUs"
    else:
        speed = TYPICAL_SPEED * sum(pool.workers or 1 for pool in pools)
        basis = "the embedded profile's usual rate"
    return f"{hours * 60 / speed:.1f} min at {speed:.0f} × ({basis})"


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
