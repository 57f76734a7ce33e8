"""Low-rank adapters (arXiv 2106.09685) and the choice of what a fine-tuning trains.

An adapter folder holds lora_weights.safetensors (or .ckpt) and lora_config.json. Source: spec §12.
Shapes: r rank; A is (r, in), B is (out, r); y = W x + b + dropout(B A x) · alpha / r.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from model_core.voxcpm import VoxCPM
from model_core.weights import read_weights
from schemas.errors import ConfigError, ModelLoadError

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_PROJECTIONS = ("enc_to_lm_proj", "lm_to_dit_proj", "res_to_dit_proj", "fusion_concat_proj")
_FILES = ("lora_weights.safetensors", "lora_weights.ckpt")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoRAConfig:
    """Which linear layers are adapted, and how. Field names are those of lora_config.json."""

    enable_lm: bool = False
    """Adapt both language models."""
    enable_dit: bool = False
    """Adapt LocDiT."""
    enable_proj: bool = False
    """Adapt the projections between the parts."""
    r: int = 8
    alpha: int | float = 16
    dropout: float = 0.0
    """Share of the adapter's outputs that training drops, in [0, 1)."""
    target_modules_lm: tuple[str, ...] = _ATTENTION
    target_modules_dit: tuple[str, ...] = _ATTENTION
    target_proj_modules: tuple[str, ...] = _PROJECTIONS

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ConfigError(f"lora r must be at least 1, got {self.r}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora dropout must be in [0, 1), got {self.dropout}")


class LoRALinear(nn.Linear):
    """A linear layer with an adapter beside it; the base keeps its names in the state dict."""

    def __init__(self, base: nn.Linear, config: LoRAConfig) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        like = base.weight
        self.lora_A = nn.Parameter(like.new_empty(config.r, base.in_features))
        self.lora_B = nn.Parameter(like.new_zeros(base.out_features, config.r))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scaling = config.alpha / config.r
        self.dropout = nn.Dropout(config.dropout)
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        adapted = F.linear(F.linear(x, self.lora_A), self.lora_B)
        return super().forward(x) + self.dropout(adapted) * self.scaling

    def merged(self) -> nn.Linear:
        """One plain layer that does the same."""
        plain = nn.Linear(
            self.in_features, self.out_features, bias=self.bias is not None, device="meta"
        )
        delta = (self.lora_B.float() @ self.lora_A.float()) * self.scaling
        plain.weight = nn.Parameter((self.weight.float() + delta).to(self.weight.dtype).detach())
        plain.bias = self.bias
        return plain


def add_lora(model: VoxCPM, config: LoRAConfig) -> None:
    """Adapt the layers that the config names, in place.

    Raises ConfigError when it names none, or the model was made ready for inference.
    """
    for parent, name, layer in _targets(model, config):
        setattr(model.get_submodule(parent), name, LoRALinear(layer, config))


def merge_lora(model: VoxCPM) -> None:
    """Fold every adapter into its layer, in place: inference then costs nothing more."""
    for parent, name, layer in list(_linears(model)):
        if isinstance(layer, LoRALinear):
            setattr(model.get_submodule(parent), name, layer.merged())


def load_lora(model: VoxCPM, folder: str | Path) -> LoRAConfig:
    """Add the adapters of a folder to a model.

    Raises ModelLoadError when files are missing, or keys are missing or of another shape; the model
    is then as it was.
    """
    folder = Path(folder)
    file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if file is None or not (folder / "lora_config.json").is_file():
        raise ModelLoadError(f"no adapter here ({_FILES[0]} and lora_config.json): {folder}")
    try:
        raw = json.loads((folder / "lora_config.json").read_text(encoding="utf-8"))
        config = TypeAdapter(LoRAConfig).validate_python(raw["lora_config"])
    except (ConfigError, ValueError, KeyError, TypeError) as error:
        what = _first_fault(error) if isinstance(error, ValidationError) else error
        raise ModelLoadError(f"{folder / 'lora_config.json'} is damaged: {what}") from error
    weights = read_weights(file)
    wanted = {
        f"{parent}.{name}.{matrix}".removeprefix("."): shape
        for parent, name, layer in _targets(model, config)
        for matrix, shape in (
            ("lora_A", (config.r, layer.in_features)),
            ("lora_B", (layer.out_features, config.r)),
        )
    }
    wrong = [
        key
        for key in wanted.keys() | weights.keys()
        if key not in wanted or key not in weights or wanted[key] != weights[key].shape
    ]
    if wrong:
        raise ModelLoadError(
            f"{file} does not fit the model: {len(wrong)} keys are missing, unknown or of another "
            f"shape, such as {min(wrong)}"
        )
    add_lora(model, config)
    own = lora_state(model)
    with torch.no_grad():
        for key, value in weights.items():
            own[key].copy_(value)
    return config


def save_lora(
    folder: str | Path,
    model: VoxCPM | Mapping[str, Tensor],
    config: LoRAConfig,
    base_model: str,
) -> None:
    """Write an adapter folder. base_model: path or hub name of what it adapts.

    model: whose adapters, or the adapters' parameters by name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    adapters = lora_state(model) if isinstance(model, VoxCPM) else model
    state = {key: value.cpu().contiguous() for key, value in adapters.items()}
    save_file(state, folder / _FILES[0])
    raw = {"base_model": base_model, "lora_config": asdict(config)}
    (folder / "lora_config.json").write_text(json.dumps(raw, indent=1), encoding="utf-8")


def lora_state(model: VoxCPM) -> dict[str, Tensor]:
    """The adapters' parameters by name, detached but shared."""
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if name.endswith((".lora_A", ".lora_B"))
    }


def select_trainable(model: VoxCPM, mode: Literal["full", "lora"]) -> list[nn.Parameter]:
    """Leave gradients on for what a fine-tuning trains: everything, or the adapters alone.

    Raises ConfigError when adapters are asked for and there are none.
    """
    chosen = []
    for name, parameter in model.named_parameters():
        trains = mode == "full" or name.endswith((".lora_A", ".lora_B"))
        parameter.requires_grad_(trains)
        if trains:
            chosen.append(parameter)
    if not chosen:
        raise ConfigError("the model has no adapters to train; add_lora comes first")
    return chosen


def _targets(model: VoxCPM, config: LoRAConfig) -> list[tuple[str, str, nn.Linear]]:
    """The plain layers that the config names. Raises ConfigError when there are none."""
    if model.fused:
        raise ConfigError("adapters go into a model before it is made ready for inference")
    found = [
        (parent, name, layer)
        for parent, name, layer in _linears(model)
        if not isinstance(layer, LoRALinear) and _is_target(parent, name, config)
    ]
    if not found:
        raise ConfigError("the LoRA settings adapt no layer: enable lm, dit or proj")
    return found


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _linears(model: VoxCPM) -> Iterator[tuple[str, str, nn.Linear]]:
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            parent, _, name = path.rpartition(".")
            yield parent, name, module


def _is_target(parent: str, name: str, config: LoRAConfig) -> bool:
    if parent.startswith(("base_lm.", "residual_lm.")):
        return config.enable_lm and name in config.target_modules_lm
    if parent.startswith("feat_decoder.estimator"):
        return config.enable_dit and name in config.target_modules_dit
    return config.enable_proj and not parent and name in config.target_proj_modules
