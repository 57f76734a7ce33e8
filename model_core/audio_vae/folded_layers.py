"""The bricks of the AudioVAE made ready for inference: streaming, channels last, no weight norm.

They compute what `layers` computes, in forms that waste no pass over memory:

- Time before channels, (B, T, C): a 1x1 convolution is then one matrix product, and so is a
  convolution whose kernel spans two strides: of each frame it makes the share of the present
  output and the share of the next one, and the two are added one frame apart (`Overlap`).
- Snake in its own unit, y = (α + 1e-9)·x, is y + sin²y: the unit moves into the weights on either
  side. That the sine sees α + 1e-9 in place of α changes the result by at most 2e-9·x².
- Each causal layer takes what it remembers from a `State` and leaves there what it must remember
  next: offline is the stream of one chunk.

Nothing here has gradients.

Shapes: B batch, T time steps, C channels.
"""

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.audio_vae.layers import CausalConv, Downsample, ResidualUnit, Snake, Upsample
from model_core.packed import PackedLinear

State: TypeAlias = dict[nn.Module, Tensor]
"""What each layer remembers of the past; a layer that is absent remembers silence (zeros)."""


def slope_of(snake: Snake) -> Tensor:
    """(C,): how many of its own units a Snake has per unit of its input."""
    return snake.alpha.detach().float().flatten() + 1e-9


def snake_(y: Tensor) -> Tensor:
    """Snake of values in its own unit, in place."""
    sine = torch.sin(y)
    return y.addcmul_(sine, sine)


def float_weight(layer: CausalConv | Downsample | Upsample) -> Tensor:
    """The kernel without weight norm, in float32 whatever the type it is kept in."""
    g, v = layer.weight_g.detach().float(), layer.weight_v.detach().float()
    return v * (g / torch.linalg.vector_norm(v, dim=(1, 2), keepdim=True))


def float_bias(layer: CausalConv | Downsample | Upsample) -> Tensor | None:
    """The bias in float32."""
    return None if layer.bias is None else layer.bias.detach().float()


def pointwise(conv: CausalConv, slope: Tensor | None = None) -> PackedLinear:
    """A 1x1 convolution as a linear layer. slope: (C,), of the Snake that its input comes from."""
    weight, bias = float_weight(conv)[..., 0], float_bias(conv)
    dtype = conv.weight_v.dtype
    weight = weight if slope is None else weight / slope
    return PackedLinear(weight.to(dtype), None if bias is None else bias.to(dtype))


class FoldedConv(nn.Module):
    """A causal convolution with a kernel longer than one.

    slope_in, slope_out: (C,), of the Snakes before and after it, if there are any.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, conv: CausalConv, slope_in: Tensor | None = None, slope_out: Tensor | None = None
    ) -> None:
        super().__init__()
        self.past, self.dilation, self.groups = conv.past, conv.dilation, conv.groups
        weight, bias = float_weight(conv), float_bias(conv)
        assert bias is not None, "only 1x1 convolutions come without a bias"
        if slope_in is not None:
            inputs = slope_in[:, None, None] if conv.groups > 1 else slope_in[None, :, None]
            weight = weight / inputs
        if slope_out is not None:
            weight, bias = weight * slope_out[:, None, None], bias * slope_out
        dtype = conv.weight_v.dtype
        # A flat image with its channels last: oneDNN and cuDNN then run on (B, T, C) as it is.
        flat = weight[:, :, None].to(dtype).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", flat, persistent=False)
        self.register_buffer("bias", bias.to(dtype), persistent=False)

    def open(self, x: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Room for an input like x (B, T, C): the past and then the room, and the room alone."""
        buffer = x.new_empty(x.shape[0], self.past + x.shape[1], x.shape[2])
        buffer[:, : self.past] = state.get(self, 0.0)
        return buffer, buffer[:, self.past :]

    def close(self, buffer: Tensor, state: State) -> Tensor:
        """(B, past + T, C) -> (B, T, C'), after the room has been filled."""
        state[self] = buffer[:, -self.past :].clone()
        image = buffer[:, None].permute(0, 3, 1, 2)
        y = F.conv2d(image, self.weight, self.bias, dilation=(1, self.dilation), groups=self.groups)
        return y.permute(0, 2, 3, 1)[:, 0].contiguous()

    def forward(self, x: Tensor, state: State) -> Tensor:
        """(B, T, C) -> (B, T, C')."""
        buffer, now = self.open(x, state)
        now.copy_(x)
        return self.close(buffer, state)


