"""What the AudioVAE hears of a clip: its stored audio, decoded, checked, at the AudioVAE's rate."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import soundfile as sf

from annotators.registry import checkpoint_folder
from schemas.errors import UndecodableAudio
from schemas.latents import ClipSound

if TYPE_CHECKING:  # it imports PyTorch, which only its own workers should wait for
    from annotators.audio_vae import Ear


def heard(clip: ClipSound, ear: "Ear") -> ClipSound:
    """The clip with its wave in place of its file.

    Raises UndecodableAudio, also where the file has another rate than the clip's row, EmptyAudio,
    NonFiniteAudio.
    """
    try:
        wave, rate = sf.read(io.BytesIO(clip.audio), dtype="float32")
    except (sf.LibsndfileError, RuntimeError) as error:
        raise UndecodableAudio(f"a clip's audio does not decode: {error}") from error
    if rate != clip.sample_rate:
        raise UndecodableAudio(f"the clip's audio is at {rate} Hz, its row says {clip.sample_rate}")
    return replace(clip, audio=b"", duration_s=len(wave) / rate, wave=ear.hear(wave, rate))


class Hearing:
    """Fills `wave` and `duration_s`."""

    name = "hearing"

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint
        self._ear: Ear | None = None

    def setup(self) -> None:
        """Read the checkpoint's config. Raises ModelLoadError."""
        from annotators.audio_vae import Ear

        self._ear = Ear(checkpoint_folder(self.checkpoint))

    def process(self, batch: Sequence[ClipSound]) -> list[ClipSound]:
        """Return the clips with their waves."""
        assert self._ear is not None, "setup() comes first"
        return [heard(clip, self._ear) for clip in batch]
