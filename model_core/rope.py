"""Rotary positions with LongRoPE factors.

Shapes: T positions, K channels per head. Source: spec §4, after LongRoPE (arXiv 2402.13753).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from model_core.config import LMConfig


class Rotation(NamedTuple):
    """Cosine and signed sine of every angle, scaled: (…, T, K) each, float32.

    The two halves of the channels turn by the same angles, one into the other and the other back:
    the sine of the first half is negative.
    """

    cos: Tensor
    sin: Tensor

    def over_heads(self) -> "Rotation":
        """(B, T, K) -> (B, 1, T, K)."""
        return Rotation(self.cos[:, None], self.sin[:, None])


class Rope:
    """Turns positions into rotations. Holds no parameters and nothing that a checkpoint saves."""

    def __init__(self, config: LMConfig, head_dim: int) -> None:
        scaling = config.rope_scaling
        stretched = config.max_position_embeddings / scaling.original_max_position_embeddings
        # The list is chosen once, by the configured length, and never by the sequence at hand.
        factor = scaling.long_factor if stretched > 1 else scaling.short_factor
        with torch.device("cpu"):  # a model may be built on the meta device
            exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
            self._frequency = config.rope_theta**-exponent / torch.tensor(factor)
        self.scale = math.sqrt(
            1 + math.log(stretched) / math.log(scaling.original_max_position_embeddings)
        )
        self._on_device: dict[torch.device, Tensor] = {}
        self._counting: dict[tuple[int, torch.device], Rotation] = {}

    def rotation(self, positions: Tensor) -> Rotation:
        """(…, T) integer positions -> rotations of (…, T, K)."""
        device = positions.device
        if device not in self._on_device:
            self._on_device[device] = self._frequency.to(device)
        angle = positions[..., None].float() * self._on_device[device]  # (…, T, K / 2)
        cos, sin = angle.cos() * self.scale, angle.sin() * self.scale
        return Rotation(torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1))

    def counting(self, length: int, device: torch.device) -> Rotation:
        """Rotations of the positions 0 … length - 1, kept: local transformers ask at every call."""
        key = (length, device)
        if key not in self._counting:
            with torch.inference_mode(False):
                self._counting[key] = self.rotation(torch.arange(length, device=device))
        return self._counting[key]


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate (…, T, K) in float32, half against half, and return it in its own type."""
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    swapped = torch.cat((second, first), dim=-1)
    return torch.addcmul(wide * rotation.cos, swapped, rotation.sin).to(x.dtype)
