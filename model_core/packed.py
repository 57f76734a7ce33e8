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

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features = weight.shape[0]
        self.in_features = weight.shape[1]
        self._bias = bias
        onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        self._blocked = weight.device.type == "cpu" and onednn
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
            if self._blocked
            else weight
        )

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) -> (…, out_features)."""
        if self._blocked:
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return F.linear(x, self._weight, self._bias)


Linear: TypeAlias = nn.Linear | PackedLinear


def packed(*layers: Linear) -> PackedLinear:
    """One layer whose output is the outputs of `layers`, one after the other."""
    plain = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert len(plain) == len(layers), "a layer is packed once"
    weight = torch.cat([layer.weight.detach() for layer in plain])
    biases = [layer.bias.detach() for layer in plain if layer.bias is not None]
    assert len(biases) in (0, len(plain)), "either all layers have a bias, or none"
    return PackedLinear(weight, torch.cat(biases) if biases else None)
