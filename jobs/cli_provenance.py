"""Commands that tell where data come from, and that take a voice back out."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from jobs.cli_options import CorpusArgument
from schemas.errors import ConfigError

app = typer.Typer()


@app.command()
def trace(
    corpus: CorpusArgument,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="Of a clip, recording, clone or sample; a recording's uri; TARGET:REFERENCE for a "
            "pair of clips; PART:ROW for a row, such as latents/encode-….parquet:3.",
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="For machines, settings in full.")
    ] = False,
) -> None:
    """Say where something comes from: every step back to the recording and its licence.

    Names the recording with its licence and consent, the times of the clip, the runs that made it
    with their models, versions and settings, the thresholds that accepted it, the description and
    who wrote it, a clone's voice and words, the latents' AudioVAE, and the parts of a sample.
    """
    from jobs.trace_tree import show_trace

    show_trace(corpus, name, as_json=as_json, console=Console())


@app.command()
def forget(
    corpus: CorpusArgument,
    recording: Annotated[
        str | None, typer.Option("--recording", help="A recording's uri, or its id.")
    ] = None,
    speaker: Annotated[
        str | None,
        typer.Option(
            "--speaker",
            help="A speaker as the source declares it. Of recordings with others too, only that "
            "speaker's clips go.",
        ),
    ] = None,
    session: Annotated[str | None, typer.Option("--session", help="All of a session.")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="PREFIX",
            help="Recordings whose declared source, or whose uri, begins so.",
        ),
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", help="Kept with the date; name nobody in it.")
    ] = "opt-out",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go.")] = False,
) -> None:
    """Take a voice out of a corpus (opt-out), and keep it out.

    Recordings' rows, clips, texts, embeddings, references, descriptions, latents and samples go, and
    so do clones that have the voice or say its words, kept answers of language models, and the
    report. A tombstone without names stays, so that no later run takes it in again, under another
    uri neither. Recordings themselves, exports and models that were trained before are not touched.

    Ended half-way, the corpus says so to every command, and [bold]voxquarry forget CORPUS[/bold]
    completes it.
    """
    from jobs.forget import run_forget
    from jobs.forget_plan import Request

    asked = {"recording": recording, "speaker": speaker, "session": session, "source": source}
    named = [(kind, name) for kind, name in asked.items() if name is not None]
    if len(named) > 1:
        raise ConfigError("one at a time: --recording, --speaker, --session or --source")
    request = None
    if named:
        kind, name = named[0]
        request = Request(kind=kind, name=name, reason=reason)

    def agreed() -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise ConfigError("nobody is here to ask; --yes removes it without asking")
        return typer.confirm("Remove all of this? It cannot be undone.")

    done = run_forget(corpus, request, dry_run=dry_run, agreed=agreed, console=Console())
    if not done and not dry_run:
        raise typer.Exit(1)
