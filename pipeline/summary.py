"""The books of a corpus: what came in is kept, rejected, quarantined or was no speech."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from pipeline.ledger import Item
from schemas.errors import StorageError

# Clips end on samples and durations are floats; an hour may differ by a third of a second.
SLACK = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """How much a reason rejects, and how much it alone rejects."""

    name: str
    clips: int
    hours: float
    clips_alone: int
    hours_alone: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Accounts:
    """Counts and hours over a whole corpus, for one policy."""

    items: int
    items_done: int
    items_quarantined: int
    recordings: int
    recordings_without_speech: int
    clips: int
    clips_kept: int
    hours_in: float
    hours_kept: float
    hours_rejected: float
    hours_quarantined: float
    hours_without_speech: float
    """Inside recordings that were processed, but in no clip."""
    reasons: tuple[Reason, ...]
    quarantined: tuple[tuple[str, int, float], ...]
    """(error type, items, hours), most first."""
    tiers: tuple[tuple[str, int, float], ...]
    """(tier, clips kept, hours kept)."""

    def as_dict(self) -> dict[str, Any]:
        """For the run record."""
        return asdict(self)


def account(
    items: Sequence[Item],
    clips: pl.DataFrame,
    verdicts: pl.DataFrame,
    quarantine: pl.DataFrame,
    recordings: pl.DataFrame,
) -> Accounts:
    """Close the books.

    clips: clip_id, duration_s; recordings: recording_id, flags. Raises `StorageError` with the
    numbers when they do not balance.
    """
    if clips["clip_id"].n_unique() != clips.height:
        raise StorageError(f"{clips.height - clips['clip_id'].n_unique()} clips are there twice")
    if verdicts["clip_id"].n_unique() != verdicts.height:
        twice = verdicts.height - verdicts["clip_id"].n_unique()
        raise StorageError(f"{twice} clips have more than one verdict")
    # A sum with NaN is NaN, which no comparison below would catch.
    measured = pl.col("duration_s").is_finite() & (pl.col("duration_s") >= 0)
    unmeasured = clips.height - clips.filter(measured).height
    unmeasured += sum(not (0 <= item.duration_s < math.inf) for item in items)
    if unmeasured:
        raise StorageError(f"{unmeasured} clips or items have no length in seconds")
    if clips["clip_id"].equals(verdicts["clip_id"]):
        judged = verdicts.with_columns(clips["duration_s"])
    else:
        judged = clips.select("clip_id", "duration_s").join(verdicts, on="clip_id", how="inner")
    if not judged.height == clips.height == verdicts.height:
        raise StorageError(f"{clips.height} clips have {verdicts.height} verdicts")
    done = [item for item in items if item.status == "done"]
    ill = [item for item in items if item.status == "quarantined"]
    if len(ill) != quarantine.height or len(done) + len(ill) != len(items):
        raise StorageError(
            f"{len(items)} items are {len(done)} done and {len(ill)} quarantined, "
            f"but {quarantine.height} rows are in quarantine"
        )
    hours_done = sum(item.duration_s for item in done) / 3600
    hours_ill = sum(item.duration_s for item in ill) / 3600
    kept = judged.filter("accepted")
    rejected = judged.filter(~pl.col("accepted"))
    hours_kept, hours_rejected = _hours(kept), _hours(rejected)
    silent = hours_done - hours_kept - hours_rejected
    if silent < -SLACK * max(1.0, hours_done):
        raise StorageError(
            f"{hours_done:.4f} h were processed, but {hours_kept:.4f} h are kept and "
            f"{hours_rejected:.4f} h rejected"
        )
    return Accounts(
        items=len(items),
        items_done=len(done),
        items_quarantined=len(ill),
        recordings=recordings.height,
        recordings_without_speech=recordings.filter(
            pl.col("flags").list.contains("no_speech")
        ).height,
        clips=clips.height,
        clips_kept=kept.height,
        hours_in=hours_done + hours_ill,
        hours_kept=hours_kept,
        hours_rejected=hours_rejected,
        hours_quarantined=hours_ill,
        hours_without_speech=max(0.0, silent),
        reasons=_reasons(rejected),
        quarantined=_groups(quarantine, "error_type"),
        tiers=_groups(kept, "tier"),
    )


def _hours(frame: pl.DataFrame) -> float:
    return float(frame["duration_s"].sum()) / 3600


def _groups(frame: pl.DataFrame, column: str) -> tuple[tuple[str, int, float], ...]:
    grouped = frame.group_by(column).agg(
        pl.len().alias("rows"), pl.col("duration_s").sum().fill_null(0.0) / 3600
    )
    return tuple(grouped.sort("rows", column, descending=[True, False]).rows())


def _reasons(rejected: pl.DataFrame) -> tuple[Reason, ...]:
    alone = pl.col("reasons").list.len() == 1
    hours = pl.col("duration_s") / 3600
    grouped = (
        rejected.with_columns(alone=alone)
        .explode("reasons")
        .group_by("reasons")
        .agg(
            pl.len().alias("clips"),
            hours.sum().alias("hours"),
            pl.col("alone").sum().alias("clips_alone"),
            hours.filter(pl.col("alone")).sum().alias("hours_alone"),
        )
        .sort("hours", "reasons", descending=[True, False])
        .rename({"reasons": "name"})
    )
    return tuple(Reason(**row) for row in grouped.to_dicts())


def render(accounts: Accounts, facts: Mapping[str, Any], console: Console) -> None:
    """Print the table at the end of a run.

    facts: what the run record says; `audio_s`, `run_s`, `ray_start_s`, `stage_seconds` are used.
    """
    hours = Table("", "hours", "share", "clips", title="Hours", title_justify="left")
    total = accounts.hours_in or 1.0
    rows = [
        ("in", accounts.hours_in, ""),
        ("kept", accounts.hours_kept, str(accounts.clips_kept)),
        ("rejected", accounts.hours_rejected, str(accounts.clips - accounts.clips_kept)),
        ("quarantined", accounts.hours_quarantined, ""),
        ("without speech", accounts.hours_without_speech, ""),
    ]
    for name, value, count in rows:
        hours.add_row(name, f"{value:.3f}", f"{value / total:.1%}", count)
    console.print(hours)
    if accounts.reasons:
        reasons = Table(
            *("rejected for", "clips", "hours", "clips for this alone"),
            title="Rejected (a clip may have several reasons)",
            title_justify="left",
        )
        for reason in accounts.reasons:
            reasons.add_row(
                reason.name, str(reason.clips), f"{reason.hours:.3f}", str(reason.clips_alone)
            )
        console.print(reasons)
    if accounts.quarantined:
        ill = Table("quarantined for", "items", "hours", title="Quarantine", title_justify="left")
        for name, items, length in accounts.quarantined:
            ill.add_row(name, str(items), f"{length:.3f}")
        console.print(ill)
    if accounts.recordings_without_speech:
        console.print(f"{accounts.recordings_without_speech} recordings hold no speech at all.")
    _render_seconds(facts, console)
    console.print(
        f"{accounts.items} items in = {accounts.items_done} done "
        f"+ {accounts.items_quarantined} quarantined; {accounts.clips} clips = "
        f"{accounts.clips_kept} kept + {accounts.clips - accounts.clips_kept} rejected. "
        "The books balance.",
        soft_wrap=True,
    )


def _render_seconds(facts: Mapping[str, Any], console: Console) -> None:
    if not facts.get("run_s"):
        return
    audio_s = facts["audio_s"]
    table = Table(
        *("stage", "seconds", "share", "× real time"),
        title="Compute, summed over workers",
        title_justify="left",
    )
    seconds = facts["stage_seconds"]
    total = sum(seconds.values()) or 1.0
    for stage, value in seconds.items():
        speed = f"{audio_s / value:,.0f}" if value >= 0.001 else "–"
        table.add_row(stage, f"{value:.1f}", f"{value / total:.0%}", speed)
    console.print(table)
    console.print(
        f"{audio_s / 3600:.3f} h of audio in {facts['run_s']:.1f} s: "
        f"{audio_s / facts['run_s']:.1f} audio hours per hour "
        f"(before that, Ray started in {facts['ray_start_s']:.1f} s; "
        f"opening models took {facts['worker_start_s']:.1f} s over all workers)",
        soft_wrap=True,
    )
