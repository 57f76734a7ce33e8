"""The audio of single clips, for whoever sends it on."""

import io
import threading

import soundfile as sf

from pipeline.audio import MODEL_RATE, at_model_rate
from pipeline.clip_rows import ClipRows
from pipeline.storage import Corpus
from schemas.errors import MissingSource, UndecodableAudio


class ClipAudio:
    """Reads FLAC bytes by part and clip. May be called from threads."""

    def __init__(self, corpus: Corpus) -> None:
        self._lock = threading.Lock()
        self._rows = ClipRows(corpus, ["audio"])

    def flac(self, part: str, clip_id: str) -> bytes:
        """The clip's audio as stored. Raises `MissingSource`."""
        with self._lock:
            audio: bytes | None = self._rows.row(part, clip_id)["audio"]
        if audio is None:
            raise MissingSource(f"{part} holds no audio of clip {clip_id}")
        return audio


def wav_at_model_rate(flac: bytes) -> bytes:
    """A FLAC file as a WAV file: 16 kHz, mono, 16 bit. Raises `UndecodableAudio`."""
    try:
        wave, sample_rate = sf.read(io.BytesIO(flac), dtype="float32")
    except sf.LibsndfileError as error:
        raise UndecodableAudio(f"a clip's audio does not decode: {error}") from error
    buffer = io.BytesIO()
    sf.write(buffer, at_model_rate(wave, sample_rate), MODEL_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
