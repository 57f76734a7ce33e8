"""On a GPU: recorded steps give what a CPU gives."""

import pytest
import torch

from model_core.checkpoint import load_checkpoint
from model_core.flow_matching import SolverConfig
from model_core.generation.engine import Engine
from model_core.generation.requests import PatchRequest
from tests.model_core.fixtures import MODELS, fixture

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact_products() -> None:
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_gpu_makes_the_same_patches(name: str, batch_size: int) -> None:
    case = fixture(name)
    modes = [mode for mode in case.modes() if not mode.endswith("_long")]
    requests = [
        PatchRequest(
            sequence=case.sequence(mode),
            seed=case.facts["gen"][mode]["seed"],
            min_patches=case.facts["gen"][mode]["min_len"],
            max_patches=case.facts["gen"][mode]["max_len"],
        )
        for mode in modes
    ]
    model = load_checkpoint(case.folder, device="cuda", dtype=torch.float32).model.fuse()
    answers = dict(Engine(model, SolverConfig(), batch_size=batch_size).generate(requests * 2))
    for number, answer in answers.items():
        theirs = case[f"gen/{modes[number % len(modes)]}/pred_feat"]
        torch.testing.assert_close(answer.patches.cpu(), theirs, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_hears_and_speaks_the_same(name: str) -> None:
    case = fixture(name)
    vae = load_checkpoint(case.folder, device="cuda", dtype=torch.float32).vae.fold_weight_norm()
    with torch.inference_mode():
        mu = vae.encode(case["vae/enc_in"].cuda()[None])
        wave = vae.decode(case["vae/dec_in"].cuda())
    torch.testing.assert_close(mu.cpu(), case["vae/enc_mu"], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(wave.cpu(), case["vae/dec_out"], atol=1e-3, rtol=1e-3)
