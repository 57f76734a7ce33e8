"""The tables at the end of `voxquarry compose`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from jobs.compose import ComposeConfig
from jobs.compose_rows import Composition
from jobs.sequence_reader import Reader
from schemas.samples import LAYOUTS, STAGES
from stages.curriculum import REFERENCE_AUDIO, reference_share, shares_of

REASONS = {
    "no_latent": "in quarantine, or not encoded yet",
    "no_text": "nothing is said in it, or nobody knows what",
    "near_duplicate": "another clip of its group is the target",
    "unspeakable": "the tokenizer knows no part of its text",
    "fits_no_stage": "too long or too short for every stage",
}
SYNTHETIC_REASONS = {
    **{name: REASONS[name] for name in ("no_latent", "no_text", "unspeakable")},
    "withdrawn": "its voice may not be cloned any more, or is described otherwise now",
    "no_voice": "the clip whose voice it has has no latent",
    "held_out": "its voice or its words are kept for validation",
    "no_control": "the checkpoint reads no descriptions",
    "fits_no_stage": "too long or too short for every stage that takes generated clips",
}
_LANGUAGES_SHOWN = 12


def books(made: Composition, config: ComposeConfig, reader: Reader) -> dict[str, Any]:
    """What was composed, for the run record and the marker."""
    rows, clips = made.rows, made.inputs.clips
    targets = np.unique(rows.clip)
    trained = ~made.held[rows.clip]
    seconds, synthetic = clips["duration_s"].to_numpy(), clips["synthetic"].to_numpy()
    languages = clips["language"].fill_null("?").gather(rows.clip)
    stages = []
    for number in range(len(STAGES)):
        weights = np.where(trained, made.weights[:, number], 0.0)
        shares = shares_of(rows.layout, weights)
        by_language = pl.DataFrame({"language": languages, "weight": weights})
        totals = by_language.group_by("language").agg(pl.col("weight").sum())
        some = weights > 0
        stages.append(
            {
                "clips": int(np.unique(rows.clip[some]).size),
                "layouts": dict(zip(LAYOUTS, (round(s, 6) for s in shares.tolist()), strict=True)),
                "reference_audio": round(reference_share(shares), 6),
                "synthetic": round(
                    float(weights[synthetic[rows.clip]].sum()) / max(weights.sum(), 1e-12), 6
                ),
                "wants_reference_audio": reader.knows_voices
                and bool(np.array(config.stages[number].shares)[[2, 3]].any()),
                "hours": round(float((weights * seconds[rows.clip]).sum()) / 3600, 6),
                "languages": {
                    name: round(weight / max(weights.sum(), 1e-12), 6)
                    for name, weight in totals.sort("weight", descending=True).iter_rows()
                },
            }
        )
    spread = np.percentile(rows.positions, (50, 90, 99, 100)).round().astype(int).tolist()
    natural = clips["language"].fill_null("?").gather(targets).value_counts()
    return {
        "samples": int(rows.clip.size),
        "targets": int(targets.size),
        "hours": round(float(seconds[targets].sum()) / 3600, 6),
        "validation_targets": int(made.held[targets].sum()),
        "validation_samples": int((~trained).sum()),
        "rows": {
            name: int(count)
            for name, count in zip(
                LAYOUTS, np.bincount(rows.layout, minlength=len(LAYOUTS)), strict=True
            )
        },
        "joined_continuations": int((made.joins[rows.clip] & (rows.layout == 4)).sum()),
        "stages": stages,
        "languages": {
            name: round(count / targets.size, 6)
            for name, count in natural.sort("count").iter_rows()
        },
        "left_out": dict(made.left_out.most_common()),
        "synthetic": {
            "targets": int(synthetic[targets].sum()),
            "samples": int(synthetic[rows.clip].sum()),
            "hours": round(float((seconds * synthetic)[targets].sum()) / 3600, 6),
            "left_out": dict(made.synthetic_left_out.most_common()),
        },
        "positions": dict(zip(("p50", "p90", "p99", "max"), spread, strict=True)),
        "tokens": int(made.tokens.sum()),
    }


def show(counts: Mapping[str, Any], console: Console) -> None:
    """Print how the samples are mixed, in which languages, and what was left out."""
    stages = counts["stages"]
    table = Table(
        *("layout", "samples", *(f"stage {number}" for number in STAGES)),
        title="Samples, and each layout's share of an epoch",
        title_justify="left",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name in LAYOUTS:
        shares = (f"{stage['layouts'][name]:.1%}" for stage in stages)
        table.add_row(name, f"{counts['rows'][name]:,}", *shares)
    table.add_section()
    table.add_row("reference audio", "", *(f"{stage['reference_audio']:.1%}" for stage in stages))
    synthetic = counts["synthetic"]
    if synthetic["targets"] or synthetic["left_out"]:
        shares = (f"{stage['synthetic']:.1%}" for stage in stages)
        table.add_row("synthetic", f"{synthetic['samples']:,}", *shares)
    table.add_row("clips", f"{counts['targets']:,}", *(f"{stage['clips']:,}" for stage in stages))
    hours = (f"{stage['hours']:,.2f}" for stage in stages)
    table.add_row("hours of an epoch", f"{counts['hours']:,.2f}", *hours)
    console.print(table)
    _show_languages(counts, console)
    _show_left_out(counts["left_out"], REASONS, "Accepted clips without a sample", console)
    _show_left_out(
        synthetic["left_out"],
        SYNTHETIC_REASONS,
        "Accepted synthetic clips without a sample",
        console,
    )
    generated = f" ({synthetic['targets']:,} of them synthetic)" if synthetic["targets"] else ""
    spread = ", ".join(f"{name} {value:,}" for name, value in counts["positions"].items())
    console.print(
        f"{counts['samples']:,} samples of {counts['targets']:,} clips{generated}, of which "
        f"{counts['validation_targets']:,} are kept for validation; positions: {spread}.",
        highlight=False,
    )
    low, high = REFERENCE_AUDIO
    for number, stage in zip(STAGES, stages, strict=True):
        share = stage["reference_audio"]
        if stage["wants_reference_audio"] and stage["clips"] and not low <= share <= high:
            console.print(
                f"[yellow]Stage {number} has reference audio on {share:.0%} of its samples, not on "
                f"{low:.0%} to {high:.0%}:[/] `voxquarry mine` says why clips have no reference.",
                highlight=False,
            )


def _show_left_out(
    left_out: Mapping[str, int], reasons: Mapping[str, str], title: str, console: Console
) -> None:
    if not left_out:
        return
    table = Table("left out", "clips", title=title, title_justify="left")
    table.columns[1].justify = "right"
    for reason, number in left_out.items():
        table.add_row(f"{reason} ({reasons[reason]})", f"{number:,}")
    console.print(table)


def _show_languages(counts: Mapping[str, Any], console: Console) -> None:
    table = Table(
        *("language", "of the clips", *(f"stage {number}" for number in STAGES)),
        title="Languages",
        title_justify="left",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    ordered = sorted(counts["languages"].items(), key=lambda pair: (-pair[1], pair[0]))
    for name, share in ordered[:_LANGUAGES_SHOWN]:
        seen = (f"{stage['languages'].get(name, 0.0):.1%}" for stage in counts["stages"])
        table.add_row(name, f"{share:.1%}", *seen)
    if len(ordered) > _LANGUAGES_SHOWN:
        table.add_row(f"and {len(ordered) - _LANGUAGES_SHOWN} more", "", *("" for _ in STAGES))
    console.print(table)
