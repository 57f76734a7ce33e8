"""The decoder made ready for inference (see `folded_layers`), as a stream.

Shapes: B batch, T time steps, C channels, D latent channels, F latent frames, N buckets.
"""

import torch
from torch import Tensor, nn

from model_core.audio_vae.decoder import (
    Decoder,
    DecoderBlock,
    NoiseBlock,
    NoiseSource,
    SampleRateCondition,
)
from model_core.audio_vae.folded_layers import (
    FoldedConv,
    FoldedUnit,
    State,
    float_bias,
    float_weight,
    folded_upsample,
    pointwise,
    slope_of,
    snake_,
)
from model_core.audio_vae.layers import CausalConv, ResidualUnit, Snake, Upsample
from model_core.audio_vae.pieces import in_pieces, spans_for
from model_core.packed import PackedLinear


class Affine(nn.Module):
    """x · scale + shift, with the rows of two tables (N, C) that belong to a bucket."""

    scale: Tensor
    shift: Tensor | None

    def __init__(self, scale: Tensor, shift: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("scale", scale.to(dtype), persistent=False)
        shift = None if shift is None else shift.to(dtype)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, x: Tensor, bucket: Tensor) -> Tensor:
        """x: (B, T, C), bucket: (B,) or (1,) -> (B, T, C)."""
        scale = self.scale[bucket][:, None]
        if self.shift is None:
            return x * scale
        return torch.addcmul(self.shift[bucket][:, None], x, scale)


class FoldedCondition(nn.Module):
    """From a block's input to what its Snake sees, in that Snake's unit, condition included."""

    def __init__(self, condition: SampleRateCondition | None, snake: Snake) -> None:
        super().__init__()
        dtype, slope = snake.alpha.dtype, slope_of(snake)
        channels = slope.numel()
        scale, shift = torch.ones_like(slope)[None], None
        self.out: nn.Module | None = None
        if condition is not None:
            scale, shift, embed = _tables(condition, channels)
        if condition is None or condition.out_layer is None:
            self.first = Affine(scale * slope, None if shift is None else shift * slope, dtype)
            return
        out_snake, conv = condition.out_layer
        assert isinstance(out_snake, Snake)
        assert isinstance(conv, CausalConv)
        first, appended = slope_of(out_snake).tensor_split([channels])
        self.first = Affine(scale * first, None if shift is None else shift * first, dtype)
        weight, of_appended = (float_weight(conv)[..., 0] / slope_of(out_snake)).tensor_split(
            [channels], dim=1
        )
        bias = float_bias(conv)
        assert bias is not None
        self.out = PackedLinear(weight.to(dtype), bias.to(dtype))
        # Appended channels are the same at every time step, so what comes of them is a table too.
        constant = snake_(embed * appended) @ of_appended.mT
        self.second = Affine(slope.expand(len(embed), -1), constant * slope, dtype)

    def forward(self, x: Tensor, bucket: Tensor) -> Tensor:
        """x: (B, T, C), bucket: (B,) or (1,) -> (B, T, C)."""
        y = self.first(x, bucket)
        return y if self.out is None else self.second(self.out(snake_(y)), bucket)


