"""A clip's audio as it is stored, what was said in it, and the outline of its waveform."""

import io
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import soundfile as sf

from pipeline.clip_rows import ClipRows
from pipeline.storage import Corpus
from schemas.errors import MissingSource, UndecodableAudio

OUTLINE_PER_S = 100
"""Points of the outline for each second."""


class Sounds:
    """Reads single rows by table, part and clip id. May be called from threads."""

    def __init__(self, corpus: Corpus, columns: Mapping[str, Sequence[str]]) -> None:
        """columns: table → those that are read, `audio` among them."""
        self._lock = threading.Lock()
        self._rows = {name: ClipRows(corpus, wanted) for name, wanted in columns.items()}

    def row(self, table: str, part: str, clip_id: str) -> dict[str, Any]:
        """The columns. Raises `MissingSource`, also for a clip that has no audio."""
        with self._lock:
            row = self._rows[table].row(part, clip_id)
        if row["audio"] is None:
            raise MissingSource(f"{part} holds no audio of clip {clip_id}")
        return row


def outline(flac: bytes) -> tuple[float, list[float]]:
    """Seconds of a clip, and its loudest sample in each hundredth of one, in [0, 1].

    Raises `UndecodableAudio`.
    """
    try:
        wave, sample_rate = sf.read(io.BytesIO(flac), dtype="float32")
    except sf.LibsndfileError as error:
        raise UndecodableAudio(f"a clip's audio does not decode: {error}") from error
    hop = max(1, sample_rate // OUTLINE_PER_S)
    whole = np.abs(np.pad(wave, (0, -len(wave) % hop)))
    peaks = whole.reshape(-1, hop).max(axis=1)
    return len(wave) / sample_rate, [round(float(peak), 3) for peak in peaks]
