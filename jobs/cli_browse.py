"""The command that opens a corpus in a browser."""

from typing import Annotated

import typer
from rich.console import Console

from jobs.cli_options import CorpusArgument

app = typer.Typer()


@app.command()
def browse(
    corpus: CorpusArgument,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of this machine; 0 takes any that is free.")
    ] = 8350,
) -> None:
    """A local page to search, filter, sort, hear and judge the clips and their clones.

    Only browsers of this machine reach it. Clips that you mark as bad are kept in the table
    reviews, and [bold]voxquarry filter[/bold] rejects them as reviewed_bad. Ctrl-C ends it.
    """
    from jobs.run_browse import run_browse

    run_browse(corpus, port, Console())
