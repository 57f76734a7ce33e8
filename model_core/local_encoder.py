"""LocEnc: one vector for the frames of a patch.

Shapes: N patches, P frames of a patch, C latent channels, E encoder width. Source: spec §5.
"""

import torch
from torch import Tensor, nn

from model_core.config import TransformerConfig
from model_core.packed import Linear, packed
from model_core.rope import Rope
from model_core.transformer import Transformer, bidirectional


class LocalEncoder(nn.Module):
    """A learned token reads the frames of its patch."""

    def __init__(self, config: TransformerConfig, channels: int, rope: Rope) -> None:
        super().__init__()
        self.special_token = nn.Parameter(torch.randn(1, 1, 1, config.dim))
        self.in_proj: Linear = nn.Linear(channels, config.dim)
        self.encoder = Transformer(config)
        self._rope = rope

    def fuse(self) -> None:
        """For inference."""
        self.in_proj = packed(self.in_proj)
        self.encoder.fuse()

    def forward(self, patches: Tensor) -> Tensor:
        """(N, P, C) -> (N, E)."""
        frames = self.in_proj(patches)
        token = self.special_token[0].to(frames.dtype).expand(len(frames), 1, -1)
        x = torch.cat((token, frames), dim=1)  # (N, 1 + P, E)
        rotation = self._rope.counting(x.shape[1], x.device)
        return self.encoder(x, rotation, bidirectional, keep=slice(0, 1))[:, 0]
