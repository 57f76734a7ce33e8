"""Commands that make, train and use a model."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from jobs.cli_options import (
    CheckpointOption,
    CorpusArgument,
    PolicyOption,
    ProfileOption,
    RetryOption,
    SetOption,
)
from pipeline.profile import load_profile

INTERRUPTED = 143
"""Exit code of a training that a signal ended after a save: as shells tell of SIGTERM."""

app = typer.Typer()


@app.command()
def init(
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint: a new folder.")],
    size: Annotated[
        str,
        typer.Option(help="nano (11 M parameters, for a few CPU cores), 0.5B or 2B (as released)."),
    ] = "nano",
    corpus: Annotated[
        str | None, typer.Option(help="Learn the tokenizer from the texts of this corpus.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Take the tokenizer of this checkpoint.")
    ] = None,
    tslm: Annotated[
        str | None,
        typer.Option(
            help="Take the semantic language model, and its tokenizer, from this MiniCPM-4."
        ),
    ] = None,
    vae: Annotated[
        str | None, typer.Option(help="Take the AudioVAE of this checkpoint; else it is random.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed, the same weights.")] = 0,
) -> None:
    """Make a checkpoint to start from, in the layout of the releases.

    Weights are random, save what --tslm and --vae bring. A random AudioVAE has to be trained
    ([bold]voxquarry train-vae[/bold]) before its latents mean anything. To fine-tune a released
    checkpoint nothing has to be made: encode, compose and train take its folder.
    """
    from jobs.init import InitConfig
    from jobs.init import init as make

    config = InitConfig(
        size=size, out=out, corpus=corpus, tokenizer=tokenizer, tslm=tslm, vae=vae, seed=seed
    )
    make(config, Console())


@app.command()
def encode(
    corpus: CorpusArgument,
    checkpoint: CheckpointOption,
    profile: ProfileOption = "embedded",
    policy: PolicyOption = "default",
    settings: SetOption = None,
    retry_quarantined: RetryOption = False,
) -> None:
    """Make the AudioVAE latents of the accepted clips: what a model trains on.

    Clips that [bold]voxquarry clone[/bold] made and its policy accepts are encoded beside the
    recorded ones, watermark and all. Writes the table latents, in float16. Only the AudioVAE of the
    checkpoint is opened; with another one all clips are encoded anew, and latents of two AudioVAEs
    never mix. encode.unit_s is how much audio is committed at once, latents.device where the
    AudioVAE runs.
    """
    from jobs.run_encode import run_encode
    from jobs.settings import Settings

    config = load_profile(profile, settings or [], Settings)
    run_encode(
        corpus, checkpoint, config, policy=policy, retry=retry_quarantined, console=Console()
    )


@app.command()
def compose(
    corpus: CorpusArgument,
    checkpoint: CheckpointOption,
    profile: ProfileOption = "embedded",
    policy: PolicyOption = "default",
    settings: SetOption = None,
) -> None:
    """Make training sequences of the encoded clips, and say how often each stage sees them.

    Writes the table samples: text, description and text, a reference's voice, both, and
    continuations, which cut a clip at a pause or join two neighbours. compose.stage_1 to stage_3
    hold the curriculum: lengths, shares of the layouts (compose.stage_2.reference=0.4), and how
    flat languages and sources are (compose.stage_3.language_temperature). Sequence lengths are
    the checkpoint's. A share compose.validation_share of the clips is kept from training. Run it
    again after any other command: it makes all samples anew if anything changed.

    Accepted synthetic clips are marked as such and come on top, with their description alone or
    with a recorded voice: at most compose.stage_2.synthetic (0.3) of what a stage sees, and of each
    language; 0 leaves them out. What would tell of validation's voices or words makes no sample.
    """
    from jobs.run_compose import run_compose
    from jobs.settings import Settings

    config = load_profile(profile, settings or [], Settings)
    run_compose(corpus, checkpoint, config, policy=policy, console=Console())


@app.command("train-vae")
def train_vae(
    corpus: CorpusArgument,
    checkpoint: Annotated[
        str,
        typer.Option(
            help="The checkpoint whose AudioVAE is trained: its folder, or a repository on the "
            "model hub. `voxquarry init` makes one to start from."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="The checkpoint with the trained AudioVAE: a new folder."),
    ],
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            "-r",
            help="Settings: vae (the published ones, for a GPU), vae-nano (for a few CPU cores), or "
            "a YAML file (with `extends: NAME` it only names what differs).",
        ),
    ] = "vae",
    policy: PolicyOption = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="GROUP.FIELD=VALUE",
            help="Override one setting of mel, discriminators, loss, training or segments; may be "
            "repeated. For example training.steps=20000.",
        ),
    ] = None,
) -> None:
    """Train the AudioVAE of a checkpoint on the accepted clips.

    It hears at its encoder's rate and is compared with the clip at its decoder's: by mel
    spectrograms, and from step training.adversarial_from on by discriminators that learn beside it.
    A decoder that can be told a sample rate is told that of each recording. One process, on the GPU
    where there is one.

    OUT is the checkpoint with the AudioVAE that did best on held-out clips; OUT.training holds the
    state, the logs and the scores (mel distance, STOI, PESQ). Killed at any moment, the same
    command goes on where it was; SIGTERM and Ctrl-C save first. A new AudioVAE makes other latents:
    encode the corpus anew, and do not expect a model trained on the old ones to know them.
    """
    from jobs.recipes import load_recipe
    from jobs.run_train_vae import run_train_vae
    from jobs.train_vae import VAERecipe

    config = load_recipe(recipe, settings or [], VAERecipe)
    if not run_train_vae(corpus, checkpoint, out, config, policy=policy, console=Console()):
        raise typer.Exit(INTERRUPTED)


@app.command()
def train(
    corpus: CorpusArgument,
    checkpoint: CheckpointOption,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The run's folder: logs and checkpoints.")
    ],
    stage: Annotated[
        int | None,
        typer.Option(
            help="Of the curriculum: 1 pre-training, 2 joint training, 3 annealing. Short for "
            "--recipe stage1 and so on."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            help="Settings: stage1, stage2, stage3, finetune, lora, nano (minutes on two cores), or "
            "a YAML file (with `extends: NAME` it only names what differs).",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="GROUP.FIELD=VALUE",
            help="Override one setting of data, augment or trainer; may be repeated. For example "
            "trainer.steps=1000 or trainer.optimizer.lr=2e-4.",
        ),
    ] = None,
) -> None:
    """Train a model on the samples of a corpus, starting from a checkpoint.

    Sequences of different lengths are packed without padding; Ray Train runs a worker on each GPU, and
    Ray's tasks read ahead for them. OUT/checkpoints/last and best are checkpoints in the layout of
    the releases; OUT/log.jsonl and TensorBoard files tell the losses by layout, the speed and what
    was left out.

    Killed at any moment, the same command goes on at the exact sample; SIGTERM and Ctrl-C save
    first and end with exit code 143. More steps (trainer.steps) go on from the last checkpoint.
    """
    from jobs.recipes import load_recipe
    from jobs.run_train import run_train
    from jobs.train import Recipe

    if (stage is None) == (recipe is None):
        raise typer.BadParameter("give --stage or --recipe, one of both")
    config = load_recipe(recipe or f"stage{stage}", settings or [], Recipe)
    if not run_train(corpus, checkpoint, out, config, Console()):
        raise typer.Exit(INTERRUPTED)


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
