"""Short-time band powers, and what they tell of noise and bandwidth.

Shapes: F frames of 32 ms every 16 ms, B bands of 250 Hz from 0 to half the sample rate.
Powers are mean squares: the bands of a frame add up to its mean square over 60 Hz.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from schemas.rows import Wave

Powers = npt.NDArray[np.float32]
"""(F, B)."""
Mask = npt.NDArray[np.bool_]
"""(F,)."""

BAND_HZ = 250
WINDOW_S = 0.032
HOP_S = 0.016

_RUMBLE_HZ = 60  # below any voice: hum and handling noise are no part of a clip's SNR
_BLOCK = 1024  # frames at a time, to keep a chunk's spectrum out of memory
_FLOOR = 1e-14


def band_powers(wave: Wave, sample_rate: int) -> Powers:
    """Power per frame and band; a band above half the sample rate does not exist.

    wave: (samples,). Frame i is centred on (i + 1) * 16 ms.
    """
    window = 2 * round(WINDOW_S * sample_rate / 2)
    starts, starts_end = HOP_S * sample_rate, wave.size - window
    num_frames = int(starts_end / starts) + 1 if starts_end >= 0 else 0
    frequencies = np.fft.rfftfreq(window, 1 / sample_rate)
    first_bin = int(np.searchsorted(frequencies, _RUMBLE_HZ))
    num_bands = int(sample_rate / 2 / BAND_HZ)
    edges = np.searchsorted(frequencies, np.arange(num_bands) * BAND_HZ)
    edges[0] = first_bin
    top = int(np.searchsorted(frequencies, num_bands * BAND_HZ))
    taper = np.hanning(window).astype(np.float32)
    scale = np.float32(2 / (window * np.sum(taper.astype(np.float64) ** 2)))
    powers = np.empty((num_frames, num_bands), np.float32)
    if num_frames == 0:
        return powers
    windows = np.lib.stride_tricks.sliding_window_view(wave, window)
    offsets = np.minimum(np.round(np.arange(num_frames) * starts).astype(np.int64), starts_end)
    for block in range(0, num_frames, _BLOCK):
        frames = windows[offsets[block : block + _BLOCK]] * taper
        spectrum = fft.rfft(frames, axis=1)[:, :top]
        energy = spectrum.real**2 + spectrum.imag**2
        powers[block : block + _BLOCK] = np.add.reduceat(energy, edges, axis=1) * scale
    return powers


def frame_times(num_frames: int) -> npt.NDArray[np.float64]:
    """Centre of each frame, in seconds: (F,)."""
    return np.asarray((np.arange(num_frames) + 1) * HOP_S, np.float64)


def decibels(power: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Powers in dB; silence is -140."""
    return np.asarray(10 * np.log10(np.maximum(np.asarray(power, np.float64), _FLOOR)), np.float64)


def without_loudest(powers: Powers, kept_share: float) -> Powers:
    """The frames of pauses without their loudest: (kept, B).

    A pause also holds what the voice activity missed: the tail of a word, a far speaker, a door.
    """
    count = max(1, int(kept_share * powers.shape[0]))
    order = np.argsort(powers.sum(axis=1), kind="stable")
    return powers[np.sort(order[:count])]


def snr_db(speech_power: float, noise: float, limit_db: float = 60.0) -> float:
    """Ratio of speech to noise, the noise under the speech taken off, within ± `limit_db`."""
    ratio = max(speech_power - noise, 0.0) / max(noise, _FLOOR)
    return float(np.clip(decibels(ratio), -limit_db, limit_db)) if ratio > 0 else -limit_db


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """How far up speech reaches."""

    bandwidth_hz: float
    upsampled: bool


def speech_band(
    speech: Powers, noise: npt.NDArray[np.float32], range_db: float, above_noise_db: float
) -> Band:
    """Highest band that the loudest frames of speech fill, and whether a filter ends it there.

    speech: (F, B) frames of speech; noise: (B,) the level that noise seldom exceeds. A band counts
    when the 95th percentile of its speech, which is its fricatives, is at most `range_db` under
    the strongest band and `above_noise_db` over the noise. A voice fades out with frequency, a
    resampler cuts: a fall of 15 dB or more around the last band, below 3/4 of what the rate could
    hold, is a filter; and a band below 2/5 of that, however it ends, never came from such a rate.
    """
    loud_db = decibels(np.percentile(speech, 95, axis=0))
    filled = (loud_db > loud_db.max() - range_db) & (loud_db > decibels(noise) + above_noise_db)
    num_bands = loud_db.size
    last = int(np.flatnonzero(filled)[-1]) if filled.any() else 0
    bandwidth_hz = float((last + 1) * BAND_HZ)
    below, above = int(last * 0.8), int(np.ceil((last + 1) * 1.1))
    falls = above < num_bands and loud_db[below] - loud_db[above:].max() >= 15
    share = (last + 1) / num_bands
    return Band(bandwidth_hz=bandwidth_hz, upsampled=share < 0.4 or (share < 0.75 and falls))
