"""Sizes of AudioVAEs that are no release's."""

from model_core.audio_vae.config import AudioVAEConfig

NANO = AudioVAEConfig(
    version="v2",
    encoder_dim=16,
    encoder_rates=(8, 5, 4, 4),
    latent_dim=64,
    decoder_dim=512,
    decoder_rates=(4, 4, 5, 8),
    sample_rate=16_000,
    out_sample_rate=16_000,
    sr_bin_boundaries=(12_000,),
)
"""Hears and speaks at 16 kHz, 25 latent frames a second: 2.5 M parameters, 10 MB.

Made to be trained on a few CPU cores, on recordings that mostly hold no more than 16 kHz. Speaking
at 48 kHz would cost three times the work per second of audio for a band that such recordings leave
empty. The largest stride is next to the waveform, since a CPU spends its time on what runs at the
waveform's rate. Its two buckets tell telephones from the rest, so that telephone recordings teach it
speech and not their sound.
"""
