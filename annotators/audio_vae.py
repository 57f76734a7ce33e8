"""The AudioVAE as what hears a clip: sound in, latent frames out.

Right of every clip silence fills up the last frames to a multiple of `PATCH`, as the releases were
trained. The encoder is causal, so what stands right of a clip in a batch changes nothing of it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from model_core.audio import padded, resampled
from model_core.checkpoint import load_vae, read_config, vae_hash
from schemas.errors import EmptyAudio, NonFiniteAudio, UndecodableAudio
from schemas.latents import PATCH
from schemas.rows import Wave

F16 = npt.NDArray[np.float16]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Ear:
    """Brings sound to the rate at which the AudioVAE of a checkpoint hears."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelLoadError."""
        self._config = read_config(folder).audio_vae_config

    def hear(self, wave: npt.NDArray[np.floating], sample_rate: int) -> Wave:
        """(S,) at `sample_rate` hertz -> (S',) at the AudioVAE's rate.

        Raises UndecodableAudio for more than one channel, EmptyAudio, NonFiniteAudio.
        """
        if wave.ndim != 1:
            raise UndecodableAudio(f"a clip is mono, this has {wave.shape[1]} channels")
        if not wave.size:
            raise EmptyAudio("the clip has no samples")
        if not np.isfinite(wave).all():
            raise NonFiniteAudio("the clip holds NaN or infinity")
        config = self._config
        sound = torch.from_numpy(wave.astype(np.float32, copy=False))
        heard = resampled(sound, sample_rate, config.sample_rate, v2=config.version == "v2")
        out: Wave = heard.numpy()
        return out


class AudioVaeEncoder:
    """Latents of clips of any length, in batches of about one length."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        threads: int = 1,
        batch_s: float = 60.0,
    ) -> None:
        """batch_s: seconds of audio in a call at most, padding and all. Raises ModelLoadError."""
        torch.set_num_threads(threads)
        vae = load_vae(folder)
        self.hash = vae_hash(vae)
        """Of the AudioVAE, as `latents` names it."""
        self._multiple = PATCH * vae.config.hop
        self._samples = int(batch_s * vae.config.sample_rate)
        # What is folded neither moves nor changes its type.
        self._vae = vae.to(device, DTYPES[dtype]).fold_weight_norm()

    def encode(self, waves: Sequence[Wave]) -> list[F16]:
        """(S,) each, at the AudioVAE's rate -> (frames, channels) each, in their order.

        What float16 cannot hold is infinite or NaN in it.
        """
        latents: dict[int, F16] = {}
        for group in grouped([len(wave) for wave in waves], self._samples, self._multiple):
            sounds = [padded(torch.from_numpy(waves[i]), self._multiple, "right") for i in group]
            longest = max(len(sound) for sound in sounds)
            batch = torch.stack([F.pad(sound, (0, longest - len(sound))) for sound in sounds])
            with torch.inference_mode():
                means = self._vae.encode(batch[:, None].to(self._vae.device))
            halves = means.mT.to(torch.float16).cpu().numpy()
            for i, sound, half in zip(group, sounds, halves, strict=True):
                frames = len(sound) // self._vae.config.hop
                latents[i] = np.ascontiguousarray(half[:frames])
        return [latents[i] for i in range(len(waves))]


def grouped(lengths: Sequence[int], most: int, multiple: int) -> Iterator[list[int]]:
    """Which clips share a call: longest first, each group within `most` samples once it is padded.

    lengths: samples, each filled up to a multiple. A clip longer than `most` goes alone.
    """
    group: list[int] = []
    longest = 0
    for number in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if group and longest * (len(group) + 1) > most:
            yield group
            group = []
        if not group:
            longest = -(-lengths[number] // multiple) * multiple
        group.append(number)
    if group:
        yield group
