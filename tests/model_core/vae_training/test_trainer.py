"""Training lowers what it should, both sides learn, and a resumed run equals an unbroken one."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_core.audio_vae import AudioVAEConfig
from model_core.vae_training.batches import Batch, Cursor
from model_core.vae_training.evaluation import Judge, evaluated, means, silence
from model_core.vae_training.run_folder import RunFolder
from model_core.vae_training.trainer import Told, VAETrainer, learning_rate
from model_core.weights import read_weights
from schemas.errors import ConfigError, Diverged
from tests.model_core.vae_training.streams import (
    MEL,
    V1,
    V2,
    V2_NARROW,
    WaveStream,
    fresh,
    recipe,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, and no waiting for a second thread on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def files(devset: Path) -> list[Path]:
    return [devset / "audio" / "en_allison_s1.flac"]


def distances(config: AudioVAEConfig, trainer: VAETrainer) -> dict[str, float]:
    """Mel distance of the held-out clips: of silence, of the start, of what was trained."""
    clips = trainer.stream.held_out()
    judge = Judge(MEL, config.sample_rate, config.out_sample_rate, torch.device("cpu"))
    rows = {
        "silence": silence(clips, judge),
        "before": evaluated(fresh(config), clips, judge, perceptual=False),
        "after": evaluated(trainer.vae, clips, judge, perceptual=False),
    }
    return {name: means(scores)["mel"] or 0.0 for name, scores in rows.items()}


def logged(folder: Path) -> list[tuple[str, int]]:
    """What was logged at which step."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [(line["kind"], line["step"]) for line in map(json.loads, lines)]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("config", [V1, V2], ids=["v1", "v2 16 to 48 kHz"])
def test_training_brings_speech_back_that_was_never_heard(
    config: AudioVAEConfig, files: list[Path], tmp_path: Path
) -> None:
    settings = recipe(steps=40, adversarial_from=35, learning_rate=3e-3)
    trainer = VAETrainer(fresh(config), settings, WaveStream(files, config), RunFolder(tmp_path))
    judges = {key: value.clone() for key, value in trainer.discriminators.state_dict().items()}
    assert trainer.train()
    found = distances(config, trainer)
    assert found["after"] < 0.7 * found["before"], found
    assert found["after"] < 0.7 * found["silence"], found
    # Every parameter of either side moved.
    start = fresh(config).state_dict()
    told = [key for key in start if "embed" in key]  # one bucket alone was asked for
    for key, value in trainer.vae.state_dict().items():
        if value.is_floating_point() and key not in told:
            assert not torch.equal(value, start[key]), key
    for key, value in trainer.discriminators.state_dict().items():
        assert not torch.equal(value, judges[key]), key
    steps = [step for kind, step in logged(tmp_path) if kind == "train"]
    assert steps == list(range(5, settings.training.steps + 1, 5))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    parts = {"mel", "kl", "adversarial", "features", "discriminators", "vae_gradient"}
    assert parts <= lines[-2].keys()
    assert "adversarial" not in lines[0]
    assert list((tmp_path / "tensorboard").glob("events*"))


