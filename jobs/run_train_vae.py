"""`voxquarry train-vae`: train a checkpoint's AudioVAE on a corpus, and measure what it learned."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from annotators.registry import checkpoint_folder
from jobs.judge import judge_corpus
from jobs.running import ending_on_signals, recorded, step_bar
from jobs.train_vae import VAERecipe
from jobs.vae_segments import ClipSegments
from model_core.audio_vae import AudioVAE
from model_core.checkpoint import load_vae, vae_hash
from model_core.vae_training.batches import HeldOutClip
from model_core.vae_training.checkpoint import save_with_audio_vae
from model_core.vae_training.conditions import untold
from model_core.vae_training.evaluation import ClipScores, Judge, evaluated, means, silence
from model_core.vae_training.run_folder import RunFolder
from model_core.vae_training.trainer import Told, VAETrainer
from model_core.weights import read_weights
from pipeline.policy import load_policy
from pipeline.profile import as_plain
from pipeline.storage import Corpus
from schemas.errors import ConfigError

PHASE = "train-vae"
MEASURES = {
    "mel": "mel distance (less is better)",
    "mel_heard": "… at the encoder's rate",
    "stft": "STFT distance (less is better)",
    "stoi": "STOI (1 is best)",
    "pesq": "PESQ, wide band (4.6 is best)",
}


def run_train_vae(
    root: str, checkpoint: str, out: Path, recipe: VAERecipe, *, policy: str, console: Console
) -> bool:
    """Train, or go on where an earlier run stopped. False where a signal ended it before its end.

    Raises VoxquarryError.
    """
    load_policy(policy)
    corpus = Corpus(root)
    if not corpus.exists():
        raise ConfigError(f"{root} holds no corpus; `voxquarry run SOURCE --out {root}` makes one")
    source, folder = checkpoint_folder(checkpoint), training_folder(out)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae = load_vae(source, device=device)
    if nothing_to_do(out, folder, recipe, vae):
        console.print(f"Nothing to do: {out} is trained already. {folder} holds its figures.")
        return True
    check_lengths(recipe, vae)
    with recorded(
        corpus, PHASE, as_plain(recipe), console, alone=False, device=device.type
    ) as record:
        with console.status("Judging the clips …"):
            judge_corpus(root, policy, console, quiet=True)
            loop = recipe.training
            clips = ClipSegments(
                corpus, vae.config, recipe.segments, batch_size=loop.batch_size, seed=loop.seed
            )
        keep_account(folder, recipe, vae)
        trainer = VAETrainer(vae, recipe, clips, RunFolder(folder))
        first = trainer.step
        say_what_begins(trainer, clips, device, console)
        if not trained(trainer, console):
            record.finish("interrupted", steps=trainer.step)
            console.print(f"Saved after step {trainer.step}. The same command goes on from there.")
            return False
        with console.status("Listening to the held-out clips …"):
            best = read_weights(folder / "best.safetensors")
            scores = judged(source, best, clips.held_out(), recipe, device)
        write_scores(folder / "evaluation.json", scores, trainer)
        save_with_audio_vae(source, out, best)
        totals = {name: means(rows) for name, rows in scores.items()}
        record.finish("finished", steps=trainer.step, from_step=first, scores=totals)
    show(totals, trainer, out, console)
    return True


def training_folder(out: Path) -> Path:
    """Where the state and the logs of the training that makes `out` lie."""
    return out.with_name(f"{out.name}.training")


# ---------------------------------------------------------------------- before the first step


def nothing_to_do(out: Path, folder: Path, recipe: VAERecipe, vae: AudioVAE) -> bool:
    """Whether this very training is finished.

    Raises ConfigError where `out` is something else, or the folder the training of something else.
    """
    account = folder / "recipe.json"
    if not account.is_file():
        if out.exists():
            raise ConfigError(f"{out} is there already; choose another name for --out")
        return False
    known = json.loads(account.read_text(encoding="utf-8"))
    differing = different(known["recipe"], as_json(recipe))
    # A longer training goes on from a shorter one.
    differing = [name for name in differing if name != "training.steps"]
    if differing:
        raise ConfigError(
            f"{folder} holds a training with another {differing[0]}; repeat its settings to go on, "
            "or choose another name for --out"
        )
    if known["starts_from"] != vae_hash(vae):
        raise ConfigError(
            f"{folder} holds a training that starts from another AudioVAE; choose another name for "
            "--out"
        )
    if out.exists() and known["recipe"]["training"]["steps"] != recipe.training.steps:
        raise ConfigError(
            f"{out} was trained for {known['recipe']['training']['steps']} steps; to go on, move "
            "it out of the way"
        )
    return out.exists()


def check_lengths(recipe: VAERecipe, vae: AudioVAE) -> None:
    """Raise ConfigError where a segment is too short for the windows that look at it."""
    config = vae.config
    frames = max(1, round(recipe.segments.seconds * config.sample_rate / config.hop))
    shortest = frames * min(config.hop, config.out_hop)
    window = max(*recipe.mel.windows, *recipe.discriminators.fft_sizes, 0)
    if shortest <= window // 2:
        raise ConfigError(
            f"segments.seconds {recipe.segments.seconds} gives {shortest} samples, too few for a "
            f"window of {window}"
        )


def keep_account(folder: Path, recipe: VAERecipe, vae: AudioVAE) -> None:
    """Write down what this training is, before it has a state."""
    folder.mkdir(parents=True, exist_ok=True)
    file, aside = folder / "recipe.json", folder / ".recipe.tmp"
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    starts_from = known["starts_from"] if known else vae_hash(vae)
    account = {"recipe": as_json(recipe), "starts_from": starts_from}
    aside.write_text(json.dumps(account, indent=1), encoding="utf-8")
    aside.replace(file)


def as_json(recipe: VAERecipe) -> dict[str, Any]:
    """A recipe as it comes back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(as_plain(recipe)))
    return plain


