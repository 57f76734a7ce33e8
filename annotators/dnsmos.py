"""Perceived quality by DNSMOS P.835 (signal, background, overall) and P.808 (one number).

The weights are those that `speechmos` ships; this reader batches windows and needs neither its
librosa front end nor its one-second hop, which scores every second nine times.
Source: Reddy, Gopal, Cutler, "DNSMOS P.835", ICASSP 2022; polynomials and window length as in
the authors' release (https://github.com/microsoft/DNS-Challenge, MIT).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from annotators.mel import mel_filters, power_spectrogram
from annotators.threads import onnx_session
from schemas.errors import EmptyAudio
from schemas.rows import Wave

SAMPLE_RATE = 16_000
WINDOW = 144_160
"""Samples per window: 9.01 s."""
HOP = 9 * SAMPLE_RATE
_MIN_REST = WINDOW // 2
"""A last piece at least this long gets a window of its own, set flush with the clip's end."""

_SIG = (-0.08397278, 1.22083953, 0.0052439)
_BAK = (-0.13166888, 1.60915514, -0.39604546)
_OVRL = (-0.06766283, 1.11546468, 0.04602535)

_P808_FFT = 321
_P808_HOP = 160
_P808_MELS = 120

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityScores:
    """Mean opinion scores, about 1 to 5."""

    sig: float
    bak: float
    ovrl: float
    p808: float


class Dnsmos:
    """Scores clips of any length; windows of many clips share a call."""

    def __init__(self, folder: Path, *, threads: int = 1, batch_size: int = 1) -> None:
        """folder: holds sig_bak_ovr.onnx and model_v8.onnx. Raises ModelLoadError."""
        self._p835 = onnx_session(folder / "sig_bak_ovr.onnx", threads=threads)
        self._p808 = onnx_session(folder / "model_v8.onnx", threads=threads)
        self._batch = batch_size

    def score(self, waves: Sequence[Wave]) -> list[QualityScores]:
        """Mean over each clip's windows. waves: (samples,) each, at 16 kHz.

        Raises EmptyAudio for a clip without samples.
        """
        windows = [windows_of(wave) for wave in waves]
        flat = [window for clip in windows for window in clip]
        scores = self._score_windows(flat)
        results, at = [], 0
        for clip in windows:
            sig, bak, ovrl, p808 = scores[at : at + len(clip)].mean(axis=0).tolist()
            results.append(QualityScores(sig=sig, bak=bak, ovrl=ovrl, p808=p808))
            at += len(clip)
        return results

    def _score_windows(self, windows: Sequence[F32]) -> F64:
        """(windows, 4): signal, background, overall, P.808."""
        parts = [np.zeros((0, 4))]
        for start in range(0, len(windows), self._batch):
            batch = np.stack(windows[start : start + self._batch])
            raw = np.asarray(self._p835.run(None, {"input_1": batch})[0], dtype=np.float64)
            features = np.stack([p808_features(window) for window in batch])
            p808 = np.asarray(self._p808.run(None, {"input_1": features})[0], dtype=np.float64)
            columns = [np.polyval(fit, raw[:, i]) for i, fit in enumerate((_SIG, _BAK, _OVRL))]
            parts.append(np.stack([*columns, p808.reshape(-1)], axis=1))
        return np.concatenate(parts)


def windows_of(wave: Wave) -> list[F32]:
    """Cut a clip into windows of 9.01 s at a hop of 9 s.

    A clip shorter than a window is doubled until it fills one, as the authors' code does. The
    last piece of a longer clip is scored when it is at least half a window.
    """
    if wave.size == 0:
        raise EmptyAudio("no samples to score")
    wave = np.asarray(wave, dtype=np.float32)
    if wave.size < WINDOW:
        return [np.resize(wave, WINDOW)]
    starts = list(range(0, wave.size - WINDOW + 1, HOP))
    if wave.size - (starts[-1] + WINDOW) >= _MIN_REST:
        starts.append(wave.size - WINDOW)
    return [wave[start : start + WINDOW] for start in starts]


def p808_features(window: F32) -> F32:
    """Log-mel input of the P.808 model: (144160,) -> (900, 120)."""
    power = power_spectrogram(window[:-160], n_fft=_P808_FFT, hop=_P808_HOP)
    mel = power @ _p808_filters()  # (frames, mels)
    floor = 1e-10
    log = 10 * np.log10(np.maximum(mel, floor)) - 10 * np.log10(max(floor, float(mel.max())))
    scaled: F32 = ((np.maximum(log, -80.0) + 40) / 40).astype(np.float32)
    return scaled


@lru_cache(maxsize=1)
def _p808_filters() -> F32:
    return mel_filters(sample_rate=SAMPLE_RATE, n_fft=_P808_FFT, num_mels=_P808_MELS)
