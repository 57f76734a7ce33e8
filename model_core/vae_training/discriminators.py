"""Who tells real speech from the AudioVAE's: by period, by spectrogram, by waveform.

Shapes: B batch, S samples, C channels, P period, K frequencies, T time steps.
Sources: periods HiFi-GAN (arXiv 2010.05646), scales MelGAN (arXiv 1910.06711), complex spectrograms
in bands DAC (arXiv 2306.06546); sizes as in DAC.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from model_core.vae_training.settings import DiscriminatorsConfig

_SLOPE = 0.1


class Judgement(NamedTuple):
    """What one discriminator says of a batch."""

    score: Tensor
    """Towards 1 where it sounds real, 0 where made; one per place that it looked at."""
    features: list[Tensor]
    """What its hidden layers saw."""


class PeriodDiscriminator(nn.Module):
    """Sees samples that lie a period apart beside each other."""

    def __init__(self, period: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.period = period
        strides = [3] * (len(channels) - 1) + [1]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (5, 1), (stride, 1), (2, 0)))
            for (before, after), stride in zip(pairwise((1, *channels)), strides, strict=True)
        )
        self.last = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave: Tensor) -> Judgement:
        """(B, 1, S)."""
        x = F.pad(wave, (0, -wave.shape[-1] % self.period), mode="reflect")
        return _judged(x.view(*x.shape[:2], -1, self.period), self.layers, self.last)


class ScaleDiscriminator(nn.Module):
    """Sees the waveform, or the mean of `scale` samples at a time."""

    def __init__(self, scale: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.scale = scale
        first, *rest = channels
        layers: list[nn.Module] = [nn.Conv1d(1, first, 15, padding=7)]
        for before, after in pairwise((first, *rest[:-1])):
            layers.append(nn.Conv1d(before, after, 41, 4, padding=20, groups=before // 4))
        layers.append(nn.Conv1d((first, *rest)[-2], rest[-1], 5, padding=2))
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.last = weight_norm(nn.Conv1d(channels[-1], 1, 3, padding=1))

    def forward(self, wave: Tensor) -> Judgement:
        """(B, 1, S)."""
        x = wave if self.scale == 1 else F.avg_pool1d(wave, self.scale)
        return _judged(x, self.layers, self.last)


class SpectrumDiscriminator(nn.Module):
    """Sees real and imaginary part of a spectrogram; each band has layers of its own."""

    def __init__(
        self, fft_size: int, channels: int, bands: tuple[tuple[float, float], ...]
    ) -> None:
        super().__init__()
        bins = fft_size // 2 + 1
        self.bands = [(int(low * bins), int(high * bins)) for low, high in bands]
        self.register_buffer("window", torch.hann_window(fft_size), persistent=False)
        self.stacks = nn.ModuleList(self._stack(channels) for _ in bands)
        self.last = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    @staticmethod
    def _stack(channels: int) -> nn.ModuleList:
        strided = [nn.Conv2d(channels, channels, (3, 9), (1, 2), padding=(1, 4)) for _ in range(3)]
        first = nn.Conv2d(2, channels, (3, 9), padding=(1, 4))
        last = nn.Conv2d(channels, channels, 3, padding=1)
        return nn.ModuleList(weight_norm(layer) for layer in (first, *strided, last))

    def forward(self, wave: Tensor) -> Judgement:
        """(B, 1, S)."""
        with torch.autocast(wave.device.type, enabled=False):
            window = self.get_buffer("window")
            size = len(window)
            spectrum = torch.stft(
                wave[:, 0].float(), size, size // 4, window=window, return_complex=True
            )
            parts = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # (B, 2, T, K)
        features, ends = [], []
        for (low, high), stack in zip(self.bands, self.stacks, strict=True):
            x = parts[..., low:high]
            for layer in stack:  # type: ignore[attr-defined]
                x = F.leaky_relu(layer(x), _SLOPE)
                features.append(x)
            ends.append(x)
        return Judgement(self.last(torch.cat(ends, dim=-1)), features)


class Discriminators(nn.Module):
    """All of them."""

    def __init__(self, config: DiscriminatorsConfig) -> None:
        super().__init__()
        self.judges = nn.ModuleList(
            [
                *(PeriodDiscriminator(p, config.period_channels) for p in config.periods),
                *(ScaleDiscriminator(s, config.scale_channels) for s in config.scales),
                *(
                    SpectrumDiscriminator(size, config.fft_channels, config.bands)
                    for size in config.fft_sizes
                ),
            ]
        )

    def forward(self, wave: Tensor) -> list[Judgement]:
        """(B, 1, S): without its mean and as loud as any other, so that neither tells anything."""
        wave = wave - wave.mean(dim=-1, keepdim=True)
        wave = 0.8 * wave / (wave.abs().amax(dim=-1, keepdim=True) + 1e-9)
        return [judge(wave) for judge in self.judges]


def _judged(x: Tensor, layers: nn.ModuleList, last: nn.Module) -> Judgement:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), _SLOPE)
        features.append(x)
    return Judgement(last(x), features)
