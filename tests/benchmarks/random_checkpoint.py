"""Checkpoints in the published folder layout, at the published sizes, with random weights.

What a model costs depends on its shapes and not on what it has learned, so a benchmark that two
implementations load from the same folder needs no download. Every tensor is drawn and written by
itself: 2B parameters take no more memory than the largest of them.
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from model_core.sizes import FACTORS_0_5B, FACTORS_2B

Shape = Literal["0.5B", "2B", "nano"]
Config = Mapping[str, Any]

TOKENIZER = Path(__file__).parents[1] / "data" / "core" / "v2"
"""A small vocabulary: ids below 672, which every shape here has rows for."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

_CFM: Config = {
    "sigma_min": 1e-6,
    "solver": "euler",
    "t_scheduler": "log-norm",
    "training_cfg_rate": 0.1,
    "inference_cfg_rate": 2.0,
}
_AUDIO_VAE_0_5B: Config = {
    "encoder_dim": 128,
    "encoder_rates": [2, 5, 8, 8],
    "latent_dim": 64,
    "decoder_dim": 1536,
    "decoder_rates": [8, 8, 5, 2],
    "depthwise": True,
    "sample_rate": 16_000,
    "use_noise_block": False,
}
_AUDIO_VAE_2B: Config = {
    **_AUDIO_VAE_0_5B,
    "decoder_dim": 2048,
    "decoder_rates": [8, 6, 5, 2, 2, 2],
    "out_sample_rate": 48_000,
    "sr_bin_boundaries": [20_000, 30_000, 40_000],
    "cond_type": "scale_bias",
    "cond_dim": 128,
    "cond_out_layer": False,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomTensor:
    """One tensor of a checkpoint before it is drawn."""

    shape: tuple[int, ...]
    mean: float = 0.0
    std: float = 0.02
    values: tuple[int, ...] | None = None
    """Instead of random numbers: these, as int32."""

    def draw(self, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
        """The tensor, in `dtype` unless its values are given."""
        if self.values is not None:
            return torch.tensor(self.values, dtype=torch.int32)
        if self.std == 0:
            return torch.full(self.shape, self.mean, dtype=dtype)
        return torch.empty(self.shape, dtype=dtype).normal_(
            self.mean, self.std, generator=generator
        )


Tensors = dict[str, RandomTensor]


def write_random_checkpoint(folder: Path, shape: Shape, seed: int = 0) -> None:
    """Write config, weights (bf16), AudioVAE (fp32) and tokenizer; the same seed, the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    config = released_config(shape)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    for name in TOKENIZER_FILES:
        shutil.copyfile(TOKENIZER / name, folder / name)
    generator = torch.Generator().manual_seed(seed)
    vae = audio_vae_tensors(config.get("audio_vae_config", _AUDIO_VAE_0_5B))
    _write(folder / "audiovae.safetensors", vae, torch.float32, generator)
    _write(folder / "model.safetensors", model_tensors(config), torch.bfloat16, generator)


def released_config(shape: Shape) -> Config:
    """config.json as the release of this size has it; nano is laid out like 2B."""
    if shape == "0.5B":
        # The release names no audio_vae_config: its AudioVAE is the default one.
        return {
            "architecture": "voxcpm",
            "lm_config": _lm(1024, 4096, 24, heads=16, vocab=73_448, factors=FACTORS_0_5B),
            "patch_size": 2,
            "feat_dim": 64,
            "residual_lm_num_layers": 6,
            "scalar_quantization_latent_dim": 256,
            "scalar_quantization_scale": 9,
            "encoder_config": _local(1024, 4096, 4, heads=16),
            "dit_config": {**_local(1024, 4096, 4, heads=16), "cfm_config": _CFM},
            "max_length": 4096,
            "device": "cuda",
            "dtype": "bfloat16",
            "dit_mean_mode": False,
        }
    if shape == "2B":
        lm = _lm(2048, 6144, 28, heads=16, vocab=73_448, factors=FACTORS_2B)
        local, layers, fsq_dim, max_length = _local(1024, 4096, 12, heads=16), 8, 512, 8192
        vae: Config = _AUDIO_VAE_2B
    else:
        lm = _lm(128, 256, 3, heads=4, vocab=672, factors=(1.0,) * 16)
        local, layers, fsq_dim, max_length = _local(96, 192, 2, heads=4), 2, 32, 1024
        vae = {**_AUDIO_VAE_2B, "encoder_dim": 8, "decoder_dim": 128}
    head_dim = 2 * len(lm["rope_scaling"]["long_factor"])
    return {
        "architecture": "voxcpm2",
        "lm_config": {**lm, "kv_channels": head_dim},
        "patch_size": 4,
        "feat_dim": 64,
        "residual_lm_num_layers": layers,
        "residual_lm_no_rope": True,
        "scalar_quantization_latent_dim": fsq_dim,
        "scalar_quantization_scale": 9,
        "encoder_config": {**local, "kv_channels": head_dim},
        "dit_config": {
            **local,
            "kv_channels": head_dim,
            "mean_mode": False,
            "cfm_config": _CFM,
        },
        "audio_vae_config": vae,
        "max_length": max_length,
        "device": "cuda",
        "dtype": "bfloat16",
    }


def _lm(
    hidden: int, feed_forward: int, layers: int, *, heads: int, vocab: int, factors: Sequence[float]
) -> dict[str, Any]:
    return {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "max_position_embeddings": 32_768,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000,
        "rope_scaling": {
            "type": "longrope",
            "long_factor": list(factors),
            "short_factor": list(factors),
            "original_max_position_embeddings": 32_768,
        },
        "vocab_size": vocab,
        "use_mup": False,
        "scale_emb": 12,
        "dim_model_base": 256,
        "scale_depth": 1.4,
    }


def _local(hidden: int, feed_forward: int, layers: int, *, heads: int) -> dict[str, int]:
    return {
        "hidden_dim": hidden,
        "ffn_dim": feed_forward,
        "num_heads": heads,
        "num_layers": layers,
    }


def model_tensors(config: Config) -> Tensors:
    """Every tensor of model.safetensors, by its published name."""
    lm, encoder, dit = config["lm_config"], config["encoder_config"], config["dit_config"]
    hidden, encoder_dim, dit_dim = lm["hidden_size"], encoder["hidden_dim"], dit["hidden_dim"]
    fsq_dim, feat_dim = config["scalar_quantization_latent_dim"], config["feat_dim"]
    lm_shape = _local(
        hidden,
        lm["intermediate_size"],
        lm["num_hidden_layers"],
        heads=lm["num_attention_heads"],
    )
    if "kv_channels" in lm:
        lm_shape["kv_channels"] = lm["kv_channels"]
    residual_shape = {**lm_shape, "num_layers": config["residual_lm_num_layers"]}
    kv_heads = lm["num_key_value_heads"]
    estimator = "feat_decoder.estimator"
    tensors = {
        "base_lm.embed_tokens.weight": RandomTensor(shape=(lm["vocab_size"], hidden)),
        **_transformer("base_lm", lm_shape, kv_heads),
        **_transformer("residual_lm", residual_shape, kv_heads),
        "feat_encoder.special_token": RandomTensor(shape=(1, 1, 1, encoder_dim)),
        **_linear("feat_encoder.in_proj", feat_dim, encoder_dim),
        **_transformer("feat_encoder.encoder", encoder, kv_heads),
        **_linear(f"{estimator}.in_proj", feat_dim, dit_dim),
        **_linear(f"{estimator}.cond_proj", feat_dim, dit_dim),
        **_linear(f"{estimator}.out_proj", dit_dim, feat_dim),
    }
    for mlp in ("time_mlp", "delta_time_mlp"):
        tensors |= _linear(f"{estimator}.{mlp}.linear_1", dit_dim, dit_dim)
        tensors |= _linear(f"{estimator}.{mlp}.linear_2", dit_dim, dit_dim)
    tensors |= {
        **_transformer(f"{estimator}.decoder", dit, kv_heads),
        **_linear("fsq_layer.in_proj", hidden, fsq_dim),
        **_linear("fsq_layer.out_proj", fsq_dim, hidden),
        **_linear("enc_to_lm_proj", encoder_dim, hidden),
        **_linear("lm_to_dit_proj", hidden, dit_dim),
        **_linear("res_to_dit_proj", hidden, dit_dim),
        **_linear("stop_proj", hidden, hidden),
        "stop_head.weight": RandomTensor(shape=(2, hidden)),
    }
    if config["architecture"] == "voxcpm2":
        tensors |= _linear("fusion_concat_proj", 2 * hidden, hidden)
    return tensors


def _linear(name: str, dim_in: int, dim_out: int) -> Tensors:
    return {
        f"{name}.weight": RandomTensor(shape=(dim_out, dim_in)),
        f"{name}.bias": RandomTensor(shape=(dim_out,)),
    }


def _transformer(name: str, config: Mapping[str, Any], kv_heads: int) -> Tensors:
    dim, feed_forward, heads = config["hidden_dim"], config["ffn_dim"], config["num_heads"]
    head_dim = config.get("kv_channels") or dim // heads
    shapes = {
        "self_attn.q_proj": (heads * head_dim, dim),
        "self_attn.k_proj": (kv_heads * head_dim, dim),
        "self_attn.v_proj": (kv_heads * head_dim, dim),
        "self_attn.o_proj": (dim, heads * head_dim),
        "mlp.gate_proj": (feed_forward, dim),
        "mlp.up_proj": (feed_forward, dim),
        "mlp.down_proj": (dim, feed_forward),
    }
    norm = RandomTensor(shape=(dim,), mean=1.0, std=0.0)
    tensors: Tensors = {}
    for layer in range(config["num_layers"]):
        prefix = f"{name}.layers.{layer}"
        tensors |= {f"{prefix}.{k}.weight": RandomTensor(shape=s) for k, s in shapes.items()}
        tensors[f"{prefix}.input_layernorm.weight"] = norm
        tensors[f"{prefix}.post_attention_layernorm.weight"] = norm
    return {**tensors, f"{name}.norm.weight": norm}


def audio_vae_tensors(config: Config) -> Tensors:
    """Every tensor of the AudioVAE (depthwise, without noise blocks), by its published name."""
    if not config["depthwise"] or config["use_noise_block"]:
        raise ValueError("only the published kind: depthwise, without noise blocks")
    dim, latent = config["encoder_dim"], config["latent_dim"]
    tensors = _conv("encoder.block.0", dim, 1, 7)
    for index, stride in enumerate(config["encoder_rates"], start=1):
        block = f"encoder.block.{index}.block"
        for unit in range(3):
            tensors |= _residual_unit(f"{block}.{unit}", dim)
        tensors |= _snake(f"{block}.3", dim)
        tensors |= _conv(f"{block}.4", 2 * dim, dim, 2 * stride)
        dim *= 2
    tensors |= _conv("encoder.fc_mu", latent, dim, 3)
    tensors |= _conv("encoder.fc_logvar", latent, dim, 3)

    dim, boundaries = config["decoder_dim"], config.get("sr_bin_boundaries")
    tensors |= _conv("decoder.model.0", latent, 1, 7)
    tensors |= _conv("decoder.model.1", dim, latent, 1)
    index = 1
    for index, stride in enumerate(config["decoder_rates"], start=2):
        if boundaries:
            condition = f"decoder.sr_cond_model.{index}"
            shape = (len(boundaries) + 1, dim)
            tensors[f"{condition}.scale_embed.weight"] = RandomTensor(shape=shape, mean=1.0)
            tensors[f"{condition}.bias_embed.weight"] = RandomTensor(shape=shape)
        block = f"decoder.model.{index}.block"
        tensors |= _snake(f"{block}.0", dim)
        # Transposed: the first axis counts inputs, the bias outputs.
        tensors |= _conv(f"{block}.1", dim, dim // 2, 2 * stride, bias_dim=dim // 2)
        dim //= 2
        for unit in range(2, 5):
            tensors |= _residual_unit(f"{block}.{unit}", dim)
    tensors |= _snake(f"decoder.model.{index + 1}", dim)
    tensors |= _conv(f"decoder.model.{index + 2}", 1, dim, 7)
    if boundaries:
        tensors["decoder.sr_bin_boundaries"] = RandomTensor(
            shape=(len(boundaries),), values=tuple(boundaries)
        )
    return tensors


def _conv(
    name: str, first: int, second: int, kernel: int, *, gain: float = 1.0, bias_dim: int = 0
) -> Tensors:
    """A weight-normalised convolution; gain 1 about keeps the size of what goes through."""
    return {
        f"{name}.weight_g": RandomTensor(shape=(first, 1, 1), mean=gain, std=0.0),
        f"{name}.weight_v": RandomTensor(shape=(first, second, kernel), std=1.0),
        f"{name}.bias": RandomTensor(shape=(bias_dim or first,)),
    }


def _snake(name: str, dim: int) -> Tensors:
    return {f"{name}.alpha": RandomTensor(shape=(1, dim, 1), mean=1.0, std=0.0)}


def _residual_unit(name: str, dim: int) -> Tensors:
    return {
        **_snake(f"{name}.block.0", dim),
        **_conv(f"{name}.block.1", dim, 1, 7),
        **_snake(f"{name}.block.2", dim),
        # A small branch, or three units per block would double the signal block by block.
        **_conv(f"{name}.block.3", dim, dim, 1, gain=0.3),
    }


_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}


def _write(path: Path, tensors: Tensors, dtype: torch.dtype, generator: torch.Generator) -> None:
    """A safetensors file, one tensor in memory at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start = end
        fixed = tensor.values is not None
        end += math.prod(tensor.shape) * (4 if fixed else dtype.itemsize)
        header[name] = {
            "dtype": "I32" if fixed else _DTYPES[dtype],
            "shape": tensor.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in tensors.values():
            drawn = tensor.draw(dtype, generator)
            file.write(drawn.reshape(-1).view(torch.uint8).numpy().data)
