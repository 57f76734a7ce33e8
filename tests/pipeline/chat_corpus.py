"""A corpus of a few real clips, for tests that ask a model about them."""

from pathlib import Path

import soundfile as sf

from pipeline.ledger import UnitRecord
from pipeline.storage import Corpus
from schemas.ids import content_id
from schemas.rows import Clip
from stages.flac import flac_bytes

CLIP_S = 2.0
TRANSCRIPT = "The conference will begin when the leader arrives."


def chat_corpus(root: Path, devset: Path, num_clips: int = 12) -> Corpus:
    """Clips of two seconds of real speech, in one committed part."""
    wave, rate = sf.read(devset / "audio" / "en_allison_s1.flac", dtype="float32")
    size = int(CLIP_S * rate)
    clips = [
        Clip(
            clip_id=content_id("clip", index),
            recording_id="r",
            session_id="s",
            chunk_index=0,
            index_in_recording=index,
            start_sample=index * size,
            end_sample=(index + 1) * size,
            sample_rate=rate,
            start_s=index * CLIP_S,
            end_s=(index + 1) * CLIP_S,
            duration_s=CLIP_S,
            audio=flac_bytes(wave[index * size : (index + 1) * size], rate),
            text=TRANSCRIPT,
        )
        for index in range(num_clips)
    ]
    corpus = Corpus(str(root))
    unit = UnitRecord(unit_id="u", attempt=1, items=(), rows={"clips": len(clips)}, seconds={})
    corpus.commit("curate", [unit], {"clips": clips})
    return corpus
