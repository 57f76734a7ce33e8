"""Mel spectrograms on Slaney's scale, as the speaker and quality models were trained on.

Written for short windows on one core with numpy and scipy, so that neither librosa nor torch
has to be imported to feed a model. Source of the scale and of the area norm: M. Slaney,
"Auditory Toolbox", Interval Research technical report 1998-010.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.fft import rfft
from scipy.signal import get_window

F32 = npt.NDArray[np.float32]

_LINEAR_HZ = 200.0 / 3
"""Width of a mel below the corner."""
_CORNER_HZ = 1000.0
_CORNER_MEL = _CORNER_HZ / _LINEAR_HZ
_LOG_STEP = np.log(6.4) / 27.0


def mel_filters(*, sample_rate: int, n_fft: int, num_mels: int) -> F32:
    """Triangular filters of equal area, from 0 Hz to half the sample rate: (bins, mels)."""
    top = _CORNER_MEL + np.log(sample_rate / 2 / _CORNER_HZ) / _LOG_STEP
    mels = np.linspace(0.0, top, num_mels + 2)
    edges = np.where(
        mels < _CORNER_MEL,
        mels * _LINEAR_HZ,
        _CORNER_HZ * np.exp(_LOG_STEP * (mels - _CORNER_MEL)),
    )
    bins = np.fft.rfftfreq(n_fft, 1.0 / sample_rate)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rise = (bins - low) / (centre - low)
    fall = (high - bins) / (high - centre)
    filters: F32 = (np.clip(np.minimum(rise, fall), 0, None) * 2.0 / (high - low)).astype(
        np.float32
    )
    return filters


def power_spectrogram(wave: F32, *, n_fft: int, hop: int) -> F32:
    """Power of centred Hann frames, the wave padded with zeros: (samples,) -> (frames, bins).

    There are `1 + samples // hop` frames.
    """
    half = n_fft // 2
    num_frames = 1 + (wave.size + 2 * half - n_fft) // hop
    padded = np.zeros(max(wave.size + 2 * half, n_fft), dtype=np.float32)
    padded[half : half + wave.size] = wave
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop][:num_frames]
    spectrum = rfft(frames * _hann(n_fft), axis=-1)
    power: F32 = np.square(spectrum.real) + np.square(spectrum.imag)
    return power


@lru_cache(maxsize=8)
def _hann(n_fft: int) -> F32:
    window: F32 = get_window("hann", n_fft, fftbins=True).astype(np.float32)
    return window
