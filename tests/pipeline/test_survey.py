"""Long recordings are cut in silence, and the chunks are the recording, sample for sample."""

import tracemalloc
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
from schemas.errors import UndecodableAudio
from tests.pipeline.test_audio import encode


@pytest.fixture(scope="session")
def long_wave(devset: Path) -> np.ndarray:
    """Five minutes of real speech at 16 kHz."""
    names = ("en_allison_s1", "en_allison_s2", "es_allison_s1", "fr_june_s1", "fr_armelle_s1")
    waves = [
        soundfile.read(devset / "audio" / f"{name}.flac", dtype="float32")[0] for name in names
    ]
    return np.concatenate(waves)


@pytest.mark.parametrize("suffix", ["flac", "wav", "ogg", "mp3", "m4a", "aac", "mkv", "mka"])
def test_chunks_are_the_recording(tmp_path: Path, long_wave: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"long.{suffix}"
    if suffix in {"flac", "wav", "ogg"}:
        with soundfile.SoundFile(path, "w", 16_000, 1) as file:
            for block in np.array_split(long_wave, 100):  # Vorbis overflows its stack on more
                file.write(block)
    else:
        # At 22,050 Hz a packet's time falls between the milliseconds that Matroska counts in.
        codec = "mp3" if suffix in {"mp3", "mka"} else "aac"
        encode(path, long_wave, codec, 22_050)
    source = Source(uri=str(path), size_bytes=1, modified="1", session_id="s")
    plans = survey(source, 80.0).chunks
    chunks = [read_chunk(plan) for plan in plans]
    [whole] = [read_chunk(plan) for plan in survey(source, 3600.0).chunks]
    joined = np.concatenate([chunk.wave for chunk in chunks])
    assert len(chunks) >= 3
    assert max(chunk.duration_s for chunk in chunks) <= 80.0
    assert joined.shape == whole.wave.shape
    if suffix in {"flac", "wav", "mp3", "mka"}:
        np.testing.assert_array_equal(joined, whole.wave)
    # AAC fills bands with noise that it draws anew at each start; a sample's shift gives 0.1.
    assert np.linalg.norm(joined - whole.wave) < 1e-2 * np.linalg.norm(whole.wave)
    for plan, chunk in zip(plans, chunks, strict=True):
        np.testing.assert_array_equal(read_chunk(plan).wave, chunk.wave)
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


@pytest.mark.parametrize("rate", [88_200, 96_000])
def test_resampled_chunks_are_the_resampled_recording(
    tmp_path: Path, long_wave: np.ndarray, rate: int
) -> None:
    """Speech at six times its pitch, so that there is something in the upper band as well."""
    path = tmp_path / "high.wav"
    soundfile.write(path, long_wave, rate, subtype="FLOAT")
    source = Source(uri=str(path), size_bytes=1, modified="1", session_id="s")
    chunks = [read_chunk(plan) for plan in survey(source, 20.0).chunks]
    [whole] = [read_chunk(plan) for plan in survey(source, 3600.0).chunks]
    joined = np.concatenate([chunk.wave for chunk in chunks])
    assert len(chunks) >= 3
    assert joined.shape == whole.wave.shape
    np.testing.assert_allclose(joined, whole.wave, atol=1e-6)


def test_a_channel_that_pauses_for_a_chunk_does_not_change_the_level(
    tmp_path: Path, long_wave: np.ndarray
) -> None:
    second = long_wave.copy()
    second[: second.size // 2] = 0
    path = tmp_path / "two.flac"
    soundfile.write(path, np.stack([long_wave, second], axis=1), 16_000)
    source = Source(uri=str(path), size_bytes=1, modified="1", session_id="s")
    first = read_chunk(survey(source, 60.0).chunks[0])
    np.testing.assert_allclose(first.wave, long_wave[: first.wave.size] / 2, atol=1e-4)


def test_a_file_that_changed_since_its_survey_is_refused(
    tmp_path: Path, long_wave: np.ndarray
) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, long_wave, 16_000)
    source = Source(uri=str(path), size_bytes=1, modified="1", session_id="s")
    plan = survey(source, 60.0).chunks[-2]
    soundfile.write(path, long_wave[: plan.start_sample + 16_000], 16_000)
    with pytest.raises(UndecodableAudio, match="when it was surveyed"):
        read_chunk(plan)


def test_what_was_cut_off_a_long_recording_is_noted_in_every_chunk(
    tmp_path: Path, long_wave: np.ndarray
) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, long_wave, 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = Source(uri=str(path), size_bytes=1, modified="1", session_id="s")
    chunks = [read_chunk(plan) for plan in survey(source, 60.0).chunks]
    assert all("truncated" in chunk.flags for chunk in chunks)
    joined = np.concatenate([chunk.wave for chunk in chunks])
    np.testing.assert_allclose(joined, long_wave[: joined.size], atol=1e-4)
    assert chunks[0].recording.duration_s == pytest.approx(joined.size / 16_000)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["flac", "wav"])
def test_an_hour_costs_the_memory_of_a_chunk(
    tmp_path: Path, long_wave: np.ndarray, suffix: str
) -> None:
    path = tmp_path / f"hour.{suffix}"
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        while file.frames < 3600 * 16_000:
            file.write(long_wave)
    source = Source(uri=str(path), size_bytes=1, modified="1", session_id="s")
    chunk_bytes = 600 * 16_000 * 4
    tracemalloc.start()
    plans = survey(source, 600.0).chunks
    survey_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    lengths = [read_chunk(plan).duration_s for plan in plans]
    read_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(lengths) > 3600
    assert max(lengths) <= 600
    assert survey_peak < chunk_bytes / 2
    assert read_peak < 4 * chunk_bytes
