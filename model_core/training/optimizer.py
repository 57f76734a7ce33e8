"""AdamW over the float32 weights, and the norm of their gradients."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from model_core.training.config import OptimizerConfig
from model_core.training.masters import Masters


def adamw(masters: Masters, config: OptimizerConfig) -> torch.optim.AdamW:
    """All in one kernel. Matrices decay, norms and biases do not."""
    weights = list(masters.weights.values())
    groups = [
        {"params": [w for w in weights if w.dim() == 2], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.dim() != 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        fused=True,
    )


def norm_of(grads: list[Tensor]) -> Tensor:
    """The norm of all gradients of all workers' parts as one vector, a scalar."""
    norm = nn.utils.get_total_norm(grads)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


@torch.no_grad()
def clip(masters: Masters, norm: float, longest: float) -> None:
    """Scale the gradients down to a norm, if theirs is greater: most steps need no pass at all."""
    if norm > longest:
        torch._foreach_mul_(masters.grads(), longest / (norm + 1e-6))