def different(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Names of the settings that differ, as `--set` spells them."""
    found = []
    for name in one.keys() | other.keys():
        a, b = one.get(name), other.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += different(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append(f"{prefix}{name}")
    return sorted(found)


def say_what_begins(
    trainer: VAETrainer, clips: ClipSegments, device: torch.device, console: Console
) -> None:
    """One line of what is trained on what."""
    sizes = [
        sum(p.numel() for p in side.parameters()) / 1e6
        for side in (trainer.vae, trainer.discriminators)
    ]
    console.print(
        f"AudioVAE of {sizes[0]:.1f} M parameters, discriminators of {sizes[1]:.1f} M, "
        f"{clips.num_clips:,} clips, on {device.type}, one process"
        + (f", going on after step {trainer.step:,}" if trainer.step else ""),
        highlight=False,
        soft_wrap=True,
    )


# ---------------------------------------------------------------------- the training itself


def trained(trainer: VAETrainer, console: Console) -> bool:
    """Run the loop under a bar; SIGTERM and Ctrl-C end it after the step that they come in."""
    with ending_on_signals() as asked, step_bar(console) as progress:
        steps = trainer.config.steps
        task = progress.add_task(PHASE, total=steps, completed=trainer.step, note="starting")
        speed, distance = "", ""

        def tell(told: Told) -> None:
            nonlocal speed, distance
            if told.losses:
                speed = (
                    f"mel {told.losses.get('mel', float('nan')):.2f} "
                    f"{told.losses['audio_s_per_s']:.1f} s/s"
                )
            if told.distance is not None:
                distance = f" held out {told.distance:.2f}"
            progress.update(task, completed=told.step, note=speed + distance)

        return trainer.train(tell=tell, stopped=asked.is_set)


# ---------------------------------------------------------------------- what it learned


def judged(
    source: Path,
    best: dict[str, torch.Tensor],
    clips: Sequence[HeldOutClip],
    recipe: VAERecipe,
    device: torch.device,
) -> dict[str, list[ClipScores]]:
    """Scores of the held-out clips: silence, as the checkpoint was, and as it is now."""
    vae = load_vae(source, device=device)
    judge = Judge(recipe.mel, vae.config.sample_rate, vae.config.out_sample_rate, device)
    scores = {"silence": silence(clips, judge)}
    scores["before"] = evaluated(vae, clips, judge, perceptual=True)
    vae.load_state_dict(best)
    scores["after"] = evaluated(vae, clips, judge, perceptual=True)
    return scores


def write_scores(file: Path, scores: dict[str, list[ClipScores]], trainer: VAETrainer) -> None:
    """The scores of every clip and their means, as JSON."""
    told = {
        "best": trainer.best,
        "steps": trainer.step,
        "segments_per_bucket": trainer.seen.tolist(),
        "means": {name: means(rows) for name, rows in scores.items()},
        "clips": {name: [asdict(row) for row in rows] for name, rows in scores.items()},
    }
    aside = file.with_name(f".{file.name}.tmp")
    aside.write_text(json.dumps(told, indent=1), encoding="utf-8")
    aside.replace(file)


def show(
    totals: dict[str, dict[str, float | None]], trainer: VAETrainer, out: Path, console: Console
) -> None:
    """The table, and where everything is."""
    table = Table(title="Held-out clips", title_justify="left")
    table.add_column("")
    for name in totals:
        table.add_column(name, justify="right")
    for key, label in MEASURES.items():
        values = [total[key] for total in totals.values()]
        table.add_row(label, *("–" if value is None else f"{value:.3f}" for value in values))
    console.print(table)
    silent = untold(trainer.decoder, trainer.seen)
    if silent:
        bounds = trainer.vae.config.sr_bin_boundaries or ()
        low = ", ".join(
            f"above {bounds[b - 1]:,} Hz" if b else f"up to {bounds[0]:,} Hz" for b in silent
        )
        console.print(
            f"No clip taught the decoder sample rates {low}: asked for them, it speaks as for the "
            "nearest that one did.",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"{out}: the AudioVAE after step {trainer.best['step']:,} of {trainer.step:,}, the best on "
        f"the held-out clips. {training_folder(out)}: the last one, the logs, the figures.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
