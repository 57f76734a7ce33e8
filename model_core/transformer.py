"""The MiniCPM-4 block, of which all four transformers are built.

Shapes: B batch, T positions, D model width, H query heads, G key-value heads, K channels per head.
Source: spec §4. Parameter names are those of the checkpoint format.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model_core.config import TransformerConfig
from model_core.packed import Linear, PackedLinear, packed
from model_core.rope import Rotation, rotate

Attend: TypeAlias = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q (B, H, T, K), k (B, G, S, K), v (B, G, S, K)) -> (B, H, T, K).

What may see what is decided outside the block: see `bidirectional`, `causal` and `model_core.cache`.
"""


def bidirectional(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every position sees every other."""
    return grouped_attention(q, k, v)


def causal(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every position sees itself and the past. Padding on the right needs no mask of its own."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Grouped-query attention without repeating keys: a group's heads become its queries.

    mask: None, or (B, 1, 1, S) booleans, the same for all queries of a row.
    """
    batch, heads, length, channels = q.shape
    groups = k.shape[1]
    q = q.reshape(batch, groups, heads // groups * length, channels)
    if mask is None and batch >= _MANY_ROWS and q.device.type == "cpu":
        y = _plain_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
    else:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return y.view(batch, heads, length, channels)


_MANY_ROWS = 8
"""From so many short rows on, PyTorch's kernel for a CPU takes over twice as long as plain products."""


def _plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(N, T, K), (N, S, K), (N, S, K) -> (N, T, K)."""
    nothing = q.new_zeros(1, 1, 1)
    scores = torch.baddbmm(nothing, q, k.transpose(1, 2), beta=0, alpha=q.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(dim=-1), v)


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32 and rounded once."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Grouped-query attention; `fuse` makes one product of the three projections."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.num_kv_heads = config.num_kv_heads
        self.head_dim = config.head_dim
        width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj: Linear = nn.Linear(config.dim, width, bias=False)
        self.k_proj: Linear = nn.Linear(config.dim, kv_width, bias=False)
        self.v_proj: Linear = nn.Linear(config.dim, kv_width, bias=False)
        self.o_proj: Linear = nn.Linear(width, config.dim, bias=False)
        self.qkv_proj: Linear | None = None

    def fuse(self) -> None:
        """For inference: q, k and v in one product, weights laid out for the machine."""
        self.qkv_proj = packed(self.q_proj, self.k_proj, self.v_proj)
        self.o_proj = packed(self.o_proj)
        del self.q_proj, self.k_proj, self.v_proj

    def forward(
        self, x: Tensor, rotation: Rotation | None, attend: Attend, layer: int, keep: slice
    ) -> Tensor:
        """(B, T, D) -> (B, kept T, D): the outputs of the queries in `keep`."""
        if self.qkv_proj is None:
            joint = torch.cat((self.q_proj(x), self.k_proj(x), self.v_proj(x)), dim=-1)
        else:
            joint = self.qkv_proj(x)
        batch, length, _ = x.shape
        joint = joint.view(batch, length, self.num_heads + 2 * self.num_kv_heads, self.head_dim)
        joint = joint.transpose(1, 2)
        v = joint[:, self.num_heads + self.num_kv_heads :]
        qk = joint[:, : self.num_heads + self.num_kv_heads]
        if rotation is not None:
            qk = rotate(qk, rotation)
        q, k = qk[:, : self.num_heads, keep], qk[:, self.num_heads :]
        y = attend(layer, q, k, v)  # (B, H, kept, K)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_proj: Linear = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.up_proj: Linear = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.down_proj: Linear = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def fuse(self) -> None:
        """For inference: weights laid out for the machine, gating done within the products."""
        self.gate_proj = packed(self.gate_proj, silu=True)
        self.up_proj, self.down_proj = packed(self.up_proj), packed(self.down_proj)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        gate = self.gate_proj(x)
        if isinstance(self.up_proj, PackedLinear):
            return self.down_proj(self.up_proj.times(x, gate))
        return self.down_proj(F.silu(gate) * self.up_proj(x))


class Block(nn.Module):
    """Pre-norm attention and MLP, each branch times the residual scale."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.scale = config.residual_scale
        self.input_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, rotation: Rotation | None, attend: Attend, layer: int, keep: slice
    ) -> Tensor:
        """(B, T, D) -> (B, kept T, D)."""
        y = self.self_attn(self.input_layernorm(x), rotation, attend, layer, keep)
        x = x[:, keep] + self._scaled(y)
        return x + self._scaled(self.mlp(self.post_attention_layernorm(x)))

    def _scaled(self, x: Tensor) -> Tensor:
        return x if self.scale == 1.0 else x * self.scale


class Transformer(nn.Module):
    """A stack of blocks and a final norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.checkpointing = False
        """In training: keep what enters a block, and compute the rest again for the gradient."""

    def fuse(self) -> None:
        """For inference; afterwards the weights are no longer those of the checkpoint format."""
        for module in self.modules():
            if isinstance(module, Attention | MLP):
                module.fuse()

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None,
        attend: Attend,
        keep: slice = slice(None),
    ) -> Tensor:
        """(B, T, D) -> (B, kept T, D), after the final norm.

        keep: the positions whose output is wanted; the last layer computes no others.
        """
        everything = slice(None)
        last = len(self.layers) - 1
        again = self.checkpointing and torch.is_grad_enabled()
        for layer, block in enumerate(self.layers):
            inputs = (x, rotation, attend, layer, keep if layer == last else everything)
            x = checkpoint(block, *inputs, use_reentrant=False) if again else block(*inputs)
        return self.norm(x)
