"""Sizes of AudioVAEs that are no release's."""

from model_core.audio_vae.config import AudioVAEConfig

NANO = AudioVAEConfig(
    version="v2",
    encoder_dim=24,
    encoder_rates=(2, 5, 8, 8),
    latent_dim=64,
    decoder_dim=384,
    decoder_rates=(8, 8, 5, 2),
    sample_rate=16_000,
    out_sample_rate=16_000,
    sr_bin_boundaries=(12_000,),
)
"""Hears and speaks at 16 kHz, 25 latent frames a second: 3.5 M parameters, 14 MB.

Made to be trained in hours on a few CPU cores, on recordings that mostly hold no more than 16 kHz.
Speaking at 48 kHz would cost twice the time per second of audio, most of it in the discriminators,
for a band that such recordings leave empty. Its two buckets tell telephones from the rest, so that
telephone recordings teach it speech and not their sound. On one core it decodes some 25 times
faster than real time.
"""
