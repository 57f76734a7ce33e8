"""Adapters of the official format load, act, merge and train, and nothing else changes."""

import json
import shutil
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_core.checkpoint import load_checkpoint, save_checkpoint
from model_core.flow_matching import SolverConfig
from model_core.generation.engine import Engine
from model_core.generation.requests import PatchRequest
from model_core.lora import (
    LoRAConfig,
    LoRALinear,
    add_lora,
    load_lora,
    lora_state,
    merge_lora,
    save_lora,
    select_trainable,
)
from model_core.losses import losses
from model_core.sequences import collate, generation_sequence, training_sequence
from model_core.voxcpm import VoxCPM
from schemas.errors import ConfigError, ModelLoadError

CORE = Path(__file__).parents[1] / "data" / "core"
NAMES = ("v1", "v15", "v2", "v2b")
EVERYTHING = LoRAConfig(enable_lm=True, enable_dit=True, enable_proj=True, r=4, alpha=8)


def fresh(name: str = "v2") -> VoxCPM:
    return load_checkpoint(CORE / name, dtype=torch.float32).model


def adapted(name: str = "v2") -> VoxCPM:
    model = fresh(name)
    load_lora(model, CORE / name / "lora")
    return model


def generated(model: VoxCPM) -> Tensor:
    """Five patches after a text: (5, P, C)."""
    config = model.config
    empty = torch.zeros(0, config.patch_size, config.feat_dim)
    sequence = generation_sequence(torch.arange(110, 118), empty)
    request = PatchRequest(sequence=sequence, seed=3, min_patches=9, max_patches=5)
    [(_, answer)] = Engine(model, SolverConfig(num_steps=4)).generate([request])
    return answer.patches


@cache
def unmerged(name: str) -> Tensor:
    return generated(adapted(name))


