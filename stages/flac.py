"""Audio as the corpus stores it: FLAC, mono, 16 bit.

FLAC keeps 16 bits exactly, so encoding twice gives the same bytes and a decoded clip can be
encoded again without loss. No dither: at 16 bits it would only add noise to what models learn.
"""

import io

import numpy as np
import soundfile as sf

from schemas.errors import EmptyAudio, UndecodableAudio
from schemas.rows import Wave

_FULL_SCALE = 32_768


def flac_bytes(wave: Wave, sample_rate: int, compression: float = 0.5) -> bytes:
    """A mono wave as a FLAC file, 16 bit. wave: (samples,), in [-1, 1], else it saturates.

    Raises EmptyAudio.
    """
    if wave.size == 0:
        raise EmptyAudio("a clip of 0 samples cannot be stored")
    scaled = np.round(wave.astype(np.float64) * _FULL_SCALE)
    pcm = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    buffer = io.BytesIO()
    sf.write(
        buffer, pcm, sample_rate, format="FLAC", subtype="PCM_16", compression_level=compression
    )
    return buffer.getvalue()


def wave_of(audio: bytes) -> tuple[Wave, int]:
    """A stored clip's samples (S,) and their rate in hertz. Raises UndecodableAudio."""
    try:
        wave, rate = sf.read(io.BytesIO(audio), dtype="float32")
    except (sf.LibsndfileError, RuntimeError) as error:
        raise UndecodableAudio(f"a clip's audio does not decode: {error}") from error
    return wave, int(rate)
