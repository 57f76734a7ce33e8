"""What training minimises: flow matching on target patches, and when to stop.

Shapes: B rows, T positions, N target patches. Source: spec §7 and §8.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.flow_matching import Draws, draw, flow_loss
from model_core.sequences import Batch
from model_core.voxcpm import VoxCPM


class Losses(NamedTuple):
    """Means over target patches, as scalars."""

    flow: Tensor
    stop: Tensor


def losses(
    model: VoxCPM,
    batch: Batch,
    *,
    draws: Draws | None = None,
    progress: float = 0.0,
    generator: torch.Generator | None = None,
) -> Losses:
    """Teacher-forced losses of a batch. A batch without a target has losses of zero.

    draws: random numbers for the N targets, row by row; drawn here when not given.
    progress: share of training done, in [0, 1]; moves the ranges of the flow's config.
    """
    config = model.config
    before = model.shifted(model.hidden(batch))
    targets = model.targets(batch, before)
    if draws is None:
        draws = draw(
            targets.patches,
            config.dit_config.cfm_config,
            progress=progress,
            mean_mode=config.mean_mode,
            generator=generator,
        )
    flow = flow_loss(
        model.estimator,
        targets.mu,
        targets.patches,
        targets.past,
        draws,
        mean_mode=config.mean_mode,
    )
    mask = batch.loss_mask
    logits = model.stop_logits(before.semantic[mask]).float()
    stop = F.cross_entropy(logits, batch.stop_labels[mask], reduction="sum")
    count = max(1, len(targets.patches))
    return Losses(flow.sum() / count, stop / count)
