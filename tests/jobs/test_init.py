"""A fresh checkpoint around an AudioVAE that another one has."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from jobs.init import InitConfig, init
from model_core.audio_vae.model import AudioVAE
from model_core.checkpoint import load_checkpoint, save_checkpoint
from model_core.fresh import fresh_model, fresh_vae
from model_core.sizes import config_of
from schemas.errors import ConfigError

V2 = str(Path(__file__).parents[1] / "data" / "core" / "v2")


def test_an_audiovae_of_other_latents_is_taken_with_its_sizes(tmp_path: Path) -> None:
    nano = config_of("nano", 400)
    sizes = replace(nano.audio_vae_config, latent_dim=24, decoder_dim=128)
    theirs = replace(nano, feat_dim=24, audio_vae_config=sizes)
    other = tmp_path / "other"
    vae: AudioVAE = fresh_vae(theirs, seed=3)
    save_checkpoint(other, fresh_model(theirs, seed=3), vae, Path(V2))
    init(
        InitConfig(size="nano", out=tmp_path / "made", tokenizer=V2, vae=str(other)),
        Console(quiet=True),
    )
    made = load_checkpoint(tmp_path / "made")
    assert made.model.config.feat_dim == made.vae.config.latent_dim == 24
    assert made.model.config.audio_vae_config == sizes
    wave = torch.randn(1, 1, 3200)
    with torch.inference_mode():
        torch.testing.assert_close(made.vae.encode(wave), vae.encode(wave))


def test_an_audiovae_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has an AudioVAE"):
        init(
            InitConfig(size="0.5B", out=tmp_path / "made", tokenizer=V2, vae="nano"),
            Console(quiet=True),
        )
    assert not (tmp_path / "made").exists()
