"""Speaker embeddings by the GE2E encoder that Resemblyzer ships.

Only the weights come from that package: its own front end needs librosa and webrtcvad. The
network is three LSTM layers over 40 mel bands, read in windows of 1.6 s ("partials").
Source: Wan et al., "Generalized end-to-end loss for speaker verification", ICASSP 2018, section
3.2; weights by C. Jemine, https://github.com/resemble-ai/Resemblyzer (Apache-2.0).
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annotators.mel import mel_filters, power_spectrogram
from annotators.speaker import SpeakerPrint, Window, print_of
from annotators.threads import torch_with
from schemas.errors import EmptyAudio, ModelLoadError
from schemas.rows import Wave

SAMPLE_RATE = 16_000
PARTIAL_FRAMES = 160
"""Frames of 10 ms per partial."""
_HOP = 160
_FFT = 400
_MELS = 40
_HIDDEN = 256
_TARGET_DBFS = -30.0
_MIN_COVERAGE = 0.75

F32 = npt.NDArray[np.float32]


class Ge2e:
    """Embeds clips of any length; partials of many clips share a call. Embeddings: (256,)."""

    size = 256

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        device: str = "cpu",
        rate: float = 1.3,
        batch_size: int = 32,
    ) -> None:
        """path: `pretrained.pt`. rate: partials per second. Raises ModelLoadError."""
        torch = self._torch = torch_with(threads)
        self._device = device
        self._batch = batch_size
        self._step = round(SAMPLE_RATE / rate / _HOP)
        self._lstm = torch.nn.LSTM(_MELS, _HIDDEN, 3, batch_first=True)
        self._linear = torch.nn.Linear(_HIDDEN, self.size)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
            for name, module in (("lstm.", self._lstm), ("linear.", self._linear)):
                module.load_state_dict(
                    {
                        key[len(name) :]: value
                        for key, value in state.items()
                        if key.startswith(name)
                    }
                )
                module.to(device).eval()
        except Exception as error:
            raise ModelLoadError(f"{path} does not open as GE2E weights: {error}") from error

    def embed(self, waves: Sequence[Wave]) -> list[SpeakerPrint]:
        """Embed each clip and its windows. waves: (samples,) each, at 16 kHz.

        Raises EmptyAudio for a clip without samples.
        """
        mels, counts = [], []
        for wave in waves:
            partials = self._partials(wave)
            mels.extend(partials)
            counts.append(len(partials))
        embedded = self._forward(mels)
        prints, at = [], 0
        for wave, count in zip(waves, counts, strict=True):
            prints.append(self._print(embedded[at : at + count], wave.size / SAMPLE_RATE))
            at += count
        return prints

    def _partials(self, wave: Wave) -> list[F32]:
        """Mel windows of one clip: (160, 40) each."""
        starts = partial_starts(wave.size, self._step)
        wave = louder(wave)
        need = (starts[-1] + PARTIAL_FRAMES) * _HOP
        padded = np.pad(wave, (0, max(0, need - wave.size)))
        mel = power_spectrogram(padded, n_fft=_FFT, hop=_HOP) @ _filters()
        return [mel[start : start + PARTIAL_FRAMES] for start in starts]

    def _forward(self, mels: Sequence[F32]) -> F32:
        """(160, 40) each -> (partials, 256), unit length."""
        torch = self._torch
        parts: list[Any] = [np.zeros((0, self.size), dtype=np.float32)]
        with torch.inference_mode():
            for start in range(0, len(mels), self._batch):
                batch = torch.from_numpy(np.stack(mels[start : start + self._batch]))
                _, (hidden, _) = self._lstm(batch.to(self._device))
                raw = torch.relu(self._linear(hidden[-1]))
                parts.append((raw / raw.norm(dim=1, keepdim=True).clamp_min(1e-9)).cpu().numpy())
        return np.concatenate(parts)

    def _print(self, partials: F32, duration_s: float) -> SpeakerPrint:
        step_s = self._step * _HOP / SAMPLE_RATE
        length_s = PARTIAL_FRAMES * _HOP / SAMPLE_RATE
        windows = [
            Window(start_s=i * step_s, end_s=min(i * step_s + length_s, duration_s), embedding=e)
            for i, e in enumerate(partials)
        ]
        return print_of(windows)


def partial_starts(num_samples: int, step: int) -> list[int]:
    """First frame of each partial. A last one less than 75 % inside the clip is left out."""
    if num_samples == 0:
        raise EmptyAudio("no samples to embed")
    num_frames = -(-(num_samples + 1) // _HOP)
    starts = list(range(0, max(1, num_frames - PARTIAL_FRAMES + step + 1), step))
    covered = (num_samples - starts[-1] * _HOP) / (PARTIAL_FRAMES * _HOP)
    return starts[:-1] if covered < _MIN_COVERAGE and len(starts) > 1 else starts


def louder(wave: Wave) -> Wave:
    """Raise a quiet clip to -30 dBFS RMS; leave a louder one as it is."""
    rms = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    target = 10 ** (_TARGET_DBFS / 20)
    if rms == 0.0 or rms >= target:
        return wave
    return (wave * (target / rms)).astype(np.float32)


@lru_cache(maxsize=1)
def _filters() -> F32:
    return mel_filters(sample_rate=SAMPLE_RATE, n_fft=_FFT, num_mels=_MELS)
