"""A corpus to browse: real utterances with sound and word times, written through the storage."""

from pathlib import Path
from typing import Any

import polars as pl
import soundfile as sf

from pipeline.ledger import Item, UnitRecord
from pipeline.policy import judge, load_policy
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, VERDICTS
from schemas.rows import Clip, Recording, Word
from schemas.synthetic import Synthetic
from stages.flac import flac_bytes

SCORES: dict[str, dict[str, Any]] = {
    "en_allison_s1": {"snr_db": 41.0},
    "en_allison_s1__music5": {"snr_db": 8.0},
    "fr_june_s1": {"snr_db": None, "language": "fr", "speaker": "june"},
}
EVIL = "<img src=x onerror=\"document.title='owned'\"></script>'\"& العربية"


def make_corpus(devset: Path, root: Path, each: int = 4) -> Corpus:
    """Some utterances of three sessions, judged by the default policy, and one clone."""
    truth = pl.read_parquet(devset / "ground_truth.parquet")
    corpus = Corpus(str(root))
    for session, scores in SCORES.items():
        wave, rate = sf.read(devset / "audio" / f"{session}.flac", dtype="float32")
        rows = truth.filter(recording_id=session).sort("start").head(each).to_dicts()
        clips = []
        for index, row in enumerate(rows):
            start, end = round(row["start"] * rate), round(row["end"] * rate)
            sound = flac_bytes(wave[start:end], rate)
            clips.append(_clip(session, index, start, end, rate, row["text"], sound, scores))
        _commit(corpus, "curate", session, {"clips": clips, "recordings": [_recording(session)]})
    _commit(corpus, "clone", "clone-0", {"synthetic": [_clone(clips[0])]})
    verdicts = judge(corpus.read(CLIPS), load_policy("default"))
    corpus.write_current("filter", VERDICTS, verdicts.to_arrow())
    return corpus


def _clip(
    session: str,
    index: int,
    start: int,
    end: int,
    rate: int,
    text: str,
    sound: bytes,
    scores: dict[str, Any],
) -> Clip:
    seconds = (end - start) / rate
    words = text.split()
    step = seconds / max(1, len(words))
    known = {
        "clip_id": f"{session}-{index:03d}",
        "recording_id": session,
        "session_id": session,
        "chunk_index": 0,
        "start_sample": start,
        "end_sample": end,
        "sample_rate": rate,
        "start_s": start / rate,
        "end_s": end / rate,
        "duration_s": seconds,
        "audio": sound,
        "language": "en",
        "speaker": "allison",
        "text": text,
        "bandwidth_hz": 7_800.0,
        "dnsmos_ovrl": 3.0 + index / 10,
        "words": tuple(
            Word(word=word, start_s=i * step, end_s=(i + 1) * step, prob=0.9)
            for i, word in enumerate(words)
        ),
    }
    return Clip(**(known | scores))


def _clone(clip: Clip) -> Synthetic:
    return Synthetic(
        clip_id="clone-0",
        described_id=clip.clip_id,
        session_id=clip.session_id,
        transcript_id="en_allison_s1-000",
        transcript_session_id="en_allison_s1",
        reference_ids=(clip.clip_id,),
        description="A calm woman speaks.",
        model="nano",
        model_hash="h",
        seed=1,
        candidates=2,
        language="en",
        text="please hold",
        lexical_overlap=0.0,
        sample_rate=clip.sample_rate,
        duration_s=clip.duration_s,
        audio=clip.audio or b"",
        watermark="m",
        watermark_score=0.9,
        stopped=True,
        text_asr="please hold",
        cer=0.0,
        length_ratio=1.0,
        attempt=1,
    )


def _recording(session: str) -> Recording:
    return Recording(
        recording_id=session,
        uri=f"talks/{session}.flac",
        session_id=session,
        duration_s=60.0,
        sample_rate=16_000,
        channels=1,
        codec="FLAC",
        size_bytes=1,
        num_chunks=1,
    )


def _commit(corpus: Corpus, phase: str, name: str, rows: dict[str, Any]) -> None:
    item = Item(item_id=name, uri=name, status="done", duration_s=60.0, facts={"source": "f"})
    unit = UnitRecord(unit_id=name, attempt=1, items=(item,), rows={}, seconds={})
    corpus.commit(phase, [unit], rows)
