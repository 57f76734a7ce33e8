"""The loss on what training never sees."""

import torch

from model_core.training.packs import Pack
from model_core.training.parallel import World
from model_core.training.step import PackLoss, draws_for, row_of
from model_core.training.tally import loss_table, means


@torch.no_grad()
def validated(
    module: PackLoss,
    packs: list[Pack],
    spare: Pack,
    world: World,
    *,
    seed: int,
    dtype: torch.dtype,
    weights: tuple[float, float],
) -> dict[str, float] | None:
    """Mean losses over the packs of all workers, with the same random numbers at every call.

    None where nobody has packs. Every worker must call it. spare: computed and not counted, by
    workers that have fewer packs than others: with FSDP all compute together.
    """
    device = module.model.device
    rounds = world.largest(len(packs), device)
    if not rounds:
        return None
    training = module.training
    module.eval()
    total = None
    for number in range(rounds):
        row = row_of(packs[number] if number < len(packs) else spare, device, dtype)
        draws = draws_for(row, module.model, (seed, "validation"), 0.0)
        table = loss_table([row], [module(row, draws)], device)
        if number >= len(packs):
            table.zero_()
        total = table if total is None else total + table
    module.train(training)
    assert total is not None
    return means(world.sum(total).cpu().sum(dim=0), weights)
