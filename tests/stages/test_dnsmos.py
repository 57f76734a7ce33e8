"""Every clip that was not screened gets its four scores."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile as sf

from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Recording
from stages.dnsmos import DnsmosConfig, DnsmosStage

DEVSET = Path(__file__).parents[1] / "data" / "devset"
RATE = 16_000


def chunk_of(name: str, spans: list[tuple[float, float]]) -> Chunk:
    wave, _ = sf.read(DEVSET / "audio" / f"{name}.flac", dtype="float32")
    recording = Recording(
        recording_id=name,
        uri=name,
        session_id=name,
        duration_s=wave.size / RATE,
        sample_rate=RATE,
        channels=1,
        codec="flac",
        size_bytes=1,
        num_chunks=1,
    )
    clips = tuple(
        Clip(
            recording_id=name,
            session_id=name,
            chunk_index=0,
            start_sample=round(start * RATE),
            end_sample=round(end * RATE),
            sample_rate=RATE,
            start_s=start,
            end_s=end,
            duration_s=end - start,
        )
        for start, end in spans
    )
    return Chunk(
        recording=recording,
        index=0,
        start_sample=0,
        sample_rate=RATE,
        wave=wave,
        wave_16k=wave,
        clips=clips,
    )


def test_clips_are_scored_and_screened_ones_are_not() -> None:
    stage = pickle.loads(pickle.dumps(DnsmosStage(DnsmosConfig())))
    stage.setup()
    chunk = chunk_of("en_allison_s1", [(0.4, 4.6), (5.3, 7.2), (8.0, 18.8)])
    skipped = replace(chunk.clips[1], screened="snr")
    chunk = replace(chunk, clips=(chunk.clips[0], skipped, chunk.clips[2]))
    (scored,) = stage.process([chunk])
    assert scored.clips[1] == skipped
    for clip in (scored.clips[0], scored.clips[2]):
        assert clip.dnsmos_ovrl is not None
        assert 3.0 < clip.dnsmos_ovrl < 4.5
        assert None not in (clip.dnsmos_sig, clip.dnsmos_bak, clip.dnsmos_p808)
    assert chunk.clips[0].dnsmos_ovrl is None
    assert stage.process([chunk]) == stage.process([chunk])


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        DnsmosConfig(batch_size=0)
