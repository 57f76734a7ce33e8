"""The command that tells generated speech from recorded speech."""

from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer()


@app.command()
def detect(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH…",
            help="Sound files, folders, globs, s3:// or gs:// uris, or corpora; as many as you "
            "like.",
            show_default=False,
        ),
    ],
) -> None:
    """Say which files carry the inaudible watermark of the clips that `voxquarry clone` makes.

    The score is in [0, 1]; from 0.3 on a file counts as marked. By accident that happens about once
    in a thousand files; 1 is a chance of one in 10^10. The mark lives through FLAC, MP3, other
    sample rates and volumes, and cuts that leave some seconds; not through much noise, nor a change
    of speed or pitch by a per cent. "No mark" is no proof that a voice is real.

    Of a corpus it checks the table synthetic, where all clips should be marked, and the recorded
    clips, where none should be, and names those that are not as they should be.

    The exit code is 0 whatever was found, and 1 when something could not be read: the table says
    what and why.
    """
    from jobs.detect import detect as listen

    if not listen(paths, Console()):
        raise typer.Exit(1)
