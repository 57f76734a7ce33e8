"""An AudioVAE's weights, and a checkpoint folder with others than it had."""

import os
import shutil
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from model_core.audio_vae import AudioVAE
from model_core.checkpoint import MODEL_FILES, TOKENIZER_FILES, VAE_FILES
from schemas.errors import ConfigError


def weights_of(vae: AudioVAE) -> dict[str, Tensor]:
    """Copies of the weights on the CPU, by the names of the format. Not of a folded model."""
    if vae.folded:
        raise ConfigError("an AudioVAE that was made ready for inference cannot be saved")
    return {key: value.detach().cpu().clone() for key, value in vae.state_dict().items()}


def save_weights(file: Path, weights: dict[str, Tensor]) -> None:
    """Write a .safetensors file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        save_file({key: value.contiguous() for key, value in weights.items()}, aside)
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def save_with_audio_vae(source: Path, folder: Path, weights: dict[str, Tensor]) -> None:
    """Write `folder`: the checkpoint `source` with these weights for its AudioVAE.

    It appears whole or not at all. Raises ConfigError where something is there already.
    """
    if folder.exists():
        raise ConfigError(f"{folder} is there already")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        for name in ("config.json", *MODEL_FILES, *TOKENIZER_FILES):
            if (source / name).is_file():
                shutil.copyfile(source / name, aside / name)
        save_weights(aside / VAE_FILES[0], weights)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
