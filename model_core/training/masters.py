"""The float32 weights that an optimiser moves, and the weights that compute.

Three ways to one end. In float32 both are the same tensors. In bfloat16, with one worker, the
module's weights are a bfloat16 copy, made anew after each step, and their gradients are added up in
float32 as they come: no weight is cast in the forward pass, and no float32 gradient is allocated in
the backward pass. With several workers the casts are the library's: autocast beside
DistributedDataParallel, mixed precision in FSDP2.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Masters:
    """Trainable weights of a module, by name, in float32."""

    def __init__(self, module: nn.Module, *, copy_dtype: torch.dtype | None) -> None:
        """copy_dtype: turn the module's weights into a copy of this type; None leaves them."""
        trainable = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.weights: dict[str, nn.Parameter] = trainable
        self._copies: list[Tensor] = []
        self._sums: dict[str, Tensor] = {}
        if copy_dtype is None:
            return
        self.weights = {n: nn.Parameter(p.detach().clone()) for n, p in trainable.items()}
        module.to(copy_dtype)
        for name, parameter in trainable.items():
            self._copies.append(parameter)
            self._sums[name] = torch.zeros_like(self.weights[name])
            hook = partial(self._add_up, name)
            parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def _add_up(self, name: str, copy: Tensor) -> None:
        """Take the gradient that a backward pass has just left on a copy."""
        assert copy.grad is not None, "the hook runs after a gradient has come"
        master, total = self.weights[name], self._sums[name]
        if master.grad is None:
            master.grad = total.copy_(copy.grad)
        else:
            total.add_(copy.grad)
        copy.grad = None

    def clear(self) -> None:
        """Forget the gradients."""
        for weight in self.weights.values():
            weight.grad = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the copy anew, after the weights have moved."""
        if self._copies:
            torch._foreach_copy_(self._copies, list(self.weights.values()))

    def grads(self) -> list[Tensor]:
        """All there are."""
        return [w.grad for w in self.weights.values() if w.grad is not None]

    @contextmanager
    def lent(self, others: dict[str, Tensor] | None) -> Iterator[None]:
        """The module computes with other weights for a while; None: with its own."""
        if others is None:
            yield
            return
        self._swap(others)
        try:
            yield
        finally:
            self._swap(others)

    @torch.no_grad()
    def _swap(self, others: dict[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            own, other = local(weight), local(others[name])
            kept = own.clone()
            own.copy_(other)
            other.copy_(kept)
        self.refresh()


class MovingAverage:
    """An exponential moving average of the weights, parted over workers as they are."""

    def __init__(self, masters: Masters, decay: float) -> None:
        self._masters = masters
        self.weights = {n: w.detach().clone() for n, w in masters.weights.items()}
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of a step."""
        own = [local(weight) for weight in self._masters.weights.values()]
        self._update([local(weight) for weight in self.weights.values()], own, 0)


def local(tensor: Tensor) -> Tensor:
    """What this worker holds of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
