"""Voice activity by Silero VAD, run as a sequence model.

The sequence export takes many 32 ms frames in one call and carries its LSTM state inside the
graph, so it costs a small part of the frame-by-frame loop and gives the same probabilities.
Only numpy and onnxruntime are needed; the package's own front end would import torch.
Source: Silero Team, Silero VAD, https://github.com/snakers4/silero-vad (MIT).
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annotators.threads import onnx_session
from schemas.errors import ModelLoadError
from schemas.rows import Span, Wave

SAMPLE_RATE = 16_000
FRAME = 512
"""Samples per frame: 32 ms."""
CONTEXT = 64
"""Samples of the frame before, which the model sees in front of each frame."""

Probs = npt.NDArray[np.float32]


class Silero:
    """Per-frame speech probability at 16 kHz.

    Each call starts from a fresh state, so a result depends on its own wave only.
    """

    def __init__(self, path: Path, *, threads: int = 1, block_frames: int = 512) -> None:
        """path: the sequence export of the model. Raises ModelLoadError."""
        self._session = onnx_session(path, threads=threads)
        self._block = block_frames
        names = {value.name for value in self._session.get_inputs()}
        if names != {"input", "h", "c"}:
            raise ModelLoadError(f"{path} is not the sequence export of Silero VAD: {names}")

    def probs(self, wave: Wave) -> Probs:
        """Speech probability of each frame. wave: (samples,) at 16 kHz -> (ceil(samples/512),)."""
        num_frames = -(-wave.size // FRAME)
        padded = np.zeros(CONTEXT + num_frames * FRAME, dtype=np.float32)
        padded[CONTEXT : CONTEXT + wave.size] = wave
        frames = (
            np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + FRAME)[::FRAME]
            if num_frames
            else np.zeros((0, CONTEXT + FRAME), dtype=np.float32)
        )
        hidden = np.zeros((1, 1, 128), dtype=np.float32)
        cell = np.zeros((1, 1, 128), dtype=np.float32)
        probs: list[Any] = []
        for start in range(0, num_frames, self._block):
            block = np.ascontiguousarray(frames[start : start + self._block])
            out, hidden, cell = self._session.run(
                ["speech_probs", "hn", "cn"], {"input": block, "h": hidden, "c": cell}
            )
            probs.append(np.asarray(out, dtype=np.float32).reshape(-1))
        return np.concatenate(probs) if probs else np.zeros(0, dtype=np.float32)


def speech_spans(
    probs: Probs | Sequence[float],
    *,
    duration_s: float,
    threshold: float = 0.5,
    release: float | None = None,
    min_speech_s: float = 0.25,
    min_silence_s: float = 0.3,
    pad_s: float = 0.03,
) -> tuple[Span, ...]:
    """Turn frame probabilities into spans of speech, in seconds.

    Speech begins at a frame of at least `threshold` and ends where the probability falls below
    `release` (default: 0.15 under the threshold, as Silero's authors set it) and does not come
    back to the threshold within `min_silence_s`. Spans of at most `min_speech_s` are dropped;
    the rest grow by `pad_s` at either end, or share the pause where that is too short for both.
    """
    low = max(threshold - 0.15, 0.01) if release is None else release
    frame_s = FRAME / SAMPLE_RATE
    spans: list[list[float]] = []
    start: float | None = None
    fall: float | None = None
    for index, prob in enumerate(probs):
        now = index * frame_s
        if prob >= threshold:
            fall = None
            if start is None:
                start = now
        elif prob < low and start is not None:
            if fall is None:
                fall = now
            if now - fall >= min_silence_s - 1e-9:
                if fall - start > min_speech_s:
                    spans.append([start, fall])
                start = fall = None
    if start is not None and duration_s - start > min_speech_s:
        spans.append([start, duration_s])
    for before, after in pairwise(spans):
        pause = after[0] - before[1]
        grow = pad_s if pause >= 2 * pad_s else pause / 2
        before[1] += grow
        after[0] -= grow
    if spans:
        spans[0][0] = max(0.0, spans[0][0] - pad_s)
        spans[-1][1] = min(duration_s, spans[-1][1] + pad_s)
    return tuple(Span(start_s=start, end_s=end) for start, end in spans)
