"""Several workers that train one model, or one that trains it alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from model_core.training.step import PackLoss
from model_core.transformer import Block


@dataclass(frozen=True, slots=True)
class World:
    """This worker among all. Whoever starts the workers joins them (`torch.distributed`)."""

    rank: int
    size: int

    @classmethod
    def here(cls) -> "World":
        """As the process group says; alone where there is none."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls(0, 1)

    def sum(self, values: Tensor) -> Tensor:
        """Over all workers, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def largest(self, number: int, device: torch.device) -> int:
        """Over all workers."""
        value = torch.tensor(number, device=device)
        if self.size > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def everyones(self, value: Any) -> list[Any]:
        """What each worker has, in the order of their ranks."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


def spread(
    loss: PackLoss, how: Literal["ddp", "fsdp2"], world: World, half: torch.dtype | None
) -> nn.Module:
    """The module that workers call. half: the type of the arithmetic where it is not float32."""
    if world.size == 1:
        return loss
    if how == "ddp":
        return DistributedDataParallel(loss, gradient_as_bucket_view=True)
    mesh = init_device_mesh(loss.model.device.type, (world.size,))
    # Rotations stay float32, so blocks do not cast what enters them.
    policy = MixedPrecisionPolicy(
        param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for module in loss.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(loss, mesh=mesh, mp_policy=policy)
    return loss


@contextmanager
def gradients_of(module: nn.Module, *, last: bool) -> Iterator[None]:
    """Workers share gradients in the last backward pass of a step only."""
    if isinstance(module, DistributedDataParallel) and not last:
        with module.no_sync():
            yield
        return
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    yield
