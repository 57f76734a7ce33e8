"""Where speech really begins and ends: 10 ms levels of the audio around a pause.

Voice activity is right to about 100 ms and ASR word times to about 200 ms; the level of the audio
is exact wherever there is silence to compare it with. Frames are 10 ms at 16 kHz.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.rows import Wave

Levels = npt.NDArray[np.float64]
"""(frames,) in dB."""

FRAME_S = 0.01
FRAME = 160
RATE = 16_000

_CLOSURE = 16  # frames: a final plosive follows its closure, a word its breath
_SMOOTH = 3
_SILENCE = 1e-12
_CLEAR_DB = 20
_ENOUGH = 10


def frame_levels(wave_16k: Wave) -> Levels:
    """Level per 10 ms of the first difference, smoothed over 30 ms: (samples // 160,).

    The difference lifts fricatives, which end many words, over rumble, which ends none.
    """
    num_frames = wave_16k.size // FRAME
    difference = np.diff(wave_16k, prepend=wave_16k[:1])[: num_frames * FRAME]
    energy = np.mean(difference.reshape(num_frames, FRAME).astype(np.float64) ** 2, axis=1)
    if num_frames >= _SMOOTH:
        energy = np.convolve(energy, np.full(_SMOOTH, 1 / _SMOOTH), mode="same")
    return np.asarray(10 * np.log10(energy + _SILENCE), np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """The noise around a pause."""

    level_db: float
    active_db: float
    """Level from which a frame counts as sound that is not noise."""
    loud_db: float
    """Level of loud speech nearby."""


def noise_floor(
    levels: Levels, speech: npt.NDArray[np.bool_], centre: int, reach: int, range_db: float
) -> Floor:
    """The floor in the frames without voice activity around a frame.

    It is their lower quartile, since a pause also holds the ends of words. Sound stands out of
    it by 6 dB and by as much again as the noise itself wavers. In a recording with no noise at
    all, sound that is `range_db` under the speech is not part of it.
    """
    around = slice(max(0, centre - reach), centre + reach + 1)
    near, voiced = levels[around], speech[around]
    if np.count_nonzero(~voiced) >= _ENOUGH:
        low, middle = np.quantile(near[~voiced], [0.25, 0.5])
    else:  # speech without a pause: what it dips to between its sounds
        low = middle = np.quantile(near, 0.05) if near.size else 10 * np.log10(_SILENCE)
    loud = float(np.quantile(near[voiced], 0.9)) if voiced.any() else float(low)
    active = max(float(low + 6 + 2 * min(middle - low, 6)), loud - range_db)
    return Floor(level_db=float(low), active_db=active, loud_db=loud)


def sound_end(active: npt.NDArray[np.bool_], start: int, limit: int) -> int:
    """First frame past the sound that runs on from `start`, at most `limit`.

    Silence of up to 160 ms is stepped over where sound follows. active: (frames,).
    """
    sounding = np.flatnonzero(active[start:limit])
    if sounding.size == 0 or sounding[0] > _CLOSURE:
        return start
    breaks = np.flatnonzero(np.diff(sounding) > _CLOSURE)
    last = sounding[breaks[0]] if breaks.size else sounding[-1]
    return start + int(last) + 1


def quietest_frame(levels: Levels, first: int, last: int) -> int:
    """The frame amid the quietest 150 ms of [first, last)."""
    width = min(15, last - first)
    window = np.full(width, 1 / width)
    smooth = np.convolve(10 ** (levels[first:last] / 10), window, mode="same")
    # The window is half empty at both ends, which must not look quiet for it.
    coverage = np.convolve(np.ones(last - first), window, mode="same")
    return first + int(np.argmin(smooth / coverage))


def pause_bounds(
    levels: Levels,
    floor: Floor,
    vad_end: int,
    vad_start: int,
    reach: int,
    trim: int,
    has_left: bool,
    has_right: bool,
) -> tuple[int, int]:
    """Where sound ends and begins again around the pause [vad_end, vad_start), in frames.

    The sound of either side is followed into the pause, for `reach` at most and never beyond the
    quietest spot; from up to `trim` inside the voice activity, since that starts early and ends
    late. In noise that soft sounds drown in, nothing is trimmed; where the pause itself is loud
    (music, babble), the voice activity stands.
    """
    first, last = max(0, vad_end), min(vad_start, levels.size)
    active = levels >= floor.active_db
    if last - first >= 2:
        if np.mean(active[first:last]) > 0.8:
            return first, last
        quietest = quietest_frame(levels, first, last)
    elif has_left and has_right:  # no pause: the clips were parted inside speech
        return first, max(first, last)
    else:
        quietest = first
    if floor.loud_db - floor.active_db < _CLEAR_DB:
        trim = 0
    end, start = first, last
    if has_left:
        back = max(0, first - trim)
        end = sound_end(active, back, min(quietest, first + reach)) if quietest > back else first
    if has_right:
        ahead = min(levels.size, last + trim)
        mirrored = active[::-1]
        size = levels.size
        from_right = sound_end(mirrored, size - ahead, size - max(quietest, last - reach))
        start = size - from_right
    return end, max(start, end)