def _tables(condition: SampleRateCondition, channels: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Per bucket: scale (N, C) and shift (N, C) of the channels, and what is appended (N, C')."""
    table = next(condition.children())
    assert isinstance(table, nn.Embedding)
    embed = table.weight.detach().float()
    ones, nothing = embed.new_ones(len(embed), channels), embed.new_zeros(len(embed), 0)
    if condition.cond_type == "concat":
        return ones, None, embed
    if condition.cond_type == "add":
        return ones, embed, nothing
    return embed, condition.bias_embed.weight.detach().float(), nothing


class FoldedNoise(nn.Module):
    """A noise block."""

    def __init__(self, block: NoiseBlock) -> None:
        super().__init__()
        self.linear = pointwise(block.linear)

    def forward(self, x: Tensor, noise: NoiseSource) -> Tensor:
        """(B, T, C) -> (B, T, C), in place of x."""
        return x.addcmul_(noise(x.shape[0], x.shape[1])[..., None], self.linear(x))


class FoldedDecoderBlock(nn.Module):
    """The condition, the transposed convolution, perhaps noise, three residual units."""

    def __init__(self, block: DecoderBlock, condition: SampleRateCondition | None) -> None:
        super().__init__()
        snake, conv, *rest = block.block
        assert isinstance(snake, Snake)
        assert isinstance(conv, Upsample)
        self.condition = FoldedCondition(condition, snake)
        self.up = folded_upsample(snake, conv)
        noise = [FoldedNoise(layer) for layer in rest if isinstance(layer, NoiseBlock)]
        self.noise = noise[0] if noise else None
        self.units = nn.ModuleList(FoldedUnit(u) for u in rest if isinstance(u, ResidualUnit))
        self.stride = conv.stride

    def forward(self, x: Tensor, bucket: Tensor, noise: NoiseSource, state: State) -> Tensor:
        """(B, T, C) -> (B, T · stride, C / 2)."""
        frames = spans_for(x).piece // (x.shape[0] * x.shape[2] // 2 * self.stride)
        return in_pieces(lambda x: self._piece(x, bucket, noise, state), x, max(1, frames))

    def _piece(self, x: Tensor, bucket: Tensor, noise: NoiseSource, state: State) -> Tensor:
        batch, steps, channels = x.shape
        y = self.up(snake_(self.condition(x, bucket)), state)
        y = y.view(batch, steps * self.stride, channels // 2)
        if self.noise is not None:
            y = self.noise(y, noise)
        for unit in self.units:
            y = unit(y, state)
        return y


class FoldedDecoder(nn.Module):
    """The decoder for inference; with a state that the caller keeps, a stream."""

    sr_bin_boundaries: Tensor | None
    slope: Tensor

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.register_buffer("sr_bin_boundaries", decoder.sr_bin_boundaries, persistent=False)
        first, *layers, snake, last, _ = decoder.model
        assert isinstance(first, CausalConv)
        assert isinstance(snake, Snake)
        assert isinstance(last, CausalConv)
        self.first = FoldedConv(first)
        self.widen = pointwise(layers[0]) if isinstance(layers[0], CausalConv) else None
        self.blocks = nn.ModuleList(
            FoldedDecoderBlock(layer, decoder.condition(index))
            for index, layer in enumerate(decoder.model)
            if isinstance(layer, DecoderBlock)
        )
        slope = slope_of(snake)
        self.register_buffer("slope", slope.to(last.weight_v.dtype), persistent=False)
        self.last = FoldedConv(last, slope)
        # Elements of the largest activation that a latent frame grows into.
        channels, steps, self.growth = decoder.dim, 1, 1
        for block in self.blocks:
            assert isinstance(block, FoldedDecoderBlock)
            channels, steps = channels // 2, steps * block.stride
            self.growth = max(self.growth, channels * steps)

    def forward(self, latent: Tensor, bucket: Tensor, noise: NoiseSource, state: State) -> Tensor:
        """latent: (B, D, F), bucket: (B,) or (1,) -> (B, 1, F · out_hop)."""
        frames = spans_for(latent).span // (latent.shape[0] * self.growth)
        wave = in_pieces(lambda x: self._span(x, bucket, noise, state), latent.mT, max(1, frames))
        return wave.mT

    def _span(self, x: Tensor, bucket: Tensor, noise: NoiseSource, state: State) -> Tensor:
        x = self.first(x, state)
        if self.widen is not None:
            x = self.widen(x)
        for block in self.blocks:
            x = block(x, bucket, noise, state)
        buffer, now = self.last.open(x, state)
        torch.mul(x, self.slope, out=now)
        snake_(now)
        return self.last.close(buffer, state).tanh_()
