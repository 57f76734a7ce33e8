"""Long recordings are cut in silence, and the chunks are the recording, sample for sample."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audio import read_chunk
from pipeline.sources import Source
from pipeline.survey import cut_points, survey
from tests.pipeline.test_audio import encode


@pytest.fixture(scope="session")
def long_wave(devset: Path) -> np.ndarray:
    """Five minutes of real speech at 16 kHz."""
    names = ("en_allison_s1", "en_allison_s2", "es_allison_s1", "fr_june_s1", "fr_armelle_s1")
    waves = [
        soundfile.read(devset / "audio" / f"{name}.flac", dtype="float32")[0] for name in names
    ]
    return np.concatenate(waves)


@pytest.mark.parametrize("suffix", ["flac", "wav", "mp3", "m4a"])
def test_chunks_are_the_recording(tmp_path: Path, long_wave: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"long.{suffix}"
    if suffix in {"flac", "wav"}:
        soundfile.write(path, long_wave, 16_000)
    else:
        encode(path, long_wave, {"mp3": "mp3", "m4a": "aac"}[suffix])
    source = Source(uri=str(path), size_bytes=1, modified="1", session_id="s")
    plans = survey(source, 120.0).chunks
    chunks = [read_chunk(plan) for plan in plans]
    [whole] = [read_chunk(plan) for plan in survey(source, 3600.0).chunks]
    joined = np.concatenate([chunk.wave for chunk in chunks])
    assert len(chunks) >= 3
    assert max(chunk.duration_s for chunk in chunks) <= 120.0
    assert joined.shape == whole.wave.shape
    if suffix in {"flac", "wav"}:
        np.testing.assert_array_equal(joined, whole.wave)
    # A lossy decoder that starts anew draws other noise (AAC) and differs by rounding.
    assert np.linalg.norm(joined - whole.wave) < 3e-3 * np.linalg.norm(whole.wave)
    assert {chunk.recording for chunk in chunks} == {chunks[0].recording}
    assert chunks[0].recording.duration_s == pytest.approx(whole.recording.duration_s)
    assert [plan.start_sample for plan in plans[1:]] == [plan.end_sample for plan in plans[:-1]]


def test_cuts_lie_in_silence(tmp_path: Path, long_wave: np.ndarray) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, long_wave, 16_000)
    source = Source(uri=str(path), size_bytes=1, modified="1", session_id="s")
    loud = np.sqrt(np.mean(long_wave**2))
    for plan in survey(source, 120.0).chunks[1:]:
        around = long_wave[plan.start_sample - 1600 : plan.start_sample + 1600]
        assert np.sqrt(np.mean(around**2)) < loud / 30


@given(
    seed=st.integers(0, 2**16),
    seconds=st.integers(0, 900),
    chunk_s=st.integers(120, 300),
)
def test_no_piece_is_longer_than_a_chunk(seed: int, seconds: int, chunk_s: int) -> None:
    energies = np.random.default_rng(seed).random(seconds * 100).astype(np.float32)
    cuts = cut_points(energies, float(chunk_s))
    bounds = [0, *cuts, len(energies)]
    assert all(0 <= b - a <= chunk_s * 100 for a, b in pairwise(bounds))
    assert len(cuts) <= max(0, seconds // (chunk_s - 60))


def test_the_same_bytes_have_the_same_id_wherever_they_lie(tmp_path: Path, devset: Path) -> None:
    ids = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        path = tmp_path / place / "x.flac"
        path.write_bytes((devset / "audio" / "en_allison_s1.flac").read_bytes())
        ids.append(survey(Source(uri=str(path), session_id=place), 600.0).recording_id)
    assert ids[0] == ids[1]
    assert len(ids[0]) == 32
