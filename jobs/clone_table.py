"""The tables at the end of `voxquarry clone`."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.clone import REASONS
from jobs.clone_plan import PHASE
from pipeline.worker import START


def show(facts: Mapping[str, Any], console: Console) -> None:
    """Print what became of the described clips and of their clones. facts: the run record's."""
    counts = facts["counts"]
    console.print(_clones(counts))
    if facts.get(f"{PHASE}_s"):
        console.print(_seconds(facts))
    for wording, number in counts["consents"].items():
        console.print(
            f"{number:,} recordings declare the consent {wording!r}, which says neither yes nor no "
            "to cloning: none of their voices is used.",
            style="yellow",
            markup=False,
            highlight=False,
        )
    if counts["quarantined"]:
        console.print(
            "The table quarantine says why; --retry-quarantined tries them again.", highlight=False
        )


def _clones(counts: Mapping[str, Any]) -> Table:
    table = Table("", "clips", "minutes", "CER", "cosine", title="Clones", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("described clips", f"{counts['described']:,}")
    for reason, number in counts["left_out"].items():
        table.add_row(f"not cloned: {reason} ({REASONS[reason]})", f"{number:,}")
    for name, kind in (("clones", "made"), ("[bold]accepted[/]", "accepted")):
        before = "" if kind == "made" else f"{kind}_"
        scores = (counts[f"{before}cer_mean"], counts[f"{before}cosine_mean"])
        table.add_row(
            name,
            f"{counts[kind]:,}",
            f"{counts[f'{kind}_s'] / 60:,.1f}",
            *("" if score is None else f"{score:.3f}" for score in scores),
        )
    for reason, number in counts["rejected"].items():
        table.add_row(f"rejected: {reason}", f"{number:,}")
    if counts["quarantined"]:
        table.add_row("could not be made (quarantine)", f"{counts['quarantined']:,}")
    return table


def _seconds(facts: Mapping[str, Any]) -> Table:
    """Seconds are of all attempts; the speed is of the clips that were kept."""
    audio_s = facts["audio_s"]
    table = Table(
        *("stage", "seconds of compute", "× real time"),
        title=f"This run: {audio_s / 60:,.1f} minutes of clones in {facts[f'{PHASE}_s']:,.1f} s",
        title_justify="left",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for stage, value in facts["stage_seconds"].items():
        speed = f"{audio_s / value:,.1f}" if value and stage != f"{PHASE}.{START}" else ""
        table.add_row(stage.removeprefix(f"{PHASE}."), f"{value:,.1f}", speed)
    return table
