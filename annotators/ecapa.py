"""Speaker embeddings by ECAPA-TDNN as trained by SpeechBrain on VoxCeleb.

The network is built here from SpeechBrain's classes and filled from a plain weights file. The
checkpoint's own hyperparams.yaml is never read: evaluating it would run code of its author.
Source: Desplanques et al., "ECAPA-TDNN", Interspeech 2020; settings as published with
speechbrain/spkrec-ecapa-voxceleb (Apache-2.0).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annotators.speaker import SpeakerPrint, Window, unit
from annotators.threads import torch_with
from schemas.errors import EmptyAudio, ModelLoadError
from schemas.rows import Wave

SAMPLE_RATE = 16_000
_WINDOW = 3 * SAMPLE_RATE // 2
_HOP = 3 * SAMPLE_RATE // 4
_WHOLE = 30 * SAMPLE_RATE
"""Longest stretch embedded in one piece."""
_WEIGHTS = "embedding_model.ckpt"

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class EcapaShape:
    """Widths of the network; the defaults are the published ones."""

    num_mels: int = 80
    channels: tuple[int, ...] = (1024, 1024, 1024, 1024, 3072)
    attention_channels: int = 128
    size: int = 192


class Ecapa:
    """Embeds clips of any length: (192,) with the published weights."""

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        device: str = "cpu",
        batch_size: int = 32,
        shape: EcapaShape | None = None,
    ) -> None:
        """path: `embedding_model.ckpt` or the folder that holds it. Raises ModelLoadError."""
        shape = shape or EcapaShape()
        torch = self._torch = torch_with(threads)
        self.size = shape.size
        self._device = device
        self._batch = batch_size
        weights = path / _WEIGHTS if path.is_dir() else path
        self._features, self._net = _build(shape)
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            self._net.load_state_dict(state)
        except Exception as error:
            raise ModelLoadError(f"{weights} does not open as ECAPA weights: {error}") from error
        for module in (self._features, self._net):
            module.to(device).eval()

    def embed(self, waves: Sequence[Wave]) -> list[SpeakerPrint]:
        """Embed each clip as a whole, and in windows of 1.5 s. waves: (samples,) each, at 16 kHz.

        Raises EmptyAudio for a clip without samples.
        """
        return [self._print(wave) for wave in waves]

    def _print(self, wave: Wave) -> SpeakerPrint:
        if wave.size == 0:
            raise EmptyAudio("no samples to embed")
        # A clip of less than half a window is repeated: the network's context is 0.2 s wide.
        filled = np.resize(wave, max(wave.size, _WINDOW // 2)).astype(np.float32)
        bounds = [
            (start, min(start + _WINDOW, filled.size))
            for start in range(0, max(1, filled.size - _WINDOW + _HOP), _HOP)
        ]
        full = [filled[a:b] for a, b in bounds if b - a == _WINDOW]
        short = [filled[a:b] for a, b in bounds if b - a < _WINDOW]
        # A last window keeps its full length and moves back, so that windows compare.
        if short and full:
            bounds[-1] = (filled.size - _WINDOW, filled.size)
            full.append(filled[-_WINDOW:])
            short = []
        vectors = self._forward(full or short)
        windows = tuple(
            Window(start_s=a / SAMPLE_RATE, end_s=b / SAMPLE_RATE, embedding=vector)
            for (a, b), vector in zip(bounds, vectors, strict=True)
        )
        parts = [filled[at : at + _WHOLE] for at in range(0, filled.size, _WHOLE)]
        if len(parts) > 1 and parts[-1].size < _WINDOW:
            parts.pop()
        whole = np.sum([self._forward([part])[0] * part.size for part in parts], axis=0)
        return SpeakerPrint(embedding=unit(whole), windows=windows)

    def _forward(self, waves: Sequence[F32]) -> F32:
        """Waves of one length -> (waves, size), unit length."""
        torch = self._torch
        parts: list[Any] = []
        with torch.inference_mode():
            for start in range(0, len(waves), self._batch):
                batch = torch.from_numpy(np.stack(waves[start : start + self._batch]))
                features = self._features(batch.to(self._device))
                # Sentence normalisation: every band loses its mean over time.
                features = features - features.mean(dim=1, keepdim=True)
                raw = self._net(features).squeeze(1)
                parts.append((raw / raw.norm(dim=1, keepdim=True).clamp_min(1e-9)).cpu().numpy())
        return np.concatenate(parts)


def _build(shape: EcapaShape) -> tuple[Any, Any]:
    """Fbank features and the network, with random weights."""
    try:
        from speechbrain.lobes.features import Fbank
        from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    except ImportError as error:
        raise ModelLoadError(
            "ECAPA-TDNN needs speechbrain: install voxquarry[cluster], or take the encoder ge2e"
        ) from error
    net = ECAPA_TDNN(
        shape.num_mels,
        lin_neurons=shape.size,
        channels=list(shape.channels),
        kernel_sizes=[5, 3, 3, 3, 1],
        dilations=[1, 2, 3, 4, 1],
        attention_channels=shape.attention_channels,
    )
    return Fbank(n_mels=shape.num_mels), net
