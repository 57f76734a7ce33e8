"""Generation makes the official patches, one by one, and the official audio."""

import pytest
import torch
from torch import Tensor

from model_core.audio import latents_of
from model_core.checkpoint import load_checkpoint
from model_core.flow_matching import Solver, SolverConfig
from model_core.generation.engine import Engine
from model_core.generation.requests import PatchRequest
from model_core.generation.rows import Rows, noise_of
from model_core.sequences import collate
from model_core.synthesis import SpeechRequest, Synthesizer
from tests.model_core.fixtures import MODELS, Fixture, fixture, swapped

cases = [fixture(name) for name in MODELS]
every_mode = pytest.mark.parametrize(
    ("case", "mode"),
    [(case, mode) for case in cases for mode in case.modes()],
    ids=[f"{case.name}-{mode}" for case in cases for mode in case.modes()],
)


def request_of(case: Fixture, mode: str) -> PatchRequest:
    setting = case.facts["gen"][mode]
    return PatchRequest(
        sequence=case.sequence(mode),
        seed=setting["seed"],
        min_patches=setting["min_len"],
        max_patches=setting["max_len"],
    )


def solver_of(case: Fixture, mode: str) -> SolverConfig:
    setting = case.facts["gen"][mode]
    return SolverConfig(num_steps=setting["inference_timesteps"], cfg=setting["cfg_value"])


@every_mode
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_every_patch_agrees(case: Fixture, mode: str, fused: bool) -> None:
    model = case.model().fuse() if fused else case.model()
    request = request_of(case, mode)
    [(_, answer)] = Engine(model, solver_of(case, mode)).generate([request])
    case.close(f"gen/{mode}/pred_feat", answer.patches)
    theirs = case[f"gen/{mode}/noise"]
    ours = noise_of(request, request.seed, answer.patches.shape[1:])[: len(theirs)]
    # The very numbers: a seed means here what it means there.
    assert torch.equal(swapped(ours), theirs)


@every_mode
@torch.no_grad()
def test_every_hidden_state_agrees(case: Fixture, mode: str) -> None:
    prefix = f"gen/{mode}/"
    model, request = case.model(), request_of(case, mode)
    batch = collate([request.sequence])
    embedded = model.embed(batch)[1]
    audio = batch.audio_mask[0]
    torch.testing.assert_close(
        embedded[0, audio], case[prefix + "prefill_feat_embed"][0, audio], atol=1e-4, rtol=1e-4
    )
    rows = Rows(model, Solver(model.estimator, solver_of(case, mode)), 1)
    rows.admit([(0, request)])
    semantic, acoustic, logits, embeds = [], [], [], []
    for _ in range(len(case[prefix + "pred_feat"])):
        g, r = rows._g.clone(), rows._r.clone()
        semantic.append(g), acoustic.append(r), logits.append(model.stop_logits(g))
        patches = rows.sample()
        embeds.append(model.embed_patches(patches))
        rows.advance()
    case.close(prefix + "lm_hidden", torch.cat(semantic))
    case.close(prefix + "residual_hidden", torch.cat(acoustic))
    case.close(prefix + "stop_logits", torch.cat(logits))
    case.close(prefix + "step_feat_embed", torch.cat(embeds))


@every_mode
def test_it_stops_where_the_official_one_stops(case: Fixture, mode: str) -> None:
    setting = case.facts["gen"][mode]
    patches = list(Engine(case.model(), solver_of(case, mode)).stream(request_of(case, mode)))
    assert len(patches) == setting["n_patches"]
    case.close(f"gen/{mode}/pred_feat", torch.stack(patches))


@every_mode
@torch.inference_mode()
def test_padded_steps_give_the_same_patches(case: Fixture, mode: str) -> None:
    """The shapes that a GPU records: rows and spans beyond those in use."""
    model, request = case.model(), request_of(case, mode)
    rows = Rows(model, Solver(model.estimator, solver_of(case, mode)), 5, steady=True)
    rows.admit([(number, request) for number in range(3)])
    done = []
    while rows.alive:
        rows.sample()
        done += rows.retire()
        rows.advance()
    assert sorted(number for number, _ in done) == [0, 1, 2]
    for _, answer in done:
        case.close(f"gen/{mode}/pred_feat", answer.patches)