class Told8And16(WaveStream):
    """Says of one half of each batch that it comes from a telephone, or of all that it does not."""

    rates: tuple[int, ...] = (8_000, 16_000)

    def batches(self, start: Cursor) -> Iterator[Batch]:
        rates = torch.tensor(self.rates).repeat(self.batch_size // len(self.rates))
        for batch in super().batches(start):
            yield replace(batch, sample_rates=rates)


@pytest.mark.parametrize(("rates", "seen"), [((8_000, 16_000), [6, 6]), ((16_000,), [0, 12])])
def test_the_decoder_learns_for_the_rates_it_is_told(
    files: list[Path], tmp_path: Path, rates: tuple[int, ...], seen: list[int]
) -> None:
    stream = Told8And16(files, V2_NARROW)
    stream.rates = rates
    settings = recipe(steps=3, adversarial_from=3)
    trainer = VAETrainer(fresh(V2_NARROW), settings, stream, RunFolder(tmp_path))
    trainer.train()
    assert trainer.seen.tolist() == seen
    scales = {k: v for k, v in trainer.vae.state_dict().items() if "scale_embed" in k}
    saved = trainer.weights()
    assert len(scales) == 4
    for key, (telephone, wide) in scales.items():
        assert not torch.equal(wide, torch.ones_like(wide))
        assert not torch.equal(wide, telephone)
        # Nobody taught it telephones: it stays as it was made, but speaks as for what it knows.
        assert torch.equal(telephone, torch.ones_like(wide)) == (seen[0] == 0)
        assert torch.equal(saved[key][0], wide if seen[0] == 0 else telephone)
        assert torch.equal(saved[key][1], wide)
    assert same(trainer.weights(), saved)


def test_a_run_that_stops_and_goes_on_equals_an_unbroken_one(
    files: list[Path], tmp_path: Path
) -> None:
    settings = recipe(steps=8, adversarial_from=2, validate_every=4, log_every=1)

    def run(name: str, stops: tuple[int, ...]) -> tuple[VAETrainer, list[Told]]:
        told: list[Told] = []
        for number, stop in enumerate((*stops, settings.training.steps)):
            # What is taken up does not depend on the weights that the model came with.
            vae, folder = fresh(V1, seed=number), RunFolder(tmp_path / name)
            trainer = VAETrainer(vae, settings, WaveStream(files, V1), folder)
            assert trainer.step == len(told)
            done = trainer.train(tell=told.append, stopped=lambda stop=stop: len(told) == stop)
            assert done == (stop == settings.training.steps)
        return trainer, told

    (one, its), (other, theirs) = run("unbroken", ()), run("broken", (3, 5))
    assert same(one.vae.state_dict(), other.vae.state_dict())
    assert same(one.discriminators.state_dict(), other.discriminators.state_dict())
    speeds = ("audio_s_per_s", "waiting_share")
    for a, b in zip(its, theirs, strict=True):
        assert {k: v for k, v in a.losses.items() if k not in speeds} == {
            k: v for k, v in b.losses.items() if k not in speeds
        }
        assert a.distance == b.distance
    assert one.best == other.best
    for name in ("best.safetensors", "last.safetensors"):
        files_of = [read_weights(tmp_path / run / name) for run in ("unbroken", "broken")]
        assert same(*files_of)
    assert logged(tmp_path / "unbroken") == logged(tmp_path / "broken")


def test_the_best_is_counted_anew_once_the_discriminators_speak(
    files: list[Path], tmp_path: Path
) -> None:
    settings = recipe(steps=8, adversarial_from=4)
    trainer = VAETrainer(fresh(V1), settings, WaveStream(files, V1), RunFolder(tmp_path))
    best = []
    for trainer.step, distance in ((3, 2.0), (4, 1.0), (5, 3.0), (6, 4.0), (7, 2.5)):
        trainer._keep_if_best(distance)
        best.append(trainer.best["step"])
    assert best == [3, 4, 5, 5, 7]


class Spoiled(WaveStream):
    """Some batches hold NaN."""

    bad: tuple[int, ...] = ()

    def batches(self, start: Cursor) -> Iterator[Batch]:
        for batch in super().batches(start):
            spoiled = batch.after.batch in self.bad
            yield replace(batch, heard=batch.heard * torch.nan) if spoiled else batch


@pytest.mark.parametrize("adversarial_from", [0, 100])
def test_one_bad_batch_changes_nothing_and_two_in_a_row_stop_the_training(
    files: list[Path], tmp_path: Path, adversarial_from: int, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Spoiled(files, V1)
    stream.bad = (2, 4, 6, 7)
    settings = recipe(steps=10, adversarial_from=adversarial_from, save_every=1)
    trainer = VAETrainer(fresh(V1), settings, stream, RunFolder(tmp_path))
    after: list[dict[str, Tensor]] = []

    def tell(told: Told) -> None:
        state = {**trainer.vae.state_dict(), **trainer.discriminators.state_dict()}
        after.append({key: value.clone() for key, value in state.items()})

    with pytest.raises(Diverged, match="2 steps in a row, up to step 7"):
        trainer.train(tell=tell)
    assert len(after) == 6
    assert same(after[0], after[1])
    assert not same(after[1], after[2])
    assert all(value.isfinite().all() for value in after[-1].values())
    assert "step 2 was not applied" in caplog.text


def test_a_frozen_encoder_stays_while_the_decoder_learns(files: list[Path], tmp_path: Path) -> None:
    settings = recipe(steps=4, adversarial_from=2, frozen_encoder=True)
    trainer = VAETrainer(fresh(V2), settings, WaveStream(files, V2), RunFolder(tmp_path))
    assert trainer.train()
    start, now = fresh(V2).state_dict(), trainer.vae.state_dict()
    same_still = {key for key, value in now.items() if torch.equal(value, start[key])}
    assert {key for key in now if key.startswith("encoder.")} <= same_still
    assert "decoder.model.1.weight_v" not in same_still


def test_a_state_of_another_model_is_refused(files: list[Path], tmp_path: Path) -> None:
    settings = recipe(steps=1, adversarial_from=10)
    VAETrainer(fresh(V1), settings, WaveStream(files, V1), RunFolder(tmp_path)).train()
    with pytest.raises(ConfigError, match="another model"):
        VAETrainer(fresh(V2), settings, WaveStream(files, V2), RunFolder(tmp_path))


def test_a_changed_corpus_begins_a_new_epoch(files: list[Path], tmp_path: Path) -> None:
    settings = recipe(steps=1, adversarial_from=10)
    VAETrainer(fresh(V1), settings, WaveStream(files, V1), RunFolder(tmp_path)).train()
    trainer = VAETrainer(fresh(V1), settings, WaveStream(files, V1, seed=1), RunFolder(tmp_path))
    assert trainer.cursor == Cursor(epoch=1)


def test_learning_rates() -> None:
    loop = recipe(steps=100, learning_rate=1.0, warmup_steps=10, decay=0.9).training
    assert learning_rate(loop, 0) == pytest.approx(0.1)
    assert learning_rate(loop, 20) == pytest.approx(0.9**20)
    cosine = replace(loop, schedule="cosine")
    assert learning_rate(cosine, 50) == pytest.approx(0.5)
    assert learning_rate(cosine, 99) < 1e-3
