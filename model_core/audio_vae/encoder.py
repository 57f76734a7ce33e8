"""From a waveform to the mean and the spread of its latent (spec 11).

Shapes: B batch, S samples, F latent frames, D latent channels.
"""

from torch import Tensor, nn

from model_core.audio_vae.config import AudioVAEConfig
from model_core.audio_vae.layers import CausalConv, Downsample, Snake, residual_units


class EncoderBlock(nn.Module):
    """Three residual units, then half the detail in twice the channels."""

    def __init__(self, channels: int, stride: int, config: AudioVAEConfig) -> None:
        super().__init__()
        padding = stride if config.version == "v2" else 2 * ((stride + 1) // 2)
        self.block = nn.Sequential(
            *residual_units(channels, config.depthwise),
            Snake(channels),
            Downsample(channels, stride, padding),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, 2C, T / stride)."""
        return self.block(x)


class Encoder(nn.Module):
    """Convolutions down to the latent's rate, and a head each for mean and log-variance."""

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__()
        channels = config.encoder_dim
        blocks: list[nn.Module] = [CausalConv(1, channels, 7)]
        for stride in config.encoder_rates:
            blocks.append(EncoderBlock(channels, stride, config))
            channels *= 2
        self.block = nn.Sequential(*blocks)
        self.fc_mu = CausalConv(channels, config.latent_dim, 3)
        self.fc_logvar = CausalConv(channels, config.latent_dim, 3)

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 1, F·hop) -> hidden (B, C, F), mu (B, D, F), logvar (B, D, F)."""
        hidden = self.block(wave)
        return hidden, self.fc_mu(hidden), self.fc_logvar(hidden)
