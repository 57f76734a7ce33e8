"""Segments as another microphone and another room's hum would have had them.

A small corpus has few of either, and an AudioVAE that heard no other knows no other.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError
from schemas.rows import Wave

DRAWS = 3
"""Numbers in [0, 1) that decide a variation."""
_PIVOT_HZ, _OCTAVES = 1000.0, 3.0
_LOWEST_NOISE_DB = -90.0


@dataclass(frozen=True, kw_only=True, slots=True)
class VariationConfig:
    """The most that each segment may be changed by; zero and null leave it as it is."""

    level_db: float = 0.0
    """Louder or softer by so much at most."""
    tilt_db: float = 0.0
    """Three octaves above 1 kHz louder by so much at most and three below softer, or the other way."""
    noise_dbfs: float | None = None
    """RMS level of white noise at most; at least -90."""

    def __post_init__(self) -> None:
        for name in ("level_db", "tilt_db"):
            if getattr(self, name) < 0:
                raise ConfigError(f"variation.{name} must not be negative")
        if self.noise_dbfs is not None and not _LOWEST_NOISE_DB <= self.noise_dbfs <= 0:
            raise ConfigError(f"variation.noise_dbfs must be in [-90, 0], got {self.noise_dbfs}")


def varied(
    wave: Wave, sample_rate: int, config: VariationConfig, draws: npt.NDArray[np.float64]
) -> Wave:
    """A segment (S,) as the draws (3,) have it, at most at full scale."""
    level, tilt, noise = draws
    if config.tilt_db:
        spectrum = np.fft.rfft(wave)
        hertz = np.fft.rfftfreq(len(wave), 1 / sample_rate)
        octaves = np.log2(np.maximum(hertz, 1.0) / _PIVOT_HZ) / _OCTAVES
        gain_db = (2 * tilt - 1) * config.tilt_db * np.clip(octaves, -1, 1)
        wave = np.fft.irfft(spectrum * 10 ** (gain_db / 20), len(wave)).astype(np.float32)
    if config.level_db:
        wave = wave * np.float32(10 ** ((2 * level - 1) * config.level_db / 20))
    if config.noise_dbfs is not None:
        loudness_db = _LOWEST_NOISE_DB + noise * (config.noise_dbfs - _LOWEST_NOISE_DB)
        # What decides how loud it is decides the noise, too.
        random = np.random.default_rng(int(noise * 2**53))
        wave = wave + random.standard_normal(len(wave), np.float32) * 10 ** (loudness_db / 20)
    peak = float(np.abs(wave).max(initial=0.0))
    return np.asarray(wave / max(1.0, peak), np.float32)