def context_of(case: Fixture, mode: str) -> Tensor | None:
    """The official number of prompt patches that the decoder hears before the speech."""
    prompt = case.tensors.get(f"gen/{mode}/audio_feat")
    limit = 3 if case.model().config.is_v2 else 2
    return None if prompt is None or mode == "reference" else prompt[-min(limit, len(prompt)) :]


@pytest.mark.parametrize(
    ("case", "mode"),
    [(c, m) for c in cases for m in c.modes() if f"gen/{m}/audio" in c.tensors],
    ids=[f"{c.name}-{m}" for c in cases for m in c.modes() if f"gen/{m}/audio" in c.tensors],
)
@torch.no_grad()
def test_the_audio_agrees(case: Fixture, mode: str) -> None:
    prefix = f"gen/{mode}/"
    vae = load_checkpoint(case.folder).vae
    patches, context = case[prefix + "pred_feat"], context_of(case, mode)
    whole = patches if context is None else torch.cat((context, patches))
    # The V1 class returns its context with the patches.
    returned = patches if case.model().config.is_v2 else whole
    case.close(prefix + "returned_feat", returned)
    wave = vae.decode(latents_of(whole)[None])[:, 0]
    drop = (len(whole) - len(patches)) * patches.shape[1] * vae.config.out_hop
    loose = 1e-3 if case.name == "v2b" else 1e-4
    case.close(prefix + "audio", wave[:, drop:], atol=loose)


@pytest.mark.parametrize(
    ("case", "mode"),
    [(c, m) for c in cases for m in c.modes() if f"gen/{m}/audio" in c.tensors],
    ids=[f"{c.name}-{m}" for c in cases for m in c.modes() if f"gen/{m}/audio" in c.tensors],
)
def test_text_and_voices_become_the_official_audio(case: Fixture, mode: str) -> None:
    prefix, setting = f"gen/{mode}/", case.facts["gen"][mode]
    prompt = case.tensors.get(prefix + "audio_feat")
    checkpoint = load_checkpoint(case.folder, dtype=torch.float32)
    request = SpeechRequest(
        text=case.facts["target_text"],
        reference=case.tensors.get(prefix + "ref_audio_feat"),
        prompt=prompt,
        prompt_text=None if prompt is None else case.facts["prompt_text"],
        seed=setting["seed"],
        min_patches=setting["min_len"],
        max_patches=setting["max_len"],
    )
    [(_, speech)] = Synthesizer(checkpoint, solver=solver_of(case, mode)).speak([request])
    case.close(prefix + "audio", speech.wave[None], atol=1e-3 if case.name == "v2b" else 1e-4)


@pytest.mark.parametrize("case", cases, ids=MODELS)
@pytest.mark.parametrize("mode", ["zero_shot", "continuation"])
@torch.no_grad()
def test_the_streamed_audio_agrees(case: Fixture, mode: str) -> None:
    prefix = f"gen/{mode}/"
    vae = load_checkpoint(case.folder).vae
    patches = case[prefix + "pred_feat"]
    samples = patches.shape[1] * vae.config.out_hop
    if case.model().config.is_v2:
        # Officially from a decoder that has not heard the prompt.
        decoder = vae.stream()
        chunks = [decoder.decode(latents_of(patch[None])[None])[:, 0] for patch in patches]
    else:
        # Officially the last three patches, prompt included, decoded anew for each chunk; what our
        # own streaming improves on.
        context = context_of(case, mode)
        heard = patches if context is None else torch.cat((context, patches))
        first = len(heard) - len(patches)
        chunks = [
            vae.decode(latents_of(heard[max(0, end - 3) : end])[None])[:, 0, -samples:]
            for end in range(first + 1, len(heard) + 1)
        ]
    assert [chunk.shape[1] for chunk in chunks] == case.facts["gen"][mode]["stream_chunk_len"]
    loose = 1e-3 if case.name == "v2b" else 1e-4
    case.close(prefix + "stream_audio", torch.cat(chunks, dim=1), atol=loose)
