"""Settings of the AudioVAE, as `audio_vae_config` of a model's config.json spells them (spec 2).

V1 hears and speaks at one rate. V2 may speak at another, and its decoder is told the bandwidth
to aim for. V1.5 is the V1 class with odd strides.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

from schemas.errors import ConfigError

Version = Literal["v1", "v2"]
CondType = Literal["scale_bias", "scale_bias_init", "add", "concat"]

_DEFAULTS: Mapping[Version, Mapping[str, Any]] = {
    "v1": {"decoder_dim": 1536, "decoder_rates": (8, 8, 5, 2), "sr_bin_boundaries": None},
    "v2": {"decoder_dim": 2048, "decoder_rates": (8, 6, 5, 2, 2, 2), "out_sample_rate": 48000},
}
_V2_ONLY = ("out_sample_rate", "sr_bin_boundaries", "cond_type", "cond_dim", "cond_out_layer")
_COUNTS = ("encoder_dim", "latent_dim", "decoder_dim", "sample_rate", "out_sample_rate", "cond_dim")
_FLAGS = ("depthwise", "use_noise_block", "cond_out_layer")


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioVAEConfig:
    """Sizes of encoder and decoder. The class defaults of a version are `from_dict({}, version)`."""

    version: Version
    """The class: it decides the encoder's padding and what an absent field means."""
    encoder_dim: int = 128
    """Channels at the waveform's rate; every stride doubles them."""
    encoder_rates: tuple[int, ...] = (2, 5, 8, 8)
    """Strides, from the waveform to the latent."""
    latent_dim: int = 64
    """Channels of a latent frame."""
    decoder_dim: int
    """Channels at the latent's rate; every upsampling halves them."""
    decoder_rates: tuple[int, ...]
    """Upsampling factors, from the latent to the waveform."""
    depthwise: bool = True
    """Whether the dilated convolutions of the residual units see one channel each."""
    use_noise_block: bool = False
    """Whether each upsampling adds noise, shaped by what it upsampled."""
    sample_rate: int = 16000
    """Rate that the encoder hears, in hertz."""
    out_sample_rate: int
    """Rate that the decoder speaks, in hertz; V1: `sample_rate`."""
    sr_bin_boundaries: tuple[int, ...] | None = (20000, 30000, 40000)
    """Hertz between the buckets of the condition on a sample rate; None: no condition (V1)."""
    cond_type: CondType = "scale_bias"
    """What the condition does to the channels."""
    cond_dim: int = 128
    """Channels that "concat" appends."""
    cond_out_layer: bool = False
    """Whether a Snake and a 1x1 convolution follow the condition; "concat" needs them."""

    def __post_init__(self) -> None:
        for name, choices in (("version", Version), ("cond_type", CondType)):
            if getattr(self, name) not in get_args(choices):
                raise ConfigError(
                    f"audio_vae_config.{name} must be one of {get_args(choices)}, "
                    f"got {getattr(self, name)!r}"
                )
        for name in _COUNTS:
            _require_count(name, getattr(self, name))
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(
                    f"audio_vae_config.{name} must be true or false, got {getattr(self, name)!r}"
                )
        for name in ("encoder_rates", "decoder_rates"):
            rates = getattr(self, name)
            if not isinstance(rates, tuple) or not rates:
                raise ConfigError(f"audio_vae_config.{name} must list strides, got {rates!r}")
            for rate in rates:
                _require_count(name, rate)
        if self.decoder_dim % 2 ** len(self.decoder_rates):
            raise ConfigError(
                f"audio_vae_config.decoder_dim must halve {len(self.decoder_rates)} times, "
                f"got {self.decoder_dim}"
            )
        self._check_condition()

    def _check_condition(self) -> None:
        bounds = self.sr_bin_boundaries
        if self.version == "v1":
            if self.out_sample_rate != self.sample_rate or bounds is not None:
                raise ConfigError(
                    "audio_vae_config: V1 has one sample rate and no sr_bin_boundaries, got "
                    f"out_sample_rate {self.out_sample_rate}, sr_bin_boundaries {bounds!r}"
                )
            return
        if bounds is None:
            return
        if not isinstance(bounds, tuple) or not bounds:
            raise ConfigError(
                f"audio_vae_config.sr_bin_boundaries must list hertz or be null, got {bounds!r}"
            )
        for bound in bounds:
            _require_count("sr_bin_boundaries", bound)
        if list(bounds) != sorted(set(bounds)):
            raise ConfigError(f"audio_vae_config.sr_bin_boundaries must rise, got {bounds!r}")
        if self.cond_type == "concat" and not self.cond_out_layer:
            raise ConfigError(
                "audio_vae_config.cond_out_layer must be true for cond_type 'concat', got false"
            )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any] | None, version: Version) -> Self:
        """Read `audio_vae_config`; what it leaves out takes the class's default (spec 2).

        Unknown keys are ignored, and so are the keys of V2 when `version` is "v1".
        """
        if version not in _DEFAULTS:
            raise ConfigError(f"the AudioVAE's version must be 'v1' or 'v2', got {version!r}")
        if not isinstance(raw, Mapping | None):
            raise ConfigError(f"audio_vae_config must be an object, got {raw!r}")
        known = {field.name for field in fields(cls)} - {"version"}
        if version == "v1":
            known -= set(_V2_ONLY)
        values = dict(_DEFAULTS[version])
        for name, value in (raw or {}).items():
            if name in known:
                values[name] = tuple(value) if isinstance(value, list) else value
        if version == "v1":
            values["out_sample_rate"] = values.get("sample_rate", 16000)
        return cls(version=version, **values)

    def to_dict(self) -> dict[str, Any]:
        """The official spelling; `from_dict` with the same version gives this config back."""
        left_out = {"version", *(_V2_ONLY if self.version == "v1" else ())}
        raw = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in raw.items()}

    @property
    def hop(self) -> int:
        """Samples of the encoder's waveform per latent frame."""
        return math.prod(self.encoder_rates)

    @property
    def out_hop(self) -> int:
        """Samples of the decoder's waveform per latent frame."""
        return math.prod(self.decoder_rates)


def _require_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"audio_vae_config.{name} must hold whole numbers >= 1, got {value!r}")
