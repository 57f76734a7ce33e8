"""What a voice does, in numbers: pitch, loudness, timbre, by Praat and pyloudnorm.

Praat: Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise
ratio of a sampled sound", IFA Proceedings 17, 1993. Which measures matter for a voice's manner:
Eyben et al., "The Geneva minimalistic acoustic parameter set (GeMAPS)", IEEE Trans. Affective
Computing, 2016.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import parselmouth
import pyloudnorm
from parselmouth.praat import call

from schemas.attributes import Acoustics
from schemas.errors import EmptyAudio
from schemas.rows import Wave

F64 = npt.NDArray[np.float64]

_HOP_S = 0.01
# First a wide search, then one around what was found (Hirst, "A Praat plugin for Momel and INTSINT",
# 2007): octave errors at either end of the range go.
_WIDEST_HZ = (60.0, 700.0)
_LOW_OF_Q1, _HIGH_OF_Q3 = 0.75, 1.75
# A voice that is heard for less says nothing about itself.
_MIN_VOICED_FRAMES = 15
# Praat's own limits for the period of a voice and the change from one to the next.
_PERIODS = (0.0001, 0.02, 1.3)
_LOUDNESS_BLOCK_S = 0.4
_FFT = 512
# Below which five formants lie: women's and men's fit 5.5 kHz closely enough for the third. A child's
# need more, or the search splits them; women's move up by some 100 Hz with it.
_CEILING_HZ, _CEILING_OF_HIGH_VOICES_HZ, _HIGH_VOICE_HZ = 5500.0, 6500.0, 230.0
# A telephone's band ends where a woman's or a child's third formant lies.
_NARROWEST_HZ = 5000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Contour:
    """Pitch and level over time, a value per 10 ms."""

    f0_hz: F64
    """0 where unvoiced."""
    level_db: F64
    start_s: float
    """Time of the first value."""

    def within(self, start_s: float, end_s: float) -> slice:
        """The values of a stretch of time."""
        first = max(0, round((start_s - self.start_s) / _HOP_S))
        return slice(first, max(first, round((end_s - self.start_s) / _HOP_S)))


def measure(
    wave: Wave, sample_rate: int, bandwidth_hz: float | None = None
) -> tuple[Acoustics, Contour]:
    """Measure one clip. wave: (samples,), in [-1, 1]. Raises EmptyAudio without samples.

    bandwidth_hz: where speech energy ends, if that is known to be below half the sample rate.
    """
    if not wave.size:
        raise EmptyAudio("no samples to measure")
    sound = parselmouth.Sound(wave.astype(np.float64), sample_rate)
    loudness = loudness_of(wave, sample_rate)
    pitch = _pitch(sound)
    if pitch is None:
        nothing = Contour(f0_hz=np.zeros(0), level_db=np.zeros(0), start_s=0.0)
        return Acoustics(loudness_lufs=loudness), nothing
    f0 = pitch.selected_array["frequency"].astype(np.float64)
    contour = Contour(f0_hz=f0, level_db=_levels(wave, sample_rate, pitch), start_s=pitch.x1)
    voiced = f0 > 0
    ratio = float(voiced.mean()) if voiced.size else 0.0
    if voiced.sum() < _MIN_VOICED_FRAMES:
        return Acoustics(loudness_lufs=loudness, voiced_ratio=ratio), contour
    low, median, high = (float(value) for value in np.percentile(f0[voiced], [10, 50, 90]))
    points = call([sound, pitch], "To PointProcess (cc)")
    strength = np.clip(pitch.selected_array["strength"][voiced].astype(np.float64), 1e-3, 1 - 1e-6)
    acoustics = Acoustics(
        f0_median_hz=median,
        f0_low_hz=low,
        f0_high_hz=high,
        f0_range_st=12 * float(np.log2(high / low)),
        voiced_ratio=ratio,
        f3_hz=_third_formant(
            sound, pitch.xs()[voiced], median, min(bandwidth_hz or np.inf, sample_rate / 2)
        ),
        jitter=_finite(call(points, "Get jitter (local)", 0, 0, *_PERIODS)),
        shimmer=_finite(call([sound, points], "Get shimmer (local)", 0, 0, *_PERIODS, 1.6)),
        # Boersma 1993, eq. 4: the autocorrelation at the period is the harmonic share of energy.
        hnr_db=float(np.mean(10 * np.log10(strength / (1 - strength)))),
        alpha_ratio_db=_alpha_ratio(wave, sample_rate, pitch.xs()[voiced]),
        loudness_lufs=loudness,
    )
    return acoustics, contour


def loudness_of(wave: Wave, sample_rate: int) -> float | None:
    """Integrated loudness in LUFS; None for silence, or less than the standard's one block."""
    if wave.size < _LOUDNESS_BLOCK_S * sample_rate:
        return None
    meter = pyloudnorm.Meter(sample_rate, block_size=_LOUDNESS_BLOCK_S)
    with np.errstate(divide="ignore"):
        return _finite(meter.integrated_loudness(wave.astype(np.float64)))


