"""An inaudible watermark for generated speech: a keyed pattern of small gains over time and pitch.

The spectrum between 300 and 6000 Hz is cut into tiles of 16 ms by 62.5 Hz; a key gives each tile a
sign, and the tile is made louder or softer by about a decibel. The pattern repeats each 1.024 s. The
detector takes the logarithm of the spectrum, subtracts the mean of each cell's neighbours, which
leaves little of the speech, and correlates with the pattern at every place it could start. On audio
that does not know the key such a correlation, over its own norm, is a standard normal number, so
each score is a chance of error, whatever the clip.

The embedder knows the speech it hides in: it starts the pattern where the speech itself agrees with
it best, and turns it up only until the detector is sure. As gains it is silent where the speech is,
and it does not depend on level, phase or sample rate; what is above 6 kHz stays as it was.

Sources: Cox, Kilian, Leighton, Shamoon, "Secure spread spectrum watermarking for multimedia", IEEE
Trans. Image Processing 6(12), 1997 (multiplicative spread spectrum, detection by normalised
correlation); Kirovski, Malvar, "Spread-spectrum watermarking of audio signals", IEEE Trans. Signal
Processing 51(4), 2003 (blocks of log magnitudes, search for synchronisation); Miller, Doërr, Cox,
"Applying informed coding and embedding to design a robust high-capacity watermark", IEEE Trans.
Image Processing 13(6), 2004 (choosing the place and the strength by the host).
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import soxr
from scipy.fft import irfft, rfft
from scipy.ndimage import uniform_filter
from scipy.special import log_ndtr

from schemas.errors import NonFiniteAudio
from schemas.rows import Wave

THRESHOLD = 0.3
"""A clip scores at least this by accident once in a thousand times."""

KEY = b"voxquarry"

_RATE = 16_000
_WINDOW, _HOP = 512, 128
_TILE_FRAMES, _TILE_BINS = 2, 2
_PERIOD = 128
"""Frames after which the pattern repeats."""
_NUM_SHIFTS = 2
"""Starts that are tried within a hop: a codec's delay is no multiple of it."""
_LOWEST, _HIGHEST = 10, 192
"""Bins, of 31.25 Hz: the first one, and the one after the last."""
_BANDS = (_HIGHEST - _LOWEST) // _TILE_BINS

_RANGE_DB = 60.0
"""Cells so far below the loud frames hold nothing that a codec keeps."""
_RELIABLE_DB = 45.0
"""Cells so far below the loud frames count half."""
_MOST_NEPER = 2.0
"""A single cell cannot tell more than this."""

_TARGET = 8.5
"""Of the correlation, in standard deviations. A codec takes about one of them, THRESHOLD is at 4.4."""
_LEAST_DB, _MOST_DB = 0.6, 2.0
"""Gain of a tile. The least one keeps half of a long clip detectable, and mostly a single second."""

_WHOLE_S, _PIECE_S, _STEP_S = 20.0, 10.0, 5.0
"""Audio beyond the first is scored in pieces of the second, one each third: it may hold other things
beside a marked clip."""
_SHORTEST_S = 0.1
_SILENT_PEAK = 1e-4
_DECADES = 10.0
"""A chance of error of 1e-10 or less scores 1."""

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
C64 = npt.NDArray[np.complex64]


