"""The command line. Each command is one function; what it runs lives beside it in `jobs`."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.profile import load_profile, shipped_profiles
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
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would run, on how many hours, and for how long."),
]
RetryOption = Annotated[
    bool,
    typer.Option("--retry-quarantined", help="Try again what earlier runs put into quarantine."),
]


@app.command()
def run(
    source: SourceArgument,
    out: OutOption,
    profile: ProfileOption = "embedded",
    policy: PolicyOption = "default",
    settings: SetOption = None,
    dry_run: DryRunOption = False,
    retry_quarantined: RetryOption = False,
) -> None:
    """Everything: curate, filter, report.

    Ends with the table of hours and an HTML report in the corpus. Killed at any moment, the same
    command goes on where it was.
    """
    _curate(source, out, profile, settings, policy, dry_run, retry_quarantined)
    if not dry_run:
        _report(out, policy, None)


@app.command()
def curate(
    source: SourceArgument,
    out: OutOption,
    profile: ProfileOption = "embedded",
    policy: PolicyOption = "default",
    settings: SetOption = None,
    dry_run: DryRunOption = False,
    retry_quarantined: RetryOption = False,
) -> None:
    """Recordings to measured, transcribed clips.

    Writes the tables recordings, clips and quarantine, and the verdicts of the policy.
    """
    _curate(source, out, profile, settings, policy, dry_run, retry_quarantined)


def _curate(
    source: str,
    out: str,
    profile: str,
    settings: list[str] | None,
    policy: str,
    dry_run: bool,
    retry_quarantined: bool,
) -> None:
    from jobs.run_curate import explain, run_curate
    from jobs.settings import Settings

    config = load_profile(profile, settings or [], Settings)
    if dry_run:
        explain(source, out, config, Console())
        return
    run_curate(source, out, config, policy=policy, retry=retry_quarantined, console=Console())


@app.command("filter")
def filter_(corpus: CorpusArgument, policy: PolicyOption = "default") -> None:
    """Judge the clips anew by a policy: seconds, and no model runs.

    Writes the table verdicts for that policy; the scores stay as they are.
    """
    from jobs.judge import judge_corpus

    judge_corpus(corpus, policy, Console())


@app.command()
def report(
    corpus: CorpusArgument,
    policy: PolicyOption = "default",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The HTML file; CORPUS/report.html.")
    ] = None,
) -> None:
    """One HTML file to read and to listen to: the funnel, the scores, samples of clips."""
    _report(corpus, policy, output)


def _report(corpus: str, policy: str, output: Path | None) -> None:
    from jobs.judge import report_corpus

    report_corpus(corpus, policy, output, Console())


@app.command()
def mine(
    corpus: CorpusArgument,
    profile: ProfileOption = "embedded",
    policy: PolicyOption = "default",
    settings: SetOption = None,
    retry_quarantined: RetryOption = False,
) -> None:
    """Find, for every accepted clip, clips of the same voice in its session.

    Writes the tables references (at most mine.references_per_target a clip, clean, never the clip
    directly before it), sessions, and duplicates (clips that repeat others, which take no part).
    How alike two voices must be is calibrated per speaker encoder; [bold]voxquarry doctor
    --calibrate CORPUS[/bold] does it on your own recordings. Another policy mines only the
    sessions whose accepted clips it changes.
    """
    from jobs.run_mine import run_mine
    from jobs.settings import Settings

    config = load_profile(profile, settings or [], Settings)
    run_mine(corpus, config, policy=policy, retry=retry_quarantined, console=Console())


@app.command()
def annotate(
    corpus: CorpusArgument,
    profile: ProfileOption = "embedded",
    policy: PolicyOption = "default",
    settings: SetOption = None,
    relevel: Annotated[
        bool,
        typer.Option(
            "--relevel",
            help="Find anew what is high or low in this corpus; the first run's levels hold until "
            "then, so that words keep their meaning as the corpus grows.",
        ),
    ] = False,
    retry_quarantined: RetryOption = False,
) -> None:
    """Measure what each accepted clip's voice does, and describe the expressive ones in words.

    Writes the tables attributes (pitch, loudness, timbre, gender, age …), levels and traits (where
    a clip stands in its corpus), and descriptions. A grammar writes them from what was measured;
    with chat.url an audio language model behind any OpenAI-compatible endpoint does, at most for
    chat.ceiling, its key taken from the environment. What a measurement or an expert contradicts
    is taken out of a description. annotate.share is how much of the corpus is described.
    """
    from jobs.run_annotate import run_annotate
    from jobs.settings import Settings

    config = load_profile(profile, settings or [], Settings)
    run_annotate(
        corpus,
        config,
        policy=policy,
        relevel=relevel,
        retry=retry_quarantined,
        console=Console(),
    )


@app.command()
def speak(
    text: Annotated[str, typer.Option("--text", "-t", help="What to say.")],
    checkpoint: Annotated[
        str,
        typer.Option(help="A VoxCPM checkpoint: its folder, or a repository on the model hub."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The sound file: .wav, .flac …")],
    describe: Annotated[
        str | None,
        typer.Option(
            help="The voice or the manner in words, such as 'An old woman, whispering' "
            "(VoxCPM2 alone)."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="A recording of the voice to use, 0.5 s to 5 min (VoxCPM2 alone)."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="A recording that the speech continues.")
    ] = None,
    prompt_text: Annotated[
        str | None,
        typer.Option(help="What is said in --prompt; begin --text with a space where words part."),
    ] = None,
    lora: Annotated[Path | None, typer.Option(help="A folder with adapters.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same speech.")] = None,
    steps: Annotated[int, typer.Option(help="Steps from noise to speech.")] = 10,
    cfg: Annotated[float, typer.Option(help="How closely to follow text and voice.")] = 2.0,
) -> None:
    """Speak a text with a VoxCPM checkpoint.

    Alone it finds a voice by itself; --describe designs one, --reference clones one (both:
    that voice, in that manner), --prompt with --prompt-text goes on where a recording ends.
    """
    from jobs.speak import SpeakConfig
    from jobs.speak import speak as speak_once

    config = SpeakConfig(
        checkpoint=checkpoint,
        text=text,
        output=output,
        describe=describe,
        reference=reference,
        prompt=prompt,
        prompt_text=prompt_text,
        lora=lora,
        seed=seed,
        num_steps=steps,
        cfg=cfg,
    )
    speak_once(config, Console())


@app.command()
def doctor(
    profile: ProfileOption = "embedded",
    settings: SetOption = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="CORPUS",
            help="Instead, measure on this corpus from which cosine on two clips are one voice, "
            "and keep it there for `voxquarry mine`. Its recordings must declare their speakers.",
        ),
    ] = None,
) -> None:
    """What is installed, what each model resolves to, free disk, GPUs."""
    from jobs.settings import Settings

    config = load_profile(profile, settings or [], Settings)
    if calibrate is not None:
        from jobs.voice_thresholds import calibrate as calibrate_on

        calibrate_on(calibrate, config.mine, Console())
        return
    from jobs.doctor import examine

    healthy = examine(config, Console())
    if not healthy:
        raise typer.Exit(1)


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
