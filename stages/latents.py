"""The AudioVAE latent of each clip."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from annotators.registry import checkpoint_folder
from schemas.errors import ConfigError, ModelLoadError, NonFiniteLatent
from schemas.latents import ClipSound, Latent

if TYPE_CHECKING:  # it imports PyTorch, which only its own workers should wait for
    from annotators.audio_vae import AudioVaeEncoder

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentsConfig:
    """How the AudioVAE runs."""

    device: str = "cpu"
    """`cpu` or `cuda`."""
    dtype: str = "float32"
    """Of its weights: `float32` or `bfloat16`; latents are kept in float16 either way."""
    threads: int = 1
    """Threads on a CPU: two processes of one are faster than one of two."""
    batch_s: float = 60.0
    """Seconds of audio encoded at once, at most; it bounds the memory."""

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"latents.device must be cpu or cuda, got {self.device!r}")
        if self.dtype not in DTYPES:
            raise ConfigError(f"latents.dtype must be {' or '.join(DTYPES)}, got {self.dtype!r}")
        if self.threads < 1 or self.batch_s <= 0:
            raise ConfigError("latents needs threads >= 1 and batch_s > 0")


def latent_row(clip: ClipSound, latent: npt.NDArray[np.float16], vae_hash: str) -> Latent:
    """The clip's row of `latents`. latent: (frames, channels). Raises NonFiniteLatent."""
    if not np.isfinite(latent).all():
        where = int(np.nonzero(~np.isfinite(latent))[0][0])
        raise NonFiniteLatent(
            f"frame {where} of {len(latent)} of the clip's latent is NaN or beyond float16"
        )
    data = latent.astype("<f2", copy=False).tobytes()
    return Latent(
        clip_id=clip.clip_id,
        latent=data,
        frames=latent.shape[0],
        channels=latent.shape[1],
        crc32=zlib.crc32(data),
        vae_hash=vae_hash,
        synthetic=clip.synthetic,
        attempt=clip.attempt,
    )


class Latents:
    """Fills `latent`, and lets go of the wave."""

    name = "latents"

    def __init__(self, config: LatentsConfig, checkpoint: str, vae_hash: str) -> None:
        """vae_hash: of the AudioVAE that the run was planned with."""
        self.config = config
        self.checkpoint = checkpoint
        self.vae_hash = vae_hash
        self._vae: AudioVaeEncoder | None = None

    def setup(self) -> None:
        """Open the AudioVAE. Raises ModelLoadError, also when it is another than was planned."""
        from annotators.audio_vae import AudioVaeEncoder

        config = self.config
        vae = AudioVaeEncoder(
            checkpoint_folder(self.checkpoint),
            device=config.device,
            dtype=config.dtype,
            threads=config.threads,
            batch_s=config.batch_s,
        )
        if vae.hash != self.vae_hash:
            raise ModelLoadError(
                f"{self.checkpoint} has another AudioVAE here ({vae.hash[:12]}) than where the run "
                f"was started ({self.vae_hash[:12]})"
            )
        self._vae = vae

    def process(self, batch: Sequence[ClipSound]) -> list[ClipSound]:
        """Return the clips with their latents."""
        assert self._vae is not None, "setup() comes first"
        waves = []
        for clip in batch:
            assert clip.wave is not None, "hearing comes first"
            waves.append(clip.wave)
        latents = self._vae.encode(waves)
        return [
            replace(clip, wave=None, latent=latent_row(clip, latent, self.vae_hash))
            for clip, latent in zip(batch, latents, strict=True)
        ]
