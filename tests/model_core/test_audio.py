"""Waveforms become latent patches as in the releases, and what holds no voice is refused."""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from model_core.audio import (
    MIN_VOICE_S,
    encode_patches,
    latents_of,
    mono,
    padded,
    patches_of,
    resampled,
    voice_of,
)
from model_core.audio_vae import AudioVAE
from model_core.checkpoint import load_checkpoint
from schemas.errors import EmptyAudio, NonFiniteAudio, SilentAudio, TooShortAudio

CORE = Path(__file__).parents[1] / "data" / "core"


@cache
def vae(name: str, folded: bool = False) -> AudioVAE:
    opened = load_checkpoint(CORE / name, dtype=torch.float32).vae
    return opened.fold_weight_norm() if folded else opened


def tone(rate: int, seconds: float, hertz: float = 440.0) -> Tensor:
    t = torch.arange(round(rate * seconds)) / rate
    return 0.3 * torch.sin(2 * math.pi * hertz * t)


# The same resamplers, in other builds: what is left is float32 rounding.
@pytest.mark.parametrize("name", ["v1", "v15", "v2", "v2b"])
def test_resampling_is_that_of_the_releases(name: str) -> None:
    facts = json.loads((CORE / name / "expected.json").read_text(encoding="utf-8"))["resample"]
    official = load_file(CORE / name / "expected.safetensors")["audio/resample_out"]
    wave, rate = soundfile.read(CORE / name / facts["file"], dtype="float32")
    assert rate == facts["from_rate"]
    v2 = name.startswith("v2")
    ours = resampled(torch.from_numpy(wave), rate, facts["to_rate"], v2=v2)
    torch.testing.assert_close(ours, official, atol=1e-4, rtol=1e-4)
    other = resampled(torch.from_numpy(wave), rate, facts["to_rate"], v2=not v2)
    assert (other - official).abs().max() > 1e-3, "the test tells the two resamplers apart"


@settings(deadline=None, max_examples=40)
@given(
    samples=st.integers(1, 3000),
    rate=st.sampled_from([8000, 11025, 22050, 44100, 48000]),
    v2=st.booleans(),
)
def test_resampling_keeps_the_duration(samples: int, rate: int, v2: bool) -> None:
    out = resampled(torch.ones(samples), rate, 16000, v2=v2)
    assert len(out) == math.ceil(samples * 16000 / rate)
    assert out.isfinite().all()


def test_channels_are_averaged_and_loudness_stays() -> None:
    left, right = tone(44100, 0.5), tone(44100, 0.5, 1000.0)
    assert mono(torch.stack((left, right))).equal((left + right) / 2)
    assert mono(left).equal(left)
    assert mono(left.double()).dtype == torch.float32


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_a_stereo_recording_at_another_rate_is_heard_like_its_mono_original(name: str) -> None:
    stereo = torch.stack((tone(44100, 1.0) * 1.5, tone(44100, 1.0) * 0.5))
    patch = 4 * 640 if name == "v2" else 2 * 640
    size = 4 if name == "v2" else 2
    heard = encode_patches(
        vae(name), voice_of(stereo, 44100, "it"), 44100, patch_size=size, padding="right"
    )
    original = encode_patches(vae(name), tone(16000, 1.0), 16000, patch_size=size, padding="right")
    assert heard.shape == original.shape == (math.ceil(16000 / patch), size, 16)
    inner = slice(1, -2)  # resampling rings where the tone begins and ends
    torch.testing.assert_close(heard[inner], original[inner], atol=0.02, rtol=0.02)


@settings(deadline=None, max_examples=50)
@given(samples=st.integers(1, 50), multiple=st.integers(1, 20))
def test_silence_fills_the_last_patch_on_the_side_that_was_asked(
    samples: int, multiple: int
) -> None:
    wave = torch.arange(1.0, samples + 1)
    left, right = padded(wave, multiple, "left"), padded(wave, multiple, "right")
    assert len(left) == len(right) == math.ceil(samples / multiple) * multiple
    assert left[-samples:].equal(wave)
    assert right[:samples].equal(wave)
    assert left.sum() == right.sum() == wave.sum()


def test_a_prompt_ends_at_the_end_of_its_last_patch_and_a_reference_begins_at_its_first() -> None:
    wave = tone(16000, 0.7)
    missing = -len(wave) % 2560
    silence = torch.zeros(missing)
    for padding, whole in (
        ("left", torch.cat((silence, wave))),
        ("right", torch.cat((wave, silence))),
    ):
        patches = encode_patches(vae("v2"), wave, 16000, patch_size=4, padding=padding)  # type: ignore[arg-type]
        by_hand = patches_of(vae("v2").encode(whole[None, None])[0].detach(), 4)
        torch.testing.assert_close(patches, by_hand)


def test_a_folded_autoencoder_hears_the_same() -> None:
    wave = tone(16000, 0.6)
    plain, folded = (
        encode_patches(vae("v2", way), wave, 16000, patch_size=4, padding="left")
        for way in (False, True)
    )
    torch.testing.assert_close(folded, plain, atol=1e-4, rtol=1e-4)


@settings(deadline=None, max_examples=30)
@given(num_patches=st.integers(1, 5), size=st.integers(1, 4), channels=st.integers(1, 4))
def test_frame_f_of_patch_i_is_latent_frame_i_p_plus_f(
    num_patches: int, size: int, channels: int
) -> None:
    latent = torch.rand(channels, num_patches * size)
    patches = patches_of(latent, size)
    assert patches.shape == (num_patches, size, channels)
    for i in range(num_patches):
        for f in range(size):
            assert patches[i, f].equal(latent[:, i * size + f])
    assert latents_of(patches).equal(latent)


def loud(samples: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, samples)).float()


NAN = loud(16000).index_fill(0, torch.tensor([77]), float("nan"))
INFINITE = loud(16000).index_fill(0, torch.tensor([77]), float("inf"))


@pytest.mark.parametrize(
    ("wave", "error", "says"),
    [
        (loud(1600), TooShortAudio, r"the voice lasts 0\.10 s; at least 0\.5 s"),
        (torch.zeros(16000), SilentAudio, r"the voice is silent: .* -200 dBFS"),
        (loud(16000) * 1e-4, SilentAudio, r"the voice is silent: .* -\d\d dBFS"),
        (NAN, NonFiniteAudio, "the voice holds NaN"),
        (INFINITE, NonFiniteAudio, "the voice holds NaN or infinity"),
        (torch.zeros(0), EmptyAudio, "the voice has no samples"),
        (torch.zeros(2, 0), EmptyAudio, "the voice has no samples"),
        (torch.stack((loud(16000), -loud(16000))), SilentAudio, "the voice is silent"),
    ],
    ids=["0.1 s", "silence", "-80 dB", "NaN", "infinite", "empty", "empty stereo", "out of phase"],
)
def test_what_holds_no_voice_is_refused_by_name(
    wave: Tensor, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        voice_of(wave, 16000, "the voice")


def test_one_loud_moment_is_a_voice_and_so_is_half_a_second() -> None:
    wave = torch.zeros(16000)
    wave[8000:9600] = loud(1600)
    assert voice_of(wave, 16000, "the voice").equal(wave)
    shortest = loud(round(16000 * MIN_VOICE_S))
    assert voice_of(shortest[None], 16000, "the voice").equal(shortest)
