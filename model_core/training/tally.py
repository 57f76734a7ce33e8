"""What is counted between two lines of a training log."""

import resource
import sys
from typing import Any

import torch
from torch import Tensor

from model_core.config import VoxCPMConfig
from model_core.losses import Losses
from model_core.training.flops import training_flops
from model_core.training.parallel import World
from model_core.training.step import Row
from schemas.samples import LAYOUTS

_COUNTS = ("seconds", "positions", "targets", "packs", "sequences", "flops", "skipped")


def loss_table(rows: list[Row], losses: list[Losses], device: torch.device) -> Tensor:
    """(layouts, 3) float64: sums of flow and stop losses and the number of targets, by layout."""
    table = torch.zeros(len(LAYOUTS), 3, dtype=torch.float64, device=device)
    for row, (flow, stop) in zip(rows, losses, strict=True):
        parts = torch.stack((flow, stop, torch.ones_like(flow)), dim=1).detach().double()
        table.index_add_(0, row.layouts, parts)
    return table


class Tally:
    """Sums since the last line. A checkpoint keeps them, so that a resumed log reads as unbroken."""

    def __init__(self, config: VoxCPMConfig, device: torch.device, *, frozen: bool) -> None:
        self._config = config
        self._frozen = frozen
        self._device = device
        self._losses = torch.zeros(len(LAYOUTS), 3, dtype=torch.float64, device=device)
        self._counts = dict.fromkeys(_COUNTS, 0.0)

    def add(self, rows: list[Row], losses: Tensor, seconds: float) -> None:
        """One step. losses: (layouts, 3) as in `loss_table`, of this worker."""
        self._losses += losses
        counts = self._counts
        counts["seconds"] += seconds
        for row in rows:
            counts["positions"] += len(row.pack)
            counts["targets"] += row.num_targets
            counts["packs"] += 1
            counts["sequences"] += len(row.pack.lengths)
            counts["skipped"] += len(row.pack.skipped)
            counts["flops"] += training_flops(self._config, row.pack, frozen=self._frozen)

    def summary(
        self,
        world: World,
        *,
        weights: tuple[float, float],
        patch_s: float,
        budget: int | None,
        peak: float | None,
    ) -> dict[str, Any]:
        """Means and rates over all workers, and a fresh start. Every worker must call it.

        weights: of the flow and stop loss; patch_s: seconds of a patch; budget: positions that a
        pack may hold; peak: floating-point operations per second of one worker.
        """
        losses = world.sum(self._losses.clone()).cpu()
        values = torch.tensor(list(self._counts.values()), dtype=torch.float64, device=self._device)
        counts = dict(zip(_COUNTS, world.sum(values).tolist(), strict=True))
        seconds = max(counts["seconds"] / world.size, 1e-9)
        self.restore(None)
        line: dict[str, Any] = means(losses.sum(dim=0), weights)
        line["by_layout"] = {
            layout: means(sums, weights)
            for layout, sums in zip(LAYOUTS, losses, strict=True)
            if sums[2] > 0
        }
        line |= {
            "positions_per_s": counts["positions"] / seconds,
            "target_patches_per_s": counts["targets"] / seconds,
            "audio_s_per_s": counts["targets"] * patch_s / seconds,
            "padding": 0.0,
            "sequences_per_pack": counts["sequences"] / max(1, counts["packs"]),
            "pack_fill": counts["positions"] / (counts["packs"] * budget)
            if budget and counts["packs"]
            else None,
            "tflops": counts["flops"] / seconds / 1e12,
            "mfu": counts["flops"] / seconds / (peak * world.size) if peak else None,
            "seconds": seconds,
            "skipped": int(counts["skipped"]),
            "peak_memory_gb": peak_memory_gb(self._device),
        }
        return line

    def state(self) -> dict[str, Any]:
        """For JSON."""
        return {"losses": self._losses.tolist(), "counts": self._counts}

    def restore(self, state: dict[str, Any] | None) -> None:
        """What `state` gave; None: from zero."""
        if state is None:
            self._losses.zero_()
            self._counts = dict.fromkeys(_COUNTS, 0.0)
        else:
            self._losses.copy_(torch.tensor(state["losses"], dtype=torch.float64))
            self._counts = {name: state["counts"][name] for name in _COUNTS}


def means(sums: Tensor, weights: tuple[float, float]) -> dict[str, float]:
    """Of (flow, stop, number of targets) sums. weights: of flow and stop in the whole."""
    flow, stop = (float(sums[i] / sums[2].clamp(min=1)) for i in (0, 1))
    return {"loss": weights[0] * flow + weights[1] * stop, "flow": flow, "stop": stop}


def peak_memory_gb(device: torch.device) -> float:
    """Of the device, or of this process where that is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
