"""A clip's FLAC gives back the samples that were in the recording."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigError, EmptyAudio
from schemas.rows import Chunk, Clip, Recording
from stages.encoding import Encoding, EncodingConfig
from stages.flac import flac_bytes

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"
SPEECH, RATE = sf.read(AUDIO / "en_allison_s1.flac", dtype="float32", frames=160_000)


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """Samples as int16, and the rate."""
    return sf.read(io.BytesIO(data), dtype="int16")


def make_chunk() -> Chunk:
    recording = Recording(
        recording_id="r",
        uri="r.flac",
        session_id="s",
        duration_s=10.0,
        sample_rate=RATE,
        channels=1,
        codec="flac",
        size_bytes=1,
        num_chunks=1,
    )
    clips = tuple(
        Clip(
            recording_id="r",
            session_id="s",
            chunk_index=1,
            start_sample=start,
            end_sample=end,
            sample_rate=RATE,
            start_s=start / RATE,
            end_s=end / RATE,
            duration_s=(end - start) / RATE,
        )
        for start, end in [(1_000, 40_000), (50_000, 120_001)]
    )
    return Chunk(
        recording=recording,
        index=1,
        start_sample=500,
        sample_rate=RATE,
        wave=SPEECH,
        wave_16k=SPEECH,
        clips=clips,
    )


def test_a_clip_comes_back_sample_for_sample() -> None:
    stage = pickle.loads(pickle.dumps(Encoding(EncodingConfig())))
    (chunk,) = stage.process([make_chunk()])
    source = np.round(SPEECH.astype(np.float64) * 32_768).astype(np.int16)
    for clip in chunk.clips:
        samples, rate = decode(clip.audio)
        assert rate == RATE
        assert samples.ndim == 1
        np.testing.assert_array_equal(samples, source[clip.start_sample - 500 :][: samples.size])
        assert samples.size == clip.end_sample - clip.start_sample


def test_encoding_twice_gives_the_same_bytes() -> None:
    chunk = make_chunk()
    stage = Encoding(EncodingConfig())
    first, second = stage.process([chunk]), stage.process([chunk])
    assert [c.audio for c in first[0].clips] == [c.audio for c in second[0].clips]
    assert chunk.clips[0].audio is None


@settings(deadline=None, max_examples=40)
@given(
    gain=st.floats(0, 40),
    rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000]),
    compression=st.floats(0, 1),
)
def test_no_sample_is_off_by_more_than_half_a_step_and_loud_ones_saturate(
    gain: float, rate: int, compression: float
) -> None:
    wave = SPEECH[:8_000] * np.float32(gain)
    samples, decoded_rate = decode(flac_bytes(wave, rate, compression))
    assert decoded_rate == rate
    wanted = np.clip(wave.astype(np.float64), -1, 32_767 / 32_768)
    assert np.max(np.abs(samples / 32_768 - wanted)) <= 0.5 / 32_768 + 1e-12


def test_nothing_cannot_be_stored() -> None:
    with pytest.raises(EmptyAudio):
        flac_bytes(np.zeros(0, np.float32), RATE)


def test_impossible_compression_is_refused() -> None:
    with pytest.raises(ConfigError, match="compression"):
        EncodingConfig(compression=1.5)
