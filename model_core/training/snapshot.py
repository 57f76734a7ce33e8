"""A model as it is for use: whole, plain, and apart from the one that trains."""

from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from model_core.lora import LoRAConfig, add_lora, merge_lora
from model_core.training.parallel import World
from model_core.voxcpm import VoxCPM
from model_core.weights import fill


def whole(tensor: Tensor) -> Tensor:
    """A tensor on the host, put together from all workers' parts. Every worker must call it."""
    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor()
    return tensor.detach().cpu()


def gathered(tensors: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    """`whole` of many; the first worker has them, the others get nothing."""
    found = {}
    for name, tensor in tensors.items():
        value = whole(tensor) if isinstance(tensor, DTensor) or world.rank == 0 else None
        if value is not None and world.rank == 0:
            found[name] = value
    return found


def plain_copy(
    model: VoxCPM, weights: dict[str, Tensor], lora: LoRAConfig | None, *, merged: bool
) -> VoxCPM:
    """The model with those weights, in the type that its config names, on the host.

    weights: whole, all or the trained ones; what is missing is taken from the model, which then
    must not be sharded. merged: adapters are folded into their layers.
    """
    with torch.device("meta"):
        copy = VoxCPM(model.config)
    if lora is not None:
        add_lora(copy, lora)
    rest = {n: p for n, p in model.state_dict().items() if n not in weights}
    dtype = getattr(torch, model.config.dtype)
    fill(
        copy,
        {**rest, **weights},
        Path("the model in training"),
        device=torch.device("cpu"),
        dtype=dtype,
    )
    if merged:
        merge_lora(copy)
    return copy.requires_grad_(False).eval()
