"""Measure what the signal alone tells of a clip: noise, clipping, bandwidth, level.

Cheap enough to run before any model, so a clip that is beyond hope costs nothing dear. Clipping
and bandwidth are measured at the native rate: the 16 kHz copy knows neither flat tops nor the
upper octaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Wave
from stages.spectrum import (
    HOP_S,
    Mask,
    Powers,
    band_powers,
    decibels,
    frame_times,
    snr_db,
    speech_band,
    without_loudest,
)

_FLAT_RUN = 3  # samples at 16 kHz
_FLAT_STEP = 0.002  # of the peak, between neighbours at 16 kHz
_NEAR_PEAK = 0.98
_QUIETEST_PEAK = 0.01  # under -40 dBFS, 16-bit steps look like flat tops


@dataclass(frozen=True, kw_only=True, slots=True)
class SignalConfig:
    """How noise, clipping and bandwidth are measured, and what is beyond hope."""

    margin_s: float = 0.1
    """Seconds around speech that count neither as speech nor as noise."""
    context_s: float = 3.0
    """Seconds before and after a clip whose pauses tell its noise."""
    min_noise_s: float = 0.3
    """Seconds of pauses below which the whole chunk's pauses are taken, and below that too,
    the quietest tenth of the clip."""
    noise_share: float = 0.9
    """Share in (0, 1] of the pauses' frames, the quietest, that make the noise."""
    band_range_db: float = 65.0
    """dB under the strongest band at which speech still counts."""
    band_above_noise_db: float = 4.0
    """dB over the noise's 95th percentile at which speech counts."""
    ceiling_ratio: float = 0.92
    """Ratio of the 99th to the 99.95th percentile of one polarity above which the wave has a
    ceiling: clipping that a resampler or codec has since rounded. Clean speech stays below 0.9."""
    screen_snr_db: float = 8.0
    """dB; a clip below is not worth a model. Music and noise added at 5 dB measure 3.5 to 10.8 by
    this estimate, at 10 dB 8.9 and more."""
    screen_clipping: float = 0.01
    """Share of clipped samples above which a clip is not worth a model."""
    screen_level_dbfs: float = -60.0
    """dBFS of the speech below which a clip is near-silence."""

    def __post_init__(self) -> None:
        for name in ("margin_s", "context_s", "min_noise_s", "band_range_db"):
            if getattr(self, name) < 0:
                raise ConfigError(f"signal.{name} must not be negative, got {getattr(self, name)}")
        for name in ("noise_share", "ceiling_ratio", "screen_clipping"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"signal.{name} must be in (0, 1], got {getattr(self, name)}")


def flat_top_ratio(wave: Wave, sample_rate: int) -> float:
    """Share of samples in runs that stand still near the peak of their polarity.

    Needs no full scale: a file turned down after it was clipped keeps its flat tops.
    wave: (samples,) at its native rate.
    """
    peak = float(np.max(np.abs(wave), initial=0.0))
    if peak < _QUIETEST_PEAK:
        return 0.0
    scale = max(1.0, sample_rate / 16_000)
    shortest = round(_FLAT_RUN * scale)
    num_flat = 0
    for top in (float(wave.max()), float(wave.min())):
        # One polarity far below the other (an offset, a rectified wave) has no tops of its own.
        if abs(top) < peak / 4:
            continue
        near = np.flatnonzero(wave >= _NEAR_PEAK * top if top > 0 else wave <= _NEAR_PEAK * top)
        step = np.abs(np.diff(wave[near])) <= _FLAT_STEP / scale * peak
        still = step & (np.diff(near) == 1)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], still, [False])).astype(np.int8)))
        runs = edges[1::2] - edges[::2] + 1
        num_flat += int(runs[runs >= shortest].sum())
    return num_flat / wave.size


