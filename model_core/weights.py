"""Tensors from files, and into modules.

Files open through safetensors or `weights_only=True` and nothing else.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from schemas.errors import ModelLoadError


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
