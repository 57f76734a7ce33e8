"""Commands that take a corpus elsewhere."""

from typing import Annotated

import typer
from rich.console import Console

from jobs.cli_options import CorpusArgument, PolicyOption
from jobs.exporting.options import ExportConfig, FormatName

app = typer.Typer()

_DEFAULTS = ExportConfig()


@app.command()
def export(
    corpus: CorpusArgument,
    to: Annotated[FormatName, typer.Option("--to", help="The format.")],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="A folder; for huggingface, webdataset, lhotse and nemo also an s3:// or gs:// uri.",
        ),
    ],
    licence: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Only recordings under this licence; with *, and repeated for several. "
            "For example 'CC-BY-*'.",
        ),
    ] = None,
    consent: Annotated[
        str,
        typer.Option(
            help="`not_refused`: what declares no consent goes out; `required`: only what permits "
            "training."
        ),
    ] = _DEFAULTS.consent,
    validation: Annotated[
        float, typer.Option(help="Share of the hours for validation.")
    ] = _DEFAULTS.validation,
    test: Annotated[float, typer.Option(help="Share of the hours for test.")] = _DEFAULTS.test,
    seed: Annotated[int, typer.Option(help="Which voices are on which side.")] = _DEFAULTS.seed,
    sample_rate: Annotated[
        int | None,
        typer.Option(help="Hertz of all audio; else each clip's own, and 24000 for qwen3-tts."),
    ] = None,
    synthetic: Annotated[
        bool, typer.Option(help="Take accepted clones along, in train alone and marked.")
    ] = True,
    policy: PolicyOption = "default",
) -> None:
    """Accepted clips in the format of another tool, split by speaker and session, with a README.

    Train, validation and test share no speaker, session or recording. Near-duplicates stay behind,
    and whose consent refuses training. The README is a dataset card and holds what the public
    summary of training content of the EU AI Act asks for. Shards appear whole or not at all: the
    same command goes on after a crash, and brings the export up to date after the corpus changed.
    """
    from jobs.run_export import run_export

    config = ExportConfig(
        licences=tuple(licence or ()),
        consent=consent,
        validation=validation,
        test=test,
        seed=seed,
        sample_rate=sample_rate,
        synthetic=synthetic,
    )
    run_export(corpus, to, out, config, policy=policy, console=Console())