def ceiling_share(wave: Wave, sample_rate: int, ceiling_ratio: float) -> float:
    """Share of samples at a ceiling that rounds off the loudest 1 % of a polarity, else 0.

    Resampling and lossy codecs ripple the flat tops of clipping but leave the crowd of samples
    at one level, which unclipped speech does not have. wave: (samples,).
    """
    sparse = wave[:: max(1, sample_rate // 16_000)]
    if np.max(np.abs(sparse), initial=0.0) < _QUIETEST_PEAK:
        return 0.0
    share = 0.0
    for side in (sparse[sparse > 0], -sparse[sparse < 0]):
        if side.size < 1_000:
            continue
        crowd, top = np.quantile(side, [0.99, 0.9995])
        if crowd >= ceiling_ratio * top:
            share += float(np.count_nonzero(side >= ceiling_ratio * top)) / sparse.size
    return share


def clipped_ratio(wave: Wave, sample_rate: int, ceiling_ratio: float) -> float:
    """Share of samples in [0, 1] that clipping has touched, at any later gain or rate."""
    flat = flat_top_ratio(wave, sample_rate)
    return max(flat, ceiling_share(wave, sample_rate, ceiling_ratio))


def speech_frames(chunk: Chunk, times: npt.NDArray[np.float64], margin_s: float) -> Mask:
    """Which frames lie in speech or within the margin of it: (F,)."""
    mask = np.zeros(times.size, np.bool_)
    for span in chunk.speech:
        first, last = np.searchsorted(times, [span.start_s - margin_s, span.end_s + margin_s])
        mask[first:last] = True
    return mask


def noise_frames(
    powers: Powers, pauses: Mask, first: int, last: int, config: SignalConfig
) -> Powers:
    """The frames that tell the noise of the clip at frames first to last: (N, B)."""
    per_s = 1 / HOP_S
    needed = max(1, round(config.min_noise_s * per_s))
    context = round(config.context_s * per_s)
    around = slice(max(0, first - context), last + context)
    near = powers[around][pauses[around]]
    if near.shape[0] >= needed:
        return without_loudest(near, config.noise_share)
    anywhere = powers[pauses]
    if anywhere.shape[0] >= needed:
        return without_loudest(anywhere, config.noise_share)
    return without_loudest(powers[first:last], 0.1)


def measure(chunk: Chunk, config: SignalConfig) -> tuple[Clip, ...]:
    """The clips of a chunk with snr_db, clipping, bandwidth_hz, upsampled, level and ratio."""
    if not chunk.clips:
        return ()
    powers = band_powers(chunk.wave, chunk.sample_rate)
    times = frame_times(powers.shape[0])
    voiced = speech_frames(chunk, times, 0.0)
    pauses = ~speech_frames(chunk, times, config.margin_s)
    measured = []
    for clip in chunk.clips:
        start_s = (clip.start_sample - chunk.start_sample) / clip.sample_rate
        first, last = np.searchsorted(times, [start_s, start_s + clip.duration_s])
        speech = powers[first:last][voiced[first:last]]
        if not speech.size:
            measured.append(replace(clip, screened=clip.screened or "no_speech"))
            continue
        noise = noise_frames(powers, pauses, int(first), int(last), config)
        speech_power = float(np.mean(speech.sum(axis=1), dtype=np.float64))
        noise_power = float(np.mean(noise.sum(axis=1), dtype=np.float64))
        band = speech_band(
            speech,
            np.percentile(noise, 95, axis=0),
            config.band_range_db,
            config.band_above_noise_db,
        )
        scored = replace(
            clip,
            snr_db=snr_db(speech_power, noise_power),
            clipping=clipped_ratio(chunk.clip_wave(clip), clip.sample_rate, config.ceiling_ratio),
            bandwidth_hz=band.bandwidth_hz,
            upsampled=band.upsampled,
            level_dbfs=float(decibels(speech_power)),
            speech_ratio=sum(s.end_s - s.start_s for s in clip.speech) / clip.duration_s,
        )
        measured.append(replace(scored, screened=clip.screened or hopeless(scored, config)))
    return tuple(measured)


def hopeless(clip: Clip, config: SignalConfig) -> str | None:
    """Why no model should be spent on the clip, or None."""
    if clip.level_dbfs is not None and clip.level_dbfs < config.screen_level_dbfs:
        return "near_silence"
    if clip.snr_db is not None and clip.snr_db < config.screen_snr_db:
        return "snr"
    if clip.clipping is not None and clip.clipping > config.screen_clipping:
        return "clipping"
    return None


class Signal:
    """Fills the signal scores and marks the hopeless clips in `screened`."""

    name = "signal"

    def __init__(self, config: SignalConfig) -> None:
        self.config = config

    def setup(self) -> None:
        """Nothing to load."""

    def process(self, batch: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with their clips measured."""
        return [replace(chunk, clips=measure(chunk, self.config)) for chunk in batch]
