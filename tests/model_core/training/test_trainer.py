"""Training goes as it should: it learns, saves, resumes, stops, and says what it does."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from model_core.checkpoint import load_checkpoint
from model_core.flow_matching import Draws
from model_core.lora import LoRAConfig, load_lora
from model_core.synthesis import SpeechRequest, Synthesizer
from model_core.training import trainer
from model_core.training.config import Line, OptimizerConfig, ScheduleConfig, TrainerConfig
from model_core.training.packs import Pack, Position
from model_core.training.parallel import World
from model_core.training.step import PackLoss
from model_core.training.validation import validated
from schemas.errors import ConfigError, Diverged
from tests.model_core.training.runs import config, lines, run, same, weights
from tests.model_core.training.toy import ToyStream, opened, pack_of


class Fixed:
    """The same packs in each step."""

    def __init__(self, *packs: Pack) -> None:
        self._packs = packs

    def packs(self, start: Position) -> Iterator[Pack]:
        while True:
            yield from self._packs

    def validation(self) -> list[Pack]:
        return []


# It learns, and what it saves can be used.


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_tiny_model_learns_one_pack_by_heart(tmp_path: Path, precision: str) -> None:
    settings = config(
        60, precision=precision, schedule=ScheduleConfig(shape="wsd", warmup_steps=3), log_every=10
    )
    outcome = run(tmp_path, settings, Fixed(pack_of(3, size=2)))
    curve = [line["loss"] for line in lines(tmp_path)]
    assert curve[-1] < 0.6 * curve[0]
    assert outcome.finished
    assert outcome.step == 60
    opened_again = load_checkpoint(tmp_path / "checkpoints" / "last")
    ((_, speech),) = Synthesizer(opened_again).speak([SpeechRequest(text="hello", seed=1)])
    assert speech.wave.isfinite().all()


def test_a_checkpoint_holds_the_trained_weights_in_the_official_layout(tmp_path: Path) -> None:
    outcome = run(tmp_path, config(2))
    saved = load_checkpoint(outcome.last, dtype=torch.float32)
    state = saved.model.state_dict()
    assert same(state, weights(tmp_path))  # this model's config asks for float32
    assert not same(state, dict(opened()[0].state_dict()))
    for name, value in opened()[1].state_dict().items():
        assert saved.vae.state_dict()[name].equal(value)
    names = {path.name for path in outcome.last.iterdir()}
    assert {"config.json", "model.safetensors", "audiovae.safetensors", "tokenizer.json"} <= names
    link = tmp_path / "checkpoints" / "last"
    assert link.is_symlink()
    assert os.readlink(link) == "step_0000002"


def test_adapters_alone_are_trained_and_saved(tmp_path: Path) -> None:
    lora = LoRAConfig(enable_lm=True, enable_dit=True, enable_proj=True, r=4, dropout=0.1)
    settings = config(3, mode="lora", lora=lora, ema_decay=0.5)
    outcome = run(tmp_path, settings)
    assert not (outcome.last / "model.safetensors").exists()
    model = opened()[0]
    assert load_lora(model, outcome.last) == lora
    trained = weights(tmp_path)
    assert all(name.endswith((".lora_A", ".lora_B")) for name in trained)
    assert any(value.abs().max() > 0 for name, value in trained.items() if "lora_B" in name)
    average = weights(tmp_path, "average")
    loaded = dict(model.named_parameters())
    assert all(loaded[name].equal(value) for name, value in average.items())


def test_the_average_is_what_is_validated_and_saved_for_use(tmp_path: Path) -> None:
    settings = config(3, ema_decay=0.75, optimizer=OptimizerConfig(lr=2e-2))
    outcome = run(tmp_path, settings, ToyStream(held_out=1))
    own, average = weights(tmp_path), weights(tmp_path, "average")
    saved = load_checkpoint(outcome.last, dtype=torch.float32).model.state_dict()
    assert same(saved, average)
    assert not same(saved, own)
    # Three steps by hand: a run of one more step each, without an average.
    expected = dict(opened()[0].state_dict())
    for steps in (1, 2, 3):
        folder = tmp_path / str(steps)
        stops = iter([False] * (steps - 1) + [True] * 9)
        run(folder, replace(settings, ema_decay=None), stopped=lambda stops=stops: next(stops))
        step = weights(folder)
        expected = {name: value.lerp(step[name], 0.25) for name, value in expected.items()}
    for name, value in expected.items():
        torch.testing.assert_close(average[name], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("decay", [None, 0.75])
def test_validation_is_of_what_is_saved_with_numbers_that_stay(
    tmp_path: Path, precision: str, decay: float | None
) -> None:
    fast = OptimizerConfig(lr=2e-2)
    stream = ToyStream(held_out=2)
    outcome = run(tmp_path, config(3, precision=precision, ema_decay=decay, optimizer=fast), stream)
    (line,) = lines(tmp_path, "validation")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = load_checkpoint(outcome.last, dtype=dtype).model
    found = validated(
        PackLoss(model, autocast=None),
        list(stream.validation()),
        pack_of(0),
        World(0, 1),
        seed=0,
        dtype=dtype,
        weights=(1.0, 1.0),
    )
    assert found is not None
    for name, value in found.items():
        assert line[name] == pytest.approx(value, rel=1e-6)
    assert outcome.best_loss == pytest.approx(found["loss"], rel=1e-6)


# The sum is what counts, however it is cut.


def merged(a: Pack, b: Pack) -> Pack:
    both = {
        name: torch.cat((getattr(a, name), getattr(b, name)))
        for name in ("tokens", "is_audio", "patches", "is_target", "stop_labels")
    }
    return Pack(
        **both,
        lengths=a.lengths + b.lengths,
        sample_ids=a.sample_ids + b.sample_ids,
        layouts=a.layouts + b.layouts,
    )


def test_a_step_is_a_mean_over_targets_however_packs_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(row: Any, model: Any, seed: Any, progress: float, **more: Any) -> Draws:
        count, like = row.num_targets, row.batch.patches
        t = torch.full((count,), 0.3)
        noise = torch.ones(count, *like.shape[1:])
        return Draws(torch.ones(count, dtype=torch.bool), t, t, noise, torch.zeros_like(noise))

    monkeypatch.setattr(trainer, "draws_for", constant)
    long, short = pack_of(1, size=4), pack_of(2, size=1)
    run(tmp_path / "two", config(2, accumulate=2), Fixed(long, short))
    run(tmp_path / "one", config(2), Fixed(merged(long, short)))
    for two, one in zip(lines(tmp_path / "two"), lines(tmp_path / "one"), strict=True):
        for name in ("loss", "flow", "stop", "grad_norm"):
            assert two[name] == pytest.approx(one[name], rel=1e-4)
        assert two["by_layout"].keys() == one["by_layout"].keys()


@pytest.mark.parametrize(
    "settings", [{"lambda_reading": 1.0}, {"pure_noise": 1.0}, {"noisy_history": 1.0}]
)
def test_what_helps_a_small_corpus_is_part_of_the_step_and_repeats(
    tmp_path: Path, settings: dict[str, float]
) -> None:
    run(tmp_path / "plain", config(2))
    run(tmp_path / "helped", config(2, **settings))
    run(tmp_path / "again", config(2, **settings))
    plain, helped, again = (weights(tmp_path / name) for name in ("plain", "helped", "again"))
    assert not same(plain, helped)
    assert same(helped, again)
    (line, *_) = lines(tmp_path / "helped")
    assert ("misread" in line) == ("lambda_reading" in settings)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activation_checkpointing_changes_no_number(tmp_path: Path, precision: str) -> None:
    for name, on in (("kept", False), ("again", True)):
        run(tmp_path / name, config(2, precision=precision, checkpoint_activations=on))
    assert same(weights(tmp_path / "kept"), weights(tmp_path / "again"))


def test_bfloat16_adds_gradients_up_in_float32(tmp_path: Path) -> None:
    first = run(tmp_path / "fp32", config(3, accumulate=2))
    second = run(tmp_path / "bf16", config(3, accumulate=2, precision="bf16"))
    assert first.step == second.step
    exact, rounded = lines(tmp_path / "fp32"), lines(tmp_path / "bf16")
    for a, b in zip(exact, rounded, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=0.02)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=0.05)
    for value in weights(tmp_path / "bf16").values():
        assert value.dtype == torch.float32
    some = weights(tmp_path / "bf16")["base_lm.layers.0.mlp.up_proj.weight"]
    assert not some.equal(some.bfloat16().float()), "what a step adds is finer than bfloat16"


@pytest.mark.slow
# Both come from within torch.compile.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_blocks_train_alike_and_keep_their_names(tmp_path: Path) -> None:
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("no C++ compiler here")
    run(tmp_path / "plain", config(3))
    run(tmp_path / "compiled", config(3, compile=True))
    plain, compiled = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    assert plain.keys() == compiled.keys()
    for a, b in zip(lines(tmp_path / "plain"), lines(tmp_path / "compiled"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)


def test_best_and_last_are_kept_and_all_else_goes(tmp_path: Path) -> None:
    stream = ToyStream(held_out=2)
    # The steps are so long that the model gets worse and worse.
    settings = config(
        6, save_every=1, optimizer=OptimizerConfig(lr=0.5), schedule=ScheduleConfig(warmup_steps=0)
    )
    outcome = run(tmp_path, settings, stream)
    judged = {line["step"]: line["loss"] for line in lines(tmp_path, "validation")}
    assert len(judged) == 6
    best = min(judged, key=lambda step: judged[step])
    assert best != 6
    assert outcome.best is not None
    assert outcome.best.name == f"step_{best:07d}"
    assert outcome.best_loss == pytest.approx(judged[best])
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "best",
        "last",
        f"step_{best:07d}",
        "step_0000006",
    }


def test_validation_disturbs_nothing(tmp_path: Path) -> None:
    run(tmp_path / "with", config(3, validate_every=1, ema_decay=0.5), ToyStream(held_out=2))
    run(tmp_path / "without", config(3, ema_decay=0.5))
    for name in ("weights", "average"):
        assert same(weights(tmp_path / "with", name), weights(tmp_path / "without", name))


# Numbers that are none.


class Poisoned(ToyStream):
    """Some packs hold NaN latents in their second sample."""

    def __init__(self, *which: int) -> None:
        super().__init__()
        self.which = which

    def packs(self, start: Position) -> Iterator[Pack]:
        for number, pack in enumerate(super().packs(start)):
            if number in self.which:
                patches = pack.patches.clone()
                audio = pack.owner[pack.is_audio]
                patches[audio == 1] = float("nan")
                pack = replace(pack, patches=patches)
            yield pack


def test_a_step_that_is_not_finite_is_left_out_and_told(tmp_path: Path) -> None:
    settings = config(1, ema_decay=0.5)
    run(tmp_path, settings, Poisoned(0))
    (line,) = lines(tmp_path, "not_finite")
    assert line["step"] == 1
    assert line["sample_ids"] == ["0.0.0.0.1"]
    assert line["flow"] == "nan"
    for name in ("weights", "average"):
        assert same(weights(tmp_path, name), dict(opened()[0].state_dict()))
    assert not weights(tmp_path, "optimizer")


def test_training_stops_when_it_is_not_finite_twice(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"step 4.*0\.1\.0\.0\.1") as error:
        run(tmp_path, config(9), Poisoned(1, 3))
    assert "2 times" in str(error.value)
    assert [line["step"] for line in lines(tmp_path, "not_finite")] == [2, 4]
    # A checkpoint in between shows that the first was passed.
    run(tmp_path / "saved", config(9, save_every=3), Poisoned(1, 3, 8))


# What it tells.


def test_a_line_tells_what_a_run_does(tmp_path: Path) -> None:
    run(tmp_path, config(2, pack_positions=100), ToyStream(skips=True))
    first, second = lines(tmp_path)
    assert second["loss"] == pytest.approx(second["flow"] + second["stop"])
    assert first["lr"] == pytest.approx(2e-3 / 3)
    assert second["lr"] == pytest.approx(2e-3 * 2 / 3)
    assert first["position"] == [0, 0, 1]
    assert first["padding"] == 0
    assert 0 < first["pack_fill"] < 1
    assert first["mfu"] > 0
    assert set(first["by_layout"]) == set(pack_of(0).layouts)
    (skipped,) = lines(tmp_path, "skipped")
    assert skipped["sample_id"] == "missing.0.0.1.0"
    assert skipped["reason"] == "its latents hold NaN"
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_run_lets_itself_be_heard(
    tmp_path: Path, devset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wave, rate = soundfile.read(devset / "audio" / "es_allison_s1.flac", stop=3 * 16_000)
    soundfile.write(tmp_path / "voice.wav", wave, rate)
    samples = (
        Line(text="hello there", reference=tmp_path / "voice.wav"),
        Line(text="hello", reference=tmp_path / "no such.wav"),
        Line(text="hello", description="an old man"),
    )
    run(tmp_path / "heard", config(2, sample_every=2, samples=samples))
    waves = sorted((tmp_path / "heard" / "samples" / "step_0000002").glob("*.wav"))
    assert [wave.name for wave in waves] == ["01.wav", "03.wav"]
    (unspoken,) = lines(tmp_path / "heard", "unspoken")
    assert unspoken["sample"] == 2
    assert "no such.wav" in caplog.text
    run(tmp_path / "silent", config(2))
    for name in ("weights", "random"):
        assert same(weights(tmp_path / "heard", name), weights(tmp_path / "silent", name))


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"accumulate": 0},
        {"ema_decay": 1.0},
        {"mode": "lora"},
        {"precision": "fp8"},
        {"lambda_stop": -1.0},
        {"lambda_reading": -1.0},
        {"pure_noise": 1.5},
        {"sample_every": -1},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        TrainerConfig(**{"steps": 1, **settings})
