"""`voxquarry curate`: plan, run with progress, judge, and close the books."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from jobs.curate import PHASE, CurateConfig, curate_phase, models_of
from jobs.judge import judge_corpus
from pipeline.engine import ray_session, run_units
from pipeline.planning import (
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
from pipeline.work import Unit
from pipeline.worker import START

# Hours of audio per hour of one core with the embedded profile, from `make bench`; only for the
# estimate of a first run, since later ones know their corpus' own rate.
TYPICAL_SPEED = 14.0


def run_curate(
    spec: str, root: str, config: CurateConfig, *, policy: str, retry: bool, console: Console
) -> None:
    """Curate every source that the corpus does not have yet, then judge and print the table.

    Raises a `VoxquarryError` when the run cannot go on; what was committed stays.
    """
    load_policy(policy)
    sources = list_sources(spec)
    models = models_of(config)
    corpus = Corpus(root)
    record = RunRecord(corpus, PHASE, as_plain(config))
    record.write(
        source=without_secrets(spec),
        models=[{**asdict(model), "path": model.path.name} for model in models],
    )
    started = time.perf_counter()
    try:
        facts = _run(sources, corpus, config, retry, console, record)
    except KeyboardInterrupt:
        record.finish("interrupted", wall_s=time.perf_counter() - started)
        console.print("Interrupted. The same command goes on from here.")
        raise
    except Exception as error:
        record.finish(
            "failed", error=f"{type(error).__name__}: {error}", wall_s=time.perf_counter() - started
        )
        raise
    facts["wall_s"] = round(time.perf_counter() - started, 3)
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
    seconds: dict[str, float] = {}
    with ray_session(config.engine) as ray_s:
        survey_started = time.perf_counter()
        with console.status(f"Taking in {len(unknown)} of {len(sources)} sources …"):
            surveyed = survey_all(unknown, config.ingest.chunk_s)
        survey_s = time.perf_counter() - survey_started
        items = items_of(sources, surveyed, known)
        units = still_to_do(units_of(items, config.ingest.unit_s), ledger, retry=retry)
        record.write(ray_start_s=round(ray_s, 3), survey_s=round(survey_s, 3), units=len(units))
        run_started = time.perf_counter()
        audio_s = _with_progress(units, corpus, config, console, seconds)
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


def _with_progress(
    units: Sequence[Unit],
    corpus: Corpus,
    config: CurateConfig,
    console: Console,
    seconds: dict[str, float],
) -> float:
    """Run the units under a bar; adds to `seconds` per stage and returns seconds of audio done."""
    total_s = sum(unit.duration_s for unit in units)
    columns = (
        TextColumn("curate"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[hours]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    audio_s = 0.0
    began = time.perf_counter()
    with Progress(*columns, console=console) as progress:
        # A file without a length in its header still is one step of the bar.
        steps = {unit.unit_id: max(unit.duration_s, 1.0) for unit in units}
        task = progress.add_task("curate", total=sum(steps.values()), hours="starting the models")
        for record in run_units(curate_phase(config), units, corpus, config.engine):
            audio_s += sum(item.duration_s for item in record.items)
            for stage, value in record.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + value
            speed = audio_s / (time.perf_counter() - began)
            hours = f"{audio_s / 3600:.2f} of {total_s / 3600:.2f} h, {speed:.0f} × real time"
            progress.update(task, advance=steps[record.unit_id], hours=hours)
    return audio_s


def explain(spec: str, root: str, config: CurateConfig, console: Console) -> None:
    """What a run would do: sources, hours, models, an estimate of the time. Starts no Ray."""
    from pipeline.survey import header_seconds

    sources = list_sources(spec)
    corpus = Corpus(root)
    known = known_sources(corpus.latest_items(PHASE))
    new = [source for source in sources if fingerprint(source) not in known]
    lengths = [header_seconds(source) for source in new]
    hours = sum(length or 0.0 for length in lengths) / 3600
    rates = [
        run["audio_s"] / run["run_s"]
        for run in corpus.runs()
        if run.get("run_s") and run["audio_s"]
    ]
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
