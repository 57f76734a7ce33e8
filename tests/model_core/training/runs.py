"""Short runs of the toy stream, and what they leave."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from model_core.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from model_core.training.trainer import Outcome, train
from tests.model_core.training.toy import BASE, ToyStream, opened

ROOT = Path(__file__).parents[3]
TIMES = ("positions_per_s", "target_patches_per_s", "audio_s_per_s", "tflops", "mfu", "seconds")


def config(steps: int = 4, **settings: Any) -> TrainerConfig:
    settings = {
        "precision": "fp32",
        "log_every": 1,
        "save_every": 100,
        "optimizer": OptimizerConfig(lr=2e-3),
        "schedule": ScheduleConfig(warmup_steps=2),
        **settings,
    }
    return TrainerConfig(steps=steps, **settings)


def run(folder: Path, settings: TrainerConfig, stream: Any = None, **more: Any) -> Outcome:
    model, vae = opened()
    return train(model, vae, BASE, stream or ToyStream(), settings, folder, **more)


def lines(folder: Path, kind: str = "step") -> list[dict[str, Any]]:
    text = (folder / "log.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == kind]


def without_times(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    dropped = {*TIMES, "peak_memory_gb"}
    return [{k: v for k, v in line.items() if k not in dropped} for line in found]


def weights(folder: Path, name: str = "weights") -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "last" / "training" / f"{name}.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(value.equal(b[name]) for name, value in a.items())
