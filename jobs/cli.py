"""The command line. Each command is one function; what it runs lives beside it in `jobs`."""

import logging
import sys

import typer
from rich.console import Console

from jobs import cli_browse, cli_cluster, cli_data, cli_detect, cli_model, cli_synthetic
from schemas.errors import VoxquarryError

app = typer.Typer(
    name="voxquarry",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Raw recordings in any language to the training set of a text-to-speech model.\n\n"
    "Start with [bold]voxquarry run RECORDINGS --out CORPUS[/bold]; a second run of any command "
    "does only what is still to do.",
)
app.add_typer(cli_data.app)
app.add_typer(cli_browse.app)
app.add_typer(cli_synthetic.app)
app.add_typer(cli_detect.app)
app.add_typer(cli_model.app)
app.add_typer(cli_cluster.app)


def main() -> None:
    """Entry point: an error of ours is one line and exit code 1, a wrong argument 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except VoxquarryError as error:
        Console(stderr=True, soft_wrap=True).print(
            f"[bold red]{type(error).__name__}[/]: ", end="", highlight=False
        )
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