class FoldedUnit(nn.Module):
    """A residual unit."""

    slope: Tensor

    def __init__(self, unit: ResidualUnit) -> None:
        super().__init__()
        first, dilated, second, mix = unit.block
        assert isinstance(first, Snake)
        assert isinstance(second, Snake)
        assert isinstance(dilated, CausalConv)
        assert isinstance(mix, CausalConv)
        slope, inner = slope_of(first), slope_of(second)
        self.register_buffer("slope", slope.to(mix.weight_v.dtype), persistent=False)
        self.conv = FoldedConv(dilated, slope, inner)
        self.mix = pointwise(mix, inner)

    def forward(self, x: Tensor, state: State) -> Tensor:
        """(B, T, C) -> (B, T, C), in place of x."""
        buffer, now = self.conv.open(x, state)
        torch.mul(x, self.slope, out=now)
        snake_(now)
        return x.add_(self.mix(snake_(self.conv.close(buffer, state))))


class Overlap(nn.Module):
    """A linear layer of each frame and the one before it: the two shares, added a frame apart.

    now, later: (N, K), what a frame gives to the output of its own time and of the next.
    """

    def __init__(self, now: Tensor, later: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        weight = torch.cat([now, later]).to(dtype)
        self.shares = PackedLinear(weight, torch.cat([bias, torch.zeros_like(bias)]).to(dtype))

    def forward(self, frames: Tensor, state: State) -> Tensor:
        """(B, T, K) -> (B, T, N)."""
        now, later = self.shares(frames).chunk(2, dim=-1)
        y = torch.empty(now.shape, dtype=now.dtype, device=now.device)
        torch.add(now[:, 1:], later[:, :-1], out=y[:, 1:])
        torch.add(now[:, 0], state.get(self, torch.zeros_like(later[:, 0])), out=y[:, 0])
        state[self] = later[:, -1].clone()
        return y


class FoldedDownsample(nn.Module):
    """A Snake and the strided convolution after it."""

    slope: Tensor

    def __init__(self, snake: Snake, conv: Downsample) -> None:
        super().__init__()
        dtype, self.stride = conv.weight_v.dtype, conv.stride
        self.delay = conv.padding - conv.stride
        slope, bias = slope_of(snake), float_bias(conv)
        assert bias is not None
        # The kernel's taps, oldest first, are the steps of the last frame and of this one.
        weight = (float_weight(conv) / slope[:, None]).transpose(1, 2)  # (2C, 2·stride, C)
        later, now = weight[:, : self.stride], weight[:, self.stride :]
        self.overlap = Overlap(now.flatten(1), later.flatten(1), bias, dtype)
        self.register_buffer("slope", slope.to(dtype), persistent=False)

    def forward(self, x: Tensor, state: State) -> Tensor:
        """(B, T, C) -> (B, T / stride, 2C)."""
        batch, steps, channels = x.shape
        y = x.new_empty(batch, self.delay + steps, channels)
        y[:, : self.delay] = state.get(self, 0.0)
        torch.mul(x, self.slope, out=y[:, self.delay :])
        snake_(y[:, self.delay :])
        if self.delay:
            state[self] = y[:, steps:].clone()
        frames = y[:, :steps].reshape(batch, steps // self.stride, self.stride * channels)
        return self.overlap(frames, state)


def folded_upsample(snake: Snake, conv: Upsample) -> Overlap:
    """A transposed convolution on the output of a Snake: (B, T, C) -> (B, T, stride · C / 2)."""
    bias = float_bias(conv)
    assert bias is not None
    weight = (float_weight(conv) / slope_of(snake)[:, None, None]).permute(2, 1, 0)
    now, later = weight[: conv.stride], weight[conv.stride :]  # (stride, C / 2, C)
    return Overlap(
        now.flatten(0, 1), later.flatten(0, 1), bias.repeat(conv.stride), conv.weight_v.dtype
    )
