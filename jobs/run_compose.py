"""`voxquarry compose`: join what the corpus knows into samples, weigh them, and print the tables."""

import json
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jobs.compose import COMPOSING_VERSION, PHASE
from jobs.compose_columns import pieces_of
from jobs.compose_inputs import Inputs, take_inputs
from jobs.compose_rows import composed
from jobs.compose_table import books, show
from jobs.judge import judge_corpus
from jobs.running import recorded
from jobs.sequence_reader import Reader, reader_of
from jobs.settings import Settings
from pipeline.policy import load_policy
from pipeline.profile import as_plain
from pipeline.storage import Corpus
from schemas.arrow import SAMPLES
from schemas.errors import ConfigError, StorageError
from schemas.ids import content_id


def run_compose(
    root: str, checkpoint: str, config: Settings, *, policy: str, console: Console
) -> None:
    """Compose the samples of a corpus for a checkpoint. Raises `VoxquarryError`."""
    load_policy(policy)
    corpus = Corpus(root)
    if not corpus.exists():
        raise ConfigError(f"{root} holds no corpus; `voxquarry run SOURCE --out {root}` makes one")
    with console.status("Opening the checkpoint …"):
        reader = reader_of(checkpoint)
    settings = {"compose": as_plain(config.compose)}
    known: dict[str, Any] = {
        "checkpoint": checkpoint,
        "vae_hash": reader.vae_hash,
        "tokenizer_hash": reader.tokenizer_hash,
    }
    with recorded(corpus, PHASE, settings, console, **known) as record:
        with console.status("Judging the clips …"):
            judge_corpus(root, policy, console, quiet=True)
        with console.status("Joining clips, latents, references and descriptions …"):
            inputs = take_inputs(
                corpus,
                reader.vae_hash,
                reader.frame_s,
                config.compose.continuation,
                config.mine,
                config.clone,
            )
            fingerprint = _fingerprint(inputs, reader, settings)
        before = _composed_before(corpus)
        if before is not None and before["fingerprint"] == fingerprint:
            facts = {"counts": before["counts"]}
            record.finish("nothing to do", **facts)
        else:
            made_by = record.name
            counts = _compose(corpus, inputs, reader, config, fingerprint, made_by, console)
            facts = {"counts": counts}
            record.finish("finished", **facts)
    if record.values["status"] == "nothing to do":
        console.print(f"Nothing to do: the samples of {root} are composed already.")
    show(facts["counts"], console)


def _compose(
    corpus: Corpus,
    inputs: Inputs,
    reader: Reader,
    config: Settings,
    fingerprint: str,
    run: str,
    console: Console,
) -> dict[str, Any]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        reading = progress.add_task("texts to tokens", total=None)
        made = composed(
            inputs,
            reader,
            config.compose,
            lambda done, total: progress.update(reading, completed=done, total=total),
        )
        if not made.rows.clip.size:
            why = ", ".join(f"{number} {reason}" for reason, number in made.left_out.items())
            raise ConfigError(f"no clip of {corpus.root} makes a sample: {why}")
        counts = books(made, config.compose, reader)
        writing = progress.add_task("samples", total=made.rows.clip.size)

        def told() -> Any:
            for piece in pieces_of(made):
                yield piece
                progress.update(writing, advance=piece.num_rows)

        corpus.write_version(
            PHASE,
            SAMPLES,
            fingerprint,
            told(),
            fingerprint=fingerprint,
            run=run,
            vae_hash=reader.vae_hash,
            tokenizer_hash=reader.tokenizer_hash,
            patch_size=reader.patch_size,
            counts=counts,
        )
    return counts


def _composed_before(corpus: Corpus) -> dict[str, Any] | None:
    """The marker of the samples that stand; None where there are none, or they are lost."""
    before: dict[str, Any] | None = corpus.find_json(f"_commits/{PHASE}/current.json")
    try:
        return before if corpus.parts(SAMPLES.name) else None
    except StorageError:
        return None


def _fingerprint(inputs: Inputs, reader: Reader, settings: dict[str, Any]) -> str:
    return content_id(
        COMPOSING_VERSION,
        json.dumps(settings, sort_keys=True),
        reader.vae_hash,
        reader.tokenizer_hash,
        reader.patch_size,
        reader.max_positions,
        int(reader.knows_voices),
        json.dumps(sorted(inputs.left_out.items())),
        inputs.fingerprint(),
    )
