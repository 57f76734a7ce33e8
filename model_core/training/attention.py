"""Causal attention within each sequence of a pack, and never across.

Shapes: T positions of the pack, S positions of a sequence, H query heads, G key-value heads,
K channels per head.
"""

from collections.abc import Sequence as Rows

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from model_core.transformer import causal

_SHORT = 256
"""Up to so many positions, plain products train faster on a CPU than PyTorch's kernel."""


class PackedCausal:
    """An `Attend` for rows that hold several sequences; `over` says which.

    One object serves every pack, so that a compiled block need not be compiled anew.
    """

    def __init__(self) -> None:
        self.lengths: tuple[int, ...] = ()
        self._bounds = torch.zeros(1, dtype=torch.int32)
        self._masks: dict[int, Tensor] = {}

    def over(self, lengths: Rows[int], device: torch.device) -> "PackedCausal":
        """Turn to another pack."""
        self.lengths = tuple(lengths)
        self._masks = {}
        if device.type == "cuda":
            ends = torch.tensor((0, *self.lengths)).cumsum(0).int()
            self._bounds = ends.to(device, non_blocking=True)
        return self

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(layer, q (1, H, T, K), k (1, G, T, K), v (1, G, T, K)) -> (1, H, T, K)."""
        if q.device.type == "cuda" and q.dtype in (torch.bfloat16, torch.float16):
            return fused_segments(q, k, v, self._bounds, max(self.lengths))
        pieces = zip(*(torch.split(x, list(self.lengths), dim=2) for x in (q, k, v)), strict=True)
        return torch.cat([self._segment(*piece) for piece in pieces], dim=2)

    def _segment(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One sequence, on any device and in any type: (1, H, S, K)."""
        length = q.shape[2]
        if q.device.type != "cpu" or length > _SHORT:
            return causal(0, q, k, v)
        shared = q.shape[1] // k.shape[1]
        if length not in self._masks:
            future = q.new_full((length, length), float("-inf")).triu(1)
            self._masks[length] = future.repeat(shared, 1)
        grouped = q.reshape(k.shape[1], shared * length, -1)  # heads of a group are its queries
        scores = torch.baddbmm(
            self._masks[length], grouped, k[0].transpose(1, 2), alpha=q.shape[-1] ** -0.5
        )
        return torch.bmm(scores.softmax(dim=-1), v[0]).view(q.shape)


def fused_segments(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """All sequences in one kernel, for half precision on CUDA: (1, H, T, K).

    bounds: (sequences + 1,) int32, where each begins, and the end of the last.
    """
    shared = q.shape[1] // k.shape[1]
    # The public function promises equal heads only.
    k, v = (x[0].repeat_interleave(shared, dim=0).transpose(0, 1) for x in (k, v))
    y = varlen_attn(
        q[0].transpose(0, 1).contiguous(),
        k.contiguous(),
        v.contiguous(),
        bounds,
        bounds,
        longest,
        longest,
        window_size=(-1, 0),
    )
    assert isinstance(y, Tensor), "no logarithms of sums were asked for"
    return y.transpose(0, 1)[None]
