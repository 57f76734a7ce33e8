"""The sizes in which a model is made: two as released, and one that trains on a laptop.

Source: checkpoint spec §2 and Appendix A for the released sizes.
"""

from dataclasses import dataclass, field
from typing import Any

from model_core.audio_vae import sizes as audio_vae_sizes
from model_core.config import VoxCPMConfig
from schemas.errors import ConfigError

# fmt: off
FACTORS_0_5B = (
    1.0004360675811768, 1.0668443441390991, 1.1631425619125366, 1.3025742769241333,
    1.5040205717086792, 1.7941505908966064, 2.2101221084594727, 2.802666664123535,
    3.6389970779418945, 4.804192543029785, 6.39855432510376, 8.527148246765137,
    11.277542114257812, 14.684998512268066, 18.69317054748535, 23.13019371032715,
    27.72362518310547, 32.1606559753418, 36.168827056884766, 39.57627868652344,
    42.32667541503906, 44.45526885986328, 46.04962921142578, 47.21482849121094,
    48.05115509033203, 48.64370346069336, 49.05967712402344, 49.34980392456055,
    49.551246643066406, 49.69068145751953, 49.78697967529297, 49.85338592529297,
)
FACTORS_2B = (
    0.9977997200264581, 1.014658295992452, 1.0349680404997148, 1.059429246056193,
    1.0888815016813513, 1.1243301355211495, 1.166977103606075, 1.2182568066927284,
    1.2798772354275727, 1.3538666751582975, 1.4426259039919596, 1.5489853358570191,
    1.6762658237220625, 1.8283407612492941, 2.0096956085876183, 2.225478927469756,
    2.481536379650452, 2.784415934557119, 3.1413289096347365, 3.560047844772632,
    4.048719380066383, 4.615569542115128, 5.2684819496549835, 6.014438591970396,
    6.858830049237097, 7.804668263503327, 8.851768731513417, 9.99600492938444,
    11.228766118181639, 12.536757560834843, 13.902257701387796, 15.303885189125953,
    16.717837610115794, 18.119465097853947, 19.484965238406907, 20.792956681060105,
    22.02571786985731, 23.16995406772833, 24.217054535738416, 25.16289275000465,
    26.007284207271347, 26.753240849586767, 27.40615325712662, 27.973003419175363,
    28.461674954469114, 28.880393889607006, 29.237306864684626, 29.540186419591297,
    29.79624387177199, 30.01202719065413, 30.193382037992453, 30.34545697551969,
    30.47273746338473, 30.579096895249787, 30.66785612408345, 30.741845563814174,
    30.80346599254902, 30.85474569563567, 30.897392663720595, 30.932841297560394,
    30.962293553185553, 30.986754758742034, 31.007064503249293, 31.02392307921529,
)
# fmt: on
"""LongRoPE factors of the releases (spec, Appendix A); long and short ones are equal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    architecture: str
    hidden: int
    ffn: int
    layers: int
    heads: int
    residual_layers: int
    head_dim: int | None
    factors: tuple[float, ...]
    local: dict[str, int]
    """Of LocEnc and LocDiT."""
    local_layers: tuple[int, int]
    """LocEnc's, LocDiT's."""
    patch_size: int
    quantized: int
    max_length: int
    audio_vae: dict[str, Any]
    flow: dict[str, Any] = field(default_factory=dict)
    """What differs from the releases in how LocDiT is trained."""


_RELEASED_LOCAL = {"hidden_dim": 1024, "ffn_dim": 4096, "num_heads": 16}

_SHAPES = {
    "nano": _Shape(
        architecture="voxcpm2",
        hidden=256,
        ffn=768,
        layers=6,
        heads=4,
        residual_layers=2,
        head_dim=64,
        factors=(1.0,) * 32,
        local={"hidden_dim": 256, "ffn_dim": 768, "num_heads": 4},
        local_layers=(2, 3),
        patch_size=4,
        quantized=64,
        max_length=4096,
        audio_vae=audio_vae_sizes.NANO.to_dict(),
        # Of little speech, LocDiT would learn to go on from the last patch alone, and to clean up
        # what is mostly there already; so the last patch is noisy, and no time is rare.
        flow={
            "t_scheduler": "uniform",
            "noise_cond_prob_range": [0.7, 0.3],
            "noise_cond_scale": 1.5,
        },
    ),
    "0.5B": _Shape(
        architecture="voxcpm",
        hidden=1024,
        ffn=4096,
        layers=24,
        heads=16,
        residual_layers=6,
        head_dim=None,
        factors=FACTORS_0_5B,
        local=_RELEASED_LOCAL,
        local_layers=(4, 4),
        patch_size=2,
        quantized=256,
        max_length=4096,
        audio_vae={},
    ),
    "2B": _Shape(
        architecture="voxcpm2",
        hidden=2048,
        ffn=6144,
        layers=28,
        heads=16,
        residual_layers=8,
        head_dim=128,
        factors=FACTORS_2B,
        local=_RELEASED_LOCAL,
        local_layers=(12, 12),
        patch_size=4,
        quantized=512,
        max_length=8192,
        audio_vae={},
    ),
}

SIZES = tuple(_SHAPES)
RELEASED_VOCABULARY = 73_448
NANO_VOCABULARY = 400


def config_of(size: str, vocab_size: int) -> VoxCPMConfig:
    """The settings of a model of this size. Raises ConfigError for a size that is not one."""
    if size not in _SHAPES:
        raise ConfigError(f"a model's size is one of {', '.join(SIZES)}, got {size!r}")
    shape = _SHAPES[size]
    # A key whose value is the default has to be absent from the file.
    head_dim = {} if shape.head_dim is None else {"kv_channels": shape.head_dim}
    factors = list(shape.factors)
    encoder_layers, dit_layers = shape.local_layers
    raw: dict[str, Any] = {
        "architecture": shape.architecture,
        "lm_config": {
            "hidden_size": shape.hidden,
            "intermediate_size": shape.ffn,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": 2,
            "vocab_size": vocab_size,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "max_position_embeddings": 32_768,
            "rope_scaling": {
                "type": "longrope",
                "long_factor": factors,
                "short_factor": factors,
                "original_max_position_embeddings": 32_768,
            },
            "use_mup": False,
            "scale_emb": 12.0,
            "scale_depth": 1.4,
            "dim_model_base": 256,
            **head_dim,
        },
        "patch_size": shape.patch_size,
        "feat_dim": 64,
        "residual_lm_num_layers": shape.residual_layers,
        "residual_lm_no_rope": shape.architecture == "voxcpm2",
        "scalar_quantization_latent_dim": shape.quantized,
        "scalar_quantization_scale": 9,
        "encoder_config": {**shape.local, "num_layers": encoder_layers, **head_dim},
        "dit_config": {
            **shape.local,
            "num_layers": dit_layers,
            **head_dim,
            "cfm_config": {"inference_cfg_rate": 2.0, **shape.flow},
        },
        "audio_vae_config": shape.audio_vae,
        "max_length": shape.max_length,
    }
    return VoxCPMConfig.from_dict(raw)
