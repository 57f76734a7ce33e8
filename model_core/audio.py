"""Waveforms to latent patches, the way the releases were trained.

Shapes: S samples, F latent frames, A patches, P frames of a patch, C latent channels.
Source: spec §10, "Audio → patches".
"""

import math
from typing import Literal

import numpy as np
import soxr
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from model_core.audio_vae import AudioVAE
from schemas.errors import EmptyAudio, NonFiniteAudio, SilentAudio, TooShortAudio

Padding = Literal["left", "right"]
"""Where silence fills up the last patch: left for prompts, so that what follows joins their end;
right for references and for training."""

MIN_VOICE_S = 0.5
"""Seconds; what is shorter tells nothing of a voice."""
SILENCE_DBFS = -60.0
"""A voice whose loudest 20 ms are below this is silence."""


def mono(wave: Tensor) -> Tensor:
    """(S,) or (channels, S) -> (S,) float32, the mean of the channels."""
    wave = wave.float()
    return wave if wave.dim() == 1 else wave.mean(dim=0)


def resampled(wave: Tensor, rate: int, target: int, *, v2: bool) -> Tensor:
    """(S,) at `rate` hertz -> (S',) at `target`: windowed sinc in the V1 class, SoX HQ in V2."""
    if rate == target:
        return wave
    if not v2:
        return torchaudio.functional.resample(wave, rate, target)
    length = math.ceil(len(wave) * target / rate)
    out = torch.from_numpy(soxr.resample(wave.numpy().astype(np.float32), rate, target, "HQ"))
    return F.pad(out, (0, max(0, length - len(out))))[:length]


def voice_of(wave: Tensor, rate: int, what: str) -> Tensor:
    """A reference or prompt as mono float32 (S,), or why it cannot be one.

    what: how messages call it. Raises EmptyAudio, NonFiniteAudio, TooShortAudio, SilentAudio.
    """
    wave = mono(wave)
    if not wave.numel():
        raise EmptyAudio(f"{what} has no samples")
    if not wave.isfinite().all():
        raise NonFiniteAudio(f"{what} holds NaN or infinity")
    duration = len(wave) / rate
    if duration < MIN_VOICE_S:
        raise TooShortAudio(f"{what} lasts {duration:.2f} s; at least {MIN_VOICE_S} s are needed")
    frame = max(1, rate // 50)
    power = wave[: len(wave) // frame * frame].view(-1, frame).square().mean(dim=1)
    loudest = 10 * math.log10(max(power.max().item(), 1e-20))
    if loudest < SILENCE_DBFS:
        raise SilentAudio(
            f"{what} is silent: its loudest 20 ms are at {max(loudest, -200.0):.0f} dBFS"
        )
    return wave


def padded(wave: Tensor, multiple: int, padding: Padding) -> Tensor:
    """(S,) -> (S',) with silence up to a multiple of samples."""
    missing = -len(wave) % multiple
    return F.pad(wave, (missing, 0) if padding == "left" else (0, missing))


def patches_of(latent: Tensor, patch_size: int) -> Tensor:
    """(C, A · P) -> (A, P, C)."""
    return latent.T.reshape(-1, patch_size, len(latent))


def latents_of(patches: Tensor) -> Tensor:
    """(A, P, C) -> (C, A · P)."""
    return patches.flatten(0, 1).T


def encode_patches(
    vae: AudioVAE, wave: Tensor, rate: int, *, patch_size: int, padding: Padding
) -> Tensor:
    """A mono waveform (S,) at `rate` hertz -> latent patches (A, P, C), float32."""
    config = vae.config
    wave = resampled(wave, rate, config.sample_rate, v2=config.version == "v2")
    wave = padded(wave, patch_size * config.hop, padding)
    device = vae.device
    with torch.inference_mode():
        latent = vae.encode(wave.to(device)[None, None])[0]
    return patches_of(latent, patch_size).float()
