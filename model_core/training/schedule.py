"""The learning rate over the steps of a run."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from model_core.training.config import ScheduleConfig


def share_at(step: int, steps: int, config: ScheduleConfig) -> float:
    """Learning rate of step 0 … steps - 1 as a share of the highest, in (0, 1]."""
    warmup = min(config.warmup_steps, steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    low = config.final_ratio
    if config.shape == "cosine":
        done = (step - warmup) / max(1, steps - warmup)
        return low + (1 - low) * (1 + math.cos(math.pi * min(1.0, done))) / 2
    decay = max(1, round(config.decay_share * steps))
    left = min(1.0, max(0, steps - step) / decay)
    return low + (1 - low) * left


def scheduler(optimizer: Optimizer, config: ScheduleConfig, *, steps: int, step: int) -> LambdaLR:
    """The schedule of a run of `steps`, about to take step number `step`.

    It follows from the step alone: a run that is resumed with more steps goes on along the schedule
    of the longer run.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return LambdaLR(optimizer, lambda at: share_at(at, steps, config), last_epoch=step - 1)
