"""`voxquarry export`: choose, split, write shard by shard what is not there, and print the table."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from jobs.curate import PHASE as CURATE
from jobs.exporting.audio import ClipReader, Lost
from jobs.exporting.card import Export, readme_of
from jobs.exporting.card_tables import hours_of
from jobs.exporting.choice import REASONS, Choice, choose
from jobs.exporting.folder import ExportFolder
from jobs.exporting.formats import Format, Place
from jobs.exporting.options import ExportConfig, FormatName
from jobs.exporting.registry import FORMATS
from jobs.exporting.shards import Shard, shards_of
from jobs.exporting.splits import SPLITS
from jobs.judge import judge_corpus
from jobs.running import recorded
from pipeline.policy import load_policy
from pipeline.run_record import without_secrets
from pipeline.storage import Corpus
from schemas.errors import ConfigError
from schemas.ids import content_id

PHASE = "export"


@dataclass(kw_only=True, slots=True)
class _Exporting:
    """One run of the command."""

    corpus: Corpus
    out: ExportFolder
    how: Format
    config: ExportConfig
    choice: Choice
    shards: list[Shard] = field(default_factory=list)

    @property
    def sample_rate(self) -> int | None:
        """Hertz that all clips get."""
        return self.config.sample_rate or self.how.sample_rate


def run_export(
    root: str, to: FormatName, out: str, config: ExportConfig, *, policy: str, console: Console
) -> None:
    """Bring the export in `out` to what the corpus holds today. Raises `VoxquarryError`."""
    load_policy(policy)
    how = FORMATS[to]()
    how.library()
    if how.sample_rate and config.sample_rate not in (None, how.sample_rate):
        raise ConfigError(f"--to {to} wants {how.sample_rate:,} Hz, not {config.sample_rate:,}")
    corpus = Corpus(root)
    if not corpus.exists():
        raise ConfigError(f"{root} holds no corpus; `voxquarry run SOURCE --out {root}` makes one")
    folder = ExportFolder(out)
    if how.names_paths and not folder.is_local:
        raise ConfigError(f"--to {to} names files by absolute paths, so --out must be a folder")
    folder.claim(to, without_secrets(root))
    facts: dict[str, Any] = {"format": to, "out": without_secrets(out)}
    with recorded(corpus, PHASE, asdict(config), console, **facts) as record:
        with console.status("Judging the clips …"):
            judge_corpus(root, policy, console, quiet=True)
        with console.status("Choosing and splitting …"):
            choice = choose(corpus, config, needs_reference=how.needs_reference)
            run = _Exporting(corpus=corpus, out=folder, how=how, config=config, choice=choice)
            depends = content_id(to, str(run.sample_rate))
            run.shards = shards_of(choice.clips, config.shard_s, depends)
        worked = _bring_up_to_date(run, console)
        lost = folder.lost(run.shards)
        facts = {"counts": _counts(run, lost)}
        record.finish("finished" if worked else "nothing to do", **facts)
    if not worked:
        console.print(f"Nothing to do: {out} holds this export already.")
    _show(run, lost, out, console)


def _bring_up_to_date(run: _Exporting, console: Console) -> bool:
    """Write what is missing; whether anything was."""
    there = run.out.keep(run.shards)
    todo = [shard for shard in run.shards if shard.name not in there]
    if not todo:
        # What it tells of itself may have changed all the same.
        readme, plan = _readme(run)
        if run.out.finished_plan() == plan:
            return False
    run.out.reopen(name for split in SPLITS for name in run.how.manifests(split))
    _write(run, todo, console)
    lost = run.out.lost(run.shards)
    place = Place(
        root=str(Path(run.out.path).absolute()) if run.out.is_local else run.out.root,
        lost=frozenset(one.clip_id for one in lost),
        references=run.choice.clips["reference_id"].count() > 0,
    )
    for split in SPLITS:
        shards = [shard for shard in run.shards if shard.split == split]
        for name, lines in run.how.manifests(split).items() if shards else ():
            run.out.write_lines(name, (f"{line}\n" for line in lines(run.out.rows(shards), place)))
    readme, plan = _readme(run)
    run.out.finish(plan, readme)
    return True


def _write(run: _Exporting, shards: Sequence[Shard], console: Console) -> None:
    reader = ClipReader(run.corpus, run.how.suffix, run.sample_rate)
    columns = (
        TextColumn(PHASE),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    total = sum(hours_of(shard.clips) for shard in shards)
    began, done = time.perf_counter(), 0.0
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(PHASE, total=total, note="")
        for shard in shards:
            with run.out.aside() as folder:
                rows = run.how.write(folder, shard, reader.clips(shard.clips))
                run.out.publish(shard, folder, rows, reader.lost)
            done += hours_of(shard.clips)
            speed = done * 3600 / (time.perf_counter() - began)
            note = f"{done:,.1f} of {total:,.1f} hours, {speed:,.0f} × real time"
            progress.update(task, completed=done, note=note)


def _readme(run: _Exporting) -> tuple[str, str]:
    """The README, and the fingerprint of the whole export."""
    lost = run.out.lost(run.shards)
    went = _went_out(run, lost)
    days = sorted(str(one["started"])[:10] for one in run.corpus.runs() if one["phase"] == CURATE)
    marker = run.corpus.find_json("_commits/filter/current.json") or {}
    export = Export(
        name=PurePosixPath(run.corpus.path).name,
        format_name=run.how.name,
        format_doc=run.how.reads,
        head=run.how.card([split for split in SPLITS if not went.filter(split=split).is_empty()]),
        config=run.config,
        clips=went,
        left_out=run.choice.left_out,
        lost=len(lost),
        policy_hash=marker.get("policy_hash"),
        acquired=(days[0], days[-1]) if days else None,
    )
    readme = readme_of(export)
    return readme, content_id(readme, *(shard.fingerprint for shard in run.shards))


def _went_out(run: _Exporting, lost: Sequence[Lost]) -> pl.DataFrame:
    """The clips that the export lists."""
    gone = [one.clip_id for one in lost]
    there = run.choice.clips.filter("listed", ~pl.col("clip_id").is_in(gone))
    if run.how.needs_reference:
        there = there.filter(~pl.col("reference_id").is_in(gone))
    return there


def _counts(run: _Exporting, lost: Sequence[Lost]) -> dict[str, Any]:
    went = _went_out(run, lost)
    return {
        "clips": went.height,
        "synthetic": int(went["synthetic"].sum()),
        "hours": round(hours_of(went), 6),
        "splits": {split: went.filter(split=split).height for split in SPLITS},
        "shards": len(run.shards),
        "left_out": dict(run.choice.left_out.most_common()),
        "unreadable": len(lost),
    }


def _show(run: _Exporting, lost: Sequence[Lost], out: str, console: Console) -> None:
    went = _went_out(run, lost)
    table = Table(
        "", "clips", "hours", "speakers", "sessions", title="Export", title_justify="left"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for split in SPLITS:
        side = went.filter(split=split)
        table.add_row(
            split,
            f"{side.height:,}",
            f"{hours_of(side):,.3f}",
            f"{side['voice'].n_unique():,}",
            f"{side['session_id'].n_unique():,}",
        )
    if went["synthetic"].any():
        made = went.filter("synthetic")
        table.add_row("of these synthetic", f"{made.height:,}", f"{hours_of(made):,.3f}", "", "")
    for reason, number in run.choice.left_out.most_common():
        table.add_row(f"left out: {reason} ({REASONS[reason]})", f"{number:,}", "", "", "")
    if lost:
        table.add_row("left out: unreadable audio", f"{len(lost):,}", "", "", "")
    console.print(table)
    for one in lost[:5]:
        console.print(f"[yellow]unreadable:[/] {one.clip_id}: ", end="", highlight=False)
        console.print(one.error, markup=False, highlight=False)
    for wording, number in run.choice.not_understood.most_common(5):
        console.print(
            f"Consent not understood, so taken as a refusal ({number:,} recordings): ", end=""
        )
        console.print(wording, markup=False, highlight=False)
    asked = {"validation": run.config.validation, "test": run.config.test}
    empty = [
        split for split, share in asked.items() if share and not went.filter(split=split).height
    ]
    if empty:
        console.print(
            f"[yellow]Nothing is in {' and '.join(empty)}:[/] too few clips share no speaker and "
            "no session with the rest."
        )
    console.print(f"{out}: {len(run.shards):,} shards, README.md.", highlight=False)