class Watermark:
    """Marks clips, and tells marked ones from others. Deterministic; needs no weights."""

    name = "voxquarry-spread-spectrum-1"

    def __init__(self, key: bytes = KEY) -> None:
        """key: whoever has it can detect the mark, and only that mark."""
        tiles = _PERIOD // _TILE_FRAMES * _BANDS
        bits = np.frombuffer(hashlib.shake_256(key).digest(-(-tiles // 8)), np.uint8)
        signs = np.unpackbits(bits)[:tiles].reshape(-1, _BANDS)
        self._pattern: F32 = 2 * signs.astype(np.float32) - 1
        """(tiles in time, bands), -1 or 1."""
        self._spectrum = np.conj(rfft(self._pattern, axis=0))

    def mark(self, wave: Wave, sample_rate: int) -> Wave:
        """The clip with the mark in it, of the same length and rate, in [-1, 1].

        wave: (samples,). A silent clip, or one below 0.1 s, comes back as it is. Raises
        NonFiniteAudio.
        """
        _require_finite(wave)
        if not _markable(wave, sample_rate):
            return np.array(wave, np.float32)
        low = _resampled(wave, sample_rate, _RATE)
        spectrum = _stft(low)
        start = int(np.argmax(self._correlations(low)))
        signs = self._signs(len(spectrum), start)
        gain_db = _LEAST_DB
        while True:
            change = np.zeros_like(spectrum)
            gains = 10 ** (signs * np.float32(gain_db / 20)) - 1
            change[:, _LOWEST:_HIGHEST] = spectrum[:, _LOWEST:_HIGHEST] * gains
            mark = _istft(change, low.size)
            found = float(self._correlations(low + mark)[start])
            if found >= _TARGET or gain_db >= _MOST_DB:
                break
            # It grows with the gain, and a little less than in proportion.
            gain_db = min(_MOST_DB, gain_db * max(1.1, min(1.6, _TARGET / max(found, 1.0))))
        added = _resampled(mark, _RATE, sample_rate)[: wave.size]
        marked = np.array(wave, np.float32)
        marked[: added.size] += added
        return np.clip(marked, -1.0, 1.0)

    def score(self, wave: Wave, sample_rate: int) -> float:
        """How sure it is that the audio is marked, in [0, 1]: see `score_of`.

        wave: (samples,), at any level. Silence, and audio below 0.1 s, score 0. Raises
        NonFiniteAudio.
        """
        return score_of([self.log_chance(one, sample_rate) for one in pieces([wave], sample_rate)])

    def log_chance(self, wave: Wave, sample_rate: int) -> float:
        """Decimal logarithm of the chance that unmarked audio looks as marked as this, at most 0.

        wave: (samples,), at most some 20 s. Raises NonFiniteAudio.
        """
        _require_finite(wave)
        if not _markable(wave, sample_rate):
            return 0.0
        low = _resampled(wave, sample_rate, _RATE)
        shifts = [low[_HOP * i // _NUM_SHIFTS :] for i in range(_NUM_SHIFTS)]
        found = max(float(self._correlations(shift).max()) for shift in shifts)
        # The best of many starts: their chances add up at most (Bonferroni).
        tried = _PERIOD * _NUM_SHIFTS
        return min(0.0, (float(log_ndtr(-found)) + math.log(tried)) / math.log(10))

    def _signs(self, num_frames: int, start: int) -> F32:
        """The pattern from frame `start` on, and around it: (frames, bins)."""
        tiles = (np.arange(num_frames) - start) % _PERIOD // _TILE_FRAMES
        return np.repeat(self._pattern[tiles], _TILE_BINS, axis=1)

    def _correlations(self, low: F32) -> F64:
        """Of audio at 16 kHz with the pattern at each start: (_PERIOD,), in standard deviations.

        The norm is that of the audio's tiles: over random keys the variance is exactly 1.
        """
        bands = _contrast(_stft(low)).reshape(-1, _BANDS, _TILE_BINS).sum(2)
        padded = np.pad(bands, ((0, -len(bands) % _PERIOD), (0, 0)))
        folded = padded.reshape(-1, _PERIOD, _BANDS).sum(0)
        found = np.zeros(_PERIOD)
        for first in range(_TILE_FRAMES):
            rolled = np.roll(folded, -first, axis=0)
            tiles = rolled.reshape(-1, _TILE_FRAMES, _BANDS).sum(1)
            norm = float(np.linalg.norm(tiles))
            if norm > 0:
                products = (rfft(tiles, axis=0) * self._spectrum).sum(1)
                found[first::_TILE_FRAMES] = irfft(products, len(tiles)) / norm
        return found


def pieces(blocks: Iterable[Wave], sample_rate: int) -> Iterator[Wave]:
    """What to score of a recording that comes in blocks: all of it up to 20 s, else 10 s each 5 s.

    blocks: (samples,) each, of any length. The last piece ends where the recording ends.
    """
    whole, size, step = (round(s * sample_rate) for s in (_WHOLE_S, _PIECE_S, _STEP_S))
    kept = np.zeros(0, np.float32)
    at, long = 0, False
    waiting: list[Wave] = []
    for block in blocks:
        waiting.append(block)
        if kept.size + sum(len(one) for one in waiting) <= whole:
            continue
        kept, waiting, long = np.concatenate((kept, *waiting)), [], True
        while at + size < kept.size:
            yield kept[at : at + size]
            at += step
        # The last piece may reach back behind the next one.
        forget = max(0, min(at, kept.size - size))
        kept, at = kept[forget:], at - forget
    kept = np.concatenate((kept, *waiting))
    if not long:
        yield kept
        return
    while at + size < kept.size:
        yield kept[at : at + size]
        at += step
    yield kept[-size:]


def score_of(log_chances: Sequence[float]) -> float:
    """One score for the pieces of a recording: their smallest chance of error times their number.

    log_chances: decimal logarithms. A chance of 1 scores 0, 1e-3 scores 0.3, 1e-10 or less 1.
    """
    if not log_chances:
        return 0.0
    chance = min(0.0, min(log_chances) + math.log10(len(log_chances)))
    return max(0.0, min(1.0, -chance / _DECADES))


def _contrast(spectrum: C64) -> F32:
    """How much louder a cell is than its neighbours: (frames, bins of the band), in neper.

    Cells near or below what a codec keeps count less.
    """
    band = spectrum[:, _LOWEST:_HIGHEST]
    power = np.square(band.real) + np.square(band.imag)
    loud = np.float32(np.quantile(power.mean(axis=1), 0.95))
    floor = loud * np.float32(10 ** (-_RANGE_DB / 10)) + np.float32(1e-12)
    log = np.log(power + floor) / 2
    size = (_TILE_FRAMES + 1, _TILE_BINS + 1)
    log -= uniform_filter(log, size, mode="nearest")
    np.clip(log, -_MOST_NEPER, _MOST_NEPER, out=log)
    level = uniform_filter(power, (_TILE_FRAMES + 1, 2 * _TILE_BINS + 1), mode="nearest")
    level = np.maximum(level, 0.0)
    weighted: F32 = log * (
        level / (level + loud * np.float32(10 ** (-_RELIABLE_DB / 10)) + np.float32(1e-20))
    )
    return weighted


def _stft(wave: F32) -> C64:
    """(samples,) -> (frames, 257). The first frame ends with the first hop of the wave."""
    padded = np.pad(wave, (_WINDOW - _HOP, _WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    spectrum: C64 = rfft(frames * _HANN, axis=1)
    return spectrum


def _istft(spectrum: C64, num_samples: int) -> F32:
    """The inverse of `_stft`, by least squares: (frames, 257) -> (samples,)."""
    frames = irfft(spectrum, _WINDOW, axis=1) * _HANN
    overlap = _WINDOW // _HOP
    hops = np.zeros((len(frames) + overlap - 1, _HOP), np.float32)
    for part in range(overlap):
        hops[part : part + len(frames)] += frames[:, part * _HOP : (part + 1) * _HOP]
    hops /= np.square(_HANN).reshape(overlap, _HOP).sum(0)
    wave: F32 = hops.reshape(-1)[_WINDOW - _HOP :][:num_samples]
    return wave


def _hann() -> F32:
    phase = np.pi * (np.arange(_WINDOW) + 0.5) / _WINDOW
    window: F32 = (np.sin(phase) ** 2).astype(np.float32)
    return window


_HANN = _hann()


def _resampled(wave: Wave, sample_rate: int, to_rate: int) -> F32:
    wave = np.ascontiguousarray(wave, np.float32)
    if sample_rate == to_rate:
        return wave
    return np.asarray(soxr.resample(wave, sample_rate, to_rate, quality="HQ"), np.float32)


def _markable(wave: Wave, sample_rate: int) -> bool:
    """Whether there is anything to hide a mark in."""
    return wave.size >= _SHORTEST_S * sample_rate and float(np.abs(wave).max()) > _SILENT_PEAK


def _require_finite(wave: Wave) -> None:
    if not np.isfinite(wave).all():
        bad = int(np.count_nonzero(~np.isfinite(wave)))
        raise NonFiniteAudio(f"{bad} of {wave.size} samples are NaN or infinite")