@pytest.mark.parametrize("name", NAMES)
def test_official_adapters_load_key_by_key_and_change_what_is_said(name: str) -> None:
    official = load_file(CORE / name / "lora" / "lora_weights.safetensors")
    model = adapted(name)
    state = lora_state(model)
    assert state.keys() == official.keys()
    assert all(state[key].equal(official[key]) for key in state)
    assert (unmerged(name) - generated(fresh(name))).abs().max() > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_merged_fused_and_unmerged_adapters_say_the_same(name: str) -> None:
    model = adapted(name)
    merge_lora(model)
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    assert model.state_dict().keys() == fresh(name).state_dict().keys()
    torch.testing.assert_close(generated(model), unmerged(name), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(generated(model.fuse()), unmerged(name), atol=1e-4, rtol=1e-4)


def test_saving_a_model_does_not_lose_its_adapters(tmp_path: Path) -> None:
    vae = load_checkpoint(CORE / "v2").vae
    with pytest.raises(ConfigError, match="adapters"):
        save_checkpoint(tmp_path / "out", adapted(), vae, CORE / "v2")
    assert not (tmp_path / "out").exists()


def test_a_merged_model_is_saved_as_a_plain_checkpoint(tmp_path: Path) -> None:
    model = adapted()
    merge_lora(model)
    vae = load_checkpoint(CORE / "v2", dtype=torch.float32).vae
    save_checkpoint(tmp_path / "merged", model, vae, CORE / "v2")
    again = load_checkpoint(tmp_path / "merged", dtype=torch.float32).model
    torch.testing.assert_close(generated(again), unmerged("v2"), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("ckpt", [False, True], ids=["safetensors", "ckpt"])
def test_saved_adapters_load_again(tmp_path: Path, ckpt: bool) -> None:
    model, config = fresh(), LoRAConfig(enable_dit=True, enable_proj=True, r=3, alpha=5)
    add_lora(model, config)
    for value in lora_state(model).values():
        value.normal_(std=0.1)
    save_lora(tmp_path / "own", model, config, "openbmb/VoxCPM2")
    if ckpt:
        weights = tmp_path / "own" / "lora_weights.safetensors"
        torch.save({"state_dict": load_file(weights)}, weights.with_suffix(".ckpt"))
        weights.unlink()
    again = fresh()
    assert load_lora(again, tmp_path / "own") == config
    assert lora_state(again).keys() == lora_state(model).keys()
    assert generated(again).equal(generated(model))
    written = json.loads((tmp_path / "own" / "lora_config.json").read_text(encoding="utf-8"))
    official = json.loads((CORE / "v2" / "lora" / "lora_config.json").read_text(encoding="utf-8"))
    assert written["base_model"] == "openbmb/VoxCPM2"
    assert written["lora_config"].keys() == official["lora_config"].keys()


def test_new_adapters_change_nothing_until_they_are_trained() -> None:
    model = fresh()
    add_lora(model, EVERYTHING)
    assert generated(model).equal(generated(fresh()))
    a, b = (
        [value for key, value in lora_state(model).items() if key.endswith(end)]
        for end in ("lora_A", "lora_B")
    )
    assert len(a) == len(b) > 0
    assert all(value.any() for value in a)
    assert not any(value.any() for value in b)


@pytest.mark.parametrize(
    ("config", "prefixes"),
    [
        (LoRAConfig(enable_lm=True), {"base_lm", "residual_lm"}),
        (LoRAConfig(enable_dit=True), {"feat_decoder"}),
        (
            LoRAConfig(enable_proj=True),
            {"enc_to_lm_proj", "lm_to_dit_proj", "res_to_dit_proj", "fusion_concat_proj"},
        ),
        (
            LoRAConfig(enable_dit=True, target_modules_dit=("in_proj", "linear_1")),
            {"feat_decoder"},
        ),
    ],
)
def test_only_the_parts_that_were_enabled_are_adapted(
    config: LoRAConfig, prefixes: set[str]
) -> None:
    model = fresh()
    add_lora(model, config)
    assert {key.split(".")[0] for key in lora_state(model)} == prefixes
    assert ("feat_decoder.estimator.time_mlp.linear_1.lora_A" in lora_state(model)) == (
        "linear_1" in config.target_modules_dit
    )


def test_the_local_encoder_is_never_adapted() -> None:
    model = fresh()
    every = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "in_proj")
    greedy = LoRAConfig(
        enable_lm=True,
        enable_dit=True,
        enable_proj=True,
        target_modules_lm=every,
        target_modules_dit=every,
        target_proj_modules=(*every, "enc_to_lm_proj", "feat_encoder"),
    )
    add_lora(model, greedy)
    assert any(".gate_proj.lora_A" in key for key in lora_state(model))
    assert not any(key.startswith(("feat_encoder", "fsq_layer")) for key in lora_state(model))


def loss(model: VoxCPM) -> Tensor:
    config = model.config
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(4, config.patch_size, config.feat_dim, generator=generator)
    row = training_sequence(torch.arange(110, 115), patches)
    flow, stop = losses(model, collate([row]), generator=generator)
    return flow + stop


def test_only_adapters_get_gradients_and_every_one_does() -> None:
    model = adapted()
    trained = select_trainable(model, "lora")
    loss(model).backward()
    assert {id(p) for p in trained} == {
        id(p) for name, p in model.named_parameters() if name.endswith(("lora_A", "lora_B"))
    }
    for name, parameter in model.named_parameters():
        is_adapter = name.endswith(("lora_A", "lora_B"))
        assert (parameter.grad is not None and bool(parameter.grad.any())) == is_adapter, name


def test_full_training_reaches_every_parameter() -> None:
    model = fresh()
    trained = select_trainable(model, "full")
    assert len(trained) == len(list(model.parameters()))
    loss(model).backward()
    assert all(p.grad is not None for p in trained)


def test_a_step_on_the_adapters_lowers_the_loss_and_leaves_the_base() -> None:
    model = adapted()
    before = {k: v.clone() for k, v in model.state_dict().items() if "lora_" not in k}
    optimizer = torch.optim.Adam(select_trainable(model, "lora"), lr=1e-3)
    first = loss(model)
    for _ in range(5):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    assert loss(model) < first
    assert all(v.equal(before[k]) for k, v in model.state_dict().items() if k in before)


def test_there_is_nothing_to_train_without_adapters() -> None:
    with pytest.raises(ConfigError, match="no adapters to train"):
        select_trainable(fresh(), "lora")


def test_adapters_drop_nothing_outside_training() -> None:
    model = fresh()
    add_lora(model, LoRAConfig(enable_lm=True, r=4, dropout=0.5))
    for value in lora_state(model).values():
        value.normal_(std=0.1)
    assert not any(module.training for module in model.modules())
    assert generated(model).equal(generated(model))
    model.train()
    assert not generated(model).equal(generated(model))


def copied(tmp_path: Path, name: str = "v2") -> Path:
    return Path(shutil.copytree(CORE / name / "lora", tmp_path / "lora"))


def refusal(model: VoxCPM, folder: Path) -> str:
    with pytest.raises((ModelLoadError, ConfigError)) as caught:
        load_lora(model, folder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


def test_a_folder_without_adapters_is_named(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(fresh(), tmp_path)
    assert str(CORE / "v2") in refusal(fresh(), CORE / "v2")
    assert str(tmp_path / "no") in refusal(fresh(), tmp_path / "no")


@pytest.mark.parametrize(("ours", "theirs"), [("v2", "v1"), ("v1", "v2"), ("v2", "v2b")])
def test_adapters_of_another_model_are_refused(ours: str, theirs: str) -> None:
    message = refusal(fresh(ours), CORE / theirs / "lora")
    assert str(CORE / theirs / "lora" / "lora_weights.safetensors") in message
    assert "lora_" in message.rpartition("such as")[2]


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_a_key_that_does_not_fit_is_named_and_the_model_stays_as_it_was(
    tmp_path: Path, fault: str
) -> None:
    folder = copied(tmp_path)
    file = folder / "lora_weights.safetensors"
    weights = load_file(file)
    key = "lm_to_dit_proj.lora_A"
    if fault == "missing":
        del weights[key]
    elif fault == "shape":
        weights[key] = torch.zeros(2, 2)
    else:
        key = "aaa.lora_A"
        weights[key] = torch.zeros(2, 2)
    save_file(weights, file)
    model = fresh()
    message = refusal(model, folder)
    assert str(file) in message
    assert key in message
    assert not lora_state(model)
    load_lora(model, CORE / "v2" / "lora")  # the right folder still fits


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "damaged"),
        ("{}", "lora_config"),
        ("[]", "damaged"),
        ('{"lora_config": {"r": "many"}}', "r"),
        ('{"lora_config": {"r": 0}}', "r must be at least 1"),
        ('{"lora_config": {"dropout": 1.5}}', "dropout"),
    ],
)
def test_damaged_settings_are_named(tmp_path: Path, content: str, says: str) -> None:
    folder = copied(tmp_path)
    (folder / "lora_config.json").write_text(content)
    message = refusal(fresh(), folder)
    assert str(folder / "lora_config.json") in message
    assert says in message


def test_settings_that_adapt_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="adapt no layer"):
        add_lora(fresh(), LoRAConfig())
    with pytest.raises(ConfigError, match="before it is made ready"):
        add_lora(fresh().fuse(), EVERYTHING)


@pytest.mark.parametrize("fields", [{"r": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_impossible_settings_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        LoRAConfig(**{**asdict(EVERYTHING), **fields})
