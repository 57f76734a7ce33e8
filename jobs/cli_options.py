"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from pipeline.profile import shipped_profiles

SourceArgument = Annotated[
    str,
    typer.Argument(
        help="A folder, a glob, an s3:// or gs:// prefix, or a manifest (.csv, .jsonl, .parquet "
        "with the column uri, and optionally session_id, speaker, language, licence, consent, "
        "source, transcript)."
    ),
]
OutOption = Annotated[
    str, typer.Option("--out", "-o", help="The corpus: a folder, s3:// or gs:// uri.")
]
CorpusArgument = Annotated[str, typer.Argument(help="A corpus: a folder, s3:// or gs:// uri.")]
ProfileOption = Annotated[
    str,
    typer.Option(
        "--profile",
        "-p",
        help=f"Settings: {', '.join(shipped_profiles())}, or a YAML file "
        "(with `extends: NAME` it only names what differs).",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="STAGE.FIELD=VALUE",
        help="Override one setting; may be repeated. For example segmentation.max_s=60.",
    ),
]
PolicyOption = Annotated[
    str,
    typer.Option("--policy", help="Filter policy: `default`, or a YAML file with rules."),
]
SyntheticPolicyOption = Annotated[
    str,
    typer.Option(
        "--synthetic-policy", help="For generated clips: `synthetic`, or a YAML file with rules."
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would run, on how many hours, and for how long."),
]
RetryOption = Annotated[
    bool,
    typer.Option("--retry-quarantined", help="Try again what earlier runs put into quarantine."),
]

CheckpointOption = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        help="A VoxCPM checkpoint: its folder, or a repository on the model hub.",
    ),
]
