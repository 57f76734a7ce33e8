"""Finite scalar quantisation of the semantic LM's hidden states.

Shapes: D model width, S quantised channels. Source: spec §6; FSQ is arXiv 2309.15505.
"""

from torch import Tensor, nn

from model_core.packed import Linear, packed


class ScalarQuantizer(nn.Module):
    """Rounds each of S squashed channels to one of 2 · scale + 1 levels."""

    def __init__(self, dim: int, channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.in_proj: Linear = nn.Linear(dim, channels)
        self.out_proj: Linear = nn.Linear(channels, dim)

    def fuse(self) -> None:
        """For inference."""
        self.in_proj, self.out_proj = packed(self.in_proj), packed(self.out_proj)

    def quantize(self, h: Tensor) -> Tensor:
        """(…, D) -> (…, S) in [-1, 1]; the gradient is that of the values before rounding."""
        squashed = self.in_proj(h).tanh()
        rounded = (squashed * self.scale).round() / self.scale  # half to even
        return squashed + (rounded - squashed).detach() if squashed.requires_grad else rounded

    def forward(self, h: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        return self.out_proj(self.quantize(h))
