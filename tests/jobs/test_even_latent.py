"""Latents of one size, behind a decoder that makes the same sound of them."""

from pathlib import Path

import pytest
import soundfile as sf
import torch

from jobs.shipped.even_latent import evened
from model_core.audio_vae import AudioVAE
from model_core.fresh import fresh_vae
from model_core.sizes import config_of
from model_core.vae_training.checkpoint import weights_of


def test_the_factors_are_in_the_latents_and_not_in_the_sound(devset: Path) -> None:
    wave, _ = sf.read(devset / "audio" / "en_allison_s1.flac", frames=6400, dtype="float32")
    heard = torch.from_numpy(wave)[None, None]
    vae = fresh_vae(config_of("nano", 400), seed=1)
    factors = torch.linspace(0.1, 3.0, vae.config.latent_dim)
    other = AudioVAE(vae.config)
    other.load_state_dict(evened(weights_of(vae), factors))
    with torch.inference_mode():
        _, mean, variance = vae.posterior(heard)
        _, mean_now, variance_now = other.posterior(heard)
        assert torch.allclose(mean_now, mean * factors[:, None], rtol=1e-4, atol=1e-6)
        assert torch.allclose(variance_now, variance + 2 * factors[:, None].log(), atol=1e-4)
        assert torch.allclose(other.decode(mean_now), vae.decode(mean), rtol=1e-3, atol=1e-5)


def test_a_channel_of_factor_zero_is_neither_spoken_nor_heard() -> None:
    vae = fresh_vae(config_of("nano", 400), seed=1)
    factors = torch.ones(vae.config.latent_dim)
    factors[3] = 0
    other = AudioVAE(vae.config)
    other.load_state_dict(evened(weights_of(vae), factors))
    latent = torch.randn(1, vae.config.latent_dim, 4)
    louder = latent.clone()
    louder[:, 3] += 100
    with torch.inference_mode():
        assert not other.encode(torch.rand(1, 1, 2560))[:, 3].any()
        assert torch.equal(other.decode(latent), other.decode(louder))
        assert other.decode(latent).flatten().tolist() == pytest.approx(
            vae.decode(latent.index_fill(1, torch.tensor(3), 0.0)).flatten().tolist(), abs=1e-6
        )
