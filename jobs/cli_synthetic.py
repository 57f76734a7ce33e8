"""Commands that make generated clips."""

import typer
from rich.console import Console

from jobs.cli_options import (
    CheckpointOption,
    CorpusArgument,
    PolicyOption,
    ProfileOption,
    RetryOption,
    SetOption,
    SyntheticPolicyOption,
)
from pipeline.profile import load_profile

app = typer.Typer()


@app.command()
def clone(
    corpus: CorpusArgument,
    checkpoint: CheckpointOption,
    profile: ProfileOption = "embedded",
    policy: PolicyOption = "default",
    synthetic_policy: SyntheticPolicyOption = "synthetic",
    settings: SetOption = None,
    retry_quarantined: RetryOption = False,
) -> None:
    """Let each described voice say what somebody else said, so that descriptions leak no content.

    Writes the table synthetic, and the verdicts of its policy. A described clip and its references
    are the voice, its description is the control, and the text is of another session and unrelated
    in meaning. speaking.candidates attempts are made at each clip and the best one is kept: the
    profile's recogniser, speaker encoder and DNSMOS judge it as it is stored, with an inaudible
    watermark in it. A voice whose recording's consent forbids cloning is never used; with
    clone.consent=required only one whose consent permits it. clone.unit_s is how much speech is
    committed at once, speaking.device where the model runs. Another checkpoint, or other settings
    of how it speaks, make all clones anew.
    """
    from jobs.run_clone import run_clone
    from jobs.settings import Settings

    config = load_profile(profile, settings or [], Settings)
    run_clone(
        corpus,
        checkpoint,
        config,
        policy=policy,
        synthetic_policy=synthetic_policy,
        retry=retry_quarantined,
        console=Console(),
    )
