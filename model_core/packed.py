"""Linear layers laid out once for the machine that runs them.

On a CPU, oneDNN copies a plain weight into its own blocked layout at every call; for the few rows
of a decode step that copy costs more than the product. Done once, the same product takes half the
time (`make bench` prints both). Elsewhere a packed layer is a plain one.
"""

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear layer for inference alone: no gradients, nothing in the state dict."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, silu: bool = False) -> None:
        """silu: SiLU comes after the product, in the same pass over memory."""
        super().__init__()
        self.out_features = weight.shape[0]
        self.in_features = weight.shape[1]
        self._bias = bias
        self._silu = silu
        self._blocked = weight.device.type == "cpu" and _blocks(weight.dtype)
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
            if self._blocked
            else weight
        )

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) -> (…, out_features)."""
        if not self._blocked:
            y = F.linear(x, self._weight, self._bias)
            return F.silu(y) if self._silu else y
        after = "swish" if self._silu else "none"
        rows = x.reshape(-1, self.in_features)
        y = torch.ops.mkldnn._linear_pointwise(
            _enough(rows), self._weight, self._bias, after, [], ""
        )
        return y[: len(rows)].view(*x.shape[:-1], self.out_features)

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """The output times `factor` of its shape, in the same pass over memory."""
        if not self._blocked:
            return self(x) * factor
        rows, factors = x.reshape(-1, self.in_features), factor.reshape(-1, self.out_features)
        y = torch.ops.mkldnn._linear_pointwise.binary(
            _enough(rows), _enough(factors), self._weight, self._bias, "mul"
        )
        return y[: len(rows)].view(factor.shape)


def _blocks(dtype: torch.dtype) -> bool:
    """Whether oneDNN has a layout for the type on this CPU; half precision wants AVX-512."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


_FEWEST_ROWS = 4


def _enough(rows: Tensor) -> Tensor:
    """At least four rows: oneDNN's kernels for fewer read a weight up to a third slower."""
    return F.pad(rows, (0, 0, 0, _FEWEST_ROWS - len(rows))) if len(rows) < _FEWEST_ROWS else rows


Linear: TypeAlias = nn.Linear | PackedLinear


def packed(*layers: Linear, silu: bool = False) -> PackedLinear:
    """One layer whose output is the outputs of `layers`, one after the other."""
    plain = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert len(plain) == len(layers), "a layer is packed once"
    weight = torch.cat([layer.weight.detach() for layer in plain])
    biases = [layer.bias.detach() for layer in plain if layer.bias is not None]
    assert len(biases) in (0, len(plain)), "either all layers have a bias, or none"
    return PackedLinear(weight, torch.cat(biases) if biases else None, silu=silu)
