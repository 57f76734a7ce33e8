"""Segments of real speech from memory, for tests of the trainer."""

from collections.abc import Iterator
from pathlib import Path

import soundfile as sf
import torch

from model_core.audio import resampled
from model_core.audio_vae import AudioVAE, AudioVAEConfig
from model_core.vae_training.batches import Batch, Cursor, HeldOutClip
from model_core.vae_training.settings import (
    DiscriminatorsConfig,
    LoopConfig,
    MelConfig,
    VAETraining,
)

FRAMES = 8
"""Latent frames of a segment: 0.32 s."""
V1 = AudioVAEConfig.from_dict(
    {"encoder_dim": 8, "latent_dim": 16, "decoder_dim": 64, "decoder_rates": [8, 8, 5, 2]}, "v1"
)
V2 = AudioVAEConfig.from_dict({"encoder_dim": 8, "latent_dim": 16, "decoder_dim": 128}, "v2")
V2_NARROW = AudioVAEConfig.from_dict(
    {
        "encoder_dim": 8,
        "latent_dim": 16,
        "decoder_dim": 64,
        "decoder_rates": [8, 8, 5, 2],
        "out_sample_rate": 16_000,
        "sr_bin_boundaries": [12_000],
    },
    "v2",
)
"""Hears and speaks at one rate, and is told whether it is a telephone."""
SMALL = DiscriminatorsConfig(
    periods=(2, 5),
    period_channels=(4, 8, 8),
    fft_sizes=(256,),
    fft_channels=4,
    scales=(1,),
    scale_channels=(4, 8, 8),
)
MEL = MelConfig(windows=(128, 512, 1024), num_mels=(10, 40, 80))


class WaveStream:
    """Implements `SegmentStream` over recordings of 16 kHz."""

    def __init__(
        self, files: list[Path], config: AudioVAEConfig, batch_size: int = 4, seed: int = 0
    ) -> None:
        waves = [torch.from_numpy(sf.read(file, dtype="float32")[0]) for file in files]
        self.heard = torch.cat(waves)
        rates = config.sample_rate, config.out_sample_rate
        self.target = resampled(self.heard, *rates, v2=True)
        self.config, self.batch_size, self.seed = config, batch_size, seed
        self.fingerprint = f"{len(self.heard)} {seed}"

    def cut(self, frame: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(S,) and (S',) of some frames."""
        hops = self.config.hop, self.config.out_hop
        waves = self.heard, self.target
        one, other = (
            wave[frame * hop : (frame + frames) * hop]
            for wave, hop in zip(waves, hops, strict=True)
        )
        return one, other

    def batches(self, start: Cursor) -> Iterator[Batch]:
        """The first second of every recording's five is held out."""
        index = start.batch
        total = len(self.heard) // self.config.hop - FRAMES
        while True:
            draw = torch.Generator().manual_seed(1000 * self.seed + index)
            frames = torch.randint(100, total, (self.batch_size,), generator=draw).tolist()
            cuts = [self.cut(frame, FRAMES) for frame in frames]
            index += 1
            yield Batch(
                torch.stack([heard for heard, _ in cuts])[:, None],
                torch.stack([target for _, target in cuts])[:, None],
                torch.full((self.batch_size,), 16_000),
                Cursor(0, 0, index),
            )

    def held_out(self) -> list[HeldOutClip]:
        """Two clips of two seconds."""
        cuts = [self.cut(frame, 50) for frame in (0, 50)]
        return [HeldOutClip(f"c{i}", *cut, 16_000) for i, cut in enumerate(cuts)]


def fresh(config: AudioVAEConfig, seed: int = 0) -> AudioVAE:
    """An AudioVAE of random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AudioVAE(config)


def recipe(**loop: object) -> VAETraining:
    """A small training; its loop settings as given."""
    common = {
        "learning_rate": 2e-3,
        "decay": 1.0,
        "log_every": 5,
        "validate_every": 1000,
        "save_every": 1000,
    }
    config = LoopConfig(**{**common, **loop})  # type: ignore[arg-type]
    return VAETraining(mel=MEL, discriminators=SMALL, training=config)
