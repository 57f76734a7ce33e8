"""How alike two short stretches of speech sound: the very same sound, or the same words again.

A print is a small log-mel picture of the speech, free of gain and of the channel's colour. Copies
of one sound that were encoded, resampled, made louder or lie in light noise have nearly the same
print; the same words said again by the same voice do not, since no one repeats their timing.
"""

import numpy as np
import numpy.typing as npt
import soxr

from annotators.mel import mel_filters, power_spectrogram
from schemas.rows import Wave

F16 = npt.NDArray[np.float16]

RATE = 8_000
"""Hz; what every copy still has, telephone ones too."""
_FFT = 256
_HOP = 80
_MELS = 24
FRAME_S = _HOP / RATE
LONGEST_S = 3.0
"""Seconds of speech that a print covers."""
_RANGE = 1e-4
"""Power under the loudest band that is taken for silence, so that light noise does not count."""
_FAINT = 1.0
"""Less than this varies only by rounding: a print of silence, which is like nothing."""
_MOST_LAG = 30
"""Frames (0.3 s): how far two voice activities may disagree on where the same sound starts."""
_LEAST_SHARED = 0.7
"""Share of the shorter print that must lie on the longer one."""


def sound_print(wave: Wave, sample_rate: int, start_s: float, end_s: float) -> F16:
    """Print of the speech between two times: (frames of 10 ms, 24). Without samples: (0, 24)."""
    stop_s = min(end_s, start_s + LONGEST_S)
    speech = wave[round(start_s * sample_rate) : round(stop_s * sample_rate)]
    if speech.size < _FFT:
        return np.zeros((0, _MELS), np.float16)
    if sample_rate != RATE:
        speech = soxr.resample(speech, sample_rate, RATE)
    power = power_spectrogram(np.asarray(speech, np.float32), n_fft=_FFT, hop=_HOP)
    mels = power @ mel_filters(sample_rate=RATE, n_fft=_FFT, num_mels=_MELS)
    levels = np.log(np.maximum(mels, max(float(mels.max()), 1e-12) * _RANGE))
    levels -= levels.mean(axis=0)
    found: F16 = levels.astype(np.float16)
    return found


def likeness(first: F16, second: F16) -> float:
    """Correlation of two prints at the best lag, in [0, 1]; 0 where too little of them meets."""
    one, two = first.astype(np.float32), second.astype(np.float32)
    least = max(1, round(_LEAST_SHARED * min(len(one), len(two))))
    best = 0.0
    for lag in range(-_MOST_LAG, _MOST_LAG + 1):
        a, b = one[max(0, lag) :], two[max(0, -lag) :]
        shared = min(len(a), len(b))
        if shared < least:
            continue
        a, b = a[:shared], b[:shared]
        norm = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
        if norm > _FAINT:
            best = max(best, float(np.vdot(a, b)) / norm)
    return min(best, 1.0)
