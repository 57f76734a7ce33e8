"""What a checkpoint's config.json says, checked.

Field names are those of the file, so that what is saved is what official tools read. Unknown keys
are ignored, as they are there. Source: checkpoint spec §2.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from model_core.audio_vae.config import AudioVAEConfig
from schemas.errors import ConfigError

Architecture = Literal["voxcpm", "voxcpm2"]
"""The V1 class (VoxCPM-0.5B, VoxCPM1.5) or the V2 class (VoxCPM2)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeScaling:
    """LongRoPE: one divisor of the angle for each pair of channels."""

    type: Literal["longrope"] = "longrope"
    long_factor: tuple[float, ...]
    short_factor: tuple[float, ...]
    original_max_position_embeddings: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LMConfig:
    """The text-semantic language model (MiniCPM-4), whose traits the other transformers inherit."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    rope_scaling: RopeScaling
    use_mup: bool = True
    scale_emb: float
    scale_depth: float
    dim_model_base: int
    kv_channels: int | None = None
    """Channels per head; None is hidden_size / num_attention_heads."""
    bos_token_id: int = 1
    eos_token_id: int = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalConfig:
    """A transformer over the frames of one patch."""

    hidden_dim: int = 1024
    ffn_dim: int = 4096
    num_heads: int = 16
    num_layers: int = 4
    kv_channels: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowConfig:
    """Conditional flow matching (spec §8)."""

    sigma_min: float = 1e-6
    solver: Literal["euler"] = "euler"
    t_scheduler: Literal["log-norm", "uniform"] = "log-norm"
    training_cfg_rate: float = 0.1
    """Share of positions whose condition is dropped in training."""
    inference_cfg_rate: float = 1.0
    reg_loss_type: str = "l1"
    ratio_r_neq_t_range: tuple[float, float] = (0.25, 0.75)
    noise_cond_prob_range: tuple[float, float] = (0.0, 0.0)
    noise_cond_scale: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DiTConfig(LocalConfig):
    """The local diffusion transformer and its flow."""

    dit_mean_mode: bool = False
    cfm_config: FlowConfig = field(default_factory=FlowConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """One of the four transformers, with all that it inherits resolved."""

    dim: int
    ffn_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    residual_scale: float
    """What each branch is multiplied by before it is added: 1, or μP's scale_depth / √layers."""

    def __post_init__(self) -> None:
        for name in ("dim", "ffn_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"{self.num_heads} attention heads are not a multiple of "
                f"{self.num_kv_heads} key-value heads"
            )
        if self.head_dim % 2:
            raise ConfigError(f"channels per head must be even, got {self.head_dim}")


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxCPMConfig:
    """A whole model. `architecture` decides the class; see spec §2 for the released values."""

    architecture: Architecture
    lm_config: LMConfig
    patch_size: int
    feat_dim: int = 64
    residual_lm_num_layers: int
    residual_lm_no_rope: bool = False
    scalar_quantization_latent_dim: int
    scalar_quantization_scale: int = 9
    encoder_config: LocalConfig
    dit_config: DiTConfig
    audio_vae_config: AudioVAEConfig
    max_length: int
    """Positions of a sequence at most."""
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    dit_mean_mode: bool = False

    def __post_init__(self) -> None:
        channels = {
            "base and residual LM": self.base.head_dim,
            "encoder_config": self.encoder.head_dim,
            "dit_config": self.dit.head_dim,
        }
        factors = len(self.lm_config.rope_scaling.long_factor)
        if len(set(channels.values())) > 1:
            raise ConfigError(f"channels per head must agree in all transformers, got {channels}")
        if factors * 2 != self.base.head_dim:
            raise ConfigError(
                f"rope_scaling has {factors} factors, {self.base.head_dim // 2} are needed"
            )
        if len(self.lm_config.rope_scaling.short_factor) != factors:
            raise ConfigError("rope_scaling has long and short factors of different number")
        if self.dit_config.hidden_dim % 2:
            raise ConfigError(f"dit hidden_dim must be even, got {self.dit_config.hidden_dim}")
        for name in ("patch_size", "max_length", "scalar_quantization_scale"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.lm_config.rope_scaling.original_max_position_embeddings < 2:
            raise ConfigError("rope_scaling.original_max_position_embeddings must be at least 2")
        if self.feat_dim != self.audio_vae_config.latent_dim:
            raise ConfigError(
                f"feat_dim is {self.feat_dim}, but the AudioVAE has "
                f"{self.audio_vae_config.latent_dim} latent channels"
            )

    @property
    def is_v2(self) -> bool:
        """Whether this is the V2 class: concatenated conditions, references, AudioVAE V2."""
        return self.architecture == "voxcpm2"

    @property
    def mean_mode(self) -> bool:
        """Whether training aims at the mean velocity (off in every release)."""
        return self.dit_config.dit_mean_mode if self.is_v2 else self.dit_mean_mode

    @property
    def base(self) -> TransformerConfig:
        """The text-semantic LM."""
        lm = self.lm_config
        return self._transformer(
            lm.hidden_size,
            lm.intermediate_size,
            lm.num_hidden_layers,
            lm.num_attention_heads,
            lm.kv_channels,
        )

    @property
    def residual(self) -> TransformerConfig:
        """The residual acoustic LM."""
        lm = self.lm_config
        return self._transformer(
            lm.hidden_size,
            lm.intermediate_size,
            self.residual_lm_num_layers,
            lm.num_attention_heads,
            lm.kv_channels,
        )

    @property
    def encoder(self) -> TransformerConfig:
        """LocEnc."""
        return self._local(self.encoder_config)

    @property
    def dit(self) -> TransformerConfig:
        """LocDiT."""
        return self._local(self.dit_config)

    def _local(self, local: LocalConfig) -> TransformerConfig:
        return self._transformer(
            local.hidden_dim,
            local.ffn_dim,
            local.num_layers,
            local.num_heads,
            local.kv_channels,
        )

    def _transformer(
        self, dim: int, ffn_dim: int, num_layers: int, num_heads: int, head_dim: int | None
    ) -> TransformerConfig:
        lm = self.lm_config
        return TransformerConfig(
            dim=dim,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=lm.num_key_value_heads,
            head_dim=dim // num_heads if head_dim is None else head_dim,
            norm_eps=lm.rms_norm_eps,
            residual_scale=lm.scale_depth / math.sqrt(num_layers) if lm.use_mup else 1.0,
        )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "VoxCPMConfig":
        """Read a parsed config.json.

        Raises ConfigError for another family, a missing field or a value of the wrong kind.
        """
        architecture = str(raw.get("architecture", "voxcpm")).lower()
        if architecture not in ("voxcpm", "voxcpm2"):
            raise ConfigError(
                f"architecture {architecture!r} is not of this family (voxcpm, voxcpm2)"
            )
        if "lm_config" not in raw:
            raise ConfigError("config.json has no lm_config: not a checkpoint of this family")
        v2 = architecture == "voxcpm2"
        defaults: dict[str, Any] = {
            "patch_size": 4 if v2 else 2,
            "residual_lm_num_layers": 8 if v2 else 6,
            "scalar_quantization_latent_dim": 512 if v2 else 256,
            "max_length": 8192 if v2 else 4096,
            "encoder_config": {},
            "dit_config": {},
        }
        vae = AudioVAEConfig.from_dict(raw.get("audio_vae_config"), "v2" if v2 else "v1")
        try:
            return TypeAdapter(cls).validate_python(
                {**defaults, **raw, "architecture": architecture, "audio_vae_config": vae}
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"config.json: {where}: {first['msg']}") from error

    def to_dict(self) -> dict[str, Any]:
        """The official spelling; a key whose value is None is absent, as the format wants it."""
        raw = _without_none(asdict(self))
        raw["audio_vae_config"] = self.audio_vae_config.to_dict()
        if self.is_v2:
            del raw["dit_mean_mode"]
        else:
            del raw["residual_lm_no_rope"]
        return raw


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return list(value) if isinstance(value, tuple) else value
