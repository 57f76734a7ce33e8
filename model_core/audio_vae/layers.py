"""The bricks of the AudioVAE: Snake and causal convolutions with weight norm (spec 11).

Shapes: B batch, C channels, T time steps (samples or frames).
Every parameter name is part of the checkpoint format.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

RESIDUAL_DILATIONS = (1, 3, 9)
RESIDUAL_KERNEL = 7
_SNAKE_EPS = 1e-9


class Snake(nn.Module):
    """x + sin²(αx) / (α + 1e-9): lets a channel repeat itself with a period of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        return _SnakeFunction.apply(x, self.alpha)  # type: ignore[no-untyped-call]


class _SnakeFunction(torch.autograd.Function):
    """Snake with a gradient of its own: it keeps nothing but its input, and a third of the passes.

    Snakes were half the time of a training step when autograd took them apart.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        """x: (B, C, T), alpha: (1, C, 1) -> (B, C, T)."""
        ctx.save_for_backward(x, alpha)
        y = alpha * x
        return y.sin_().square_().div_(alpha + _SNAKE_EPS).add_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """With r = 1 / (α + ε): dy/dx = 1 + αr·sin 2αx, dy/dα = r·(x·sin 2αx - r·sin²αx)."""
        x, alpha = ctx.saved_tensors
        inverse = 1 / (alpha + _SNAKE_EPS)
        double = alpha * x
        sine = double.sin()
        double = double.cos_().mul_(sine).mul_(2)  # sin 2αx
        square = sine.square_().mul_(inverse)
        by_alpha = square.neg_().addcmul_(x, double).mul_(grad).sum((0, 2), keepdim=True)
        return double.mul_(alpha * inverse).add_(1).mul_(grad), by_alpha.mul_(inverse)


class WeightNormed(nn.Module):
    """A kernel kept as direction `weight_v` and length `weight_g`: w = g·v / ‖v‖.

    The norm is over every axis but the first, in the parametrisation of the checkpoints.
    """

    def __init__(self, shape: tuple[int, int, int], fan_in: int, bias: int | None) -> None:
        super().__init__()
        direction = torch.randn(shape) * (3 * fan_in) ** -0.5
        self.weight_g = nn.Parameter(torch.linalg.vector_norm(direction, dim=(1, 2), keepdim=True))
        self.weight_v = nn.Parameter(direction)
        self.bias = nn.Parameter(torch.zeros(bias)) if bias is not None else None

    def weight(self) -> Tensor:
        """The kernel itself, in the shape of `weight_v`."""
        norm = torch.linalg.vector_norm(self.weight_v, dim=(1, 2), keepdim=True)
        return self.weight_v * (self.weight_g / norm)


class CausalConv(WeightNormed):
    """A convolution that sees nothing of the future."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        fan_in = in_channels // groups * kernel
        shape = (out_channels, in_channels // groups, kernel)
        super().__init__(shape, fan_in, out_channels if bias else None)
        self.dilation = dilation
        self.groups = groups
        self.past = dilation * (kernel - 1)
        """Time steps before the present one that the kernel reaches."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C', T)."""
        x = F.pad(x, (self.past, 0))
        weight = self.weight()
        if self.groups > 1 and len(weight) == self.groups and x.device.type == "cpu":
            return _DepthwiseFunction.apply(x, weight, self.bias, self.dilation)  # type: ignore[no-untyped-call]
        return F.conv1d(x, weight, self.bias, dilation=self.dilation, groups=self.groups)


class _DepthwiseFunction(torch.autograd.Function):
    """A depthwise convolution with a gradient of its own: PyTorch's takes a CPU ten times as long
    as the convolution itself.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        """x: (B, C, T + past), weight: (C, 1, K), bias: (C,) -> (B, C, T)."""
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return F.conv1d(x, weight, bias, dilation=dilation, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The input's gradient is the same convolution, run backwards over the output's."""
        x, weight = ctx.saved_tensors
        dilation, kernel, steps = ctx.dilation, weight.shape[-1], grad.shape[-1]
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            future = F.pad(grad, (dilation * (kernel - 1),) * 2)
            by_x = F.conv1d(future, weight.flip(-1), dilation=dilation, groups=len(weight))
        if ctx.needs_input_grad[1]:
            by_weight, product = torch.empty_like(weight), torch.empty_like(grad)
            for k in range(kernel):
                seen = x[..., k * dilation : k * dilation + steps]
                by_weight[:, 0, k] = torch.mul(grad, seen, out=product).sum((0, 2))
        if ctx.needs_input_grad[2]:
            by_bias = grad.sum((0, 2))
        return by_x, by_weight, by_bias, None


class Downsample(WeightNormed):
    """One step out of `stride` in, each from the last two strides' worth of steps.

    padding: zeros put before the signal, `stride` or one more (odd strides of V1); the one more
    delays what each output sees by a time step.
    """

    def __init__(self, channels: int, stride: int, padding: int) -> None:
        super().__init__((2 * channels, channels, 2 * stride), 2 * stride * channels, 2 * channels)
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, 2C, T / stride)."""
        return F.conv1d(F.pad(x, (self.padding, 0)), self.weight(), self.bias, stride=self.stride)


class Upsample(WeightNormed):
    """`stride` steps out of one step in and the one before it: a transposed convolution."""

    def __init__(self, channels: int, stride: int) -> None:
        # The first axis of a transposed kernel is the input's, hence so are the norms.
        super().__init__((channels, channels // 2, 2 * stride), 2 * channels, channels // 2)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C / 2, T · stride)."""
        y = F.conv_transpose1d(x, self.weight(), self.bias, stride=self.stride)
        return y[..., : -self.stride]  # the last input's share of steps to come


class ResidualUnit(nn.Module):
    """x + 1x1(Snake(dilated convolution(Snake(x))))."""

    def __init__(self, channels: int, dilation: int, depthwise: bool) -> None:
        super().__init__()
        groups = channels if depthwise else 1
        self.block = nn.Sequential(
            Snake(channels),
            CausalConv(channels, channels, RESIDUAL_KERNEL, dilation=dilation, groups=groups),
            Snake(channels),
            CausalConv(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        return x + self.block(x)


def residual_units(channels: int, depthwise: bool) -> list[ResidualUnit]:
    """The three units of every block, from near to far sight."""
    return [ResidualUnit(channels, dilation, depthwise) for dilation in RESIDUAL_DILATIONS]
