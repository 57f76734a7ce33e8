"""Teacher-forced states, losses and gradients are the official ones."""

import pytest
import torch

from model_core.flow_matching import flow_loss
from model_core.lora import load_lora, select_trainable
from model_core.losses import losses
from model_core.transformer import causal
from model_core.voxcpm import Hidden, VoxCPM
from tests.model_core.fixtures import MODELS, Fixture, fixture, swapped

every_model = pytest.mark.parametrize("case", [fixture(name) for name in MODELS], ids=MODELS)


def gradients(model: VoxCPM) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@every_model
@torch.no_grad()
def test_teacher_forced_states_agree(case: Fixture) -> None:
    model, batch = case.model(), case.batch()
    x, e = model.embed(batch)
    inside = (batch.audio_mask | batch.text_mask)[..., None]
    audio = batch.audio_mask[..., None]
    prefix = "train/full/"

    def close(key: str, ours: torch.Tensor, where: torch.Tensor) -> None:
        # Outside of `where` the official model computes states that nothing reads.
        theirs = case[prefix + key] * where
        torch.testing.assert_close(ours * where, theirs, atol=1e-4, rtol=1e-4)

    close("feat_embed", e, audio)
    close("base_in", x, inside)
    positions = torch.arange(x.shape[1])[None]
    h = model.semantic(x, positions, causal)
    close("base_out", h, inside)
    given: list[torch.Tensor] = []
    model.residual_lm.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    hidden = model.hidden(batch)
    close("residual_in", given[0], inside)
    close("residual_out", hidden.acoustic, inside)
    before = model.shifted(hidden)
    # A shift brings the last inner state one position further; targets are all that is read.
    target = batch.loss_mask[..., None]
    close("lm_hidden", before.semantic, target)
    close("residual_hidden", before.acoustic, target)
    close("stop_logits", model.stop_logits(before.semantic), target)


@every_model
@torch.no_grad()
def test_what_the_local_dit_sees_agrees(case: Fixture) -> None:
    model, batch, draws = case.model(), case.batch(), case.draws()
    mask = batch.loss_mask.flatten()
    before = Hidden(case["train/full/lm_hidden"], case["train/full/residual_hidden"])
    targets = model.targets(batch, before)
    prefix = "train/full/"

    def close(key: str, ours: torch.Tensor) -> None:
        torch.testing.assert_close(ours, case[prefix + key][mask], atol=1e-4, rtol=1e-4)

    assert torch.equal(draws.keep, case["train/cfg_keep"][mask])
    frames = case[prefix + "feat_gt"].mT  # (B, T · P, C)
    frames = frames.unflatten(1, (-1, model.config.patch_size)).flatten(0, 1)
    assert torch.equal(targets.patches, frames[mask])
    close("dit_mu", targets.mu * draws.keep[:, None])
    close("dit_cond", swapped(targets.past + draws.cond_noise))
    close("dit_t", draws.t)
    t = draws.t[:, None, None]
    noisy = (1 - t) * targets.patches + t * draws.noise
    close("dit_x", swapped(noisy))
    velocity = model.estimator(
        noisy,
        targets.mu * draws.keep[:, None],
        draws.t,
        targets.past + draws.cond_noise,
        case[prefix + "dit_dt"][mask],
    )
    close("dit_out", swapped(velocity))


@every_model
def test_losses_and_gradients_agree(case: Fixture) -> None:
    model = case.model().train()
    found = losses(model, case.batch(), draws=case.draws())
    case.close("train/full/loss_diff", found.flow)
    case.close("train/full/loss_stop", found.stop)
    (found.flow + found.stop).backward()
    grads = gradients(model)
    for key in case.tensors:
        if key.startswith("train/full/grad/"):
            case.close(key, grads[key.removeprefix("train/full/grad/")])
    for name, norm in case.facts["grad_norms_full"].items():
        assert grads[name].norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-5), name


@every_model
@torch.no_grad()
def test_what_adapters_make_of_the_velocity_agrees(case: Fixture) -> None:
    model, batch, draws = case.model(), case.batch(), case.draws()
    load_lora(model, case.folder / "lora")
    targets = model.targets(batch, model.shifted(model.hidden(batch)))
    t = draws.t[:, None, None]
    velocity = model.estimator(
        (1 - t) * targets.patches + t * draws.noise,
        targets.mu * draws.keep[:, None],
        draws.t,
        targets.past + draws.cond_noise,
        torch.zeros_like(draws.t),
    )
    theirs = case["train/lora/dit_out"][batch.loss_mask.flatten()]
    torch.testing.assert_close(swapped(velocity), theirs, atol=1e-4, rtol=1e-4)


@every_model
def test_losses_and_gradients_of_adapters_agree(case: Fixture) -> None:
    model = case.model().train()
    load_lora(model, case.folder / "lora")
    select_trainable(model, "lora")
    found = losses(model, case.batch(), draws=case.draws())
    assert found.flow.item() == pytest.approx(case.facts["losses_lora"]["diff"], rel=1e-4)
    assert found.stop.item() == pytest.approx(case.facts["losses_lora"]["stop"], rel=1e-4)
    (found.flow + found.stop).backward()
    grads = gradients(model)
    assert grads
    assert all(name.endswith((".lora_A", ".lora_B")) for name in grads)
    for name, norm in case.facts["grad_norms_lora"].items():
        assert grads[name].norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-5), name
    for key in case.tensors:
        if key.startswith("train/lora/grad/"):
            case.close(key, grads[key.removeprefix("train/lora/grad/")])


@torch.no_grad()
def test_the_mean_velocity_loss_agrees() -> None:
    case = fixture("v2")
    model, batch = case.model(), case.batch()
    targets = model.targets(batch, model.shifted(model.hidden(batch)))
    draws = case.draws("train/mean/rng/", mean_mode=True)
    loss = flow_loss(
        model.estimator, targets.mu, targets.patches, targets.past, draws, mean_mode=True
    )
    case.close("train/mean/loss_diff", loss.mean(), atol=1e-3)
