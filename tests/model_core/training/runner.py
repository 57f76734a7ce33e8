"""Trains the toy stream in a process of its own: `python -m tests.model_core.training.runner JSON`.

The argument holds rank, workers, join (a file where workers meet), and jobs: a list of folder,
config, and perhaps pause_s, slept after each step.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import TypeAdapter

from model_core.training.config import TrainerConfig
from model_core.training.trainer import train
from tests.model_core.training.toy import BASE, ToyStream, opened


def config_of(raw: dict[str, Any]) -> TrainerConfig:
    return TypeAdapter(TrainerConfig).validate_python(raw)


def main(asked: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    rank, workers = asked.get("rank", 0), asked.get("workers", 1)
    if workers > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{asked['join']}", rank=rank, world_size=workers
        )
    for job in asked["jobs"]:
        model, vae = opened()
        outcome = train(
            model,
            vae,
            BASE,
            ToyStream(rank=rank, workers=workers, held_out=job.get("held_out", 0)),
            config_of(job["config"]),
            Path(job["folder"]),
            progress=lambda _, job=job: time.sleep(job.get("pause_s", 0)),  # type: ignore[misc]
        )
        sys.stdout.write(json.dumps({"finished": outcome.finished, "step": outcome.step}) + "\n")
    if workers > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
