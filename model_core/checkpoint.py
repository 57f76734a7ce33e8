"""Checkpoints in the layout of the official releases, read and written.

    config.json                           the model's shape
    model.safetensors                     all weights but the AudioVAE's; or pytorch_model.bin
    audiovae.safetensors                  or audiovae.pth; names without a prefix
    tokenizer.json, tokenizer_config.json, special_tokens_map.json

Source: spec §1. Weights open through safetensors or `weights_only=True` and nothing else.
"""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model_core.audio_vae import AudioVAE
from model_core.config import VoxCPMConfig
from model_core.tokenizer import TextTokenizer
from model_core.voxcpm import VoxCPM
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
    folder: Path


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
    return Checkpoint(model.eval(), vae.eval(), tokenizer, folder)


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


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .bin, .pth or .ckpt file without other objects."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        # Files of before PyTorch 1.6 are no zip archives, and cannot be mapped.
        mapped = zipfile.is_zipfile(file)
        raw: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise ModelLoadError(f"{file} does not open: {_first_line(error)}") from error
    except Exception as error:
        # PyTorch's own message is a page of advice on how to run the code all the same.
        code = re.search(r"GLOBAL (\S+)", str(error))
        what = f" (it asks for {code[1]})" if code else ""
        raise ModelLoadError(f"{file} holds more than tensors, or is damaged{what}") from error
    raw = raw.get("state_dict", raw) if isinstance(raw, dict) else raw
    if not isinstance(raw, dict) or not all(isinstance(v, Tensor) for v in raw.values()):
        raise ModelLoadError(f"{file} is no dictionary of tensors")
    return raw


def fill(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    source: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Put weights into a module made on the meta device. Tensors that it does not know are left.

    Raises ModelLoadError with the keys that are missing or of another shape or type.
    """
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in weights]
    misshaped = [
        f"{key} is {_kind(weights[key])}, not {_kind(value)}"
        for key, value in wanted.items()
        if key in weights and _kind(weights[key]) != _kind(value)
    ]
    if missing or misshaped:
        faults = [f"lacks {_some(missing)}"] if missing else []
        faults += (
            [f"has other shapes than config.json says: {_some(misshaped)}"] if misshaped else []
        )
        raise ModelLoadError(f"{source} {' and '.join(faults)}")
    state = {
        key: weights[key].to(device, dtype if weights[key].is_floating_point() else None)
        for key in wanted
    }
    module.load_state_dict(state, assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_(True)


def _kind(tensor: Tensor) -> str:
    """Shape, and the type where it is no floating-point one: those are converted."""
    integers = "" if tensor.is_floating_point() else " of integers"
    return f"{tuple(tensor.shape)}{integers}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _some(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _one_of(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ModelLoadError(f"the checkpoint has neither {' nor '.join(names)}: {folder}")


def _plain(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
