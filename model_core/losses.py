"""What training minimises: flow matching on target patches, and when to stop.

Shapes: B rows, T positions, N target patches. Source: spec §7 and §8.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.flow_matching import Draws, draw, flow_loss
from model_core.sequences import Batch
from model_core.transformer import Attend, causal
from model_core.voxcpm import Hidden, VoxCPM


class Losses(NamedTuple):
    """Of each target patch (N,), or their means as scalars."""

    flow: Tensor
    stop: Tensor


def target_losses(
    model: VoxCPM,
    batch: Batch,
    *,
    draws: Draws | None = None,
    progress: float = 0.0,
    generator: torch.Generator | None = None,
    positions: Tensor | None = None,
    attend: Attend = causal,
) -> Losses:
    """Teacher-forced losses of the N target patches, row by row: (N,) each, float32.

    draws: random numbers for the N targets; drawn here when not given.
    progress: share of training done, in [0, 1]; moves the ranges of the flow's config.
    positions, attend: of rows that hold several sequences; see `VoxCPM.hidden`.
    """
    config = model.config
    before = model.shifted(model.hidden(batch, attend, attend, positions))
    if draws is None:
        draws = draw(
            batch.patches.new_empty(len(batch.target_index), *batch.patches.shape[1:]),
            config.dit_config.cfm_config,
            progress=progress,
            mean_mode=config.mean_mode,
            generator=generator,
        )
    return losses_after(model, batch, before, draws)


def losses_after(model: VoxCPM, batch: Batch, before: Hidden, draws: Draws) -> Losses:
    """The same, where the LMs have run. before: their states, shifted."""
    targets = model.targets(batch, before)
    flow = flow_loss(
        model.estimator,
        targets.mu,
        targets.patches,
        targets.past,
        draws,
        mean_mode=model.config.mean_mode,
    )
    where = batch.target_index
    logits = model.stop_logits(before.semantic.flatten(0, 1)[where]).float()
    stop = F.cross_entropy(logits, batch.stop_labels.flatten()[where], reduction="none")
    return Losses(flow, stop)


def losses(
    model: VoxCPM,
    batch: Batch,
    *,
    draws: Draws | None = None,
    progress: float = 0.0,
    generator: torch.Generator | None = None,
) -> Losses:
    """The means of `target_losses`. A batch without a target has losses of zero."""
    flow, stop = target_losses(model, batch, draws=draws, progress=progress, generator=generator)
    count = max(1, len(flow))
    return Losses(flow.sum() / count, stop.sum() / count)
