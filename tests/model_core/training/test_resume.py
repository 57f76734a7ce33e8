"""A run that is broken off goes on as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from model_core.lora import LoRAConfig
from model_core.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from schemas.errors import ConfigError, ModelLoadError
from tests.model_core.training.runs import ROOT, config, lines, run, same, weights, without_times
from tests.model_core.training.toy import ToyStream


def ask(folder: Path, settings: TrainerConfig, **job: Any) -> list[str]:
    raw = {"jobs": [{"folder": str(folder), "config": asdict(settings), **job}]}
    return [sys.executable, "-m", "tests.model_core.training.runner", json.dumps(raw)]


def started(command: list[str], said: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with said.open("wb") as out:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out)


def until(seen: Any, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not seen():
        assert process.poll() is None, "the run ended before it was broken off"
        assert time.monotonic() < end
        time.sleep(0.002)


def told(folder: Path, step: int) -> bool:
    log = folder / "log.jsonl"
    return log.exists() and f'"step": {step},' in log.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    settings = config(
        13,
        save_every=3,
        validate_every=2,
        log_every=2,
        precision="bf16",
        ema_decay=0.9,
        accumulate=2,
    )
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    torch.set_num_threads(1)
    run(unbroken, settings, ToyStream(held_out=1))
    command = ask(broken, settings, held_out=1, pause_s=0.02)

    process = started(command, tmp_path / "said")
    until(lambda: told(broken, 4), process)  # between two checkpoints
    process.kill()
    process.wait()
    process = started(command, tmp_path / "said")
    until(lambda: list((broken / "checkpoints").glob(".step_0000009.tmp")), process)  # in a save
    process.kill()
    process.wait()
    process = started(command, tmp_path / "said")
    assert process.wait() == 0
    assert json.loads((tmp_path / "said").read_bytes()) == {"finished": True, "step": 13}
    for kind in ("step", "validation"):
        assert without_times(lines(broken, kind)) == without_times(lines(unbroken, kind))
    for name in ("weights", "optimizer", "average", "random"):
        assert same(weights(broken, name), weights(unbroken, name)), name
    names = sorted(path.name for path in (broken / "checkpoints").iterdir())
    assert names == sorted(path.name for path in (unbroken / "checkpoints").iterdir())


@pytest.mark.slow
def test_sigterm_ends_a_run_after_its_step_with_a_checkpoint(tmp_path: Path) -> None:
    settings = config(500)
    process = started(ask(tmp_path, settings, pause_s=0.02), tmp_path / "said")
    until(lambda: told(tmp_path, 3), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    said = json.loads((tmp_path / "said").read_bytes())
    assert not said["finished"]
    assert 3 <= said["step"] < 500
    assert lines(tmp_path)[-1]["step"] == said["step"]
    link = tmp_path / "checkpoints" / "last"
    assert os.readlink(link) == f"step_{said['step']:07d}"
    # And it goes on: the stop that is asked for here comes after one more step.
    outcome = run(tmp_path, settings, stopped=lambda: True)
    assert outcome.step == said["step"] + 1


def test_the_order_of_samples_goes_on_where_it_stopped(tmp_path: Path) -> None:
    unbroken: list[str] = []
    run(tmp_path / "unbroken", config(7), ToyStream(seen=unbroken))
    first: list[str] = []
    second: list[str] = []
    stops = iter([False, False, True])
    run(tmp_path / "b", config(7), ToyStream(seen=first), stopped=lambda: next(stops))
    run(tmp_path / "b", config(7), ToyStream(seen=second))
    assert first[:3] + second == unbroken
    assert same(weights(tmp_path / "b"), weights(tmp_path / "unbroken"))


def test_a_finished_run_can_be_given_more_steps_but_not_fewer(tmp_path: Path) -> None:
    run(tmp_path, config(2))
    before = weights(tmp_path)
    assert run(tmp_path, config(2)).finished
    assert same(before, weights(tmp_path))
    assert run(tmp_path, config(3, log_every=5)).step == 3
    with pytest.raises(ConfigError, match="step 3 already"):
        run(tmp_path, config(2))


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"optimizer": OptimizerConfig(lr=1e-4)}, "training.optimizer.lr"),
        ({"accumulate": 2}, "training.accumulate"),
        ({"seed": 1}, "training.seed"),
        ({"schedule": ScheduleConfig(shape="wsd", warmup_steps=2)}, "training.schedule.shape"),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(
    tmp_path: Path, changed: dict[str, Any], where: str
) -> None:
    run(tmp_path, config(1))
    with pytest.raises(ConfigError, match=where):
        run(tmp_path, config(3, **changed))


@pytest.mark.parametrize("name", ["state.json", "weights.safetensors", "optimizer.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    outcome = run(tmp_path, config(1))
    file = outcome.last / "training" / name
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ModelLoadError, match=name):
        run(tmp_path, config(2))


def test_dropout_goes_on_where_it_stopped(tmp_path: Path) -> None:
    lora = LoRAConfig(enable_lm=True, enable_dit=True, r=4, dropout=0.3)
    settings = config(5, mode="lora", lora=lora)
    run(tmp_path / "unbroken", settings)
    stops = iter([False, False, True])
    run(tmp_path / "broken", settings, stopped=lambda: next(stops))
    torch.rand(7)
    run(tmp_path / "broken", settings)
    for name in ("weights", "random"):
        assert same(weights(tmp_path / "broken", name), weights(tmp_path / "unbroken", name))
