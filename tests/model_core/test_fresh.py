"""Weights to start from."""

import json
from dataclasses import replace

import pytest
import soundfile
import torch
from safetensors.torch import save_file

from model_core.checkpoint import load_checkpoint, save_checkpoint
from model_core.config import VoxCPMConfig
from model_core.fresh import fresh_model, fresh_vae, take_language_model
from model_core.sizes import config_of
from model_core.synthesis import SpeechRequest, Synthesizer
from model_core.transformer import causal
from model_core.voxcpm import VoxCPM
from schemas.errors import ConfigError, ModelLoadError
from tests.model_core.fixtures import ROOT as CORE

DEVSET = CORE.parent / "devset"


@pytest.fixture(scope="module")
def tiny():
    return VoxCPMConfig.from_dict(json.loads((CORE / "v2" / "config.json").read_text()))


def with_mup(config, use_mup):
    return replace(config, lm_config=replace(config.lm_config, use_mup=use_mup))


def said_by(model, ids):
    x = model.embed_text(ids)
    return model.semantic(x, torch.arange(ids.shape[1])[None], causal)


def as_minicpm(model, folder, **changes):
    """The semantic LM alone, in the layout of a language model's release."""
    lm = model.config.lm_config
    facts = {
        name: getattr(lm, name)
        for name in (
            *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
            *("num_key_value_heads", "vocab_size", "scale_emb", "scale_depth"),
        )
    }
    facts["rope_scaling"] = {"long_factor": list(lm.rope_scaling.long_factor)}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**facts, **changes}))
    state = {f"model.{name}": value for name, value in model.base_lm.state_dict().items()}
    state["lm_head.weight"] = torch.zeros(lm.vocab_size, lm.hidden_size)
    save_file(state, folder / "model.safetensors")
    return folder


def test_the_same_seed_draws_the_same_weights(tiny):
    one, other = fresh_model(tiny, 1).state_dict(), fresh_model(tiny, 2).state_dict()
    again = fresh_model(tiny, 1).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_drawing_weights_leaves_the_global_generator_alone(tiny):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fresh_model(tiny, 1)
    assert torch.equal(torch.rand(3), expected)


def test_a_fresh_nano_checkpoint_is_saved_loaded_and_speaks(tmp_path):
    config = config_of("nano", 672)
    model, vae = fresh_model(config, 0), fresh_vae(config, 0)
    save_checkpoint(tmp_path / "nano", model, vae, CORE / "v2")
    checkpoint = load_checkpoint(tmp_path / "nano")
    assert checkpoint.model.config.lm_config.hidden_size == 256
    synthesizer = Synthesizer(checkpoint, batch_size=1)
    [(_, speech)] = synthesizer.speak([SpeechRequest(text="Hello.", seed=0)])
    assert len(speech.wave) > 0
    assert speech.wave.isfinite().all()


def test_latents_of_a_fresh_audio_vae_are_of_a_size_to_learn_from():
    """Those of real speech, at its own level."""
    wave, rate = soundfile.read(DEVSET / "audio" / "en_allison_s1.flac", stop=160_000)
    config = config_of("nano", 672)
    with torch.no_grad():
        speech = torch.from_numpy(wave).float()[None, None, :: rate // 16_000]
        latent = fresh_vae(config, 0).encode(speech)
    assert 0.2 < latent.std() < 5


@pytest.mark.parametrize("size", ["0.5B", "2B"])
def test_released_sizes_have_the_released_number_of_parameters(size):
    """652.3 M and 2,290 M without the AudioVAE (spec §2)."""
    with torch.device("meta"):
        model = VoxCPM(config_of(size, 73_448))
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx({"0.5B": 652.3, "2B": 2290}[size], rel=1e-3)


def test_an_unknown_size_is_refused():
    with pytest.raises(ConfigError, match="one of nano"):
        config_of("huge", 100)


@pytest.mark.parametrize("use_mup", [False, True])
def test_a_language_model_says_after_its_move_what_it_said_before(tiny, tmp_path, use_mup):
    """MiniCPM-4 runs with μP's factors; the family runs with or without them."""
    source = fresh_model(with_mup(tiny, True), 3)
    folder = as_minicpm(source, tmp_path / "lm")
    model = fresh_model(with_mup(tiny, use_mup), 4)
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        before = said_by(model, ids)
        take_language_model(model, folder)
        torch.testing.assert_close(said_by(model, ids), said_by(source, ids), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, said_by(source, ids), atol=1e-2)


def test_a_language_model_of_another_size_is_refused(tiny, tmp_path):
    source = fresh_model(with_mup(tiny, True), 3)
    folder = as_minicpm(source, tmp_path / "lm", num_hidden_layers=99)
    with pytest.raises(ModelLoadError, match="num_hidden_layers is 99"):
        take_language_model(fresh_model(tiny, 4), folder)
    with pytest.raises(ModelLoadError, match="no language model here"):
        take_language_model(fresh_model(tiny, 4), tmp_path)
