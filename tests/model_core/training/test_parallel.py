"""Two workers train what one trains with the packs of both."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from model_core.training.packs import Pack, Position
from model_core.training.trainer import train
from tests.model_core.training.runs import ROOT, config, lines, weights
from tests.model_core.training.toy import BASE, ToyStream, opened

KINDS = ("ddp", "fsdp2")
SMALL: dict[str, Any] = {"lambda_reading": 0.5, "pure_noise": 0.4, "noisy_history": 0.7}
"""What helps a small corpus: it has to do with several workers what it does with one."""


class Both(ToyStream):
    """The packs of two workers in turn."""

    def packs(self, start: Position) -> Iterator[Pack]:
        streams = [ToyStream(rank=rank, workers=2).packs(start) for rank in range(2)]
        while True:
            for stream in streams:
                yield next(stream)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two workers, each broken off after three steps and resumed; and of one."""
    folder = tmp_path_factory.mktemp("parallel")
    jobs = []
    for kind in KINDS:
        for precision in ("fp32", "bf16"):
            for steps in (3, 5) if precision == "fp32" else (3,):
                settings = config(
                    steps, parallel=kind, accumulate=2, ema_decay=0.5, precision=precision, **SMALL
                )
                job = {"folder": str(folder / f"{kind}-{precision}"), "held_out": 1}
                jobs.append({**job, "config": asdict(settings)})
    processes = []
    for rank in range(2):
        asked = {"rank": rank, "workers": 2, "join": str(folder / "join"), "jobs": jobs}
        command = [sys.executable, "-m", "tests.model_core.training.runner", json.dumps(asked)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        processes.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [process.communicate(timeout=240)[0] for process in processes]
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text
    for steps in (3, 5):
        model, vae = opened()
        settings = config(steps, accumulate=4, ema_decay=0.5, **SMALL)
        train(model, vae, BASE, Both(held_out=1), settings, folder / "one")
    model, vae = opened()
    settings = config(3, accumulate=4, ema_decay=0.5, precision="bf16", **SMALL)
    train(model, vae, BASE, Both(held_out=1), settings, folder / "one-bf16")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_workers_train_what_one_trains(folders: Path, kind: str) -> None:
    one, two = folders / "one", folders / f"{kind}-fp32"
    for kind_of_line in ("step", "validation"):
        pairs = list(zip(lines(one, kind_of_line), lines(two, kind_of_line), strict=True))
        assert pairs
        for alone, together in pairs:
            assert together["step"] == alone["step"]
            for name in ("loss", "flow", "stop"):
                assert together[name] == pytest.approx(alone[name], rel=1e-4)
    for name in ("weights", "average", "optimizer"):
        alone, together = weights(one, name), weights(two, name)
        assert alone.keys() == together.keys()
        for key, value in alone.items():
            torch.testing.assert_close(together[key], value, atol=1e-4, rtol=1e-3, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_workers_in_bfloat16_are_as_near_as_that_is(folders: Path, kind: str) -> None:
    one, two = lines(folders / "one-bf16"), lines(folders / f"{kind}-bf16")
    for alone, together in zip(one, two, strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=0.01)
        assert together["grad_norm"] == pytest.approx(alone["grad_norm"], rel=0.03)
