"""Weights to start from: random ones, and a language model's for the semantic LM.

Shapes: (out, in) of a linear layer.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model_core.audio_vae import AudioVAE
from model_core.audio_vae.layers import CausalConv
from model_core.config import VoxCPMConfig
from model_core.packed import Linear
from model_core.transformer import MLP, Attention, Transformer
from model_core.voxcpm import VoxCPM
from model_core.weights import read_weights
from schemas.errors import ModelLoadError

_GAIN = 0.64
"""Of a linear layer: standard deviation times √in. At 1024 channels that is the usual 0.02."""
_EMBEDDING_STD = 0.1
_SPEECH_LEVEL = 0.1
"""Root mean square of speech at -20 dBFS."""


def fresh_model(config: VoxCPMConfig, seed: int) -> VoxCPM:
    """A model with random weights, float32: the same seed, the same weights.

    Branches start small (their last layer by 1 / √(2 · layers), as GPT-2 has it), and LocDiT's output
    at zero, so that training begins at the velocity's mean.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VoxCPM(config)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=_GAIN / math.sqrt(module.in_features))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for stack in model.modules():
            if isinstance(stack, Transformer):
                for part in stack.modules():
                    if isinstance(part, Attention | MLP):
                        _last(part).weight.data.div_(math.sqrt(2 * len(stack.layers)))
        nn.init.normal_(model.base_lm.embed_tokens.weight, std=_EMBEDDING_STD)
        nn.init.zeros_(_plain(model.estimator.out_proj).weight)
    return model


def fresh_vae(config: VoxCPMConfig, seed: int) -> AudioVAE:
    """An AudioVAE with random weights, float32: the same seed, the same weights.

    Its latents of noise as loud as speech have a deviation of 1, as the prior wants them; left to
    chance they would be hundreds of times smaller, and a model would have nothing to learn.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        vae = AudioVAE(config.audio_vae_config)
        head = vae.encoder.fc_mu
        assert isinstance(head, CausalConv)
        if head.bias is not None:
            head.bias.zero_()
        noise = _SPEECH_LEVEL * torch.randn(1, 1, vae.config.sample_rate)
        head.weight_g.div_(vae.encode(noise).std())
        return vae


def take_language_model(model: VoxCPM, folder: Path) -> None:
    """Fill the semantic LM with the weights of a MiniCPM-4 checkpoint in the layout of its release.

    The family runs it without μP's factors; they are multiplied into the weights, so that the LM says
    what it said. Raises ModelLoadError when sizes or positions differ, or files are missing.
    """
    facts = _facts(folder)
    lm, base = model.config.lm_config, model.config.base
    wanted = {
        "hidden_size": lm.hidden_size,
        "intermediate_size": lm.intermediate_size,
        "num_hidden_layers": lm.num_hidden_layers,
        "num_attention_heads": lm.num_attention_heads,
        "num_key_value_heads": lm.num_key_value_heads,
        "vocab_size": lm.vocab_size,
    }
    wrong = [
        f"{name} is {facts.get(name)}, {value} is needed"
        for name, value in wanted.items()
        if facts.get(name) != value
    ]
    scaling = facts.get("rope_scaling") or {}
    if tuple(scaling.get("long_factor", ())) != lm.rope_scaling.long_factor:
        wrong.append("rope_scaling.long_factor differs")
    if wrong:
        raise ModelLoadError(f"{folder} is no language model of this size: {'; '.join(wrong)}")
    weights = _language_model_weights(folder)
    state = model.base_lm.state_dict()
    missing = sorted(state.keys() - weights.keys())
    if missing:
        raise ModelLoadError(f"{folder} lacks {len(missing)} tensors, such as {missing[0]}")
    branch = facts.get("scale_depth", 1.0) / math.sqrt(lm.num_hidden_layers) / base.residual_scale
    embedding = facts.get("scale_emb", 1.0) / (lm.scale_emb if lm.use_mup else 1.0)
    for name, own in state.items():
        value = weights[name].float()
        if value.shape != own.shape:
            raise ModelLoadError(
                f"{folder}: {name} is {tuple(value.shape)}, not {tuple(own.shape)}"
            )
        if name == "embed_tokens.weight":
            value = value * embedding
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            value = value * branch
        own.copy_(value)


def _last(branch: Attention | MLP) -> nn.Linear:
    return _plain(branch.o_proj if isinstance(branch, Attention) else branch.down_proj)


def _plain(layer: Linear) -> nn.Linear:
    assert isinstance(layer, nn.Linear)
    return layer


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"no language model here (config.json): {folder}: {error}") from error
    return facts


def _language_model_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of one file or of many, under the names of `LanguageModel`."""
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise ModelLoadError(f"{folder} has no model*.safetensors and no pytorch_model*.bin")
    prefix = "model."
    return {
        name.removeprefix(prefix): value
        for file in files
        for name, value in read_weights(file).items()
        if name.startswith(prefix)
    }
