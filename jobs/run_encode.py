"""`voxquarry encode`: judge, encode what is new, and print the table."""

from contextlib import ExitStack
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from jobs.clone_plan import still_allowed
from jobs.encode import PHASE, clips_to_encode, encode_phase, with_synthetic
from jobs.judge import judge_corpus
from jobs.judge_synthetic import accepted_synthetic
from jobs.run_annotate import accepted_clips
from jobs.running import Working, recorded
from jobs.sequence_reader import hash_of_vae
from jobs.settings import Settings
from pipeline.derived import due, units_of
from pipeline.policy import load_policy
from pipeline.profile import as_plain
from pipeline.storage import Corpus
from schemas.arrow import LATENTS
from schemas.errors import ConfigError


def run_encode(
    root: str, checkpoint: str, config: Settings, *, policy: str, retry: bool, console: Console
) -> None:
    """Encode the accepted clips, recorded and generated, that have no latent of this AudioVAE.

    Raises `VoxquarryError`.
    """
    load_policy(policy)
    corpus = Corpus(root)
    if not corpus.exists():
        raise ConfigError(f"{root} holds no corpus; `voxquarry run SOURCE --out {root}` makes one")
    with console.status("Opening the AudioVAE …"):
        vae = hash_of_vae(checkpoint)
    settings = {name: as_plain(getattr(config, name)) for name in ("encode", "latents")}
    known: dict[str, Any] = {"checkpoint": checkpoint, "vae_hash": vae}
    with recorded(corpus, PHASE, settings, console, **known) as record, ExitStack() as ray:
        run = Working(
            corpus=corpus, engine=config.engine, console=console, ray=ray, run=record.name
        )
        with console.status("Judging the clips …"):
            judge_corpus(root, policy, console, quiet=True)
            clips = accepted_clips(corpus)
        if clips.is_empty():
            raise ConfigError(f"{root} has no accepted clips to encode")
        made = still_allowed(corpus, accepted_synthetic(corpus), config.clone)
        clips = with_synthetic(clips, made)
        items = clips_to_encode(corpus, clips, vae, config.latents)
        todo = due(items, corpus.latest_items(PHASE), retry=retry)
        phase = encode_phase(config.latents, checkpoint, vae, config.engine.placement)
        units = units_of(todo, int(config.encode.unit_s))
        run.facts["audio_s"] = round(run.work(phase, units, "clips"), 3)
        facts = {**run.facts, "counts": books(corpus, clips, vae)}
        record.finish("finished" if run.units else "nothing to do", **facts)
    if not run.units:
        console.print(f"Nothing to do: the clips of {root} are encoded already.")
    show(facts, console)


def books(corpus: Corpus, clips: pl.DataFrame, vae: str) -> dict[str, Any]:
    """Counts over the accepted clips as they stand. clips: as `with_synthetic` joins them."""
    columns = ["clip_id", "frames", "channels", "vae_hash"]
    latents = corpus.read_standing(LATENTS, PHASE, "clip_id", columns)
    mine = latents.filter(pl.col("vae_hash") == vae)
    columns = ["clip_id", "duration_s", "generation"]
    encoded = clips.select(columns).join(mine, on="clip_id")
    made = pl.col("generation").is_not_null()
    ill = corpus.read_quarantine().filter(pl.col("phase") == PHASE)
    return {
        "accepted": clips.height,
        "accepted_synthetic": clips.filter(made).height,
        "encoded": encoded.height,
        "encoded_synthetic": encoded.filter(made).height,
        "hours": round(float(encoded["duration_s"].sum()) / 3600, 6),
        "frames": int(encoded["frames"].sum()),
        "megabytes": round(float((encoded["frames"] * encoded["channels"]).sum()) * 2 / 1e6, 3),
        "quarantined": ill.join(clips, left_on="unit_id", right_on="clip_id", how="semi").height,
    }


def show(facts: dict[str, Any], console: Console) -> None:
    """Print what became of the clips. facts: the run record's."""
    counts = facts["counts"]
    table = Table("", "", title="Latents", title_justify="left", show_header=False)
    table.columns[1].justify = "right"
    table.add_row("accepted clips", f"{counts['accepted']:,}")
    if counts["accepted_synthetic"]:
        table.add_row("  of which synthetic", f"{counts['accepted_synthetic']:,}")
    table.add_row("[bold]encoded[/]", f"{counts['encoded']:,}")
    if counts["accepted_synthetic"]:
        table.add_row("  of which synthetic", f"{counts['encoded_synthetic']:,}")
    table.add_row("hours", f"{counts['hours']:,.2f}")
    table.add_row("frames", f"{counts['frames']:,}")
    table.add_row("megabytes", f"{counts['megabytes']:,.1f}")
    if counts["quarantined"]:
        table.add_row("could not be encoded (quarantine)", f"{counts['quarantined']:,}")
    console.print(table)
    if facts.get(f"{PHASE}_s"):
        seconds = Table(
            *("stage", "seconds of compute", "× real time"),
            title=f"This run: {facts['audio_s'] / 3600:,.2f} hours in {facts[f'{PHASE}_s']:,.1f} s",
            title_justify="left",
        )
        for column in seconds.columns[1:]:
            column.justify = "right"
        for stage, value in facts["stage_seconds"].items():
            speed = f"{facts['audio_s'] / value:,.0f}" if value else ""
            seconds.add_row(stage.removeprefix(f"{PHASE}."), f"{value:,.1f}", speed)
        console.print(seconds)
    if counts["quarantined"]:
        console.print(
            "The table quarantine says why; --retry-quarantined tries them again.", highlight=False
        )
