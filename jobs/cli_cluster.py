"""Commands for a Ray cluster."""

from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def submit(
    context: typer.Context,
    command: Annotated[
        str,
        typer.Argument(help="Any other command, with its arguments: curate s3://… --out s3://…"),
    ],
    address: Annotated[
        str,
        typer.Option(
            "--address",
            envvar="RAY_API_SERVER_ADDRESS",
            help="Of the cluster's dashboard, such as http://head:8265.",
        ),
    ],
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the log, and end with its exit code.")
    ] = True,
) -> None:
    """Run a command as a job on a Ray cluster.

    Its log is shown here and its exit code is this command's. Ctrl-C leaves the job running. YAML
    files among the arguments are taken along; voxquarry must be installed on the cluster, and source
    and corpus be where it reaches them.
    """
    from jobs.submit import submit as start

    raise typer.Exit(start([command, *context.args], address, wait=wait, console=Console()))
