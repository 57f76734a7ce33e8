"""From latent frames to a waveform, for a wanted bandwidth (spec 11).

Shapes: B batch, D latent channels, F latent frames, C channels, T time steps, N buckets.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from model_core.audio_vae.config import AudioVAEConfig
from model_core.audio_vae.layers import RESIDUAL_KERNEL, CausalConv, Snake, Upsample, residual_units

NoiseSource = Callable[[int, int], Tensor]
"""Draws noise of shape (B, T) for the noise blocks, in the order of the blocks."""


class NoiseBlock(nn.Module):
    """Adds noise, one draw per time step, as loud in each channel as the signal asks for."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = CausalConv(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, noise: NoiseSource) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        return x + noise(x.shape[0], x.shape[2])[:, None] * self.linear(x)


class SampleRateCondition(nn.Module):
    """Tells the channels which bucket of sample rates to aim for."""

    def __init__(self, channels: int, config: AudioVAEConfig) -> None:
        super().__init__()
        num_buckets = len(config.sr_bin_boundaries or ()) + 1
        self.cond_type = config.cond_type
        wide = channels
        # A new condition does nothing, whichever its type.
        if config.cond_type == "concat":
            wide += config.cond_dim
            self.cond_embed = nn.Embedding(num_buckets, config.cond_dim)
        elif config.cond_type == "add":
            self.cond_embed = nn.Embedding(num_buckets, channels)
            nn.init.zeros_(self.cond_embed.weight)
        else:
            self.scale_embed = nn.Embedding(num_buckets, channels)
            self.bias_embed = nn.Embedding(num_buckets, channels)
            nn.init.ones_(self.scale_embed.weight)
            nn.init.zeros_(self.bias_embed.weight)
        self.out_layer: nn.Sequential | None = None
        if config.cond_out_layer:
            self.out_layer = nn.Sequential(Snake(wide), CausalConv(wide, channels, 1))

    def forward(self, x: Tensor, bucket: Tensor) -> Tensor:
        """x: (B, C, T), bucket: (B,) or (1,) -> (B, C, T)."""
        if self.cond_type == "concat":
            embed = self.cond_embed(bucket)[..., None].expand(x.shape[0], -1, x.shape[2])
            x = torch.cat([x, embed], dim=1)
        elif self.cond_type == "add":
            x = x + self.cond_embed(bucket)[..., None]
        else:
            scale, bias = self.scale_embed(bucket), self.bias_embed(bucket)
            x = x * scale[..., None] + bias[..., None]
        return x if self.out_layer is None else self.out_layer(x)


class DecoderBlock(nn.Module):
    """Half the channels in more detail, perhaps noise, then three residual units."""

    def __init__(self, channels: int, stride: int, config: AudioVAEConfig) -> None:
        super().__init__()
        half = channels // 2
        noise = [NoiseBlock(half)] if config.use_noise_block else []
        self.block = nn.Sequential(
            Snake(channels),
            Upsample(channels, stride),
            *noise,
            *residual_units(half, config.depthwise),
        )

    def forward(self, x: Tensor, noise: NoiseSource) -> Tensor:
        """(B, C, T) -> (B, C / 2, T · stride)."""
        for layer in self.block:
            x = layer(x, noise) if isinstance(layer, NoiseBlock) else layer(x)
        return x


def bucket_of(sample_rate: Tensor, boundaries: Tensor | None) -> Tensor:
    """Hertz -> the bucket of each: how many boundaries lie strictly below; 0 without boundaries."""
    if boundaries is None:
        return torch.zeros_like(sample_rate, dtype=torch.long)
    return torch.bucketize(sample_rate, boundaries)


class Decoder(nn.Module):
    """Convolutions up to the waveform's rate, each block told the wanted sample rate."""

    sr_bin_boundaries: Tensor | None

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__()
        dim, latent = config.decoder_dim, config.latent_dim
        layers: list[nn.Module] = (
            [CausalConv(latent, latent, RESIDUAL_KERNEL, groups=latent), CausalConv(latent, dim, 1)]
            if config.depthwise
            else [CausalConv(latent, dim, RESIDUAL_KERNEL)]
        )
        conditions: dict[str, nn.Module] = {}
        for stride in config.decoder_rates:
            if config.sr_bin_boundaries is not None:
                conditions[str(len(layers))] = SampleRateCondition(dim, config)
            layers.append(DecoderBlock(dim, stride, config))
            dim //= 2
        layers += [Snake(dim), CausalConv(dim, 1, RESIDUAL_KERNEL), nn.Tanh()]
        self.model = nn.Sequential(*layers)
        self.sr_cond_model = nn.ModuleDict(conditions)
        bounds = config.sr_bin_boundaries
        boundaries = None if bounds is None else torch.tensor(bounds, dtype=torch.int32)
        self.register_buffer("sr_bin_boundaries", boundaries)
        self.dim = config.decoder_dim

    def condition(self, index: int) -> SampleRateCondition | None:
        """What comes before layer `index`, if anything does."""
        if str(index) not in self.sr_cond_model:
            return None
        return cast(SampleRateCondition, self.sr_cond_model[str(index)])

    def forward(self, latent: Tensor, bucket: Tensor, noise: NoiseSource) -> Tensor:
        """latent: (B, D, F), bucket: (B,) or (1,) -> (B, 1, F · out_hop)."""
        x = latent
        for index, layer in enumerate(self.model):
            condition = self.condition(index)
            if condition is not None:
                x = condition(x, bucket)
            x = layer(x, noise) if isinstance(layer, DecoderBlock) else layer(x)
        return x
