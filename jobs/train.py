"""What `voxquarry train` does: a recipe's settings, and the loop that each worker runs."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.exceptions import RayError

from jobs.block_reading import Reading
from jobs.sample_stream import SampleStream
from model_core.checkpoint import load_checkpoint
from model_core.training.augment import AugmentConfig
from model_core.training.config import TrainerConfig
from model_core.training.order import OrderConfig
from model_core.training.trainer import Outcome, train
from schemas.errors import ConfigError, VoxquarryError
from schemas.samples import STAGES

OUTCOME, STOP, DATA = "outcome.json", ".stop", "data.json"
"""In a run's folder: how its workers ended; what asks them to end; and what they read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What a worker reads."""

    max_positions: int = 4096
    """A longer sample is left out."""
    pack_positions: int = 4096
    """Positions of a pack at most; what memory holds decides."""
    block_fragments: int = 4
    """Row groups of 4096 samples that are shuffled as one."""
    validation_packs: int = 8
    """Packs of held-out samples at most."""

    def __post_init__(self) -> None:
        for name in ("max_positions", "pack_positions", "block_fragments"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.validation_packs < 0:
            raise ConfigError(f"validation_packs must be at least 0, got {self.validation_packs}")
        if self.pack_positions < self.max_positions:
            raise ConfigError(
                f"pack_positions {self.pack_positions} must hold the longest sample, "
                f"max_positions {self.max_positions}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A training: which samples, how they are read, how the model moves."""

    stage: int
    """Of the curriculum, 1 to 3: whose weights in `samples` count."""
    workers: int | None = None
    """Processes that train together; null means one for each GPU, or one on a CPU."""
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    trainer: TrainerConfig

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ConfigError(f"stage must be one of {STAGES}, got {self.stage}")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers must be at least 1, got {self.workers}")

    def data_facts(self, samples: str) -> dict[str, Any]:
        """What decides which samples come when. samples: the fingerprint of the table."""
        facts = {name: asdict(self)[name] for name in ("stage", "data", "augment")}
        return {**facts, "samples": samples}

    def reading(self, corpus: str, checkpoint: Path) -> Reading:
        """How the first of the workers reads a corpus."""
        facts = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        data = self.data
        return Reading(
            corpus=corpus,
            tokenizer=str(checkpoint / "tokenizer.json"),
            patch_size=facts["patch_size"],
            channels=facts["feat_dim"],
            stage=self.stage,
            max_positions=data.max_positions,
            order=OrderConfig(
                seed=self.trainer.seed,
                pack_positions=data.pack_positions,
                block_fragments=data.block_fragments,
            ),
            augment=self.augment,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingJob:
    """What every worker of a run is given; pickles."""

    checkpoint: Path
    folder: Path
    """The run's: logs and checkpoints."""
    reading: Reading
    validation_packs: int
    trainer: TrainerConfig


def work(settings: Mapping[str, Any]) -> None:
    """The loop of one worker, which Ray Train starts.

    What goes wrong for a reason of ours is written down, and the workers that Ray Train starts in
    the place of these end at once: to try again, as after the loss of a node, would only fail again.
    """
    job: TrainingJob = settings["job"]
    outcome = job.folder / OUTCOME
    if outcome.exists():
        return
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    try:
        ended = _train(job, rank, workers, context.get_local_world_size())
    except (VoxquarryError, RayError) as thrown:
        error = root_of(thrown)
        if error is None:
            raise
        failed = {"status": "failed", "error": type(error).__name__, "message": str(error)}
        outcome.write_text(json.dumps(failed), encoding="utf-8")
        if workers > 1:
            raise  # the others would wait for this one
        return
    if rank == 0:
        told = {"status": "finished" if ended.finished else "interrupted", "step": ended.step}
        outcome.write_text(json.dumps(told), encoding="utf-8")


def _train(job: TrainingJob, rank: int, workers: int, on_this_machine: int) -> Outcome:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // on_this_machine))
    stream = SampleStream(
        replace(job.reading, rank=rank, workers=workers), validation_limit=job.validation_packs
    )
    device = ray.train.torch.get_device()
    opened = load_checkpoint(job.checkpoint, device=device, dtype=torch.float32)
    return train(
        opened.model,
        opened.vae,
        job.checkpoint,
        stream,
        job.trainer,
        job.folder,
        stopped=(job.folder / STOP).exists,
    )


def root_of(error: BaseException | None) -> VoxquarryError | None:
    """The error of ours inside Ray's; None where there is none, and Ray Train should try again."""
    found = None
    while error is not None:
        if isinstance(error, VoxquarryError) and not isinstance(error, RayError):
            found = error
        error = getattr(error, "cause", None) or error.__cause__
    return found