def _pitch(sound: parselmouth.Sound) -> parselmouth.Pitch | None:
    """Praat's pitch by autocorrelation; None for a sound of less than three periods."""
    floor, ceiling = _WIDEST_HZ
    if sound.duration < 3.0 / floor + _HOP_S:
        return None
    wide = sound.to_pitch_ac(time_step=_HOP_S, pitch_floor=floor, pitch_ceiling=ceiling)
    f0 = wide.selected_array["frequency"]
    voiced = f0[f0 > 0]
    if voiced.size < _MIN_VOICED_FRAMES:
        return wide
    first, third = np.percentile(voiced, [25, 75])
    return sound.to_pitch_ac(
        time_step=_HOP_S,
        pitch_floor=max(floor, _LOW_OF_Q1 * float(first)),
        pitch_ceiling=min(ceiling, _HIGH_OF_Q3 * float(third)),
    )


def _levels(wave: Wave, sample_rate: int, pitch: parselmouth.Pitch) -> F64:
    """RMS level in dB around each pitch frame: (frames,)."""
    frames = _frames(wave, sample_rate, pitch.xs())
    levels: F64 = 10 * np.log10(np.mean(np.square(frames), axis=1) + 1e-12)
    return levels


def _frames(wave: Wave, sample_rate: int, times: F64) -> F64:
    """32 ms around each time: (times, samples)."""
    size = round(_FFT / 16_000 * sample_rate)
    starts = np.round(times * sample_rate).astype(np.int64) - size // 2
    padded = np.pad(wave.astype(np.float64), size)
    found: F64 = padded[np.clip(starts + size, 0, wave.size + size)[:, None] + np.arange(size)]
    return found


def _third_formant(
    sound: parselmouth.Sound, times: F64, f0_hz: float, band_hz: float
) -> float | None:
    if band_hz < _NARROWEST_HZ:
        return None
    formants = sound.to_formant_burg(
        time_step=_HOP_S,
        max_number_of_formants=5,
        maximum_formant=_CEILING_HZ if f0_hz <= _HIGH_VOICE_HZ else _CEILING_OF_HIGH_VOICES_HZ,
    )
    third = call(formants, "To Matrix", 3)
    values = np.interp(times, third.xs(), third.values[0])
    found = values[values > 0]
    return float(np.median(found)) if found.size else None


def _alpha_ratio(wave: Wave, sample_rate: int, times: F64) -> float | None:
    frames = _frames(wave, sample_rate, times)
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]), axis=1))).mean(
        axis=0
    )
    hz = np.fft.rfftfreq(frames.shape[1], 1 / sample_rate)
    low = power[(hz >= 50) & (hz < 1000)].sum()
    high = power[(hz >= 1000) & (hz < 5000)].sum()
    return _finite(10 * np.log10(high / low)) if low > 0 and high > 0 else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
