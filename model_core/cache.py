"""Keys and values of the past, for rows of different length.

Shapes: L layers, R rows, G key-value heads, S positions held, K channels per head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.config import TransformerConfig
from model_core.transformer import Attend, causal, grouped_attention


class KVCache:
    """Rows grow one position at a time and independently; a row can be taken over by another."""

    def __init__(
        self,
        config: TransformerConfig,
        rows: int,
        positions: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (config.num_layers, rows, config.num_kv_heads, positions, config.head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        self._row = torch.arange(rows, device=device)

    @property
    def positions(self) -> int:
        """Positions held for each row."""
        return self.k.shape[3]

    def grow(self, positions: int) -> None:
        """Make room for at least so many positions of each row."""
        more = positions - self.positions
        if more > 0:
            self.k = F.pad(self.k, (0, 0, 0, more))
            self.v = F.pad(self.v, (0, 0, 0, more))

    def move(self, source: int, target: int) -> None:
        """Copy one row over another."""
        self.k[:, target] = self.k[:, source]
        self.v[:, target] = self.v[:, source]

    def prefill(self, rows: Tensor) -> Attend:
        """Causal attention over whole sequences, kept in `rows` (B,) from position 0 on.

        What stands right of a shorter sequence's end is overwritten or masked later.
        """

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            length = k.shape[2]
            self.k[layer, rows, :, :length] = k
            self.v[layer, rows, :, :length] = v
            return causal(layer, q, k, v)

        return attend

    def step(self, position: Tensor, span: int, *, ragged: bool = True) -> Attend:
        """Attention of one new position for each of the first B rows.

        position: (B,) where each row's new key goes; span: all positions are below it;
        ragged: False promises that every row fills the span, which needs no mask.
        """
        batch = len(position)
        row = self._row[:batch]
        seen = torch.arange(span, device=position.device) <= position[:, None]  # (B, span)
        mask = seen[:, None, None] if ragged else None

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.k[layer, row, :, position] = k[:, :, 0]
            self.v[layer, row, :, position] = v[:, :, 0]
            past_k, past_v = self.k[layer, :batch, :, :span], self.v[layer, :batch, :, :span]
            return grouped_attention(q, past_k, past_v, mask)

        return attend
