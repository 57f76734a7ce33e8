"""Official checkpoints open, what is saved is one of them, and a damaged one says what is wrong."""

import json
import pickle
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_core.audio_vae import AudioVAE
from model_core.checkpoint import Checkpoint, load_checkpoint, read_config, save_checkpoint
from model_core.config import VoxCPMConfig
from model_core.synthesis import SpeechRequest, Synthesizer
from model_core.voxcpm import VoxCPM
from schemas.errors import ConfigError, ModelLoadError

CORE = Path(__file__).parents[1] / "data" / "core"
NAMES = ("v1", "v15", "v2", "v2b")


def opened(folder: Path) -> Checkpoint:
    return load_checkpoint(folder, dtype=torch.float32)


def saved(folder: Path, name: str) -> Path:
    source = opened(CORE / name)
    save_checkpoint(folder, source.model, source.vae, CORE / name)
    return folder


def spoken(folder: Path) -> Tensor:
    """What a checkpoint says with one seed: (S,)."""
    request = SpeechRequest(text="hello world", seed=5, max_patches=5)
    [(_, speech)] = Synthesizer(opened(folder)).speak([request])
    return speech.wave


@cache
def official_speech(name: str) -> Tensor:
    return spoken(CORE / name)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkpoint to be damaged."""
    place = tmp_path / "copy"
    shutil.copytree(CORE / "v2", place, ignore=shutil.ignore_patterns("lora", "expected*", "*.wav"))
    return place


def refusal(folder: Path) -> str:
    """Why a folder does not open: one error of one line."""
    with pytest.raises(ModelLoadError) as caught:
        opened(folder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    assert len(message) < 500, message
    return message


@pytest.mark.parametrize("name", NAMES)
def test_parameters_have_the_official_names_and_shapes(name: str) -> None:
    listed = json.loads((CORE / name / "state_dict_keys.json").read_text(encoding="utf-8"))
    checkpoint = opened(CORE / name)
    own = {
        **checkpoint.model.state_dict(),
        **{f"audio_vae.{key}": value for key, value in checkpoint.vae.state_dict().items()},
    }
    assert {key: list(value.shape) for key, value in own.items()} == {
        key: value["shape"] for key, value in listed.items()
    }
    assert not checkpoint.model.training
    assert not checkpoint.vae.training
    assert all(p.requires_grad for p in checkpoint.model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_opens_with_the_same_weights_and_the_same_voice(
    tmp_path: Path, name: str
) -> None:
    folder = saved(tmp_path / "saved", name)
    before, after = opened(CORE / name), opened(folder)
    for part in ("model", "vae"):
        old, new = getattr(before, part).state_dict(), getattr(after, part).state_dict()
        assert old.keys() == new.keys()
        assert all(old[key].equal(new[key]) for key in old)
    assert after.model.config == before.model.config
    assert after.tokenizer.tokens("hello 世界") == before.tokenizer.tokens("hello 世界")
    assert spoken(folder).equal(official_speech(name))
    assert [place.name for place in tmp_path.iterdir()] == ["saved"], "nothing is left beside it"


def test_a_saved_folder_holds_what_the_official_loader_reads(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved", "v2")
    listed = json.loads((CORE / "v2" / "state_dict_keys.json").read_text(encoding="utf-8"))
    model, vae = load_file(folder / "model.safetensors"), load_file(folder / "audiovae.safetensors")
    assert model.keys() == {key for key in listed if not key.startswith("audio_vae.")}
    assert {f"audio_vae.{key}" for key in vae} == listed.keys() - model.keys()
    assert (folder / "tokenizer.json").is_file()
    assert (folder / "tokenizer_config.json").is_file()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architecture"] == "voxcpm2"
    assert config["dtype"] == "float32"


def test_saving_replaces_what_was_there(tmp_path: Path) -> None:
    place = tmp_path / "saved"
    place.mkdir()
    (place / "pytorch_model.bin").write_text("old")
    saved(place, "v1")
    saved(place, "v2")
    assert not (place / "pytorch_model.bin").exists()
    assert opened(place).model.config.is_v2


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "state_dict"])
def test_weights_of_bin_and_pth_files_are_the_same(copy: Path, wrapped: bool) -> None:
    for old, new in (
        ("model.safetensors", "pytorch_model.bin"),
        ("audiovae.safetensors", "audiovae.pth"),
    ):
        state = load_file(copy / old)
        (copy / old).unlink()
        torch.save({"state_dict": state, "epoch": 3} if wrapped else state, copy / new)
    assert spoken(copy).equal(official_speech("v2"))


def test_a_file_in_the_format_of_old_releases_of_pytorch_opens(copy: Path) -> None:
    state = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(state, copy / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert spoken(copy).equal(official_speech("v2"))


def test_safetensors_win_over_a_pickle_beside_them(copy: Path) -> None:
    (copy / "pytorch_model.bin").write_text("not even a pickle")
    (copy / "audiovae.pth").write_text("not even a pickle")
    assert opened(copy).model.config.is_v2


def test_keys_that_the_model_does_not_know_are_left(copy: Path) -> None:
    for file in (copy / "model.safetensors", copy / "audiovae.safetensors"):
        save_file({**load_file(file), "another.weight": torch.ones(3)}, file)
    raw = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    raw["unheard_of"] = raw["lm_config"]["unheard_of"] = raw["audio_vae_config"]["new"] = 7
    (copy / "config.json").write_text(json.dumps(raw))
    checkpoint = opened(copy)
    assert "another.weight" not in checkpoint.model.state_dict()
    assert spoken(copy).equal(official_speech("v2"))


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("model.safetensors", "fusion_concat_proj.weight"),
        ("audiovae.safetensors", "decoder.model.0.weight_g"),
    ],
)
def test_a_missing_key_is_named_with_its_file(copy: Path, file: str, key: str) -> None:
    weights = load_file(copy / file)
    del weights[key]
    save_file(weights, copy / file)
    message = refusal(copy)
    assert f"{copy / file} lacks {key}" in message


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("model.safetensors", "stop_head.weight"),
        ("audiovae.safetensors", "encoder.fc_mu.bias"),
    ],
)
def test_a_key_of_another_shape_is_named_with_its_file(copy: Path, file: str, key: str) -> None:
    weights = load_file(copy / file)
    weights[key] = torch.zeros(3, 7)
    save_file(weights, copy / file)
    message = refusal(copy)
    assert str(copy / file) in message
    assert f"{key} is (3, 7), not " in message


def test_a_weight_that_is_no_fraction_is_named_with_its_file(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["stop_head.weight"] = weights["stop_head.weight"].long()
    save_file(weights, copy / "model.safetensors")
    message = refusal(copy)
    assert str(copy / "model.safetensors") in message
    assert "stop_head.weight" in message


def test_many_faults_make_one_short_message(copy: Path) -> None:
    shutil.copy(CORE / "v1" / "model.safetensors", copy)
    message = refusal(copy)
    assert "model.safetensors lacks fusion_concat_proj" in message
    assert "other shapes" in message
    assert "more" in message


class Intruder:
    """Runs code when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.safetensors", "pytorch_model.bin"),
        ("audiovae.safetensors", "audiovae.pth"),
    ],
)
def test_code_in_a_pickle_is_refused_and_not_run(
    copy: Path, tmp_path: Path, old: str, new: str, writer: str
) -> None:
    proof = tmp_path / "ran"
    state = {**load_file(copy / old), "payload": Intruder(proof)}
    (copy / old).unlink()
    if writer == "torch":
        torch.save(state, copy / new)
    else:
        (copy / new).write_bytes(pickle.dumps(state))
    message = refusal(copy)
    assert str(copy / new) in message
    assert "more than tensors" in message
    assert not proof.exists()
    pickle.loads(pickle.dumps(Intruder(proof)))
    assert proof.exists(), "the payload works where pickles are trusted"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def scribbled(file: Path) -> None:
    file.write_bytes(b"\xff" * 64 + file.read_bytes()[64:])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, scribbled, emptied])
