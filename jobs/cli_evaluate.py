"""The command that compares checkpoints."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from jobs.cli_options import ProfileOption, SetOption
from pipeline.profile import load_profile

app = typer.Typer()


@app.command()
def evaluate(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT…",
            help="VoxCPM checkpoints, side by side: folders, or repositories on the model hub.",
            show_default=False,
        ),
    ],
    on: Annotated[
        list[str],
        typer.Option(
            "--on",
            help="A test list (utt_id|prompt_text|prompt_wav|text[|truth_wav], a line each, wavs "
            "below its folder), or a corpus for its held-out samples; may be repeated.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The evaluation's folder: figures and speech.")
    ],
    language: Annotated[
        str | None,
        typer.Option(
            help="Of the test lists; else each has that of its folder, as in en/meta.lst."
        ),
    ] = None,
    profile: ProfileOption = "embedded",
    settings: SetOption = None,
) -> None:
    """Compare checkpoints on test lists or on the held-out samples of a corpus.

    WER (CER where no spaces part words), likeness to the voice that was given, DNSMOS and the
    real-time factor, by set and language; how far descriptions were followed, as the experts hear
    it; and what the AudioVAE leaves of the recordings: mel distance, STOI, PESQ. All with bootstrap
    intervals. Where texts were recorded, the recordings are judged beside the checkpoints.

    Writes results.json, results.md, a row for each utterance (utterances.parquet) and each recording
    (recordings.parquet), and keeps the speech. Run again, it does what is missing; the same seed
    (evaluate.seed) gives the same speech. Lines that cannot be used are named, and the rest goes on.
    Judges are those of the profile: transcription.model, speaker.model, dnsmos.model, experts.
    """
    from jobs.run_evaluate import run_evaluate
    from jobs.settings import Settings

    config = load_profile(profile, settings or [], Settings)
    run_evaluate(checkpoints, on, out, config, language=language, console=Console())
