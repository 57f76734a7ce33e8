"""LocDiT: the velocity of a patch on its way from noise to latents.

Shapes: N patches, P frames of a patch, C latent channels, E width, M condition tokens
(1 in the V1 class, 2 in V2). The official estimator holds patches as (N, C, P); here they are
(N, P, C) throughout. Source: spec §8.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.config import TransformerConfig
from model_core.packed import Linear, packed
from model_core.rope import Rope
from model_core.transformer import Transformer, bidirectional


def sinusoid(t: Tensor, width: int) -> Tensor:
    """(N,) times in [0, 1] -> (N, width), sines before cosines.

    In the type of t: the releases were trained on what bfloat16 makes of it, which for the high
    frequencies is far from the exact angle.
    """
    half = width // 2
    step = math.log(10000) / (half - 1)
    frequency = torch.exp(torch.arange(half, device=t.device, dtype=t.dtype) * -step)
    angle = 1000 * t[:, None] * frequency
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


class TimeMLP(nn.Module):
    """Two layers over a sinusoid of time."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(dim, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, E) -> (N, E)."""
        return self.linear_2(F.silu(self.linear_1(x)))


class Given(NamedTuple):
    """What stays while one patch is solved, as tokens: condition (N, M, E), past (N, P, E)."""

    mu: Tensor
    cond: Tensor


class LocalDiT(nn.Module):
    """A bidirectional transformer over condition, time, the last patch and the noisy patch."""

    def __init__(self, config: TransformerConfig, channels: int, *, v2: bool, rope: Rope) -> None:
        super().__init__()
        self.dim = config.dim
        self.v2 = v2
        self.in_proj: Linear = nn.Linear(channels, config.dim)
        self.cond_proj: Linear = nn.Linear(channels, config.dim)
        self.out_proj: Linear = nn.Linear(config.dim, channels)
        self.time_mlp = TimeMLP(config.dim)
        self.delta_time_mlp = TimeMLP(config.dim)
        self.decoder = Transformer(config)
        self._rope = rope

    def fuse(self) -> None:
        """For inference."""
        self.in_proj, self.cond_proj = packed(self.in_proj), packed(self.cond_proj)
        self.out_proj = packed(self.out_proj)
        self.decoder.fuse()

    def given(self, mu: Tensor, cond: Tensor) -> Given:
        """mu: (N, M · E), the LMs' word on the patch; cond: (N, P, C), the patch before it."""
        return Given(mu.view(len(mu), mu.shape[-1] // self.dim, self.dim), self.cond_proj(cond))

    def time_token(self, t: Tensor, dt: Tensor) -> Tensor:
        """(N,), (N,) -> (N, E). dt is 0 unless the mean velocity is asked for."""
        dtype = self.time_mlp.linear_1.weight.dtype
        now, span = sinusoid(t, self.dim).to(dtype), sinusoid(dt, self.dim).to(dtype)
        return self.time_mlp(now) + self.delta_time_mlp(span)

    def velocity(self, x: Tensor, given: Given, time: Tensor) -> Tensor:
        """x: (N, P, C) noisy patch; time: (N, E) or (1, E) -> velocity (N, P, C)."""
        frames = self.in_proj(x)
        time = time[:, None].expand(len(x), 1, -1)
        head = (given.mu, time) if self.v2 else (given.mu + time,)
        tokens = torch.cat((*head, given.cond, frames), dim=1)
        rotation = self._rope.counting(tokens.shape[1], x.device)
        y = self.decoder(tokens, rotation, bidirectional, keep=slice(-x.shape[1], None))
        return self.out_proj(y)

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, cond: Tensor, dt: Tensor) -> Tensor:
        """One call of the estimator: (N, P, C) -> (N, P, C)."""
        return self.velocity(x, self.given(mu, cond), self.time_token(t, dt))