@pytest.mark.parametrize("name", ["model.safetensors", "audiovae.safetensors", "audiovae.pth"])
def test_a_damaged_file_is_named(copy: Path, name: str, damage: Callable[[Path], None]) -> None:
    if name == "audiovae.pth":
        torch.save(load_file(copy / "audiovae.safetensors"), copy / name)
        (copy / "audiovae.safetensors").unlink()
    damage(copy / name)
    assert str(copy / name) in refusal(copy)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": 7}, {"a": [torch.ones(1)]}])
def test_a_pickle_of_something_else_is_named(copy: Path, content: object) -> None:
    (copy / "model.safetensors").unlink()
    torch.save(content, copy / "pytorch_model.bin")
    assert str(copy / "pytorch_model.bin") in refusal(copy)


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("config.json", "config.json is missing"),
        ("model.safetensors", "neither model.safetensors nor pytorch_model.bin"),
        ("audiovae.safetensors", "neither audiovae.safetensors nor audiovae.pth"),
        ("tokenizer.json", "no tokenizer.json"),
    ],
)
def test_a_missing_file_is_named_with_its_folder(copy: Path, missing: str, says: str) -> None:
    (copy / missing).unlink()
    message = refusal(copy)
    assert says in message
    assert str(copy) in message


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


LLAMA = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "model_type": "llama"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (json.dumps(LLAMA), "no lm_config"),
        (json.dumps({**LLAMA, "architecture": "whisper"}), "'whisper' is not of this family"),
        ("[1, 2]", "no JSON object"),
        ("{", "line 1"),
        ('{"lm_config": null}', "lm_config"),
    ],
)
def test_the_config_of_another_family_is_named(copy: Path, content: str, says: str) -> None:
    (copy / "config.json").write_text(content)
    message = refusal(copy)
    assert str(copy / "config.json") in message
    assert says in message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"patch_size": 0}, "patch_size"),
        ({"patch_size": "many"}, "patch_size"),
        ({"feat_dim": 17}, "feat_dim is 17"),
        ({"encoder_config": {"hidden_dim": 64, "num_heads": 4}}, "channels per head must agree"),
        ({"encoder_config": None}, "encoder_config"),
        ({"lm_config": {"hidden_size": 96}}, "lm_config"),
        ({"audio_vae_config": [1]}, "audio_vae_config"),
        ({"audio_vae_config": {"encoder_rates": "fast"}}, "encoder_rates"),
    ],
)
def test_a_value_that_cannot_be_is_named(copy: Path, change: dict[str, Any], says: str) -> None:
    raw = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps({**raw, **change}))
    message = refusal(copy)
    assert str(copy / "config.json") in message
    assert says in message


