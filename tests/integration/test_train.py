"""From annotated clips to a model: init, encode, compose, train, by the real commands."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model_core.checkpoint import load_checkpoint
from model_core.synthesis import SpeechRequest, Synthesizer
from pipeline.storage import Corpus
from tests.benchmarks.random_checkpoint import model_tensors
from tests.integration.conftest import voxquarry

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS = 30
RECIPE = """
extends: nano
data: {max_positions: 256, pack_positions: 256}
trainer:
  steps: 30
  schedule: {warmup_steps: 5}
  log_every: 1
  validate_every: 10
  save_every: 10
"""


@pytest.fixture(scope="module")
def composed(annotated: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a fresh checkpoint and a recipe, ready to train."""
    place = tmp_path_factory.mktemp("training")
    shutil.copytree(annotated.path, place / "corpus")
    (place / "recipe.yaml").write_text(RECIPE)
    corpus, checkpoint = str(place / "corpus"), str(place / "nano")
    for command in (
        ("mine", corpus),
        ("init", "--corpus", corpus, "--out", checkpoint),
        ("encode", corpus, "--checkpoint", checkpoint),
        ("compose", corpus, "--checkpoint", checkpoint),
    ):
        done = voxquarry(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    return place


def arguments(place: Path, out: str, *more: str) -> list[str]:
    checkpoint, recipe = str(place / "nano"), str(place / "recipe.yaml")
    return [
        *("train", str(place / "corpus"), "--checkpoint", checkpoint),
        *("--out", str(place / out), "--recipe", recipe, *more),
    ]


@pytest.fixture(scope="module")
def unbroken(composed: Path) -> Path:
    """The folder of a run that nothing disturbed."""
    done = voxquarry(*arguments(composed, "unbroken"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the model after step 30" in " ".join(done.stdout.split())
    return composed / "unbroken"


def lines(run: Path, kind: str = "step") -> list[dict[str, object]]:
    told = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in told if line["kind"] == kind]


def test_the_loss_falls_in_every_layout(unbroken: Path) -> None:
    told = lines(unbroken)
    assert [line["step"] for line in told] == list(range(1, STEPS + 1))
    losses = np.array([line["loss"] for line in told])
    assert losses[-5:].mean() < 0.8 * losses[:5].mean()
    layouts = {layout for line in told for layout in line["by_layout"]}
    assert layouts == {"text", "described", "reference", "described_reference", "continuation"}
    held_out = [line["loss"] for line in lines(unbroken, "validation")]
    assert held_out[-1] < held_out[0]


def test_the_checkpoint_is_what_the_generator_and_the_releases_read(unbroken: Path) -> None:
    last = unbroken / "checkpoints" / "last"
    config = json.loads((last / "config.json").read_text())
    tensors = load_file(last / "model.safetensors")
    published = model_tensors(config)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        name: tensor.shape for name, tensor in published.items()
    }
    checkpoint = load_checkpoint(last)
    [(_, speech)] = Synthesizer(checkpoint, batch_size=1).speak(
        [SpeechRequest(text="Good morning.", seed=1)]
    )
    assert speech.wave.isfinite().all()
    assert (unbroken / "checkpoints" / "best").resolve().is_dir()


def killed(place: Path, out: str, after: int, how: signal.Signals) -> int:
    """Start a training, end it once a step is logged; its exit code."""
    command = [sys.executable, "-m", "jobs.cli", *arguments(place, out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = place / out / "log.jsonl"
    deadline = time.monotonic() + 400
    while not (log.is_file() and lines_so_far(log) >= after):
        assert process.poll() is None, "the training ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    return process.wait(200)


def lines_so_far(log: Path) -> int:
    return sum('"kind": "step"' in line for line in log.read_text().splitlines())


def test_a_training_that_is_ended_and_killed_learns_what_an_unbroken_one_does(
    composed: Path, unbroken: Path
) -> None:
    """SIGTERM saves and ends; kill -9 loses the steps since the save; neither changes anything."""
    assert killed(composed, "broken", 3, signal.SIGTERM) == 143
    saved = json.loads((composed / "broken" / "outcome.json").read_text())
    assert saved["status"] == "interrupted"
    assert 3 <= saved["step"] < STEPS
    assert killed(composed, "broken", 16, signal.SIGKILL) == -signal.SIGKILL
    done = voxquarry(*arguments(composed, "broken"))
    assert done.returncode == 0, done.stdout + done.stderr

    def curve(run: Path) -> list[tuple[object, ...]]:
        return [(line["step"], line["loss"], line["position"]) for line in lines(run)]

    assert curve(composed / "broken") == curve(unbroken)
    one, other = (
        load_file(run / "checkpoints" / "last" / "model.safetensors")
        for run in (composed / "broken", unbroken)
    )
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_more_steps_go_on_and_the_same_ones_are_nothing_to_do(
    composed: Path, unbroken: Path
) -> None:
    shutil.copytree(unbroken, composed / "longer", symlinks=True)
    done = voxquarry(*arguments(composed, "longer", "--set", "trainer.steps=31"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line["step"] for line in lines(composed / "longer")] == list(range(1, STEPS + 2))


def test_a_run_does_not_go_on_with_other_data(composed: Path, unbroken: Path) -> None:
    shutil.copytree(unbroken, composed / "other", symlinks=True)
    done = voxquarry(*arguments(composed, "other", "--set", "trainer.steps=31", "--set", "stage=1"))
    assert done.returncode == 1
    assert "began with other settings of stage" in " ".join(done.stderr.split())


def test_samples_of_another_checkpoint_are_refused(composed: Path, tmp_path: Path) -> None:
    made = voxquarry(
        *("init", "--corpus", str(composed / "corpus"), "--out", str(tmp_path / "other")),
        *("--seed", "1"),
    )
    assert made.returncode == 0, made.stdout + made.stderr
    done = voxquarry(
        *("train", str(composed / "corpus"), "--checkpoint", str(tmp_path / "other")),
        *("--out", str(tmp_path / "run"), "--recipe", "nano"),
    )
    assert done.returncode == 1
    assert "composed for another AudioVAE" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--set", "trainer.stepz=3"), "unknown setting stepz"),
        (("--set", "data.pack_positions=100"), "must hold the longest sample"),
        (("--set", "stage=4"), "stage must be one of"),
        (("--stage", "1"), "one of both"),
    ],
)
def test_a_wrong_setting_is_one_line(composed: Path, more: tuple[str, ...], said: str) -> None:
    done = voxquarry(*arguments(composed, "wrong", *more))
    assert done.returncode in (1, 2)
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (composed / "wrong" / "checkpoints").exists()
