"""Checkpoints in the layout of the official releases, read and written.

    config.json                           the model's shape
    model.safetensors                     all weights but the AudioVAE's; or pytorch_model.bin
    audiovae.safetensors                  or audiovae.pth; names without a prefix
    tokenizer.json, tokenizer_config.json, special_tokens_map.json

Source: spec §1.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model_core.audio_vae import AudioVAE
from model_core.config import VoxCPMConfig
from model_core.tokenizer import TextTokenizer
from model_core.voxcpm import VoxCPM
from model_core.weights import fill, read_weights
from schemas.errors import ConfigError, ModelLoadError

MODEL_FILES = ("model.safetensors", "pytorch_model.bin")
VAE_FILES = ("audiovae.safetensors", "audiovae.pth")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An opened checkpoint."""

    model: VoxCPM
    vae: AudioVAE
    tokenizer: TextTokenizer


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the machine multiplies it natively, else float32."""
    native = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def load_checkpoint(
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Checkpoint:
    """Open a checkpoint folder.

    dtype: type of the weights; the device's best when None. The AudioVAE stays in float32.
    Raises ModelLoadError naming the file, and the keys that are missing or of another shape, when
    the folder is no checkpoint of this family.
    """
    folder = Path(folder)
    device = torch.device(device)
    config = read_config(folder)
    model_file, vae_file = _one_of(folder, MODEL_FILES), _one_of(folder, VAE_FILES)
    with torch.device("meta"):
        model, vae = VoxCPM(config), AudioVAE(config.audio_vae_config)
    dtype = default_dtype(device) if dtype is None else dtype
    fill(model, read_weights(model_file), model_file, device=device, dtype=dtype)
    fill(vae, read_weights(vae_file), vae_file, device=device, dtype=torch.float32)
    tokenizer = TextTokenizer(folder / "tokenizer.json")
    return Checkpoint(model.eval(), vae.eval(), tokenizer)


def load_vae(folder: str | Path, *, device: torch.device | str = "cpu") -> AudioVAE:
    """Open the AudioVAE of a checkpoint folder alone, in float32. Raises ModelLoadError."""
    folder = Path(folder)
    config = read_config(folder)
    file = _one_of(folder, VAE_FILES)
    with torch.device("meta"):
        vae = AudioVAE(config.audio_vae_config)
    fill(vae, read_weights(file), file, device=torch.device(device), dtype=torch.float32)
    return vae.eval()


def vae_hash(vae: AudioVAE) -> str:
    """blake2b-128 over an AudioVAE's settings and float32 weights, hexadecimal.

    The same whichever file the weights came from. The AudioVAE is not folded yet.
    """
    if vae.folded:
        raise ConfigError("a folded AudioVAE has no weights to hash")
    settings = {"version": vae.config.version, **vae.config.to_dict()}
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for name, value in sorted(_plain(vae).items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.float().numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(folder: str | Path, model: VoxCPM, vae: AudioVAE, tokenizer: Path) -> None:
    """Write a folder that this and the official loader read. tokenizer: a folder that has its files.

    The folder appears whole or not at all; one that is there is replaced.
    """
    if model.fused or vae.folded:
        raise ConfigError("a model that was made ready for inference cannot be saved")
    if any(name.endswith(".lora_A") for name, _ in model.named_parameters()):
        raise ConfigError("the model has adapters: save_lora saves them, merge_lora folds them in")
    if not (tokenizer / TOKENIZER_FILES[0]).is_file():
        raise ConfigError(f"there is no {TOKENIZER_FILES[0]} to save with the model: {tokenizer}")
    folder = Path(folder)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        dtype = str(model.dtype).removeprefix("torch.")
        config = {**model.config.to_dict(), "dtype": dtype}
        (aside / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        save_file(_plain(model), aside / "model.safetensors")
        save_file(_plain(vae), aside / "audiovae.safetensors")
        for name in TOKENIZER_FILES:
            if (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, aside / name)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_config(folder: Path) -> VoxCPMConfig:
    """Parse and check config.json."""
    file = folder / "config.json"
    if not file.is_file():
        raise ModelLoadError(f"no checkpoint here (config.json is missing): {folder}")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(raw, Mapping):
            raise ConfigError("it is no JSON object")
        return VoxCPMConfig.from_dict(raw)
    except (ConfigError, ValueError) as error:
        raise ModelLoadError(f"{file}: {error}") from error


def _one_of(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ModelLoadError(f"the checkpoint has neither {' nor '.join(names)}: {folder}")


def _plain(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