@pytest.mark.parametrize("name", NAMES)
def test_a_config_that_was_written_reads_as_it_was_and_says_no_null(name: str) -> None:
    config = read_config(CORE / name)
    written = json.dumps(config.to_dict())
    assert "null" not in written
    assert VoxCPMConfig.from_dict(json.loads(written)) == config


def test_an_absent_condition_of_the_autoencoder_survives_writing() -> None:
    """Its null means "none", unlike an absent key, which means the class's default."""
    raw = json.loads((CORE / "v2" / "config.json").read_text(encoding="utf-8"))
    raw["audio_vae_config"]["sr_bin_boundaries"] = None
    config = VoxCPMConfig.from_dict(raw)
    assert config.audio_vae_config.sr_bin_boundaries is None
    assert VoxCPMConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("null", [True, False])
def test_a_null_head_width_reads_like_an_absent_one_and_is_not_written(null: bool) -> None:
    raw = json.loads((CORE / "v1" / "config.json").read_text(encoding="utf-8"))
    for part in ("lm_config", "encoder_config", "dit_config"):
        raw[part].pop("kv_channels", None)
        if null:
            raw[part]["kv_channels"] = None
    config = VoxCPMConfig.from_dict(raw)
    assert config == read_config(CORE / "v1")
    assert config.base.head_dim == 16
    assert "kv_channels" not in json.dumps(config.to_dict())


def test_a_config_without_architecture_is_of_the_v1_class_and_its_spelling_is_free() -> None:
    raw = json.loads((CORE / "v1" / "config.json").read_text(encoding="utf-8"))
    raw.pop("architecture", None)
    assert VoxCPMConfig.from_dict(raw) == read_config(CORE / "v1")
    v2 = json.loads((CORE / "v2" / "config.json").read_text(encoding="utf-8"))
    assert VoxCPMConfig.from_dict({**v2, "architecture": "VoxCPM2"}).is_v2


def test_what_was_made_ready_for_inference_is_not_saved(tmp_path: Path) -> None:
    checkpoint = opened(CORE / "v2")
    fused = opened(CORE / "v2").model.fuse()
    folded = opened(CORE / "v2").vae.fold_weight_norm()
    for model, vae in ((fused, checkpoint.vae), (checkpoint.model, folded)):
        with pytest.raises(ConfigError, match="ready for inference cannot be saved"):
            save_checkpoint(tmp_path / "saved", model, vae, CORE / "v2")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_could_not_be_opened_again_is_not_saved(tmp_path: Path) -> None:
    place = saved(tmp_path / "saved", "v2")
    checkpoint = opened(CORE / "v2")
    with pytest.raises((ConfigError, ModelLoadError), match="tokenizer"):
        save_checkpoint(place, checkpoint.model, checkpoint.vae, tmp_path)
    opened(place)
    assert [left.name for left in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_come_in_the_type_that_was_asked_and_the_autoencoder_in_float32(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    checkpoint = load_checkpoint(CORE / "v1", dtype=dtype)
    assert {p.dtype for p in checkpoint.model.parameters()} == {dtype}
    assert {p.dtype for p in checkpoint.vae.parameters()} == {torch.float32}
    save_checkpoint(tmp_path / "saved", checkpoint.model, checkpoint.vae, CORE / "v1")
    again = load_checkpoint(tmp_path / "saved", dtype=dtype)
    assert again.model.config.dtype == str(dtype).removeprefix("torch.")
    assert again.model.stop_head.weight.equal(checkpoint.model.stop_head.weight)  # type: ignore[union-attr]


def test_building_from_a_config_alone_gives_the_modules_of_the_checkpoint() -> None:
    config = read_config(CORE / "v2")
    model, vae = VoxCPM(config), AudioVAE(config.audio_vae_config)
    checkpoint = opened(CORE / "v2")
    assert model.state_dict().keys() == checkpoint.model.state_dict().keys()
    assert vae.state_dict().keys() == checkpoint.vae.state_dict().keys()
