"""Where music plays below or between speech, heard by a small convolutional network.

Its weights were trained by `jobs/shipped/separator/` on openly licensed speech and music; the card
beside them tells how well it hears. Only numpy, scipy and onnxruntime are needed.
"""

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from annotators.mel import mel_filters, power_spectrogram
from annotators.threads import onnx_session
from schemas.errors import ModelLoadError
from schemas.rows import Wave

SAMPLE_RATE = 16_000
WINDOW, HOP, BANDS = 1024, 512, 64
FRAME_S = 8 * HOP / SAMPLE_RATE
"""Seconds between two values: 0.256."""
FLOOR = 1e-9

F32 = npt.NDArray[np.float32]


class Music:
    """Probability of music, four times a second."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        """path: the network in ONNX, or a folder with `music.onnx`. Raises ModelLoadError."""
        path = path / "music.onnx" if path.is_dir() else path
        self._session = onnx_session(path, threads=threads)
        names = {value.name for value in self._session.get_inputs()}
        if names != {"features"}:
            raise ModelLoadError(f"{path} is not a music detector: it takes {sorted(names)}")

    def probs(self, wave: Wave) -> F32:
        """(samples,) at 16 kHz -> (ceil(seconds / FRAME_S),), in [0, 1]; value i is about its frame."""
        frames = -(-wave.size // (8 * HOP))
        if not frames:
            return np.zeros(0, np.float32)
        (scores,) = self._session.run(["music"], {"features": features(wave)[None]})
        found: F32 = expit(np.asarray(scores, np.float32).reshape(-1)[:frames])
        return found


def features(wave: Wave) -> F32:
    """(samples,) at 16 kHz -> (frames, BANDS): log mel, a multiple of 8 frames of 32 ms."""
    frames = 8 * -(-wave.size // (8 * HOP))
    power = power_spectrogram(wave, n_fft=WINDOW, hop=HOP)
    mel = np.zeros((frames, BANDS), np.float32)
    whole = min(frames, len(power))
    mel[:whole] = power[:whole] @ _filters()
    return np.asarray(np.log(mel + FLOOR), np.float32)


@cache
def _filters() -> F32:
    return mel_filters(sample_rate=SAMPLE_RATE, n_fft=WINDOW, num_mels=BANDS)
