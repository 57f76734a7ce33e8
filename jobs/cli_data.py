"""Commands that make and judge a corpus."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from jobs.cli_options import (
    CheckpointOption,
    CorpusArgument,
    DryRunOption,
    OutOption,
    PolicyOption,
    ProfileOption,
    RetryOption,
    SetOption,
    SourceArgument,
    SyntheticPolicyOption,
)
from pipeline.profile import load_profile

app = typer.Typer()


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


@app.command()
def ingest(
    source: SourceArgument,
    language: Annotated[
        str,
        typer.Option(
            "--language",
            "-l",
            help="ISO 639 code, such as fr, or with a dialect zh-sichuan: of what declares none.",
        ),
    ],
    out: OutOption,
    checkpoint: CheckpointOption = "nano",
    profile: ProfileOption = "embedded",
    policy: PolicyOption = "default",
    settings: SetOption = None,
    retry_quarantined: RetryOption = False,
) -> None:
    """A new language, from recordings to training samples: curate, mine, annotate, encode, compose.

    Recordings that declare another language are left out and named. Where no recogniser knows the
    language, given transcripts are placed by a CTC model (ctc_alignment.model, a folder or
    facebook/mms-1b-all), and what has no transcript stays in the corpus without text. Ends with the
    hours behind each gate, the balance of languages, and how to mix them. Killed at any moment, the
    same command goes on where it was.
    """
    from jobs.run_ingest import run_ingest
    from jobs.settings import Settings

    run_ingest(
        source,
        out,
        language,
        load_profile(profile, settings or [], Settings),
        checkpoint=checkpoint,
        policy=policy,
        retry=retry_quarantined,
        console=Console(),
    )


@app.command("filter")
def filter_(
    corpus: CorpusArgument,
    policy: PolicyOption = "default",
    synthetic_policy: SyntheticPolicyOption = "synthetic",
) -> None:
    """Judge the clips anew by a policy: seconds, and no model runs.

    Writes the table verdicts for that policy; the scores stay as they are. Clones are judged by a
    policy of their own, into synthetic_verdicts; whose voice may not be used any more is rejected.
    """
    from jobs.judge import judge_corpus
    from jobs.judge_synthetic import refilter

    judge_corpus(corpus, policy, Console())
    refilter(corpus, synthetic_policy, Console())


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
