"""The AudioVAE against numbers of the official package, and the laws it keeps."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from model_core.audio_vae import AudioVAE, AudioVAEConfig
from model_core.audio_vae.pieces import Spans
from schemas.errors import ConfigError

DATA = Path(__file__).parents[1] / "data" / "core"
MODELS = {"v1": "v1", "v15": "v1", "v2": "v2", "v2b": "v2"}
VARIANTS = sorted(path.stem for path in (DATA / "vae_variants").glob("*.json"))
COND_TYPES = ("scale_bias", "scale_bias_init", "add", "concat")
both_forms = pytest.mark.parametrize("fold", [False, True], ids=["plain", "folded"])
each_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are not worth waiting for a second thread, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config_of(name: str) -> AudioVAEConfig:
    raw = json.loads((DATA / name / "config.json").read_text(encoding="utf-8"))
    return AudioVAEConfig.from_dict(raw["audio_vae_config"], MODELS[name])


def load(name: str, fold: bool = False) -> AudioVAE:
    """A fixture model."""
    vae = AudioVAE(config_of(name))
    file = DATA / name / "audiovae.safetensors"
    if file.exists():
        weights = load_file(file)
    else:
        weights = torch.load(file.with_suffix(".pth"), weights_only=True)
    vae.load_state_dict(weights.get("state_dict", weights))
    return vae.fold_weight_norm() if fold else vae


def expected(name: str) -> dict[str, Tensor]:
    tensors = load_file(DATA / name / "expected.safetensors")
    return {key.removeprefix("vae/"): t for key, t in tensors.items() if key.startswith("vae/")}


def close(ours: Tensor, official: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(ours, official, atol=atol, rtol=1e-4)


def audio_atol(name: str) -> float:
    return 1e-3 if name == "v2b" else 1e-4


def small(**changes: Any) -> AudioVAE:
    """A V2 model of random weights, with every parameter away from where it starts."""
    raw = {
        "encoder_dim": 4,
        "encoder_rates": [2, 3],
        "latent_dim": 5,
        "decoder_dim": 24,
        "decoder_rates": [3, 2, 2],
        "cond_dim": 3,
    }
    torch.manual_seed(5)
    vae = AudioVAE(AudioVAEConfig.from_dict({**raw, **changes}, "v2"))
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return vae


# ── the official numbers ──────────────────────────────────────────────────────────────────────────


@both_forms
@each_model
def test_the_encoder_gives_the_official_numbers(name: str, fold: bool) -> None:
    vae, official = load(name, fold), expected(name)
    wave = official["enc_in"][:, None]
    for ours, key in zip(vae.posterior(wave), ("enc_hidden", "enc_mu", "enc_logvar"), strict=True):
        close(ours, official[key])
    close(vae.encode(wave), official["enc_mu"])


@both_forms
@each_model
def test_the_decoder_gives_the_official_numbers(name: str, fold: bool) -> None:
    vae, official = load(name, fold), expected(name)
    close(vae.decode(official["dec_in"]), official["dec_out"], audio_atol(name))
    for key in (key for key in official if key.startswith("dec_out_sr")):
        sample_rate = int(key.removeprefix("dec_out_sr"))
        wave = vae.decode(official["dec_in"][:1, :, :3], sample_rate)
        close(wave, official[key], audio_atol(name))


@both_forms
@pytest.mark.parametrize("name", ["v2", "v2b"])
def test_streams_give_the_official_numbers(name: str, fold: bool) -> None:
    vae, official = load(name, fold), expected(name)
    sizes = json.loads((DATA / name / "expected.json").read_text(encoding="utf-8"))
    close(vae.decode(official["stream_in"]), official["stream_full"], audio_atol(name))
    for which in "ab":
        stream = vae.stream()
        chunks = official["stream_in"].split(sizes[f"vae_stream_{which}_sizes"], dim=-1)
        wave = torch.cat([stream.decode(chunk) for chunk in chunks], dim=-1)
        close(wave, official[f"stream_{which}"], audio_atol(name))


@both_forms
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_gives_the_official_numbers(name: str, fold: bool) -> None:
    folder = DATA / "vae_variants"
    raw = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    vae = AudioVAE(AudioVAEConfig.from_dict(raw["config"], raw["cls"].lower()))
    vae.load_state_dict(load_file(folder / f"{name}.safetensors"))
    if fold:
        vae.fold_weight_norm()
    official = load_file(folder / f"{name}.expected.safetensors")
    draws = iter([official[key][:, 0] for key in sorted(official) if key.startswith("noise")])
    close(vae.encode(official["enc_in"][:, None]), official["enc_mu"])
    close(vae.decode(official["dec_in"], noise=lambda b, t: next(draws)), official["dec_out"])


@each_model
def test_the_parameters_are_those_of_the_checkpoints(name: str) -> None:
    keys = json.loads((DATA / name / "state_dict_keys.json").read_text(encoding="utf-8"))
    prefix = "audio_vae."
    official = {
        key.removeprefix(prefix): (tuple(value["shape"]), value["dtype"])
        for key, value in keys.items()
        if key.startswith(prefix)
    }
    ours = {
        key: (tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for key, value in load(name).state_dict().items()
    }
    assert ours == official


# ── laws ──────────────────────────────────────────────────────────────────────────────────────────


@both_forms
@each_model
def test_the_future_cannot_change_the_past(name: str, fold: bool) -> None:
    vae = load(name, fold)
    config = vae.config
    wave = torch.randn(2, 1, 6 * config.hop)
    changed = wave.clone()
    changed[..., 4 * config.hop :] += 1
    torch.testing.assert_close(vae.encode(wave)[..., :4], vae.encode(changed)[..., :4])
    assert not torch.allclose(vae.encode(wave)[..., 4:], vae.encode(changed)[..., 4:])
    latent = torch.randn(2, config.latent_dim, 6)
    changed = latent.clone()
    changed[..., 4:] += 1
    before, after = vae.decode(latent), vae.decode(changed)
    cut = 4 * config.out_hop
    close(before[..., :cut], after[..., :cut], 1e-5)
    assert not torch.allclose(before[..., cut:], after[..., cut:])


@settings(deadline=None, max_examples=15)
@given(
    name=st.sampled_from(list(MODELS)), sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6)
)
def test_streaming_equals_offline_in_any_chunks(name: str, sizes: list[int]) -> None:
    vae = load(name, fold=True)
    latent = torch.randn(2, vae.config.latent_dim, sum(sizes))
    stream = vae.stream()
    wave = torch.cat([stream.decode(chunk) for chunk in latent.split(sizes, dim=-1)], dim=-1)
    close(wave, load(name).decode(latent), audio_atol(name))


@each_model
@pytest.mark.parametrize("spans", [Spans(piece=200, span=1), Spans(piece=900, span=7000)])
def test_how_much_is_worked_on_at_once_changes_nothing(
    name: str, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = load(name, fold=True)
    wave, latent = torch.randn(3, 1, 4 * vae.config.hop), torch.randn(3, vae.config.latent_dim, 4)
    mu, decoded = vae.encode(wave), vae.decode(latent)
    monkeypatch.setattr("model_core.audio_vae.pieces.CPU_SPANS", spans)
    close(vae.encode(wave), mu)
    close(vae.decode(latent), decoded, audio_atol(name))


@pytest.mark.parametrize("slope", [0.0, 1e-7, -0.3, 30.0])
def test_folding_keeps_every_slope_of_snake(slope: float) -> None:
    vae = small(cond_type="concat", cond_out_layer=True)
    with torch.no_grad():
        for key, parameter in vae.named_parameters():
            if key.endswith("alpha"):
                parameter[:, ::2] = slope
    wave, latent = torch.randn(1, 1, 96), torch.randn(1, 5, 9)
    mu, decoded = vae.encode(wave), vae.decode(latent)
    vae.fold_weight_norm()
    close(vae.encode(wave), mu)
    close(vae.decode(latent), decoded)


@both_forms
@pytest.mark.parametrize("out_layer", [False, True])
@pytest.mark.parametrize("cond_type", COND_TYPES)
def test_every_row_may_have_its_own_sample_rate(
    cond_type: str, out_layer: bool, fold: bool
) -> None:
    if cond_type == "concat" and not out_layer:
        pytest.skip("concat needs the out layer")
    vae = small(cond_type=cond_type, cond_out_layer=out_layer)
    if fold:
        vae.fold_weight_norm()
    latent = torch.randn(1, 5, 6).expand(4, -1, -1)
    rates = torch.tensor([16000, 20001, 40000, 48000])
    together = vae.decode(latent, rates)
    alone = [vae.decode(latent[:1], int(rate)) for rate in rates]
    close(together, torch.cat(alone), 1e-6)
    close(vae.decode(latent), alone[3].expand(4, -1, -1), 1e-6)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)


@both_forms
def test_a_seed_repeats_the_noise(fold: bool) -> None:
    vae = small(use_noise_block=True)
    if fold:
        vae.fold_weight_norm()
    latent = torch.randn(2, 5, 4)

    def decode(seed: int) -> Tensor:
        return vae.decode(latent, noise=torch.Generator().manual_seed(seed))

    assert torch.equal(decode(1), decode(1))
    assert not torch.equal(decode(1), decode(2))


@pytest.mark.parametrize("cond_type", COND_TYPES)
def test_gradients_reach_every_parameter(cond_type: str) -> None:
    vae = small(cond_type=cond_type, cond_out_layer=True, use_noise_block=True)
    _, mu, logvar = vae.posterior(torch.randn(2, 1, 60))
    latent = mu + logvar.exp() * torch.randn_like(mu)
    vae.decode(latent, torch.tensor([16000, 48000])).square().mean().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@both_forms
def test_bfloat16_stays_near_float32(fold: bool) -> None:
    exact, rough = load("v2"), load("v2").bfloat16()
    if fold:
        rough.fold_weight_norm()
    official = expected("v2")
    mu, wave = rough.encode(official["enc_in"][:, None]), rough.decode(official["dec_in"])
    assert mu.dtype == wave.dtype == rough.dtype == torch.bfloat16
    for ours, reference in ((mu, official["enc_mu"]), (wave, official["dec_out"])):
        error = (ours.float() - reference).norm() / reference.norm()
        assert error < 0.05, error
    assert exact.dtype == torch.float32


def test_autocast_leaves_the_numbers_alone() -> None:
    vae, wave = load("v1"), torch.randn(1, 1, 2000)
    with torch.autocast("cpu", torch.bfloat16):
        inside = vae.encode(wave)
    assert torch.equal(inside, vae.encode(wave))


def test_a_folded_model_stays_where_it_is() -> None:
    vae = load("v1", fold=True)
    assert vae.folded
    assert not load("v1").folded
    assert not vae.state_dict()
    assert vae.fold_weight_norm() is vae
    assert vae.float().eval() is vae
    with pytest.raises(RuntimeError, match="before folding"):
        vae.bfloat16()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@both_forms
@each_model
def test_a_gpu_gives_the_official_numbers(name: str, fold: bool, dtype: torch.dtype) -> None:
    vae, official = load(name).to("cuda", dtype), expected(name)
    if fold:
        vae.fold_weight_norm()
    stream = vae.stream()
    chunks = official["dec_in"].cuda().split([1, 3, 4], dim=-1)
    pairs: list[tuple[Callable[[], Tensor], str]] = [
        (lambda: vae.encode(official["enc_in"][:, None].cuda()), "enc_mu"),
        (lambda: vae.decode(official["dec_in"].cuda()), "dec_out"),
        (lambda: torch.cat([stream.decode(chunk) for chunk in chunks], dim=-1), "dec_out"),
    ]
    for ours, key in pairs:
        error = (ours().float().cpu() - official[key]).norm() / official[key].norm()
        # TF32, a GPU's default in convolutions, has ten bits.
        assert error < (5e-3 if dtype == torch.float32 else 0.1), (key, error)


# ── settings ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "config",
    [*map(config_of, MODELS), *(AudioVAEConfig.from_dict(None, v) for v in ("v1", "v2"))],
    ids=[*MODELS, "default v1", "default v2"],
)
def test_a_config_survives_the_round_trip(config: AudioVAEConfig) -> None:
    raw = json.loads(json.dumps(config.to_dict()))
    assert AudioVAEConfig.from_dict({**raw, "unknown": 1}, config.version) == config


def test_the_defaults_are_those_of_the_releases() -> None:
    v1, v2 = (AudioVAEConfig.from_dict({}, version) for version in ("v1", "v2"))
    assert (v1.hop, v1.out_hop, v1.sample_rate, v1.out_sample_rate) == (640, 640, 16000, 16000)
    assert (v2.hop, v2.out_hop, v2.sample_rate, v2.out_sample_rate) == (640, 1920, 16000, 48000)
    assert v1.sr_bin_boundaries is None
    assert v2.sr_bin_boundaries == (20000, 30000, 40000)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder_dim", 0),
        ("latent_dim", "64"),
        ("encoder_rates", []),
        ("encoder_rates", 640),
        ("decoder_rates", [8, 0]),
        ("decoder_dim", 2047),
        ("depthwise", 1),
        ("cond_type", "film"),
        ("sr_bin_boundaries", [30000, 20000]),
        ("sr_bin_boundaries", []),
        ("cond_type", "concat"),
    ],
)
def test_a_bad_setting_is_named(key: str, value: object) -> None:
    named = "cond_out_layer" if value == "concat" else key
    with pytest.raises(ConfigError, match=rf"audio_vae_config\.{named}"):
        AudioVAEConfig.from_dict({key: value}, "v2")


def test_a_bad_version_or_sample_rate_is_named() -> None:
    with pytest.raises(ConfigError, match="v3"):
        AudioVAEConfig.from_dict({}, "v3")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="-1"):
        small().decode(torch.zeros(1, 5, 1), -1)
