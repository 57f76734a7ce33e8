"""How far speech stands above its background, before anything has told speech from background."""

import numpy as np
import numpy.typing as npt

from annotators.music import FRAME_S, SAMPLE_RATE
from schemas.rows import Wave

LEVEL_FRAME = 512
WINDOW_S = 10.0
LOUD, QUIET = 90.0, 5.0
"""Percentiles. Dense clean speech has few pauses: against its quietest tenth it would pass for noisy."""
_FLOOR = 1e-10


def stnr_db(wave: Wave) -> npt.NDArray[np.float32]:
    """(samples,) at 16 kHz -> one value for every `annotators.music.FRAME_S`, in dB.

    Distance of the levels' 90th from their 5th percentile in the ten seconds around, as NIST's STNR
    takes it from percentiles of a histogram: noise 10 dB below speech measures 13 to 17 dB, clean speech
    33 and more, and what has no speech in it next to nothing.
    """
    size = -(-wave.size // round(FRAME_S * SAMPLE_RATE))
    frames = wave[: wave.size // LEVEL_FRAME * LEVEL_FRAME].reshape(-1, LEVEL_FRAME)
    if not len(frames):
        return np.zeros(size, np.float32)
    levels = 10 * np.log10(np.mean(np.square(frames), axis=1) + _FLOOR)
    width = min(len(levels), round(WINDOW_S * SAMPLE_RATE / LEVEL_FRAME))
    centres = (np.arange(size) + 0.5) * len(levels) / size
    starts = np.clip(np.round(centres - width / 2), 0, len(levels) - width).astype(int)
    around = np.lib.stride_tricks.sliding_window_view(levels, width)[starts]
    quiet, loud = np.percentile(around, [QUIET, LOUD], axis=1)
    return np.asarray(loud - quiet, np.float32)
