"""The AudioVAE of the VoxCPM family in its three generations: V1, V1.5 and V2.

`layers`, `encoder` and `decoder` are the model as it is trained and saved; `folded_layers`,
`folded_encoder` and `folded_decoder` are the same model made ready for inference. A new layer goes
into both, and the test that folding changes nothing then holds them together.
"""

from model_core.audio_vae.config import AudioVAEConfig
from model_core.audio_vae.decoder import NoiseSource
from model_core.audio_vae.model import AudioVAE, DecoderStream

__all__ = ["AudioVAE", "AudioVAEConfig", "DecoderStream", "NoiseSource"]
