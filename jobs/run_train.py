"""`voxquarry train`: train a model on a composed corpus, with a bar, and go on after any stop."""

import json
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.train
import yaml
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from rich.console import Console

import schemas.errors
from annotators.registry import checkpoint_folder
from jobs.running import ending_on_signals, recorded, step_bar
from jobs.sequence_reader import reader_of
from jobs.train import DATA, OUTCOME, STOP, Recipe, TrainingJob, work
from pipeline.engine import EngineConfig, ray_session
from pipeline.profile import as_plain
from pipeline.storage import Corpus
from schemas.errors import ConfigError, VoxquarryError

PHASE = "train"
_LOST_WORKERS = 3
"""How often a run goes on by itself after a worker or its node was lost."""
_POLL_S = 0.3


def run_train(root: str, checkpoint: str, out: Path, recipe: Recipe, console: Console) -> bool:
    """Train, or go on where an earlier run stopped. False where a signal ended it before its end.

    Raises VoxquarryError.
    """
    corpus = Corpus(root)
    source = checkpoint_folder(checkpoint).absolute()
    samples = check_composed(corpus, source)
    folder = out.absolute()
    keep_data_facts(folder, recipe.data_facts(samples))
    for name in (STOP, OUTCOME):
        (folder / name).unlink(missing_ok=True)
    plain = json.loads(json.dumps(as_plain(recipe), default=str))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
    job = TrainingJob(
        checkpoint=source,
        folder=folder,
        reading=recipe.reading(
            corpus.root if "://" in root else str(Path(root).absolute()), source
        ),
        validation_packs=recipe.data.validation_packs,
        trainer=replace(recipe.trainer, pack_positions=recipe.data.pack_positions),
    )
    with recorded(
        corpus, PHASE, plain, console, alone=False, checkpoint=checkpoint, out=out.name
    ) as record:
        with ray_session(EngineConfig()):
            fit_under_a_bar(job, recipe, console)
        ended = outcome_of(folder)
        if ended["status"] == "failed":
            kind = getattr(schemas.errors, ended["error"], VoxquarryError)
            raise kind(ended["message"])
        record.finish(ended["status"], step=ended["step"])
    tell_the_end(ended, job, console)
    return bool(ended["status"] == "finished")


def check_composed(corpus: Corpus, checkpoint: Path) -> str:
    """The fingerprint of the corpus's samples.

    Raises ConfigError unless they were composed for this checkpoint's like.
    """
    marker = corpus.find_json("_commits/compose/current.json")
    advice = f"`voxquarry compose {corpus.root} --checkpoint {checkpoint}`"
    if marker is None:
        raise ConfigError(f"{corpus.root} holds no samples: run {advice} first")
    reader = reader_of(str(checkpoint))
    for name, what in (
        ("vae_hash", "AudioVAE (`voxquarry encode` comes first, then compose)"),
        ("tokenizer_hash", "tokenizer"),
        ("patch_size", "patch size"),
    ):
        if marker[name] != getattr(reader, name):
            raise ConfigError(
                f"the samples of {corpus.root} were composed for another {what}: run {advice}"
            )
    return str(marker["fingerprint"])


def keep_data_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write down what a run reads, or raise ConfigError where it began with something else.

    Positions in the order of samples mean nothing in another order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / DATA
    if (folder / "checkpoints" / "last").exists() and file.is_file():
        known = json.loads(file.read_text(encoding="utf-8"))
        for name, value in json.loads(json.dumps(facts)).items():
            if known[name] != value:
                what = "samples, composed otherwise" if name == "samples" else f"settings of {name}"
                raise ConfigError(
                    f"the run in {folder} began with other {what}; a new run (another --out) may "
                    f"start from its checkpoint, {folder / 'checkpoints' / 'last'}"
                )
        return
    file.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def fit_under_a_bar(job: TrainingJob, recipe: Recipe, console: Console) -> None:
    """Start the workers and wait for their end. A signal asks them to save and end."""
    gpus = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    with scratch(job.folder) as place:
        trainer = TorchTrainer(
            work,
            train_loop_config={"job": job},
            scaling_config=ScalingConfig(
                num_workers=recipe.workers or max(1, gpus), use_gpu=gpus > 0
            ),
            run_config=RunConfig(
                name="workers",
                storage_path=str(place),
                failure_config=FailureConfig(max_failures=_LOST_WORKERS),
            ),
        )
        ended: list[Exception] = []

        def fit() -> None:
            try:
                trainer.fit()
            except Exception as error:  # noqa: BLE001 - raised again where the user sees it
                ended.append(error)

        thread = threading.Thread(target=fit, daemon=True)
        with ending_on_signals() as asked, bar(job.trainer.steps, console) as update:
            thread.start()
            while thread.is_alive():
                if asked.is_set():
                    (job.folder / STOP).touch()
                update(job.folder / "log.jsonl")
                time.sleep(_POLL_S)
            update(job.folder / "log.jsonl")
    if ended:
        raise ended[0]


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Where Ray Train keeps its own books, which nobody needs afterwards."""
    place = folder / f".ray-{secrets.token_hex(4)}"
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def bar(steps: int, console: Console) -> Iterator[Any]:
    """A progress bar, and what moves it to the last line of the run's log."""
    with step_bar(console) as progress:
        task = progress.add_task(PHASE, total=steps, note="starting")

        def update(log: Path) -> None:
            step = last_step(log)
            if step is not None:
                note = f"loss {step['loss']:.3f}  {step['positions_per_s']:,.0f} positions/s"
                progress.update(task, completed=step["step"], note=note)

        yield update


def last_step(log: Path) -> dict[str, Any] | None:
    """The last whole line of a log that tells of a step."""
    if not log.is_file():
        return None
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65_536))
        lines = file.read().split(b"\n")[:-1]
    for line in reversed(lines):
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        if "positions_per_s" in told:
            return told
    return None


def outcome_of(folder: Path) -> dict[str, Any]:
    """How the workers say that the run ended."""
    file = folder / OUTCOME
    if not file.is_file():
        raise VoxquarryError(f"the workers of {folder} ended without a word; Ray's logs tell why")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def tell_the_end(ended: dict[str, Any], job: TrainingJob, console: Console) -> None:
    """Where the model is, or that the same command goes on."""
    last = job.folder / "checkpoints" / "last"
    if ended["status"] == "interrupted":
        console.print(f"Saved after step {ended['step']}. The same command goes on from there.")
        return
    speak = f"{last}"
    if job.trainer.mode == "lora":
        speak = f"{job.checkpoint} --lora {last}"
    console.print(
        f"{last}: the model after step {ended['step']:,}; best is beside it. "
        f"`tensorboard --logdir {job.folder}` shows the curves, `voxquarry speak --checkpoint "
        f"{speak}` lets it speak.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
