"""How much arithmetic a pack is, and how much a device could do.

Counted is what the model needs, as for model FLOPs utilisation (PaLM, arXiv 2204.02311, appendix B):
what activation checkpointing computes twice counts once.
"""

import time

import torch

from model_core.config import TransformerConfig, VoxCPMConfig
from model_core.training.packs import Pack

_PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 5090": 210e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "MI300X": 1307e12,
}
"""Dense bfloat16 products per second and part of a device's name, from the makers' data sheets."""


def training_flops(config: VoxCPMConfig, pack: Pack, *, frozen: bool = False) -> float:
    """Of the forward and backward pass. frozen: the model's own weights take no gradients."""
    length, audio = len(pack), len(pack.patches)
    targets = int(pack.is_target.sum())
    squares = sum(n * n for n in pack.lengths)
    dim, dit_dim = config.base.dim, config.dit.dim
    forward = 0.0
    for lm in (config.base, config.residual):
        # A causal product over keys has half of the square.
        forward += 2 * _weights(lm) * length + 2 * _width(lm) * lm.num_layers * squares
    forward += _local(config.encoder, audio, config.patch_size + 1)
    forward += _local(config.dit, targets, 2 * config.patch_size + (3 if config.is_v2 else 1))
    per_position = 2 * dim * config.scalar_quantization_latent_dim
    if config.is_v2:
        per_position += 2 * dim * dim
    per_target = 2 * dim * dit_dim + dim * dim
    forward += 2 * (per_position * length + per_target * targets)
    forward += 2 * config.encoder.dim * dim * audio
    return forward * (2 if frozen else 3)


def _local(config: TransformerConfig, rows: int, tokens: int) -> float:
    """Both products of bidirectional attention, and the weights."""
    attention = 4 * _width(config) * config.num_layers * tokens * tokens
    return rows * (2 * _weights(config) * tokens + attention)


def _width(config: TransformerConfig) -> int:
    return config.num_heads * config.head_dim


def _weights(config: TransformerConfig) -> int:
    """Elements of all matrices of the blocks."""
    kv_width = config.num_kv_heads * config.head_dim
    attention = 2 * config.dim * (_width(config) + kv_width)
    return config.num_layers * (attention + 3 * config.dim * config.ffn_dim)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Floating-point operations per second at best; None for a device that is not known.

    A GPU's is that of bfloat16 from its data sheet, a CPU's is measured on a product.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((peak for part, peak in _PEAKS.items() if part in name), None)
    if device.type != "cpu":
        return None
    size = 512  # a CPU without AVX-512 makes 1e9 products of bfloat16 a second
    a = torch.ones(size, size, dtype=dtype)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        torch.mm(a, a)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
