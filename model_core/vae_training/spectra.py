"""How far two waveforms are apart, as their spectrograms at several resolutions say.

Shapes: B batch, S samples, K frequencies, M mel bands, T time steps.
Source: DAC (arXiv 2306.06546): log10 magnitudes of mel bands, the distances of all windows summed.
"""

import warnings

import torch
import torchaudio
from torch import Tensor, nn

from model_core.vae_training.settings import MelConfig


def magnitudes(wave: Tensor, window: Tensor) -> Tensor:
    """(B, S), window (W,) -> (B, K, T), a step every quarter of the window. S must exceed W / 2."""
    size = len(window)
    return torch.stft(wave, size, size // 4, window=window, return_complex=True).abs()


class MelDistance(nn.Module):
    """The L1 distance of log mel spectrograms, summed over the windows."""

    def __init__(self, config: MelConfig, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        self.reach = max(config.windows) // 2 + 1
        """The shortest waveform that can be measured, in samples."""
        for window, mels in zip(config.windows, config.num_mels, strict=True):
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)
            bank = _mel_bank(window, mels, sample_rate)
            self.register_buffer(f"bank_{window}", bank, persistent=False)

    def forward(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """ours, theirs: (B, S) -> (), the gradient flows into `ours` alone."""
        total = ours.new_zeros(())
        for window in self.config.windows:
            with torch.no_grad():
                target = self._log_mel(theirs, window)
            total = total + (self._log_mel(ours, window) - target).abs().mean()
        return total

    def _log_mel(self, wave: Tensor, window: int) -> Tensor:
        """(B, S) -> (B, M, T)."""
        spectrum = magnitudes(wave, self.get_buffer(f"window_{window}"))
        mel = self.get_buffer(f"bank_{window}") @ spectrum
        return mel.clamp(min=self.config.floor).log10()


def stft_distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """(B, S) twice -> (): L1 of magnitudes and of their log power, windows 2048 and 512 (DAC)."""
    total = ours.new_zeros(())
    for size in (2048, 512):
        window = torch.hann_window(size, device=ours.device, dtype=ours.dtype)
        one, other = magnitudes(ours, window), magnitudes(theirs, window)
        total = total + (one - other).abs().mean()
        logs = [part.clamp(min=1e-5).square().log10() for part in (one, other)]
        total = total + (logs[0] - logs[1]).abs().mean()
    return total


def _mel_bank(window: int, mels: int, sample_rate: int) -> Tensor:
    """(M, K): triangles of equal area, without the bands too narrow to hold a frequency."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filterbank")
        bank = torchaudio.functional.melscale_fbanks(
            window // 2 + 1,
            0.0,
            sample_rate / 2,
            mels,
            sample_rate,
            norm="slaney",
            mel_scale="slaney",
        )
    return bank.T[bank.amax(dim=0) > 0].contiguous()
