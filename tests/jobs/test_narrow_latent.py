"""Fewer latents of one size, behind a decoder that makes the same sound of them."""

from pathlib import Path

import soundfile as sf
import torch

from jobs.shipped.narrow_latent import narrowed
from model_core.fresh import fresh_vae
from model_core.sizes import config_of


def test_what_is_cut_off_and_scaled_cannot_be_heard(devset: Path) -> None:
    wave, _ = sf.read(devset / "audio" / "en_allison_s1.flac", frames=6400, dtype="float32")
    heard = torch.from_numpy(wave)[None, None]
    vae = fresh_vae(config_of("nano", 400), seed=1)
    with torch.no_grad():
        for bias in (vae.decoder.model[0].bias, vae.encoder.fc_mu.bias, vae.encoder.fc_logvar.bias):
            bias.normal_(std=0.1)
    factors = torch.linspace(0.1, 3.0, vae.config.latent_dim)
    live = torch.arange(vae.config.latent_dim) % 3 > 0
    other = narrowed(vae, live, factors)
    assert other.config.latent_dim == int(live.sum())
    with torch.inference_mode():
        _, mean, variance = vae.posterior(heard)
        _, mean_now, variance_now = other.posterior(heard)
        factor = factors[live][:, None]
        assert torch.allclose(mean_now, mean[:, live] * factor, rtol=1e-4, atol=1e-5)
        assert torch.allclose(variance_now, variance[:, live] + 2 * factor.log(), atol=1e-4)
        silent = mean * live[:, None]
        assert torch.allclose(other.decode(mean_now), vae.decode(silent), rtol=1e-3, atol=1e-5)
        assert not torch.allclose(other.decode(mean_now), vae.decode(mean), rtol=1e-2, atol=1e-4)
