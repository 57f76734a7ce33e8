"""Each part of the backbone computes what the official package computes."""

import pytest
import torch

from model_core.cache import KVCache
from model_core.flow_matching import Solver, SolverConfig
from model_core.local_dit import sinusoid
from model_core.rope import rotate
from model_core.transformer import Attend, bidirectional, causal
from model_core.voxcpm import VoxCPM
from tests.model_core.fixtures import MODELS, Fixture, fixture, swapped

every_model = pytest.mark.parametrize("case", [fixture(name) for name in MODELS], ids=MODELS)
torch.manual_seed(0)


def lm(model: VoxCPM, part: str, x: torch.Tensor, start: int, attend: Attend) -> torch.Tensor:
    """base_lm or residual_lm alone, over positions from `start` on."""
    positions = torch.arange(start, start + x.shape[1])[None]
    if part == "base_lm":
        return model.semantic(x, positions, attend)
    no_rope = model.config.is_v2 and model.config.residual_lm_no_rope
    rotation = None if no_rope else model.rope.rotation(positions).over_heads()
    return model.residual_lm(x, rotation, attend)


@every_model
def test_rotations_agree(case: Fixture) -> None:
    rotation = case.model().rope.rotation(torch.arange(8))
    case.close("rope/cos_0_8", rotation.cos)
    half = rotation.sin.shape[-1] // 2
    case.close("rope/sin_0_8", torch.cat((-rotation.sin[:, :half], rotation.sin[:, half:]), dim=-1))


@every_model
@torch.no_grad()
def test_the_local_encoder_agrees(case: Fixture) -> None:
    model = case.model()
    frames = case["locenc/in"]
    out = model.feat_encoder(frames.flatten(0, 1))
    case.close("locenc/out", out.unflatten(0, frames.shape[:2]))
    case.close("locenc/out_proj", model.enc_to_lm_proj(out).unflatten(0, frames.shape[:2]))


@every_model
@torch.no_grad()
def test_scalar_quantisation_agrees(case: Fixture) -> None:
    layer = case.model().fsq_layer
    case.close("fsq/quantized", layer.quantize(case["fsq/in"]))
    case.close("fsq/out", layer(case["fsq/in"]))


@every_model
@pytest.mark.parametrize("part", ["base_lm", "residual_lm"])
@torch.no_grad()
def test_the_language_models_agree(case: Fixture, part: str) -> None:
    model = case.model()
    x = case[f"{part}/in"]
    case.close(f"{part}/full_out", lm(model, part, x, 0, causal))
    if part == "base_lm":
        case.close("base_lm/noncausal_out", lm(model, part, x, 0, bidirectional))


@every_model
@pytest.mark.parametrize("part", ["base_lm", "residual_lm"])
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@torch.no_grad()
def test_cached_steps_agree(case: Fixture, part: str, fused: bool) -> None:
    model = case.model().fuse() if fused else case.model()
    config = model.config.base if part == "base_lm" else model.config.residual
    x = case[f"{part}/in"]
    cache = KVCache(config, 1, 16, dtype=torch.float32, device=torch.device("cpu"))
    lm(model, part, x[:, :8], 0, cache.prefill(torch.tensor([0])))
    case.close(f"{part}/kv_layer0_k", cache.k[0, :, :, :8])
    case.close(f"{part}/kv_layer0_v", cache.v[0, :, :, :8])
    steps = [
        lm(model, part, x[:, i : i + 1], i, cache.step(torch.tensor([i]), i + 1))
        for i in range(8, x.shape[1])
    ]
    case.close(f"{part}/step_out", torch.cat(steps, dim=1))


@every_model
@torch.no_grad()
def test_the_estimator_agrees(case: Fixture) -> None:
    estimator = case.model().estimator
    x, cond = swapped(case["dit/x"]), swapped(case["dit/cond"])
    t, dt, mu = case["dit/t"], case["dit/dt"], case["dit/mu"]
    case.close("dit/time_emb", sinusoid(t, estimator.dim))
    case.close("dit/time_mlp", estimator.time_mlp(sinusoid(t, estimator.dim)))
    case.close("dit/dtime_mlp", estimator.delta_time_mlp(sinusoid(dt, estimator.dim)))
    case.close("dit/out", swapped(estimator(x, mu, t, cond, dt)))
    case.close("dit/out_dt0", swapped(estimator(x, mu, t, cond, torch.zeros_like(dt))))


@every_model
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@torch.no_grad()
def test_the_solver_agrees(case: Fixture, fused: bool) -> None:
    model = case.model().fuse() if fused else case.model()
    for number, setting in enumerate(case.facts["cfm"]):
        config = SolverConfig(
            num_steps=setting["n_timesteps"],
            cfg=setting["cfg_value"],
            zero_star=setting["use_cfg_zero_star"],
            sway=setting["sway"],
            temperature=setting["temperature"],
        )
        if config.zero_star:
            assert config.num_idle_steps == setting["zero_init_steps"]
        case.close(f"cfm/{number}/t_span", config.time_span())
        # The fixture's noise is standard normal; the temperature is the solver's.
        noise = swapped(case[f"cfm/{number}/noise"])
        out = Solver(model.estimator, config)(noise, case["dit/mu"], swapped(case["dit/cond"]))
        case.close(f"cfm/{number}/out", swapped(out))


@every_model
@torch.no_grad()
def test_bfloat16_stays_near_the_official_one(case: Fixture) -> None:
    model = case.model(torch.bfloat16)
    wide = torch.bfloat16
    x, cond = swapped(case["dit/x"]).to(wide), swapped(case["dit/cond"]).to(wide)
    mu, t, dt = case["dit/mu"].to(wide), case["dit/t"].to(wide), case["dit/dt"].to(wide)
    case.close("bf16/rope_cos", model.rope.rotation(torch.arange(8)).cos)
    case.close("bf16/t_span_10", SolverConfig().time_span(wide))
    case.close("bf16/time_emb", sinusoid(t, model.estimator.dim))
    case.close("bf16/base_lm_out", lm(model, "base_lm", case["base_lm/in"].to(wide), 0, causal))
    case.close("bf16/dit_out", swapped(model.estimator(x, mu, t, cond, dt)))


def test_rotation_keeps_lengths() -> None:
    rotation = fixture("v2").model().rope.rotation(torch.arange(5))
    x = torch.randn(2, 5, rotation.cos.shape[-1])
    torch.testing.assert_close(rotate(x, rotation).norm(dim=-1), x.norm(dim=-1))
